//! The atlas of glyphs: 32 tiles of 64 x 64 pixels in a row.

use image::{DynamicImage, Rgb, RgbImage, RgbaImage, imageops};

use crate::error::{Error, Result};

const COLUMNS: u32 = 32;

/// Width and height of a glyph.
pub(super) const TILE: u32 = 64;

/// White around an entity's glyph.
const MARGIN: u32 = 24;

/// All glyphs.
pub(super) struct Glyphs(RgbaImage);

impl Glyphs {
    pub fn decode() -> Result<Glyphs> {
        const BYTES: &[u8] = include_bytes!("../../../assets/emoji/glyphs.webp");
        let atlas = image::load_from_memory_with_format(BYTES, image::ImageFormat::WebP);
        Ok(Glyphs(atlas.map_err(|e| Error::invalid(format!("demo glyphs: {e}")))?.into_rgba8()))
    }

    /// A glyph's pixels with their transparency.
    pub fn tile(&self, index: usize) -> RgbaImage {
        let (column, row) = (index as u32 % COLUMNS, index as u32 / COLUMNS);
        imageops::crop_imm(&self.0, column * TILE, row * TILE, TILE, TILE).to_image()
    }

    /// A glyph on white, about as large in its picture as a scene's target is in the scene.
    pub fn on_white(&self, index: usize) -> DynamicImage {
        let tile = self.tile(index);
        RgbImage::from_fn(TILE + 2 * MARGIN, TILE + 2 * MARGIN, |x, y| {
            let (x, y) = (x.wrapping_sub(MARGIN), y.wrapping_sub(MARGIN));
            if x >= TILE || y >= TILE {
                return Rgb([255; 3]);
            }
            let [r, g, b, a] = tile.get_pixel(x, y).0;
            let over = |c: u8| ((c as u32 * a as u32 + 255 * (255 - a as u32)) / 255) as u8;
            Rgb([over(r), over(g), over(b)])
        })
        .into()
    }
}
