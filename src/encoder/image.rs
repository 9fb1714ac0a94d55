//! Image files to pixels.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};

use crate::error::{Error, Result};

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
