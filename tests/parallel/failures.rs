//! Whatever becomes of a rank: the others end within seconds with its name, nothing is half written, and the run goes on.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{TOLERANCE, ended, errors, free_port, patient, rank, records, started, together, train, weights};
use crate::support::{World, cusim, fissfuse, fissfuse_on_cusim, half_written, refused, succeed};

/// Waits for a file of a run that is under way.
fn wait_for(world: &World, file: &str, running: &mut [Child]) {
    let start = Instant::now();
    while !world.path(file).exists() {
        for child in running.iter_mut() {
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60), "no {file}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Kills one of these and wants the others to end within seconds, each naming it.
fn kill_one(mut children: Vec<Child>, victim: usize) -> Vec<Output> {
    let mut killed = children.remove(victim);
    let name = format!("rank {victim} (host");
    let process = format!("process {})", killed.id());
    let start = Instant::now();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let outputs = ended(children);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for output in &outputs {
        let errors = errors(output);
        let says = errors.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(says.contains(&name) && says.contains(&process) && says.contains("was lost"), "{errors}");
        assert!(output.status.code() == Some(1) && !errors.contains("panicked"), "{errors}");
    }
    outputs
}

#[test]
fn a_killed_rank_ends_the_others_within_seconds_and_the_run_goes_on_on_any_number_of_devices() {
    let world = World::encoded();
    let endless = ["--epochs", "100000", "--checkpoint-steps", "1"];
    for victim in [1, 0] {
        let master = free_port();
        let args = train(&world, "model", &endless);
        let mut children = started((0..3).map(|r| rank(&args, r, 3, &master)).collect());
        wait_for(&world, "model/train.jsonl", &mut children);
        let outputs = kill_one(children, victim);
        assert!(errors(&outputs[1]).contains("was in epoch") || errors(&outputs[1]).contains("after epoch"));
        let epochs: &str = (records(&world, "model").len() + 2).to_string().leak();
        let resume = ["--epochs", epochs, "--checkpoint-steps", "1", "--resume"];
        let copies: Vec<String> = (1..3).map(|devices| format!("{victim}-on-{devices}")).collect();
        for copy in &copies {
            Command::new("cp").args(["-r", world.arg("model"), world.arg(copy)]).status().unwrap();
        }
        // The number of ranks that it had, others, and one.
        together(&train(&world, "model", &resume), 3);
        succeed(&[&train(&world, &copies[1], &resume)[..], &["--devices", "cpu,cpu"]].concat());
        succeed(&[&train(&world, &copies[0], &resume)[..], &["--device", "cpu"]].concat());
        let last = |folder: &str| records(&world, folder).last().unwrap()["loss"].as_f64().unwrap();
        let (want, got) = (last("model"), [last(&copies[0]), last(&copies[1])]);
        assert!(got.iter().all(|got| (got - want).abs() < TOLERANCE * want), "{want} on three, {got:?} on one and two");
        assert!(half_written(&world.path("model")).is_empty());
        fs::remove_dir_all(world.path("model")).unwrap();
    }
}

#[test]
fn whoever_is_killed_at_whatever_moment_the_run_that_goes_on_has_the_bits_of_an_undisturbed_one() {
    let world = World::encoded();
    let settings = ["--epochs", "6", "--checkpoint-steps", "1", "--dropout", "0.2", "--negatives", "3"];
    let start = Instant::now();
    together(&train(&world, "whole", &settings), 2);
    let duration = start.elapsed();
    let moments = std::env::var("FISSFUSE_TORTURE").map_or(4, |count| count.parse().expect("a number"));
    for moment in 0..moments {
        let master = free_port();
        let args = train(&world, "model", &settings);
        let children = started((0..2).map(|r| rank(&args, r, 2, &master)).collect());
        std::thread::sleep(duration.mul_f64((moment as f64 + 0.5) / moments as f64));
        let (victim, mut children) = (moment % 2, children);
        children[victim].kill().unwrap();
        let start = Instant::now();
        ended(children);
        // The other waits for one that never came until its deadline, unless it is told; they had met or ended by then.
        assert!(start.elapsed() < Duration::from_secs(5) || moment == 0, "{:?} at moment {moment}", start.elapsed());
        let again = match world.path("model/last.safetensors").exists() {
            true => train(&world, "model", &[&settings[..], &["--resume"]].concat()),
            false => args,
        };
        together(&again, 2);
        assert_eq!(records(&world, "whole"), records(&world, "model"), "killed at moment {moment}");
        let of = |folder: &str| weights(&world, &format!("{folder}/last.safetensors"));
        assert!(of("whole") == of("model"), "killed at moment {moment}");
        assert!(half_written(&world.path("model")).is_empty());
        fs::remove_dir_all(world.path("model")).unwrap();
    }
}

#[test]
fn a_rank_that_is_lost_while_others_are_awaited_ends_the_meeting() {
    let world = World::encoded();
    let master = free_port();
    let args = train(&world, "model", &["--epochs", "1"]);
    let children = started(vec![rank(&args, 0, 3, &master), rank(&args, 1, 3, &master)]);
    std::thread::sleep(Duration::from_millis(500));
    kill_one(children, 1);
    assert!(!world.path("model").exists());
}

/// Runs two ranks of which the second is another, and wants both to say all of this, and nothing to be written.
fn refuse_both(world: &World, args: &[&str], other: &[&str], says: &[&str]) {
    let master = free_port();
    let start = Instant::now();
    let outputs = ended(started(vec![rank(args, 0, 2, &master), rank(other, 1, 2, &master)]));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    outputs.iter().for_each(|output| refused(output, says));
    assert!(!world.path("model").exists(), "{says:?}");
}

#[test]
fn ranks_of_other_settings_or_data_are_named_on_all_before_anything_is_written() {
    let world = World::encoded();
    let args = train(&world, "model", &["--epochs", "1"]);
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let differs = "differs from rank 0: ";
    refuse_both(&world, &args, &with(&["--seed", "5"]), &["rank 1 (host", differs, "train.seed is 5 and not 0"]);
    refuse_both(&world, &args, &with(&["--dropout", "0.5"]), &["rank 1 (host", differs, "model.dropout is 0.5"]);
    refuse_both(&world, &args, &with(&["--resume"]), &["rank 1 (host", differs, "--resume is true and not false"]);
    let other = world.copy();
    other.change_line("data/train.jsonl", 3, |mention| mention["sentence"] = "A box number 2 that looks black.".into());
    let of_other = |name: &str, args: &[&'static str]| -> Vec<&'static str> {
        crate::support::replace(args.to_vec(), name, other.arg(name.trim_start_matches("--")))
    };
    succeed(&other.encode());
    refuse_both(&world, &args, &of_other("--features", &of_other("--data", &args)), &[differs, "dataset.checksum is"]);
    other.write_encoder("encoder", 7);
    fs::remove_dir_all(other.path("features")).unwrap();
    fs::remove_dir_all(other.path("data")).unwrap();
    Command::new("cp").args(["-r", world.arg("data"), other.arg("data")]).status().unwrap();
    succeed(&other.encode());
    refuse_both(&world, &args, &of_other("--features", &args), &["rank 1 (host", differs, "features."]);
    // What one fails of, all say.
    let none = crate::support::replace(args.clone(), "--features", other.arg("nothing"));
    refuse_both(&world, &args, &none, &["nothing"]);
}

#[test]
fn ports_that_are_taken_and_worlds_that_never_complete_are_errors_within_their_deadline() {
    let world = World::encoded();
    let args = train(&world, "model", &["--epochs", "1"]);
    let one = |which: usize, master: &str| patient(&args, which, 2, master, "1").output().unwrap();
    refused(&one(0, &free_port()), &["of 2 ranks these did not come to 127.0.0.1", "within 1 s (--deadline): 1"]);
    refused(&one(1, &free_port()), &["rank 1 did not reach rank 0 at 127.0.0.1", "within 1 s"]);
    refused(&one(0, "no.such.host.invalid:29500"), &["no.such.host.invalid:29500, which is no address"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    refused(&one(0, &at), &["rank 0 cannot listen", &at, "another program does", "--master"]);
    // Another program that answers in its own way.
    let serve = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = taken.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(300));
    });
    refused(&one(1, &at), &["what listens at", &at, "is not rank 0", "speaks something else"]);
    serve.join().unwrap();
    assert!(!world.path("model").exists());
}

/// Calls on rank 0 of two as somebody who says this.
fn called_by(world: &World, greeting: &[u8]) -> Output {
    use std::io::{Read, Write};
    let master = free_port();
    let args = train(world, "model", &["--epochs", "1"]);
    let child = patient(&args, 0, 2, &master, "2").spawn().unwrap();
    let start = Instant::now();
    let mut stream = loop {
        match std::net::TcpStream::connect(&master) {
            Ok(stream) => break stream,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(20)),
        }
    };
    stream.write_all(greeting).unwrap();
    let _ = stream.read(&mut [0; 1000]);
    child.wait_with_output().unwrap()
}

#[test]
fn callers_of_other_versions_are_refused_and_strangers_ignored() {
    let world = World::encoded();
    let hello = |protocol: u32, hello: Value| {
        let hello = hello.to_string();
        let lengths = [protocol.to_le_bytes(), (hello.len() as u32).to_le_bytes()].concat();
        [b"fissfuse", &lengths[..], hello.as_bytes()].concat()
    };
    let of = |rank: usize, size: usize, program: &str| {
        serde_json::json!({"rank": rank, "size": size, "place": "host a, process 7", "port": 1, "program": program,
            "job": null, "session": null})
    };
    let program = format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("FISSFUSE_COMMIT"));
    let old = called_by(&world, &hello(1, of(1, 2, "0.0.9 (1234567)")));
    refused(&old, &["rank 1 (host a, process 7) is version 0.0.9 (1234567) of the program, rank 0 is"]);
    refused(&called_by(&world, &hello(7, of(1, 2, &program))), &["speaks protocol 7 and not 1"]);
    refused(&called_by(&world, &hello(1, of(1, 3, &program))), &["was told of 3 ranks, rank 0 of 2"]);
    refused(&called_by(&world, &hello(1, of(0, 2, &program))), &["says that it is rank 0"]);
    refused(&called_by(&world, &hello(1, of(2, 2, &program))), &["is beyond the 2 that there are"]);
    // Those who speak something else are nobody's rank: the world stays incomplete.
    for stranger in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"fissfuse\x01\0\0\0\xff\xff\xff\xff", b"fissfuse\x01\0\0\0\x02\0\0\0{}"]
    {
        refused(&called_by(&world, stranger), &["is none of this training's", "did not come"]);
    }
    assert!(!world.path("model").exists());
}

#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() {
    let world = World::encoded();
    let args = train(&world, "model", &["--epochs", "100000", "--checkpoint-steps", "1"]);
    let master = free_port();
    let mut children = started((0..2).map(|r| rank(&args, r, 2, &master)).collect());
    wait_for(&world, "model/last.safetensors", &mut children);
    send("-INT", &children[1]);
    let outputs = ended(children);
    assert_eq!(outputs[1].status.code(), Some(130), "{}", errors(&outputs[1]));
    refused(&outputs[0], &["another rank was asked to stop", "is finished and kept in", "--resume goes on"]);
    let done = if world.path("model/train.jsonl").exists() { records(&world, "model").len() } else { 0 };
    let epochs: &str = (done + 1).to_string().leak();
    together(&train(&world, "model", &["--resume", "--checkpoint-steps", "1", "--epochs", epochs]), 2);
}

#[test]
fn launchers_are_understood_and_contradictions_refused() {
    let world = World::encoded();
    let args = train(&world, "model", &["--epochs", "1", "--device", "cpu"]);
    let master = free_port();
    let port = master.rsplit(':').next().unwrap();
    let with = |variables: &[(&str, &str)]| {
        let mut command = fissfuse(&args);
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let torchrun = |rank: &'static str| {
        with(&[
            ("RANK", rank),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", rank),
            ("MASTER_ADDR", "localhost"),
            ("MASTER_PORT", port),
        ])
    };
    let outputs = ended(started(vec![torchrun("0"), torchrun("1")]));
    outputs.iter().for_each(|output| assert!(output.status.success(), "{}", errors(output)));
    assert!(errors(&outputs[1]).contains("rank 1 of 2, as torchrun says"));
    fs::remove_dir_all(world.path("model")).unwrap();
    let one = with(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_STEP_ID", "0")]).output().unwrap();
    assert!(one.status.success(), "{}", errors(&one));
    fs::remove_dir_all(world.path("model")).unwrap();
    let [slurm, ompi] = [["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"], ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"]];
    let both = with(&[(slurm[0], "0"), (slurm[1], "2"), (ompi[0], "1"), (ompi[1], "2")]).output().unwrap();
    refused(&both, &["Open MPI says that this is rank 1 of 2", "Slurm that it is rank 0 of 2", "--launcher"]);
    let mut devices = with(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")]);
    let at = args.iter().position(|arg| *arg == "--device").unwrap();
    devices = {
        let mut command = fissfuse(&[&args[..at], &["--devices", "cpu,cpu"]].concat());
        command.envs(devices.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
        command
    };
    refused(
        &devices.output().unwrap(),
        &["torchrun says that this is one of 2 processes", "--device instead of --devices"],
    );
    let devices = |named: &'static str| [&args[..at], &["--devices", named]].concat();
    crate::support::refuse(&devices("cpu,auto"), &["auto names no device"]);
    crate::support::refuse(&devices("cuda:0,cuda:0"), &["cuda:0 is named twice"]);
    let many: &'static str = vec!["cpu"; 13].join(",").leak();
    crate::support::refuse(&devices(many), &["13 devices share each batch, of batch_size 12"]);
    assert!(!world.path("model").exists());
}

#[test]
fn a_library_of_nccls_name_that_is_none_or_fails_is_a_reason_or_an_error_and_never_a_panic() {
    let world = World::encoded();
    let folder = cusim();
    let real = folder.path().join("libcuda.so.1").to_str().unwrap().to_string();
    fs::write(world.path("text.so"), "no library").unwrap();
    let args = [&train(&world, "model", &["--epochs", "1"])[..], &["--devices", "cuda:0,cuda:1,cuda:2"]].concat();
    let run = |nccl: &str, more: (&str, &str)| {
        fissfuse_on_cusim(&args, &[("CUSIM_DEVICES", "3"), ("FISSFUSE_NCCL", nccl), more])
    };
    let other = std::env::current_exe().unwrap();
    for (library, says) in [
        ("", "libnccl.so.2 cannot be loaded"),
        ("/no/such/libnccl.so.2", "/no/such/libnccl.so.2 cannot be loaded"),
        (world.arg("text.so"), "text.so cannot be loaded"),
        (other.to_str().unwrap(), "cannot be loaded"),
    ] {
        let output = run(library, ("CUSIM_CHECK", "mem"));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", errors(&output));
        assert!(printed.contains("not by NCCL: of rank 0") && printed.contains(says), "{library}: {printed}");
        fs::remove_dir_all(world.path("model")).unwrap();
    }
    // Group 7 of three ranks, two in each bucket: in the second step.
    let start = Instant::now();
    refused(
        &run(&real, ("CUSIM_NCCL_FAIL", "7")),
        &["cusim: [nccl] this group fails", "NCCL 2.21.5: sending gradients: "],
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
