//! The engine against PyTorch: draws of the reference (tests/fixtures/replay/draw.sh), and ablations against
//! the full model.

use std::path::PathBuf;

use fissfuse::eval::replay::replay;
use fissfuse::model::{Ablation, EntityIndex, Modalities, Model, ModelConfig, Noise, PreparedSide, Scorer, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{Element, Tensor};

use crate::support;

/// f32 against the reference's f64: a few hundred roundings of 6e-8 each, on values of their own size.
const SCORES: f32 = 1e-5;
/// As above, through the backward and relative to a gradient's largest element.
const GRADIENTS: f32 = 1e-4;

pub fn fixtures() -> Vec<PathBuf> {
    let folder = support::fixture("replay");
    ["one-head", "three-heads", "single"].map(|name| folder.join(name)).to_vec()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.data().iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Largest difference, relative to the largest wanted element or to `floor` if that is larger.
fn difference(got: &Tensor, want: &Tensor, floor: f32) -> f32 {
    assert_eq!(got.shape(), want.shape());
    let worst = got.data().iter().zip(want.data()).fold(0.0f32, |max, (g, w)| max.max((g - w).abs()));
    worst / largest(want).max(floor)
}

#[test]
fn scores_loss_and_gradients_are_the_references() {
    for folder in fixtures() {
        let file = |name: &str| folder.join(name);
        let config = file("config.json");
        let got = replay(&file("weights.safetensors"), &file("batch.safetensors"), Some(&config), None).unwrap();
        let want = Reader::open(&file("expected.safetensors")).unwrap();
        assert!(difference(&got.scores, &want.tensor("scores").unwrap(), 0.0) < SCORES);
        assert!(difference(&got.similarity, &want.tensor("similarity").unwrap(), 0.0) < SCORES);
        let loss = Tensor::new([1], vec![got.loss]).unwrap();
        assert!(difference(&loss, &want.tensor("loss").unwrap(), 1.0) < SCORES);
        let names: Vec<&str> = want.names().filter_map(|n| n.strip_prefix("grad.")).collect();
        assert_eq!(got.gradients.len(), names.len());
        // The key bias has gradient zero; the reference's is the rounding of f64.
        let floor = 1e-6 * got.gradients.iter().map(|(_, g)| largest(g)).fold(0.0, f32::max);
        for (name, grad) in &got.gradients {
            let error = difference(grad, &want.tensor(&format!("grad.{name}")).unwrap(), floor);
            assert!(error < GRADIENTS, "{}: {name} is off by {error}", folder.display());
            assert!(!name.ends_with("key.bias") || largest(grad) == 0.0, "{name}");
        }
    }
}

#[test]
fn the_configuration_is_read_off_the_weights_where_none_is_given() {
    let folder = &fixtures()[0];
    let file = |name: &str| folder.join(name);
    let config = file("config.json");
    let with = replay(&file("weights.safetensors"), &file("batch.safetensors"), Some(&config), None).unwrap();
    let without = replay(&file("weights.safetensors"), &file("batch.safetensors"), None, None).unwrap();
    assert_eq!(with.scores.data(), without.scores.data());
}

fn small_model(ablation: Ablation, modalities: Modalities) -> ModelConfig {
    let widths = Widths { text: 12, text_global: 8, image: 10, image_global: 6 };
    ModelConfig { widths, d: 12, heads: 2, ablation, modalities, ..ModelConfig::default() }
}

const SMALL: Shape = Shape { mentions: 5, candidates: 4, mean_tokens: 5, max_tokens: 9, patches: 3 };

#[test]
fn ablations_compute_what_remains_and_nothing_else() {
    use Ablation::*;
    let batch = SMALL.batch(small_model(None, Modalities::Both).widths, 1).unwrap();
    let full = Model::new(small_model(None, Modalities::Both), 7).unwrap();
    let full_scores = full.gradients(&batch, Option::None).unwrap().scores;
    for (ablation, modalities) in
        [A, B, C, D, E, F, G].map(|a| (a, Modalities::Both)).into_iter().chain([(None, Modalities::Image)])
    {
        // The same weights as the full model's, under the names that remain.
        let config = small_model(ablation, modalities);
        let mut model = Model::new(config.clone(), 7).unwrap();
        let names: Vec<String> = model.parameters().iter().map(|(n, _)| n.to_string()).collect();
        let one_sided = ablation == G || modalities == Modalities::Image;
        for (name, slot) in names.iter().zip(model.parameters_mut().tensors_mut()) {
            let (_, from) = full.parameters().iter().find(|(n, _)| n == name).unwrap();
            if from.shape() == slot.shape() {
                *slot = from.clone();
            } else {
                assert!(one_sided, "{name} changed its shape under ablation {ablation:?}");
            }
        }
        assert!(model.parameters().count() < full.parameters().count() || matches!(ablation, D | E | F));
        let step = model.gradients(&batch, Option::None).unwrap();
        assert!(step.losses.data().iter().all(|l| l.is_finite()));
        assert_eq!(step.gradients.len(), names.len());
        let pairs = batch.pairs.len();
        for (row, kind) in step.scores.kinds.iter().enumerate() {
            let same_inputs = !one_sided || ["S1T", "S1V"].contains(kind);
            if same_inputs {
                let at = full_scores.kinds.iter().position(|k| k == kind).unwrap();
                let (got, want) = (step.scores.values.tensor().data(), full_scores.values.tensor().data());
                assert_eq!(got[row * pairs..][..pairs], want[at * pairs..][..pairs], "{ablation:?} {kind:?}");
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let shape = Shape { mentions: 40, candidates: 9, mean_tokens: 20, max_tokens: 39, patches: 17 };
    let config = small_model(Ablation::None, Modalities::Both);
    let batch = shape.batch(config.widths, 3).unwrap();
    let model = Model::new(ModelConfig { dropout: 0.1, ..config }, 3).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let step = pool.install(|| model.gradients(&batch, Some(Noise { seed: 1, step: 2 }))).unwrap();
        let gradients: Vec<Vec<f32>> = step.gradients.iter().map(|g| g.data().to_vec()).collect();
        (step.losses.data().to_vec(), gradients)
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn prepared_scores_are_those_of_the_training_pass() {
    use Ablation::*;
    let cases = [None, A, B, C, D, E, F, G].map(|a| (a, Modalities::Both, 2));
    for (ablation, modalities, heads) in
        cases.into_iter().chain([(None, Modalities::Image, 1), (None, Modalities::Both, 1)])
    {
        let config = ModelConfig { heads, ..small_model(ablation, modalities) };
        let batch = Shape { candidates: 70, ..SMALL }.batch(config.widths, 1).unwrap();
        let model = Model::new(config, 5).unwrap();
        let want = model.gradients(&batch, Option::None).unwrap().scores;
        let pairs = batch.pairs.len();
        let mentions = PreparedSide::new(&model, &batch.mention).unwrap();
        let entities = PreparedSide::new(&model, &batch.entity).unwrap();
        let scorer = Scorer::new(&model).unwrap();
        assert_eq!(scorer.kinds().iter().map(|kind| kind.label()).collect::<Vec<_>>(), want.kinds);
        // f16 keeps 11 bits of the projected rows; scores are sums of a dozen of their products.
        for (precision, tolerance) in [(Element::F32, 1e-5), (Element::F16, 1e-2)] {
            let mut index = EntityIndex::new(&scorer, precision);
            index.add(&entities, batch.entity.text.sequences.len()).unwrap();
            for mention in 0..SMALL.mentions {
                let candidates: Vec<u32> = batch.pairs.by_left().of(mention).to_vec();
                let got = scorer.score(mentions.mention(mention), &index, &candidates).unwrap();
                for (k, got) in got.chunks_exact(candidates.len()).enumerate() {
                    for (got, &p) in got.iter().zip(&candidates) {
                        let want = want.values.tensor().data()[k * pairs + p as usize];
                        let bound = tolerance * want.abs().max(5.0);
                        assert!((got - want).abs() <= bound, "{ablation:?} {heads} heads: {got}, not {want}");
                    }
                }
            }
        }
    }
}
