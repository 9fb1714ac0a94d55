//! The files of `fissfuse rerank`: names that meet, pipes, and places that cannot be written.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::rerank::{MENTIONS, by_server, world};
use super::server::Server;
use crate::support::{fissfuse, refuse, replace, succeed};

#[test]
fn files_whose_names_meet_are_refused_before_anything_starts() {
    let world = world();
    let server = Server::new([]);
    let args = by_server(&world, &server);
    let before = fs::read(world.path("run.jsonl")).unwrap();
    let around: &'static str = world.path("data/../run.jsonl").display().to_string().leak();
    std::os::unix::fs::symlink(world.path("run.jsonl"), world.path("link.jsonl")).unwrap();
    for name in [around, world.arg("link.jsonl"), world.arg("data/entities.jsonl"), world.arg("data/test.jsonl")] {
        for flag in ["--out", "--report"] {
            refuse(&replace(args.clone(), flag, name), &[flag, "choose another"]);
        }
        refuse(&[&args[..], &["--journal", name]].concat(), &["--journal is", "choose another --journal"]);
    }
    refuse(&[&args[..], &["--journal", world.arg("new.jsonl")]].concat(), &["--out and --journal are one file"]);
    refuse(&replace(args.clone(), "--report", world.arg("new.jsonl")), &["--out and --report are one file"]);
    refuse(&replace(args, "--report", world.arg("new.jsonl.journal.jsonl")), &["--journal and --report are one file"]);
    assert!(server.calls() == 0 && fs::read(world.path("run.jsonl")).unwrap() == before);
}

#[test]
fn what_is_piped_is_read_once_and_what_is_written_to_a_pipe_has_no_journal() {
    let world = world();
    let server = Server::new([]);
    let args = replace(replace(by_server(&world, &server), "--ranking", "/dev/stdin"), "--out", "/dev/stdout");
    let template =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/kar/templates/select-one.txt")).unwrap();
    let pipe = world.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn(move || fs::write(pipe, template).unwrap());
    let mut child = fissfuse(&[&args[..], &["--template", world.arg("pipe")]].concat());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(world.path("run.jsonl")).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.contains("/dev/stdout is no file: answers are kept in no journal"),
        "{errors}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("\"mention_id\"").count(), MENTIONS);
    let calls = server.calls();
    let args = by_server(&world, &server);
    refuse(&[&args[..], &["--journal", "/dev/null"]].concat(), &["/dev/null: is a device", "no regular file"]);
    refuse(&replace(args.clone(), "--report", world.arg("data")), &["--report"]);
    fs::create_dir(world.path("folder")).unwrap();
    refuse(&replace(args.clone(), "--report", world.arg("folder")), &["folder: is a folder"]);
    refuse(&replace(args.clone(), "--report", world.arg("run.jsonl/new")), &["run.jsonl/new"]);
    assert_eq!(server.calls(), calls);
    // A folder that is not there yet is made.
    succeed(&replace(args, "--report", world.arg("new/report.json")));
}
