//! Every kernel against the CPU, on the GPU at hand or, where there is none, on cusim with all its checks.

use std::process::Command;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, has_driver, kernels};
use fissfuse::eval::replay::replay;
use fissfuse::model::{FissFuse, ModelConfig, Widths};
use fissfuse::ops::cases::{self, Case};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tape::{Tape, Var};
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Reader;

use crate::replay::fixtures;
use crate::support::cusim;

/// Set in the process that tests run in.
const INSIDE: &str = "FISSFUSE_TEST_ON_DEVICE";

/// f32 sums in another order: some hundreds of roundings of 6e-8 each.
const F32: f32 = 2e-5;
/// Products of values rounded to 8 bits (bf16) or 11 (f16), 2^-9 each, through up to five layers forward and as many back.
const MIXED: f32 = 3e-2;
/// Errors are relative to a tensor's largest element, and at least to this share of the largest of all gradients: a sum
/// whose terms cancel carries the rounding of its terms.
const FLOOR: f32 = 0.1;

/// Runs a test's body where it finds a device: here if there is a driver, else in a process of its own on cusim.
fn on_device(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() || has_driver() {
        return body();
    }
    let folder = cusim();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("cuda::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env("LD_LIBRARY_PATH", folder.path())
        .envs([(INSIDE, "1"), ("CUSIM_CHECK", "all"), ("CUSIM_ASYNC", "late"), ("CUSIM_ORDER", "reverse")])
        .output()
        .unwrap();
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}\n{errors}");
    assert!(!errors.contains("cusim: ["), "{errors}");
}

/// Output and gradients of a case on a device or, with `None`, the host.
fn run(case: &Case, gpu: Option<&Gpu>) -> (Tensor, Vec<Tensor>) {
    let tape = Tape::recording();
    let leaves: Vec<Var> = case.inputs.iter().map(|t| tape.leaf(t.to(gpu).unwrap())).collect();
    let out = case.apply(&tape, &leaves.iter().collect::<Vec<_>>()).unwrap();
    // Gradients that differ from element to element and sum to no round number.
    let seed = (0..out.tensor().len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<_>>();
    let seed = Tensor::new(out.tensor().shape(), seed).unwrap().to(gpu).unwrap();
    let mut grads = tape.backward(&out, seed).unwrap();
    let grads = leaves.iter().map(|leaf| grads.take(leaf).unwrap().to(None).unwrap()).collect();
    (out.into_tensor().to(None).unwrap(), grads)
}

fn length(values: &[f32]) -> f32 {
    values.iter().map(|x| x * x).sum::<f32>().sqrt()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.data().iter().fold(0.0, |max, x| max.max(x.abs()))
}

fn compare(what: &str, got: &Tensor, want: &Tensor, floor: f32, tolerance: f32) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let largest = largest(want).max(floor);
    for (i, (got, want)) in got.data().iter().zip(want.data()).enumerate() {
        assert!(
            (got - want).abs() <= tolerance * largest,
            "{what}[{i}] is {got}, should be {want} (largest {largest})"
        );
    }
}

fn agrees(arithmetic: Arithmetic, tolerance: f32) {
    let gpu = Gpu::open(0, arithmetic).unwrap();
    for case in cases::small().unwrap() {
        let (out, grads) = run(&case, Some(&gpu));
        let (want, wanted_grads) = run(&case, None);
        compare(&case.name, &out, &want, 0.0, tolerance);
        let floor = FLOOR * wanted_grads.iter().map(largest).fold(0.0, f32::max);
        for (i, (got, want)) in grads.iter().zip(&wanted_grads).enumerate() {
            compare(&format!("{}: gradient {i}", case.name), got, want, floor, tolerance);
        }
        // The same bits once more.
        let (again, grads_again) = run(&case, Some(&gpu));
        assert_eq!(out.data(), again.data(), "{} differs when repeated", case.name);
        assert!(grads.iter().zip(&grads_again).all(|(a, b)| a.data() == b.data()), "{} differs", case.name);
    }
}

#[test]
fn kernels_are_embedded() {
    assert!(!kernels::EMBEDDED.is_empty(), "built without nvcc; run scripts/cuda-toolchain.sh");
}

#[test]
fn kernels_agree_with_the_cpu_in_f32() {
    on_device("kernels_agree_with_the_cpu_in_f32", || agrees(Arithmetic::F32, F32));
}

#[test]
fn kernels_agree_with_the_cpu_in_mixed_arithmetic() {
    on_device("kernels_agree_with_the_cpu_in_mixed_arithmetic", || agrees(Arithmetic::Mixed, MIXED));
}

#[test]
fn replay_on_a_device_is_the_references() {
    on_device("replay_on_a_device_is_the_references", || {
        for (arithmetic, scores, gradients) in [(Arithmetic::F32, 1e-5, 1e-4), (Arithmetic::Mixed, 2e-2, 3e-2)] {
            let gpu = Gpu::open(0, arithmetic).unwrap();
            for folder in fixtures() {
                let file = |name: &str| folder.join(name);
                let config = file("config.json");
                let (weights, batch) = (file("weights.safetensors"), file("batch.safetensors"));
                let got = replay(&weights, &batch, Some(&config), Some(&gpu)).unwrap();
                let want = Reader::open(&file("expected.safetensors")).unwrap();
                compare("scores", &got.scores, &want.tensor("scores").unwrap(), 0.0, scores);
                // A gradient that is zero but for rounding has nothing to be relative to.
                let floor = 1e-3 * got.gradients.iter().map(|(_, g)| largest(g)).fold(0.0, f32::max);
                for (name, grad) in &got.gradients {
                    let what = format!("{} {arithmetic:?} {name}", folder.display());
                    compare(&what, grad, &want.tensor(&format!("grad.{name}")).unwrap(), floor, gradients);
                }
            }
        }
    });
}

#[test]
fn gradients_of_a_batch_of_stored_features_are_the_cpus() {
    on_device("gradients_of_a_batch_of_stored_features_are_the_cpus", || {
        let shape = Shape { mentions: 64, candidates: 6, mean_tokens: 9, max_tokens: 16, patches: 10 };
        let widths = Widths { text: 64, text_global: 40, image: 72, image_global: 40 };
        let config = ModelConfig { widths, d: 36, heads: 3, ..ModelConfig::default() };
        let batch = shape.batch(widths, 5).unwrap();
        let model = FissFuse::new(config, 5).unwrap();
        let want = model.gradients(&batch, None).unwrap();
        for (arithmetic, scores, gradients) in [(Arithmetic::F32, 1e-5, 1e-4), (Arithmetic::Mixed, 2e-2, 3e-2)] {
            let gpu = Gpu::open(0, arithmetic).unwrap();
            let got = model.to(Some(&gpu)).unwrap().gradients(&batch, None).unwrap();
            compare("scores", &got.scores.values.tensor().to(None).unwrap(), want.scores.values.tensor(), 0.0, scores);
            // Maximum and ReLU have kinks: where a rounding falls on their other side, a few elements jump. So whole
            // gradients are compared, by the length of their difference.
            let floor = 1e-3 * want.gradients.iter().map(|g| length(g.data())).fold(0.0, f32::max);
            for ((got, want), (name, _)) in got.gradients.iter().zip(&want.gradients).zip(model.parameters().iter()) {
                let got = got.to(None).unwrap();
                let difference: Vec<f32> = got.data().iter().zip(want.data()).map(|(g, w)| g - w).collect();
                let error = length(&difference) / length(want.data()).max(floor);
                assert!(error <= gradients, "{arithmetic:?} {name} is off by {error}");
            }
        }
    });
}

#[test]
fn twenty_steps_follow_the_cpu_and_repeat_bit_for_bit() {
    on_device("twenty_steps_follow_the_cpu_and_repeat_bit_for_bit", || {
        let shape = Shape { mentions: 6, candidates: 5, mean_tokens: 7, max_tokens: 12, patches: 5 };
        let widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };
        let config = ModelConfig { widths, d: 20, heads: 2, dropout: 0.1, ..ModelConfig::default() };
        let losses = |gpu: Option<&Gpu>| -> Vec<f32> {
            let mut step = TrainingStep::new(config.clone(), shape, 3, gpu).unwrap();
            (0..20).map(|_| step.run().unwrap()).collect()
        };
        let host = losses(None);
        // The loss is a mean over 30 pairs and six scores; what is off by 3e-2 in one direction in some of them averages.
        for (arithmetic, tolerance) in [(Arithmetic::F32, 1e-5), (Arithmetic::Mixed, 1e-2)] {
            let gpu = Gpu::open(0, arithmetic).unwrap();
            let device = losses(Some(&gpu));
            for (step, (got, want)) in device.iter().zip(&host).enumerate() {
                assert!((got - want).abs() <= tolerance * want, "{arithmetic:?}, step {step}: {got}, CPU {want}");
            }
            assert_eq!(device, losses(Some(&gpu)), "{arithmetic:?} differs when repeated");
        }
        assert!(host[19] < host[0]);
    });
}
