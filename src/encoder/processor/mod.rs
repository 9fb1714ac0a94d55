//! A decoded image to an encoder's input, as Hugging Face's image processors prepare it.

mod config;

use std::path::{Path, PathBuf};

use image::RgbImage;

pub use self::config::Kind;
use self::config::{Config, Size};
use super::image::{ExifOrientation, read_within_budget};
use super::resample::{Filter, resize};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::span;

/// Most bytes of a resized image.
const RESIZE_LIMIT: u64 = 1 << 30;

/// Most pixels of a side of an encoder's input: of the published encoders' inputs the largest has a fifth.
const LARGEST: u32 = 4096;

/// Resizes, crops and normalizes images.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    config: Config,
    file: PathBuf,
    filter: Filter,
    /// Height and width of what comes out.
    output: (u32, u32),
}

impl ImageProcessor {
    /// Reads how images are prepared from a model's folder, for a model that takes images of `size` x `size`, or square
    /// ones of any size. `kind` is what transformers takes for the model where the files do not say.
    pub fn open(folder: &Path, kind: Kind, size: Option<u32>) -> Result<ImageProcessor> {
        let (config, path) = Config::read(folder, kind)?;
        ImageProcessor::made(config, path, size)
    }

    /// The same from OpenCLIP's file, for a model that takes images of `size` x `size`.
    pub fn open_clip(path: &Path, size: u32) -> Result<ImageProcessor> {
        ImageProcessor::made(Config::open_clip(path, size)?, path.to_path_buf(), Some(size))
    }

    /// The same of settings that lie in no folder yet.
    pub fn of(fields: &Fields, kind: Kind, size: Option<u32>) -> Result<ImageProcessor> {
        ImageProcessor::made(Config::of(fields, kind)?, fields.path().to_path_buf(), size)
    }

    fn made(config: Config, path: PathBuf, size: Option<u32>) -> Result<ImageProcessor> {
        let refuse = |reason: String| Error::file(&path, reason);
        let config = config.without_crop_pct();
        let filter = Filter::from_number(config.resample).ok_or_else(|| {
            let found = config.resample;
            refuse(format!("asks for `resample` {found}; 1 (Lanczos), 2 (bilinear), 3 (bicubic) are supported"))
        })?;
        let output = match (config.crop, config.resize) {
            (Some(crop), _) => crop,
            (None, Some(Size::Exact { height, width })) => (height, width),
            _ => return Err(refuse("neither crops nor resizes to one size".into())),
        };
        let size = size.unwrap_or(output.0);
        if output != (size, size) {
            return Err(refuse(format!("makes images of {output:?}, the model takes {size} x {size}")));
        }
        if size > LARGEST {
            return Err(refuse(format!(
                "makes images of {size} x {size}; at most {LARGEST} x {LARGEST} are supported"
            )));
        }
        Ok(ImageProcessor { config, filter, output, file: path })
    }

    /// The file that says how images are prepared.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Width and height of what comes out.
    pub fn size(&self) -> usize {
        self.output.0 as usize
    }

    /// The encoder's input of an image file: (3, height, width).
    pub fn prepare(&self, path: &Path, orientation: ExifOrientation) -> Result<Vec<f32>> {
        // Its share of the memory for images is given back when it was made small.
        let (image, _share) = read_within_budget(path, orientation)?;
        let _span = span!("preprocess image");
        self.process(image).map_err(|error| Error::file(path, error.to_string()))
    }

    /// The encoder's input of an image: (3, height, width).
    pub fn process(&self, image: RgbImage) -> Result<Vec<f32>> {
        let image = match self.config.resize {
            Some(size) => self.resize(image, size)?,
            None => image,
        };
        Ok(self.normalize(&image))
    }

    fn resize(&self, image: RgbImage, size: Size) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        let (to_width, to_height) = match size {
            Size::Exact { height, width } => (width, height),
            Size::Shortest(edge) => {
                // The longer side is cut to a whole number, not rounded.
                let scaled = |long: u32, short: u32| (edge as u64 * long as u64 / short as u64).max(1) as u32;
                if width <= height { (edge, scaled(height, width)) } else { (scaled(width, height), edge) }
            }
        };
        if (to_width, to_height) == (width, height) {
            return Ok(image);
        }
        // A sliver of a pixel by tens of thousands would blow up the other way round.
        if to_width as u64 * to_height as u64 * 3 > RESIZE_LIMIT {
            return Err(Error::invalid(format!("has {width} x {height} pixels: too long and narrow to resize")));
        }
        Ok(resize(&image, to_width, to_height, self.filter))
    }

    /// Cuts out the centre (beyond the image's border: black) and normalizes.
    fn normalize(&self, image: &RgbImage) -> Vec<f32> {
        let config = &self.config;
        let ((height, width), (rows, columns)) = (self.output, (image.height(), image.width()));
        let margin = |outer: u32, inner: u32| {
            let both = outer as i64 - inner as i64;
            match config.rounded {
                // To the even one of two that are as near.
                true => (0.5 * both as f64).round_ties_even() as i64,
                // Python's floor division of a possibly negative margin.
                false => both.div_euclid(2),
            }
        };
        let (top, left) = (margin(rows, height), margin(columns, width));
        let mut pixels = Vec::with_capacity((3 * height * width) as usize);
        for channel in 0..3 {
            let factor = config.factor;
            let (mean, std) = (config.mean[channel], config.std[channel]);
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
