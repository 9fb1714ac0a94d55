//! What the program says to bad input: each through the binary, with its exit code, and what it leaves behind.

use std::fs;
use std::process::Command;

use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::{Reader, Writer};
use serde_json::json;

use crate::support::{World, fissfuse, half_written, refuse, refused, replace, run, succeed};

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in [&["train"][..], &["no-such"], &["demo", "--mentions", "0"], &["demo", "--mentions", "many"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    // A negative number is the value of the flag before it, and no flag.
    let about = "--data d --features f --model m --out o";
    for (args, says) in [
        ("demo --mentions -1".to_string(), "invalid value '-1' for '--mentions"),
        (format!("eval {about} --threads 0"), "invalid value '0' for '--threads"),
        (format!("eval {about} --top -5"), "invalid value '-5' for '--top"),
        (format!("eval {about} --no-such -5"), "unexpected argument '--no-such'"),
    ] {
        let output = run(&args.split(' ').collect::<Vec<_>>());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && errors.contains(says), "{args}: {errors}");
    }
}

/// Of each pair, the second flag is of what the first leaves out.
#[test]
fn a_flag_that_would_mean_nothing_is_refused() {
    let rerank = ["rerank", "--data", "d", "--ranking", "r", "--out", "o", "--llm", "l"];
    let train = ["train", "--data", "d", "--features", "f", "--out", "o"];
    let eval = ["eval", "--data", "d", "--features", "f", "--model", "m", "--out", "o"];
    let judge = ["eval", "--data", "d", "--ranking", "r"];
    let experiment = ["experiment", "main", "--dataset", "a=d,f", "--out", "o"];
    for (command, flags) in [
        (&rerank[..], &["--model", "n"][..]),
        (&rerank, &["--api-key-env", "KEY"]),
        (&rerank, &["--concurrency", "2"]),
        (&rerank, &["--body", "{}"]),
        (&rerank, &["--header", "a: b"]),
        (&rerank, &["--ca-file", "c"]),
        (&rerank, &["--timeout", "9"]),
        (&rerank, &["--retries", "1"]),
        (&rerank, &["--fuse", "f", "--allow-worse"]),
        (&rerank, &["--debias", "--fuse-split", "valid"]),
        (&rerank, &["--debias", "--fuse-mentions", "30"]),
        (&train, &["--lora-rank", "1"]),
        (&train, &["--freeze-layers", "1"]),
        (&train, &["--encoder-learning-rate", "1"]),
        (&eval, &["--against", "r"]),
        (&judge, &["--candidates-from", "scan"]),
        (&judge, &["--min-recall", "0.5"]),
        (&judge, &["--recall-mentions", "5"]),
        (&experiment, &["--features", "f"]),
        (&["demo", "--mentions", "9"], &["--round", "1"]),
    ] {
        let output = run(&[command, flags].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = errors.contains("cannot be used with") || errors.contains("required");
        assert!(output.status.code() == Some(2) && said, "{command:?} {flags:?}: {errors}");
    }
}

#[test]
fn a_bad_record_is_named_with_its_file_and_line() {
    let world = World::encoded();
    let file = "data/train.jsonl";
    let good = fs::read(world.path(file)).unwrap();
    let spoil = |change: &dyn Fn(&mut serde_json::Value)| {
        fs::write(world.path(file), &good).unwrap();
        world.change_line(file, 3, change);
    };
    let train = world.train();

    spoil(&|m| m["candidates"][2] = json!("Q999"));
    refuse(&train, &["train.jsonl:3:", "candidate `Q999` is no entity"]);
    spoil(&|m| m["sentence"] = json!(""));
    refuse(&train, &["train.jsonl:3:", "`sentence` is empty"]);
    spoil(&|m| m["mention_id"] = json!("train-0"));
    refuse(&train, &["train.jsonl:3:", "stands in line 1 already"]);
    let text = String::from_utf8(good.clone()).unwrap();
    fs::write(world.path(file), text.replacen("\"mention_id\":\"train-2\",", "\"mention_id\":", 1)).unwrap();
    refuse(&train, &["train.jsonl:3:", "is no valid record"]);
    fs::write(world.path(file), [&good[..], b"{\"mention_id\": \"\xff\"}\n"].concat()).unwrap();
    refuse(&train, &["train.jsonl:41:", "is not UTF-8"]);
    assert!(!world.path("model").exists(), "nothing may be written");

    spoil(&|m| m["candidates"][2] = json!("Q999"));
    let output = run(&[&train[..], &["--epochs", "1", "--skip-bad"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("left out 1 bad") && errors.contains("train.jsonl:3:"), "{errors}");
}

#[test]
fn a_repeated_or_broken_entity_is_named() {
    let world = World::new();
    world.change_line("data/entities.jsonl", 5, |e| e["qid"] = json!("Q0"));
    refuse(&world.encode(), &["entities.jsonl:5:", "`Q0` stands in line 1 already"]);
    fs::remove_file(world.path("data/entities.jsonl")).unwrap();
    refuse(&world.encode(), &["data: is no dataset", "no entities.jsonl", "fissfuse import"]);
    fs::write(world.path("data/entities.jsonl"), "\n").unwrap();
    refuse(&world.encode(), &["entities.jsonl: holds no entity"]);
}

#[test]
fn what_is_no_text_is_named_and_a_mark_is_passed_over() {
    let world = World::new();
    let file = world.path("data/entities.jsonl");
    let good = fs::read(&file).unwrap();
    let wide: Vec<u8> = std::str::from_utf8(&good).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, says) in [
        (b"\x89HDF\r\n\x1a\n"[..].to_vec(), "HDF5"),
        (b"\x93NUMPY\x01"[..].to_vec(), "NumPy"),
        (b"PK\x03\x04"[..].to_vec(), "unzip"),
        ([b"\xff\xfe", &wide[..]].concat(), "UTF-16"),
        (wide, "UTF-16"),
    ] {
        fs::write(&file, bytes).unwrap();
        refuse(&world.encode(), &["entities.jsonl", says]);
    }
    fs::write(&file, &good[..good.len() - 20]).unwrap();
    refuse(&world.encode(), &["entities.jsonl:12:", "cut short"]);
    fs::write(&file, [b"\xef\xbb\xbf", &good[..]].concat()).unwrap();
    succeed(&world.encode());
    for (name, bytes) in [("data.tar.gz", &b"\x1f\x8b"[..]), ("data.bin", b"PK\x03\x04")] {
        fs::write(world.path(name), bytes).unwrap();
        refuse(&replace(world.encode(), "--data", world.arg(name)), &[name, "archive; unpack it"]);
    }
}

#[test]
fn a_store_of_another_version_is_refused() {
    let world = World::encoded();
    let file = world.path("features/manifest.json");
    let manifest = fs::read_to_string(&file).unwrap();
    // Another version may have other fields.
    fs::write(&file, manifest.replace("\"format\": 2", "\"format\": 1").replace("max_tokens", "tokens")).unwrap();
    refuse(&world.train(), &["manifest.json", "has format 1, this version reads 2"]);
    fs::write(&file, manifest.replace("max_tokens", "tokens")).unwrap();
    refuse(&world.train(), &["manifest.json", "`max_tokens`"]);
}

#[test]
fn mentions_without_their_gold_entity_follow_the_policy() {
    let world = World::encoded();
    succeed(&[&world.train()[..], &["--epochs", "1"]].concat());
    let eval = |policy: &str| {
        let out = format!("eval-{policy}");
        let output = run(&[&world.eval(&out)[..], &["--split", "valid", "--gold-missing", policy]].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        (String::from_utf8(output.stdout).unwrap(), errors)
    };
    let file = "data/valid.jsonl";
    world.change_line(file, 1, |m| m["gold"] = json!("Q1"));
    let dropped = eval("drop");
    let missed = eval("miss");
    assert!(dropped.0.contains("9 mentions of valid") && dropped.1.contains("1 of 10 mentions lack their gold"));
    assert!(missed.0.contains("10 mentions of valid") && missed.1.contains("counted as misses"));
}

#[test]
fn a_bad_image_is_named_or_replaced() {
    let world = World::new();
    let image = world.path("data/images/red-ball.png");
    let whole = fs::read(&image).unwrap();
    for (bytes, says) in [(&whole[..whole.len() / 2], "cannot be decoded"), (b"no image at all", "is no image")] {
        fs::write(&image, bytes).unwrap();
        refuse(&world.encode(), &["red-ball.png", says]);
    }
    fs::remove_file(&image).unwrap();
    let errors = String::from_utf8(run(&world.encode()).stderr).unwrap();
    assert!(errors.contains("red-ball.png: cannot read") && errors.matches("os error").count() == 1, "{errors}");
    let whose = "; it is the image of entity `Q0`";
    assert!(errors.contains(&format!("{whose}, and --skip-bad lets what stands in")), "{errors}");
    let output = run(&[&world.encode()[..], &["--skip-bad"]].concat());
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(printed.contains("1 images were unreadable"), "{printed}");
    assert!(errors.contains("left out 1 bad") && errors.contains("red-ball.png"), "{errors}");
    assert!(errors.contains(&format!("{whose}\n")), "{errors}");
    // The image is back: it takes the stand-in's place.
    fs::write(&image, whole).unwrap();
    assert!(succeed(&world.encode()).contains("encoded 0 texts and 1 images"));
}

#[test]
fn a_spoilt_weights_file_is_named_with_its_tensor() {
    let world = World::new();
    let file = world.path("encoder/model.safetensors");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..good.len() - 100]).unwrap();
    refuse(&world.encode(), &["model.safetensors", "cut short"]);
    fs::write(&file, b"not at all").unwrap();
    refuse(&world.encode(), &["model.safetensors"]);
    fs::write(&file, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    refuse(&world.encode(), &["model.safetensors", "git lfs pull"]);

    // The header is JSON of its own length; names and types of the same length keep the offsets right.
    let spoil = |from: &str, to: &str| {
        let header = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[header..][..to.len()].copy_from_slice(to.as_bytes());
        fs::write(&file, bytes).unwrap();
    };
    spoil("text_projection.weight", "text_projection.weighs");
    refuse(&world.encode(), &["model.safetensors", "`text_projection.weight`", "missing"]);
    fs::write(&file, &good).unwrap();
    let config = fs::read_to_string(world.path("encoder/config.json")).unwrap();
    fs::write(world.path("encoder/config.json"), config.replace("\"projection_dim\": 32", "\"projection_dim\": 33"))
        .unwrap();
    refuse(&world.encode(), &["model.safetensors", "_projection.weight`", "[33, 32]"]);
    fs::write(world.path("encoder/config.json"), &config).unwrap();
    spoil("\"dtype\":\"F32\"", "\"dtype\":\"I32\"");
    refuse(&world.encode(), &["model.safetensors", "I32"]);
    assert!(half_written(&world.path("")).is_empty());
}

#[test]
fn an_encoder_that_gives_no_numbers_is_named_with_the_item() {
    let world = World::new();
    let file = world.path("encoder/model.safetensors");
    let reader = Reader::open(&file).unwrap();
    let names: Vec<String> = reader.names().map(str::to_string).collect();
    let mut tensors: Vec<_> = names.iter().map(|name| (name, reader.tensor(name).unwrap())).collect();
    // Weights that are numbers, and products of theirs that are none.
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.ends_with("_projection.weight")) {
        *tensor = Tensor::new(tensor.shape().to_vec(), vec![3e38; tensor.len()]).unwrap();
    }
    let mut writer = Writer::default();
    for (name, tensor) in &tensors {
        writer.tensor(name.as_str(), tensor);
    }
    writer.write(&file).unwrap();
    refuse(&[&world.encode()[..], &["--modalities", "text"]].concat(), &["entity `Q0`", "NaN", "encoder clip"]);
    refuse(&[&world.encode()[..], &["--modalities", "image"]].concat(), &["stand-in", "NaN", "encoder clip"]);
    let embed = ["embed", "--encoder", world.arg("encoder"), "--out", world.arg("embedded")];
    let image = world.arg("data/images/red-ball.png");
    for (input, says) in [(["--text", "a ball"], "a ball"), (["--image", image], "red-ball.png")] {
        refuse(&[&embed[..], &input].concat(), &[says, "encoder (clip", "are its weights whole?"]);
    }
    assert!(!world.path("embedded").exists());
}

#[test]
fn pipes_folders_and_devices_in_a_files_place_are_named() {
    let world = World::encoded();
    for (path, args) in [
        ("data/entities.jsonl", world.train()),
        ("encoder/config.json", world.encode()),
        ("encoder/model.safetensors", world.encode()),
        ("features/manifest.json", world.train()),
    ] {
        let kept = world.path("kept");
        fs::rename(world.path(path), &kept).unwrap();
        assert!(Command::new("mkfifo").arg(world.path(path)).status().unwrap().success());
        refuse(&args, &[path, "is a pipe", "no regular file"]);
        fs::remove_file(world.path(path)).unwrap();
        fs::create_dir(world.path(path)).unwrap();
        refuse(&args, &[path, "is a folder"]);
        fs::remove_dir(world.path(path)).unwrap();
        fs::rename(&kept, world.path(path)).unwrap();
    }
    refuse(&[&world.train()[..], &["--config", "/dev/zero"]].concat(), &["/dev/zero: is a device", "512 MiB"]);
}

#[test]
fn outputs_that_cannot_be_written_are_named_before_the_work() {
    let world = World::encoded();
    let file = world.arg("data/test.jsonl");
    fs::write(world.path("file"), "").unwrap();
    // The model is not there either, which is found later.
    for out in ["file", "file/new"] {
        refuse(&world.eval(out), &[out, "is no folder"]);
        refuse(&replace(world.train(), "--out", world.arg(out)), &[out, "is no folder"]);
        refuse(&replace(world.encode(), "--out", world.arg(out)), &[out, "is no folder"]);
    }
    let judge = ["eval", "--data", world.arg("data"), "--ranking", file, "--out", world.arg("file")];
    refuse(&judge, &["file", "is no folder"]);
    for flag in ["--features", "--seed", "--device", "--feature-memory"] {
        assert_eq!(run(&[&judge[..], &[flag, "0"]].concat()).status.code(), Some(2), "{flag}");
    }
    refuse(&[&world.link()[..], &["--images", world.arg("nowhere")]].concat(), &["nowhere: --images is no folder"]);
    let audit = ["audit", "--data", world.arg("nowhere"), "--json", world.arg("encoder")];
    refuse(&audit, &["encoder: is a folder"]);
}

#[test]
fn features_of_another_encoder_are_refused() {
    let world = World::encoded();
    world.write_encoder("other", 7);
    let encode = replace(world.encode(), "--encoder", world.arg("other"));
    refuse(&encode, &["features", "another"]);
    succeed(&[&world.train()[..], &["--epochs", "1"]].concat());
    succeed(&replace(encode, "--out", world.arg("others-features")));
    let eval = replace(world.eval("eval"), "--features", world.arg("others-features"));
    refuse(&eval, &["others-features", "another encoder"]);
    let link = replace(world.link(), "--encoder", world.arg("other"));
    refuse(&link, &["another encoder"]);
    assert!(!world.path("eval").exists());
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let world = World::encoded();
    let train = world.train();
    succeed(&[&train[..], &["--epochs", "1"]].concat());
    refuse(&train, &["holds a run already", "--resume"]);
    let resume = |more: &[&'static str]| [&train[..], &["--resume"], more].concat();
    let wider = replace(resume(&[]), "--d", "20");
    refuse(&wider, &["last.safetensors", "d was 16 and is now 20"]);
    refuse(&resume(&["--seed", "3"]), &["seed was 0 and is now 3"]);
    let checkpoint = world.path("model/last.safetensors");
    let bytes = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    refuse(&resume(&[]), &["last.safetensors", "cut short"]);
    fs::write(&checkpoint, &bytes).unwrap();
    world.change_line("data/train.jsonl", 1, |m| m["sentence"] = json!("Another ball that looks red."));
    succeed(&world.encode());
    refuse(&resume(&["--epochs", "2"]), &["the dataset's files have changed"]);
}

#[test]
fn features_that_lack_something_are_refused() {
    let world = World::encoded();
    world.change_line("data/train.jsonl", 4, |m| m["sentence"] = json!("A ball nobody has seen before."));
    refuse(&world.train(), &["train-3", "fissfuse encode"]);
    let train = replace(world.train(), "--features", world.arg("nowhere"));
    refuse(&train, &["nowhere"]);
    let shard = fs::read_dir(world.path("features")).unwrap().map(|e| e.unwrap().path());
    let shard = shard.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).max().unwrap();
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 10]).unwrap();
    refuse(&world.train(), &[shard.file_name().unwrap().to_str().unwrap()]);
}

/// Runs the program where no file may grow beyond some blocks of 512 bytes: a disk that is full.
fn on_a_full_disk(blocks: usize, args: &[&str]) -> std::process::Output {
    let program = fissfuse(args);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")).arg(program.get_program());
    shell.args(program.get_args()).output().unwrap()
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let world = World::new();
    refused(&on_a_full_disk(4, &world.encode()), &["features", "cannot write"]);
    assert!(half_written(&world.path("")).is_empty());
    succeed(&world.encode());
    refused(&on_a_full_disk(4, &[&world.train()[..], &["--epochs", "1"]].concat()), &["cannot write"]);
    assert!(half_written(&world.path("")).is_empty());
    assert!(!world.path("model/best.safetensors").exists() && !world.path("model/last.safetensors").exists());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let world = World::encoded();
    let with = |more: &[&'static str]| [&world.train()[..], more].concat();
    refuse(&replace(world.train(), "--learning-rate", "0"), &["learning_rate = 0 is no number above 0"]);
    refuse(&with(&["--heads", "3"]), &["heads", "16"]);
    refuse(&with(&["--dropout", "1"]), &["dropout"]);
    refuse(&with(&["--epochs", "0"]), &["epochs"]);
    fs::write(world.path("bad.toml"), "[train]\nepoch = 3\n").unwrap();
    refuse(&with(&["--config", world.arg("bad.toml")]), &["bad.toml", "epoch"]);
    let encode = replace(world.encode(), "--out", world.arg("other"));
    let encode = [&encode[..], &["--config", world.arg("bad.toml")]].concat();
    for (setting, says) in [
        ("entity_template = \"{nam}\"", "must hold {name} or {description}"),
        ("mention_template = \"no place\"", "must hold {mention} or {sentence}"),
        ("mention_template = \"{sen{mention}tence}\"", "must hold {mention} or {sentence}"),
        ("max_tokens = 1", "leaves no room beside the 2 special tokens"),
        ("missing_image = { file = \"nowhere.png\" }", "nowhere.png: cannot read"),
    ] {
        fs::write(world.path("bad.toml"), format!("[encode]\n{setting}\n")).unwrap();
        refuse(&encode, &[says]);
    }
    // What failed before it stored anything does not bind the settings.
    fs::write(world.path("bad.toml"), "").unwrap();
    succeed(&encode);
}

#[test]
fn a_terminal_is_not_steered_by_what_is_read() {
    let world = World::new();
    world.change_line("data/train.jsonl", 2, |m| m["candidates"][0] = json!("Q\u{1b}[2J\u{202e}\u{9b}"));
    refuse(&world.encode(), &[r"candidate `Q\u{1b}[2J\u{202e}\u{9b}` is no entity"]);
    let output = run(&[&world.encode()[..], &["--skip-bad"]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.contains(r"Q\u{1b}[2J") && !errors.contains('\u{1b}'), "{errors:?}");
}

#[test]
fn braces_in_a_mention_or_a_name_are_text() {
    let world = World::new();
    world.write_lines("data/entities.jsonl", &[json!({"qid": "Q0", "name": "one"})]);
    let mention = |id: &str, mention: &str| json!({"mention_id": id, "mention": mention, "sentence": "x", "candidates": ["Q0"], "gold": "Q0"});
    for split in ["valid", "test"] {
        fs::remove_file(world.path(&format!("data/{split}.jsonl"))).unwrap();
    }
    world.write_lines("data/train.jsonl", &[mention("a", "{sentence}"), mention("b", "x")]);
    assert!(succeed(&world.encode()).contains("encoded 3 texts and 0 images"));
}
