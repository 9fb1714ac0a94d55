//! Re-ranking within `fissfuse experiment`: a row of a language model's answers beside the rows that are trained.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use fissfuse::llama::{Precision, Preset, write_random};
use serde_json::{Value, json};

use crate::experiment::{computed, experiment, outputs, summary};
use crate::support::{World, fissfuse, run, succeed};

/// Two models, of which the first is re-ranked with every seed.
const ASKED: &str = r#"
title = "Asked"
paper = 2
seeds = [0, 1]
against = "FissFuse"
base.model.d = 16
base.train.epochs = 2
base.train.batch_size = 16
base.train.learning_rate = 1e-3

[[rows]]
name = "FissFuse"
model.name = "fissfuse"
model.ablation = "none"

[[rows]]
name = "BERT"
model.name = "bert"

[[rerank]]
name = "FissFuse+KAR"
of = "FissFuse"
k = 4
least_share = 0.0
"#;

/// Where the answers about a seed's ranking lie.
const ANSWERS: [&str; 2] = ["fissfuse/seed-0/rerank-fissfuse-kar", "fissfuse/seed-1/rerank-fissfuse-kar"];

fn write_llama(world: &World, seed: u64) {
    let texts = ["Which entity does the mention refer to? Answer with one letter: A, B, C or D.", "a red ball, a box"];
    write_random(&world.path("llama"), &Preset::Tiny.config(), Precision::F32, seed, texts.into_iter()).unwrap();
}

/// The experiment without a language model, and the flags that give it one, which goes through mention after mention.
fn asked(world: &World, out: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let args = [&experiment(world, "asked.toml", ASKED, out)[..], &["--beside", "WikiMEL"]].concat();
    (args, vec!["--llm", world.arg("llama"), "--batch-tokens", "1"])
}

fn copy_trials(world: &World, from: &str, to: &str) {
    for folder in ["fissfuse/seed-0", "fissfuse/seed-1", "bert/seed-0", "bert/seed-1", ""] {
        fs::create_dir_all(world.path(to).join(folder)).unwrap();
        for entry in fs::read_dir(world.path(from).join(folder)).unwrap().map(|entry| entry.unwrap()) {
            if entry.path().is_file() {
                fs::copy(entry.path(), world.path(to).join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
}

#[test]
fn a_row_is_re_ranked_with_every_seed_however_the_asking_is_cut_and_shared() {
    let world = World::encoded();
    write_llama(&world, 3);
    // Without a model the row is a hole, and all else is there.
    let (args, llm) = asked(&world, "unasked");
    let printed = succeed(&args);
    assert!(printed.contains("FissFuse+KAR: no language model is given: needs --llm DIR, or"), "{printed}");
    assert!(!printed.contains("re-ranked"), "{printed}");
    let hole = computed(&world, "unasked");
    let names: Vec<&str> = hole.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["FissFuse", "FissFuse+KAR", "BERT", "the lists' order", "chance"]);
    assert_eq!((&hole[1]["metrics"], &hole[1]["paper"]["MRR"]), (&Value::Null, &json!(92.02)));
    assert!(hole[2]["difference"]["p"].is_f64());

    copy_trials(&world, "unasked", "whole");
    let (args, _) = asked(&world, "whole");
    let whole = [&args[..], &llm].concat();
    let printed = succeed(&whole);
    assert!(printed.contains("FissFuse+KAR: the rankings of FissFuse, re-ranked by llama "), "{printed}");
    assert!(printed.contains("FissFuse, FissFuse+KAR, seed 1: ranks of the right entities before"), "{printed}");
    let rows = computed(&world, "whole");
    for (row, metrics) in [(0, "metrics"), (2, "metrics"), (2, "missing"), (1, "paper"), (0, "chosen")] {
        assert_eq!(rows[row][metrics], hole[row][metrics]);
    }
    // Holm's correction of two comparisons: the smaller p-value counts twice.
    let differences = [1, 2].map(|row| &rows[row]["difference"]);
    let p = differences.map(|difference| difference["p"].as_f64().unwrap());
    let corrected = differences.map(|difference| difference["corrected"].as_f64().unwrap());
    let smaller = usize::from(p[1] < p[0]);
    assert_eq!(corrected[smaller], (2.0 * p[smaller]).min(1.0));
    assert_eq!(rows[1]["missing"], json!([]));
    assert_eq!(rows[1]["reranked_by"][1], "FissFuse");

    // The same as each seed's ranking by itself, re-ranked and judged.
    let mut judged = Vec::new();
    for (seed, answers) in ANSWERS.iter().enumerate() {
        let ranking = world.arg(&format!("whole/fissfuse/seed-{seed}/run.jsonl"));
        let (data, out) = (["--data", world.arg("data"), "--ranking"], world.arg(&format!("alone-{seed}.jsonl")));
        let flags = [ranking, "--k", "4", "--least-share", "0", "--out", out];
        succeed(&[&["rerank"][..], &data, &flags, &llm].concat());
        let within = world.path("whole").join(answers).join("run.jsonl");
        assert!(fs::read(out).unwrap() == fs::read(&within).unwrap(), "{} is not {out}", within.display());
        let folder = format!("judged-{seed}");
        succeed(&[&["eval"][..], &data, &[out, "--out", world.arg(&folder)]].concat());
        let metrics = fs::read_to_string(world.path(&folder).join("metrics.json")).unwrap();
        judged.push(serde_json::from_str::<Value>(&metrics).unwrap()["run"]["metrics"].clone());
    }
    for metric in ["H@1", "H@2", "H@3", "MR", "MRR"] {
        let of = judged.iter().map(|metrics| metrics[metric].as_f64().unwrap());
        let mean = rows[1]["metrics"][metric]["mean"].as_f64().unwrap();
        // The mean of two numbers of f64, perhaps summed in another order.
        assert!((mean - of.sum::<f64>() / 2.0).abs() < 1e-12, "{metric}: {mean}, {judged:?}");
    }
    // The random model did change something, or the test would show nothing.
    assert_ne!(rows[1]["metrics"], rows[0]["metrics"]);
    // Again: nothing is asked, so nothing is written.
    let written =
        || ANSWERS.map(|a| fs::metadata(world.path("whole").join(a).join("run.jsonl")).unwrap().modified().unwrap());
    let before = written();
    succeed(&whole);
    assert_eq!((written(), &computed(&world, "whole")), (before, &rows));
    // Nor does it take the model to show what it answered.
    let (without, _) = asked(&world, "whole");
    succeed(&without);
    assert_eq!((written(), &computed(&world, "whole")), (before, &rows));

    // Killed when the first answers are in the journal.
    copy_trials(&world, "unasked", "killed");
    let (args, _) = asked(&world, "killed");
    let killed = [&args[..], &llm].concat();
    let mut child = fissfuse(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let journal = world.path("killed").join(ANSWERS[0]).join("run.jsonl.journal.jsonl");
    // A line says what is asked; the others are answers.
    while fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!world.path("killed").join(ANSWERS[1]).join("report.json").exists(), "it was killed too late");
    succeed(&killed);

    // Two of three processes have a seed each; the other one has neither.
    copy_trials(&world, "unasked", "shards");
    let (args, _) = asked(&world, "shards");
    let turn = |shard: &'static str| succeed(&[&args[..], &llm, &["--shard", shard]].concat());
    let printed = turn("2/3");
    assert!(printed.contains("2 re-rankings are other processes'"), "{printed}");
    let printed = turn("1/3");
    assert!(printed.contains("FissFuse+KAR: seed 1: another process is to ask"), "{printed}");
    assert!(!world.path("shards").join(ANSWERS[1]).exists());
    let printed = turn("3/3");
    assert!(!printed.contains("other processes'"), "{printed}");
    for other in ["killed", "shards"] {
        assert_eq!(computed(&world, other), rows, "{other}");
        assert_eq!(outputs(&world, other), outputs(&world, "whole"), "{other}");
    }

    // Answers of another model are not this one's: nothing is asked, and the table is not written over.
    let tables = || ["summary.json", "summary.txt"].map(|file| fs::read(world.path("whole").join(file)).unwrap());
    let refused = |whole: &[&str], says: &str| {
        let before = tables();
        let output = run(whole);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says) && said.contains("choose another --out"), "{said}");
        assert!(tables() == before && output.stdout.is_empty(), "{said}");
        assert!(!world.path("whole").join(ANSWERS[1]).exists());
        said
    };
    fs::remove_dir_all(world.path("whole").join(ANSWERS[1])).unwrap();
    fs::rename(world.path("llama"), world.path("first")).unwrap();
    write_llama(&world, 4);
    let another = "is of another language model, llama ";
    refused(&whole, another);
    // Nor are they those of the same model asked otherwise, ...
    fs::remove_dir_all(world.path("llama")).unwrap();
    fs::rename(world.path("first"), world.path("llama")).unwrap();
    let said = refused(&[&whole[..], &["--precision", "bf16"]].concat(), another);
    assert!(said.contains("(f32, chat), and not of llama ") && said.contains("(bf16, chat)"), "{said}");
    // ... or to other questions, whether a model is given or not.
    experiment(&world, "asked.toml", &ASKED.replace("k = 4", "k = 3"), "whole");
    refused(&whole, "is of other settings: k was 4 and is now 3; go back to those");
    refused(&without, "is of other settings: k was 4 and is now 3; go back to those");
    experiment(&world, "asked.toml", ASKED, "whole");
    succeed(&whole);
    assert_eq!(computed(&world, "whole"), rows);

    // Answers whose run file is gone are a hole where no model is given, and are made again by the one that is.
    let gone = world.path("whole").join(ANSWERS[1]).join("run.jsonl");
    let answers = fs::read(&gone).unwrap();
    // The same number of lines, in another order.
    let mut lines: Vec<&str> = std::str::from_utf8(&answers).unwrap().lines().collect();
    lines.reverse();
    let changed = lines.join("\n") + "\n";
    let other = "run.jsonl: is not as it was written";
    for (broken, says) in
        [(None, "run.jsonl: is gone, though its report is there"), (Some("x"), other), (Some(changed.as_str()), other)]
    {
        fs::remove_file(&gone).unwrap();
        broken.iter().for_each(|broken| fs::write(&gone, broken).unwrap());
        let output = run(&without);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{printed}");
        assert!(printed.contains("FissFuse+KAR: seed 1: ") && printed.contains(says), "{printed}");
        assert!(computed(&world, "whole")[1]["metrics"]["MRR"]["mean"].is_f64(), "{printed}");
        if broken.is_some() {
            fs::remove_file(&gone).unwrap();
        }
        // Not by a process whose part it is not.
        let printed = succeed(&[&whole[..], &["--shard", "2/3"]].concat());
        assert!(printed.contains("1 re-rankings are other processes'"), "{printed}");
        succeed(&whole);
        assert!(fs::read(&gone).unwrap() == answers && computed(&world, "whole") == rows, "{says}");
    }
}

#[test]
fn a_row_whose_model_fails_says_so_and_the_others_are_there() {
    let world = World::encoded();
    write_llama(&world, 3);
    fs::remove_file(world.path("llama/tokenizer.json")).unwrap();
    let (args, llm) = asked(&world, "fails");
    let output = run(&[&args[..], &llm].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 re-rankings failed"), "{printed}");
    assert!(printed.contains("FissFuse+KAR: ") && printed.contains("tokenizer.json"), "{printed}");
    let all = summary(&world, "fails");
    assert!(all["rows"][1]["metrics"].is_null() && all["rows"][0]["metrics"]["MRR"]["mean"].is_f64(), "{all}");
    assert_eq!(all["reranked"].as_array().unwrap().len(), 2);
}

#[test]
fn a_question_whose_evidence_is_fused_moves_nothing_where_the_model_knows_nothing() {
    let world = World::new();
    let valid: Vec<Value> = (0..40).map(|i| World::mention("valid", i)).collect();
    world.write_lines("data/valid.jsonl", &valid);
    succeed(&world.encode());
    write_llama(&world, 3);
    let fused = ASKED.replace("seeds = [0, 1]", "seeds = [0]").replace("k = 4", "k = 6\nfuse = true");
    let args = experiment(&world, "fused.toml", &fused, "fused");
    let llm = ["--llm", world.arg("llama"), "--batch-tokens", "1"];
    let all = [&args[..], &llm].concat();
    let printed = succeed(&all);
    assert!(printed.contains("FissFuse, FissFuse+KAR, seed 0: the model counts 0, and nothing moves: "), "{printed}");
    let rows = computed(&world, "fused");
    assert_eq!(rows[0]["metrics"], rows[1]["metrics"]);
    let answers = world.path("fused").join(ANSWERS[0]);
    let report: Value = serde_json::from_str(&fs::read_to_string(answers.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["fusion"]["mentions"], &report["fusion"]["weights"]["model"]), (&json!(40), &json!(0.0)));

    // The same as the command by itself.
    let trial = |name: &str| world.arg(&format!("fused/fissfuse/seed-0/{name}"));
    let (data, out) = (["--data", world.arg("data"), "--ranking", trial("run.jsonl")], world.arg("alone.jsonl"));
    let flags = ["--fuse", trial("run-valid.jsonl"), "--k", "6", "--least-share", "0", "--out", out];
    let report = ["--report", world.arg("alone.json")];
    succeed(&[&["rerank"][..], &data, &flags, &report, &llm].concat());
    assert!(fs::read(out).unwrap() == fs::read(answers.join("run.jsonl")).unwrap(), "other rankings");
    let alone: Value = serde_json::from_str(&fs::read_to_string(report[1]).unwrap()).unwrap();
    let kept = fs::read_to_string(answers.join("report.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(alone["fusion"]["likelihood"], kept["fusion"]["likelihood"]);

    // Again nothing is asked; without `fuse` it is another question.
    let before = fs::metadata(answers.join("run.jsonl")).unwrap().modified().unwrap();
    succeed(&all);
    assert_eq!(fs::metadata(answers.join("run.jsonl")).unwrap().modified().unwrap(), before);
    experiment(&world, "fused.toml", &fused.replace("fuse = true\n", "scoring = \"logits\"\n"), "fused");
    let output = run(&all);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("fuse was true and is now false"), "{said}");

    // Weights need mentions of their own to be fitted on.
    experiment(&world, "fused.toml", &fused, "unfitted");
    fs::remove_file(world.path("data/valid.jsonl")).unwrap();
    let args = experiment(&world, "fused.toml", &fused, "unfitted");
    let printed = String::from_utf8_lossy(&run(&[&args[..], &llm].concat()).stdout).into_owned();
    assert!(printed.contains("no valid.jsonl, on whose mentions the weights of `fuse` are fitted"), "{printed}");
}
