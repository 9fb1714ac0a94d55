//! The baselines against PyTorch: draws of their references (tests/fixtures/baselines/draw.sh).

use fissfuse::eval::replay::{Replayed, replay};
use fissfuse::model::{Architecture, NETWORKS};
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Reader;

use crate::support;

/// f32 against the reference's f64, through at most some tens of layers: a few hundred roundings of 6e-8 each.
const SCORES: f32 = 1e-5;
/// As above, through the backward and relative to a gradient's largest element.
const GRADIENTS: f32 = 1e-4;

fn replayed(name: &str) -> (Replayed, Reader) {
    let folder = support::fixture("baselines").join(name);
    let file = |name: &str| folder.join(name);
    let config = file("config.json");
    let got = replay(&file("weights.safetensors"), &file("batch.safetensors"), Some(&config), None).unwrap();
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

#[test]
fn each_computes_what_its_reference_does() {
    for network in NETWORKS.iter().filter(|network| network.name() != "fissfuse") {
        let name = network.name();
        let (got, want) = replayed(name);
        for (what, got) in [("scores", &got.scores), ("similarity", &got.similarity)] {
            let error = difference(got, &want.tensor(what).unwrap(), 0.0);
            assert!(error < SCORES, "{name}: {what} are off by {error}");
        }
        let loss = Tensor::new([1], vec![got.loss]).unwrap();
        let error = difference(&loss, &want.tensor("loss").unwrap(), 0.1);
        assert!(error < SCORES, "{name}: the loss is off by {error}");
        let wanted = want.names().filter(|n| n.starts_with("grad.")).count();
        assert_eq!(got.gradients.len(), wanted, "{name}");
        // A bias that no score depends on has gradient zero; the reference's is the rounding of f64.
        let floor = 1e-3 * got.gradients.iter().map(|(_, g)| largest(g)).fold(0.0, f32::max);
        for (parameter, grad) in &got.gradients {
            let error = difference(grad, &want.tensor(&format!("grad.{parameter}")).unwrap(), floor);
            assert!(error < GRADIENTS, "{name}: the gradient of {parameter} is off by {error}");
        }
    }
}

#[test]
fn names_are_those_of_the_files() {
    for network in NETWORKS {
        assert_eq!(network.name().parse::<Architecture>().unwrap().name(), network.name());
    }
    assert!("mimik".parse::<Architecture>().unwrap_err().contains("mimic"));
}
