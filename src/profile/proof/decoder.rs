//! Kernels of decoders against their definitions, at odd sizes.

use std::collections::BTreeSet;

use bytemuck::cast_slice;
use half::{bf16, f16};

use super::blocks::random_blocks;
use super::definition::{product, values};
use super::{Check, Findings, SUMS, bits};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, vector};
use crate::error::{Error, Result};
use crate::ops::linear::stored::{DeviceWeight, OnDevice};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::sample::{Draw, choose, choose_each, gather};
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

/// Everything that decoders do but attention.
pub fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (number, kind) in KINDS.into_iter().enumerate() {
        let seed = number as u32;
        let products = move |gpu: &Gpu, found: &mut Findings| products(gpu, kind, seed, found);
        checks.push(Check::new(format!("decoder products, {kind}"), products));
        checks.push(Check::new(format!("decoder gates, {kind}"), move |gpu, found| gated(gpu, kind, seed, found)));
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
    checks.push(Check::new("decoder sampling", sampling));
    checks.push(Check::new("decoder sampling, numbers near borders", every_number));
    checks.push(Check::new("decoder logits of some tokens", gathered));
    checks
}

fn products(gpu: &Gpu, kind: Kind, seed: u32, found: &mut Findings) -> Result<()> {
    let Kind { precision, element, integers } = kind;
    // Groups of 128 and of 64; odd numbers of outputs where the host reads them.
    for (m, n, k) in [(1, 43, 256), (3, 24, 1088), (8, 17, 192), (9, 72, 64), (67, 136, 320)] {
        let (w, exact) = weight(gpu, precision, n, k, seed)?;
        let w = w.with_integers(integers);
        let x = rounded(&random(m * k, 50), element);
        let rows = Tensor::upload(gpu, "activations", &x, k, element)?;
        let want = narrow(product(&kind.multiplied(&x, k), &exact, k));
        let what = format!("{m} x {n} x {k}");
        let (wide, _) = kind.bounds(m);
        found.near(format!("{what}, in f32"), &w.multiply_wide(&rows)?.read()?, &want, wide);
        if n % 8 == 0 {
            let got = w.multiply(&rows)?;
            found.equal(format!("{what}, kind of numbers"), &[got.element() as u8], &[element as u8]);
            found.near(&what, &got.read()?, &want, tolerance(element).max(wide) + wide);
            let mut sum = Tensor::upload(gpu, "activations", &vec![0.5; m * n], n, Element::F32)?;
            w.add_to(&mut sum, &rows)?;
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
        let got = gates.gated(&Tensor::upload(gpu, "activations", &x, k, element)?)?;
        let x = kind.multiplied(&x, k);
        let shape = format!("{m} x {inner} x {k}, kind and number of columns");
        found.equal(shape, &[got.element() as usize, got.width()], &[element as usize, inner]);
        let pairs = product(&x, &gate.2, k).into_iter().zip(product(&x, &up.2, k));
        let want = narrow(pairs.map(|(gate, up)| silu(gate) * up).collect());
        found.near(format!("{m} x {inner} x {k}"), &got.read()?, &want, kind.bounds(m).1);
    }
    Ok(())
}

/// A row has the same bits whatever stands beside it.
fn rows_alone(gpu: &Gpu, (precision, element): (Precision, Element), found: &mut Findings) -> Result<()> {
    let (w, _) = weight(gpu, precision, 40, 192, 1)?;
    let x = random(8 * 192, 2);
    let multiply = |x: &[f32]| w.multiply_wide(&Tensor::upload(gpu, "activations", x, 192, element)?)?.read();
    let alone: Vec<Buffer> = x.chunks(192).map(multiply).collect::<Result<_>>()?;
    let alone: Vec<f32> = alone.iter().flat_map(|row| row.iter().copied()).collect();
    found.equal("bits", bits(&multiply(&x)?), bits(&alone));
    Ok(())
}

fn norms(gpu: &Gpu, element: Element, found: &mut Findings) -> Result<()> {
    for (n, width) in [(1, 8), (3, 1032), (5, 264)] {
        let what = format!("{n} x {width}");
        let (x, gain) = (random(n * width, 3), random(width, 4));
        let normalized = |row: &[f32]| -> Vec<f32> {
            let squares: f64 = row.iter().map(|x| (*x as f64).powi(2)).sum();
            let scale = 1.0 / (squares / width as f64 + 1e-5).sqrt();
            row.iter().zip(&gain).map(|(x, g)| (*x as f64 * scale * *g as f64) as f32).collect()
        };
        let want: Vec<f32> = x.chunks(width).flat_map(normalized).collect();
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

/// Compares tokens drawn from copies of some logits, one for each draw.
fn compare_tokens(gpu: &Gpu, what: &str, logits: &[f32], draws: &[Draw], found: &mut Findings) -> Result<()> {
    let rows = Tensor::upload(gpu, "activations", &logits.repeat(draws.len()), logits.len(), Element::F32)?;
    let got = choose_each(&rows, draws)?;
    let want: Vec<u32> = draws.iter().map(|&draw| choose(logits, draw)).collect();
    found.equal(format!("{what}, {} tokens, {} draws", logits.len(), draws.len()), &got, &want);
    Ok(())
}

fn sampling(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    let draw = |number, sharpness, top_p| Draw { number, sharpness, top_p };
    let some = 0x9e37_79b9_7f4a_7c15;
    let draws = [
        Draw::LIKELIEST,
        draw(0, 1.0, 1.0),
        draw(u64::MAX, 1.0, 1.0),
        draw(some, 1.0 / 0.7, 0.9),
        draw(u64::MAX, 1.0, 0.9),
        draw(u64::MAX, 0.3, 0.5),
        draw(u64::MAX, 1.0, 1e-30),
        draw(some, 0.01, 0.999_999),
        draw(some, f32::INFINITY, 0.5),
    ];
    let spread = |vocabulary| random(vocabulary, 8).iter().map(|x| 12.0 * x).collect::<Vec<f32>>();
    compare_tokens(gpu, "spread", &spread(256_000), &draws[3..4], found)?;
    for vocabulary in [1, 31, 257, 4097, 32_000] {
        let spread = spread(vocabulary);
        // Half of all tokens are as likely as some others; -0 is 0.
        let tied: Vec<f32> = spread.iter().map(|x| (x / 3.0).round() * 1.5).collect();
        let peaked: Vec<f32> = spread.iter().map(|x| 10.0 * x).collect();
        // Every third is no number, every third nothing; the last is as large as the largest.
        let mut holes = spread.clone();
        holes.chunks_mut(3).filter(|three| three.len() == 3).for_each(|three| {
            three[0] = f32::NAN;
            three[1] = f32::NEG_INFINITY;
        });
        holes[vocabulary - 1] = holes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let nothing = vec![f32::NEG_INFINITY; vocabulary];
        let mut endless = spread.clone();
        endless[vocabulary / 2] = f32::INFINITY;
        for (name, logits) in [
            ("spread", spread),
            ("tied", tied),
            ("equal", vec![0.25; vocabulary]),
            ("peaked", peaked),
            ("holes", holes),
            ("nothing", nothing),
            ("endless", endless),
        ] {
            // Sizes of a batch: one, three, and all.
            for draws in [&draws[3..4], &draws[..3], &draws[..]] {
                compare_tokens(gpu, name, &logits, draws, found)?;
            }
        }
    }
    Ok(())
}

fn every_number(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    // Few tokens, so that numbers fall close to the borders between them, and ties that top-p cuts.
    let logits: Vec<f32> = random(50, 9).iter().map(|x| (x * 4.0).round()).collect();
    for (sharpness, top_p) in [(1.0, 0.8), (0.5, 1.0)] {
        let draws: Vec<Draw> = (0..512u64).map(|i| Draw { number: i << 55, sharpness, top_p }).collect();
        let what = format!("sharpness {sharpness}, top-p {top_p}");
        compare_tokens(gpu, &what, &logits, &draws, found)?;
        // Or the draws would tell nothing of the borders.
        let distinct: BTreeSet<u32> = draws.iter().map(|&draw| choose(&logits, draw)).collect();
        found.equal(format!("{what}, whether some tokens are drawn"), &[u8::from(distinct.len() > 4)], &[1]);
    }
    Ok(())
}

fn gathered(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    let logits = random(3 * 301, 10);
    let rows = Tensor::upload(gpu, "activations", &logits, 301, Element::F32)?;
    let tokens: Vec<u32> = (0..130).map(|i| i * 2).chain([300, 0]).collect();
    let got = gather(&rows, &tokens)?.read()?;
    let want: Vec<f32> = logits.chunks(301).flat_map(|row| tokens.iter().map(|&t| row[t as usize])).collect();
    found.equal("logits", bits(&got), bits(&want));
    Ok(())
}
