//! Image resizing with antialiasing, bit for bit as PIL does it: encoders were trained on its pixels, and other
//! libraries' rounding differs by up to two levels.
//!
//! Rows first, then columns, with coefficients in fixed point and 8-bit values between the passes.

use image::RgbImage;

use crate::device::cpu::simd;

/// Fractional bits of a coefficient: 32 less 8 for the value and 2 for overshoot.
const PRECISION: u32 = 22;

/// A resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Bilinear,
    Bicubic,
    Lanczos,
}

impl Filter {
    /// The filter that PIL gives this number.
    pub fn from_number(number: u32) -> Option<Filter> {
        match number {
            1 => Some(Filter::Lanczos),
            2 => Some(Filter::Bilinear),
            3 => Some(Filter::Bicubic),
            _ => None,
        }
    }

    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            // Catmull-Rom, a = -0.5.
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Where one output pixel's inputs start, and their weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(from: u32, to: u32, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: u32| {
        let center = (i as f64 + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from as usize);
        let raw: Vec<f64> = (start..end).map(|x| filter.at((x as f64 - center + 0.5) * (1.0 / stretch))).collect();
        let total: f64 = raw.iter().sum();
        let fixed = |w: &f64| {
            let w = if total == 0.0 { *w } else { w / total } * (1u32 << PRECISION) as f64;
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        Window { start, weights: raw.iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Resizes an image.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let wide = if width == image.width() { image.clone() } else { resize_rows(image, width, filter) };
    if height == image.height() { wide } else { resize_columns(&wide, height, filter) }
}

fn resize_rows(image: &RgbImage, width: u32, filter: Filter) -> RgbImage {
    let windows = windows(image.width(), width, filter);
    let mut out = RgbImage::new(width, image.height());
    let rows = image.as_raw().chunks_exact(3 * image.width() as usize);
    for (row, out) in rows.zip(out.chunks_exact_mut(3 * width as usize)) {
        for (window, out) in windows.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [1 << (PRECISION - 1); 3];
            for (pixel, &weight) in row[3 * window.start..].chunks_exact(3).zip(&window.weights) {
                (0..3).for_each(|c| sums[c] += pixel[c] as i32 * weight);
            }
            (0..3).for_each(|c| out[c] = to_byte(sums[c]));
        }
    }
    out
}

fn resize_columns(image: &RgbImage, height: u32, filter: Filter) -> RgbImage {
    let stride = 3 * image.width() as usize;
    let mut out = RgbImage::new(image.width(), height);
    let mut sums = vec![0i32; stride];
    let rows = windows(image.height(), height, filter);
    for (window, out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
        simd!({
            sums.fill(1 << (PRECISION - 1));
            for (row, &weight) in image.as_raw()[window.start * stride..].chunks_exact(stride).zip(&window.weights) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x as i32 * weight);
            }
            out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = to_byte(sum));
        });
    }
    out
}
