//! Operations of decoders. On the host activations are f32; on a device they are what the arithmetic says.

use std::cell::RefCell;

use super::{Draw, Inference, ROUNDED, Ready, placed};
use crate::autograd::Cost;
use crate::error::Result;
use crate::ops::linear::stored::{self, StoredLinear, SwiGlu};
use crate::ops::paged_attention::{self, Batch, Cache, Heads, Inputs, Shape, Span};
use crate::ops::rms_norm::{self, RmsNorm};
use crate::ops::sample::{self, choose_each};
use crate::tensor::{Compute, Element, Matrix, Precision, Tensor, Values};

/// What activations in 8 bits leave: half a step of 127, of sums whose terms' errors cancel.
const IN_BYTES: f32 = 1.5e-2;

pub fn small() -> Vec<Inference> {
    let mut cases = vec![rms_norm(1, 8), rms_norm(5, 264), logits(3, 4097, 5), choices(4, 4097)];
    for (rows, outputs, inputs) in [(1, 48, 256), (9, 72, 192)] {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Int4] {
            cases.push(linear((rows, inputs, outputs), precision));
            cases.push(swiglu((rows, inputs, outputs), precision));
        }
    }
    for (queries, kv, size) in [(2, 2, 64), (6, 2, 16)] {
        cases.push(attention([queries, kv, size], 75, 1));
        cases.push(attention([queries, kv, size], 3, 65));
    }
    cases
}

pub fn large() -> Vec<Inference> {
    let mut cases = vec![rms_norm(512, 4096), attention([32, 32, 128], 511, 1), attention([32, 32, 128], 0, 512)];
    for rows in [1, 512] {
        for precision in [Precision::Bf16, Precision::Int8, Precision::Int4] {
            cases.push(linear((rows, 4096, 4096), precision));
            cases.push(swiglu((rows, 4096, 11_008), precision));
        }
    }
    cases.extend([logits(1, 32_000, 10), choices(1, 32_000)]);
    cases
}

/// How far products with weights of a precision are from those in f32: integers take activations in 8 bits.
fn bound(precision: Precision) -> f32 {
    match precision {
        Precision::Int8 | Precision::Int4 => IN_BYTES,
        _ => ROUNDED,
    }
}

/// A matrix in a precision; in f32 arithmetic the numbers that it stands for.
fn weight(draw: &mut Draw, outputs: usize, inputs: usize, precision: Precision, compute: &Compute) -> Result<Matrix> {
    let wide = Matrix::new(outputs, inputs, Values::F32(draw.weight(outputs, inputs).into()))?;
    let stored = wide.to(precision)?;
    if compute.precision == Precision::F32 { stored.to(Precision::F32) } else { Ok(stored) }
}

/// Activations that meet weights of a precision: on a device of the type that its kernels multiply them in, on the host f32.
fn activations(values: &[f32], width: usize, weights: Precision, compute: &Compute) -> Result<Tensor> {
    let element = match (&compute.gpu, compute.element()?, weights) {
        (Some(_), Element::Bf16, Precision::F16) => Element::F16,
        (Some(_), element, weights) if weights != Precision::F32 => element,
        _ => Element::F32,
    };
    placed(values, width, element, compute)
}

fn linear((rows, inputs, outputs): (usize, usize, usize), precision: Precision) -> Inference {
    let name = format!("stored linear {rows} rows {inputs} -> {outputs}, {precision}");
    Inference::new(name, bound(precision), move |compute| {
        let mut draw = Draw::new(1);
        let layer =
            StoredLinear::new(vec![weight(&mut draw, outputs, inputs, precision, compute)?], compute.gpu.as_ref())?;
        let x = activations(&draw.values(rows * inputs, 1.0), inputs, precision, compute)?;
        let cost = stored::cost(rows, (inputs, outputs), precision, x.element());
        let x = x.into();
        Ready::new(cost, move || layer.forward_wide(&x))
    })
}

fn swiglu((rows, inputs, inner): (usize, usize, usize), precision: Precision) -> Inference {
    // Both factors have their product's error, and what comes of them is rounded.
    let name = format!("swiglu {rows} rows {inputs} -> {inner}, {precision}");
    Inference::new(name, 3.0 * bound(precision), move |compute| {
        let mut draw = Draw::new(2);
        let mut drawn = || weight(&mut draw, inner, inputs, precision, compute);
        let gates = SwiGlu::new(drawn()?, drawn()?, compute.gpu.as_ref())?;
        let x = activations(&draw.values(rows * inputs, 1.0), inputs, precision, compute)?;
        let cost = stored::cost(rows, (inputs, 2 * inner), precision, x.element());
        let x = x.into();
        Ready::new(cost, move || gates.forward(&x))
    })
}

fn rms_norm(rows: usize, width: usize) -> Inference {
    Inference::new(format!("rms_norm {rows} rows of {width}"), ROUNDED, move |compute| {
        let (mut draw, element) = (Draw::new(3), compute.element()?);
        let gain = Tensor::new([width], draw.values(width, 1.0))?;
        let norm = RmsNorm::new(&gain, 1e-5, element, compute.gpu.as_ref())?;
        let x = placed(&draw.values(rows * width, 1.0), width, Element::F32, compute)?;
        Ready::new(rms_norm::cost(rows, width, element), move || norm.forward(&x))
    })
}

/// New tokens of a sequence of which `cached` are there already.
fn attention([queries, kv, size]: [usize; 3], cached: usize, rows: usize) -> Inference {
    let name = format!("paged attention {rows} rows after {cached}, {queries} heads of {size}, {kv} of keys");
    Inference::new(name, 2.0 * ROUNDED, move |compute| {
        // The host caches f16 where a device in 16 bits caches bf16.
        let element = match (&compute.gpu, compute.element()?) {
            (None, Element::Bf16) => Element::F16,
            (_, element) => element,
        };
        let heads = Heads { queries, kv, size, element };
        let frequencies: Vec<f32> = (0..size / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / size as f32)).collect();
        let gpu = compute.gpu.as_ref();
        let mut cache = Cache::new(heads, 1, None, cached + rows, gpu.map(|gpu| (gpu, 0)))?;
        let mut draw = Draw::new(4);
        let on_host = if gpu.is_some() { element } else { Element::F32 };
        let mut rows_of =
            |count: usize| placed(&draw.values(count * heads.width(), 1.0), heads.width(), on_host, compute);
        let planned = |span: Span, cache: &mut Cache| -> Result<Batch> {
            let (tokens, spans) = (vec![0; span.rows], [span]);
            let Some(gpu) = gpu else { return Ok(Batch::new(&tokens, &spans, &frequencies)) };
            let caches = [&mut *cache];
            let single = span.rows == 1 || element == Element::F32;
            let mut inputs = Inputs::alloc(gpu, Shape::of(&spans, &caches, single), &heads)?;
            inputs.write(&tokens, &spans, &caches, &frequencies)?;
            Ok(Batch::Device(Box::new(inputs)))
        };
        if cached > 0 {
            let batch = planned(Span { start: 0, rows: cached, position: 0 }, &mut cache)?;
            heads.attend(&batch, 0, (rows_of(cached)?, None), &mut [&mut cache])?;
            cache.advance(cached);
        }
        let span = Span { start: 0, rows, position: cached };
        let (batch, qkv) = (planned(span, &mut cache)?, rows_of(rows)?);
        let cache = RefCell::new(cache);
        Ready::new(paged_attention::cost(&heads, &[span]), move || {
            heads.attend(&batch, 0, (qkv.clone(), None), &mut [&mut *cache.borrow_mut()])
        })
    })
}

/// Logits of a few tokens.
fn logits(rows: usize, vocabulary: usize, tokens: usize) -> Inference {
    Inference::new(format!("logits of {tokens} of {vocabulary} tokens, {rows} rows"), 0.0, move |compute| {
        let mut draw = Draw::new(5);
        let all = placed(&draw.values(rows * vocabulary, 12.0), vocabulary, Element::F32, compute)?;
        let numbers = draw.numbers(tokens, vocabulary as u32);
        Ready::new(Cost::inference(0, 8 * rows * tokens), move || sample::gather(&all, &numbers))
    })
}

/// A token of each row, one the likeliest and the others drawn.
fn choices(rows: usize, vocabulary: usize) -> Inference {
    Inference::new(format!("sample {rows} of {vocabulary} tokens"), 0.0, move |compute| {
        let mut draw = Draw::new(6);
        let logits = placed(&draw.values(rows * vocabulary, 12.0), vocabulary, Element::F32, compute)?;
        let draw_of = |number: u32| sample::Draw { number: u64::from(number) << 40, sharpness: 1.0 / 0.7, top_p: 0.9 };
        let mut draws: Vec<sample::Draw> = draw.numbers(rows, 1 << 24).into_iter().map(draw_of).collect();
        draws[0] = sample::Draw::LIKELIEST;
        Ready::new(Cost::inference(0, 4 * rows * vocabulary), move || {
            let tokens = choose_each(&logits, &draws)?;
            // Numbers of tokens are whole and small: f32 holds them.
            Tensor::new([rows], tokens.into_iter().map(|token| token as f32).collect::<Vec<_>>())
        })
    })
}
