//! Scores of a mention on the GPU at hand or, where there is none, on cusim with all its checks: what is asked wrongly, and a kernel
//! that stays.

use std::time::Duration;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::model::{EntityIndex, GpuScorer, Model, ModelConfig, PreparedSide, Scorer, Side, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Element;

use crate::support;

fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("cuda_link::{test}"), body);
}

const SHAPE: Shape = Shape { mentions: 1, candidates: 1, mean_tokens: 9, max_tokens: 70, patches: 6 };
const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };

fn side(items: usize, which: u64) -> Side {
    SHAPE.side(items, WIDTHS, 5, which).unwrap()
}

/// A model, what scores pairs by it, and an index of 14 entities.
fn indexed() -> (Model, Scorer, EntityIndex) {
    let model = Model::new(ModelConfig { widths: WIDTHS, d: 20, ..ModelConfig::default() }, 5).unwrap();
    let scorer = Scorer::new(&model).unwrap();
    let mut index = EntityIndex::new(&scorer, Element::F32);
    index.add(&PreparedSide::new(&model, &side(14, 2)).unwrap(), 14).unwrap();
    (model, scorer, index)
}

#[test]
fn mentions_that_cannot_be_scored_on_a_device_are_refused() {
    on_device("mentions_that_cannot_be_scored_on_a_device_are_refused", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let (model, scorer, index) = indexed();
        let mentions = side(2, 1);
        let prepared = PreparedSide::new(&model, &mentions).unwrap();
        let mut device = GpuScorer::new(&scorer, &gpu).unwrap();
        assert!(device.score(prepared.mention(0), &index, &[13]).is_ok());
        assert!(device.score(prepared.mention(0), &index, &[14]).is_err());
        let there = model.to(Some(&gpu)).unwrap();
        let scores = device.score_features(&there, &mentions, &index, &[&[], &[13]]).unwrap();
        assert_eq!(scores.iter().map(Vec::len).collect::<Vec<_>>(), [0, scorer.kinds().len()]);
        let mut refuse = |model: &Model, lists: &[&[u32]], says: &str| {
            let error = device.score_features(model, &mentions, &index, lists).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refuse(&there, &[&[13], &[14]], "entity 14 of an index of 14");
        refuse(&there, &[&[13]], "1 lists of candidates for 2 mentions");
        refuse(&model, &[&[13], &[13]], "a model on None");
    });
}

#[test]
fn a_kernel_that_stays_scores_as_launches_do_and_comes_back_when_it_has_left() {
    on_device("a_kernel_that_stays_scores_as_launches_do_and_comes_back_when_it_has_left", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let (model, scorer, mut index) = indexed();
        let mentions = PreparedSide::new(&model, &side(6, 1)).unwrap();
        let [mut launched, mut stays] = [0; 2].map(|_| GpuScorer::new(&scorer, &gpu).unwrap());
        stays.keep_resident(Duration::from_millis(100));
        let mut agree = |stays: &mut GpuScorer, mention: usize, index: &EntityIndex, list: &[u32]| {
            let got = stays.score(mentions.mention(mention), index, list).unwrap();
            assert_eq!(got, launched.score(mentions.mention(mention), index, list).unwrap());
        };
        let list: Vec<u32> = (0..14).rev().collect();
        assert_eq!(stays.resident_launches(), 0);
        // One launch answers several requests, and leaves by itself.
        let asked = 50;
        (0..asked).for_each(|_| drop(stays.score(mentions.mention(1), &index, &list[..5]).unwrap()));
        let launches = stays.resident_launches();
        assert!((1..asked).contains(&launches), "{launches} launches");
        while stays.is_on_device() {
            std::thread::sleep(Duration::from_millis(10));
        }
        agree(&mut stays, 0, &index, &list[..5]);
        assert_eq!(stays.resident_launches(), launches + 1);
        // More candidates than there was room for, and an index that grew.
        agree(&mut stays, 3, &index, &list.repeat(3));
        index.add(&PreparedSide::new(&model, &side(14, 3)).unwrap(), 14).unwrap();
        let all: Vec<u32> = (0..28).collect();
        (2..6).for_each(|mention| agree(&mut stays, mention, &index, &all));
    });
}
