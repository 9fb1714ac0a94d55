//! Work that is killed, starved and filled up at many moments: whatever happens, nothing is half written, and who goes on gets
//! the bits of an undisturbed run. `FISSFUSE_TORTURE` sets the number of moments of each kind (`make torture`).

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fissfuse::llama::{Precision, Preset, write_random};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::support::{World, fissfuse, fissfuse_on_cusim, half_written, succeed};

/// Moments of each kind, if the environment does not say.
const MOMENTS: usize = 3;

fn moments() -> usize {
    std::env::var("FISSFUSE_TORTURE").map_or(MOMENTS, |count| count.parse().expect("a number"))
}

/// Work of which a part may be done when it is disturbed.
struct Job {
    name: &'static str,
    /// The command.
    args: fn(&World) -> Vec<&'static str>,
    /// What to add to go on.
    resume: &'static [&'static str],
    /// What must be the same in the end: files in the world's folder.
    results: &'static [&'static str],
}

const JOBS: [Job; 4] = [
    Job {
        name: "train",
        args: |world| {
            let settings = ["--epochs", "6", "--checkpoint-steps", "1", "--dropout", "0.2", "--negatives", "3"];
            [&world.train()[..], &settings].concat()
        },
        resume: &["--resume"],
        results: &["model/best.safetensors", "model/last.safetensors"],
    },
    Job { name: "encode", args: |world| again(world, "new-features"), resume: &[], results: &[] },
    Job {
        name: "candidates",
        args: |world| vec!["candidates", "--data", world.arg("data"), "--top", "5", "--replace"],
        resume: &[],
        results: &["data/train.jsonl", "data/valid.jsonl", "data/test.jsonl"],
    },
    Job {
        name: "rerank",
        args: |world| {
            let files =
                ["--data", world.arg("data"), "--ranking", world.arg("run.jsonl"), "--out", world.arg("new.jsonl")];
            let model = ["--llm", world.arg("llama"), "--scoring", "generate", "--max-new-tokens", "2"];
            [&["rerank"][..], &files, &model].concat()
        },
        resume: &[],
        results: &["new.jsonl"],
    },
];

/// Encodes into another folder than the world's.
fn again(world: &World, out: &str) -> Vec<&'static str> {
    let mut args = world.encode();
    let at = args.iter().position(|arg| *arg == "--out").unwrap();
    args[at + 1] = world.arg(out);
    args
}

/// A world with features, a small random Llama, and a run file.
fn pristine() -> World {
    let world = World::encoded();
    let texts =
        ["Which entity does the mention refer to? Answer with one letter: A, B or C.", "Text: a red ball, a box"];
    write_random(&world.path("llama"), &Preset::Tiny.config(), Precision::F32, 3, texts.into_iter()).unwrap();
    let ranked = |mention: &Value| {
        let count = mention["candidates"].as_array().unwrap().len();
        let scores: Vec<f64> = (0..count).map(|i| 1.0 - 0.1 * i as f64).collect();
        json!({"mention_id": mention["mention_id"], "candidates": mention["candidates"], "scores": scores})
    };
    let run: Vec<Value> = world.read_lines("data/test.jsonl").iter().map(ranked).collect();
    world.write_lines("run.jsonl", &run);
    world
}

/// What the job's results hold; of an encoding, what a model is that was trained on it.
fn results(job: &Job, world: &World) -> Vec<Vec<u8>> {
    if job.name != "encode" {
        return job.results.iter().map(|file| fs::read(world.path(file)).unwrap()).collect();
    }
    succeed(&["index", "check", "--features", world.arg("new-features")]);
    let out = ["--data", world.arg("data"), "--features", world.arg("new-features"), "--out", world.arg("of-new")];
    succeed(&[&["train", "--epochs", "1", "--d", "16", "--batch-size", "16"][..], &out].concat());
    let model = fissfuse::tensor::safetensors::Reader::open(&world.path("of-new/best.safetensors")).unwrap();
    let mut names: Vec<&str> = model.names().collect();
    names.sort_unstable();
    names.iter().map(|name| model.bytes(name).unwrap().to_vec()).collect()
}

/// Wants nothing half written, and the undisturbed results from whoever goes on.
fn goes_on(job: &Job, world: &World, undisturbed: &[Vec<u8>], what: &str) {
    // A run that was killed before its first checkpoint has nothing to resume.
    let begun = job.resume.is_empty() || world.path("model/last.safetensors").exists();
    let resume = if begun { job.resume } else { &[] };
    if !begun {
        let _ = fs::remove_dir_all(world.path("model"));
    }
    succeed(&[&(job.args)(world)[..], resume].concat());
    assert!(half_written(&world.path("")).is_empty(), "{} {what}: {:?}", job.name, half_written(&world.path("")));
    let ended = results(job, world);
    assert!(ended == undisturbed, "{} {what}: other results than undisturbed", job.name);
}

/// Runs each job undisturbed, and hands over what came out and how long it took.
fn each(mut torture: impl FnMut(&Job, &World, &[Vec<u8>], Duration)) {
    let pristine = pristine();
    for job in &JOBS {
        let world = pristine.copy();
        let start = Instant::now();
        succeed(&(job.args)(&world));
        let time = start.elapsed();
        torture(job, &pristine, &results(job, &world), time);
    }
}

fn no_panic(output: &Output, what: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !errors.contains("panicked") && output.status.signal().is_none_or(|signal| signal == 9),
        "{what}: {errors}"
    );
}

#[test]
fn kills_at_any_moment_change_no_bit() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    each(|job, pristine, undisturbed, time| {
        for _ in 0..moments() {
            let world = pristine.copy();
            let delay = time.mul_f64(random.random_range(0.0..1.0));
            let mut child = fissfuse(&(job.args)(&world)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(delay);
            child.kill().unwrap();
            child.wait().unwrap();
            goes_on(job, &world, undisturbed, &format!("killed after {delay:?}"));
        }
    });
}

/// What changes files.
const CALLS: &str = "openat,write,pwrite64,writev,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,ftruncate,fsync,fdatasync,linkat,link";

#[test]
fn kills_at_any_system_call_change_no_bit() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    each(|job, pristine, undisturbed, _| {
        let traced = |world: &World, inject: &[&str]| -> Output {
            let program = fissfuse(&(job.args)(world));
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", world.arg("trace")]).args(["-e", &format!("trace={CALLS}")]).args(inject);
            strace.arg(program.get_program()).args(program.get_args()).output().unwrap()
        };
        let world = pristine.copy();
        assert!(traced(&world, &[]).status.success(), "{} under strace", job.name);
        let all = fs::read_to_string(world.path("trace")).unwrap().lines().count();
        let step = all.div_ceil(moments()).max(1);
        // The first calls only load libraries.
        for call in (step / 2 + 1..=all).step_by(step) {
            let world = pristine.copy();
            let inject = format!("inject={CALLS}:signal=SIGKILL:when={call}");
            no_panic(&traced(&world, &["-e", &inject]), &format!("{} at call {call}", job.name));
            fs::remove_file(world.path("trace")).unwrap();
            goes_on(job, &world, undisturbed, &format!("killed at call {call} of {all}"));
        }
    });
}

#[test]
fn full_disks_leave_nothing_half_written() {
    each(|job, pristine, undisturbed, _| {
        let largest = 400;
        for blocks in (0..largest).step_by((largest / moments()).max(1)) {
            let world = pristine.copy();
            let program = fissfuse(&(job.args)(&world));
            let mut shell = Command::new("sh");
            shell
                .arg("-c")
                .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""))
                .arg(program.get_program());
            let output = shell.args(program.get_args()).output().unwrap();
            no_panic(&output, &format!("{} with files of {blocks} blocks", job.name));
            assert!(half_written(&world.path("")).is_empty(), "{} with files of {blocks} blocks", job.name);
            goes_on(job, &world, undisturbed, &format!("with files of {blocks} blocks at most"));
        }
    });
}

#[test]
fn faults_of_a_device_leave_the_last_checkpoint_whole() {
    let pristine = pristine();
    let args =
        |world: &World| [&world.train()[..], &["--epochs", "2", "--device", "cuda", "--arithmetic", "f32"]].concat();
    let world = pristine.copy();
    let run = |world: &World, more: &[&str], fail: &str| {
        fissfuse_on_cusim(&[&args(world)[..], more].concat(), &[("CUSIM_FAIL", fail)])
    };
    assert!(run(&world, &[], "").status.success());
    let bits = |world: &World| fs::read(world.path("model/best.safetensors")).unwrap();
    let undisturbed = bits(&world);
    // More than either asks for: the last ones meet a run that has ended.
    for kind in ["alloc", "launch", "ecc"] {
        for number in (1..2000).step_by((2000 / moments()).max(1)) {
            let world = pristine.copy();
            let fault = format!("{kind}:{number}");
            let output = run(&world, &[], &fault);
            no_panic(&output, &fault);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{fault}: {:?}", output.status);
            assert!(half_written(&world.path("")).is_empty(), "{fault}");
            if !output.status.success() {
                let begun = world.path("model/last.safetensors").exists();
                let _ = if begun { Ok(()) } else { fs::remove_dir_all(world.path("model")) };
                let resumed = run(&world, if begun { &["--resume"] } else { &[] }, "");
                assert!(resumed.status.success(), "{fault}: {}", String::from_utf8_lossy(&resumed.stderr));
            }
            assert!(bits(&world) == undisturbed, "{fault}: other bits than undisturbed");
        }
    }
}
