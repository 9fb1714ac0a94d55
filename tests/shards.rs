//! Parts of a command's work (`--shard`), and joining them (`merge`): what is joined is what one run writes, to the byte.

use std::fs;
use std::path::Path;

use fissfuse::model::{EntityIndex, Modality, Model, ModelConfig, PreparedSide, Scorer, Side, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::{Element, FeatureRows, Indices, Ragged, Textbook};
use serde_json::{Value, json};

use crate::support::{ENTITIES, World, fissfuse, fissfuse_bench, half_written, refuse, refused, replace, run, succeed};

/// Runs a command in so many parts, and joins them.
fn in_parts(command: &[&str], out: &str, parts: usize, merge: &[&str]) -> String {
    for i in 1..=parts {
        let shard = format!("{i}/{parts}");
        succeed(&[command, &["--out", out, "--shard", &shard]].concat());
    }
    succeed(&[&["merge", out][..], merge].concat())
}

/// The arguments without --out and its value.
fn without_out(args: &[&'static str]) -> Vec<&'static str> {
    let at = args.iter().position(|arg| *arg == "--out").unwrap();
    [&args[..at], &args[at + 2..]].concat()
}

/// Files of a folder and their bytes, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().to_str().unwrap().to_string(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_side_is_prepared_with_the_same_bits_whatever_it_is_prepared_with() {
    let shape = Shape { mentions: 1, candidates: 1, mean_tokens: 6, max_tokens: 12, patches: 5 };
    for (d, heads) in [(16, 1), (96, 4), (100, 2)] {
        let widths = Widths::default();
        let model = Model::new(ModelConfig { widths, d, heads, ..ModelConfig::default() }, 5).unwrap();
        let (n, entity) = (70, shape.side(70, widths, 5, 1).unwrap());
        let mention = PreparedSide::new(&model, &shape.side(1, widths, 5, 0).unwrap()).unwrap();
        let scorer = Scorer::new(&model).unwrap();
        let kinds = scorer.kinds().len();
        let scores = |from: usize, to: usize| -> Vec<Vec<u32>> {
            let mut index = EntityIndex::new(&scorer, Element::F32);
            index.add(&PreparedSide::new(&model, &items(&entity, from, to)).unwrap(), to - from).unwrap();
            let all: Vec<u32> = (0..(to - from) as u32).collect();
            let scores = scorer.score(mention.mention(0), &index, &all).unwrap();
            let of = |e: usize| (0..kinds).map(|k| scores[k * (to - from) + e].to_bits()).collect();
            (0..to - from).map(of).collect()
        };
        let whole = scores(0, n);
        for (from, to) in [(0, 1), (5, 6), (3, 5), (0, 3), (7, 12), (10, 26), (0, 33), (1, 70), (69, 70)] {
            assert!(scores(from, to) == whole[from..to], "d {d}, {heads} heads, {from} to {to}");
        }
    }
}

/// Some items of a side.
fn items(side: &Side, from: usize, to: usize) -> Side {
    let modality = |m: &Modality| {
        let lengths: Vec<usize> = (0..m.sequences.len()).map(|i| m.sequences.range(i).len()).collect();
        let start: usize = lengths[..from].iter().sum();
        let rows: usize = lengths[from..to].iter().sum();
        let numbers = |from: usize, n: usize| (from as u32..(from + n) as u32).collect::<Indices>();
        let textbook = Textbook { sequences: to - from, length: 64 };
        Modality {
            tokens: FeatureRows::new(m.tokens.stored().unwrap().table.clone(), numbers(start, rows)).into(),
            sequences: Ragged::new(lengths[from..to].iter().copied(), textbook).unwrap(),
            global: FeatureRows::new(m.global.stored().unwrap().table.clone(), numbers(from, to - from)).into(),
        }
    };
    Side { text: modality(&side.text), image: modality(&side.image) }
}

#[test]
fn a_store_that_is_encoded_in_parts_is_the_store_of_one_run() {
    let world = World::encoded();
    let encode = without_out(&world.encode());
    for parts in [1, 3] {
        let (out, joined) = (world.arg("parts").to_string() + &parts.to_string(), format!("joined-{parts}"));
        let printed = in_parts(&encode, &out, parts, &["--out", world.arg(&joined)]);
        assert!(printed.contains(&format!("of {parts} parts")), "{printed}");
        assert!(files(&world.path(&joined)) == files(&world.path("features")), "{parts} parts");
        assert!(half_written(&world.path("")).is_empty());
    }
    // A part that was made goes on where it stopped, which is at its end.
    let again = succeed(&[&encode[..], &["--out", world.arg("parts3"), "--shard", "2/3"]].concat());
    assert!(again.contains("encoded 0 texts and 0 images"), "{again}");
    refuse(&["merge", world.arg("parts3"), "--out", world.arg("joined-3")], &["joined-3", "exists already"]);
    // Texts alone.
    let texts = [&encode[..], &["--modalities", "text"]].concat();
    succeed(&[&texts[..], &["--out", world.arg("texts")]].concat());
    in_parts(&texts, world.arg("text-parts"), 2, &["--out", world.arg("joined-texts")]);
    assert!(files(&world.path("joined-texts")) == files(&world.path("texts")));
    // More parts than there are images.
    assert_eq!(ENTITIES, 12);
    in_parts(&encode, world.arg("many"), 17, &["--out", world.arg("joined-many")]);
    assert!(files(&world.path("joined-many")) == files(&world.path("features")));
}

#[test]
fn an_image_that_cannot_be_read_has_its_stand_in_in_whatever_part() {
    let world = World::new();
    let image = fs::read(world.path("data/images/blue-box.png")).unwrap();
    fs::write(world.path("data/images/blue-box.png"), "no image").unwrap();
    let encode = [&without_out(&world.encode())[..], &["--skip-bad"]].concat();
    succeed(&[&encode[..], &["--out", world.arg("whole")]].concat());
    in_parts(&encode, world.arg("parts"), 3, &["--out", world.arg("joined")]);
    assert!(files(&world.path("joined")) == files(&world.path("whole")));
    // It is there at last: the parts have it behind its stand-in, and the joined store has it alone.
    fs::write(world.path("data/images/blue-box.png"), image).unwrap();
    succeed(&[&encode[..], &["--out", world.arg("repaired")]].concat());
    in_parts(&encode, world.arg("parts"), 3, &["--out", world.arg("joined-again")]);
    let losses = |features: &'static str| {
        let args = replace(replace(world.train(), "--features", world.arg(features)), "--out", world.arg("run"));
        succeed(&[&args[..], &["--epochs", "1"]].concat());
        let record = world.read_lines("run/train.jsonl").remove(0);
        fs::remove_dir_all(world.path("run")).unwrap();
        record["losses"].clone()
    };
    assert_eq!(losses("joined-again"), losses("repaired"));
    assert_ne!(losses("joined"), losses("repaired"));
}

#[test]
fn lines_that_are_linked_in_parts_have_the_answers_of_one_run() {
    let world = World::trained();
    let mut mentions: Vec<Value> = (0..11).map(|i| World::mention("test", i)).collect();
    for (i, mention) in mentions.iter_mut().enumerate() {
        let object = mention.as_object_mut().unwrap();
        // With lists, without, and of an entity alone; with an image that is not there.
        match i % 4 {
            0 => drop(object.remove("candidates")),
            1 => drop(object.insert("candidates".into(), json!([object["gold"]]))),
            _ => {}
        }
        if i == 6 {
            object.insert("image".into(), json!("images/none.png"));
        }
    }
    let lines: Vec<String> = mentions.iter().map(|mention| format!("{mention}\n")).collect();
    fs::write(world.path("sharded.jsonl"), lines.concat().replacen('\n', "\n\n  \n", 3) + "{}\n").unwrap();
    let input = ["--input", world.arg("sharded.jsonl")];
    for more in
        [&["--skip-bad"][..], &["--skip-bad", "--batch", "3", "--top", "2"], &["--skip-bad", "--shortlist", "12"]]
    {
        let link = [&world.link()[..], more].concat();
        let whole = succeed(&[&link[..], &input].concat());
        assert_eq!(whole.lines().count(), 12);
        for parts in [1, 3] {
            let (out, joined) =
                (format!("linked-{}-{parts}", more.len()), format!("linked-{}-{parts}.jsonl", more.len()));
            let printed =
                in_parts(&[&link[..], &input].concat(), world.arg(&out), parts, &["--out", world.arg(&joined)]);
            assert!(printed.contains(&format!("12 lines of {parts} parts")), "{printed}");
            assert_eq!(fs::read_to_string(world.path(&joined)).unwrap(), whole, "{more:?} {parts}");
        }
    }
    // Standard input, which is read to its end before the first line is answered.
    let link = [&world.link()[..], &["--skip-bad"]].concat();
    for shard in ["1/2", "2/2"] {
        let mut command = fissfuse(&[&link[..], &["--out", world.arg("piped"), "--shard", shard]].concat());
        let output = command.stdin(fs::File::open(world.path("sharded.jsonl")).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    succeed(&["merge", world.arg("piped"), "--out", world.arg("piped.jsonl")]);
    let mut command = fissfuse(&link);
    let output = command.stdin(fs::File::open(world.path("sharded.jsonl")).unwrap()).output().unwrap();
    assert!(output.stdout == fs::read(world.path("piped.jsonl")).unwrap());
    // Without --skip-bad, a bad line ends its part, which is not finished then.
    let strict = [&world.link()[..], &input, &["--out", world.arg("strict")]].concat();
    refuse(&[&strict[..], &["--shard", "2/2"]].concat(), &["none.png"]);
    refuse(
        &["merge", world.arg("strict"), "--out", world.arg("x")],
        &["part-2-of-2", "not finished; run its task again"],
    );
    assert!(!world.path("x").exists() && !world.path("strict/part-2-of-2/answers.jsonl").exists());
    // Where to, must be said; and where to is a folder of parts.
    refuse(&[&world.link()[..], &["--shard", "1/2"]].concat(), &["add --out DIR"]);
    assert_eq!(run(&[&world.link()[..], &["--out", world.arg("y")]].concat()).status.code(), Some(2));
}

#[test]
fn an_evaluation_in_parts_has_the_metrics_and_rankings_of_one_run() {
    let world = World::trained();
    let kinds: [(&str, &[&str]); 4] = [
        ("lists", &[]),
        ("missing", &["--gold-missing", "miss", "--seed", "3", "--split", "valid"]),
        ("whole", &["--protocol", "whole-kb", "--top", "3"]),
        ("shortlist", &["--protocol", "whole-kb", "--shortlist", "6", "--min-recall", "0", "--recall-mentions", "4"]),
    ];
    for (name, more) in kinds {
        let whole = format!("sharded-{name}");
        let printed = succeed(&[&world.eval(&whole)[..], more].concat());
        for parts in [2, 11] {
            let (out, joined) = (format!("sharded-{name}-{parts}"), format!("sharded-{name}-{parts}-joined"));
            let eval = [&without_out(&world.eval(&whole))[..], more].concat();
            let merged = in_parts(&eval, world.arg(&out), parts, &["--out", world.arg(&joined)]);
            assert!(files(&world.path(&joined)) == files(&world.path(&whole)), "{name} {parts}");
            // The same is printed, but for where it lies and what each part says of its first stage.
            let table = |text: &str| {
                let lines = text.lines().filter(|line| !line.starts_with("wrote ") && !line.starts_with("a list of "));
                lines.map(str::to_string).collect::<Vec<_>>()
            };
            assert_eq!(table(&merged), table(&printed), "{name}");
        }
    }
    assert_eq!(
        run(&[
            "eval",
            "--data",
            world.arg("data"),
            "--ranking",
            world.arg("sharded-lists/run.jsonl"),
            "--shard",
            "1/2"
        ])
        .status
        .code(),
        Some(2)
    );
}

#[test]
fn other_numbers_of_threads_are_noted_and_change_nothing_else() {
    let world = World::trained();
    let eval = without_out(&world.eval("threads-whole"));
    succeed(&[&eval[..], &["--out", world.arg("threads-whole")]].concat());
    for (shard, threads) in [("1/2", "1"), ("2/2", "2")] {
        succeed(&[&["--threads", threads][..], &eval, &["--out", world.arg("threads"), "--shard", shard]].concat());
    }
    succeed(&["merge", world.arg("threads"), "--out", world.arg("threads-joined")]);
    let read = |name: &str| json_of(&world.path(name).join("metrics.json"));
    let (mut joined, mut whole) = (read("threads-joined"), read("threads-whole"));
    assert_eq!(joined["provenance"]["device"].take(), json!("cpu, 1 threads; cpu, 2 threads"));
    whole["provenance"]["device"].take();
    assert_eq!(joined, whole);
    let runs = ["threads-joined/run.jsonl", "threads-whole/run.jsonl"].map(|name| fs::read(world.path(name)).unwrap());
    assert!(runs[0] == runs[1]);
}

#[test]
fn candidates_that_are_found_in_parts_are_those_of_one_run() {
    let world = World::new();
    let whole = world.copy();
    // A mention that has no list yet, and a line that is kept.
    for world in [&world, &whole] {
        world.change_line("data/test.jsonl", 2, |mention| drop(mention.as_object_mut().unwrap().remove("candidates")));
        world.change_line("data/valid.jsonl", 3, |mention| mention["gold"] = json!("nobody"));
    }
    let candidates = |world: &World| -> Vec<&'static str> {
        vec!["candidates", "--data", world.arg("data"), "--top", "3", "--replace", "--skip-bad"]
    };
    let printed = succeed(&candidates(&whole));
    let before = files(&world.path("data"));
    for i in 1..=4 {
        succeed(&[&candidates(&world)[..], &["--out", world.arg("parts"), "--shard", &format!("{i}/4")]].concat());
    }
    assert!(files(&world.path("data")) == before, "the dataset stays as it is");
    let merge = ["merge", world.arg("parts"), "--out", world.arg("data")];
    let merged = succeed(&merge);
    assert!(files(&world.path("data")) == files(&whole.path("data")));
    let table = |text: &str| text.lines().take(5).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(table(&merged), table(&printed));
    refuse(&merge, &["is not the dataset that the parts' lists are of, or has changed since"]);
    refuse(&["merge", world.arg("parts"), "--out", world.arg("encoder")], &["no dataset"]);
    refuse(&[&candidates(&world)[..], &["--shard", "1/4"]].concat(), &["add --out DIR"]);
}

/// Parts of an evaluation in a world of their own.
fn parts() -> World {
    let world = World::trained().copy();
    in_parts(&without_out(&world.eval("x")), world.arg("parts"), 3, &["--out", world.arg("joined")]);
    world
}

#[test]
fn what_is_no_whole_run_is_refused_and_nothing_is_written() {
    let world = parts();
    let refuse = |parts: &[&str], says: &[&str]| {
        let out = world.arg("refused");
        refuse(&[&["merge"][..], parts, &["--out", out]].concat(), says);
        assert!(!Path::new(out).exists());
    };
    let part = |i: usize| world.arg(&format!("parts/part-{i}-of-3"));
    let eval = without_out(&world.eval("x"));
    refuse(&[part(1), part(3)], &["part 2 of 3 is missing; run it with --shard 2/3"]);
    refuse(&[part(3)], &["parts 1, 2 of 3 are missing"]);
    succeed(&[&without_out(&world.eval("x"))[..], &["--out", world.arg("one"), "--shard", "3/7"]].concat());
    refuse(&[world.arg("one")], &["parts 1, 2, 4 to 7 of 7 are missing"]);
    refuse(&[world.arg("parts"), part(2)], &["is part 2 of 3, as", "name one of them"]);
    refuse(&[world.arg("encoder")], &["holds no parts (no part.json"]);
    refuse(&[world.arg("data/test.jsonl")], &["test.jsonl", "is a file; name a part's folder"]);
    refuse(&[world.arg("nowhere")], &["nowhere", "cannot read"]);
    fs::create_dir(world.path("empty")).unwrap();
    refuse(&[world.arg("empty")], &["holds no parts"]);
    // Another seed, another number of parts, another command.
    for (shard, more, says) in [
        ("2/3", &["--seed", "1"][..], "seed is 1 here and 0 there"),
        ("2/3", &["--split", "valid"], "split is \"valid\" here and \"test\" there"),
        ("2/4", &[], "it is one of 4 parts, and the other one of 3"),
    ] {
        let other = world.arg(&format!("other{}", more.len() + shard.len() + says.len()));
        succeed(&[&eval[..], more, &["--out", other, "--shard", shard]].concat());
        refuse(&[part(1), other, part(3)], &["is of another run than", says]);
    }
    let link = [&world.link()[..], &["--input", world.arg("data/test.jsonl"), "--out", world.arg("linked")]].concat();
    succeed(&[&link[..], &["--shard", "2/3"]].concat());
    refuse(&[part(1), world.arg("linked"), part(3)], &["it is of `link`, and the other of `eval`"]);
    // Of another model, and of other data.
    let other = world.copy();
    let of_other = |out: &'static str| {
        let eval = without_out(&other.eval("x"));
        succeed(&[&eval[..], &["--out", out, "--shard", "2/3"]].concat());
    };
    // The same wherever it lies.
    of_other(other.arg("same"));
    refuse(&[part(1), part(2), other.arg("same")], &["is part 2 of 3, as"]);
    let train = fs::read_to_string(other.path("data/train.jsonl")).unwrap();
    fs::write(other.path("data/train.jsonl"), train + "\n").unwrap();
    of_other(other.arg("changed"));
    refuse(&[part(1), other.arg("changed"), part(3)], &["dataset is \""]);
    succeed(&[&replace(other.train(), "--out", other.arg("model2"))[..], &["--epochs", "1", "--seed", "7"]].concat());
    fs::remove_dir_all(other.path("model")).unwrap();
    fs::rename(other.path("model2"), other.path("model")).unwrap();
    of_other(other.arg("trained"));
    refuse(&[other.arg("changed"), other.arg("trained")], &["model is \""]);
    // Where another run's parts lie, none is made.
    let begun = [&eval[..], &["--out", world.arg("parts"), "--shard", "2/3", "--seed", "9"]].concat();
    crate::support::refuse(&begun, &["is of another run: seed is 9 here and 0 there", "choose another --out"]);
    let begun = [&eval[..], &["--out", world.arg("parts"), "--shard", "2/8"]].concat();
    crate::support::refuse(&begun, &["it is one of 8 parts, and the other one of 3"]);
    succeed(&["merge", world.arg("parts"), "--out", world.arg("joined")]);
}

#[test]
fn a_part_that_was_refused_before_it_held_anything_blocks_nobody() {
    let world = World::encoded().copy();
    let find = ["candidates", "--data", world.arg("data"), "--out", world.arg("parts"), "--shard", "1/2"];
    refuse(&find, &["--replace replaces them"]);
    succeed(&[&find[..], &["--replace"]].concat());
    // Now it holds something, finished or not.
    let refused =
        || refuse(&[&find[..6], &["2/2"]].concat(), &["is of another run", "replace is false here and true there"]);
    refused();
    let record = world.path("parts/part-1-of-2/part.json");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"finished\": true"), "{text}");
    fs::write(&record, text.replace("\"finished\": true", "\"finished\": false")).unwrap();
    refused();
}

#[test]
fn what_was_worked_out_is_written_before_it_is_said() {
    let world = parts();
    let eval = world.eval("quiet");
    for (args, written) in [
        (eval.to_vec(), "quiet/run.jsonl"),
        (
            [&without_out(&eval)[..], &["--out", world.arg("quietly"), "--shard", "1/1"]].concat(),
            "quietly/part-1-of-1/run.jsonl",
        ),
        (vec!["merge", world.arg("parts"), "--out", world.arg("quiet-joined")], "quiet-joined/run.jsonl"),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(fissfuse(&args).stdout(writer).status().unwrap().success(), "{args:?}");
        assert!(world.path(written).exists(), "{args:?}: nobody read what it said, and it wrote nothing");
    }
    assert_eq!(json_of(&world.path("quietly/part-1-of-1/part.json"))["finished"], true);
}

#[test]
fn metrics_take_no_place_without_their_rankings() {
    let world = parts();
    succeed(&["merge", world.arg("parts"), "--out", world.arg("full")]);
    let before = files(&world.path("full"));
    // A run file that cannot be replaced.
    let run_file = world.path("full/run.jsonl");
    fs::remove_file(&run_file).unwrap();
    fs::create_dir(&run_file).unwrap();
    fs::write(world.path("full/metrics.json"), "as before").unwrap();
    refuse(&["merge", world.arg("parts"), "--out", world.arg("full")], &["run.jsonl"]);
    assert_eq!(fs::read_to_string(world.path("full/metrics.json")).unwrap(), "as before");
    fs::remove_dir(&run_file).unwrap();
    succeed(&["merge", world.arg("parts"), "--out", world.arg("full")]);
    assert!(files(&world.path("full")) == before);
}

#[test]
fn parts_that_are_not_as_they_were_written_are_refused() {
    let world = parts();
    let merge = ["merge", world.arg("parts"), "--out", world.arg("refused")];
    let run_file = world.path("parts/part-2-of-3/run.jsonl");
    let whole = fs::read(&run_file).unwrap();
    for broken in [&whole[..whole.len() - 1], &[], &[b"x", &whole[1..]].concat()] {
        fs::write(&run_file, broken).unwrap();
        refuse(&merge, &["part-2-of-3/run.jsonl", "is not what was written", "run part 2 of 3 again"]);
    }
    fs::remove_file(&run_file).unwrap();
    refuse(&merge, &["part-2-of-3/run.jsonl", "cannot read"]);
    fs::write(&run_file, &whole).unwrap();
    let record = world.path("parts/part-2-of-3/part.json");
    let text = fs::read_to_string(&record).unwrap();
    for (broken, says) in [
        (text[..text.len() / 2].to_string(), "is no record of a part"),
        ("[]".into(), "is no record of a part"),
        (text.replace("\"format\": 1", "\"format\": 2"), "has format 2, this version reads 1"),
        (text.replace("\"finished\": true", "\"finished\": false"), "not finished; run its task again"),
        (text.replace("\"run.jsonl\": {", "\"../run.jsonl\": {"), "is not what was written"),
        (text.replace("\"from\": 3", "\"from\": 4"), "does not follow that of the part before"),
        (text.replace("\"to\": 6", "\"to\": 5"), "does not follow that of the part before"),
        (text.replace("\"ranks\": [", "\"ranks\": [7, "), "is damaged"),
        (text.replace("\"part\": 2", "\"part\": 1"), "is part 1 of 3, as"),
        (text.replace("\"part\": 2", "\"part\": 9"), "part 2 of 3 is missing"),
    ] {
        assert!(broken != text, "{says}");
        fs::write(&record, broken).unwrap();
        refuse(&merge, &[says]);
        assert!(!world.path("refused").exists());
    }
    fs::write(&record, text).unwrap();
    succeed(&merge);
}

#[test]
fn nothing_is_joined_over_its_parts_or_what_is_not_its_kind() {
    let world = parts();
    let before = files(&world.path("parts/part-1-of-3"));
    for (out, says) in [
        ("parts", "is what PARTS reads"),
        ("parts/part-1-of-3", "lies within"),
        ("parts/part-1-of-3/new", "lies within"),
        ("encoder", "choose another folder"),
        ("data", "is a dataset"),
        ("data/test.jsonl", "test.jsonl"),
    ] {
        refuse(&["merge", world.arg("parts"), "--out", world.arg(out)], &[says]);
    }
    refuse(
        &["merge", world.arg("parts"), "--out", world.arg("z"), "--report", world.arg("r")],
        &["--report is of a re-ranking, and these are parts of `eval`"],
    );
    assert!(files(&world.path("parts/part-1-of-3")) == before && !world.path("z").exists());
}

#[test]
fn an_array_job_says_which_part_it_is_only_to_who_asks() {
    let world = World::trained();
    let eval = without_out(&world.eval("x"));
    let array = |task: &str, count: &str| {
        [("ID", task), ("MIN", "0"), ("MAX", "1"), ("STEP", "1"), ("COUNT", count)]
            .map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value.to_string()))
    };
    for task in ["0", "1"] {
        let mut command = fissfuse(&[&eval[..], &["--out", world.arg("array"), "--shard", "auto"]].concat());
        let output = command.envs(array(task, "2")).output().unwrap();
        let says = format!("part {} of 2, since SLURM_ARRAY_TASK_ID={task}", task.parse::<usize>().unwrap() + 1);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains(&says), "{output:?}");
    }
    succeed(&["merge", world.arg("array"), "--out", world.arg("array-joined")]);
    // Who does not ask has everything done.
    let mut command = fissfuse(&[&eval[..], &["--out", world.arg("array-whole")]].concat());
    assert!(command.envs(array("1", "2")).output().unwrap().status.success());
    assert!(files(&world.path("array-joined")) == files(&world.path("array-whole")));
    let ask = [&eval[..], &["--out", world.arg("array-refused"), "--shard", "auto"]].concat();
    refused(&fissfuse(&ask).envs(array("1", "7")).output().unwrap(), &["has 7 tasks of the 2", "--shard i/n"]);
    let alone = fissfuse(&ask).env_remove("SLURM_ARRAY_TASK_ID").env_remove("SGE_TASK_ID").output().unwrap();
    refused(&alone, &["no task of an array job"]);
    assert!(!world.path("array-refused").exists());
    for (shard, says) in [("0/2", "counted from 1"), ("3/2", "no part 3 of 2"), ("x", "must be i/n")] {
        let output = run(&[&eval[..], &["--out", world.arg("array-refused"), "--shard", shard]].concat());
        assert!(
            output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains(says),
            "{output:?}"
        );
    }
}

#[test]
fn a_simulated_array_job_is_joined_and_evaluated_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    let path = |name: &str| world.join(name).to_str().unwrap().to_string();
    let simulate = |more: &[&str]| {
        let sizes = ["--entities", "300", "--mentions", "40", "--tokens", "3", "--patches", "2", "--parts", "3"];
        fissfuse_bench().arg("simulate").arg(&world).args(sizes).args(more).output().unwrap()
    };
    let output = simulate(&[]);
    let says = format!("40 mentions, {} bytes of features in 3 parts", 340 * 2 * (3 * 512 + 512 + 2 * 768 + 512));
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(&says), "{output:?}");
    refused(&simulate(&[]), &["is not empty"]);
    succeed(&["merge", &path("parts"), "--out", &path("features")]);
    succeed(&["index", "check", "--features", &path("features")]);
    let (data, features, model) = (path("data"), path("features"), path("model.safetensors"));
    let eval = ["eval", "--data", &data, "--features", &features, "--model", &model, "--protocol", "whole-kb"];
    succeed(&[&eval[..], &["--out", &path("whole")]].concat());
    in_parts(&eval, &path("eval-parts"), 3, &["--out", &path("joined")]);
    assert!(files(&world.join("joined")) == files(&world.join("whole")));
    // What has no room, or no sense, is not begun.
    let other = folder.path().join("other");
    for (flag, size, says) in [("--entities", "1000000000000", "are free"), ("--tokens", "10000000", "take fewer")] {
        refused(&fissfuse_bench().arg("simulate").arg(&other).args([flag, size]).output().unwrap(), &[says]);
    }
}
