//! What is refused says what to give instead, names the line where there is one, and leaves nothing behind.

use std::fs;
use std::ops::Range;

use serde_json::{Value, json};

use crate::support::{World, refuse, refused, replace, run, succeed};

#[test]
fn what_is_refused_leaves_no_folder() {
    let world = World::encoded();
    let train = replace(world.train(), "--out", world.arg("runs/model"));
    let with = |flag: &'static str, value: &'static str| match train.contains(&flag) {
        true => replace(train.clone(), flag, value),
        false => [&train[..], &[flag, value]].concat(),
    };
    for (flag, value, says) in [
        ("--epochs", "0", "epochs = 0: must be at least 1"),
        ("--batch-size", "0", "batch_size = 0: must be at least 1"),
        ("--share", "0", "share = 0 is not in (0, 1]"),
        ("--learning-rate", "-1", "learning_rate = -1 is no number above 0"),
        ("--learning-rate", "inf", "learning_rate = inf is no number above 0"),
        ("--weight-decay", "-0.5", "weight_decay = -0.5 is no number of at least 0"),
        ("--dropout", "-0.1", "dropout = -0.1"),
    ] {
        refuse(&with(flag, value), &[says]);
        assert!(!world.path("runs").exists(), "{flag} {value}");
    }
    // What is found out only once the folder is taken.
    let mut mentions = world.read_lines("data/train.jsonl");
    for mention in &mut mentions {
        let gold = mention["gold"].clone();
        mention["candidates"].as_array_mut().unwrap().retain(|candidate| *candidate != gold);
    }
    world.write_lines("data/train.jsonl", &mentions);
    refuse(&train, &["no training mention has its gold entity among its candidates"]);
    assert!(!world.path("runs").exists());
    refuse(&["doctor", "--json", world.arg("data")], &["data: is a folder; name a file in it"]);
}

#[test]
fn a_learning_rate_that_is_too_high_is_named() {
    let world = World::encoded();
    let output = run(&[&replace(world.train(), "--learning-rate", "1e20")[..], &["--epochs", "2"]].concat());
    refused(&output, &["train.learning_rate"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("features hold"));
}

#[test]
fn what_is_not_there_is_said_with_what_to_give_instead() {
    let world = World::trained();
    let eval = world.eval("missing");
    for (flag, name, says) in [
        (
            "--model",
            "nosuch",
            "nosuch: cannot read: nothing is there; a model is the folder of a run of `fissfuse train`",
        ),
        ("--model", "encoder", "best.safetensors: cannot read: nothing is there; a model is the folder of a run"),
        ("--features", "nosuch", "make a feature store with `fissfuse encode`"),
        ("--data", "nosuch", "nosuch: is no dataset"),
    ] {
        refuse(&replace(eval.clone(), flag, world.arg(name)), &[says]);
    }
    // What the model lacks is said before the folder that is not named either.
    let at = eval.iter().position(|arg| *arg == "--out").unwrap();
    let without_out = [&eval[..at], &eval[at + 2..]].concat();
    refuse(&replace(without_out.clone(), "--model", world.arg("encoder")), &["best.safetensors: cannot read"]);
    let output = run(&without_out);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--out <DIR> is missing"));
    let other = world.copy();
    fs::remove_file(other.path("data/test.jsonl")).unwrap();
    refuse(&other.eval("missing"), &["test.jsonl: cannot read: nothing is there", "the dataset has train and valid"]);
    let nowhere = world.arg("nowhere");
    let train = [&replace(world.train(), "--out", world.arg("missing"))[..], &["--config", nowhere]].concat();
    refuse(&train, &["nowhere: cannot read: nothing is there; a configuration is a TOML file"]);
    refuse(&["eval", "--data", world.arg("data"), "--ranking", nowhere], &["run files are written by `fissfuse eval`"]);
    refuse(&[&world.link()[..], &["--input", nowhere]].concat(), &["--input is a file of mentions"]);
    assert!(!world.path("missing").exists());
}

/// Whatever else is read of a mention, an empty list or a missing right entity is the record's fault.
#[test]
fn a_mention_that_cannot_be_ranked_is_named_with_its_line_or_skipped() {
    let world = World::trained().copy();
    let miss = [&world.eval("ranked")[..], &["--gold-missing", "miss"]].concat();
    let skipped = |args: &[&'static str], says: &str, left: &str| {
        let output = run(&[args, &["--skip-bad"]].concat());
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && printed.contains(left), "{printed}{errors}");
        assert!(errors.contains("left out 1 bad") && errors.contains(says), "{errors}");
    };
    let good = world.read_lines("data/test.jsonl");
    for (field, value, says) in [
        (
            "candidates",
            json!(null),
            "test.jsonl:3: mention `test-2`: has no candidates; `fissfuse candidates` finds them",
        ),
        ("candidates", json!([]), "test.jsonl:3: mention `test-2`: has an empty list of candidates"),
        ("gold", json!(null), "test.jsonl:3: mention `test-2`: has no `gold`, which training and evaluation need"),
    ] {
        world.write_lines("data/test.jsonl", &good);
        world.change_line("data/test.jsonl", 3, |mention| mention[field] = value);
        refuse(&miss, &[says]);
        skipped(&miss, says, "9 mentions of test");
    }
    // The whole knowledge base is ranked without lists.
    let whole = [&world.eval("ranked")[..], &["--protocol", "whole-kb"]].concat();
    skipped(&whole, "test.jsonl:3: mention `test-2`: has no `gold`", "9 mentions of test");
    // An empty list lacks its gold entity, as any other may; one that is not there was never made, and is no record's loss.
    let (dropped, none) = (world.eval("ranked"), [&world.eval("ranked")[..], &["--skip-bad"]].concat());
    let lists = |list: &Value, of: Range<usize>| {
        let mut mentions = good.clone();
        mentions[of].iter_mut().for_each(|mention| mention["candidates"] = list.clone());
        world.write_lines("data/test.jsonl", &mentions);
    };
    lists(&json!([]), 2..3);
    let printed = succeed(&dropped);
    assert!(printed.contains("9 mentions of test"), "{printed}");
    lists(&json!(null), 2..3);
    refuse(&dropped, &["test.jsonl:3: mention `test-2`: has no candidates; `fissfuse candidates` finds them"]);
    lists(&json!(null), 0..good.len());
    refuse(&none, &["holds no mention that can be ranked", "in line 1, mention `test-0`: has no candidates"]);
    lists(&json!([]), 0..good.len());
    refuse(&none, &["gold"]);
    let training = "data/train.jsonl";
    world.change_line(training, 5, |mention| mention["candidates"] = json!([]));
    let train = replace(world.train(), "--out", world.arg("another"));
    let train = [&train[..], &["--gold-missing", "miss", "--epochs", "1"]].concat();
    let says = "train.jsonl:5: mention `train-4`: has an empty list of candidates";
    refuse(&train, &[says]);
    skipped(&train, says, "epoch   1/1");
}

#[test]
fn a_line_to_link_that_is_no_mention_is_told_what_one_is() {
    let world = World::trained();
    let lines = "[]\nnull\n[\"a\", \"b\", \"c\", null, [], null]\n{\"mention_id\": \"a\"}\n";
    fs::write(world.path("no-mentions.jsonl"), lines).unwrap();
    let link = [&world.link()[..], &["--input", world.arg("no-mentions.jsonl")]].concat();
    let form = "a line is {\"mention_id\", \"mention\", \"sentence\", \"image\"?, \"candidates\"?: [qid, ...]}";
    refuse(&link, &["no-mentions.jsonl:1: is no valid record: it is a list, and no object; ", form]);
    let output = run(&[&link[..], &["--skip-bad"]].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let says = ["it is a list, and", "it is null, and", "it is a list, and", "missing field `mention`"];
    assert_eq!(answers.len(), says.len());
    for (answer, says) in answers.iter().zip(says) {
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(says) && error.contains(form) && !error.contains("struct"), "{error}");
    }
}

#[test]
fn settings_of_an_encoder_that_is_not_trained_are_said_to_have_no_effect() {
    let world = World::encoded();
    let train = |text: &str| {
        fs::write(world.path("c.toml"), text).unwrap();
        let train = [&world.train()[..], &["--epochs", "1", "--config", world.arg("c.toml")]].concat();
        let output = run(&train);
        let _ = fs::remove_dir_all(world.path("model"));
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for setting in ["lora_rank = 4", "gradient_checkpointing = true", "chunk = 8", "dropout = 0.1"] {
        let said = train(&format!("[encoder]\n{setting}\n"));
        assert!(said.contains("c.toml: [encoder] has no effect with --features"), "{setting}: {said}");
    }
    let said = train("[encoder]\nlora_rank = 0\n[train]\nseed = 3\n");
    assert!(!said.contains("has no effect"), "{said}");
}
