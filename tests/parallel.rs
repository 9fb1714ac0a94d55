//! Training on several devices: the same as on one, whatever carries the gradients.

mod failures;

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use fissfuse::autograd::Tape;
use fissfuse::model::{Model, ModelConfig, NETWORKS, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Tensor;
use serde_json::Value;

use crate::support::{World, cusim, fissfuse, fissfuse_on_cusim, succeed};

/// How far losses of other numbers of devices may differ, of their size: sums over a batch are added in another order, each
/// rounded to 24 bits (6e-8), and AdamW divides by the size of gradients, which lets the smallest ones differ by more.
const TOLERANCE: f64 = 1e-5;

/// A port that nobody listens at.
fn free_port() -> String {
    format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// One of several processes that train together.
fn rank(args: &[&str], rank: usize, world: usize, master: &str) -> Command {
    patient(args, rank, world, master, "60")
}

/// The same with this deadline.
fn patient(args: &[&str], rank: usize, world: usize, master: &str, deadline: &str) -> Command {
    let mut command = fissfuse(args);
    let place = [rank.to_string(), world.to_string()];
    command.args(["--rank", &place[0], "--world", &place[1], "--master", master, "--device", "cpu"]);
    command.args(["--deadline", deadline]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn started(commands: Vec<Command>) -> Vec<Child> {
    commands.into_iter().map(|mut command| command.spawn().unwrap()).collect()
}

fn ended(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs these processes to a good end.
fn together(args: &[&str], world: usize) -> Vec<Output> {
    let master = free_port();
    let outputs = ended(started((0..world).map(|r| rank(args, r, world, &master)).collect()));
    outputs.iter().for_each(|output| assert!(output.status.success(), "{}", errors(output)));
    outputs
}

/// What an epoch came to, but for its speed.
fn records(world: &World, folder: &str) -> Vec<Value> {
    let mut records = world.read_lines(&format!("{folder}/train.jsonl"));
    records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("samples_per_second")));
    records
}

/// The bytes of a model's tensors: what stands in the header before them names the device.
fn weights(world: &World, file: &str) -> Vec<u8> {
    let bytes = fs::read(world.path(file)).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

fn train(world: &World, out: &str, more: &[&'static str]) -> Vec<&'static str> {
    let args = crate::support::replace(world.train(), "--out", world.arg(out));
    // 40 mentions in batches of 12: the last has 4, which 3 ranks cannot share evenly.
    [&crate::support::replace(args, "--batch-size", "12")[..], more].concat()
}

#[test]
fn devices_that_train_together_compute_what_one_does_and_processes_have_the_same_bits() {
    let world = World::encoded();
    let settings = ["--epochs", "3", "--dropout", "0.3", "--negatives", "3"];
    succeed(&[&train(&world, "one", &settings)[..], &["--device", "cpu"]].concat());
    for ranks in [2, 3] {
        let devices = vec!["cpu"; ranks].join(",");
        let printed =
            succeed(&[&train(&world, &format!("threads{ranks}"), &settings)[..], &["--devices", &devices]].concat());
        assert!(
            printed.contains(&format!("{ranks} devices train together; gradients go by the host's memory")),
            "{printed}"
        );
        let outputs = together(&train(&world, &format!("processes{ranks}"), &settings), ranks);
        assert!(outputs[1..].iter().all(|output| output.stdout.is_empty()));
        assert!(String::from_utf8_lossy(&outputs[0].stdout).contains("gradients go by TCP"));
        let [threads, processes] = ["threads", "processes"].map(|name| format!("{name}{ranks}"));
        assert_eq!(records(&world, &threads), records(&world, &processes));
        for file in ["last", "best"] {
            let of = |folder: &str| weights(&world, &format!("{folder}/{file}.safetensors"));
            assert_eq!(of(&threads), of(&processes), "{file}, {ranks} ranks");
        }
        for (one, several) in records(&world, "one").iter().zip(records(&world, &threads)) {
            let [one, several] = [one, &several].map(|record| record["loss"].as_f64().unwrap());
            assert!((one - several).abs() < TOLERANCE * one, "{one} on one device, {several} on {ranks}");
        }
    }
}

#[test]
fn every_model_trains_on_two_devices_as_on_one() {
    let world = World::encoded();
    for network in NETWORKS {
        let name = network.name();
        let has = |setting: &str| network.settings().contains(&setting);
        let mut args = vec!["train", "--data", world.arg("data"), "--features", world.arg("features"), "--model", name];
        args.extend(["--epochs", "1", "--batch-size", "15", "--learning-rate", "1e-3"]);
        args.extend(["--d", "16"].into_iter().filter(|_| has("d")));
        args.extend(["--dropout", "0.2"].into_iter().filter(|_| has("dropout")));
        let with = |out: &str, device: [&'static str; 2]| {
            succeed(&[&args[..], &["--out", world.arg(out)], &device].concat());
            records(&world, out)
        };
        let [one, two] = [["--device", "cpu"], ["--devices", "cpu,cpu"]].map(|device| {
            let out = format!("{name}{}", device[0]);
            with(&out, device)
        });
        let [one, two] = [one, two].map(|records| records.iter().map(|r| r["loss"].as_f64().unwrap()).sum::<f64>());
        assert!((one - two).abs() <= TOLERANCE * one, "{name}: {one} on one device, {two} on two");
    }
}

#[test]
fn all_gradients_but_the_projections_are_under_way_before_the_projections_backward() {
    let shape = Shape { mentions: 8, candidates: 4, mean_tokens: 5, max_tokens: 9, patches: 4 };
    let widths = Widths { text: 24, text_global: 16, image: 20, image_global: 16 };
    let model = Model::new(ModelConfig { widths, d: 12, ..ModelConfig::default() }, 5).unwrap();
    let batch = shape.batch(widths, 5).unwrap();
    let mut early = Vec::new();
    let note = |gradients: Vec<(usize, Tensor)>| {
        early = gradients;
        Ok(())
    };
    let step = model.gradients_in_two(Tape::recording(), &batch, None, 0.5, note).unwrap();
    let names: Vec<&str> = model.parameters().iter().map(|(name, _)| name).collect();
    let projection = |name: &str| !name.starts_with("fission") && !name.starts_with("fusion");
    for (number, name) in names.iter().enumerate() {
        let found = early.iter().find(|(early, _)| *early == number);
        assert_eq!(found.is_none(), projection(name), "{name}");
        // And they have their value.
        assert!(found.is_none_or(|(_, early)| early.data() == step.gradients[number].data()), "{name}");
    }
    let whole = model.gradients(&batch, None).unwrap().gradients;
    for (half, whole) in step.gradients.iter().zip(&whole) {
        assert!(half.data().iter().zip(whole.data()).all(|(half, whole)| 2.0 * half == *whole), "half the loss");
    }
}

#[test]
fn two_devices_compute_what_one_does_and_nccl_peer_copies_and_messages_have_the_same_bits() {
    let world = World::encoded();
    let folder = cusim();
    let nccl = folder.path().join("libcuda.so.1").to_str().unwrap().to_string();
    let settings = ["--epochs", "2", "--arithmetic", "f32", "--dropout", "0.3"];
    let run = |out: &str, devices: [&str; 2], nccl: &str| {
        let args = [&train(&world, out, &settings)[..], &devices].concat();
        let checks = [("CUSIM_DEVICES", "2"), ("CUSIM_CHECK", "all"), ("CUSIM_ASYNC", "late"), ("FISSFUSE_NCCL", nccl)];
        let output = fissfuse_on_cusim(&args, &checks);
        let errors = errors(&output);
        assert!(output.status.success() && !errors.contains("cusim: ["), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let both = ["--devices", "cuda:0,cuda:1"];
    let one = run("one", ["--device", "cuda"], "off");
    let printed = [run("peers", both, "off"), run("nccl", both, &nccl)];
    let peers = "2 devices train together; gradients go by copies from device to device (peer access) (not by NCCL: of rank 0, \
                 FISSFUSE_NCCL is off)";
    assert!(printed[0].contains(peers), "{}", printed[0]);
    assert!(printed[1].contains("gradients go by NCCL 2.21.5\n"), "{}", printed[1]);
    // 2 (n - 1) / n of the gradients, of 8 steps, and of seven numbers beside them in each: six losses and a flag.
    let parameters: usize = one.split(' ').next().unwrap().parse().unwrap();
    let sent = fissfuse::bytes::Bytes(8 * 4 * (parameters + 7) as u64);
    assert!(printed.iter().all(|said| said.contains(&format!("gradients: {sent} sent"))), "{sent}: {printed:?}");
    let (args, master) = (train(&world, "tcp", &settings), free_port());
    let rank = |rank: usize| {
        let mut command = fissfuse(&args);
        let place =
            ["--rank", &rank.to_string(), "--world", "2", "--master", &master, "--device", "cuda"].map(String::from);
        // Of another process's devices this library does not know.
        command.args(place).env("LD_LIBRARY_PATH", folder.path());
        command.env("FISSFUSE_NCCL", &nccl).env("CUSIM_NCCL_WAIT", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let outputs = ended(started(vec![rank(0), rank(1)]));
    outputs.iter().for_each(|output| assert!(output.status.success(), "{}", errors(output)));
    let printed = String::from_utf8_lossy(&outputs[0].stdout).into_owned();
    assert!(printed.contains("gradients go by TCP (not by NCCL: NCCL 2.21.5: joining the ranks: "), "{printed}");
    let of = |folder: &str| weights(&world, &format!("{folder}/last.safetensors"));
    assert!(of("peers") == of("tcp") && of("peers") == of("nccl"));
    assert_eq!(records(&world, "peers"), records(&world, "tcp"));
    assert_eq!(records(&world, "peers"), records(&world, "nccl"));
    for (one, two) in records(&world, "one").iter().zip(records(&world, "peers")) {
        let [one, two] = [one, &two].map(|record| record["loss"].as_f64().unwrap());
        assert!((one - two).abs() < TOLERANCE * one, "{one} on one device, {two} on two");
    }
}
