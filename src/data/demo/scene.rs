//! Pictures of several glyphs on coloured ground.

use std::ops::Range;

use image::{DynamicImage, Rgb, RgbImage, RgbaImage};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::glyphs::{Glyphs, TILE};
use super::recipes::Recipe;

/// Width and height of a scene.
const SIZE: u32 = 128;

/// Width of the target's glyph: a picture's subject is larger than what stands beside it.
const TARGET: Range<f32> = 56.0..70.0;

/// Width of the other glyphs.
const OTHERS: Range<f32> = 40.0..50.0;

/// Largest turn of a glyph, in radians.
const TURN: f32 = 0.3;

/// How far from the middle a glyph stands that is alone, in pixels.
const ALONE: f32 = 24.0;

/// Paints a mention's scene: the target and what stands beside it, at cells of a 3 x 2 grid, scaled and turned at random.
pub(super) fn paint(glyphs: &Glyphs, recipe: &Recipe, rng: &mut ChaCha8Rng) -> DynamicImage {
    let ground = Rgb([0; 3].map(|_: u8| rng.random_range(120..=250)));
    let mut picture = RgbImage::from_pixel(SIZE, SIZE, ground);
    let mut cells: Vec<(f32, f32)> = (0..6).map(|i| ((i % 3) as f32, (i / 3) as f32)).collect();
    cells.shuffle(rng);
    // The target last: in front of the others.
    let others = recipe.others.iter().map(|&other| (other, OTHERS));
    for ((glyph, sides), (column, row)) in others.chain([(recipe.target, TARGET)]).zip(cells) {
        let (width, height) = (SIZE as f32 / 3.0, SIZE as f32 / 2.0);
        let mut jitter = |size: f32| rng.random_range(-0.12..0.12) * size;
        let center = ((column + 0.5) * width + jitter(width), (row + 0.5) * height + jitter(height));
        let side = rng.random_range(sides);
        let angle = rng.random_range(-TURN..TURN);
        stamp(&mut picture, &glyphs.tile(glyph), center, side, angle);
    }
    picture.into()
}

/// Paints one glyph anywhere, as large as a scene's target, on a ground of any colour or on white.
pub(super) fn paint_alone(glyphs: &Glyphs, glyph: usize, rng: &mut ChaCha8Rng) -> DynamicImage {
    let white = rng.random_bool(0.5);
    let ground = Rgb([0; 3].map(|_: u8| if white { 255 } else { rng.random_range(120..=250) }));
    let mut picture = RgbImage::from_pixel(SIZE, SIZE, ground);
    let side = rng.random_range(TARGET.start..TARGET.end + 10.0);
    let mut place = || SIZE as f32 / 2.0 + rng.random_range(-ALONE..ALONE);
    let center = (place(), place());
    stamp(&mut picture, &glyphs.tile(glyph), center, side, rng.random_range(-TURN..TURN));
    picture.into()
}

/// Blends a glyph into a picture: `side` pixels wide, turned by `angle` radians about its centre.
fn stamp(picture: &mut RgbImage, glyph: &RgbaImage, center: (f32, f32), side: f32, angle: f32) {
    let (sin, cos) = angle.sin_cos();
    let scale = TILE as f32 / side;
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let (dx, dy) = (x as f32 + 0.5 - center.0, y as f32 + 0.5 - center.1);
        let u = (cos * dx + sin * dy) * scale + TILE as f32 / 2.0 - 0.5;
        let v = (cos * dy - sin * dx) * scale + TILE as f32 / 2.0 - 0.5;
        let Some([r, g, b, a]) = sample(glyph, u, v) else { continue };
        for (under, over) in pixel.0.iter_mut().zip([r, g, b]) {
            *under = (over + *under as f32 * (1.0 - a)).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// Bilinear sample with colours already multiplied by opacity (0 to 1); `None` where there is nothing.
fn sample(glyph: &RgbaImage, u: f32, v: f32) -> Option<[f32; 4]> {
    let (left, top) = (u.floor(), v.floor());
    let mut sum = [0.0; 4];
    for (x, y, weight) in [
        (left, top, (left + 1.0 - u) * (top + 1.0 - v)),
        (left + 1.0, top, (u - left) * (top + 1.0 - v)),
        (left, top + 1.0, (left + 1.0 - u) * (v - top)),
        (left + 1.0, top + 1.0, (u - left) * (v - top)),
    ] {
        let inside = (0.0..TILE as f32).contains(&x) && (0.0..TILE as f32).contains(&y);
        if inside {
            let [r, g, b, a] = glyph.get_pixel(x as u32, y as u32).0.map(|c| c as f32);
            let opacity = a / 255.0 * weight;
            [r, g, b].into_iter().zip(&mut sum).for_each(|(c, sum)| *sum += c * opacity);
            sum[3] += opacity;
        }
    }
    (sum[3] > 0.0).then_some(sum)
}
