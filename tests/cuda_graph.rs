//! Training steps as CUDA graphs: the same bits, whatever the batch, and the same behaviour when something fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::Duration;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, DeviceBuffer, Recorded};
use fissfuse::model::{Ablation, ModelConfig, Widths};
use fissfuse::profile::counts::Counts;
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Indices;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::train::Steps;

use crate::support::{
    self, World, cusim, fissfuse_bench, fissfuse_on_cusim, half_written, launches_on_cusim, refused, replace,
};

fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("cuda_graph::{test}"), body);
}

const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };
const SHAPE: Shape = Shape { mentions: 6, candidates: 5, mean_tokens: 7, max_tokens: 12, patches: 5 };

fn config() -> ModelConfig {
    ModelConfig { widths: WIDTHS, d: 20, heads: 2, dropout: 0.1, ..ModelConfig::default() }
}

/// Losses and, bit by bit, weights after a step on a batch of each shape.
fn trained(config: &ModelConfig, shapes: &[Shape], steps: Steps) -> (Vec<f32>, Vec<u32>, Option<Recorded>) {
    let mut step = TrainingStep::new(config.clone(), shapes[0], 3, steps).unwrap();
    let train = |(seed, shape): (usize, &Shape)| {
        step.set_batch(shape.batch(WIDTHS, seed as u64).unwrap());
        step.run().unwrap()
    };
    let losses = shapes.iter().enumerate().map(train).collect();
    let weights = step.model().to(None).unwrap();
    let bits = weights.parameters().tensors().iter().flat_map(|t| t.data()).map(|x| x.to_bits()).collect();
    (losses, bits, step.steps().recorded())
}

#[test]
fn twenty_steps_as_graphs_have_the_same_bits() {
    on_device("twenty_steps_as_graphs_have_the_same_bits", || {
        for arithmetic in [Arithmetic::F32, Arithmetic::Mixed] {
            let gpu = Gpu::open(0, arithmetic).unwrap();
            let trained = |graphs| trained(&config(), &[SHAPE; 20], Steps::new(Some(&gpu), graphs).unwrap());
            let (losses, weights, _) = trained(false);
            let (losses_of_graphs, weights_of_graphs, recorded) = trained(true);
            assert_eq!(losses_of_graphs, losses, "{arithmetic:?}");
            assert!(weights_of_graphs == weights, "{arithmetic:?}: weights differ");
            // Sizes change with the lengths of the texts; kernels do not.
            assert_eq!(recorded, Some(Recorded { made: 1, updated: 19 }));
            assert!(losses[19] < losses[0]);
        }
    });
}

#[test]
fn graphs_follow_batches_of_any_size() {
    on_device("graphs_follow_batches_of_any_size", || {
        let small = Shape { mentions: 2, candidates: 3, ..SHAPE };
        // So many pairs that sums over them are split, which takes other kernels.
        let large = Shape { mentions: 45, candidates: 6, ..SHAPE };
        let shapes = [SHAPE, SHAPE, small, large, large, small, SHAPE];
        // Features that stay on the device, and features that are copied with each batch, whatever the model.
        let configs = [
            (config(), 60),
            (config(), 0),
            (ModelConfig { ablation: Ablation::B, dropout: 0.0, ..config() }, 60),
            (ModelConfig { d: 36, heads: 3, dropout: 0.0, ..config() }, 60),
        ];
        for (config, percent) in configs {
            let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
            gpu.set_resident_percent(percent);
            let trained = |graphs| trained(&config, &shapes, Steps::new(Some(&gpu), graphs).unwrap());
            let (losses, weights, _) = trained(false);
            let (losses_of_graphs, weights_of_graphs, recorded) = trained(true);
            assert_eq!(losses_of_graphs, losses, "{config:?}");
            assert!(weights_of_graphs == weights, "{config:?}: weights differ");
            let Recorded { made, updated } = recorded.unwrap();
            assert!(made > 1 && updated > 0 && made + updated == shapes.len(), "{recorded:?}");
        }
    });
}

#[test]
fn recordings_keep_to_themselves() {
    on_device("recordings_keep_to_themselves", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let read = |values: &DeviceBuffer<f32>| {
            let mut host = vec![0.0; values.len()];
            values.read(&mut host).map(|()| host)
        };
        // What others ask for meanwhile is done, and not recorded.
        let ((started, start), other) = (mpsc::channel(), gpu.clone());
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(move || {
                start.recv().unwrap();
                read(&other.filled("elsewhere", 4, 2.0).unwrap()).unwrap()
            });
            let mut graph = gpu.repeating();
            let mut outside = Some(gpu.filled("outside", 4, 3.0).unwrap());
            let recorded = graph.run(|| {
                started.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                // What was allocated before may be given back, and memory handed out again.
                drop(outside.take());
                drop(gpu.filled("inside", 4, 4.0)?);
                gpu.filled("inside", 4, 5.0)
            });
            assert_eq!(read(&recorded.unwrap()).unwrap(), [5.0; 4]);
            assert_eq!(elsewhere.join().unwrap(), [2.0; 4]);
        });

        // What would have to be copied or waited for is refused, and nothing is the worse for it.
        let mut graph = gpu.repeating();
        let numbers: Indices = vec![1, 2, 3].into();
        let error = graph.run(|| numbers.on(&gpu)).unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("stage it before"), "{error}");
        Indices::stage(&[&numbers], &gpu).unwrap();
        let error = graph.run(|| numbers.on(&gpu)).unwrap_err().to_string();
        assert!(error.contains("let the batch arrive before"), "{error}");
        let place = numbers.on(&gpu).unwrap();
        assert_eq!(graph.run(|| numbers.on(&gpu)).unwrap(), place);
        let error = graph.run(|| read(&gpu.filled("inside", 4, 1.0)?)).unwrap_err().to_string();
        assert!(error.contains("copying to the host: inside"), "{error}");
        let error = graph.run(|| gpu.repeating().run(|| Ok(()))).unwrap_err().to_string();
        assert!(error.contains("records one already"), "{error}");
        assert_eq!(read(&gpu.filled("after", 4, 6.0).unwrap()).unwrap(), [6.0; 4]);
    });
}

#[test]
fn nobody_gets_the_memory_of_a_graph() {
    on_device("nobody_gets_the_memory_of_a_graph", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let graph = gpu.record((), |()| gpu.filled("within", 4, 2.0).map(drop)).unwrap();
        let after = gpu.filled("after", 4, 3.0).unwrap();
        graph.launch().unwrap();
        let mut host = [0.0; 4];
        after.read(&mut host).unwrap();
        assert_eq!(host, [3.0; 4]);
    });
}

#[test]
fn kernels_that_a_recording_meets_first_are_loaded() {
    on_device("kernels_that_a_recording_meets_first_are_loaded", || {
        let trained = |graphs| {
            // A device that has launched nothing yet.
            let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
            trained(&config(), &[SHAPE; 2], Steps::new(Some(&gpu), graphs).unwrap())
        };
        let ((losses, weights, _), (losses_of_graphs, weights_of_graphs, recorded)) = (trained(false), trained(true));
        assert_eq!(losses_of_graphs, losses);
        assert!(weights_of_graphs == weights);
        assert_eq!(recorded, Some(Recorded { made: 1, updated: 1 }));
    });
}

/// `fissfuse train` on cusim, two epochs of two steps of 16 mentions and one of 8.
fn train(world: &World) -> Vec<&'static str> {
    [&world.train()[..], &["--epochs", "2", "--device", "cuda", "--arithmetic", "f32"]].concat()
}

/// Runs it; gives the model's file and what was said on stderr.
fn model_of(world: &World, args: &[&str], environment: &[(&str, &str)]) -> (Vec<u8>, String) {
    let output = fissfuse_on_cusim(args, environment);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let model = std::fs::read(world.path("model/last.safetensors")).unwrap();
    std::fs::remove_dir_all(world.path("model")).unwrap();
    (model, errors)
}

#[test]
fn a_run_of_graphs_is_the_same_run() {
    let world = World::encoded();
    let plain = train(&world);
    let graph = [&plain[..], &["--graph", "--feature-memory", "0"]].concat();
    let (want, _) = model_of(&world, &plain, &[]);
    for environment in [
        &[("CUSIM_CHECK", "all"), ("CUSIM_ASYNC", "late"), ("CUSIM_ORDER", "reverse")][..],
        &[("CUSIM_ASYNC", "seed:7")],
    ] {
        let (got, errors) = model_of(&world, &graph, environment);
        assert!(!errors.contains("cusim: ["), "{errors}");
        assert!(got == want, "{environment:?}: another model");
    }
    refused(&fissfuse_on_cusim(&replace(graph, "--device", "cpu"), &[]), &["--graph", "--device cuda"]);
}

#[test]
fn graphs_that_fail_leave_the_last_checkpoint_whole() {
    let world = World::encoded();
    let train = [&train(&world)[..], &["--graph"]].concat();
    let epoch = launches_on_cusim(&replace(train.clone(), "--epochs", "1"));
    std::fs::remove_dir_all(world.path("model")).unwrap();
    // Half of the second epoch, at once and when the host waits for it.
    let number = epoch + epoch / 2;
    for (what, when) in [("launch", "eager"), ("launch", "late"), ("ecc", "late")] {
        let fault = format!("{what}:{number}");
        let failed = fissfuse_on_cusim(&train, &[("CUSIM_FAIL", &fault), ("CUSIM_ASYNC", when)]);
        refused(&failed, &["cuda:0"]);
        assert!(half_written(&world.path("")).is_empty());
        let output = fissfuse_on_cusim(&[&train[..], &["--resume"]].concat(), &[]);
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && printed.contains("1 done"), "{fault}: {printed}{errors}");
        std::fs::remove_dir_all(world.path("model")).unwrap();
    }
}

#[test]
fn recorded_steps_do_with_the_memory_there_is() {
    let world = World::encoded();
    let plain = train(&world);
    let train = [&plain[..], &["--graph"]].concat();
    let counts = world.path("counts.json");
    let (want, _) = model_of(&world, &train, &[("CUSIM_COUNT", counts.to_str().unwrap())]);
    let calls = Counts::read(&counts).unwrap().calls;
    let before = |name: &str| calls.get(name).copied().unwrap_or(0);
    let all = before("cuMemAlloc_v2") + before("cuMemHostAlloc");
    // A block of the first recording: it is recorded again. One of the last blocks: others that are free make way for it.
    for number in [330, all - 8] {
        let (got, errors) = model_of(&world, &train, &[("CUSIM_FAIL", &format!("alloc:{number}"))]);
        assert!(errors.contains(&format!("cuMemAlloc: allocation {number} fails")), "{errors}");
        assert!(got == want, "another model");
        // Without a recording the same memory is asked for, and once more with what is free given back.
        let (got, _) = model_of(&world, &plain, &[("CUSIM_FAIL", &format!("alloc:{number}"))]);
        assert!(got == want, "another model");
    }
    // With less and less memory, validation and recorded steps take from each other what both together cannot have, until
    // there is too little for a step alone.
    let (mut shared, mut failed) = (false, false);
    for memory in (400..1200).rev().step_by(50) {
        let output = fissfuse_on_cusim(&train, &[("CUSIM_FAIL", &format!("memory={memory}KiB"))]);
        failed = !output.status.success();
        if failed {
            refused(&output, &["cuda:0", "out of memory", "free in its caches", "take a smaller batch"]);
            break;
        }
        assert!(std::fs::read(world.path("model/last.safetensors")).unwrap() == want, "another model");
        std::fs::remove_dir_all(world.path("model")).unwrap();
        shared |= String::from_utf8_lossy(&output.stderr).contains("bytes asked for");
    }
    assert!(shared && failed, "shared {shared}, failed {failed}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_it_is_written() {
    let world = World::encoded();
    let train = [&train(&world)[..], &["--checkpoint-steps", "1"]].concat();
    let train = replace(train, "--learning-rate", "1e30");
    for how in [&["--device", "cpu"][..], &["--device", "cuda"], &["--device", "cuda", "--graph"]] {
        let train = [&replace(train.clone(), "--device", how[1])[..], &how[2..]].concat();
        refused(&fissfuse_on_cusim(&train, &[]), &["the loss is", "at epoch 1, step 2", "learning_rate"]);
        // The checkpoint of the first step stands.
        let last = Reader::open(&world.path("model/last.safetensors")).unwrap();
        let header: serde_json::Value = last.sealed_metadata().unwrap();
        assert_eq!(header["progress"]["step"], 1, "{how:?}");
        std::fs::remove_dir_all(world.path("model")).unwrap();
    }
}

/// What one step more asks of the driver.
fn calls_of_a_step(graph: bool) -> BTreeMap<String, u64> {
    let (library, folder) = (cusim(), tempfile::tempdir().unwrap());
    let [fewer, more] = ["4", "5"].map(|runs| {
        let path = folder.path().join(runs);
        let mut bench = fissfuse_bench();
        bench.args(["step", "--device", "cuda", "--warmup", "1", "--runs", runs, "--mentions", "8", "--d", "20"]);
        bench.args(graph.then_some("--graph"));
        bench.env("LD_LIBRARY_PATH", library.path()).env("CUSIM_COUNT", &path);
        let output = bench.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Counts::read(&path).unwrap().calls
    });
    let difference = |(name, count): (String, u64)| (name.clone(), count - fewer.get(&name).copied().unwrap_or(0));
    more.into_iter().map(difference).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_step_is_launches_memsets_and_one_copy_back() {
    let [plain, graph] = [false, true].map(calls_of_a_step);
    println!("{:<40}{:>16}{:>16}", "calls of one training step", "without graph", "with graph");
    let names: BTreeSet<&String> = plain.keys().chain(graph.keys()).collect();
    let of = |calls: &BTreeMap<String, u64>, name: &str| calls.get(name).copied().unwrap_or(0);
    for name in names {
        println!("{name:<40}{:>16}{:>16}", of(&plain, name), of(&graph, name));
    }
    // One for each layer and direction, however many instances of it there are.
    assert!(of(&plain, "cuLaunchKernel") <= 33, "{plain:?}");
    for calls in [&plain, &graph] {
        assert!(calls.keys().all(|name| !name.starts_with("cuMemcpyHtoD") && !name.starts_with("cuMemcpyDtoD")));
        assert!(calls.keys().all(|name| !name.ends_with("Synchronize") || name == "cuEventSynchronize"), "{calls:?}");
        // The losses of the step before.
        assert_eq!(["cuMemcpyDtoHAsync_v2", "cuEventSynchronize"].map(|name| of(calls, name)), [1, 1]);
    }
    // Where a step is recorded, kernels fill memory: a graph may refuse memsets of other sizes.
    let memsets = ["cuMemsetD8Async", "cuMemsetD32Async"].map(|name| of(&plain, name)).iter().sum::<u64>();
    assert_eq!(of(&graph, "cuLaunchKernel"), of(&plain, "cuLaunchKernel") + memsets);
    assert!(memsets > 0 && graph.keys().all(|name| !name.starts_with("cuMemset")));
    for once in ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphExecUpdate_v2", "cuGraphLaunch"] {
        assert_eq!((of(&plain, once), of(&graph, once)), (0, 1), "{once}");
    }
    assert!(graph.keys().all(|name| !name.starts_with("cuMemAlloc") && !name.starts_with("cuGraphInstantiate")));
}
