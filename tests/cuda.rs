//! Every kernel against the CPU, on the GPU at hand or, where there is none, on cusim with all its checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use fissfuse::autograd::{Tape, Var};
use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, DeviceBuffer, Grid, Target, has_driver, kernels};
use fissfuse::eval::replay::replay;
use fissfuse::model::{Model, ModelConfig, Step, Widths};
use fissfuse::ops::cases;
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{RowTable, Tensor};
use fissfuse::train::Steps;

use crate::replay::fixtures;
use crate::support::{
    self, World, fissfuse, fissfuse_on_cusim, half_written, launches_on_cusim, refused, replace, succeed, toolchain,
};

/// Runs the body of a test of this file on a device.
fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("cuda::{test}"), body);
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

#[test]
fn kernels_are_embedded() {
    assert!(!kernels::EMBEDDED.is_empty(), "built without nvcc; run scripts/cuda-toolchain.sh");
}

/// Runs the checks of every operation that has a backward.
fn prove_operations(gpu: &Gpu) {
    let cases = cases::small().unwrap();
    let names: BTreeSet<&str> = cases.iter().filter_map(|case| case.name.split_whitespace().next()).collect();
    assert!(names.len() >= 7, "{names:?}");
    support::prove(gpu, &names.into_iter().chain(["what is not a number", "two layers"]).collect::<Vec<_>>(), true);
}

#[test]
fn operations_agree_with_the_cpu_in_f32() {
    support::on_oldest_device("cuda::operations_agree_with_the_cpu_in_f32", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        prove_operations(&gpu);
        support::prove(&gpu, &["adamw", "clip_norm", "link", "features"], true);
    });
}

#[test]
fn an_argument_of_another_size_than_the_kernels_is_refused() {
    on_device("an_argument_of_another_size_than_the_kernels_is_refused", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let says = gpu.launch("rows_narrow", Grid::line(1, 32), &[0u32; 4]).unwrap_err().to_string();
        assert!(says.contains("its argument has 16 bytes, the kernel takes 24"), "{says}");
        let mut launches = gpu.launches("group_sums", 16, 128);
        launches.push(1, [0u32; 4], &[]).unwrap();
        let says = launches.run().unwrap_err().to_string();
        assert!(says.contains("its argument has 392 bytes, the kernel takes 776"), "{says}");
    });
}

#[test]
fn any_number_of_instances_is_summed_in_the_order_in_which_it_came() {
    on_device("any_number_of_instances_is_summed_in_the_order_in_which_it_came", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        // A launch holds 16. So many instances add to one place, as many write places of their own.
        let count = 37;
        let x: Vec<f32> = (0..2 * count).map(|i| 1.0 / (i + 3) as f32).collect();
        let (x, out) = (gpu.upload("checked", &x).unwrap(), gpu.filled("checked", count + 1, 7.0).unwrap());
        let counting = gpu.counting(2).unwrap();
        let at = |array: &DeviceBuffer<f32>, i: usize| array.ptr().offset::<f32>(i);
        let mut sums = gpu.group_sums();
        for i in 0..count {
            let first = Target { at: at(&out, 0), adds: i > 0 };
            sums.add(at(&x, 2 * i), 1, (counting, counting), 1, first).unwrap();
            let own = Target { at: at(&out, 1 + i), adds: i % 2 == 1 };
            sums.add(at(&x, 2 * i + 1), 1, (counting, counting), 1, own).unwrap();
        }
        sums.run().unwrap();
        let mut got = vec![0.0; out.len()];
        out.read(&mut got).unwrap();
        let value = |i: usize| 1.0 / (i + 3) as f32;
        let own = (0..count).map(|i| value(2 * i + 1) + if i % 2 == 1 { 7.0 } else { 0.0 });
        let want: Vec<f32> = std::iter::once((0..count).map(|i| value(2 * i)).sum()).chain(own).collect();
        assert_eq!(got, want);
    });
}

#[test]
fn inputs_that_lie_apart_are_refused() {
    on_device("inputs_that_lie_apart_are_refused", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        for case in cases::small().unwrap().into_iter().filter(|case| case.inputs.len() > 1) {
            for left in 0..case.inputs.len() {
                let place = |i: usize| if i == left { None } else { Some(&gpu) };
                let inputs = case.inputs.iter().enumerate().map(|(i, x)| Var::constant(x.to(place(i)).unwrap()));
                let inputs: Vec<Var> = inputs.collect();
                let error = case.apply(&Tape::inference(), &inputs.iter().collect::<Vec<_>>()).unwrap_err();
                let says = error.to_string();
                assert!(says.contains("the host") && says.contains("cuda:0"), "{}: {says}", case.name);
            }
        }
    });
}

#[test]
fn a_table_stays_on_a_device_that_has_room_in_what_it_keeps_of_freed_memory() {
    let test = "cuda::a_table_stays_on_a_device_that_has_room_in_what_it_keeps_of_freed_memory";
    support::on_devices(test, &[&[("CUSIM_FAIL", "memory=64MiB")]], || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        // Of a card's memory a test does not take most.
        let (free, _) = gpu.memory().unwrap();
        if free > 1 << 30 {
            return;
        }
        drop(gpu.alloc::<u8>("weights", free / 10 * 8).unwrap());
        assert!(gpu.memory().unwrap().0 < free / 4 && gpu.available().unwrap() > free / 10 * 9);
        let table = |bytes: usize| RowTable::from_f32(16, vec![1.0; bytes / 64 * 16]).unwrap();
        let first = table(free / 10 * 4);
        assert!(first.resident(&gpu).unwrap().is_some());
        assert!(table(free / 10 * 4).resident(&gpu).unwrap().is_none(), "beside the first it has no room");
    });
}

#[test]
fn operations_agree_with_the_cpu_in_mixed_arithmetic() {
    on_device("operations_agree_with_the_cpu_in_mixed_arithmetic", || {
        let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
        prove_operations(&gpu);
        support::prove(&gpu, &["what ceilings", "filled", "features", "top k", "scans", "link"], true);
    });
}

#[test]
fn operations_agree_with_the_cpu_in_bf16() {
    on_device("operations_agree_with_the_cpu_in_bf16", || {
        prove_operations(&Gpu::open(0, Arithmetic::Bf16).unwrap());
    });
}

#[test]
fn what_large_batches_run_is_compared_on_every_model_of_a_device() {
    support::on_every_model("cuda::what_large_batches_run_is_compared_on_every_model_of_a_device", || {
        let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
        let large =
            ["project, tall", "encoder product, large", "encoder convolution, large", "decoder products, large"];
        let launched = support::prove(&gpu, &large, false);
        let tall = ["project_forward_112_tall", "project_forward_128"].map(String::from);
        let tiled = ["linear", "convolution", "linear_stored_f16", "linear_stored_int8", "linear_stored_int4"];
        let tiled = tiled.into_iter().chain(["linear_integer_int8", "linear_integer_int4"]);
        let tiled = tiled.flat_map(|kernel| [format!("{kernel}_128"), format!("{kernel}_64")]);
        for kernel in tall.into_iter().chain(tiled) {
            assert!(launched.contains(kernel.as_str()), "{kernel} did not run, but {launched:?}");
        }
    });
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
        let model = Model::new(config, 5).unwrap();
        let want = model.gradients(&shape.batch(widths, 5).unwrap(), None).unwrap();
        for (arithmetic, scores, gradients) in [(Arithmetic::F32, 1e-5, 1e-4), (Arithmetic::Mixed, 2e-2, 3e-2)] {
            let gpu = Gpu::open(0, arithmetic).unwrap();
            // Features that stay on the device, and features that are copied for the batch: the same bits.
            let batch = shape.batch(widths, 5).unwrap();
            let resident = model.to(Some(&gpu)).unwrap().gradients(&batch, None).unwrap();
            gpu.set_resident_percent(0);
            let batch = shape.batch(widths, 5).unwrap();
            batch.stage(&gpu).unwrap();
            let got = model.to(Some(&gpu)).unwrap().gradients(&batch, None).unwrap();
            compare("scores", &got.scores.values.tensor().to(None).unwrap(), want.scores.values.tensor(), 0.0, scores);
            // Maximum and ReLU have kinks: where a rounding falls on their other side, a few elements jump. So whole
            // gradients are compared, by the length of their difference.
            let values = |step: &Step| step.scores.values.tensor().to(None).unwrap().data().to_vec();
            assert_eq!(values(&got), values(&resident), "{arithmetic:?}");
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
            let mut step = TrainingStep::new(config.clone(), shape, 3, Steps::new(gpu, false).unwrap()).unwrap();
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

fn train_on_cuda(world: &World) -> Vec<&'static str> {
    [&world.train()[..], &["--epochs", "2", "--device", "cuda"]].concat()
}

#[test]
fn the_doctor_finds_the_kernels_sound() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("doctor.json");
    let two = [("CUSIM_DEVICE", "h200"), ("CUSIM_DEVICES", "2"), ("FISSFUSE_NCCL", "off")];
    let output = fissfuse_on_cusim(&["doctor", "--json", json.to_str().unwrap()], &two);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let entries: BTreeSet<&str> = kernels::EMBEDDED.iter().flat_map(|ptx| ptx.entries()).collect();
    let all = entries.len();
    let verdict = format!("{all} of {all} kernels ran and agree");
    for says in [
        "H200",
        "compute_80",
        "decoding kernels begin early",
        "cross_attention",
        "Llama, int8",
        "CLIP, bf16",
        "adamw",
        "link",
        &verdict,
    ] {
        assert!(printed.contains(says), "{says}: {printed}");
    }
    let chosen = "train --devices: gradients go by copies from card to card: the driver gives peer access to all pairs; not NCCL";
    assert!(printed.contains(chosen), "{printed}");
    // The same for programs.
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let copies = report["between"]["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 2);
    for rate in copies.iter().flat_map(|pair| [&pair["through_host"], &pair["direct"]]) {
        assert!(rate["bytes_per_second"].as_f64().unwrap() > 0.0 && rate["latency"].as_f64().unwrap() > 0.0, "{rate}");
    }
    let examination = &report["examination"];
    let strings = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
    };
    assert_eq!(strings(&examination["kernels"]), entries.iter().map(|entry| entry.to_string()).collect());
    assert!(strings(&examination["not_run"]).is_empty());
    let checks = examination["checks"].as_array().unwrap();
    let launched: BTreeSet<String> = checks.iter().flat_map(|check| strings(&check["kernels"])).collect();
    assert_eq!(launched.len(), all);
    for check in checks {
        assert_eq!(check["holds"], true, "{check}");
        assert_ne!(check["repeats"], false, "{check}");
        let compared = check["compared"].as_array().unwrap();
        assert!(!compared.is_empty(), "{check}");
        assert!(compared.iter().all(|c| c["error"].as_f64() <= c["bound"].as_f64()), "{check}");
    }
}

#[test]
fn a_model_trained_on_a_device_is_evaluated_like_any_other() {
    let world = World::encoded();
    let train = [&train_on_cuda(&world)[..], &["--feature-memory", "0"]].concat();
    let output = fissfuse_on_cusim(&train, &[("CUSIM_CHECK", "all")]);
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !errors.contains("cusim: ["), "{errors}");
    assert!(printed.contains("cuda:0") && printed.contains("best: epoch"), "{printed}");
    succeed(&world.eval("eval"));

    let mut whole = World::mention("test", 1);
    whole.as_object_mut().unwrap().remove("candidates");
    world.write_lines("asked.jsonl", &[World::mention("test", 0), whole]);
    let link = [&world.link()[..], &["--top", "100", "--input", world.arg("asked.jsonl"), "--device"]].concat();
    let on_cuda = fissfuse_on_cusim(&[&link[..], &["cuda", "--arithmetic", "f32"]].concat(), &[("CUSIM_CHECK", "all")]);
    let errors = String::from_utf8_lossy(&on_cuda.stderr);
    assert!(on_cuda.status.success() && !errors.contains("cusim: ["), "{errors}");
    let resident = fissfuse_on_cusim(&[&link[..], &["cuda", "--arithmetic", "f32", "--resident=5"]].concat(), &[]);
    assert!(resident.status.success(), "{}", String::from_utf8_lossy(&resident.stderr));
    assert!(resident.stdout == on_cuda.stdout, "a kernel that stays gives other answers");
    let refuse = |args: &[&str], says: &[&str]| refused(&fissfuse(&[&link[..], args].concat()).output().unwrap(), says);
    refuse(&["cpu", "--resident"], &["--resident", "--device cuda"]);
    let model = world.arg("clip");
    succeed(&[&replace(world.train(), "--out", model)[..], &["--model", "clip-projected", "--epochs", "1"]].concat());
    let other = replace(link.clone(), "--model", model);
    let refusal = fissfuse_on_cusim(&[&other[..], &["cuda", "--resident"]].concat(), &[]);
    refused(&refusal, &["--resident", "`clip-projected`", "leave it out"]);
    for bad in ["--resident=0", "--resident=60001", "--resident=x"] {
        let usage = fissfuse(&[&link[..], &["cpu", bad]].concat()).output().unwrap();
        assert_eq!(usage.status.code(), Some(2), "{bad}");
    }
    let whole = &["cuda", "--feature-memory", "0"];
    let no_room = ["a table may take 0 % of the", "that are free; raise --feature-memory"];
    refused(&fissfuse_on_cusim(&[&link[..], whole].concat(), &[]), &no_room);
    let on_cpu = fissfuse(&[&link[..], &["cpu"]].concat()).output().unwrap();
    let links = |output: &Output| -> BTreeMap<(String, String), f64> {
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        let answers = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let links = answers.flat_map(|answer| {
            let mention = answer["mention_id"].to_string();
            let link = |link: &serde_json::Value| {
                ((mention.clone(), link["qid"].to_string()), link["score"].as_f64().unwrap())
            };
            answer["links"].as_array().unwrap().iter().map(link).collect::<Vec<_>>()
        });
        links.collect()
    };
    let (got, want) = (links(&on_cuda), links(&on_cpu));
    assert!(got.keys().eq(want.keys()) && got.len() > 5);
    for ((key, got), want) in got.iter().zip(want.values()) {
        // The mention is encoded in bf16 on either, but the sums round differently, and a bf16 has 8 bits.
        assert!((got - want).abs() <= 5e-3 * want.abs().max(1.0), "{key:?}: {got}, CPU {want}");
    }
}

#[test]
fn devices_that_cannot_be_used_are_named() {
    let world = World::encoded();
    let refuse = |args: &[&str], environment: &[(&str, &str)], says: &[&str]| {
        refused(&fissfuse_on_cusim(args, environment), says);
    };
    let train = train_on_cuda(&world);
    refuse(&replace(train.clone(), "--device", "cuda:3"), &[], &["cuda:3", "no such device, the driver has 1"]);
    refuse(&train, &[("CUSIM_FAIL", "memory=256KiB")], &["cuda:0", "out of memory", "take a smaller batch"]);
    if !has_driver() {
        refused(&fissfuse(&train).output().unwrap(), &["no CUDA driver", "--device cpu"]);
    }
    let usage = fissfuse(&replace(train, "--device", "gpu")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(!world.path("model/last.safetensors").exists());
}

#[test]
fn a_device_that_fails_in_mid_run_leaves_the_last_checkpoint_whole() {
    let world = World::encoded();
    let train = [&world.train()[..], &["--epochs", "3", "--device", "cuda", "--arithmetic", "f32"]].concat();
    let epoch = launches_on_cusim(&replace(train.clone(), "--epochs", "1"));
    std::fs::remove_dir_all(world.path("model")).unwrap();
    // Half of the second epoch.
    let number = epoch + epoch / 2;
    for fault in [format!("launch:{number}"), format!("ecc:{number}")] {
        let failed = fissfuse_on_cusim(&train, &[("CUSIM_FAIL", &fault)]);
        refused(&failed, &["cuda:0"]);
        assert!(half_written(&world.path("")).is_empty());
        let resume = [&train[..], &["--resume"]].concat();
        let output = fissfuse_on_cusim(&resume, &[]);
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && printed.contains("1 done"), "{fault}: {printed}{errors}");
        std::fs::remove_dir_all(world.path("model")).unwrap();
    }
}

/// Registers, shared memory, spilled bytes and bytes of the stack frame that ptxas reports of each kernel.
fn assembled(ptxas: &Path, file: &Path, arch: &str) -> Vec<[String; 5]> {
    let output = Command::new(ptxas).args(["-v", "-arch", arch, "-o", "/dev/null"]).arg(file).output().unwrap();
    let report = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{report}");
    let word_before = |text: &str, what: &str| {
        let before = text.split(what).next().filter(|before| before.len() < text.len())?;
        Some(before.rsplit([' ', ',']).find(|word| !word.is_empty())?.to_string())
    };
    report
        .split("Compiling entry function '")
        .skip(1)
        .map(|entry| {
            let name = entry.split('\'').next().unwrap().to_string();
            let number = |what| word_before(entry, what).unwrap_or_else(|| "0".into());
            let numbers = [" registers", " bytes smem", " bytes spill stores", " bytes stack frame"].map(number);
            let [registers, shared, spilled, frame] = numbers;
            [name, registers, shared, spilled, frame]
        })
        .collect()
}

#[test]
fn every_kernel_assembles_without_spills_or_stack_frames() {
    let Some(ptxas) = toolchain().map(|folder| folder.join("ptxas")).filter(|ptxas| ptxas.exists()) else {
        panic!("no ptxas found; run scripts/cuda-toolchain.sh");
    };
    let folder = tempfile::tempdir().unwrap();
    println!("{:<28}{:>10}{:>12}{:>8}", "kernel", "arch", "registers", "shared");
    // What devices run. 8.9 has the instructions of 8.6, and registers are given to each kernel as there.
    for (capability, arch) in [(80, "sm_80"), (86, "sm_86"), (90, "sm_90")] {
        for ptx in kernels::Ptx::for_capability(capability) {
            let file = folder.path().join(ptx.file);
            std::fs::write(&file, ptx.text.bytes()).unwrap();
            let kernels = assembled(&ptxas, &file, arch);
            assert_eq!(kernels.len(), ptx.entries().count());
            for [name, registers, shared, spilled, frame] in kernels {
                println!("{name:<28}{arch:>10}{registers:>12}{shared:>8}");
                assert_eq!(spilled, "0", "{name} spills on {arch}");
                // Arrays that are indexed at run time lie in local memory.
                assert_eq!(frame, "0", "{name} has a stack frame on {arch}");
            }
        }
    }
}
