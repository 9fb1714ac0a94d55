//! Operations of encoders.

use super::{Draw, Inference, ROUNDED, Ready, placed};
use crate::autograd::Cost;
use crate::ops::attention::{self, Heads, SelfAttention};
use crate::ops::convolution::{self, Convolution, Filters, Maps};
use crate::ops::embedding::{Embedding, PatchEmbedding};
use crate::ops::layer_norm::{self, Norm};
use crate::ops::linear::{self, Activation, Linear, Windows};
use crate::ops::pool::{MaxPool, mean};
use crate::tensor::{Element, Sequences, Tensor};

pub fn small() -> Vec<Inference> {
    vec![
        linear((1, 8, 8), None, false),
        linear((33, 40, 72), Some(Activation::QuickGelu), false),
        linear((129, 96, 136), Some(Activation::Gelu), true),
        linear((70, 32, 48), Some(Activation::TanhGelu), false),
        linear((200, 776, 24), Some(Activation::Relu), true),
        layer_norm(1, 4),
        layer_norm(67, 768),
        attention(&[1], Heads { count: 1, width: 16, causal: true }),
        attention(&[7, 16, 1, 13], Heads { count: 2, width: 64, causal: true }),
        attention(&[17, 65, 130, 3], Heads { count: 2, width: 48, causal: false }),
        embedding(&[2, 5, 1], 11, 36),
        patch_embedding(3, 4, 36),
        convolution(2, [23, 17], Filters { outputs: 16, inputs: 3, kernel: 7, stride: 2, padding: 3 }),
        convolution(3, [9, 7], Filters { outputs: 72, inputs: 24, kernel: 3, stride: 1, padding: 1 }),
        convolution(3, [12, 20], Filters { outputs: 16, inputs: 3, kernel: 4, stride: 4, padding: 0 }),
        max_pool(2, [9, 8], 12),
        means(&[3, 1, 40], 516),
    ]
}

pub fn large() -> Vec<Inference> {
    let vision = Heads { count: 12, width: 64, causal: false };
    let text = Heads { count: 8, width: 64, causal: true };
    vec![
        convolution(32, [224, 224], Filters { outputs: 768, inputs: 3, kernel: 32, stride: 32, padding: 0 }),
        patch_embedding(32, 49, 768),
        layer_norm(1600, 768),
        linear((1600, 768, 2304), None, false),
        attention(&[50; 32], vision),
        linear((1600, 768, 768), None, true),
        linear((1600, 768, 3072), Some(Activation::QuickGelu), false),
        linear((1600, 3072, 768), None, true),
        embedding(&[16; 32], 49_408, 512),
        linear((512, 512, 1536), None, false),
        attention(&[16; 32], text),
        linear((512, 512, 2048), Some(Activation::QuickGelu), false),
        convolution(8, [224, 224], Filters { outputs: 64, inputs: 3, kernel: 7, stride: 2, padding: 3 }),
        max_pool(8, [112, 112], 64),
        convolution(8, [28, 28], Filters { outputs: 128, inputs: 128, kernel: 3, stride: 1, padding: 1 }),
        means(&[50; 32], 768),
    ]
}

/// A layer, with a residual that it is added to, or without.
fn linear((rows, inputs, outputs): (usize, usize, usize), activation: Option<Activation>, residual: bool) -> Inference {
    let what = activation.map_or(String::new(), |activation| format!(", {activation:?}"));
    let onto = if residual { ", onto a residual" } else { "" };
    Inference::new(format!("linear {rows} rows {inputs} -> {outputs}{what}{onto}"), ROUNDED, move |compute| {
        let mut draw = Draw::new(1);
        let (weight, bias) = (draw.weight(outputs, inputs), draw.values(outputs, 1.0));
        let layer = Linear::new(&weight, outputs, Some(bias), compute)?;
        let layer = activation.into_iter().fold(layer, Linear::with);
        let element = compute.element()?;
        let x = placed(&draw.values(rows * inputs, 1.0), inputs, element, compute)?;
        let sums = placed(&draw.values(rows * outputs, 1.0), outputs, element, compute)?;
        Ready::new(linear::cost(rows, (inputs, outputs), element, element, residual), move || {
            if !residual {
                return layer.forward(&x);
            }
            let mut sums = sums.clone();
            layer.forward_onto(&x, &mut sums)?;
            Ok(sums)
        })
    })
}

fn layer_norm(rows: usize, width: usize) -> Inference {
    Inference::new(format!("layer_norm {rows} rows of {width}"), ROUNDED, move |compute| {
        let mut draw = Draw::new(2);
        let [gamma, beta] = [draw.values(width, 1.0), draw.values(width, 1.0)].map(|v| Tensor::new([width], v));
        let norm = Norm::new(&gamma?, &beta?, 1e-5, compute)?;
        let x = placed(&draw.values(rows * width, 1.0), width, Element::F32, compute)?;
        Ready::new(layer_norm::cost(rows, width, compute.element()?), move || norm.forward(&x))
    })
}

fn attention(lengths: &[usize], heads: Heads) -> Inference {
    let lengths = lengths.to_vec();
    let Heads { count, width, causal } = heads;
    let what = if causal { ", causal" } else { "" };
    let (rows, longest) = (lengths.iter().sum::<usize>(), lengths.iter().max().copied().unwrap_or(0));
    let name = format!("attention {} sequences up to {longest}, {count} heads of {width}{what}", lengths.len());
    // Weights of the values are rounded, and what they sum.
    Inference::new(name, 2.0 * ROUNDED, move |compute| {
        let element = compute.element()?;
        let qkv = placed(&Draw::new(3).values(rows * 3 * count * width, 1.0), 3 * count * width, element, compute)?;
        let (attention, sequences) = (SelfAttention::new(heads, element), Sequences::new(lengths.clone()));
        let cost = attention::cost(&lengths, heads, element);
        Ready::new(cost, move || attention.forward(&qkv, &sequences))
    })
}

fn embedding(lengths: &[usize], vocabulary: u32, width: usize) -> Inference {
    let lengths = lengths.to_vec();
    let rows: usize = lengths.iter().sum();
    Inference::new(format!("embedding {rows} of {vocabulary} tokens, {width}"), 0.0, move |compute| {
        let (mut draw, longest) = (Draw::new(4), lengths.iter().max().copied().unwrap_or(0));
        let table = |rows: usize, draw: &mut Draw| Tensor::of_rows(draw.values(rows * width, 1.0), width);
        let (tokens, positions) = (table(vocabulary as usize, &mut draw)?, table(longest, &mut draw)?);
        let embedding = Embedding::new(&tokens, &positions, compute)?;
        let ids: Vec<Vec<u32>> = lengths.iter().map(|&length| draw.numbers(length, vocabulary)).collect();
        Ready::new(Cost::inference(0, 4 * 3 * rows * width), move || {
            embedding.forward(&ids.iter().map(|ids| &ids[..]).collect::<Vec<_>>())
        })
    })
}

fn patch_embedding(images: usize, patches: usize, width: usize) -> Inference {
    Inference::new(format!("patch embedding {images} images of {patches}, {width}"), 0.0, move |compute| {
        let mut draw = Draw::new(5);
        let (class, positions) = (draw.values(width, 1.0), draw.values((patches + 1) * width, 1.0));
        let (class, positions) = (Tensor::new([width], class)?, Tensor::of_rows(positions, width)?);
        let embedding = PatchEmbedding::new(Some(&class), &positions, compute)?;
        let x = placed(&draw.values(images * patches * width, 1.0), width, Element::F32, compute)?;
        let bytes = 4 * width * (images * (2 * patches + 1) + patches + 2);
        Ready::new(Cost::inference(0, bytes), move || Ok(embedding.forward(&x)?.0))
    })
}

fn convolution(images: usize, [height, width]: [usize; 2], filters: Filters) -> Inference {
    let Filters { outputs, inputs, kernel, stride, padding } = filters;
    let name =
        format!("convolution {images} of {height} x {width}, {kernel} x {kernel} by {stride}, {inputs} -> {outputs}");
    Inference::new(name, ROUNDED, move |compute| {
        let (mut draw, element) = (Draw::new(6), compute.element()?);
        let (weight, bias) = (draw.weight(outputs, inputs * kernel * kernel), draw.values(outputs, 1.0));
        let convolution = Convolution::new(&weight, filters, Some(bias), compute)?.with(Activation::Relu);
        let pixels = images * height * width;
        // Images come from the host, and so do maps here: bf16 rows of few channels are no device's.
        let rows = Tensor::of_rows(draw.values(pixels * inputs, 1.0), inputs)?;
        let x = Maps { rows, height, width };
        let (down, across) = Windows { height, width, kernel, stride, padding }.size();
        let cost = convolution::cost(filters, pixels, images * down * across, element, element);
        Ready::new(cost, move || Ok(convolution.forward(&x)?.rows))
    })
}

fn max_pool(images: usize, [height, width]: [usize; 2], channels: usize) -> Inference {
    Inference::new(format!("max pool {images} of {height} x {width}, {channels}"), 0.0, move |compute| {
        let (element, pool) = (compute.element()?, MaxPool { kernel: 3, stride: 2, padding: 1 });
        let pixels = images * height * width;
        let rows = placed(&Draw::new(7).values(pixels * channels, 1.0), channels, element, compute)?;
        let x = Maps { rows, height, width };
        let out = images * height.div_ceil(2) * width.div_ceil(2);
        let cost = Cost::inference(0, (pixels + out) * channels * element.size());
        Ready::new(cost, move || Ok(pool.forward(&x)?.rows))
    })
}

fn means(lengths: &[usize], width: usize) -> Inference {
    let sequences = Sequences::new(lengths.to_vec());
    let rows: usize = lengths.iter().sum();
    // Sums in f32 whatever the arithmetic is, in another order on a device.
    Inference::new(format!("mean of {} sequences of {width}", lengths.len()), 1e-5, move |compute| {
        let x = placed(&Draw::new(8).values(rows * width, 1.0), width, Element::F32, compute)?;
        let cost = Cost::inference(rows * width, 4 * (rows + sequences.lengths().len()) * width);
        let sequences = sequences.clone();
        Ready::new(cost, move || mean(&x, &sequences))
    })
}
