//! Image files of unusual kinds, each compared with what Pillow makes of it (tests/fixtures/images/make.py).

use std::path::{Path, PathBuf};

use fissfuse::encoder::{ExifOrientation, Precision, image_header, image_size, read_image};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder};

use crate::support;

/// Largest difference of a channel, for a reason.
const KINDS: [(&str, u8); 10] = [
    // Two decoders of JPEG round differently, in the cosine transform and from YCbCr to RGB.
    ("gray.jpg", 2),
    ("cmyk.jpg", 4),
    ("palette.png", 0),
    ("gray-alpha.png", 0),
    ("bits.png", 0),
    // 16 bits are rounded here, cut off there.
    ("gray-16.png", 1),
    ("animated.gif", 0),
    ("animated.webp", 0),
    ("animated.png", 0),
    // Inks become colours by products that are rounded here, cut off there.
    ("cmyk.tif", 1),
];

fn fixture(name: &str) -> PathBuf {
    support::fixture("images").join(name)
}

#[test]
fn every_kind_of_image_is_read() {
    for (name, tolerance) in KINDS {
        let image = read_image(&fixture(name)).unwrap();
        assert_eq!((image.dimensions(), image_size(&fixture(name)).unwrap()), ((24, 16), (24, 16)), "{name}");
        let expected = std::fs::read(fixture(&format!("{name}.rgb"))).unwrap();
        let off = image.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(off <= tolerance && expected.len() == image.as_raw().len(), "{name} is off by {off}");
    }
}

#[test]
fn sixteen_bits_of_colour_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    let values: Vec<u8> = (0..8u16 * 8 * 3).flat_map(|v| (v * 300).to_ne_bytes()).collect();
    let file = std::fs::File::create(&path).unwrap();
    PngEncoder::new(file).write_image(&values, 8, 8, ExtendedColorType::Rgb16).unwrap();
    let image = read_image(&path).unwrap();
    for (i, &value) in image.as_raw().iter().enumerate() {
        assert!(value.abs_diff(((i as u16 * 300) >> 8) as u8) <= 1, "{i}");
    }
}

/// A PNG that announces this size, in 60 bytes.
fn announcing(width: u32, height: u32) -> Vec<u8> {
    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [&kind[..], data].concat();
        let crc = body
            .iter()
            .fold(!0u32, |crc, &byte| (0..8).fold(crc ^ byte as u32, |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))));
        [&(data.len() as u32).to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
    }
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let empty = [0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &empty), chunk(b"IEND", &[])].concat()
}

#[test]
fn a_decompression_bomb_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.png");
    for (width, height) in [(100_000, 100_000), (200_000_000, 1), (i32::MAX as u32, i32::MAX as u32)] {
        std::fs::write(&path, announcing(width, height)).unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(error.contains("bomb.png") && error.contains("too large"), "{error}");
        assert!(image_size(&path).is_err());
    }
    std::fs::write(&path, announcing(3, 0)).unwrap();
    assert!(read_image(&path).is_err());
}

/// A JPEG of noise, whose data is long, of 64 x 48 pixels.
fn jpeg() -> Vec<u8> {
    let noise = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x * 37 + y, y * 91, x ^ (y * 7)].map(|v| v as u8)));
    let mut bytes = std::io::Cursor::new(Vec::new());
    noise.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

#[test]
fn an_image_cut_short_is_unreadable_whatever_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut");
    let mut files: Vec<(&str, Vec<u8>)> = KINDS.map(|(name, _)| (name, std::fs::read(fixture(name)).unwrap())).into();
    files.push(("noise.jpg", jpeg()));
    let mut bmp = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(24, 16).write_to(&mut bmp, image::ImageFormat::Bmp).unwrap();
    files.push(("black.bmp", bmp.into_inner()));
    for (name, bytes) in files {
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_image(&path)
        };
        read(&bytes).unwrap();
        // Of animations the first picture counts, as in Pillow, so that only cuts before its end are seen.
        let parts: &[usize] = if name.starts_with("animated") { &[2, 10, 20] } else { &[2, 10, 50, 75, 90] };
        for part in parts {
            let len = bytes.len() * part / 100;
            assert!(read(&bytes[..len]).is_err(), "{name} at {len} of {} bytes", bytes.len());
        }
        if name.ends_with(".jpg") {
            for len in [bytes.len() - 2, bytes.len() - 1] {
                let error = read(&bytes[..len]).unwrap_err().to_string();
                assert!(error.contains("cut short") || error.contains("cannot be decoded"), "{name}: {error}");
            }
            read(&[&bytes[..], b"what follows"].concat()).unwrap();
        }
    }
}

#[test]
fn a_png_with_a_wrong_checksum_is_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    let mut bytes = std::fs::read(fixture("palette.png")).unwrap();
    let data = bytes.windows(4).position(|at| at == b"IDAT").unwrap();
    bytes[data + 8] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(read_image(&path).unwrap_err().to_string().contains("x.png: cannot be decoded"));
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
        for error in [read_image(path).map(drop).unwrap_err(), image_size(path).map(drop).unwrap_err()] {
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }
}

#[test]
fn a_turned_image_is_known_by_its_exif_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    let bytes = jpeg();
    // Big-endian TIFF with one entry: tag 0x112, type SHORT, one value.
    let exif = |orientation: u8| {
        let body =
            [&b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation], b"\0\0\0\0\0\0"].concat();
        let length = (body.len() as u16 + 2).to_be_bytes();
        [&bytes[..2], b"\xff\xe1", &length, &body, &bytes[2..]].concat()
    };
    let encoder =
        fissfuse::encoder::ImageEncoder::open(&support::fixture("clip/quick-gelu-f32"), Precision::F32).unwrap();
    let upright = folder.path().join("upright.png");
    for (orientation, turned) in [(1, false), (6, true), (3, true)] {
        std::fs::write(&path, exif(orientation)).unwrap();
        // What an encoder gets is the image as one looks at it, if it is asked for.
        let image = DynamicImage::from(read_image(&path).unwrap());
        let image = match orientation {
            6 => image.rotate90(),
            3 => image.rotate180(),
            _ => image,
        };
        image.save(&upright).unwrap();
        let looked_at = encoder.prepare(&upright, ExifOrientation::Ignore).unwrap();
        assert!(encoder.prepare(&path, ExifOrientation::Apply).unwrap() == looked_at, "{orientation}");
        assert_eq!(encoder.prepare(&path, ExifOrientation::Ignore).unwrap() == looked_at, !turned, "{orientation}");
        assert_eq!(image_header(&path).unwrap().turned, turned, "{orientation}");
        // As in transformers, which leaves it lying.
        assert_eq!(read_image(&path).unwrap().dimensions(), (64, 48));
    }
    std::fs::write(&path, &bytes).unwrap();
    assert!(!image_header(&path).unwrap().turned);
}
