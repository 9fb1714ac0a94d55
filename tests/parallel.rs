//! Training on several devices: the same as on one, whatever carries the gradients, and whatever becomes of a rank.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{World, fissfuse, half_written, refused, succeed};

/// A port that nobody listens at.
fn free_port() -> String {
    format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

/// One of several processes that train together.
fn rank(args: &[&str], rank: usize, world: usize, master: &str) -> Command {
    let mut command = fissfuse(args);
    let place = [rank.to_string(), world.to_string()];
    command.args(["--rank", &place[0], "--world", &place[1], "--master", master, "--deadline", "60", "--device", "cpu"]);
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
    let settings = ["--epochs", "3"];
    succeed(&[&train(&world, "one", &settings)[..], &["--device", "cpu"]].concat());
    for ranks in [2, 3] {
        let devices = vec!["cpu"; ranks].join(",");
        let printed = succeed(&[&train(&world, &format!("threads{ranks}"), &settings)[..], &["--devices", &devices]].concat());
        assert!(printed.contains(&format!("{ranks} devices train together; gradients go by copies")), "{printed}");
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
            // Sums over the batch in another order, each rounded to 24 bits, and a few steps of an optimizer that divides by
            // their size: far below what a mention of another weight would change.
            assert!((one - several).abs() < 1e-4 * one, "{one} on one device, {several} on {ranks}");
        }
    }
}
