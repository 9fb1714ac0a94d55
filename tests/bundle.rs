//! The bundle for machines with a GPU: packed as the tests were built, moved, and rehearsed on cusim at small sizes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fissfuse::device::cuda::has_driver;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::support::{cusim, fissfuse, fissfuse_bench};

/// The most that an archive may hold.
const MOST_BYTES: u64 = 60_000_000;

/// The folder of the unpacked bundle.
fn bundle() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempdir().unwrap();
        let archive = folder.path().join("bundle.tar.gz");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu-bundle.sh");
        let mut pack = Command::new(script);
        pack.arg("--built").args([fissfuse(&[]), fissfuse_bench()].map(|program| program.get_program().to_owned()));
        pack.arg(std::env::current_exe().unwrap()).arg("--out").arg(&archive);
        done(&pack.output().unwrap());
        let bytes = fs::metadata(&archive).unwrap().len();
        assert!(bytes < MOST_BYTES, "the bundle has {bytes} bytes");
        done(&Command::new("tar").arg("-xzf").arg(&archive).current_dir(folder.path()).output().unwrap());
        folder
    });
    Box::leak(folder.path().join("fissfuse-gpu").into_boxed_path())
}

fn done(output: &Output) {
    let [printed, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{printed}{errors}");
}

fn rehearse(out: &Path, parts: &[&str]) -> Output {
    let cusim = cusim();
    let mut run = Command::new(bundle().join("run.sh"));
    // No Python, ncu or compute-sanitizer, and a home that cannot be written.
    run.arg("--rehearse").arg(cusim.path()).arg("--out").arg(out).args(parts);
    run.env("PYTHON", "no-python-here").env("PATH", "/usr/bin:/bin").env("HOME", "/proc/none").current_dir("/");
    run.output().unwrap()
}

/// The folders of results, and the lines of the runs of each.
fn results(out: &Path) -> Vec<(PathBuf, Vec<Value>)> {
    let mut folders: Vec<PathBuf> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let lines = |folder: &PathBuf| -> Vec<Value> {
        let text = fs::read_to_string(folder.join("runs.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    folders.into_iter().map(|folder| (folder.clone(), lines(&folder))).collect()
}

fn of<'a>(runs: &'a [Value], name: &str) -> &'a Value {
    runs.iter().find(|run| run["name"] == name).unwrap_or_else(|| panic!("{name} is not among {runs:?}"))
}

#[test]
fn a_bundle_that_was_moved_runs_all_its_parts_on_cusim() {
    let out = tempdir().unwrap();
    done(&rehearse(out.path(), &["correct", "peers", "profile", "sanitize"]));
    done(&rehearse(out.path(), &["times"]));
    let found = results(out.path());
    // The second run has a folder of its own.
    let [(checked, checks), (timed, times)] = &found[..] else { panic!("{found:?}") };
    for run in checks.iter().chain(times) {
        assert!(run["failed"].is_null(), "{run}");
    }
    assert!(of(checks, "tests")["result"]["passed"].as_u64() >= Some(3));
    assert!(fs::read_to_string(checked.join("doctor.json")).unwrap().contains("kernels"));
    assert!(fs::read_to_string(checked.join("doctor.txt")).unwrap().contains("agree with the CPU"));
    assert!(of(checks, "peers")["skipped"].as_str().unwrap().contains("no-python-here"));
    for part in ["profile", "sanitize"] {
        assert!(of(checks, part)["skipped"].is_string());
    }
    for name in ["step-wikimel-graph", "layers-256", "decode-int4"] {
        assert!(of(times, name)["result"].is_object(), "{name}");
    }
    assert!(of(times, "kar")["result"]["results"].is_array());
    let table = fs::read_to_string(timed.join("table.md")).unwrap();
    let step = table.lines().find(|line| line.starts_with("| step, WikiMEL |")).unwrap();
    assert!(step.contains("| 19.9 | 5.3 |") && !step.ends_with("| - |"), "{step}");
    assert!(table.contains("| rehearsal |") && table.contains("| times | kar |"), "{table}");
    assert!(fs::read_dir(timed).unwrap().all(|entry| !entry.unwrap().path().is_dir()), "scratch files stay behind");
}

#[test]
fn a_bundle_without_a_driver_skips_what_needs_one_by_name() {
    if has_driver() {
        return;
    }
    let out = tempdir().unwrap();
    let output = Command::new(bundle().join("run.sh")).arg("--out").arg(out.path()).output().unwrap();
    done(&output);
    let found = results(out.path());
    let (folder, runs) = &found[0];
    for name in ["first-start", "correct", "times"] {
        assert!(of(runs, name)["skipped"].as_str().unwrap().contains("no CUDA driver"), "{name}");
    }
    assert!(["peers", "profile", "sanitize"].iter().all(|part| of(runs, part)["skipped"].is_string()));
    assert!(fs::read_to_string(folder.join("table.md")).unwrap().contains("no CUDA driver"));
}

#[test]
fn a_bundle_refuses_places_that_cannot_be_written_and_parts_that_it_lacks() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let run = |args: &[&str]| Command::new(bundle().join("run.sh")).args(args).output().unwrap();
    for (args, says) in [
        (&["--out", file.to_str().unwrap()][..], "--out DIR names another place"),
        (&["everything"], "everything: no such part"),
        (&["--out"], "--out needs a folder"),
        (&["--rehearse", folder.path().to_str().unwrap()], "no libcuda.so.1"),
    ] {
        let output = run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && errors.contains(says), "{args:?}: {errors}");
    }
}

#[test]
fn an_interrupted_bundle_keeps_what_was_finished() {
    let (out, cusim) = (tempdir().unwrap(), cusim());
    let mut run = Command::new(bundle().join("run.sh"));
    run.arg("--rehearse").arg(cusim.path()).arg("--out").arg(out.path()).arg("correct");
    let mut run = run.spawn().unwrap();
    // The first start is done once the doctor has begun to print.
    let began = || {
        let folder = fs::read_dir(out.path()).unwrap().next()?.unwrap().path();
        fs::metadata(folder.join("doctor.txt")).ok()
    };
    while began().is_none() {
        assert!(run.try_wait().unwrap().is_none(), "it ended before the doctor began");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    done(&Command::new("kill").arg(run.id().to_string()).output().unwrap());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let found = results(out.path());
    let (folder, runs) = &found[0];
    // On a busy machine the doctor may have ended before it was told to; what follows takes longer than that.
    assert!(of(runs, "first-start")["result"].is_object(), "{runs:?}");
    assert!(runs.iter().all(|run| run["name"] != "tests"), "{runs:?}");
    assert!(fs::read_to_string(folder.join("table.md")).unwrap().contains("first-start"));
}
