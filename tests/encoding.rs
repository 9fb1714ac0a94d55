//! Feature stores made on a device, and encoders that a device or their own files do not go with, through the program.

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::tensor::safetensors::Reader;
use serde_json::json;

use crate::support::{World, fissfuse_on_cusim, fixture, refuse, refused, replace, succeed};

/// Features are stored with 11 bits: where two computations differ a little, they may round to neighbours.
const STEP: f32 = 1.0 / 1024.0;

/// The bound of features in bf16 (tests/encoder.rs).
const BF16: f32 = 2e-2;

/// Its heads are of a width that the kernels do not take in bf16.
const ODD: &str = "clip/gelu-bf16-legacy-eos";

fn argument(path: PathBuf) -> &'static str {
    path.to_str().unwrap().to_string().leak()
}

/// Runs the program on cusim with all its checks; gives what it printed and its warnings.
fn on_cusim(args: &[&str]) -> (String, String) {
    let output = fissfuse_on_cusim(args, &[("CUSIM_CHECK", "all")]);
    let [printed, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && !errors.contains("cusim: ["), "fissfuse {args:?}: {errors}");
    (printed, errors)
}

/// Wants the tensors of two files to be the same but for `bound` of each one's largest element.
fn compare(got: &Path, want: &Path, bound: f32) {
    let [got, want] = [got, want].map(|path| Reader::open(path).unwrap());
    assert!(got.names().eq(want.names()));
    for name in got.names().filter(|name| !name.ends_with(".stamps")) {
        if name.ends_with(".keys") || name.ends_with(".offsets") {
            assert_eq!(got.values::<u64>(name).unwrap(), want.values::<u64>(name).unwrap());
            continue;
        }
        let [got, want] = [&got, &want].map(|reader| reader.tensor(name).unwrap());
        assert_eq!(got.shape(), want.shape());
        let largest = want.data().iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let off = got.data().iter().zip(want.data()).fold(0.0f32, |max, (g, w)| max.max((g - w).abs()));
        assert!(off <= bound * largest, "{name} is off by {off}, its largest element is {largest}");
    }
}

#[test]
fn a_store_made_on_a_device_is_the_cpus() {
    let world = World::new();
    let encode =
        |out: &str, rest: &[&'static str]| [&replace(world.encode(), "--out", world.arg(out))[..], rest].concat();
    let on_cpu = encode("cpu", &["--precision", "f32", "--device", "cpu"]);
    succeed(&on_cpu);
    let (printed, _) = on_cusim(&encode("f32", &["--precision", "f32", "--device", "cuda"]));
    assert!(printed.contains("in f32 on cuda:0"), "{printed}");
    let on_cuda = encode("bf16", &["--device", "cuda"]);
    assert!(on_cusim(&on_cuda).0.contains("in bf16 on cuda:0"));

    let new = json!({"qid": "Q100", "name": "violet ball", "description": "a ball that looks new"});
    world.write_lines("new.jsonl", &[new]);
    let paths = ["--data", world.arg("data"), "--features", world.arg("bf16"), "--encoder", world.arg("encoder")];
    let add = [&["index", "add", "--device", "cuda", "--entities", world.arg("new.jsonl")][..], &paths].concat();
    let (printed, _) = on_cusim(&add);
    assert!(printed.contains("1 texts and 0 images in bf16 on cuda:0"), "{printed}");
    assert!(on_cusim(&on_cuda).0.contains("encoded 0 texts and 0 images"));
    assert!(succeed(&on_cpu).contains("encoded 1 texts and 0 images"));

    for (shard, stores) in [
        ("text-00000.safetensors", &[("f32", STEP), ("bf16", BF16)][..]),
        ("image-00000.safetensors", &[("f32", STEP), ("bf16", BF16)]),
        ("text-00001.safetensors", &[("bf16", BF16)]),
    ] {
        for (store, bound) in stores {
            compare(&world.path(store).join(shard), &world.path("cpu").join(shard), *bound);
        }
    }
}

#[test]
fn embed_on_a_device_is_the_cpus() {
    let folder = tempfile::tempdir().unwrap();
    let [got, want] = ["got", "want"].map(|name| folder.path().join(name));
    let encoders = ["--text-encoder", argument(fixture("bert/sharded-f32")), "--image-encoder"];
    let input = ["--text", "King Hussein, with his wife", "--image", argument(fixture("clip/image.png"))];
    let embed = [&["embed"][..], &encoders, &[argument(fixture("clip/quick-gelu-f16"))], &input].concat();
    // f32 sums in another order; bf16 as above.
    for (precision, bound) in [("f32", 2e-5), ("bf16", BF16)] {
        let out = ["--out", argument(got.clone()), "--precision", precision, "--device", "cuda"];
        on_cusim(&[&embed[..], &out].concat());
        succeed(&[&embed[..], &["--out", argument(want.clone()), "--device", "cpu"]].concat());
        compare(&got, &want, bound);
    }
}

#[test]
fn an_encoder_that_a_device_cannot_take_is_computed_by_the_cpu_or_refused() {
    let world = World::new();
    let encode = [&replace(world.encode(), "--encoder", argument(fixture(ODD)))[..], &["--precision", "bf16"]].concat();
    let named = fissfuse_on_cusim(&[&encode[..], &["--device", "cuda"]].concat(), &[]);
    refused(&named, &["cuda:0", ODD, "in bf16", "must be", "--precision f32, or use --device cpu"]);
    assert!(!world.path("features").exists(), "nothing may be written");
    let (printed, warnings) = on_cusim(&[&encode[..], &["--device", "auto"]].concat());
    assert!(printed.contains("in bf16 on the CPU"), "{printed}");
    assert!(warnings.contains("encoding on the CPU, since cuda:0") && warnings.contains(ODD), "{warnings}");

    succeed(&[&world.train()[..], &["--epochs", "1", "--device", "cpu"]].concat());
    world.write_lines("asked.jsonl", &[World::mention("test", 0)]);
    let link = replace(world.link(), "--encoder", argument(fixture(ODD)));
    let (printed, warnings) = on_cusim(&[&link[..], &["--input", world.arg("asked.jsonl")]].concat());
    assert!(printed.contains("\"mention_id\":\"test-0\"") && warnings.contains("encoding on the CPU"), "{warnings}");
}

#[test]
fn a_tokenizer_of_another_model_is_named() {
    let world = World::new();
    let (model, tokenizer) = (fixture("clip/quick-gelu-f32"), fixture("bert/sharded-f32/tokenizer.json"));
    fs::create_dir(world.path("mixed")).unwrap();
    for file in fs::read_dir(model).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(file.path(), world.path("mixed").join(file.file_name())).unwrap();
    }
    fs::copy(tokenizer, world.path("mixed/tokenizer.json")).unwrap();
    for (text, says) in [("King Hussein", "gives token 66 of a model that has 66"), ("his", "gives no end token")] {
        let embed = ["embed", "--encoder", world.arg("mixed"), "--text", text, "--out", world.arg("x")];
        refuse(&embed, &["mixed/tokenizer.json", says, "another model's"]);
    }
}
