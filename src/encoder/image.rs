//! Image files to an encoder's input, as Hugging Face's CLIPImageProcessor prepares them.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};
use serde::Deserialize;

use super::resample::{Filter, resize};
use crate::error::{Error, Result};
use crate::files;

/// Most memory that decoding one image may take.
const DECODE_LIMIT: u64 = 1 << 30;

/// Most pixels of an image: where Pillow refuses one as a decompression bomb.
const PIXEL_LIMIT: u64 = 178_956_970;

/// Reads an image file of any supported format. Transparency is dropped, as PIL's `convert("RGB")` does.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    decode(Cursor::new(bytes)).map_err(|reason| Error::file(path, reason))
}

fn decode(bytes: impl BufRead + Seek) -> Result<RgbImage, String> {
    let mut reader = reader(bytes)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_LIMIT);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;
    // The header is read, nothing else: what it announces may be absurd.
    check_size(decoder.dimensions())?;
    Ok(DynamicImage::from_decoder(decoder).map_err(undecodable)?.into_rgb8())
}

fn check_size((width, height): (u32, u32)) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err("has no pixels".into());
    }
    if width as u64 * height as u64 > PIXEL_LIMIT {
        return Err(format!("is too large: it announces {width} x {height} pixels, of at most {PIXEL_LIMIT}"));
    }
    Ok(())
}

fn reader<R: BufRead + Seek>(bytes: R) -> Result<ImageReader<R>, String> {
    let reader = ImageReader::new(bytes).with_guessed_format().map_err(|e| e.to_string())?;
    match reader.format() {
        Some(_) => Ok(reader),
        None => Err("is no image of a known format (JPEG, PNG, GIF, WebP, BMP, TIFF)".into()),
    }
}

fn undecodable(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => format!("is too large: decoding it may take {DECODE_LIMIT} bytes at most"),
        error => format!("cannot be decoded: {error}; is the file whole?"),
    }
}

/// Width and height that an image file's header announces, which must be such as [`read_image`] takes.
pub fn image_size(path: &Path) -> Result<(u32, u32)> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let size = reader(BufReader::new(file)).and_then(|reader| reader.into_dimensions().map_err(undecodable));
    let checked = size.and_then(|size| check_size(size).map(|()| size));
    checked.map_err(|reason| Error::file(path, reason))
}

/// A size that Hugging Face writes as a number or as an object.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u32),
    Shortest { shortest_edge: u32 },
    Exact { height: u32, width: u32 },
}

/// `preprocessor_config.json`. Defaults are CLIPImageProcessor's, but for `crop_pct`, which is ConvNextImageProcessor's.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct Config {
    do_resize: bool,
    size: Size,
    resample: u32,
    do_center_crop: bool,
    crop_size: Size,
    /// `size` is the size of the crop; the shorter side is resized to it divided by this.
    crop_pct: Option<f32>,
    do_rescale: bool,
    rescale_factor: f32,
    do_normalize: bool,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

impl Default for Config {
    fn default() -> Config {
        Config {
            do_resize: true,
            size: Size::Number(224),
            resample: 3,
            do_center_crop: true,
            crop_size: Size::Number(224),
            crop_pct: None,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// From this size on ConvNextImageProcessor resizes to a square instead of cropping one.
const WARPED: u32 = 384;

impl Config {
    /// The same without `crop_pct`.
    fn without_crop_pct(self) -> Config {
        let (Some(part), Size::Number(size) | Size::Shortest { shortest_edge: size }) = (self.crop_pct, self.size)
        else {
            return self;
        };
        if size >= WARPED {
            return Config { do_center_crop: false, size: Size::Exact { height: size, width: size }, ..self };
        }
        let resized = Size::Number((size as f32 / part) as u32);
        Config { do_center_crop: true, crop_size: Size::Number(size), size: resized, ..self }
    }
}

/// Resizes, crops and normalizes images.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    config: Config,
    filter: Filter,
    /// Height and width of what comes out.
    output: (u32, u32),
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json` of a model's folder, for a model that takes images of `size` x `size`, or square
    /// ones of any size.
    pub fn open(folder: &Path, size: Option<u32>) -> Result<ImageProcessor> {
        let path = folder.join("preprocessor_config.json");
        if !path.exists() {
            return Err(Error::file(&path, "is missing; it says how images become the model's input"));
        }
        let config: Config = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no image processor's configuration: {e}")))?;
        if config.crop_pct.is_some_and(|part| !(part > 0.0 && part <= 1.0)) {
            return Err(Error::file(&path, "has a `crop_pct` that is not between 0 and 1"));
        }
        let config = config.without_crop_pct();
        let filter = Filter::from_number(config.resample).ok_or_else(|| {
            let reason = format!(
                "asks for `resample` {}; 1 (Lanczos), 2 (bilinear), 3 (bicubic) are supported",
                config.resample
            );
            Error::file(&path, reason)
        })?;
        let output = match (config.do_center_crop, config.crop_size, config.do_resize, config.size) {
            (true, Size::Number(n) | Size::Shortest { shortest_edge: n }, _, _) => (n, n),
            (true, Size::Exact { height, width }, _, _) => (height, width),
            (false, _, true, Size::Exact { height, width }) => (height, width),
            _ => return Err(Error::file(&path, "neither crops nor resizes to one size")),
        };
        let size = size.unwrap_or(output.0);
        if output != (size, size) || size == 0 {
            let reason = format!("makes images of {output:?}, the model takes {size} x {size}");
            return Err(Error::file(&path, reason));
        }
        if config.image_std.contains(&0.0) {
            return Err(Error::file(&path, "has a zero in `image_std`"));
        }
        Ok(ImageProcessor { config, filter, output })
    }

    /// Width and height of what comes out.
    pub fn size(&self) -> usize {
        self.output.0 as usize
    }

    /// The encoder's input of an image: (3, height, width).
    pub fn process(&self, image: RgbImage) -> Result<Vec<f32>> {
        let image = if self.config.do_resize { self.resize(image)? } else { image };
        Ok(self.normalize(&image))
    }

    fn resize(&self, image: RgbImage) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        let (to_width, to_height) = match self.config.size {
            Size::Exact { height, width } => (width, height),
            Size::Number(edge) | Size::Shortest { shortest_edge: edge } => {
                // The longer side is cut to a whole number, not rounded.
                let scaled = |long: u32, short: u32| (edge as u64 * long as u64 / short as u64).max(1) as u32;
                if width <= height { (edge, scaled(height, width)) } else { (scaled(width, height), edge) }
            }
        };
        if (to_width, to_height) == (width, height) {
            return Ok(image);
        }
        // A sliver of a pixel by tens of thousands would blow up the other way round.
        if to_width as u64 * to_height as u64 * 3 > DECODE_LIMIT {
            return Err(Error::invalid(format!("has {width} x {height} pixels: too long and narrow to resize")));
        }
        Ok(resize(&image, to_width, to_height, self.filter))
    }

    /// Cuts out the centre (beyond the image's border: black) and normalizes.
    fn normalize(&self, image: &RgbImage) -> Vec<f32> {
        let config = &self.config;
        let ((height, width), (rows, columns)) = (self.output, (image.height(), image.width()));
        // Python's floor division of a possibly negative margin.
        let margin = |outer: u32, inner: u32| (outer as i64 - inner as i64).div_euclid(2);
        let (top, left) = (margin(rows, height), margin(columns, width));
        let mut pixels = Vec::with_capacity((3 * height * width) as usize);
        for channel in 0..3 {
            let factor = if config.do_rescale { config.rescale_factor } else { 1.0 };
            let (mean, std) = match config.do_normalize {
                true => (config.image_mean[channel], config.image_std[channel]),
                false => (0.0, 1.0),
            };
            for y in 0..height as i64 {
                for x in 0..width as i64 {
                    let (y, x) = (y + top, x + left);
                    let inside = (0..rows as i64).contains(&y) && (0..columns as i64).contains(&x);
                    let value = if inside { image.get_pixel(x as u32, y as u32)[channel] } else { 0 };
                    pixels.push((value as f32 * factor - mean) / std);
                }
            }
        }
        pixels
    }
}
