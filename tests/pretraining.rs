//! Contrastive pre-training: its gradients against transformers (tests/fixtures/clip/make_training.py), and the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fissfuse::autograd::{Tape, Var};
use fissfuse::encoder::clip::{ClipFiles, Towers, weights};
use fissfuse::encoder::trained::Layers;
use fissfuse::encoder::{ExifOrientation, ImageEncoder, Precision, TextEncoder};
use fissfuse::ops::clip_norm;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{Shards, Tensor};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::at_work;
use crate::support::{
    fissfuse, fissfuse_bench, fissfuse_on_cusim, fixture, half_written, largest, near, refuse, refused, replace, run,
    succeed,
};

/// As make_training.py has them.
const TEXTS: [&str; 3] = ["hussein of jordan", "a king", "with his wife, and shahbanu farah!"];

#[test]
fn losses_and_gradients_are_those_of_transformers() {
    for name in ["clip/quick-gelu-f32", "clip/gelu-bf16-legacy-eos"] {
        let folder = fixture(name);
        let (files, want) =
            (ClipFiles::read(&folder).unwrap(), Reader::open(&folder.join("training.safetensors")).unwrap());
        let parameters = weights::read(&Shards::open(&folder).unwrap(), &files.config).unwrap();
        let ids = files.tokens(&TEXTS).unwrap();
        let pixels: Vec<f32> = (0..3 * 3 * 40 * 40).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let tape = Tape::recording();
        let vars = parameters.bind(&tape);
        let towers =
            Towers { config: &files.config, layers: Layers { tape: &tape, vars: &vars, gpu: None, masks: None } };
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let images: Vec<&[f32]> = pixels.chunks_exact(3 * 40 * 40).collect();
        let losses: Var = towers.losses(&ids, &images).unwrap();
        // Sums of some dozens of f32 through two blocks, in another order: a hundred roundings of 6e-8.
        near(name, losses.tensor().data(), want.tensor("losses").unwrap().data(), 1e-5);
        let grads = tape.backward(&losses, Tensor::new([2], vec![0.5; 2]).unwrap()).unwrap();
        let mut grads = parameters.gradients(vars, grads).unwrap();
        let mut compared = 0;
        for ((parameter, _), got) in parameters.iter().zip(&grads) {
            let want = want.tensor(&format!("gradient.{parameter}")).unwrap();
            // A key's bias moves all logits of a row alike: its gradient is 0 but for rounding of what it is a sum of.
            let floor = if parameter.ends_with("k_proj.bias") { 1e-1 } else { 1e-3 };
            near(&format!("{name}, {parameter}"), got.data(), want.data(), 2e-4 * largest(want.data()).max(floor));
            compared += 1;
        }
        assert_eq!(compared, want.names().filter(|name| name.starts_with("gradient.")).count());
        let (norm, want) = (clip_norm(&mut grads, 1.0).unwrap() as f32, want.tensor("norm").unwrap().data()[0]);
        assert!((norm - want).abs() <= 1e-4 * want, "{norm}, want {want}");
        let clipped: f32 = grads.iter().flat_map(|grad| grad.data()).map(|x| x * x).sum::<f32>().sqrt();
        assert!((clipped - 1.0).abs() < 1e-4, "{clipped}");
    }
}

/// Twelve pictures of a colour at a place, each with two texts that name both.
struct Toy(TempDir);

const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [220, 20, 20]), ("green", [20, 180, 40]), ("blue", [30, 40, 220]), ("yellow", [230, 220, 30])];
const PLACES: [(&str, u32, u32); 3] = [("left", 0, 4), ("right", 8, 4), ("below", 4, 8)];

const CONFIG: &str = "[model]\nprojection = 16\nimage_size = 16\npatch_size = 4\nvocabulary = 100\nmax_tokens = 12\n\
    [model.text]\nwidth = 16\nlayers = 1\nheads = 2\ninner = 32\n\
    [model.vision]\nwidth = 16\nlayers = 1\nheads = 2\ninner = 32\n\
    [train]\nepochs = 200\nbatch_size = 12\nlearning_rate = 3e-3\nwarmup_steps = 5\nweight_decay = 0.01\n";

impl Toy {
    fn new() -> Toy {
        let toy = Toy(tempfile::tempdir().unwrap());
        fs::create_dir(toy.path("images")).unwrap();
        let mut pairs = Vec::new();
        for (colour, rgb) in COLOURS {
            for (place, left, top) in PLACES {
                let inside = |x: u32, y: u32| (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
                let picture = RgbImage::from_fn(16, 16, |x, y| Rgb(if inside(x, y) { rgb } else { [255; 3] }));
                let image = format!("{colour}-{place}.png");
                picture.save(toy.path("images").join(&image)).unwrap();
                pairs.push(json!({"image": image, "text": format!("a {colour} square, {place}")}));
                pairs.push(json!({"image": image, "text": format!("{place}: something {colour}")}));
            }
        }
        toy.write_pairs("pairs.jsonl", &pairs);
        fs::write(toy.path("toy.toml"), CONFIG).unwrap();
        toy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arg(&self, name: &str) -> &'static str {
        self.path(name).to_str().unwrap().to_string().leak()
    }

    fn write_pairs(&self, name: &str, pairs: &[Value]) {
        fs::write(self.path(name), pairs.iter().map(|pair| format!("{pair}\n")).collect::<String>()).unwrap();
    }

    /// `fissfuse pretrain` of these pairs into this folder, with settings that take the place of the configuration's.
    fn pretrain(&self, pairs: &str, out: &str, settings: &[(&str, &str)]) -> Vec<&'static str> {
        let with = |config: String, (key, value): &(&str, &str)| {
            let line = config.lines().find(|line| line.starts_with(&format!("{key} = "))).map(str::to_string);
            line.map_or(format!("{config}{key} = {value}\n"), |line| config.replace(&line, &format!("{key} = {value}")))
        };
        let name = format!("{out}.toml");
        fs::write(self.path(&name), settings.iter().fold(CONFIG.to_string(), with)).unwrap();
        let paths = ["--pairs", self.arg(pairs), "--images", self.arg("images"), "--out", self.arg(out)];
        [&["pretrain"][..], &paths, &["--config", self.arg(&name), "--device", "cpu"]].concat()
    }

    fn records(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(out).join("pretrain.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The towers' vectors of the directory of a run, by what trains them.
fn towers_of(folder: &Path, texts: &[&str], images: &[Vec<f32>]) -> [Vec<f32>; 2] {
    let files = ClipFiles::read(folder).unwrap();
    let parameters = weights::read(&Shards::open(folder).unwrap(), &files.config).unwrap();
    let tape = Tape::inference();
    let vars = parameters.bind(&tape);
    let towers = Towers { config: &files.config, layers: Layers { tape: &tape, vars: &vars, gpu: None, masks: None } };
    let ids = files.tokens(texts).unwrap();
    let texts = towers.texts(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let images = towers.images(&images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    [texts, images].map(|side| side.tensor().data().to_vec())
}

#[test]
fn a_toy_is_learned_and_what_comes_out_encodes_as_it_was_trained() {
    let toy = Toy::new();
    let train = [&toy.pretrain("pairs.jsonl", "run", &[])[..], &["--valid", toy.arg("pairs.jsonl")]].concat();
    let printed = succeed(&train);
    assert!(printed.contains("24 pairs of 12 images") && printed.contains("the encoders are in"), "{printed}");
    let records = toy.records("run");
    let (first, last) = (&records[0], &records[199]);
    assert!(first["loss"].as_f64().unwrap() > 1.5, "{first}");
    let recall = |way: &str| last["valid"][way]["at1"].as_f64().unwrap();
    // Chance is 1 in 12, and 1 in 3 of an encoder that sees colours alone.
    assert!(recall("text_to_image") >= 0.8 && recall("image_to_text") >= 0.8, "{last}");

    let page = toy.arg("page.html");
    succeed(&["report", toy.arg("run"), "--out", page]);
    let (html, loss) = (fs::read_to_string(page).unwrap(), last["loss"].as_f64().unwrap());
    assert!(html.contains(&format!("loss {loss:.4}")) && html.contains("Held-out texts whose own image"));

    let folder = toy.path("run/encoder");
    let images = ImageEncoder::open(&folder, Precision::F32).unwrap();
    let texts = TextEncoder::open(&folder, Precision::F32).unwrap();
    let prepare = |name: &str| images.prepare(&toy.path("images").join(name), ExifOrientation::Ignore).unwrap();
    let (names, pixels) =
        (["a red square, left", "below: something blue"], ["red-left.png", "blue-below.png"].map(prepare));
    let [want_texts, want_images] = towers_of(&folder, &names, &pixels);
    let encoded = [texts.encode_texts(&names, 77).unwrap(), images.encode_images(&pixels).unwrap()];
    for (encoded, want) in encoded.iter().zip([want_texts, want_images]) {
        let got: Vec<f32> = encoded.iter().flat_map(|of| of.global.clone()).collect();
        // Vectors of length 1, through one block in another order of sums.
        near("global vectors", &got, &want, 1e-5);
    }
    let cosine = |i: usize, j: usize| -> f32 {
        encoded[0][i].global.iter().zip(&encoded[1][j].global).map(|(x, y)| x * y).sum()
    };
    assert!(cosine(0, 0) > cosine(0, 1) && cosine(1, 1) > cosine(1, 0));
    assert!(half_written(toy.0.path()).is_empty());

    // There is nothing left to do, and nothing to write over.
    assert!(succeed(&[&train[..], &["--resume"]].concat()).contains("200 epochs, 200 done"));
    refuse(&train, &["run", "holds a run already"]);
    // From there on.
    let more = toy.pretrain("pairs.jsonl", "more", &[("epochs", "2"), ("learning_rate", "1e-4")]);
    succeed(&[&more[..], &["--from", folder.to_str().unwrap()]].concat());
    assert!(toy.records("more")[0]["loss"].as_f64().unwrap() < first["loss"].as_f64().unwrap() / 2.0);
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    let toy = Toy::new();
    let settings = [("epochs", "12"), ("batch_size", "4"), ("checkpoint_steps", "1")];
    // What it goes on with may compute layers again: the bits are the same.
    let checkpointing = &["--gradient-checkpointing"][..];
    succeed(&[&toy.pretrain("pairs.jsonl", "straight", &settings)[..], checkpointing].concat());
    let broken = toy.pretrain("pairs.jsonl", "broken", &settings);
    let mut child = at_work(&broken, &toy.path("broken/last.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!toy.path("broken/encoder").exists());
    let resume = [&broken[..], &["--resume"]].concat();
    refuse(&[&resume[..], &["--seed", "1"]].concat(), &["last.safetensors", "seed was 0 and is now 1"]);
    succeed(&[&resume[..], checkpointing].concat());
    let read = |out: &str, name: &str| fs::read(toy.path(out).join(name)).unwrap();
    for name in ["last.safetensors", "encoder/model.safetensors", "encoder/tokenizer.json", "encoder/config.json"] {
        assert!(read("straight", name) == read("broken", name), "{name} differs");
    }
    let records = |out: &str| {
        let mut records = toy.records(out);
        records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("pairs_per_second")));
        records
    };
    assert_eq!(records("straight"), records("broken"));
    let changed = |path: PathBuf, bytes: Vec<u8>| {
        let before = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        refuse(&resume, &["last.safetensors", "the pairs have changed since"]);
        fs::write(path, before).unwrap();
    };
    let pairs = fs::read(toy.path("pairs.jsonl")).unwrap();
    changed(toy.path("pairs.jsonl"), [&pairs[..], b"\n"].concat());
    // Another image by the same name.
    let image = |name: &str| fs::read(toy.path("images").join(name)).unwrap();
    changed(toy.path("images/red-left.png"), image("red-right.png"));
    succeed(&resume);
}

#[test]
fn pairs_that_say_nothing_are_named_by_their_line() {
    let toy = Toy::new();
    let good = [json!({"image": "red-left.png", "text": "a"}), json!({"image": "red-right.png", "text": "b"})];
    for (bad, says) in [
        (json!({"text": "alone"}), &["pairs.jsonl:3", "has no `image`"][..]),
        (json!({"image": "", "text": "alone"}), &["has no `image`"]),
        (json!({"image": "red-left.png", "text": " "}), &["has no `text`"]),
        (json!({"image": "none.png", "text": "none"}), &["pairs.jsonl:3", "none.png"]),
        (json!({"image": 3, "text": "three"}), &["pairs.jsonl:3", "no valid record"]),
        (json!({"image": "../pairs.jsonl", "text": "up"}), &["pairs.jsonl:3", "has `..` in it"]),
        (json!({"image": "/etc/passwd", "text": "away"}), &["pairs.jsonl:3", "is absolute"]),
    ] {
        toy.write_pairs("bad-pairs.jsonl", &[&good[..], &[bad]].concat());
        refuse(&toy.pretrain("bad-pairs.jsonl", "run", &[]), says);
        assert!(!toy.path("run").exists());
    }
    // What is seen only when its pixels are read.
    let whole = fs::read(toy.path("images/red-left.png")).unwrap();
    fs::write(toy.path("images/short.png"), &whole[..whole.len() - 20]).unwrap();
    toy.write_pairs("bad-pairs.jsonl", &[&good[..], &[json!({"image": "short.png", "text": "c"})]].concat());
    refuse(&toy.pretrain("bad-pairs.jsonl", "run", &[]), &["bad-pairs.jsonl:3", "short.png"]);
    assert!(!toy.path("run").exists());
    // The same image, written in two ways, is one.
    let image = good[0]["image"].as_str().unwrap();
    let twice = [json!({"image": image, "text": "one"}), json!({"image": format!("./{image}"), "text": "two"})];
    for one in [&good[..1], &twice] {
        toy.write_pairs("one.jsonl", one);
        refuse(&toy.pretrain("one.jsonl", "run", &[]), &["one.jsonl", "1 images", "two at least"]);
    }
    fs::write(toy.path("images/red-right.png"), "no picture").unwrap();
    toy.write_pairs("bad-pairs.jsonl", &good);
    refuse(&toy.pretrain("bad-pairs.jsonl", "run", &[]), &["red-right.png"]);
}

#[test]
fn settings_that_cannot_train_are_refused_and_nothing_broken_is_kept() {
    let toy = Toy::new();
    let with = |settings: &[(&str, &str)]| toy.pretrain("pairs.jsonl", "run", settings);
    refuse(&with(&[("batch_size", "1")]), &["batch_size = 1", "negatives"]);
    refuse(
        &with(&[("projection", "9000000000000000000")]),
        &["model: projection = 9000000000000000000: encoders of sizes up to 65536"],
    );
    refuse(
        &with(&[("projection", "60000"), ("max_tokens", "60000"), ("width", "60000"), ("inner", "60000")]),
        &["memory", "[model]"],
    );
    for size in ["2", "18"] {
        refuse(&with(&[("image_size", size)]), &[&format!("patch_size = 4 does not divide image_size = {size}")]);
    }
    refuse(&with(&[("layers", "0")]), &["model: text.layers = 0: must be at least 1"]);
    refuse(&with(&[("max_tokens", "2")]), &["max_tokens = 2: must be at least 3"]);
    refuse(&with(&[("vocabulary", "1000000000000")]), &["vocabulary = 1000000000000", "4 to 1048576"]);
    refuse(&with(&[("vocabulary", "3")]), &["vocabulary = 3"]);
    refuse(&with(&[("learning_rat", "1")]), &["learning_rat"]);
    let output = run(&with(&[("learning_rate", "1e30"), ("warmup_steps", "0")]));
    refused(&output, &["epoch", "lower"]);
    assert!(!toy.path("run/encoder").exists(), "a broken encoder was kept");
}

#[test]
fn encoders_are_written_in_bf16_where_that_is_asked_for() {
    let toy = Toy::new();
    let train = |out: &str| toy.pretrain("pairs.jsonl", out, &[("epochs", "2")]);
    succeed(&train("wide"));
    let output = run(&[&train("narrow")[..], &["--precision", "bf16", "--trace", toy.arg("trace.json")]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("trace of the last 2 steps"), "{said}");
    let [wide, narrow] = ["wide", "narrow"].map(|run| toy.path(run).join("encoder"));
    let size = |folder: &Path| fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(size(&narrow) * 10 < size(&wide) * 7, "{} of {}", size(&narrow), size(&wide));
    let config = ClipFiles::read(&wide).unwrap().config;
    let [wide, narrow] = [&wide, &narrow].map(|run| weights::read(&Shards::open(run).unwrap(), &config).unwrap());
    for ((name, wide), (_, narrow)) in wide.iter().zip(narrow.iter()) {
        let rounded: Vec<f32> = wide.data().iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
        assert_eq!(narrow.data(), rounded, "{name}");
    }
    let output = run(&[&train("integers")[..], &["--precision", "int8"]].concat());
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_temperature_that_explodes_is_clamped_and_said_and_other_weights_are_refused() {
    let toy = Toy::new();
    succeed(&toy.pretrain("pairs.jsonl", "run", &[("epochs", "1")]));
    let folder = toy.path("run/encoder");
    let files = ClipFiles::read(&folder).unwrap();
    let mut parameters = weights::read(&Shards::open(&folder).unwrap(), &files.config).unwrap();
    parameters.tensors_mut().last_mut().unwrap().data_mut()[0] = 6.0;
    files.write(&parameters, Precision::F32, &toy.path("hot")).unwrap();
    let hot = [&toy.pretrain("pairs.jsonl", "clamped", &[("epochs", "1")])[..], &["--from", toy.arg("hot")]].concat();
    let output = run(&hot);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("the temperature left its bounds and was clamped"), "{errors}");
    let record = &toy.records("clamped")[0];
    assert_eq!(record["clamped_steps"], 1);
    // The exponential of a logarithm that was rounded to f32.
    assert!((record["scale"].as_f64().unwrap() - 100.0).abs() < 1e-4, "{record}");

    let config = fs::read_to_string(toy.path("hot/config.json")).unwrap();
    fs::write(toy.path("hot/config.json"), config.replace("\"intermediate_size\": 32", "\"intermediate_size\": 48"))
        .unwrap();
    let other = [&toy.pretrain("pairs.jsonl", "other", &[])[..], &["--from", toy.arg("hot")]].concat();
    refuse(&other, &["model.safetensors", "mlp.fc1", "has shape [32, 16], needs [48, 16]"]);
    assert!(!toy.path("other/last.safetensors").exists());
}

#[test]
fn a_device_trains_as_the_processor_does() {
    let toy = Toy::new();
    let train_by = |out: &str, device: &'static str, chunk: &str| {
        let settings = [("epochs", "3"), ("batch_size", "5"), ("clip_norm", "2.0"), ("chunk", chunk)];
        let train = [&toy.pretrain("pairs.jsonl", out, &settings)[..], &["--valid", toy.arg("pairs.jsonl")]].concat();
        let train: Vec<&str> = train.into_iter().map(|arg| if arg == "cpu" { device } else { arg }).collect();
        [&train[..], &["--arithmetic", "f32"]].concat()
    };
    let train = |out: &str, device: &'static str| train_by(out, device, "0");
    succeed(&train("host", "cpu"));
    let output = fissfuse_on_cusim(&train("device", "cuda"), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // By chunks of two, of which the last has one.
    succeed(&train_by("chunked-host", "cpu", "2"));
    let output = fissfuse_on_cusim(&train_by("chunked-device", "cuda", "2"), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let others = ["device", "chunked-host", "chunked-device"].map(|out| toy.records(out));
    let beside = others.iter().flat_map(|records| toy.records("host").into_iter().zip(records.clone()));
    for (host, device) in beside {
        for key in ["loss", "text_to_image_loss", "image_to_text_loss", "gradient_norm", "scale"] {
            let (host, device) = (host[key].as_f64().unwrap(), device[key].as_f64().unwrap());
            // Sums in another order, six times through AdamW, which divides small gradients by their own size.
            assert!((host - device).abs() <= 1e-3 * host, "{key}: {device}, the host's is {host}");
        }
    }
    assert_eq!(toy.records("device").len(), 3);
    assert!(toy.path("device/encoder/model.safetensors").exists());
    // The same bits again, and with layers computed again.
    let again = fissfuse_on_cusim(&train("again", "cuda"), &[]);
    assert!(again.status.success());
    let checkpointed = [&train("checkpointed", "cuda")[..], &["--gradient-checkpointing"]].concat();
    let checkpointed = fissfuse_on_cusim(&checkpointed, &[]);
    assert!(checkpointed.status.success());
    let weights = |out: &str| fs::read(toy.path(out).join("encoder/model.safetensors")).unwrap();
    assert!(weights("device") == weights("again"), "other bits of the same run");
    assert!(weights("device") == weights("checkpointed"), "other bits of layers that are computed again");
}

#[test]
fn bf16_operands_train_as_f32_does() {
    let toy = Toy::new();
    let train = |out: &str, arithmetic: &str| {
        // Twenty steps.
        let settings = [("epochs", "10"), ("batch_size", "6")];
        let train = replace(toy.pretrain("pairs.jsonl", out, &settings), "--device", "cuda");
        let output = fissfuse_on_cusim(&[&train[..], &["--arithmetic", arithmetic]].concat(), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let loss = |record: Value| record["loss"].as_f64().unwrap();
        toy.records(out).into_iter().map(loss).collect::<Vec<f64>>()
    };
    let [wide, narrow, again] =
        [("wide", "f32"), ("narrow", "bf16"), ("again", "bf16")].map(|(out, kind)| train(out, kind));
    assert!(wide.len() == 10 && wide[9] < 0.9 * wide[0], "{wide:?}");
    for (epoch, (wide, narrow)) in wide.iter().zip(&narrow).enumerate() {
        // Operands have 8 bits, so products an error of 2^-8 at most, which sums of some dozens of them make smaller.
        assert!((wide - narrow).abs() <= 2e-2 * wide, "epoch {epoch}: {narrow}, in f32 {wide}");
    }
    assert!(wide != narrow, "bf16 computed in f32");
    assert_eq!(narrow, again);
    // Weights, moments and what is written are f32.
    let weights = |out: &str| fs::read(toy.path(out).join("encoder/model.safetensors")).unwrap();
    assert!(weights("narrow") == weights("again"), "other bits of the same run");
    assert_eq!(weights("narrow").len(), weights("wide").len());
}

#[test]
fn a_step_is_timed_as_it_is_configured() {
    let toy = Toy::new();
    let bench = |more: &[&str]| {
        let small = ["pretrain", "--config", toy.arg("toy.toml"), "--device", "cpu", "--runs", "2", "--output", "json"];
        fissfuse_bench().args(small).args(more).output().unwrap()
    };
    let rows = |more: &[&str]| {
        let output = bench(more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        found["results"].as_array().unwrap().clone()
    };
    let figure = |row: &Value, name: &str| row["figures"][name].as_f64().unwrap();
    let whole = rows(&["--pairs", "4,8", "--tokens", "5"]);
    assert_eq!(whole.len(), 2);
    // Every operation is one of a pair, but for the loss's products of all with all.
    let ratio = figure(&whole[1], "flops") / figure(&whole[0], "flops");
    assert!((1.95..2.1).contains(&ratio), "{ratio}");
    // A product costs twice as much backward as forward; attention computes its weights again.
    let ratio = figure(&whole[0], "backward_over_forward");
    assert!((1.9..2.2).contains(&ratio), "{ratio}");
    // Forward is computed once more.
    let chunked = rows(&["--pairs", "4", "--tokens", "5", "--chunk", "2"]);
    let more = figure(&chunked[0], "flops") / figure(&whole[0], "flops");
    assert!((1.2..1.5).contains(&more), "{more}");
    // Layers are four fifths of the toy's forward pass, and are computed once more; by chunks there are four passes, not three.
    for (chunk, passes) in [("0", 3.0), ("2", 4.0)] {
        let flops = |more: &[&str]| {
            let found = rows(&[&["--pairs", "4", "--tokens", "5", "--chunk", chunk], more].concat());
            figure(&found[0], "flops")
        };
        let more = flops(&["--gradient-checkpointing"]) / flops(&[]) - 1.0;
        assert!((0.75..0.85).contains(&(passes * more)), "chunks of {chunk}: {more}");
    }
    refused(&bench(&["--pairs", "1"]), &["--pairs 1", "2 at least"]);
    refused(&bench(&["--tokens", "13"]), &["--tokens 13", "1 to 12"]);
    std::fs::write(toy.path("toy.toml"), CONFIG.replace("vocabulary = 100", "vocabulary = 2")).unwrap();
    refused(&bench(&["--tokens", "5"]), &["vocabulary = 2", "4 to 1048576"]);
}

#[test]
fn the_first_signal_ends_the_learning_of_words() {
    let toy = Toy::new();
    // Long words, so many that learning takes many seconds.
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'a' + (state >> 59) as u8 % 26)
    };
    let mut text = || (0..4_000_000).map(|i| if i % 200 == 199 { ' ' } else { letter() }).collect::<String>();
    let pairs: Vec<String> =
        ["red-left.png", "red-right.png"].map(|image| json!({"image": image, "text": text()}).to_string()).to_vec();
    fs::write(toy.path("long.jsonl"), pairs.join("\n")).unwrap();
    let [pairs, images, out] = ["long.jsonl", "images", "run"].map(|name| toy.path(name).to_str().unwrap().to_string());
    let args = ["pretrain", "--pairs", &pairs, "--images", &images, "--out", &out, "--device", "cpu"];
    let child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    // A slow machine may still be at the pairs.
    assert!(errors.contains("stopped by SIGINT") && errors.contains("nothing is kept"), "{errors}");
    assert!(!toy.path("run").exists());
}
