//! How close bf16 products come to what the processor can do.

use half::bf16;
use rand::Rng;

use crate::error::Result;
use crate::ops::linear::{Epilogue, Operand, PackedBf16, bf16_ceiling};
use crate::random::{Purpose, generator};

/// Sizes of a product (rows, inputs) x (outputs, inputs)ᵀ.
#[derive(Clone, Copy, Debug)]
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

/// A product that can be run, with the ceiling at that time.
pub struct ProductWork {
    /// FLOPs of a run.
    pub flops: f64,
    /// Multiplies once, into rows of f32.
    pub run: Box<dyn FnMut() -> Result<()>>,
    before: Option<f64>,
}

impl ProductWork {
    /// FLOPs per second of bf16 products on registers alone, the better of before and now; `None` where the processor has none.
    pub fn ceiling(&self) -> Option<f64> {
        let now = bf16_ceiling(3);
        now.zip(self.before).map(|(now, before)| now.max(before))
    }
}

/// Draws the operands of a product.
pub fn product_work(shape: ProductShape) -> Result<ProductWork> {
    let ProductShape { rows, outputs, inputs, .. } = shape;
    let mut rng = generator(0, Purpose::Benchmark, 0);
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (x, bias) = (draw(rows * inputs), draw(outputs));
    let weight = PackedBf16::new(&draw(outputs * inputs), outputs, inputs)?;
    let mut out = vec![0.0f32; rows * outputs];
    let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
    let run = Box::new(move || {
        // Inside of the thread pool, as the encoders run.
        rayon::scope(|_| match shape.narrow {
            true => weight.forward(Operand::new(&narrow, inputs), &mut out, Epilogue::bias(&bias)),
            false => weight.forward(Operand::new(&x, inputs), &mut out, Epilogue::bias(&bias)),
        })
    });
    Ok(ProductWork { flops: (2 * rows * outputs * inputs) as f64, run, before: bf16_ceiling(3) })
}
