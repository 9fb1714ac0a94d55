//! Kernels of weights in the blocks of GGUF files against their definition.

use half::f16;

use super::decoder::{rounded, silu, tolerance};
use super::definition::{normalized, product, values};
use super::{Check, Findings, SUMS};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::linear::stored::{DeviceBlocks, Next, OnDevice};
use crate::tensor::{BlockType, Element, Tensor};

/// Blocks of any codes (rows, columns) whose scales are such that weights are about 1, and what they are.
pub fn random_blocks(kind: BlockType, rows: usize, columns: usize, seed: u32) -> (Vec<u8>, Vec<f32>) {
    let drawn = values(rows * kind.bytes(columns), seed, 16);
    let mut blocks: Vec<u8> = drawn.iter().map(|x| (x * 32768.0) as i32 as u8).collect();
    let size = match kind {
        BlockType::Q4_0 | BlockType::Q4_1 => 0.1,
        BlockType::Q5_0 | BlockType::Q5_1 => 0.06,
        BlockType::Q8_0 => 0.008,
        BlockType::Q4K => 0.002,
        BlockType::Q5K => 0.001,
        BlockType::Q6K => 0.0004,
    };
    for (block, x) in blocks.chunks_exact_mut(kind.block_bytes()).zip(values(rows * columns, seed + 1, 24)) {
        for at in kind.scales() {
            block[at..at + 2].copy_from_slice(&f16::from_f32(size * (1.0 + 0.5 * x)).to_le_bytes());
        }
    }
    let mut exact = vec![0.0; rows * columns];
    let each = blocks.chunks_exact(kind.bytes(columns)).zip(exact.chunks_exact_mut(columns));
    each.for_each(|(blocks, exact)| kind.dequantize(blocks, exact));
    (blocks, exact)
}

/// Products, gates and embeddings of each type.
pub fn checks() -> Vec<Check> {
    let kinds = BlockType::ALL.into_iter();
    kinds
        .map(|kind| Check::new(format!("decoder, blocks of {kind}"), move |gpu, found| of_kind(gpu, kind, found)))
        .collect()
}

fn of_kind(gpu: &Gpu, kind: BlockType, found: &mut Findings) -> Result<()> {
    // Parts of other types stand below: as in a file whose values have more bits than its queries.
    let other = if kind == BlockType::Q6K { BlockType::Q4K } else { BlockType::Q6K };
    for (element, m) in [(Element::F32, 3), (Element::F16, 1), (Element::F16, 8), (Element::F16, 67)] {
        let (n, k) = (24, 512);
        let ([blocks, more], [exact, more_exact]) = {
            let ((a, x), (b, y)) = (random_blocks(kind, n, k, 3), random_blocks(other, 16, k, 5));
            ([a, b], [x, y])
        };
        let weights = DeviceBlocks::upload(gpu, k, &[(kind, &blocks), (other, &more)])?;
        let x = rounded(&values(m * k, 50, 24), element);
        let rows = Tensor::upload(gpu, "activations", &x, k, element)?.into();
        let all = [&exact[..], &more_exact].concat();
        let want: Vec<f32> = product(&x, &all, k).into_iter().map(|x| x as f32).collect();
        // For many rows the weights become f16, which rounds each to 11 bits.
        let wide = if m > 8 { tolerance(Element::F16) } else { SUMS };
        let what = format!("{m} rows of {element:?}");
        found.near(format!("{what}, in f32"), &weights.multiply_wide(&rows)?.read()?, &want, wide);
        found.near(&what, &weights.multiply(&rows)?.read()?, &want, tolerance(element) + wide);
        let mut sum = Tensor::upload(gpu, "activations", &vec![0.5; m * 40], 40, Element::F32)?;
        weights.add_to(&mut sum, &rows, None)?;
        let added: Vec<f32> = want.iter().map(|x| x + 0.5).collect();
        found.near(format!("{what}, added"), &sum.read()?, &added, wide);
        let (ups, up_exact) = random_blocks(kind, n, k, 9);
        let gates = DeviceBlocks::in_turn(gpu, k, kind, &blocks, &ups)?;
        let pairs = product(&x, &exact, k).into_iter().zip(product(&x, &up_exact, k));
        let want: Vec<f32> = pairs.map(|(gate, up)| (silu(gate) * up) as f32).collect();
        // Both factors are rounded, and the gate's error counts as often as silu is steep.
        found.near(
            format!("{what}, gated"),
            &gates.gated(&rows)?.read()?,
            &want,
            tolerance(element) + 2.0 * wide + SUMS,
        );
    }
    around_norms(gpu, kind, found)?;
    let (blocks, exact) = random_blocks(kind, 11, 512, 6);
    let table = DeviceBlocks::upload(gpu, 512, &[(kind, &blocks)])?;
    let tokens = gpu.upload("checked", &[10u32, 0, 7, 7])?;
    let want: Vec<f32> = [10, 0, 7, 7].iter().flat_map(|t| exact[t * 512..][..512].to_vec()).collect();
    // A product and a sum may be one rounding or two.
    found.near("embedded", &table.embed(tokens.ptr(), 4)?.read()?, &want, 2e-7);
    Ok(())
}

/// A normalization of a few rows between two products.
fn around_norms(gpu: &Gpu, kind: BlockType, found: &mut Findings) -> Result<()> {
    let width = 256;
    let ((first, exact_before), (second, exact)) =
        (random_blocks(kind, width, width, 11), random_blocks(kind, 32, width, 13));
    let before = DeviceBlocks::upload(gpu, width, &[(kind, &first)])?;
    let behind = DeviceBlocks::upload(gpu, width, &[(kind, &second)])?;
    let gain = values(width, 14, 24);
    let on_device = Tensor::new([width], gain.clone())?.to(Some(gpu))?;
    for (element, m) in [(Element::F32, 3), (Element::F16, 1), (Element::F16, 5)] {
        let x = rounded(&values(m * width, 52, 24), element);
        let rows = Tensor::upload(gpu, "activations", &x, width, element)?.into();
        let mut sum = Tensor::upload(gpu, "activations", &vec![0.5; m * width], width, Element::F32)?;
        let input = before.add_to(&mut sum, &rows, Some(Next { gain: &on_device, eps: 1e-5, element }))?;
        let what = format!("behind a norm, {m} rows of {element:?}");
        found.equal(format!("{what}, come with the sums"), &[u8::from(input.is_some())], &[1]);
        let Some(input) = input else { continue };
        let sums: Vec<f64> = product(&x, &exact_before, width).into_iter().map(|x| x + 0.5).collect();
        let want = product(&normalized(&sums, &gain), &exact, width);
        let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        found.near(&what, &behind.multiply(&input)?.read()?, &narrow(&want), tolerance(element) + SUMS);
        let gated: Vec<f64> = want.chunks_exact(2).map(|pair| silu(pair[0]) * pair[1]).collect();
        let got = behind.gated(&input)?.read()?;
        found.near(format!("{what}, gated"), &got, &narrow(&gated), tolerance(element) + 3.0 * SUMS);
    }
    Ok(())
}
