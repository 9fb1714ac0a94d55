//! `fissfuse experiment` through the binary: a table of several models, resumed, shared, and with what goes wrong in it.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kar::server::{Act, Server, good};
use crate::support::{World, fissfuse, refuse, run, succeed};

/// Two models of which one has a grid, one without parameters, and a row that is given.
const SMALL: &str = r#"
title = "A small table"
seeds = [0, 1]
against = "FissFuse"
base.model.d = 16
base.train.epochs = 2
base.train.batch_size = 16
base.train.learning_rate = 1e-3

[[rows]]
name = "FissFuse"

[[rows]]
name = "BERT"
model.name = "bert"
grid = { "train.learning_rate" = [1e-3, 1e-2] }

[[rows]]
name = "CLIP"
model.name = "clip"

[[rows]]
name = "GEMEL"
run_file = true
"#;

/// `fissfuse experiment` of a file in the world.
pub fn experiment(world: &World, file: &str, text: &str, out: &str) -> Vec<&'static str> {
    fs::write(world.path(file), text).unwrap();
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--out", world.arg(out)];
    [&["experiment", world.arg(file)][..], &paths].concat()
}

pub fn summary(world: &World, out: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(world.path(out).join("summary.json")).unwrap()).unwrap()
}

/// Metrics, differences and choices of each row: all that must have the same bits however the trials were run.
pub fn computed(world: &World, out: &str) -> Value {
    summary(world, out)["rows"].clone()
}

/// Bytes of all models and run files below a folder, by name.
pub fn outputs(world: &World, out: &str) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![world.path(out)]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with("run.jsonl") => {
                    let name = path.strip_prefix(world.path(out)).unwrap().display().to_string();
                    found.insert(name, fs::read(&path).unwrap());
                }
                false => {}
            }
        }
    }
    found
}

#[test]
fn a_table_has_its_rows_and_is_computed_once_however_the_work_is_shared() {
    let world = World::encoded();
    let args = experiment(&world, "small.toml", SMALL, "one");
    let first = run(&args);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let (printed, said) = (String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&first.stderr));
    for part in
        ["seeds 0, 1: mean ± standard deviation", "the gold entity in every list", "GEMEL: no run file is given"]
    {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // Two of FissFuse, two points of BERT and its second seed, two of CLIP.
    assert_eq!(said.lines().filter(|line| line.contains("test MRR")).count(), 7, "{said}");
    let rows = computed(&world, "one");
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["FissFuse", "BERT", "CLIP", "GEMEL", "the lists' order", "chance"]);
    assert_eq!(rows[1]["tried"].as_array().unwrap().len(), 2);
    assert!(rows[1]["chosen"].as_str().unwrap().starts_with("learning_rate="));
    assert!(rows[1]["difference"]["p"].is_f64() && rows[0]["difference"].is_null());
    assert_eq!((&rows[2]["parameters"], &rows[2]["metrics"]["MRR"]["deviation"]), (&json!(0), &json!(0.0)));
    assert!(rows[3]["metrics"].is_null());
    // Again: nothing is left to do.
    let again = run(&args);
    assert!(again.status.success() && !String::from_utf8_lossy(&again.stderr).contains("test MRR"));
    assert_eq!(computed(&world, "one"), rows);
    assert!(!world.path("one/fissfuse/seed-0/last.safetensors").exists());
    // Two jobs, and three turns of two processes that share one folder.
    let jobs = experiment(&world, "small.toml", SMALL, "jobs");
    succeed(&[&jobs[..], &["--jobs", "2"]].concat());
    let shards = experiment(&world, "small.toml", SMALL, "shards");
    let turn = |shard: &'static str| succeed(&[&shards[..], &["--shard", shard]].concat());
    assert!(turn("1/2").contains("trials are other processes'"));
    turn("2/2");
    turn("1/2");
    for other in ["jobs", "shards"] {
        assert_eq!(computed(&world, other), rows, "{other}");
        assert_eq!(outputs(&world, other), outputs(&world, "one"), "{other}");
    }
    // A row that is given: the very ranking of another.
    let run_of = format!("GEMEL={}", world.path("one/fissfuse/seed-0/run.jsonl").display()).leak();
    succeed(&[&args[..], &["--run", run_of]].concat());
    let rows = computed(&world, "one");
    assert!(rows[3]["metrics"]["MRR"]["mean"].is_f64() && rows[3]["difference"]["corrected"].is_f64());
}

#[test]
fn the_last_of_several_processes_finds_what_the_others_finished() {
    let world = World::encoded();
    let args = experiment(&world, "small.toml", &SMALL.replace("epochs = 2", "epochs = 8"), "shared");
    let start = |shard: &'static str| {
        let mut command = fissfuse(&[&args[..], &["--shard", shard]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let printed: Vec<String> = ["1/3", "2/3", "3/3"]
        .map(start)
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .into();
    // Whichever ended last saw all; one that waits for nobody says nothing of others.
    assert!(printed.iter().any(|text| !text.contains("other processes'")), "{printed:?}");
    let rows = computed(&world, "shared");
    assert!(rows.as_array().unwrap()[..3].iter().all(|row| row["missing"] == json!([])), "{rows}");
}

#[test]
fn a_signal_ends_questions_and_answers_are_kept() {
    let world = World::encoded();
    let text = "title = 'Asked'\nseeds = [0]\nrows = [{ name = 'BERT', model.name = 'bert', train.epochs = 1 }]\n\
                rerank = [{ name = 'first', k = 3 }]\n";
    let server = Server::new([good("A"), good("A"), Act::Sleep(Duration::from_millis(700))]);
    let args = experiment(&world, "asked.toml", text, "asked");
    let args = [&args[..], &["--endpoint", server.url.clone().leak(), "--model", "m", "--concurrency", "1"]].concat();
    let mut child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while server.calls() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was asked to");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(said.contains("answers are kept in the journal; the same command goes on"), "{said}");
    let before = server.calls();
    assert!(before < 10, "{before} calls");
    let printed = succeed(&args);
    // Ten test mentions; one call was cut off by the server and made again.
    assert_eq!(server.calls(), 11);
    assert!(printed.contains("re-ranked") && !printed.contains("the others keep their ranking"), "{printed}");
}

#[test]
fn answers_that_do_not_count_are_said() {
    let world = World::encoded();
    let text = "title = 'Asked'\nseeds = [0]\nrows = [{ name = 'BERT', model.name = 'bert', train.epochs = 1 }]\n\
                rerank = [{ name = 'first', k = 3 }]\n";
    let server = Server::new(vec![good("none of them"); 4]);
    let args = experiment(&world, "asked.toml", text, "asked");
    let printed = succeed(
        &[&args[..], &["--endpoint", server.url.clone().leak(), "--model", "m", "--concurrency", "1"]].concat(),
    );
    assert!(printed.contains("count for 6 of 10 mentions; the others keep their ranking"), "{printed}");
    // Without a model, the table says what is missing.
    let printed = succeed(&experiment(&world, "asked.toml", text, "unasked"));
    assert!(printed.contains("BERT, first: no language model is given"), "{printed}");
}

#[test]
fn a_killed_experiment_goes_on_with_the_same_bits() {
    let text = SMALL.replace("epochs = 2", "epochs = 30") + "\n[[rows]]\nname = \"MIMIC\"\nmodel.name = \"mimic\"\n";
    let world = World::encoded();
    succeed(&experiment(&world, "small.toml", &text, "whole"));
    let args = experiment(&world, "small.toml", &text, "killed");
    let mut kills = 0;
    for wait in [120, 260, 500, 900] {
        let mut child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(wait) && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        kills += usize::from(child.kill().is_ok() && !child.wait().unwrap().success());
    }
    assert!(kills > 0);
    succeed(&args);
    assert_eq!(computed(&world, "killed"), computed(&world, "whole"));
    assert_eq!(outputs(&world, "killed"), outputs(&world, "whole"));
}

#[test]
fn a_trial_that_fails_is_a_hole_and_the_others_go_on() {
    let world = World::encoded();
    let text = SMALL.replace("seeds = [0, 1]", "seeds = [0]").replace(
        "name = \"GEMEL\"\nrun_file = true",
        "name = \"Too fast\"\nmodel.name = \"blink\"\ntrain.learning_rate = 1e30\ntrain.epochs = 8",
    );
    let args = experiment(&world, "fails.toml", &text, "fails");
    let output = run(&args);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 trials failed"));
    assert!(printed.contains("Too fast: seed 0: ") && printed.contains("seed 0 alone, so no spread"), "{printed}");
    let rows = computed(&world, "fails");
    assert!(rows[3]["metrics"].is_null() && rows[0]["metrics"]["MRR"]["mean"].is_f64(), "{rows}");
    assert!(rows[0]["metrics"]["MRR"]["deviation"].is_null());
    assert!(world.path("fails/too-fast/seed-0/failed.txt").exists());
}

#[test]
fn what_makes_no_sense_is_named_before_anything_starts() {
    let world = World::encoded();
    let wrong = SMALL
        .replace("model.name = \"bert\"", "model.name = \"bart\"")
        .replace("name = \"FissFuse\"\n\n", "name = \"FissFuse\"\nmodel.heads = 5\n\n")
        + "\n[[rows]]\nname = \"JMEL\"\nmodel.name = \"jmel\"\nmodel.heads = 2\n";
    let args = experiment(&world, "wrong.toml", &wrong, "wrong");
    let said = ["row `FissFuse`", "heads = 5", "there is no model `bart`", "row `JMEL`", "has no setting `heads`"];
    refuse(&args, &said);
    assert!(!world.path("wrong").exists());
    let unknown = experiment(&world, "unknown.toml", &SMALL.replace("[[rows]]", "[[row]]"), "wrong");
    refuse(&unknown, &["unknown.toml", "unknown field `row`"]);
    refuse(&["experiment", "mein", "--data", "d", "--features", "f", "--out", "o"], &["there are main, ablation"]);
    let args = experiment(&world, "small.toml", SMALL, "mine");
    refuse(&[&args[..], &["--run", "ALBEF=x"]].concat(), &["has no such name", "GEMEL"]);
    refuse(&[&args[..], &["--run", "GEMEL=x", "--run", "GEMEL=y"]].concat(), &["given twice"]);
    refuse(&[&args[..], &["--named-llm", "7b=x"]].concat(), &["has no such name; it has none"]);
    let misspelt = SMALL.replace("base.model.d", "base.model.dropuot = 0.1\nbase.model.d");
    refuse(&experiment(&world, "misspelt.toml", &misspelt, "wrong"), &["no setting `dropuot`", "dropout"]);
    let asks = SMALL.to_string() + "\n[[rerank]]\nname = \"K=2\"\nk = 2\n";
    let asks = experiment(&world, "asks.toml", &asks, "wrong");
    refuse(
        &[&asks[..], &["--llm", world.arg("nowhere")]].concat(),
        &["nowhere: cannot open: nothing is there", "a GGUF file or a Hugging Face directory"],
    );
    assert!(!world.path("wrong").exists());
    // A folder of another protocol, of changed settings, and of another dataset.
    succeed(&args);
    let other = SMALL.replace("base.model.d = 16", "base.model.d = 16\nbase.train.gold_missing = \"miss\"");
    refuse(&experiment(&world, "other.toml", &other, "mine"), &["another protocol", "choose another --out"]);
    let other = SMALL.replace("base.model.d = 16", "base.model.d = 8");
    refuse(&experiment(&world, "other.toml", &other, "mine"), &["result of other settings", "d was 16 and is now 8"]);
    // A ranking that was cut, and features that lack a mention.
    let run = world.path("mine/bert/learning-rate=0.01/seed-0/run.jsonl");
    let whole = fs::read_to_string(&run).unwrap();
    fs::write(&run, whole.lines().take(5).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    refuse(&args, &["run.jsonl: is not as it was written", "delete", "seed-0 to have it computed anew"]);
    fs::remove_file(&run).unwrap();
    refuse(&args, &["run.jsonl: is gone", "delete", "seed-0 to have it computed anew"]);
    fs::write(&run, whole).unwrap();
    succeed(&args);
    let valid = fs::read(world.path("data/valid.jsonl")).unwrap();
    fs::remove_file(world.path("data/valid.jsonl")).unwrap();
    let unvalidated = experiment(&world, "small.toml", SMALL, "unvalidated");
    refuse(&unvalidated, &["row `BERT` chooses from a grid", "no valid.jsonl"]);
    assert!(!world.path("unvalidated").exists());
    fs::write(world.path("data/valid.jsonl"), valid).unwrap();
    world.change_line("data/test.jsonl", 1, |mention| mention["gold"] = mention["candidates"][0].clone());
    refuse(&experiment(&world, "small.toml", SMALL, "mine"), &["another dataset, or on this one before"]);
}

#[test]
fn the_built_in_experiments_can_be_seen_and_changed() {
    let printed = succeed(&["experiment", "ablation", "--show"]);
    assert!(printed.contains("model.ablation = \"g\""), "{printed}");
}
