//! How close bf16 products come to what the processor can do.

use half::bf16;
use rand::Rng;
use serde::Serialize;

use super::Timing;
use crate::error::Result;
use crate::ops::linear::{Epilogue, Operand, PackedBf16, bf16_ceiling};
use crate::random::{Purpose, generator};

/// Sizes of a product (rows, inputs) x (outputs, inputs)ᵀ.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProductShape {
    /// Where it stands.
    pub name: &'static str,
    pub rows: usize,
    pub outputs: usize,
    pub inputs: usize,
    /// Whether the rows lie in bf16, as a layer before wrote them, or in f32.
    pub narrow: bool,
}

const fn shape(name: &'static str, rows: usize, outputs: usize, inputs: usize) -> ProductShape {
    ProductShape { name, rows, outputs, inputs, narrow: true }
}

const fn wide(name: &'static str, rows: usize, outputs: usize, inputs: usize) -> ProductShape {
    ProductShape { narrow: false, ..shape(name, rows, outputs, inputs) }
}

/// Products of ViT-B/32 on 32 images, of CLIP's text tower and of BERT on 32 texts of 16 tokens.
pub const ENCODER_PRODUCTS: [ProductShape; 10] = [
    wide("ViT-B/32 patches", 1568, 768, 3072),
    shape("ViT-B/32 query, key, value", 1600, 2304, 768),
    shape("ViT-B/32 out", 1600, 768, 768),
    shape("ViT-B/32 up", 1600, 3072, 768),
    shape("ViT-B/32 down", 1600, 768, 3072),
    shape("CLIP text query, key, value", 512, 1536, 512),
    shape("CLIP text up", 512, 2048, 512),
    shape("CLIP text down", 512, 512, 2048),
    wide("BERT up", 512, 3072, 768),
    shape("BERT down", 512, 768, 3072),
];

/// A product's rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProductRate {
    #[serde(flatten)]
    pub shape: ProductShape,
    /// FLOPs per second, of the median run.
    pub flops: f64,
    /// The ceiling at that time.
    pub ceiling: f64,
}

/// Times a product into rows of f32, `runs` times, beside the ceiling measured just before and after.
pub fn product_rate(shape: ProductShape, runs: usize) -> Result<ProductRate> {
    let ProductShape { rows, outputs, inputs, .. } = shape;
    let mut rng = generator(0, Purpose::Benchmark, 0);
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (x, bias) = (draw(rows * inputs), draw(outputs));
    let weight = PackedBf16::new(&draw(outputs * inputs), outputs, inputs)?;
    let mut out = vec![0.0f32; rows * outputs];
    let before = bf16_ceiling(3).unwrap_or(f64::NAN);
    let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    let timing = Timing::of(2, runs, || {
        // Inside of the thread pool, as the encoders run.
        rayon::scope(|_| match shape.narrow {
            true => weight.forward(Operand::new(&narrow, inputs), &mut out, Epilogue::bias(&bias)),
            false => weight.forward(Operand::new(&x, inputs), &mut out, Epilogue::bias(&bias)),
        })
    })?
    .summary();
    let ceiling = before.max(bf16_ceiling(3).unwrap_or(f64::NAN));
    Ok(ProductRate { shape, flops: (2 * rows * outputs * inputs) as f64 / timing.p50, ceiling })
}
