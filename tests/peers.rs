//! The scripts that measure peers in turn, as far as they go without any peer: their turns, their table and its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fissfuse::profile::measurement::{Measurement, Measurements};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::fissfuse_bench;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// Python without the packages of the peers, whether they are installed or not, in which `body` runs.
fn python(scratch: &TempDir) -> Command {
    for package in ["torch", "gguf"] {
        fs::write(scratch.path().join(format!("{package}.py")), format!("raise ImportError('no {package} here')"))
            .unwrap();
    }
    let mut python = Command::new("python3");
    let path = std::env::join_paths([scratch.path(), &scripts()]).unwrap();
    python.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn peers_that_are_missing_are_rows_of_the_table_and_of_a_file_of_measurements() {
    let (scratch, out) = (tempdir().unwrap(), tempdir().unwrap());
    let mut run = python(&scratch);
    run.arg(scripts().join("peers.py")).arg("--out").arg(out.path()).arg("--program");
    run.arg(fissfuse_bench().get_program()).args(["--small", "--threads", "1", "--only", "decode", "llama"]);
    let table = printed(&run.output().unwrap());
    for (peer, package) in [("PyTorch, SDPA", "torch"), ("llama.cpp", "gguf")] {
        let says = format!("missing: ImportError: no {package} here");
        assert!(table.lines().any(|line| line.contains(&format!("  {peer}  ")) && line.contains(&says)), "{table}");
    }
    let found = Measurements::read(&out.path().join("peers.json")).unwrap();
    assert_eq!((found.command.as_str(), found.machine.threads, found.results.len()), ("peers", 1, 2));
    for result in &found.results {
        assert!(result.seconds.is_none() && result.warnings[0].contains("is missing: ImportError"), "{result:?}");
    }
    // A run compares with another, here with one that had a row of these.
    let mut earlier: Value = serde_json::from_str(&fs::read_to_string(out.path().join("peers.json")).unwrap()).unwrap();
    let figures = json!({"ratio": 2.0, "ratio_low": 1.5, "ratio_high": 2.5});
    earlier["results"][0]["figures"] = figures;
    let kept = scratch.path().join("kept.json");
    fs::write(&kept, earlier.to_string()).unwrap();
    let again = printed(&run.arg("--compare").arg(&kept).output().unwrap());
    let line = again.lines().find(|line| line.contains("2.00 (1.50 to 2.50)")).unwrap();
    assert!(line.contains("PyTorch, SDPA") && line.ends_with("not measured in both"), "{again}");
    fs::write(&kept, "{}").unwrap();
    let refused = run.output().unwrap();
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("kept.json is no peers.json")
    );
    let page = fs::read_to_string(out.path().join("table.md")).unwrap();
    assert!(page.contains(&format!("commit {}", found.commit)) && page.contains("| llama.cpp | - |"), "{page}");
}

#[test]
fn turns_alternate_and_give_ratios_of_each_turn() {
    let scratch = tempdir().unwrap();
    let program = fissfuse_bench().get_program().to_owned();
    let step =
        "step --mentions 2 --candidates 3 --mean-tokens 4 --max-tokens 8 --patches 4 --d 16 --device cpu --in-turns";
    let body = format!(
        "import sys, peers, turns\n\
         order, args = [], turns.parser('').parse_args(['--runs', '4', '--json', '--without', 'absent'])\n\
         theirs = lambda: order.append('theirs') or 1.0 + len(order)\n\
         report = turns.Report(args, {{}})\n\
         with turns.Process([sys.argv[1], *{:?}.split()]) as process:\n    \
             ours = lambda: order.append('ours') or process.turn()\n    \
             report.turns('step', 'slow', theirs, ours)\n    \
             report.turns('step', 'absent', theirs, ours)\n    \
             report.turns('step', 'broken', lambda: 1 / 0, ours)\n\
         report.more['order'] = order\n\
         report.more['measured'] = [peers.measurements(row) for row in report.rows][0]\n\
         report.print()\n\
         turns.Process([sys.argv[1], 'step', '--no-such-option'])\n",
        step
    );
    let output = python(&scratch).arg("-c").arg(body).arg(program).output().unwrap();
    // The program that refuses its arguments says so in the error that ends the script.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.trim().lines().last().unwrap().contains("--no-such-option"), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Once to warm up; then each is the first in half of the turns.
    let order = ["theirs", "theirs", "ours", "ours", "theirs", "theirs", "ours", "ours", "theirs"];
    assert_eq!(report["order"], json!(order));
    let row = &report["peers"][0];
    let [theirs, ours] = ["their_turns", "our_turns"].map(|side| {
        let turns = row[side].as_array().unwrap().iter();
        turns.map(|seconds| seconds.as_f64().unwrap()).collect::<Vec<f64>>()
    });
    let mut ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ours.iter().all(|seconds| *seconds > 0.0) && ratios.len() == 4, "{row}");
    assert_eq!([&row["low"], &row["high"]], [&json!(ratios[0]), &json!(ratios[3])]);
    assert_eq!(row["ratio"], json!((ratios[1] + ratios[2]) / 2.0));
    let holes: Vec<_> =
        report["missing"].as_array().unwrap().iter().map(|hole| (&hole["peer"], &hole["why"])).collect();
    let says = [("absent", "left out by --without"), ("broken", "division by zero")].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(holes, says.iter().map(|(peer, why)| (peer, why)).collect::<Vec<_>>());
    // As the engine reads and writes it, quantiles and all.
    let measured = report["measured"].as_array().unwrap();
    for (written, engine) in measured.iter().zip(["FissFuse", "slow"]) {
        let read: Measurement = serde_json::from_value(written.clone()).unwrap();
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!((&again["seconds"], &read.parameters["engine"]), (&written["seconds"], &json!(engine)));
    }
    assert_eq!((measured.len(), &measured[0]["figures"]["ratio"]), (2, &row["ratio"]));
}
