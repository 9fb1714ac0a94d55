//! The baselines against PyTorch: draws of their references (tests/fixtures/baselines/draw.sh).

use fissfuse::Error;
use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::eval::replay::{Replayed, replay};
use fissfuse::model::{Architecture, ModelConfig, Widths};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::train::Steps;

use crate::support;

const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };
const SHAPE: Shape = Shape { mentions: 6, candidates: 5, mean_tokens: 7, max_tokens: 12, patches: 5 };

fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("baselines::{test}"), body);
}

/// f32 against the reference's f64, through at most some tens of layers: a few hundred roundings of 6e-8 each.
const SCORES: f32 = 1e-5;
/// As above, through the backward and relative to a gradient's largest element.
const GRADIENTS: f32 = 1e-4;

/// Models but for FissFuse, which has tests of its own.
fn others() -> impl Iterator<Item = Architecture> {
    Architecture::all().filter(|network| network.name() != "fissfuse")
}

/// What a model computes of its draw, on a device or the host, and what is wanted.
fn replayed(name: &str, gpu: Option<&Gpu>) -> (Replayed, Reader) {
    let folder = support::fixture("baselines").join(name);
    let file = |name: &str| folder.join(name);
    let config = file("config.json");
    let got = replay(&file("weights.safetensors"), &file("batch.safetensors"), Some(&config), gpu).unwrap();
    (got, Reader::open(&file("expected.safetensors")).unwrap())
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

/// Compares scores, loss and gradients with the reference's.
fn compare(name: &str, gpu: Option<&Gpu>, scores: f32, gradients: f32) {
    let (got, want) = replayed(name, gpu);
    for (what, got) in [("scores", &got.scores), ("similarity", &got.similarity)] {
        let error = difference(got, &want.tensor(what).unwrap(), 0.0);
        assert!(error < scores, "{name}: {what} are off by {error}");
    }
    let loss = Tensor::new([1], vec![got.loss]).unwrap();
    let error = difference(&loss, &want.tensor("loss").unwrap(), 0.1);
    assert!(error < scores, "{name}: the loss is off by {error}");
    let wanted = want.names().filter(|n| n.starts_with("grad.")).count();
    assert_eq!(got.gradients.len(), wanted, "{name}");
    // A bias that no score depends on has gradient zero; the reference's is the rounding of f64.
    let floor = 1e-3 * got.gradients.iter().map(|(_, g)| largest(g)).fold(0.0, f32::max);
    for (parameter, grad) in &got.gradients {
        let error = difference(grad, &want.tensor(&format!("grad.{parameter}")).unwrap(), floor);
        assert!(error < gradients, "{name}: the gradient of {parameter} is off by {error}");
    }
}

#[test]
fn each_computes_what_its_reference_does() {
    for network in others() {
        compare(network.name(), None, SCORES, GRADIENTS);
    }
}

#[test]
fn each_computes_what_its_reference_does_on_a_device() {
    on_device("each_computes_what_its_reference_does_on_a_device", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        for network in others() {
            // Sums in another order than the host's, and functions of the device to some units of the last place.
            compare(network.name(), Some(&gpu), 5.0 * SCORES, 5.0 * GRADIENTS);
        }
    });
}

#[test]
fn steps_as_graphs_have_the_same_bits_or_are_refused() {
    on_device("steps_as_graphs_have_the_same_bits_or_are_refused", || {
        let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
        let mut refused = Vec::new();
        for network in others().filter(|network| network.name() != "clip") {
            let config = ModelConfig { network, widths: WIDTHS, d: 20, ..ModelConfig::default() };
            let trained = |graphs: bool| -> Result<(Vec<u32>, Vec<u32>), Error> {
                let steps = Steps::new(Some(&gpu), graphs).unwrap();
                let mut step = TrainingStep::new(config.clone(), SHAPE, 3, steps).unwrap();
                let losses = (0..4).map(|seed| {
                    step.set_batch(SHAPE.batch(WIDTHS, seed).unwrap());
                    Ok(step.run()?.to_bits())
                });
                let losses = losses.collect::<Result<_, Error>>()?;
                let model = step.model().to(None).unwrap();
                let weights = model.parameters().tensors().iter().flat_map(|t| t.data()).map(|x| x.to_bits());
                Ok((losses, weights.collect()))
            };
            match trained(true) {
                Ok(recorded) => assert!(recorded == trained(false).unwrap(), "{network}"),
                Err(error) => {
                    assert!(error.to_string().contains("leave out --graph"), "{error}");
                    refused.push(network.name());
                }
            }
        }
        assert_eq!(refused, ["drin", "mimic"]);
    });
}

#[test]
fn names_are_those_of_the_files() {
    for network in Architecture::all() {
        assert_eq!(network.name().parse(), Ok(network));
    }
    assert!("mimik".parse::<Architecture>().unwrap_err().contains("mimic"));
}
