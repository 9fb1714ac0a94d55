//! Scores of a mention on the GPU at hand or, where there is none, on cusim with all its checks: what is asked wrongly, and a kernel
//! that stays.

use std::time::Duration;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::model::{EntityIndex, GpuScorer, Model, ModelConfig, PreparedSide, Scorer, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Element;

use crate::support;

fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("cuda_link::{test}"), body);
}

#[test]
fn entities_beyond_the_index_are_refused_on_a_device() {
    on_device("entities_beyond_the_index_are_refused_on_a_device", || {
        let shape = Shape { mentions: 1, candidates: 1, mean_tokens: 9, max_tokens: 70, patches: 6 };
        let widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let model = Model::new(ModelConfig { widths, d: 20, ..ModelConfig::default() }, 5).unwrap();
        let side = PreparedSide::new(&model, &shape.side(14, widths, 5, 1).unwrap()).unwrap();
        let scorer = Scorer::new(&model).unwrap();
        let mut index = EntityIndex::new(&scorer, Element::F32);
        index.add(&side, 14).unwrap();
        let mut device = GpuScorer::new(&scorer, &gpu).unwrap();
        assert!(device.score(side.mention(0), &index, &[13]).is_ok());
        assert!(device.score(side.mention(0), &index, &[14]).is_err());
    });
}

#[test]
fn a_kernel_that_stays_scores_as_launches_do_and_comes_back_when_it_has_left() {
    on_device("a_kernel_that_stays_scores_as_launches_do_and_comes_back_when_it_has_left", || {
        let shape = Shape { mentions: 1, candidates: 1, mean_tokens: 9, max_tokens: 70, patches: 6 };
        let widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let model = Model::new(ModelConfig { widths, d: 20, ..ModelConfig::default() }, 5).unwrap();
        let mentions = PreparedSide::new(&model, &shape.side(6, widths, 5, 1).unwrap()).unwrap();
        let scorer = Scorer::new(&model).unwrap();
        let mut index = EntityIndex::new(&scorer, Element::F32);
        let more = |which| PreparedSide::new(&model, &shape.side(14, widths, 5, which).unwrap()).unwrap();
        index.add(&more(2), 14).unwrap();
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
        index.add(&more(3), 14).unwrap();
        let all: Vec<u32> = (0..28).collect();
        (2..6).for_each(|mention| agree(&mut stays, mention, &index, &all));
    });
}
