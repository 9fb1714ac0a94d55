//! Small images within the page.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;

use super::block::Picture;
use crate::data::relative;
use crate::encoder::read_image;
use crate::error::{Error, Result};

/// Longest side, in pixels: twice what the page shows, for screens that are finer.
const SIDE: u32 = 240;

/// Of JPEG, out of 100.
const QUALITY: u8 = 78;

/// Most bytes of all addresses together; a page that is sent or kept is no folder of images.
const MOST_BYTES: usize = 1_800_000;

/// The images of a dataset, made small when they are asked for.
pub struct Thumbnails {
    root: Option<PathBuf>,
    made: HashMap<String, Picture>,
    bytes: usize,
}

impl Thumbnails {
    /// Of the dataset in this folder; without one, there is none.
    pub fn new(root: Option<&Path>) -> Thumbnails {
        Thumbnails { root: root.map(Path::to_path_buf), made: HashMap::new(), bytes: 0 }
    }

    /// An image by its name, or why there is none: one that is missing or broken is no reason to have no report.
    pub fn picture(&mut self, name: Option<&str>) -> Picture {
        let absent = |why: &str| Picture { data: None, missing: why.to_string() };
        let (Some(name), Some(root)) = (name, &self.root) else {
            return absent(if name.is_none() { "no image" } else { "image in --data" });
        };
        let made = match self.made.get(name) {
            Some(made) => made.clone(),
            None => match small(root, name) {
                Ok(data) => Picture { data: Some(data), missing: String::new() },
                Err(_) => absent("image cannot be read"),
            },
        };
        self.made.insert(name.to_string(), made.clone());
        // Each use is written out again.
        self.bytes += made.data.as_ref().map_or(0, String::len);
        if self.bytes > MOST_BYTES { absent("no room for more images") } else { made }
    }
}

/// The address of a small copy of an image of a dataset.
fn small(root: &Path, name: &str) -> Result<String> {
    // The name may be of a summary that somebody sent.
    let path = root.join(relative(name).map_err(Error::invalid)?);
    let image = read_image(&path)?;
    let (width, height) = image.dimensions();
    let scale = (SIDE as f64 / width.max(height).max(1) as f64).min(1.0);
    let side = |length: u32| ((length as f64 * scale).round() as u32).max(1);
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    thumbnail(&image, side(width), side(height))
        .write_with_encoder(encoder)
        .map_err(|e| Error::file(&path, format!("cannot be made small: {e}")))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn images_are_small_and_within_the_dataset() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::from_fn(900, 300, |x, y| image::Rgb([x as u8, y as u8, 9]))
            .save(folder.path().join("a.png"))
            .unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/broken.png"), "x").unwrap();
        let mut of_folder = Thumbnails::new(Some(folder.path()));
        let data = of_folder.picture(Some("a.png")).data.unwrap();
        let bytes = STANDARD.decode(data.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let small = image::load_from_memory(&bytes).unwrap();
        assert_eq!((small.width(), small.height()), (240, 80));
        let mut inner = Thumbnails::new(Some(&folder.path().join("data")));
        for (name, why) in [
            (Some("../a.png"), "image cannot be read"),
            (Some("broken.png"), "image cannot be read"),
            (Some("none.png"), "image cannot be read"),
            (None, "no image"),
        ] {
            let picture = inner.picture(name);
            assert_eq!((picture.data, picture.missing.as_str()), (None, why), "{name:?}");
        }
        assert_eq!(Thumbnails::new(None).picture(Some("a.png")).missing, "image in --data");
    }

    #[test]
    fn images_have_room_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        // Noise, of which JPEG makes little less.
        let noise = RgbImage::from_fn(240, 240, |x, y| {
            let mix = x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b);
            image::Rgb([(mix >> 8) as u8, (mix >> 16) as u8, (mix >> 24) as u8])
        });
        noise.save(folder.path().join("a.png")).unwrap();
        let mut thumbnails = Thumbnails::new(Some(folder.path()));
        let lengths: Vec<usize> =
            (0..200).filter_map(|_| thumbnails.picture(Some("a.png")).data).map(|d| d.len()).collect();
        assert!(lengths.len() < 200 && lengths.iter().sum::<usize>() <= MOST_BYTES, "{}", lengths.len());
    }
}
