//! Standard streams that nobody reads or that are full, outputs that are no regular files, and outputs that are inputs.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::support::{World, fissfuse, refuse, refused, replace, succeed};

/// Commands that talk, and end.
fn talkers(world: &World) -> Vec<Vec<&'static str>> {
    let (data, features) = (world.arg("data"), world.arg("features"));
    let embedded = ["embed", "--encoder", world.arg("encoder"), "--text", "a ball", "--out", world.arg("embedded")];
    vec![
        vec!["audit", "--data", data],
        world.encode(),
        world.eval("eval"),
        vec!["index", "check", "--features", features],
        embedded.to_vec(),
        vec!["--help"],
    ]
}

#[test]
fn commands_end_quietly_when_nobody_reads_and_loudly_when_it_cannot_be_written() {
    let world = World::trained();
    for args in talkers(world) {
        // The reader's end is closed before the command begins.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = fissfuse(&args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("panicked"), "{args:?}: {:?}: {errors}", output.status);
        if args == ["--help"] {
            continue;
        }
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = fissfuse(&args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        refused(&output, &["standard output cannot be written", "No space left"]);
        // Nor does a full standard error end it.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = fissfuse(&args).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert!(status.success(), "{args:?}: {status:?}");
    }
}

#[test]
fn training_goes_on_when_nobody_hears_of_it() {
    let world = World::encoded();
    let train = [&world.train()[..], &["--epochs", "4"]].concat();
    let mut child = fissfuse(&train).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("parameters"), "{first}");
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("goes on without it"), "{errors}");
    assert_eq!(world.read_lines("model/train.jsonl").len(), 4);
}

#[test]
fn outputs_go_through_links_pipes_and_devices() {
    let world = World::new();
    let audit = |out: &str| {
        let output = fissfuse(&["audit", "--data", world.arg("data"), "--json", out]).stdout(Stdio::null()).output();
        output.unwrap()
    };
    fs::write(world.path("real.json"), "old").unwrap();
    std::os::unix::fs::symlink("real.json", world.path("link.json")).unwrap();
    assert!(audit(world.arg("link.json")).status.success());
    assert!(world.path("link.json").is_symlink());
    let written = fs::read(world.path("real.json")).unwrap();
    assert!(written.starts_with(b"{"));

    assert!(Command::new("mkfifo").arg(world.path("pipe")).status().unwrap().success());
    let pipe = world.path("pipe");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(pipe).unwrap().read_to_end(&mut bytes).map(|_| bytes).unwrap()
    });
    assert!(audit(world.arg("pipe")).status.success());
    assert_eq!(reader.join().unwrap(), written);
    assert!(audit("/dev/null").status.success());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let to_stdout = fissfuse(&["audit", "--data", world.arg("data"), "--json", "/dev/stdout"]).output().unwrap();
    assert!(to_stdout.status.success() && String::from_utf8_lossy(&to_stdout.stdout).contains("\n}"));

    let dash = fissfuse(&["audit", "--data", world.arg("data"), "--json", "-"]).output().unwrap();
    assert_eq!((dash.stdout, dash.stderr.is_empty()), (written, false));
    assert!(!fs::exists("-").unwrap());

    fs::set_permissions(world.path("real.json"), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    refused(&audit(world.arg("link.json")), &["link.json", "read-only"]);
    refused(&audit(world.arg("data")), &["data"]);
}

#[test]
fn no_command_writes_over_what_it_reads() {
    let world = World::encoded();
    let before = world.read_lines("data/train.jsonl");
    let features = fs::read(world.path("features/manifest.json")).unwrap();
    refuse(&replace(world.train(), "--out", world.arg("data")), &["--out is what --data reads"]);
    refuse(&replace(world.train(), "--out", world.arg("features")), &["--out is what --features reads"]);
    refuse(&replace(world.train(), "--out", world.arg("encoder")), &["--out is an encoder or a language model"]);
    refuse(&replace(world.encode(), "--out", world.arg("data")), &["--out is what --data reads"]);
    refuse(&replace(world.encode(), "--out", world.arg("encoder")), &["--out is what --encoder reads"]);
    let test = world.arg("data/test.jsonl");
    refuse(&["audit", "--data", world.arg("data"), "--json", test], &["--json is a file of --data"]);
    assert_eq!(world.read_lines("data/train.jsonl"), before);
    assert_eq!(fs::read(world.path("features/manifest.json")).unwrap(), features);
}

/// A process that ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[test]
fn two_at_once_do_not_write_one_folder() {
    let world = World::encoded();
    let train = [&world.train()[..], &["--epochs", "100000", "--dropout", "0.2"]].concat();
    let mut first = Ended(fissfuse(&train).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(first.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    refuse(&train, &["model", "another process of fissfuse is writing into it"]);
    drop(first);
    // Its lock went with it.
    std::fs::remove_dir_all(world.path("model")).unwrap();
    succeed(&[&world.train()[..], &["--epochs", "1"]].concat());
}
