//! Kernels of decoders against their definitions, at odd sizes.

use bytemuck::cast_slice;
use half::{bf16, f16};

use super::blocks::random_blocks;
use super::definition::{normalized, product, values};
use super::{Check, Findings, SUMS, bits};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, vector};
use crate::error::{Error, Result};
use crate::ops::linear::stored::{DeviceWeight, Input, Next, OnDevice};
use crate::ops::rms_norm::RmsNorm;
use crate::tensor::quantized::{Bits, dequantize, quantize};
use crate::tensor::{Element, Precision, Tensor};

/// As activations of this type hold them.
pub fn rounded(values: &[f32], element: Element) -> Vec<f32> {
    let round = |x: &f32| match element {
        Element::F32 => *x,
        Element::Bf16 => bf16::from_f32(*x).to_f32(),
        Element::F16 => f16::from_f32(*x).to_f32(),
    };
    values.iter().map(round).collect()
}

/// What rounding a result once leaves, relative to the largest: half a unit of 8 or 11 bits; and sums in another order.
pub fn tolerance(element: Element) -> f32 {
    match element {
        Element::F32 => SUMS,
        Element::Bf16 => 4e-3 + SUMS,
        Element::F16 => 5e-4 + SUMS,
    }
}

/// Whether weights are codes and scales.
pub fn coded(precision: Precision) -> bool {
    matches!(precision, Precision::Int8 | Precision::Int4)
}

/// What is multiplied by what, and how if there are many rows.
#[derive(Clone, Copy)]
pub struct Kind {
    pub precision: Precision,
    pub element: Element,
    /// In integers.
    pub integers: bool,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Kind { precision, element, integers } = self;
        write!(f, "{precision:?} by {element:?}{}", if *integers { ", in integers" } else { "" })
    }
}

impl Kind {
    /// With activations as they are.
    pub const fn of(precision: Precision, element: Element) -> Kind {
        Kind { precision, element, integers: false }
    }

    /// Of codes by codes.
    pub const fn of_codes(precision: Precision) -> Kind {
        Kind { precision, element: Element::Bf16, integers: true }
    }

    /// The largest errors of products of this many rows and of gated ones: on tensor cores codes become bf16, which rounds, and
    /// of gates both factors; integers do not.
    pub fn bounds(self, rows: usize) -> (f32, f32) {
        let narrowed = rows > 8 && coded(self.precision) && self.element == Element::Bf16 && !self.integers;
        let (wide, factors) = match narrowed {
            true => (tolerance(Element::Bf16), 2.0 * tolerance(Element::Bf16)),
            false => (SUMS, SUMS),
        };
        (wide, tolerance(self.element) + factors)
    }

    /// Rows of activations (rows, k) as they are multiplied.
    pub fn multiplied(self, x: &[f32], k: usize) -> Vec<f32> {
        let group = match self.precision {
            Precision::Int8 => Bits::Eight.group(k),
            _ => Bits::Four.group(k),
        };
        let Some(group) = group.filter(|_| self.integers && x.len() / k > 8) else { return x.to_vec() };
        let mut codes = vec![0; group];
        let of_group = |x: &[f32]| {
            let (scale, _) = vector::quantize(&mut codes[..], x);
            codes.iter().map(|&code| scale * f32::from(code)).collect::<Vec<f32>>()
        };
        x.chunks(group).flat_map(of_group).collect()
    }
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn random(count: usize, seed: u32) -> Vec<f32> {
    values(count, seed, 24)
}

/// The numbers and scales of a matrix (rows, columns) in a precision, and what they really are.
pub fn encoded(precision: Precision, rows: usize, columns: usize, seed: u32) -> Result<(Vec<u8>, Vec<u8>, Vec<f32>)> {
    let wide = random(rows * columns, seed);
    let bits = |bits: Bits| {
        let group = bits.group(columns).ok_or_else(|| Error::shape("quantize", format!("rows of {columns}")))?;
        let groups = columns / group;
        let (mut codes, mut scales) = (vec![0; rows * bits.bytes(columns)], vec![bf16::ZERO; rows * groups]);
        let mut exact = vec![0.0; wide.len()];
        let rows = codes.chunks_exact_mut(bits.bytes(columns)).zip(scales.chunks_exact_mut(groups));
        for (((codes, scales), row), exact) in rows.zip(wide.chunks(columns)).zip(exact.chunks_mut(columns)) {
            quantize(bits, row, codes, scales);
            dequantize(bits, codes, scales, exact);
        }
        Ok((codes, cast_slice(&scales).to_vec(), exact))
    };
    match precision {
        Precision::F32 => Ok((cast_slice(&wide).to_vec(), vec![], wide)),
        Precision::Bf16 => {
            let narrow: Vec<bf16> = wide.iter().map(|x| bf16::from_f32(*x)).collect();
            Ok((cast_slice(&narrow).to_vec(), vec![], rounded(&wide, Element::Bf16)))
        }
        Precision::F16 => {
            let narrow: Vec<f16> = wide.iter().map(|x| f16::from_f32(*x)).collect();
            Ok((cast_slice(&narrow).to_vec(), vec![], rounded(&wide, Element::F16)))
        }
        Precision::Int8 => bits(Bits::Eight),
        Precision::Int4 => bits(Bits::Four),
        Precision::Blocks(kind) => {
            let (blocks, exact) = random_blocks(kind, rows, columns, seed);
            Ok((blocks, vec![], exact))
        }
    }
}

/// A matrix (rows, columns) in a precision, on the device and as its numbers really are. Two parts, one below the other.
fn weight(gpu: &Gpu, precision: Precision, rows: usize, columns: usize, seed: u32) -> Result<(DeviceWeight, Vec<f32>)> {
    let (codes, scales, exact) = encoded(precision, rows, columns, seed)?;
    let (first, first_scales) = (rows / 3 * (codes.len() / rows), rows / 3 * (scales.len() / rows));
    let parts = [(&codes[..first], &scales[..first_scales]), (&codes[first..], &scales[first_scales..])];
    Ok((DeviceWeight::upload(gpu, precision, columns, &parts)?, exact))
}

fn narrow(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|x| x as f32).collect()
}

/// All that decoders multiply.
pub const KINDS: [Kind; 11] = [
    Kind::of(Precision::F32, Element::F32),
    Kind::of(Precision::Bf16, Element::F32),
    Kind::of(Precision::F16, Element::F32),
    Kind::of(Precision::Int8, Element::F32),
    Kind::of(Precision::Int4, Element::F32),
    Kind::of(Precision::Bf16, Element::Bf16),
    Kind::of(Precision::F16, Element::F16),
    Kind::of(Precision::Int8, Element::Bf16),
    Kind::of(Precision::Int4, Element::Bf16),
    Kind::of_codes(Precision::Int8),
    Kind::of_codes(Precision::Int4),
];

/// Everything that decoders do but attention and the choice of tokens.
pub fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let seed = number as u32;
        let products = move |gpu: &Gpu, found: &mut Findings| products(gpu, kind, seed, found);
        checks.push(Check::new(format!("decoder products, {kind}"), products));
        checks.push(Check::new(format!("decoder gates, {kind}"), move |gpu, found| gated(gpu, kind, seed, found)));
        if !kind.integers {
            let around = move |gpu: &Gpu, found: &mut Findings| around_norms(gpu, kind, seed, found);
            checks.push(Check::new(format!("decoder norms between products, {kind}"), around));
        }
    }
    for (precision, element) in [(Precision::Int4, Element::Bf16), (Precision::F16, Element::F16)] {
        checks.push(Check::new(format!("decoder products, rows alone, {precision:?}"), move |gpu, found| {
            rows_alone(gpu, (precision, element), found)
        }));
    }
    for element in [Element::F32, Element::Bf16, Element::F16] {
        checks.push(Check::new(format!("decoder norms and selected rows, {element:?}"), move |gpu, found| {
            norms(gpu, element, found)
        }));
    }
    checks.push(Check::new("decoder embeddings", embeddings));
    checks
}

fn products(gpu: &Gpu, kind: Kind, seed: u32, found: &mut Findings) -> Result<()> {
    let Kind { precision, element, integers } = kind;
    // Groups of 128 and of 64; odd numbers of outputs where the host reads them.
    for (m, n, k) in [(1, 43, 256), (3, 24, 1088), (8, 17, 192), (9, 72, 64), (67, 136, 320)] {
        let (w, exact) = weight(gpu, precision, n, k, seed)?;
        let w = w.with_integers(integers);
        let x = rounded(&random(m * k, 50), element);
        let rows = Tensor::upload(gpu, "activations", &x, k, element)?.into();
        let want = narrow(product(&kind.multiplied(&x, k), &exact, k));
        let what = format!("{m} x {n} x {k}");
        let (wide, _) = kind.bounds(m);
        found.near(format!("{what}, in f32"), &w.multiply_wide(&rows)?.read()?, &want, wide);
        if n % 8 == 0 {
            let got = w.multiply(&rows)?;
            found.equal(format!("{what}, kind of numbers"), &[got.element() as u8], &[element as u8]);
            found.near(&what, &got.read()?, &want, tolerance(element).max(wide) + wide);
            let mut sum = Tensor::upload(gpu, "activations", &vec![0.5; m * n], n, Element::F32)?;
            w.add_to(&mut sum, &rows, None)?;
            let want: Vec<f32> = want.iter().map(|x| x + 0.5).collect();
            found.near(format!("{what}, added"), &sum.read()?, &want, wide);
        }
    }
    Ok(())
}

fn gated(gpu: &Gpu, kind: Kind, seed: u32, found: &mut Findings) -> Result<()> {
    let Kind { precision, element, integers } = kind;
    for (m, inner, k) in [(1, 24, 256), (3, 8, 1088), (9, 72, 64), (67, 136, 320)] {
        let [gate, up] = [encoded(precision, inner, k, 2 * seed)?, encoded(precision, inner, k, 2 * seed + 1)?];
        let gates =
            DeviceWeight::in_turn(gpu, precision, k, (&gate.0, &gate.1), (&up.0, &up.1))?.with_integers(integers);
        let x = rounded(&random(m * k, 51), element);
        let got = gates.gated(&Tensor::upload(gpu, "activations", &x, k, element)?.into())?;
        let x = kind.multiplied(&x, k);
        let shape = format!("{m} x {inner} x {k}, kind and number of columns");
        found.equal(shape, &[got.element() as usize, got.width()], &[element as usize, inner]);
        let pairs = product(&x, &gate.2, k).into_iter().zip(product(&x, &up.2, k));
        let want = narrow(pairs.map(|(gate, up)| silu(gate) * up).collect());
        found.near(format!("{m} x {inner} x {k}"), &got.read()?, &want, kind.bounds(m).1);
    }
    Ok(())
}

/// A normalization of a few rows without a launch of its own: the product before it and those behind it.
fn around_norms(gpu: &Gpu, Kind { precision, element, .. }: Kind, seed: u32, found: &mut Findings) -> Result<()> {
    // Rows wait in bf16, which rounds each once, or in f32.
    let wide = if element == Element::Bf16 { tolerance(element) } else { SUMS };
    for (m, width, k, n) in [(1, 192, 256, 32), (3, 1088, 64, 43), (8, 64, 192, 48)] {
        let ((before, exact_before), (behind, exact)) =
            (weight(gpu, precision, width, k, seed)?, weight(gpu, precision, n, width, seed + 1)?);
        let (x, gain) = (rounded(&random(m * k, 60), element), random(width, 61));
        let rows = Tensor::upload(gpu, "activations", &x, k, element)?.into();
        let on_device = Tensor::new([width], gain.clone())?.to(Some(gpu))?;
        let mut sum = Tensor::upload(gpu, "activations", &vec![0.5; m * width], width, Element::F32)?;
        let next = Next { gain: &on_device, eps: 1e-5, element };
        let what = format!("{m} x {width} x {k}, then {n}");
        let input = before.add_to(&mut sum, &rows, Some(next))?;
        found.equal(format!("{what}, comes with the sums"), &[u8::from(input.is_some())], &[1]);
        let Some(input) = input else { continue };
        let sums: Vec<f64> = product(&x, &exact_before, k).into_iter().map(|x| x + 0.5).collect();
        found.near(format!("{what}, sums"), &sum.read()?, &narrow(sums.clone()), SUMS);
        let normalized = normalized(&sums, &gain);
        found.near(format!("{what}, normalized"), input.to_host()?.data(), &normalized, wide);
        let want = product(&normalized, &exact, width);
        let got = behind.multiply_wide(&input)?;
        found.near(format!("{what}, behind, in f32"), &got.read()?, &narrow(want.clone()), wide);
        if n % 16 == 0 {
            let got = behind.multiply(&input)?;
            found.equal(format!("{what}, kind of numbers"), &[got.element() as u8], &[element as u8]);
            found.near(format!("{what}, behind"), &got.read()?, &narrow(want.clone()), tolerance(element) + wide);
            // As gates and ups in turn.
            let gated: Vec<f64> = want.chunks_exact(2).map(|pair| silu(pair[0]) * pair[1]).collect();
            let bound = tolerance(element) + 2.0 * wide + SUMS;
            found.near(format!("{what}, gated"), &behind.gated(&input)?.read()?, &narrow(gated), bound);
        }
    }
    // More rows are normalized by themselves.
    let (before, _) = weight(gpu, precision, 64, 64, seed)?;
    let rows = Tensor::upload(gpu, "activations", &rounded(&random(9 * 64, 62), element), 64, element)?.into();
    let mut sum = Tensor::upload(gpu, "activations", &[0.0; 9 * 64], 64, Element::F32)?;
    let gain = Tensor::new([64], vec![1.0; 64])?.to(Some(gpu))?;
    let input = before.add_to(&mut sum, &rows, Some(Next { gain: &gain, eps: 1e-5, element }))?;
    found.equal("9 rows, come with the sums", &[u8::from(input.is_some())], &[0]);
    Ok(())
}

/// A row has the same bits whatever stands beside it.
fn rows_alone(gpu: &Gpu, (precision, element): (Precision, Element), found: &mut Findings) -> Result<()> {
    let (w, _) = weight(gpu, precision, 40, 192, 1)?;
    let (before, _) = weight(gpu, precision, 192, 192, 2)?;
    let gain = Tensor::new([192], random(192, 4))?.to(Some(gpu))?;
    let x = random(8 * 192, 2);
    // As they are, and behind a normalization.
    let multiply = |x: &[f32]| -> Result<[Buffer; 2]> {
        let rows: Input = Tensor::upload(gpu, "activations", x, 192, element)?.into();
        let mut sum = Tensor::upload(gpu, "activations", &vec![0.25; x.len()], 192, Element::F32)?;
        let input = before.add_to(&mut sum, &rows, Some(Next { gain: &gain, eps: 1e-5, element }))?;
        let input = input.ok_or_else(|| Error::shape("rms_norm", "few rows that do not come with the sums"))?;
        Ok([w.multiply_wide(&rows)?.read()?, w.multiply_wide(&input)?.read()?])
    };
    let alone: Vec<[Buffer; 2]> = x.chunks(192).map(multiply).collect::<Result<_>>()?;
    let together = multiply(&x)?;
    for (part, what) in ["bits", "bits behind a normalization"].into_iter().enumerate() {
        let alone: Vec<f32> = alone.iter().flat_map(|parts| parts[part].iter().copied()).collect();
        found.equal(what, bits(&together[part]), bits(&alone));
    }
    Ok(())
}

fn norms(gpu: &Gpu, element: Element, found: &mut Findings) -> Result<()> {
    for (n, width) in [(1, 8), (3, 1032), (5, 264)] {
        let what = format!("{n} x {width}");
        let (x, gain) = (random(n * width, 3), random(width, 4));
        let want = normalized(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), &gain);
        let rows = Tensor::upload(gpu, "activations", &x, width, Element::F32)?;
        let norm = RmsNorm::new(&Tensor::new([width], gain.clone())?, 1e-5, element, Some(gpu))?;
        found.near(&what, &norm.forward(&rows)?.into_host()?, &want, tolerance(element));
        let x = rounded(&x, element);
        let chosen = Tensor::upload(gpu, "activations", &x, width, element)?.select(&[n - 1, 0])?;
        let want = [&x[(n - 1) * width..], &x[..width]].concat();
        found.equal(format!("{what}, selected"), bits(&chosen.read()?), bits(&want));
    }
    Ok(())
}

fn embeddings(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8] {
        let (table, exact) = weight(gpu, precision, 11, 192, 6)?;
        let tokens = gpu.upload("checked", &[10u32, 0, 7, 7])?;
        let got = table.embed(tokens.ptr(), 4)?.read()?;
        let want: Vec<f32> = [10, 0, 7, 7].iter().flat_map(|t| exact[t * 192..][..192].to_vec()).collect();
        found.equal(format!("{precision:?}"), &got, &want);
    }
    Ok(())
}
