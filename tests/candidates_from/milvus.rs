//! Lists of Milvus' real server, where it was fetched.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use super::*;

/// A server that scripts/milvus-lite.sh fetched.
struct Milvus {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

/// Where scripts/milvus-lite.sh puts it: beside the build.
fn program() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("milvus-lite/bin/milvus-lite")
}

impl Milvus {
    /// `None`, and why on stderr, where it was not fetched.
    fn start() -> Option<Milvus> {
        let program = program();
        if !program.exists() {
            eprintln!("skipped: {} is not there; scripts/milvus-lite.sh fetches it", program.display());
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(["server", "--host", "127.0.0.1", "--port", &port.to_string(), "--data-dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (milvus, start) = (Milvus { child, port, _folder: folder }, Instant::now());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(120), "milvus-lite does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(milvus)
    }

    /// Runs statements of Python with Milvus' own client, `c`, of this server.
    fn python(&self, statements: &str) {
        let script = format!(
            "from pymilvus import MilvusClient\nc = MilvusClient('http://127.0.0.1:{}')\n{statements}",
            self.port
        );
        let output = Command::new(program().with_file_name("python")).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn place(&self, collection: &str) -> &'static str {
        format!("milvus://127.0.0.1:{}/{collection}", self.port).leak()
    }
}

impl Drop for Milvus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lists_of_a_real_server_are_those_of_a_scan_and_what_is_not_ours_is_refused() {
    let Some(milvus) = Milvus::start() else { return };
    let world = World::trained();
    let place = milvus.place("kb");
    refuse(&eval(world, "never", place, "3"), &["collection `kb` of Milvus at http://127.0.0.1", "index push"]);
    assert!(succeed(&push(world, place)).contains("12 vectors of 48 numbers"));
    assert!(succeed(&push(world, place)).contains("already"));
    for (out, from) in [("scanned", "scan"), ("of-milvus", place)] {
        let printed = succeed(&[&eval(world, out, from, "5")[..], &["--min-recall", "0"]].concat());
        assert_eq!(printed.contains("it holds 100.00 %"), from == place, "{printed}");
        assert_eq!(world.read_lines(&format!("{out}/run.jsonl")), world.read_lines("scanned/run.jsonl"));
    }
    let other = world.copy();
    other.change_line("data/entities.jsonl", 3, |entity| entity["image"] = Value::Null);
    refuse(&push(&other, place), &["holds an index of another knowledge base", "--replace"]);
    refuse(&eval(&other, "never", place, "3"), &["holds an index of another knowledge base"]);
    succeed(&[&push(&other, place)[..], &["--replace"]].concat());
    succeed(&eval(&other, "of-other", place, "12"));
    milvus.python("assert c.list_collections() == ['kb_fissfuse_2'], c.list_collections()");
    // Rows that somebody deleted, and somebody's own collection.
    milvus.python("c.delete('kb_fissfuse_2', ids=[4])");
    refuse(&eval(&other, "never", place, "3"), &["holds 11 vectors instead of 12", "index push"]);
    succeed(&push(&other, place));
    succeed(&eval(&other, "of-other", place, "12"));
    // One that bears the name itself, as older versions made it.
    milvus.python("c.drop_alias('kb')\nc.rename_collection('kb_fissfuse_1', 'kb')");
    succeed(&eval(&other, "of-other", place, "12"));
    assert!(succeed(&push(&other, place)).contains("already"));
    succeed(&[&push(world, place)[..], &["--replace"]].concat());
    succeed(&eval(world, "of-milvus", place, "12"));
    milvus.python("assert c.list_collections() == ['kb_fissfuse_1'], c.list_collections()");
    milvus.python("c.create_collection('theirs', dimension=48)\nc.insert('theirs', [{'id': 1, 'vector': [0.5] * 48}])");
    for args in [push(world, milvus.place("theirs")), eval(world, "never", milvus.place("theirs"), "3")] {
        refuse(&args, &["is none that FissFuse made"]);
    }
    refuse(&[&push(world, milvus.place("theirs"))[..], &["--replace"]].concat(), &["is none that FissFuse made"]);
    milvus.python("assert c.get_collection_stats('theirs')['row_count'] == 1");
    assert!(!world.path("never").exists() && !other.path("never").exists());
}

#[test]
fn a_server_that_is_down_or_silent_is_said_to_be() {
    let world = World::trained();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let place: &'static str = format!("milvus://{address}/kb").leak();
    let quick = |args: Vec<&'static str>| [&args[..], &["--database-timeout", "1"]].concat();
    refuse(&quick(push(world, place)), &[&format!("Milvus at http://{address}: connecting"), "no answer within 1 s"]);
    drop(silent);
    refuse(&quick(push(world, place)), &["is the server running"]);
    refuse(&quick(eval(world, "never", place, "3")), &["is the server running"]);
    assert!(!world.path("never").exists());
}
