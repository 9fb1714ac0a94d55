//! Layers of encoders against their definitions, at odd sizes.

use std::f64::consts::PI;

use super::definition::{dot, erf, product, values};
use super::{Check, SUMS, bits};
use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::error::Result;
use crate::ops::attention::{Heads, SelfAttention};
use crate::ops::convolution::{Convolution, Filters, Maps};
use crate::ops::embedding::{Embedding, PatchEmbedding};
use crate::ops::layer_norm::Norm;
use crate::ops::linear::tiled::Gemm;
use crate::ops::linear::{Activation, Windows};
use crate::ops::pool::{MaxPool, mean};
use crate::tensor::{Compute, Element, Precision, Sequences, Tensor};

/// Largest difference relative to the largest value: f32 sums of some hundreds of terms in another order, or results
/// rounded to the 8 bits of bf16 once or twice.
pub fn tolerance(gpu: &Gpu) -> f32 {
    match gpu.arithmetic() {
        Arithmetic::F32 => SUMS,
        Arithmetic::Mixed | Arithmetic::Bf16 => 5e-3,
    }
}

/// Values from -1 to 1 that bf16 holds exactly.
pub fn exact(count: usize, seed: u32) -> Vec<f32> {
    values(count, seed, 8)
}

/// What operands are under a device's arithmetic.
pub fn element(gpu: &Gpu) -> Element {
    match gpu.arithmetic() {
        Arithmetic::F32 => Element::F32,
        Arithmetic::Mixed | Arithmetic::Bf16 => Element::Bf16,
    }
}

/// Layers on a device, in its arithmetic.
pub fn compute(gpu: &Gpu) -> Compute {
    let precision = match gpu.arithmetic() {
        Arithmetic::F32 => Precision::F32,
        Arithmetic::Mixed | Arithmetic::Bf16 => Precision::Bf16,
    };
    Compute { precision, gpu: Some(gpu.clone()) }
}

pub fn upload(gpu: &Gpu, values: &[f32], width: usize) -> Result<Tensor> {
    Tensor::upload(gpu, "checked", values, width, element(gpu))
}

/// Rows of f32, of which the device's layers normalize or add.
fn upload_wide(gpu: &Gpu, values: &[f32], width: usize) -> Result<Tensor> {
    Tensor::upload(gpu, "checked", values, width, Element::F32)
}

/// Every kind of layer.
pub fn checks() -> Vec<Check> {
    vec![products(), norms(), attention(), embeddings(), convolutions(), pools()]
}

fn activate(x: f64, activation: Option<Activation>) -> f64 {
    match activation {
        None => x,
        Some(Activation::QuickGelu) => x / (1.0 + (-1.702 * x).exp()),
        Some(Activation::Gelu) => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Some(Activation::TanhGelu) => x / (1.0 + (-(8.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).exp()),
        Some(Activation::Relu) => x.max(0.0),
        Some(Activation::Tanh) => x.tanh(),
        Some(Activation::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
    }
}

fn products() -> Check {
    let sizes = [
        ([1, 8, 8], None),
        ([33, 72, 40], Some(Activation::QuickGelu)),
        ([129, 136, 96], Some(Activation::Gelu)),
        ([70, 48, 32], Some(Activation::TanhGelu)),
        ([200, 24, 776], Some(Activation::Relu)),
        ([65, 40, 24], Some(Activation::Tanh)),
        ([3, 136, 16], Some(Activation::Sigmoid)),
    ];
    Check::new("encoder products", move |gpu, found| {
        for ([m, n, k], activation) in sizes {
            let [a, w] = [(m, 1), (n, 2)].map(|(rows, seed)| exact(rows * k, seed));
            let (bias, residual) = (exact(n, 3), exact(m * n, 4));
            let sums = product(&a, &w, k);
            let biased = sums.iter().enumerate().map(|(i, sum)| sum + bias[i % n] as f64);
            let twice: Vec<f32> = biased.clone().map(|x| 2.0 * x as f32).collect();
            let want: Vec<f32> =
                biased.zip(&residual).map(|(x, r)| activate(x + *r as f64, activation) as f32).collect();
            let (a, w, residual) = (upload(gpu, &a, k)?, upload(gpu, &w, k)?, upload(gpu, &residual, n)?);
            let bias = gpu.upload("checked", &bias)?;
            let c = Tensor::alloc(gpu, "checked", element(gpu), [m, n])?;
            let plain = Gemm { bias: bias.ptr(), ..Gemm::new(&a, &w, &c)? };
            Gemm { finish: activation.into(), residual: residual.address(), ..plain }.launch(gpu)?;
            let what = format!("{m} x {n} x {k}");
            found.near(&what, &c.read()?, &want, tolerance(gpu));
            // Added in place, to f32 whatever the operands are.
            let sums = gpu.zeros::<f32>("checked", m * n)?;
            let added = Gemm { c: sums.ptr(), residual: sums.ptr(), output: Element::F32, ..plain };
            for _ in 0..2 {
                added.launch(gpu)?;
            }
            let mut got = vec![0.0; m * n];
            sums.read(&mut got)?;
            found.near(format!("{what}, added twice"), &got, &twice, tolerance(gpu));
        }
        Ok(())
    })
}

/// A row with mean 0 and variance 1, times gamma plus beta.
fn normalized(row: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let mean = row.iter().map(|x| *x as f64).sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (*x as f64 - mean).powi(2)).sum::<f64>() / row.len() as f64;
    let scale = |x: f32| (x as f64 - mean) / (variance + 1e-5).sqrt();
    let parameters = gamma.iter().zip(beta);
    row.iter().zip(parameters).map(|(x, (g, b))| (scale(*x) * *g as f64 + *b as f64) as f32).collect()
}

fn norms() -> Check {
    Check::new("encoder norms, conversions and selected rows", |gpu, found| {
        for (rows, width) in [(1, 4), (33, 100), (67, 768), (5, 2048)] {
            let (x, gamma, beta) = (exact(rows * width, 1), exact(width, 2), exact(width, 3));
            let want: Vec<f32> = x.chunks_exact(width).flat_map(|row| normalized(row, &gamma, &beta)).collect();
            let [gamma, beta] = [gamma, beta].map(|values| Tensor::new([width], values));
            let (gamma, beta) = (gamma?, beta?);
            let x = upload_wide(gpu, &x, width)?;
            let got = Norm::new(&gamma, &beta, 1e-5, &compute(gpu))?.forward(&x)?.into_host()?;
            let what = format!("{rows} x {width}");
            found.near(&what, &got, &want, tolerance(gpu));
            let to_both = Compute { precision: Precision::Bf16, ..compute(gpu) };
            let wide = Norm::new(&gamma, &beta, 1e-5, &to_both)?.wide().forward(&x)?;
            let both = [wide.read()?, wide.operand(Element::Bf16)?.read()?];
            let same = if element(gpu) == Element::F32 { &both[0] } else { &both[1] };
            found.equal(format!("{what}, as f32 and bf16 at once"), bits(same), bits(&got));
            let narrowed = wide.converted()?;
            let [wide, narrow] = [narrowed.read()?, narrowed.converted()?.read()?];
            found.equal(format!("{what}, narrowed"), bits(&wide), bits(&both[1]));
            found.equal(format!("{what}, widened"), bits(&narrow), bits(&both[1]));
            let (some, all) = (x.select(&[rows - 1, 0])?.into_host()?, x.into_host()?);
            let want = [&all[(rows - 1) * width..], &all[..width]].concat();
            found.equal(format!("{what}, selected"), bits(&some), bits(&want));
        }
        Ok(())
    })
}

/// Attention of one head of one sequence, row by row.
fn attended(q: &[&[f32]], k: &[&[f32]], v: &[&[f32]], causal: bool) -> Vec<Vec<f32>> {
    let scale = 1.0 / (q[0].len() as f64).sqrt();
    let row = |(i, q): (usize, &&[f32])| {
        let seen = if causal { i + 1 } else { k.len() };
        let weights: Vec<f64> = k[..seen].iter().map(|k| (dot(q, k) * scale).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |c: usize| v.iter().zip(&weights).map(|(v, w)| v[c] as f64 * w).sum::<f64>() / total;
        (0..q.len()).map(|c| column(c) as f32).collect()
    };
    q.iter().enumerate().map(row).collect()
}

fn attention() -> Check {
    let cases: [(&[usize], usize, usize, bool); 7] = [
        (&[1], 1, 16, true),
        (&[7, 16, 1, 13], 2, 64, true),
        (&[50, 50], 3, 64, false),
        (&[17, 65, 130, 3], 2, 48, true),
        (&[5, 70], 3, 40, false),
        (&[129, 2, 64], 1, 96, false),
        (&[33, 70], 2, 128, false),
    ];
    Check::new("encoder attention", move |gpu, found| {
        for (lengths, count, head, causal) in cases {
            let (rows, width) = (lengths.iter().sum::<usize>(), count * head);
            // Some logits are large, so that softmax is sharp.
            let qkv: Vec<f32> = exact(rows * 3 * width, 7).iter().map(|x| 2.0 * x).collect();
            let mut want = vec![0.0; rows * width];
            let mut start = 0;
            for &length in lengths {
                for h in 0..count {
                    let part = |which: usize| -> Vec<&[f32]> {
                        let column = |row: usize| (row * 3 + which) * width + h * head;
                        (start..start + length).map(|row| &qkv[column(row)..column(row) + head]).collect()
                    };
                    let contexts = attended(&part(0), &part(1), &part(2), causal);
                    for (i, context) in contexts.iter().enumerate() {
                        want[(start + i) * width + h * head..][..head].copy_from_slice(context);
                    }
                }
                start += length;
            }
            let qkv = upload(gpu, &qkv, 3 * width)?;
            let attention = SelfAttention::new(Heads { count, width: head, causal }, element(gpu));
            let got = attention.forward(&qkv, &Sequences::new(lengths.to_vec()))?.into_host()?;
            found.near(format!("{lengths:?}, {count} heads of {head}"), &got, &want, tolerance(gpu));
        }
        Ok(())
    })
}

fn embeddings() -> Check {
    Check::new("encoder embeddings", |gpu, found| {
        let width = 36;
        let (table, positions) = (exact(11 * width, 1), exact(5 * width, 2));
        let row = |table: &[f32], i: usize| table[i * width..(i + 1) * width].to_vec();
        let sum = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let ids: [&[u32]; 3] = [&[3, 10, 0], &[], &[3, 1, 1, 2, 7]];
        let pairs = ids.iter().flat_map(|ids| ids.iter().zip(0..));
        let want: Vec<f32> = pairs.flat_map(|(&id, at)| sum(row(&table, id as usize), row(&positions, at))).collect();
        let tensor = |values: &[f32]| Tensor::new([values.len() / width, width], values.to_vec());
        let embedding = Embedding::new(&tensor(&table)?, &tensor(&positions)?, &compute(gpu))?;
        found.equal("tokens", bits(&embedding.forward(&ids)?.into_host()?), bits(&want));
        let patches = exact(3 * 4 * width, 3);
        let first = row(&table, 0);
        let want: Vec<f32> = (0..15)
            .flat_map(|i| {
                let patch = if i % 5 == 0 { first.clone() } else { row(&patches, i / 5 * 4 + i % 5 - 1) };
                sum(patch, row(&positions, i % 5))
            })
            .collect();
        let (class, positions) = (Tensor::new([width], first)?, tensor(&positions)?);
        let patches_on = upload_wide(gpu, &patches, width)?;
        let (got, _) = PatchEmbedding::new(Some(&class), &positions, &compute(gpu))?.forward(&patches_on)?;
        found.equal("patches", bits(&got.into_host()?), bits(&want));
        // The same positions of images of five patches, which have no class.
        let patches = exact(2 * 5 * width, 4);
        let want: Vec<f32> = (0..10).flat_map(|i| sum(row(&patches, i), row(positions.data(), i % 5))).collect();
        let (got, images) =
            PatchEmbedding::new(None, &positions, &compute(gpu))?.forward(&upload_wide(gpu, &patches, width)?)?;
        found.equal("patches without a class", bits(&got.into_host()?), bits(&want));
        found.equal("images", images.lengths(), &[5, 5]);
        Ok(())
    })
}

/// Calls `visit` with an output's number and, for each pixel of its window that is there, its place in the window and its
/// number.
pub fn visit_windows(images: usize, windows: Windows, mut visit: impl FnMut(usize, usize, usize)) {
    let (Windows { height, width, kernel, stride, padding }, (down, across)) = (windows, windows.size());
    for output in 0..images * down * across {
        let (image, y, x) = (output / (down * across), output / across % down, output % across);
        for tap in 0..kernel * kernel {
            let at = |i: usize, tap: usize, end| (i * stride + tap).checked_sub(padding).filter(|&at| at < end);
            if let (Some(y), Some(x)) = (at(y, tap / kernel, height), at(x, tap % kernel, width)) {
                visit(output, tap, (image * height + y) * width + x);
            }
        }
    }
}

/// Sums of all windows of `images` images of `inputs` channels, with a bias per output.
pub fn convolved(
    (images, inputs): (usize, usize),
    windows: Windows,
    pixels: &[f32],
    (weight, bias): (&[f32], &[f32]),
) -> Vec<f64> {
    let (outputs, (down, across)) = (bias.len(), windows.size());
    let area = windows.kernel * windows.kernel;
    let mut sums: Vec<f64> = (0..images * down * across * outputs).map(|i| bias[i % outputs] as f64).collect();
    visit_windows(images, windows, |output, tap, pixel| {
        let x = &pixels[pixel * inputs..(pixel + 1) * inputs];
        for (o, sum) in sums[output * outputs..(output + 1) * outputs].iter_mut().enumerate() {
            *sum += dot(x, &weight[(o * area + tap) * inputs..][..inputs]);
        }
    });
    sums
}

/// Weights (outputs, pixels, inputs) with the pixels of an input together, as files have them.
pub fn filters_of(weight: &[f32], inputs: usize, area: usize) -> Vec<f32> {
    let turned = |filter: &[f32]| (0..inputs * area).map(|i| filter[i % area * inputs + i / area]).collect::<Vec<_>>();
    weight.chunks_exact(inputs * area).flat_map(turned).collect()
}

fn convolutions() -> Check {
    let cases = [
        // height, width, kernel, stride, padding; inputs, outputs: a stem, a bottleneck's parts, patches.
        ([23, 17, 7, 2, 3], 3, 12),
        ([9, 7, 3, 1, 1], 24, 72),
        ([10, 7, 3, 2, 1], 8, 20),
        ([9, 7, 1, 2, 0], 40, 8),
        ([9, 7, 1, 1, 0], 40, 8),
        ([12, 20, 4, 4, 0], 3, 16),
        ([16, 32, 8, 8, 0], 3, 16),
    ];
    Check::new("encoder convolutions", move |gpu, found| {
        for ([height, width, kernel, stride, padding], inputs, outputs) in cases {
            let windows = Windows { height, width, kernel, stride, padding };
            let (images, area) = (3, kernel * kernel);
            let pixels = exact(images * height * width * inputs, 1);
            let (weight, bias) = (exact(outputs * area * inputs, 2), exact(outputs, 3));
            let sums = convolved((images, inputs), windows, &pixels, (&weight, &bias));
            let filters = Filters { outputs, inputs, kernel, stride, padding };
            let weight = filters_of(&weight, inputs, area);
            let convolution = Convolution::new(&weight, filters, Some(bias), &compute(gpu))?.with(Activation::Relu);
            let x = Maps { rows: Tensor::of_rows(pixels, inputs)?, height, width };
            let what = format!("{height} x {width}, {kernel} x {kernel} by {stride}, {inputs} to {outputs}");
            let got = convolution.forward(&x)?;
            let want: Vec<f32> = sums.iter().map(|x| x.max(0.0) as f32).collect();
            let (height, width) = (got.height, got.width);
            found.near(&what, &got.rows.into_host()?, &want, tolerance(gpu));
            let residual = exact(sums.len(), 4);
            let want: Vec<f32> = sums.iter().zip(&residual).map(|(x, r)| (x + *r as f64).max(0.0) as f32).collect();
            let mut out = Maps { rows: upload(gpu, &residual, outputs)?, height, width };
            convolution.forward_onto(&x, &mut out)?;
            found.near(format!("{what}, with a residual"), &out.rows.into_host()?, &want, tolerance(gpu));
        }
        Ok(())
    })
}

fn pools() -> Check {
    Check::new("encoder pools", |gpu, found| {
        let (images, height, width, channels) = (2, 9, 8, 12);
        let windows = Windows { height, width, kernel: 3, stride: 2, padding: 1 };
        let pixels = exact(images * height * width * channels, 1);
        let (down, across) = windows.size();
        let mut want = vec![f32::NEG_INFINITY; images * down * across * channels];
        visit_windows(images, windows, |output, _, pixel| {
            let window = want[output * channels..(output + 1) * channels].iter_mut();
            window.zip(&pixels[pixel * channels..]).for_each(|(most, x)| *most = most.max(*x));
        });
        let x = Maps { rows: upload(gpu, &pixels, channels)?, height, width };
        let got = MaxPool { kernel: 3, stride: 2, padding: 1 }.forward(&x)?;
        found.equal("maxima", &got.rows.into_host()?[..], &want);

        let (lengths, width) = ([3, 0, 1, 40], 516);
        let x = exact(44 * width, 2);
        let mut rows = x.chunks_exact(width);
        let want: Vec<f32> = lengths
            .iter()
            .flat_map(|&length| {
                let mut sum = vec![0.0f64; width];
                rows.by_ref().take(length).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, x)| *s += *x as f64));
                sum.into_iter().map(move |x| (x / length.max(1) as f64) as f32)
            })
            .collect();
        let got = mean(&upload_wide(gpu, &x, width)?, &Sequences::new(lengths.to_vec()))?;
        found.near("means", &got.into_host()?, &want, tolerance(gpu));
        Ok(())
    })
}
