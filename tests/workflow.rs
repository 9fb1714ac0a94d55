//! The main job through the binary: encode, train, evaluate, link; interrupted and resumed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{ENTITIES, World, fissfuse, refuse, refused, replace, run, succeed};

#[test]
fn the_chain_ends_in_metrics_and_a_ranking() {
    let world = World::trained();
    let printed = succeed(&world.eval("eval"));
    assert!(printed.contains("10 mentions of test") && printed.contains("S2*"), "{printed}");
    let metrics: Value = serde_json::from_str(&fs::read_to_string(world.path("eval/metrics.json")).unwrap()).unwrap();
    let mean = |name: &str| metrics["mean"][name].as_f64().unwrap();
    assert!(mean("H@1") <= mean("H@3") && mean("H@3") <= mean("H@5") && mean("MR") >= 1.0);
    let lines = world.read_lines("eval/run.jsonl");
    assert_eq!(lines.len(), 10);
    let mut ranks = 0.0;
    for line in &lines {
        let (candidates, gold) = (line["candidates"].as_array().unwrap(), &line["gold"]);
        let place = candidates.iter().position(|c| c == gold).unwrap() + 1;
        assert_eq!(line["rank"], json!(place));
        ranks += place as f64 / lines.len() as f64;
        let scores: Vec<f64> = line["scores"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b));
        for (i, score) in scores.iter().enumerate() {
            let by_score = line["by_score"].as_object().unwrap();
            let mean = by_score.values().map(|s| s[i].as_f64().unwrap()).sum::<f64>() / 6.0;
            assert!((mean - score).abs() < 1e-5 * score.abs().max(1.0));
        }
    }
    assert!((mean("MR") - ranks).abs() < 1e-9);
    for (k, interval) in metrics["wilson_95"].as_object().unwrap() {
        let [low, high] = ["low", "high"].map(|end| interval[end].as_f64().unwrap());
        assert!(low <= mean(k) && mean(k) <= high && high - low > 0.1 && high - low < 0.7, "{k}: {interval}");
    }
    let first = format!("H@1 {:.2} %, 95 % interval", 100.0 * mean("H@1"));
    assert!(printed.contains(&first) && metrics["wilson_95"].as_object().unwrap().len() == 5, "{printed}");
    // Six candidates, of which the list's order says nothing.
    assert_eq!(metrics["baselines"]["chance"]["MR"], json!(3.5));
    assert!(printed.contains("the lists' order") && printed.contains("chance"), "{printed}");
}

#[test]
fn any_run_file_is_judged_as_a_model_is() {
    let world = World::trained();
    succeed(&world.eval("eval-judged"));
    let judge = |run: &str| {
        let judge = ["eval", "--data", world.arg("data"), "--ranking", world.arg(run), "--out", world.arg("judged")];
        succeed(&judge);
        let read =
            |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(world.path(name)).unwrap()).unwrap() };
        read("judged/metrics.json")["run"].clone()
    };
    let whole: Value =
        serde_json::from_str(&fs::read_to_string(world.path("eval-judged/metrics.json")).unwrap()).unwrap();
    let run = judge("eval-judged/run.jsonl");
    assert_eq!(run["metrics"], whole["mean"]);
    assert_eq!(run["absent"], 0);
    // What `link` answers, an error among it.
    let mut asked: Vec<Value> = (0..10).map(|i| World::mention("test", i)).collect();
    asked[4]["image"] = json!("images/none.png");
    world.write_lines("asked-run.jsonl", &asked);
    let link = [&world.link()[..], &["--input", world.arg("asked-run.jsonl"), "--top", "6", "--skip-bad"]].concat();
    fs::write(world.path("linked.jsonl"), succeed(&link)).unwrap();
    let linked = judge("linked.jsonl");
    assert_eq!(
        (&linked["errors"], &linked["absent"], &linked["metrics"]["mentions"]),
        (&json!(1), &json!(0), &json!(9))
    );
    refuse(
        &["eval", "--data", world.arg("data"), "--ranking", world.arg("linked.jsonl"), "--split", "valid"],
        &["linked.jsonl:1:", "no such"],
    );
    assert_eq!(fissfuse(&["eval", "--data", world.arg("data")]).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_share_of_the_mentions_is_trained_on_and_kept_when_resumed() {
    let world = World::encoded();
    let train = |more: &[&'static str]| [&world.train()[..], more].concat();
    let printed = succeed(&train(&["--epochs", "1", "--share", "0.25"]));
    assert!(printed.contains("share 0.25 of the training mentions: 10"), "{printed}");
    let run: Value = serde_json::from_slice(&fs::read(world.path("model/train.json")).unwrap()).unwrap();
    assert_eq!(run["training"]["settings"]["share"], json!(0.25));
    for other in [&["--share", "0.5"][..], &[]] {
        let resume = train(&[&["--epochs", "2", "--resume"], other].concat());
        refuse(&resume, &["last.safetensors", "belongs to another run", "share was 0.25 and is now"]);
    }
    succeed(&train(&["--epochs", "2", "--resume", "--share", "0.25"]));
    refuse(&train(&["--share", "0", "--resume"]), &["share = 0 is not in (0, 1]"]);
}

#[test]
fn link_answers_each_line_before_the_next_and_ranks_what_it_is_given() {
    let world = World::trained();
    let mut child = fissfuse(&[&world.link()[..], &["--top", "4"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut ask = |mention: &Value| -> Value {
        writeln!(input, "{mention}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let mut mention = World::mention("test", 3);
    let answer = ask(&mention);
    assert_eq!(answer["mention_id"], "test-3");
    let links = answer["links"].as_array().unwrap();
    assert_eq!(links.len(), 4);
    assert!(links.iter().all(|l| mention["candidates"].as_array().unwrap().contains(&l["qid"])));
    // The same ranking as eval's, though it encodes the mention anew.
    succeed(&world.eval("eval-link"));
    let ranked = &world.read_lines("eval-link/run.jsonl")[3];
    for (i, link) in links.iter().enumerate() {
        assert_eq!(link["qid"], ranked["candidates"][i]);
        let (got, want) = (link["score"].as_f64().unwrap(), ranked["scores"][i].as_f64().unwrap());
        // Features in the store are f16.
        assert!((got - want).abs() < 1e-2 * want.abs().max(1.0), "{got} {want}");
    }
    // A list that holds nothing is a list: nothing is ranked, and not all.
    mention["candidates"] = json!([]);
    assert_eq!(ask(&mention)["links"], json!([]));
    mention.as_object_mut().unwrap().remove("candidates");
    mention.as_object_mut().unwrap().remove("image");
    let links = ask(&mention)["links"].as_array().unwrap().clone();
    let confidence: f64 = links.iter().map(|l| l["confidence"].as_f64().unwrap()).sum();
    assert!(links.len() == 4 && confidence > 4.0 / ENTITIES as f64 && confidence <= 1.0);
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn link_skips_or_names_a_bad_line() {
    let world = World::trained();
    let good = World::mention("test", 0);
    let mut unknown = World::mention("test", 1);
    unknown["candidates"][0] = json!("Q77");
    let mut lost = World::mention("test", 2);
    lost["image"] = json!("images/none.png");
    world.write_lines("asked.jsonl", &[good, unknown, lost]);
    let link = [&world.link()[..], &["--input", world.arg("asked.jsonl")]].concat();
    refuse(&link, &["asked.jsonl:2:", "`Q77` is no entity"]);
    let output = run(&[&link[..], &["--skip-bad"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("2 of 3 lines have an error"), "{errors}");
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answers[0]["links"].is_array() && answers[0]["error"].is_null());
    for (answer, says) in [(&answers[1], "asked.jsonl:2: mention `test-1`: candidate"), (&answers[2], "none.png")] {
        assert!(answer["error"].as_str().unwrap().contains(says) && answer["links"].is_null(), "{answer}");
    }
    assert_eq!((&answers[1]["mention_id"], &answers[2]["mention_id"]), (&json!("test-1"), &json!("test-2")));
}

#[test]
fn images_of_requests_stay_in_their_folder() {
    let world = World::trained();
    let mut mention = World::mention("test", 0);
    let inside = mention["image"].clone();
    let outside = ["../data/images/red-ball.png".to_string(), world.arg("data/images/red-ball.png").to_string()];
    let lines = outside.iter().map(|path| {
        mention["image"] = json!(path);
        mention.clone()
    });
    let lines: Vec<Value> = lines.collect();
    world.write_lines("outside.jsonl", &lines);
    let link = [&world.link()[..], &["--input", world.arg("outside.jsonl")]].concat();
    refuse(&link, &["outside.jsonl:1: mention `test-0`: image: path `../data", "--allow-any-path"]);
    // Where no line can be answered, the run has failed.
    let output = run(&[&link[..], &["--skip-bad"]].concat());
    refused(&output, &["2 of 2 lines have an error", "no line of"]);
    let answers = String::from_utf8(output.stdout).unwrap();
    assert!(answers.lines().count() == 2 && answers.contains("is absolute"), "{answers}");
    assert_eq!(succeed(&[&link[..], &["--allow-any-path"]].concat()).lines().count(), 2);
    mention["image"] = inside;
    mention["image"] = json!(mention["image"].as_str().unwrap().trim_start_matches("images/"));
    world.write_lines("inside.jsonl", &[mention]);
    let link = [&world.link()[..], &["--input", world.arg("inside.jsonl")]].concat();
    succeed(&[&link[..], &["--images", world.arg("data/images")]].concat());
}

#[test]
fn link_reads_lines_of_a_bounded_length() {
    let world = World::trained();
    let mut long = World::mention("test", 0);
    long["sentence"] = json!("a ".repeat(9 << 20));
    world.write_lines("long.jsonl", &[long, World::mention("test", 1)]);
    let link = [&world.link()[..], &["--input", world.arg("long.jsonl")]].concat();
    refuse(&link, &["long.jsonl:1: is longer than 16 MB"]);
    let answers = succeed(&[&link[..], &["--skip-bad"]].concat());
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answers[0]["error"].is_string() && answers[1]["mention_id"] == "test-1" && answers.len() == 2);
}

#[test]
fn one_candidate_and_a_batch_larger_than_the_data_work() {
    let world = World::new();
    for split in ["train", "valid", "test"] {
        let file = format!("data/{split}.jsonl");
        let mut lines = world.read_lines(&file);
        lines.iter_mut().for_each(|m| m["candidates"] = json!([m["gold"]]));
        world.write_lines(&file, &lines[..3]);
    }
    succeed(&world.encode());
    let train = replace(world.train(), "--batch-size", "4096");
    let output = run(&[&train[..], &["--epochs", "2"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("exceeds the 3 training mentions"), "{errors}");
    assert!(succeed(&world.eval("eval")).contains("100.00"));
}

/// Kills a command with no chance to clean up, once `ready` says so.
fn kill(args: &[&str], ready: impl Fn() -> bool) {
    let mut child = fissfuse(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !ready() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never got ready to be killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_training_ends_with_the_same_bits() {
    let world = World::encoded();
    let settings = ["--epochs", "30", "--checkpoint-steps", "1", "--dropout", "0.2", "--negatives", "3"];
    let train = [&world.train()[..], &settings].concat();
    let result =
        |name: &str| ["best.safetensors", "last.safetensors"].map(|f| fs::read(world.path(name).join(f)).unwrap());
    succeed(&[&train[..], &["--threads", "1"]].concat());
    let undisturbed = result("model");
    let log = world.read_lines("model/train.jsonl");
    fs::remove_dir_all(world.path("model")).unwrap();

    let checkpoint = world.path("model/last.safetensors");
    let written = || fs::metadata(&checkpoint).and_then(|m| m.modified()).ok();
    for i in 0..4 {
        // At some moment after a checkpoint of this process.
        let before = written();
        let start = if i == 0 { train.clone() } else { [&train[..], &["--resume"]].concat() };
        kill(&start, || written() != before);
    }
    succeed(&[&train[..], &["--resume"]].concat());
    assert!(result("model") == undisturbed, "the bits differ");
    let without_speed = |lines: Vec<Value>| -> Vec<Value> {
        lines
            .into_iter()
            .map(|mut line| {
                line.as_object_mut().unwrap().remove("samples_per_second");
                line
            })
            .collect()
    };
    assert_eq!(without_speed(world.read_lines("model/train.jsonl")), without_speed(log));
}

#[test]
fn a_random_encoder_is_the_same_for_the_same_seed() {
    let worlds = [World::new(), World::new()];
    for file in ["tokenizer.json", "config.json", "model.safetensors"] {
        let [one, two] = [0, 1].map(|i| fs::read(worlds[i].path("encoder").join(file)).unwrap());
        assert!(one == two, "{file} differs");
    }
}

#[test]
fn encoding_goes_on_where_it_stopped_and_adds_what_is_new() {
    let world = World::new();
    kill(&world.encode(), || world.path("features").exists());
    succeed(&world.encode());
    let printed = succeed(&world.encode());
    assert!(printed.contains("encoded 0 texts and 0 images"), "{printed}");
    let mut mentions = world.read_lines("data/test.jsonl");
    let mut new = World::mention("test", 0);
    new["mention_id"] = json!("new");
    new["sentence"] = json!("A ball nobody has seen before.");
    mentions.push(new);
    world.write_lines("data/test.jsonl", &mentions);
    let printed = succeed(&world.encode());
    assert!(printed.contains("encoded 1 texts and 0 images"), "{printed}");
}

#[test]
fn the_demo_runs_from_nothing_to_a_linked_mention() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo").to_str().unwrap().to_string();
    let printed = succeed(&["demo", "--out", &out, "--mentions", "64", "--epochs", "1", "--kar"]);
    for says in [
        "fissfuse encode",
        "fissfuse rerank",
        "1000 mentions of test",
        "One mention it has never seen",
        "  3. ",
        "report.html in a browser",
    ] {
        assert!(printed.contains(says), "{printed}");
    }
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/demo-clip").join(name);
        let used = folder.path().join("demo/encoder").join(name);
        assert!(fs::read(used).unwrap() == fs::read(shipped).unwrap(), "the demo's {name} is not the one in weights");
    }
    let page = fs::read_to_string(folder.path().join("demo/report.html")).unwrap();
    // Templates escape slashes like all else that is not theirs.
    assert!(page.contains("<h1>Demo</h1>") && page.contains("data:image&#x2f;jpeg;base64,"), "no page with images");
    fs::write(folder.path().join("mine"), "precious").unwrap();
    let mine = folder.path().to_str().unwrap();
    refuse(&["demo", "--out", mine], &["is no folder of a demo"]);
    assert!(folder.path().join("mine").exists());
    let model = folder.path().join("demo/model/mine.safetensors");
    fs::write(&model, "precious").unwrap();
    refuse(&["demo", "--out", &out], &["mine.safetensors: is none of the demo's files"]);
    assert!(model.exists());
}

#[test]
fn the_demo_takes_a_random_encoder_too_and_draws_pairs_for_one_that_learns() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let small = ["--mentions", "16", "--epochs", "1", "--device", "cpu"];
    let printed = succeed(&[&["demo", "--random-encoder", "--out", &path("demo")], &small[..]].concat());
    assert!(printed.contains("a small CLIP with random frozen weights"), "{printed}");
    // Every step computes where it is told to.
    for step in ["encode", "train", "eval"] {
        let line = printed.lines().find(|line| line.contains(&format!("fissfuse {step} "))).unwrap();
        assert!(line.contains("--device cpu"), "{line}");
    }
    let config = fs::read_to_string(path("demo/encoder/config.json")).unwrap();
    assert!(config.contains("\"hidden_size\": 512"), "{config}");
    for given in [
        &["--random-encoder", "--encoder", "x"][..],
        &["--round", "1", "--random-encoder"],
        &["--pairs", "x", "--mentions", "200"],
        &["--pairs", "x", "--seed", "1"],
        &["--pairs", "x", "--scenes", "0"],
        &["--scenes", "10"],
    ] {
        assert_eq!(run(&[&["demo"], given].concat()).status.code(), Some(2), "{given:?}");
    }
    fs::create_dir(path("pairs")).unwrap();
    fs::write(path("pairs/mine"), "precious").unwrap();
    refuse(&["demo", "--pairs", &path("pairs")], &["exists already"]);
    // 5 scenes, 3 sentences and a held-out scene.
    let printed = succeed(&["demo", "--pairs", &path("few"), "--scenes", "5"]);
    assert!(printed.contains("wrote 9 pictures"), "{printed}");
    assert_eq!(fs::read_dir(path("few/images")).unwrap().count(), 9);
}

#[test]
fn a_signal_ends_the_drawing_of_pairs_with_nothing_left() {
    for (signal, number) in [("-TERM", 15), ("-INT", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let pairs = folder.path().join("pairs");
        let mut child = fissfuse(&["demo", "--pairs", pairs.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
        let pictures = || {
            let within = fs::read_dir(folder.path()).unwrap().next()?.unwrap().path().join("images");
            Some(fs::read_dir(within).ok()?.count())
        };
        let start = Instant::now();
        while pictures().is_none_or(|count| count < 100) {
            assert!(
                child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60),
                "it draws nothing"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        // A shell and a supervisor may both say it, or a key is held: those that come while it tidies change nothing.
        for _ in 0..5 {
            let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
        }
        // As where nobody watches.
        assert_eq!(child.wait().unwrap().signal(), Some(number));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{signal} left something");
    }
}

#[test]
fn a_knowledge_base_grows_without_encoding_anything_again() {
    let world = World::encoded();
    let new =
        json!({"qid": "Q100", "name": "pink ball again", "description": "a ball", "image": "images/pink-ball.png"});
    world.write_lines("new.jsonl", &[new.clone(), json!({"qid": "Q101", "name": "a thing"})]);
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--encoder", world.arg("encoder")];
    let add = [&["index", "add", "--entities", world.arg("new.jsonl")][..], &paths].concat();
    let printed = succeed(&add);
    assert!(printed.contains("added 2 entities to 12: encoded 2 texts and 0 images in"), "{printed}");
    assert_eq!(world.read_lines("data/entities.jsonl").len(), ENTITIES + 2);
    assert!(succeed(&world.encode()).contains("encoded 0 texts and 0 images"));
    refuse(&add, &["new.jsonl:1:", "`Q100` is in the knowledge base already"]);
    world.write_encoder("other", 7);
    world.write_lines("new.jsonl", &[json!({"qid": "Q102", "name": "more"})]);
    refuse(&replace(add, "--encoder", world.arg("other")), &["features", "made otherwise"]);
    assert_eq!(world.read_lines("data/entities.jsonl").len(), ENTITIES + 2);
}

#[test]
fn a_store_that_changed_on_disk_is_found_by_its_checksum() {
    let world = World::encoded();
    let check = ["index", "check", "--features", world.arg("features")];
    let printed = succeed(&check);
    assert!(printed.contains("2 shards") && printed.contains("are what was written"), "{printed}");
    let shard = world.path("features/image-00000.safetensors");
    let good = fs::read(&shard).unwrap();
    let mut bytes = good.clone();
    // One bit of one feature.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, &bytes).unwrap();
    refuse(&check, &["image-00000.safetensors", "checksum differs"]);
    let text = String::from_utf8_lossy(&good[..2000]).into_owned();
    let at = text.find("max_tokens").unwrap() + "max_tokens\\\":".len();
    let mut bytes = good;
    bytes[at] = b'7';
    fs::write(&shard, &bytes).unwrap();
    refuse(&world.train(), &["image-00000.safetensors", "was made otherwise than its store: max_tokens"]);
}
