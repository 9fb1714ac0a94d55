//! A mention's scores on a device against the CPU's: of launches, and of a kernel that stays.

use std::time::Duration;

use super::Check;
use crate::error::Result;
use crate::model::{Ablation, EntityIndex, GpuScorer, Modalities, Model, ModelConfig, PreparedSide, Scorer, Widths};
use crate::profile::synthetic::Shape;
use crate::tensor::Element;

/// Mentions and lists of candidates: the index grows between them, their lengths differ, and one needs more room than was
/// recorded.
const SHAPE: Shape = Shape { mentions: 5, candidates: 1, mean_tokens: 9, max_tokens: 70, patches: 6 };
const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };

/// For how long the kernel stays without work.
const IDLE: Duration = Duration::from_millis(5);

/// From features in one graph what prepared mentions give, whose rows are rounded or not as the arithmetic has it.
pub fn from_features() -> Check {
    Check::new("link, from features", |gpu, found| -> Result<()> {
        let whole = ModelConfig { widths: WIDTHS, d: 20, heads: 2, ..ModelConfig::default() };
        let fusion = ModelConfig { ablation: Ablation::B, ..whole.clone() };
        let text = ModelConfig { modalities: Modalities::Text, ..whole.clone() };
        for config in [whole, fusion, text] {
            let model = Model::new(config.clone(), 5)?;
            let scorer = Scorer::new(&model)?;
            let on_device = model.to(Some(gpu))?;
            let mut index = EntityIndex::new(&scorer, Element::F32);
            index.add(&PreparedSide::new(&on_device, &SHAPE.side(14, WIDTHS, 6, 2)?)?, 14)?;
            let mut device = GpuScorer::new(&scorer, gpu)?;
            let all: Vec<u32> = (0..14).collect();
            // Other sizes, with lists of which one is longer than those before; others of the same sizes, which take the graph of the
            // first; the first again, and again when the index has grown.
            let even = Shape { max_tokens: SHAPE.mean_tokens, ..SHAPE };
            let sides =
                [(SHAPE, 1, 1, 1), (SHAPE, 3, 1, 3), (SHAPE, SHAPE.mentions, 3, 5), (even, 2, 1, 8), (even, 2, 2, 9)];
            for (turn, (shape, mentions, repeats, which)) in sides.into_iter().chain([sides[0], sides[3]]).enumerate() {
                if turn > sides.len() {
                    index.add(&PreparedSide::new(&on_device, &SHAPE.side(2, WIDTHS, 6, 7)?)?, 2)?;
                }
                let side = shape.side(mentions, WIDTHS, 5, which)?;
                let prepared = PreparedSide::new(&on_device, &side)?;
                let lists: Vec<Vec<u32>> = (0..mentions).map(|i| all[i..10 - i].repeat(repeats)).collect();
                let lists: Vec<&[u32]> = lists.iter().map(Vec::as_slice).collect();
                let got = device.score_features(&on_device, &side, &index, &lists)?;
                for (i, (got, list)) in got.iter().zip(&lists).enumerate() {
                    let what = format!("mention {i} of {mentions}, {} candidates, {:?}", list.len(), config.ablation);
                    found.equal(what, got, &device.score(prepared.mention(i), &index, list)?);
                }
            }
        }
        Ok(())
    })
}

/// Models of one and of several heads, of both widths and precisions, whole and in parts.
pub fn check() -> Check {
    let config = |d, heads| ModelConfig { widths: WIDTHS, d, heads, ..ModelConfig::default() };
    let configs = [
        (config(36, 3), Element::F32),
        (config(100, 1), Element::F16),
        (config(136, 2), Element::F16),
        (config(132, 1), Element::F32),
        // Two candidates of a block need what a launch need not ask for but for the kernel's own.
        (config(128, 1), Element::F32),
        (ModelConfig { ablation: Ablation::B, ..config(20, 1) }, Element::F32),
        (ModelConfig { ablation: Ablation::A, ..config(20, 1) }, Element::F32),
        (ModelConfig { ablation: Ablation::D, ..config(20, 2) }, Element::F16),
        (ModelConfig { ablation: Ablation::E, ..config(20, 1) }, Element::F32),
        (ModelConfig { modalities: Modalities::Text, ..config(20, 1) }, Element::F16),
    ];
    Check::new("link, prepared mentions and entities", move |gpu, found| -> Result<()> {
        for (config, precision) in &configs {
            let model = Model::new(config.clone(), 5)?;
            let mentions = PreparedSide::new(&model, &SHAPE.side(SHAPE.mentions, WIDTHS, 5, 1)?)?;
            let on_device = model.to(Some(gpu))?;
            let scorer = Scorer::new(&model)?;
            let mut index = EntityIndex::new(&scorer, *precision);
            let (mut device, mut resident) = (GpuScorer::new(&scorer, gpu)?, GpuScorer::new(&scorer, gpu)?);
            resident.keep_resident(IDLE);
            let all: Vec<u32> = (0..14).collect();
            let lists = [&all[3..4], &all[..7], &all[2..7], &all[..], &all.repeat(10)];
            for (mention, list) in lists.into_iter().enumerate() {
                if mention == 0 || mention == 3 {
                    let side = SHAPE.side(7, WIDTHS, 6, index.len() as u64)?;
                    index.add(&PreparedSide::new(&on_device, &side)?, 7)?;
                }
                let mention = mentions.mention(mention);
                let got = device.score(mention, &index, list)?;
                let want = scorer.score(mention, &index, list)?;
                // Both compute in f32, in another order.
                let what = format!("{} candidates, d {}, {:?}", list.len(), config.d, config.ablation);
                found.near(what.clone(), &got, &want, 2e-5);
                found.equal(what + ", resident", &resident.score(mention, &index, list)?, &got);
            }
        }
        Ok(())
    })
}
