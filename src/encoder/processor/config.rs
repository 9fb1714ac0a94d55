//! `preprocessor_config.json`, or `image_processor` of `processor_config.json`, where transformers 5 keeps the same.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::fields::Fields;

/// Where transformers 4 keeps the settings.
const OWN: &str = "preprocessor_config.json";

/// Where transformers 5 keeps them, beside those of other processors.
const SHARED: &str = "processor_config.json";

/// The image processors whose work is computed; they differ in what they do where a file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CLIPImageProcessor: the shorter side to a size, the centre cut out.
    Clip,
    /// ConvNextImageProcessor: the same in one step, by `crop_pct`.
    ConvNext,
    /// ViTImageProcessor: to a square, whatever the sides.
    Vit,
    /// SiglipImageProcessor: the same by another filter.
    Siglip,
}

/// A size to resize to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The shorter side becomes this long; the longer one keeps its proportion.
    Shortest(u32),
    /// Both sides.
    Exact { height: u32, width: u32 },
}

/// What is done with an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// To which size, if at all.
    pub resize: Option<Size>,
    /// The filter's number in PIL.
    pub resample: u32,
    /// Height and width of the centre that is cut out, if one is.
    pub crop: Option<(u32, u32)>,
    /// Whether half a pixel beside it counts as in Python's `round` (torchvision), and is not cut off (transformers).
    pub rounded: bool,
    /// The size to resize to is the size of the crop; the shorter side is resized to it divided by this.
    crop_pct: Option<f32>,
    /// By which colours are multiplied.
    pub factor: f32,
    /// What is subtracted then, and what the rest is divided by.
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

/// From this size on ConvNextImageProcessor resizes to a square instead of cropping one.
const WARPED: u32 = 384;

impl Kind {
    fn of(fields: &Fields, default: Kind) -> Result<Kind> {
        // Older files have the second name.
        for key in ["image_processor_type", "feature_extractor_type"] {
            let Some(name) = fields.text(key)? else { continue };
            let base = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending));
            return match base {
                Some("CLIP") => Ok(Kind::Clip),
                Some("ConvNext") => Ok(Kind::ConvNext),
                Some("ViT") => Ok(Kind::Vit),
                Some("Siglip") => Ok(Kind::Siglip),
                _ => Err(fields.wrong(key, "the image processor of CLIP, ConvNext, ViT or Siglip, which are computed")),
            };
        }
        Ok(default)
    }

    fn size(self) -> Size {
        match self {
            Kind::Clip => Size::Shortest(224),
            Kind::ConvNext => Size::Shortest(384),
            Kind::Vit | Kind::Siglip => Size::Exact { height: 224, width: 224 },
        }
    }

    fn mean_and_std(self) -> [[f32; 3]; 2] {
        match self {
            Kind::Clip => [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]],
            Kind::ConvNext | Kind::Vit | Kind::Siglip => [[0.5; 3]; 2],
        }
    }
}

impl Config {
    /// Reads the settings; also says which file they are in. Where both files have some, they must agree.
    pub fn read(folder: &Path, default: Kind) -> Result<(Config, PathBuf)> {
        let [own, shared] = [OWN, SHARED].map(|name| folder.join(name));
        let nested = match shared.exists() {
            true => Fields::read(&shared)?.under("image_processor")?,
            false => None,
        };
        let alone = own.exists().then(|| Fields::read(&own)).transpose()?;
        let read = |fields: &Option<Fields>| fields.as_ref().map(|fields| Config::of(fields, default)).transpose();
        match (read(&alone)?, read(&nested)?) {
            (Some(a), Some(b)) if a != b => {
                let reason =
                    format!("disagrees with `image_processor` of {SHARED}; take out the one that is not meant");
                Err(Error::file(own, reason))
            }
            (Some(config), _) => Ok((config, own)),
            (None, Some(config)) => Ok((config, shared)),
            (None, None) => {
                let reason = format!(
                    "is missing, and so is `image_processor` of {SHARED}; one of them says how images become the \
                     model's input"
                );
                Err(Error::file(own, reason))
            }
        }
    }

    /// What settings say.
    pub fn of(fields: &Fields, default: Kind) -> Result<Config> {
        let kind = Kind::of(fields, default)?;
        for unsupported in ["do_pad", "do_flip_channel_order", "use_square_size"] {
            fields.only(unsupported, &[json!(false)])?;
        }
        fields.only("size_divisor", &[])?;
        fields.only("data_format", &[json!("channels_first")])?;
        fields.only("input_data_format", &[json!("channels_last")])?;
        let on = |key: &str, default: bool| Ok::<_, Error>(fields.flag(key)?.unwrap_or(default));
        let square = on("default_to_square", matches!(kind, Kind::Vit | Kind::Siglip))?;
        let size = size(fields, "size", square)?.unwrap_or(kind.size());
        let crop = match size_of_crop(fields)? {
            _ if !on("do_center_crop", kind == Kind::Clip)? => None,
            Some(crop) => Some(crop),
            None => Some((224, 224)),
        };
        let resize = on("do_resize", true)?.then_some(size);
        let crop_pct = match kind {
            Kind::ConvNext => Some(fields.or(fields.above_zero("crop_pct"), 224.0 / 256.0)?),
            // Not theirs, and of no effect there.
            Kind::Clip | Kind::Vit | Kind::Siglip => None,
        };
        if crop_pct.is_some_and(|part| part > 1.0) {
            return Err(fields.wrong("crop_pct", "a number between 0 and 1"));
        }
        if kind == Kind::ConvNext {
            match size {
                // Transformers 4 knows no other crop here, and 5 cuts this one out once more.
                Size::Shortest(edge) if crop.is_none_or(|crop| crop == (edge, edge)) => {}
                Size::Shortest(_) => return Err(fields.wrong("do_center_crop", "false, or a `crop_size` like `size`")),
                Size::Exact { .. } => return Err(fields.wrong("size", "a `shortest_edge`")),
            }
        }
        let [mean, std] = kind.mean_and_std();
        let normalize = on("do_normalize", true)?;
        let (mean, std) =
            (colours(fields, "image_mean")?.unwrap_or(mean), colours(fields, "image_std")?.unwrap_or(std));
        if normalize && std.contains(&0.0) {
            return Err(fields.error(format!("has a zero in `{}`", fields.name("image_std"))));
        }
        let factor = fields.or(fields.number("rescale_factor"), 1.0 / 255.0)?;
        Ok(Config {
            resize,
            resample: fields.or(fields.size("resample"), if kind == Kind::Vit { 2 } else { 3 })? as u32,
            crop: if kind == Kind::ConvNext { None } else { crop },
            rounded: false,
            crop_pct: resize.and(crop_pct),
            factor: if on("do_rescale", true)? { factor } else { 1.0 },
            mean: if normalize { mean } else { [0.0; 3] },
            std: if normalize { std } else { [1.0; 3] },
        })
    }

    /// The settings under `preprocess_cfg` of OpenCLIP's file, for images of this size.
    pub fn open_clip(path: &Path, size: u32) -> Result<Config> {
        let fields = Fields::read(path)?;
        let fields = fields.under("preprocess_cfg")?.unwrap_or(Fields::of(path, Map::new()));
        fields.only("mode", &[json!("RGB")])?;
        fields.only("interpolation", &[json!("bicubic")])?;
        fields.only("resize_mode", &[json!("shortest")])?;
        fields.only("fill_color", &[json!(0)])?;
        fields.only("size", &[json!(size), json!([size, size]), json!([3, size, size])])?;
        let [mean, std] = Kind::Clip.mean_and_std();
        let (mean, std) = (colours(&fields, "mean")?.unwrap_or(mean), colours(&fields, "std")?.unwrap_or(std));
        if std.contains(&0.0) {
            return Err(fields.error(format!("has a zero in `{}`", fields.name("std"))));
        }
        let (resize, crop, factor) = (Some(Size::Shortest(size)), Some((size, size)), 1.0 / 255.0);
        Ok(Config { resize, resample: 3, crop, rounded: true, crop_pct: None, factor, mean, std })
    }

    /// The same without `crop_pct`.
    pub fn without_crop_pct(self) -> Config {
        let (Some(part), Some(Size::Shortest(size))) = (self.crop_pct, self.resize) else { return self };
        if size >= WARPED {
            return Config { resize: Some(Size::Exact { height: size, width: size }), ..self };
        }
        // Computed in 64 bits, as Python does: 49 / 0.875 must not fall below 56.
        let resized = Size::Shortest((size as f64 / wide(part)) as u32);
        Config { crop: Some((size, size)), resize: Some(resized), ..self }
    }
}

/// The decimal number that was read as this one.
fn wide(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x.into())
}

/// A size: a number, which is both sides or the shorter one, or an object that says which.
fn size(fields: &Fields, key: &str, square: bool) -> Result<Option<Size>> {
    let given = match fields.get(key) {
        None => return Ok(None),
        Some(Value::Object(_)) => fields.under(key)?,
        Some(_) => None,
    };
    let wrong = || fields.wrong(key, "a number, a `shortest_edge`, or a `height` and a `width`");
    let side = |fields: &Fields, key: &str| fields.size_from_1(key)?.map(|side| side as u32).ok_or_else(wrong);
    let Some(given) = given else {
        let side = match fields.get(key) {
            Some(Value::Number(_)) => side(fields, key)?,
            _ => return Err(wrong()),
        };
        return Ok(Some(if square { Size::Exact { height: side, width: side } } else { Size::Shortest(side) }));
    };
    let mut keys: Vec<&str> = given.keys().collect();
    keys.sort_unstable();
    match keys[..] {
        ["shortest_edge"] => Ok(Some(Size::Shortest(side(&given, "shortest_edge")?))),
        ["height", "width"] => Ok(Some(Size::Exact { height: side(&given, "height")?, width: side(&given, "width")? })),
        [] => Ok(None),
        _ => Err(fields.wrong(key, "a `shortest_edge` alone, or a `height` and a `width`")),
    }
}

/// Height and width of the centre that is cut out.
fn size_of_crop(fields: &Fields) -> Result<Option<(u32, u32)>> {
    match size(fields, "crop_size", true)? {
        None => Ok(None),
        Some(Size::Exact { height, width }) => Ok(Some((height, width))),
        Some(Size::Shortest(_)) => Err(fields.wrong("crop_size", "a number, or a `height` and a `width`")),
    }
}

/// A number for each of the three colours, or one for all.
fn colours(fields: &Fields, key: &str) -> Result<Option<[f32; 3]>> {
    let Some(Value::Array(list)) = fields.get(key) else {
        return Ok(fields.number(key)?.map(|value| [value; 3]));
    };
    let finite = |x: &Value| x.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
    match fields.each(key, list, finite, "a number")?[..] {
        [r, g, b] => Ok(Some([r, g, b])),
        [one] => Ok(Some([one; 3])),
        _ => Err(fields.wrong(key, "a number, or one for each of three colours")),
    }
}
