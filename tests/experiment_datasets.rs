//! `fissfuse experiment` over several datasets: one table, each dataset as it would be by itself.

use std::fs;

use serde_json::{Value, json};

use crate::experiment::{computed, experiment, outputs, summary};
use crate::modalities::without_images;
use crate::support::{World, refuse, succeed};

/// A model that reads images and one that does not, and a row that is given.
const ROWS: &str = r#"
title = "Two datasets"
seeds = [0, 1]
against = "BERT"
base.model.d = 16
base.train.batch_size = 16
base.train.learning_rate = 1e-3

[[rows]]
name = "FissFuse"
model.name = "fissfuse"

[[rows]]
name = "BERT"
model.name = "bert"
grid = { "train.learning_rate" = [1e-3, 1e-2] }

[[rows]]
name = "BLINK"
model.name = "blink"

[[rows]]
name = "GEMEL"
run_file = true
"#;

/// A dataset with images and one without, encoded, in two worlds; configurations of one epoch and of two.
fn worlds() -> (World, World) {
    let (colours, plain) = (World::encoded(), without_images());
    let mut encode = plain.encode();
    let at = encode.iter().position(|argument| *argument == "--encoder").unwrap();
    encode[at] = "--text-encoder";
    succeed(&encode);
    for (epochs, name) in [(1, "one.toml"), (2, "two.toml")] {
        fs::write(colours.path(name), format!("[train]\nepochs = {epochs}\n")).unwrap();
    }
    (colours, plain)
}

/// `NAME=DIR,FEATURES` of a world.
fn dataset(name: &str, world: &World, more: &str) -> &'static str {
    format!("{name}={},{}{more}", world.arg("data"), world.arg("features")).leak()
}

/// The experiment without a dataset, into a folder of the first world.
fn bare(world: &World, text: &str, out: &str) -> Vec<&'static str> {
    fs::write(world.path("rows.toml"), text).unwrap();
    vec!["experiment", world.arg("rows.toml"), "--out", world.arg(out), "--config", world.arg("two.toml")]
}

#[test]
fn one_table_has_each_dataset_as_it_is_by_itself() {
    let (colours, plain) = worlds();
    let of_colours = dataset("Colours", &colours, "");
    let of_plain = dataset("Plain text", &plain, &format!(",{}", colours.arg("one.toml")));
    let both = ["--dataset", of_colours, "--dataset", of_plain];
    let args = [&bare(&colours, ROWS, "both")[..], &both].concat();
    let printed = succeed(&args);
    for part in [
        "Two datasets\nthe gold entity in every list; seeds 0, 1: mean ± standard deviation\n",
        "\nColours: Two datasets\n10 test mentions",
        "\nPlain text: Two datasets\n10 test mentions",
        "FissFuse: it reads images, and the features are without",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let header = printed.lines().find(|line| line.contains("Plain text")).unwrap();
    assert!(header.contains("Colours") && header.contains("average"), "{printed}");

    // By itself, a dataset has the same rows, and the same bits in the same layout.
    let alone = |world: &World, out: &str, config: &str| {
        let data = ["--config", colours.arg(config)];
        succeed(&[&experiment(world, "rows.toml", ROWS, out)[..], &data].concat());
    };
    alone(&colours, "alone", "two.toml");
    alone(&plain, "alone", "one.toml");
    let all = summary(&colours, "both");
    for (at, world, folder) in [(0, &colours, "both/colours"), (1, &plain, "both/plain-text")] {
        let rows = &all["datasets"][at]["summary"]["rows"];
        assert_eq!(rows, &computed(world, "alone"), "{folder}");
        assert_eq!(rows, &computed(&colours, folder), "{folder}");
        assert_eq!(outputs(&colours, folder), outputs(world, "alone"), "{folder}");
        let result =
            fs::read_to_string(colours.path(folder).join("bert/learning-rate=0.01/seed-0/result.json")).unwrap();
        let result: Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["train"]["epochs"], json!(2 - at), "{folder}");
    }
    // The average is over rows that both datasets have.
    let names: Vec<&str> = all["average"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["BERT", "BLINK", "the lists' order", "chance"]);
    let mean = |at: usize| all["datasets"][at]["summary"]["rows"][2]["metrics"]["H@1"]["mean"].as_f64().unwrap();
    assert_eq!(all["average"][1]["H@1"].as_f64().unwrap(), (mean(0) + mean(1)) / 2.0);

    // A run file is of a dataset and a row.
    let run = format!("GEMEL@Plain text={}", colours.path("both/plain-text/blink/seed-0/run.jsonl").display()).leak();
    succeed(&[&args[..], &["--run", run]].concat());
    let all = summary(&colours, "both");
    let metrics = |at: usize| &all["datasets"][at]["summary"]["rows"][3]["metrics"];
    assert!(metrics(0).is_null() && metrics(1)["MRR"]["mean"].is_f64(), "{all}");

    // The same datasets from the experiment's file, by processes that share the folder.
    let lists = [("Colours", &colours, String::new()), ("Plain text", &plain, colours.arg("one.toml").to_string())]
        .map(|(name, world, config)| {
            let config = if config.is_empty() { config } else { format!("config = '{config}'\n") };
            let (data, features) = (world.arg("data"), world.arg("features"));
            format!("[[dataset]]\nname = '{name}'\ndata = '{data}'\nfeatures = '{features}'\n{config}")
        });
    let shared = bare(&colours, &(ROWS.to_string() + &lists.concat()), "shared");
    let turn = |shard: &'static str| succeed(&[&shared[..], &["--shard", shard]].concat());
    assert!(turn("1/2").contains("trials are other processes'"));
    turn("2/2");
    assert!(!turn("1/2").contains("other processes'"));
    for folder in ["colours", "plain-text"] {
        let [one, other] = ["both", "shared"].map(|out| outputs(&colours, &format!("{out}/{folder}")));
        assert_eq!(one, other, "{folder}");
    }
    assert_eq!(summary(&colours, "shared")["average"], all["average"]);

    // A folder is of one dataset or of several.
    let one = experiment(&colours, "rows.toml", ROWS, "both");
    refuse(&one, &["over several datasets", "choose another --out"]);
    refuse(&[&bare(&colours, ROWS, "alone")[..], &both].concat(), &["on one dataset and not several"]);
    // Another dataset under a name that has its trials.
    let other = ["--dataset", dataset("Colours", &plain, "")];
    refuse(&[&bare(&colours, ROWS, "both")[..], &other].concat(), &["colours", "on another dataset"]);
}

#[test]
fn datasets_that_make_no_table_are_named_before_anything_starts() {
    let (colours, plain) = worlds();
    let (of_colours, of_plain) = (dataset("Colours", &colours, ""), dataset("Plain", &plain, ""));
    let args = |datasets: &[&'static str], more: &[&'static str]| {
        let datasets: Vec<&str> = datasets.iter().flat_map(|dataset| ["--dataset", *dataset]).collect();
        [&bare(&colours, ROWS, "wrong")[..], &datasets, more].concat()
    };
    refuse(&args(&[], &[]), &["no dataset is given", "--dataset NAME=DIR,FEATURES"]);
    refuse(&args(&[of_colours, dataset("colours", &plain, "")], &[]), &["two datasets are called `colours`"]);
    refuse(&args(&[dataset("summary.json", &plain, "")], &[]), &["`summary.json` is that of a file"]);
    refuse(&args(&[of_colours, of_plain], &["--beside", "WikiMEL"]), &["--beside is for one dataset"]);
    let run = ["--run", "GEMEL=x"];
    refuse(&args(&[of_colours, of_plain], &run), &["has no such name; it has GEMEL@Colours, GEMEL@Plain"]);
    // Features of another dataset, and a dataset that is not there.
    let other = World::new();
    other.change_line("data/test.jsonl", 2, |mention| mention["sentence"] = json!("Nobody encoded this."));
    let mixed: &'static str = format!("Mixed={},{}", other.arg("data"), colours.arg("features")).leak();
    refuse(&args(&[of_plain, mixed], &[]), &["dataset `Mixed`"]);
    let nowhere: &'static str = format!("Nowhere={},{}", colours.arg("nowhere"), plain.arg("features")).leak();
    refuse(&args(&[of_plain, nowhere], &[]), &["dataset `Nowhere`", "nowhere"]);
    // Settings that one dataset's configuration breaks.
    fs::write(colours.path("bad.toml"), "[train]\nbatch = 3\n").unwrap();
    let bad = dataset("Plain", &plain, &format!(",{}", colours.arg("bad.toml")));
    refuse(&args(&[of_colours, bad], &[]), &["dataset `Plain`", "batch"]);
    // Two protocols: by the settings alone, and by the lists that they leave.
    fs::write(colours.path("miss.toml"), "[train]\ngold_missing = \"miss\"\n").unwrap();
    let missing = dataset("Plain", &plain, &format!(",{}", colours.arg("miss.toml")));
    let protocols = ["`Colours` and `Plain` are of different protocols", "gold_missing drop", "gold_missing miss"];
    refuse(&args(&[of_colours, missing], &[]), &protocols);
    plain.change_line("data/test.jsonl", 1, |mention| {
        let gold = mention["gold"].clone();
        mention["candidates"].as_array_mut().unwrap().retain(|candidate| *candidate != gold);
    });
    let protocols = ["of different protocols", "the gold entity in every list", "lists as retrieved"];
    refuse(&args(&[of_colours, missing], &[]), &protocols);
    assert!(!colours.path("wrong").exists());
    // The file's datasets and the flag's.
    let listed = format!("{ROWS}[[dataset]]\nname = 'A'\ndata = 'd'\nfeatures = 'f'\n");
    let both = [&bare(&colours, &listed, "wrong")[..], &["--dataset", of_colours]].concat();
    refuse(&both, &["[[dataset]]", "so does --dataset"]);
    let data = ["--data", colours.arg("data"), "--features", colours.arg("features")];
    refuse(&[&bare(&colours, &listed, "wrong")[..], &data].concat(), &["[[dataset]]", "so does --data"]);
    assert!(!colours.path("wrong").exists());
}
