//! Image files to pixels.

mod budget;
mod kinds;

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Serialize};

pub use self::budget::Share;
use self::budget::{FILES, PIXELS};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::files;
use crate::guard::caught;
use crate::span;

/// Most memory that decoding one image may take.
const DECODE_LIMIT: u64 = 1_000_000_000;

/// Most bytes of an image file.
const FILE_LIMIT: u64 = 1_000_000_000;

/// Most pixels of an image: where Pillow refuses one as a decompression bomb.
const PIXEL_LIMIT: u64 = 178_956_970;

/// What an image file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width and height.
    pub size: (u32, u32),
    /// Whether its EXIF entry says that it is to be turned or mirrored to be looked at.
    pub turned: bool,
}

/// What becomes of an EXIF entry that says that an image is to be turned or mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExifOrientation {
    /// Pixels are taken as they are stored, as transformers takes them.
    #[default]
    Ignore,
    /// The image is turned and mirrored as one looks at it.
    Apply,
}

/// Reads an image file of any supported format. Transparency is dropped, as PIL's `convert("RGB")` does.
pub fn read_image(path: &Path) -> Result<RgbImage> {
    read_within_budget(path, ExifOrientation::Ignore).map(|(image, _)| image)
}

/// The same in this orientation, with the image's share of the memory for images: others wait for it until it is dropped.
pub fn read_within_budget(path: &Path, orientation: ExifOrientation) -> Result<(RgbImage, Share)> {
    let length = file_length(path)?;
    // The file's bytes, and the copy of them that some decoders make. They go before the pixels' share does.
    let _file = FILES.take(2 * length);
    let reading = span!("read image");
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    drop(reading);
    let _span = span!("decode image");
    let decoded =
        caught(|| decode(&bytes, orientation)).map_err(|panic| format!("cannot be decoded: {panic}")).flatten();
    decoded.map_err(|reason| Error::file(path, reason))
}

/// What an image file's header announces, which must be such as [`read_image`] takes.
pub fn image_header(path: &Path) -> Result<Header> {
    file_length(path)?;
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let header = || {
        let mut decoder = decoder(BufReader::new(file))?;
        let turned = decoder.orientation().is_ok_and(|orientation| orientation.to_exif() != 1);
        Ok(Header { size: decoder.dimensions(), turned })
    };
    let header = caught(header).map_err(|panic| format!("cannot be read: {panic}")).flatten();
    header.map_err(|reason: String| Error::file(path, reason))
}

/// Width and height that an image file's header announces, which must be such as [`read_image`] takes.
pub fn image_size(path: &Path) -> Result<(u32, u32)> {
    image_header(path).map(|header| header.size)
}

/// Bytes of an image file. Fails if a path is no regular file, or one that is larger than any image.
fn file_length(path: &Path) -> Result<u64> {
    let metadata = files::expect_regular(path)?;
    if metadata.len() > FILE_LIMIT {
        return Err(Error::file(
            path,
            format!("has {}; an image may have {} at most", Bytes(metadata.len()), Bytes(FILE_LIMIT)),
        ));
    }
    Ok(metadata.len())
}

fn decode(bytes: &[u8], orientation: ExifOrientation) -> Result<(RgbImage, Share), String> {
    let mut decoder = decoder(Cursor::new(bytes))?;
    let (width, height) = decoder.dimensions();
    // What the decoder gives, and the colours that are made of it.
    let share = PIXELS.take(decoder.total_bytes().saturating_add(3 * width as u64 * height as u64));
    let turned = match orientation {
        ExifOrientation::Ignore => Orientation::NoTransforms,
        ExifOrientation::Apply => decoder.orientation().map_err(undecodable)?,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    image.apply_orientation(turned);
    let image = image.into_rgb8();
    kinds::whole(bytes)?;
    Ok((image, share))
}

/// A decoder that has read the header and nothing else: what that announces may be absurd.
fn decoder<'a>(mut bytes: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, String> {
    kinds::known(bytes.fill_buf().map_err(|e| e.to_string())?)?;
    let mut reader = ImageReader::new(bytes).with_guessed_format().map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_LIMIT);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;
    check_size(decoder.dimensions())?;
    Ok(decoder)
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

fn undecodable(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => format!("is too large: decoding it may take {} at most", Bytes(DECODE_LIMIT)),
        // Decoders break their lines.
        error => {
            let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            format!("cannot be decoded: {reason}; is the file whole?")
        }
    }
}
