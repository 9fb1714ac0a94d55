//! The command.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use fissfuse::tensor::safetensors::Reader;
use serde_json::Value;

use super::{moved, train, with};
use crate::support::child::at_work;
use crate::support::{
    World, fissfuse, fissfuse_on_cusim, fixture, half_written, refuse, refused, replace, run, succeed,
};

#[test]
fn both_learn_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    // With its own image among the candidates', each mention would be linked right at once.
    for line in 1..=10 {
        world.change_line("data/valid.jsonl", line, |mention| drop(mention.as_object_mut().unwrap().remove("image")));
    }
    let printed = succeed(&with(&train(&world, "run"), &["--schedule", "cosine"]));
    assert!(
        printed.contains("the encoder is trained along") && printed.contains("fissfuse encode --data"),
        "{printed}"
    );
    let records = world.read_lines("run/train.jsonl");
    let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
    assert!(records.len() == 3 && loss(2) < loss(0), "{records:?}");
    let names = moved(&world.path("encoder"), &world.path("run/encoder"));
    for name in ["token_embedding.weight", "layers.0.mlp.fc1.weight", "text_projection.weight", "class_embedding"] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
    assert!(half_written(world.path("run").as_path()).is_empty());

    // The features of the encoder that it began with are another's.
    let eval = |features: &str, out: &str| {
        let paths = ["--data", world.arg("data"), "--features", world.arg(features), "--model", world.arg("run")];
        [&["eval", "--split", "valid", "--out", world.arg(out), "--device", "cpu"][..], &paths].concat()
    };
    refuse(&eval("features", "eval"), &["features of another encoder"]);
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32", "--device", "cpu"]));
    succeed(&eval("own", "eval"));
    let metrics: Value = serde_json::from_slice(&fs::read(world.path("eval/metrics.json")).unwrap()).unwrap();
    let best = records.iter().rfind(|record| record["best"] == true).unwrap();
    assert!((0.2..1.0).contains(&best["valid"]["MRR"].as_f64().unwrap()), "{best}");
    assert_eq!(metrics["mean"], best["valid"], "{metrics:#}");
    assert_eq!(metrics["training"]["encoder"]["freeze_layers"], 0);
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    let link = [&["link", "--encoder", world.arg("run/encoder")][..], &paths].concat();
    let lines = fs::read(world.path("data/valid.jsonl")).unwrap();
    let mut child =
        fissfuse(&link).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &lines).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let link: Value = serde_json::from_str(line).unwrap();
            link["links"][0]["qid"].as_str().unwrap_or_else(|| panic!("{link}")).to_string()
        })
        .collect();
    let gold = world.read_lines("data/valid.jsonl");
    let right = first.iter().zip(&gold).filter(|(first, mention)| mention["gold"] == **first).count();
    let hits = best["valid"]["H@1"].as_f64().unwrap();
    assert!(
        (right as f64 / gold.len() as f64 - hits).abs() < 1e-9,
        "{right} of {}, validation says {hits}",
        gold.len()
    );
}

#[test]
fn a_clip_of_openclips_is_trained_and_stays_one() {
    let world = World::new();
    let from = fixture("clip/open-clip-f32");
    let folder: &'static str = from.to_str().unwrap().to_string().leak();
    succeed(&replace(train(&world, "run"), "--train-encoder", folder));
    let encoder = world.path("run/encoder");
    assert!(!encoder.join("config.json").exists());
    let [before, after] =
        [&from, &encoder].map(|folder| Reader::open(&folder.join("open_clip_model.safetensors")).unwrap());
    let names = |reader: &Reader| reader.names().map(String::from).collect::<BTreeSet<String>>();
    assert_eq!(names(&after), names(&before));
    for name in ["visual.conv1.weight", "token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight"] {
        assert_eq!(before.shape(name).unwrap(), after.shape(name).unwrap());
        assert_ne!(before.tensor(name).unwrap().data(), after.tensor(name).unwrap().data(), "{name} did not move");
    }
    let encode = ["encode", "--data", world.arg("data"), "--encoder", world.arg("run/encoder"), "--precision", "f32"];
    succeed(&[&encode[..], &["--device", "cpu", "--out", world.arg("own")]].concat());
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--device", "cpu", "--out", world.arg("eval")][..], &paths].concat());
}

#[test]
fn frozen_layers_and_what_lora_does_not_change_keep_their_bits() {
    let world = World::new();
    succeed(&with(&replace(train(&world, "frozen"), "--epochs", "1"), &["--freeze-layers", "1"]));
    let frozen = moved(&world.path("encoder"), &world.path("frozen/encoder"));
    assert!(!frozen.is_empty());
    let above = ["final_layer_norm", "post_layernorm", "text_projection", "visual_projection"];
    assert!(frozen.iter().all(|name| above.iter().any(|part| name.contains(part))), "{frozen:?}");
    for part in above {
        assert!(frozen.iter().any(|name| name.contains(part)), "{part} did not move");
    }
    succeed(&with(&train(&world, "lora"), &["--lora-rank", "4", "--model", "clip-projected"]));
    let adapted = moved(&world.path("encoder"), &world.path("lora/encoder"));
    assert_eq!(adapted.len(), 4, "{adapted:?}");
    let layers = [".q_proj.weight", ".v_proj.weight"];
    assert!(adapted.iter().all(|name| layers.iter().any(|end| name.ends_with(end))), "{adapted:?}");
    let checkpoint = Reader::open(&world.path("lora/last.safetensors")).unwrap();
    let of_encoder = checkpoint.names().filter(|name| name.starts_with("encoder.parameter."));
    assert_eq!(of_encoder.count(), 8);
    let records = world.read_lines("lora/train.jsonl");
    assert!(records[2]["loss"].as_f64() < records[0]["loss"].as_f64(), "{records:?}");
    // The tower of a modality that no model reads stays as it is.
    succeed(&with(&replace(train(&world, "text"), "--epochs", "1"), &["--modalities", "text"]));
    let read = moved(&world.path("encoder"), &world.path("text/encoder"));
    assert!(!read.is_empty() && read.iter().all(|name| name.starts_with("text_")), "{read:?}");
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    let world = World::new();
    let settings = ["--dropout", "0.1", "--negatives", "3", "--checkpoint-steps", "1", "--schedule", "cosine"];
    let args = |out: &str| with(&replace(train(&world, out), "--epochs", "6"), &settings);
    succeed(&with(&args("straight"), &["--threads", "1"]));
    let broken = args("broken");
    let mut child = at_work(&broken, &world.path("broken/last.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = with(&broken, &["--resume"]);
    refuse(
        &replace(resume.clone(), "--encoder-learning-rate", "1e-4"),
        &["last.safetensors", "learning_rate was 0.001"],
    );
    let stored =
        ["train", "--data", world.arg("data"), "--features", world.arg("features"), "--out", world.arg("broken")];
    succeed(&world.encode());
    // Without the flags that are the encoder's alone.
    let at = resume.iter().position(|arg| *arg == "--encoder-learning-rate").unwrap();
    let of_the_model = [&resume[7..at], &resume[at + 2..]].concat();
    refuse(&with(&stored, &of_the_model), &["last.safetensors"]);
    succeed(&resume);
    let read = |out: &str, name: &str| fs::read(world.path(out).join(name)).unwrap();
    for name in ["last.safetensors", "best.safetensors", "encoder/model.safetensors", "encoder/config.json"] {
        assert!(read("straight", name) == read("broken", name), "{name} differs");
    }
    assert!(half_written(&world.path("broken")).is_empty());
    // Its end once more, from the checkpoint of the last epoch.
    assert!(succeed(&resume).contains("6 epochs, 6 done"));
}

#[test]
fn a_signal_ends_it_with_nothing_half_written() {
    let world = World::new();
    let args = replace(train(&world, "run"), "--epochs", "100000");
    let child = at_work(&args, &world.path("run/last.safetensors"));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{errors}");
    assert!(errors.contains("stopped by SIGTERM") && errors.contains("--resume goes on"), "{errors}");
    assert!(half_written(&world.path("run")).is_empty());
    // The encoder in the folder is the one of the model beside it.
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32"]));
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--out", world.arg("eval")][..], &paths].concat());
}

#[test]
fn a_device_trains_as_the_processor_does() {
    let world = World::new();
    fs::write(world.path("chunks.toml"), "[encoder]\nchunk = 7\ndropout = 0.2\n").unwrap();
    let chunks = ["--freeze-layers", "1", "--config", world.arg("chunks.toml")];
    for (model, more) in [("fissfuse", &[][..]), ("bert", &["--lora-rank", "2"]), ("clip-projected", &chunks)] {
        let args = |out: String, device: &'static str| {
            let args = replace(replace(train(&world, &out), "--device", device), "--epochs", "2");
            [&args[..], &["--arithmetic", "f32", "--model", model], more].concat()
        };
        succeed(&args(format!("{model}-host"), "cpu"));
        let output = fissfuse_on_cusim(&args(format!("{model}-device"), "cuda"), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let records = |place: &str| world.read_lines(&format!("{model}-{place}/train.jsonl"));
        for (host, device) in records("host").iter().zip(records("device")) {
            let [host, device] = [host, &device].map(|record| record["loss"].as_f64().unwrap());
            // Sums in another order, six times through AdamW, which divides small gradients by their own size.
            assert!((host - device).abs() <= 1e-3 * host, "{model}: {device}, the host's is {host}");
        }
        assert_eq!(records("device").len(), 2);
        assert!(world.path(&format!("{model}-device/encoder/model.safetensors")).exists());
    }
}

#[test]
fn what_cannot_be_trained_along_is_refused_and_said() {
    let world = World::encoded();
    let args = train(&world, "run");
    let from = |folder: &'static str| replace(args.clone(), "--train-encoder", folder);
    refuse(&from(world.arg("features")), &["is a feature store", "--features trains on it"]);
    refuse(&from(world.arg("data")), &["no config.json", "the directory of a CLIP, a SigLIP, a BERT or a ResNet"]);
    fs::create_dir(world.path("vit")).unwrap();
    fs::write(world.path("vit/config.json"), r#"{"model_type": "vit"}"#).unwrap();
    refuse(&from(world.arg("vit")), &["model_type `vit`", "a CLIP, a SigLIP, a BERT or a ResNet", "--features"]);
    refuse(&replace(args.clone(), "--data", world.arg("features")), &["is no dataset"]);
    refuse(&with(&args, &["--freeze-layers", "2"]), &["freeze_layers = 2", "there are 1 and 1 layers"]);
    refuse(&with(&args, &["--lora-rank", "1", "--freeze-layers", "1"]), &["leaves nothing", "LoRA"]);
    refuse(&with(&args, &["--lora-rank", "99999999999"]), &["lora_rank = 99999999999"]);
    refuse(&with(&args, &["--lora-rank", "33"]), &["lora_rank = 33", "32 wide at most"]);
    // Settings of an encoder that is not trained, and neither features nor an encoder.
    for setting in [["--lora-rank", "1"], ["--freeze-layers", "1"], ["--encoder-learning-rate", "1e-4"]] {
        let output = run(&[&world.train()[..], &setting].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && errors.contains(setting[0]) && errors.contains("--features"),
            "{errors}"
        );
    }
    let neither = run(&["train", "--data", world.arg("data"), "--out", world.arg("run")]);
    let errors = String::from_utf8_lossy(&neither.stderr).into_owned();
    assert!(errors.contains("--features") && errors.contains("--train-encoder"), "{errors}");
    refuse(&replace(args.clone(), "--encoder-learning-rate", "0"), &["encoder: learning_rate = 0"]);
    let at = args.iter().position(|arg| *arg == "--device").unwrap();
    let together = [&args[..at], &args[at + 2..], &["--devices", "cpu,cpu"]].concat();
    refuse(&together, &["--train-encoder", "one device"]);
    refuse(&with(&args, &["--graph"]), &["--graph"]);
    assert!(!world.path("run").exists());
    refuse(&replace(args.clone(), "--out", world.arg("")), &["encoder", "exists already"]);
    assert!(!world.path("last.safetensors").exists());

    // Weights of another shape, and a token that the model does not know.
    let config = fs::read_to_string(world.path("encoder/config.json")).unwrap();
    let change = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        fs::write(world.path("encoder/config.json"), config.replace(from, to)).unwrap();
    };
    change("\"intermediate_size\": 64", "\"intermediate_size\": 96");
    refuse(&args, &["model.safetensors", "mlp.fc1", "has shape [64, 32], needs [96, 32]"]);
    change("\"intermediate_size\": 64", "\"intermediate_size\": 4000000");
    refuse(&args, &["4000000", "up to 65536"]);
    change("\"hidden_size\": 32", "\"hidden_size\": 60000");
    refuse(&args, &["training the encoder needs", "encoder.freeze_layers", "encoder.lora_rank"]);
    fs::write(world.path("encoder/config.json"), &config).unwrap();

    let output = run(&replace(replace(args.clone(), "--encoder-learning-rate", "1e30"), "--learning-rate", "1e30"));
    refused(&output, &["epoch 1, step 2", "lower"]);
    assert!(!world.path("run/encoder").exists() && !world.path("run/best.safetensors").exists());

    fs::write(world.path("data/images/red-ball.png"), "no picture").unwrap();
    let says = ["red-ball.png", "it is the image of entity `Q0`", "--skip-bad lets"];
    refuse(&replace(args.clone(), "--out", world.arg("bad")), &says);
    assert!(!world.path("bad").exists(), "it began to train before it looked at the images");
    // A header alone, which is known when the image is decoded.
    let png = fs::read(world.path("data/images/green-ball.png")).unwrap();
    fs::write(world.path("data/images/red-ball.png"), &png[..60]).unwrap();
    refuse(&replace(args.clone(), "--out", world.arg("cut")), &says);
    let output = run(&with(&replace(args, "--out", world.arg("skipped")), &["--skip-bad"]));
    let errors = String::from_utf8_lossy(&output.stderr);
    let stands_in = "it is the image of entity `Q0`; what stands in for missing images is taken instead";
    assert!(output.status.success() && errors.contains(stands_in), "{errors}");
    // What is left out in training stops no command that is printed.
    let printed = String::from_utf8_lossy(&output.stdout);
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("fissfuse ")).unwrap();
    assert!(command.ends_with(" --skip-bad"), "{command}");
    let features = world.arg("own");
    succeed(&command.split(' ').map(|word| if word == "FEATURES" { features } else { word }).collect::<Vec<_>>());
}

#[test]
fn a_run_without_mentions_to_validate_with_keeps_its_last_encoder() {
    let world = World::new();
    fs::remove_file(world.path("data/valid.jsonl")).unwrap();
    let printed = succeed(&train(&world, "run"));
    assert!(printed.contains("no mention to validate with: epoch 3"), "{printed}");
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32"]));
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--out", world.arg("eval")][..], &paths].concat());
}

#[test]
fn the_command_that_is_printed_makes_features_that_fit() {
    let world = World::new();
    // Without one of the modalities, which `encode` would leave out by itself.
    for split in ["entities", "train", "valid", "test"] {
        let file = format!("data/{split}.jsonl");
        for line in 1..=world.read_lines(&file).len() {
            world.change_line(&file, line, |record| drop(record.as_object_mut().unwrap().remove("image")));
        }
    }
    let bert: &'static str = fixture("bert/sharded-f32").to_str().unwrap().to_string().leak();
    for (name, encoder, model) in [
        ("clip-bert", world.arg("encoder"), "bert"),
        ("bert-bert", bert, "bert"),
        ("clip-fissfuse", world.arg("encoder"), "fissfuse"),
    ] {
        let train = replace(replace(train(&world, name), "--train-encoder", encoder), "--epochs", "1");
        let printed = succeed(&with(&train, &["--model", model]));
        let command = printed.lines().find_map(|line| line.trim().strip_prefix("fissfuse ")).unwrap();
        let modalities = if model == "bert" { "--modalities text" } else { "--modalities both" };
        assert!(command.contains(modalities), "{command}");
        let features: &'static str = world.arg(&format!("{name}-features"));
        succeed(&command.split(' ').map(|word| if word == "FEATURES" { features } else { word }).collect::<Vec<_>>());
        let paths = ["--data", world.arg("data"), "--features", features, "--model", world.arg(name)];
        succeed(&[&["eval", "--device", "cpu", "--out", world.arg(&format!("{name}-eval"))][..], &paths].concat());
    }
}

#[test]
fn another_encoder_is_said_before_the_widths_that_follow_and_a_lost_one_is_noticed() {
    let world = World::encoded();
    let args = train(&world, "run");
    succeed(&args);
    // Of other weights, and of other sizes.
    world.write_encoder("other", 9);
    let other = |encoder: &'static str| with(&replace(args.clone(), "--train-encoder", encoder), &["--resume"]);
    let siglip: &'static str = fixture("siglip/siglip-f32").to_str().unwrap().to_string().leak();
    for encoder in [world.arg("other"), siglip] {
        let says = ["it is of another encoder: text_encoder is \"clip-text:", "in that run, ", "in this call"];
        refuse(&other(encoder), &says);
    }
    // Whose features are whose, and how to make others.
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--model", world.arg("run")];
    let eval = [&["eval", "--device", "cpu", "--out", world.arg("eval")][..], &paths].concat();
    let made = "`fissfuse encode --data DATA --encoder MODEL/encoder --precision f32 --modalities both --out FEATURES`";
    refuse(&eval, &["text_encoder is \"clip-text:", "in the model, \"clip-text:", "in the store", made]);

    // Where the best epoch's encoder is emptied or gone.
    let resume = with(&args, &["--resume"]);
    for entry in fs::read_dir(world.path("run/encoder")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    refuse(&resume, &["run/encoder: has no config.json", "is gone or broken; train again with another --out"]);
    fs::remove_dir(world.path("run/encoder")).unwrap();
    refuse(&resume, &["run/encoder: there is no such folder", "is gone or broken; train again with another --out"]);
}
