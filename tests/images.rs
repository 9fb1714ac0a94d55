//! Image files of unusual kinds, each compared with what Pillow makes of it (tests/fixtures/images/make.py).

use std::path::PathBuf;

use fissfuse::encoder::{image_size, read_image};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

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
