//! The choice of tokens by their logits against the host's.

use std::collections::BTreeSet;

use super::definition::values;
use super::{Check, Findings, bits};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::sample::{Draw, choose, choose_each, gather};
use crate::tensor::{Element, Tensor};

/// Tokens drawn, and logits of some.
pub fn checks() -> Vec<Check> {
    vec![
        Check::new("decoder sampling", sampling),
        Check::new("decoder sampling, numbers near borders", every_number),
        Check::new("decoder logits of some tokens", gathered),
    ]
}

fn random(count: usize, seed: u32) -> Vec<f32> {
    values(count, seed, 24)
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
