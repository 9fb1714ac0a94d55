//! Kinds of image files, by their first bytes, and whether a file goes on to its end.

use crate::foreign::foreign;

/// First bytes of the formats that are read.
const READ: [&[u8]; 7] = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"];

/// First bytes of formats that are not.
const UNREAD: [(&[u8], &str); 19] = [
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"\0\0\x02\0", "a cursor (CUR)"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"farbfeld", "Farbfeld"),
    (b"gimp xcf", "a GIMP document"),
    (b"AT&TFORM", "DjVu"),
    (b"/* XPM */", "XPM"),
    (b"#define ", "XBM"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
];

/// Brands of the ISO container.
const BRANDS: [(&[u8], &str); 8] = [
    (b"avif", "AVIF"),
    (b"avis", "AVIF"),
    (b"heic", "HEIC"),
    (b"heix", "HEIC"),
    (b"hevc", "HEIC"),
    (b"mif1", "HEIF"),
    (b"msf1", "HEIF"),
    (b"crx ", "a Canon raw image"),
];

/// Fails if a file is of no kind that is read, and says of which it is.
pub fn known(bytes: &[u8]) -> Result<(), String> {
    if READ.iter().any(|start| bytes.starts_with(start)) || is_webp(bytes) {
        return Ok(());
    }
    if let Some(kind) = unread(bytes) {
        return Err(format!("is {kind}, which is not read; convert it to PNG or JPEG"));
    }
    Err(match (bytes.is_empty(), foreign(bytes)) {
        (true, _) => "is empty".into(),
        (_, Some(advice)) => advice.into(),
        (_, None) => "is no image of a known format (JPEG, PNG, GIF, WebP, BMP, TIFF)".into(),
    })
}

fn is_webp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")
}

fn unread(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        let brand = bytes.get(8..12)?;
        return Some(BRANDS.iter().find(|(name, _)| *name == brand).map_or("a video or another ISO file", |(_, k)| k));
    }
    if let [b'P', b'1'..=b'7', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return Some("PPM or one of its kin (PBM, PGM, PNM, PAM)");
    }
    let start = &bytes[..bytes.len().min(1024)];
    let vector = (start.starts_with(b"<?xml") || start.starts_with(b"<!--") || start.starts_with(b"<svg"))
        && start.windows(4).any(|at| at == b"<svg");
    if vector {
        return Some("SVG");
    }
    UNREAD.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| *kind)
}

/// Fails if a file that its decoder took ends before its format's end: some decoders make up what is missing.
pub fn whole(bytes: &[u8]) -> Result<(), String> {
    let complete = match bytes {
        [0xff, 0xd8, ..] => jpeg_ends(bytes),
        _ if is_webp(bytes) => riff_ends(bytes),
        _ => true,
    };
    if complete { Ok(()) } else { Err("is cut short: its end is missing; download or copy it again".into()) }
}

/// Whether a JPEG's segments and scans go on to its end mark (EOI). What comes after that is not looked at, and marks
/// inside of segments, as those of a thumbnail, do not count.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next mark: 0xff and neither a filling 0xff, a 0xff of the data (0), nor a restart.
        let Some(&[first, mark]) = bytes.get(at..at + 2).and_then(|two| two.first_chunk()) else { return false };
        match (first, mark) {
            (0xff, 0xd9) => return true,
            (0xff, 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, mark) if mark != 0 && mark != 0xff => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            _ => at += 1,
        }
    }
}

/// Whether a RIFF file has as many bytes as it announces.
fn riff_ends(bytes: &[u8]) -> bool {
    let announced = bytes.get(4..8).and_then(|four| four.first_chunk()).map(|four| u32::from_le_bytes(*four));
    announced.is_some_and(|announced| bytes.len() as u64 >= 8 + u64::from(announced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for (bytes, says) in [
            (&b"\0\0\0\x1cftypavif"[..], "is AVIF, which is not read; convert it to PNG or JPEG"),
            (b"\0\0\0\x1cftypheic", "is HEIC"),
            (b"\0\0\0\x1cftypisom", "is a video"),
            (b"P6\n1 1\n255\n...", "is PPM"),
            (b"\0\0\x01\0\x01\0", "is an icon"),
            (b"8BPS\0\x01", "Photoshop"),
            (b"\xff\x0a\xfa", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
            (b"<?xml version='1.0'?>\n<svg xmlns='...'/>", "is SVG"),
            (b"<svg/>", "is SVG"),
            (b"<!DOCTYPE html>", "is a web page"),
            (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
            (b"", "is empty"),
            (b"hello", "is no image of a known format"),
        ] {
            let error = known(bytes).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_jpeg_ends_at_its_own_mark() {
        let whole = b"\xff\xd8\xff\xe1\0\x06\xff\xd9\0\0\xff\xda\0\x02\x12\xff\0\x34\xff\xd0\x56\xff\xff\xd9";
        assert!(jpeg_ends(whole));
        assert!((0..whole.len()).all(|len| !jpeg_ends(&whole[..len])));
        assert!(jpeg_ends(&[&whole[..], b"more"].concat()));
    }
}
