//! Weights that are rounded by what a text shows of them.

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::llama::{
    Calibration, Checkpoint, Llama, LlamaConfig, Precision, Source, convert, foretell, write_random,
};
use fissfuse::tensor::gguf::Gguf;
use fissfuse::tensor::safetensors::{Reader, Writer};
use fissfuse::tensor::{BlockType, Tensor};
use tempfile::{TempDir, tempdir};

use crate::llama::draw;
use crate::support::{fissfuse_on_cusim, refuse, succeed};

const TEXT: &str = "a red ball, a blue ball, 12 of them; a green one rolls below the table and nobody sees it again";

/// A random model whose MLP's inner rows are whole blocks of the K types, and whose others are not.
fn model(tied: bool) -> (TempDir, PathBuf) {
    let of = LlamaConfig::read(draw("grouped-tied").path()).unwrap();
    let config = LlamaConfig { vocab_size: 300, intermediate_size: 512, tied, ..of };
    let folder = tempdir().unwrap();
    let path = folder.path().join("model");
    write_random(&path, &config, Precision::F32, 3, [TEXT].into_iter()).unwrap();
    (folder, path)
}

fn open(path: &Path, kind: BlockType, calibration: Option<&Calibration>) -> (Llama, u64) {
    let source = Source::open(path).unwrap();
    let mut checkpoint = Checkpoint::open(&source, Some(Precision::Blocks(kind))).unwrap();
    if let Some(calibration) = calibration {
        checkpoint = checkpoint.calibrated(calibration.clone()).unwrap();
    }
    let llama = Llama::of(source, &checkpoint, None).unwrap();
    let bytes = llama.bytes_per_token();
    (llama, bytes)
}

/// `fissfuse llm convert` of a directory to a file, rounded by a text that is read on a device.
fn converting<'a>(from: &'a str, to: &'a str, [precision, text, device]: [&'a str; 3]) -> Vec<&'a str> {
    let model = ["llm", "convert", "--model", from, "--out", to, "--precision", precision];
    [&model[..], &["--calibrate", text, "--device", device]].concat()
}

#[test]
fn a_text_says_which_errors_count() {
    for tied in [false, true] {
        let (_folder, path) = model(tied);
        let exact = Llama::open(&path, None, None).unwrap();
        let calibration = Calibration::of(&Source::open(&path).unwrap(), None, TEXT, 64, |_, _| {}).unwrap();
        for kind in [BlockType::Q4K, BlockType::Q5K, BlockType::Q6K, BlockType::Q4_0] {
            let [(fixed, bytes), (by_text, no_more)] = [None, Some(&calibration)].map(|of| open(&path, kind, of));
            assert!(no_more <= bytes, "{kind}: {no_more} bytes instead of {bytes}");
            // With more bits nothing of weights drawn alike is left to be decided.
            if matches!(kind, BlockType::Q5K | BlockType::Q6K) {
                continue;
            }
            let [before, after] =
                [&fixed, &by_text].map(|other| foretell(&exact, Some(other), TEXT, 64, |_, _| {}).unwrap().divergence);

            assert!(after < before, "{kind}, tied {tied}: a divergence of {after} instead of {before}");
        }
    }
}

#[test]
fn the_mean_squares_are_those_of_what_goes_in() {
    let (_folder, path) = model(true);
    let of =
        |path: &Path, context| Calibration::of(&Source::open(path).unwrap(), None, TEXT, context, |_, _| {}).unwrap();
    let calibration = of(&path, 64);
    // A normalized row's mean square is about that of its gains, which are 0.9 to 1.1.
    for layer in ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.up_proj", "lm_head", "model.embed_tokens"] {
        let squares = calibration.importance(layer).unwrap();
        let mean = squares.iter().sum::<f32>() / squares.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{layer}: {mean}");
    }
    let both = ["q", "v"].map(|part| calibration.importance(&format!("model.layers.1.self_attn.{part}_proj")));
    assert_eq!(both[0], both[1]);
    // Tokens that begin anew see less before them, but each is read once.
    assert_ne!(of(&path, 8).importance("lm_head"), calibration.importance("lm_head"));
    assert_eq!(of(&path, 64).importance("lm_head"), calibration.importance("lm_head"), "runs agree");
    let (_folder, untied) = model(false);
    let calibration = of(&untied, 64);
    assert_eq!(calibration.importance("model.embed_tokens"), None, "it multiplies nothing");
}

#[test]
fn a_file_is_what_was_measured() {
    let (folder, path) = model(false);
    let (text, out) = (folder.path().join("text.txt"), folder.path().join("out.gguf"));
    fs::write(&text, TEXT).unwrap();
    let [from, text, to] = [&path, &text, &out].map(|path| path.to_str().unwrap());
    let convert_to = |to, precision, text| converting(from, to, [precision, text, "cpu"]);
    succeed(&convert_to(to, "q4_k", text));
    // As the command cuts it.
    let calibration = Calibration::of(&Source::open(&path).unwrap(), None, TEXT, 512, |_, _| {}).unwrap();
    let (want, _) = open(&path, BlockType::Q4K, Some(&calibration));
    let got = Llama::open(&out, None, None).unwrap();
    let [want, got] = [&want, &got].map(|llama| llama.logits(&[3, 5, 7, 298]).unwrap());
    assert_eq!(got.data(), want.data());
    let table = succeed(&[
        "llm",
        "perplexity",
        "--model",
        from,
        "--text",
        text,
        "--compare",
        "q4_k",
        "--calibrate",
        text,
        "--context",
        "64",
    ]);
    assert!(table.contains("q4_k"), "{table}");

    let elsewhere = folder.path().join("elsewhere.gguf");
    let elsewhere = elsewhere.to_str().unwrap();
    for precision in ["f16", "q8_0"] {
        let says = format!("{precision} is not rounded by a text; q4_k, q5_k, q6_k and q4_0 are");
        refuse(&convert_to(elsewhere, precision, text), &[&says]);
    }
    refuse(&convert_to(elsewhere, "q4_k", "missing.txt"), &["missing.txt: cannot read"]);
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    refuse(&convert_to(elsewhere, "q4_k", empty.to_str().unwrap()), &["fewer than two tokens"]);
    fs::write(&empty, [0xff, 0xfe, 0x00]).unwrap();
    refuse(&convert_to(elsewhere, "q4_k", empty.to_str().unwrap()), &["empty.txt", "UTF-8"]);
    assert!(!Path::new(elsewhere).exists());
    refuse(
        &["llm", "convert", "--model", to, "--out", elsewhere, "--precision", "q4_k", "--calibrate", text],
        &["out.gguf", "cannot be rounded by a text", "a Hugging Face directory"],
    );
    let back = folder.path().join("back");
    let source = Source::open(&out).unwrap();
    let refused = convert(&source, &back, Precision::F16, Some(calibration.clone()), |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("a calibration serves the blocks of GGUF files"), "{refused}");
    // Of another model.
    let other = draw("multi-head");
    let checkpoint = Checkpoint::open(&Source::open(other.path()).unwrap(), Some(Precision::Blocks(BlockType::Q4_0)));
    let refused = checkpoint.unwrap().calibrated(calibration).map(drop).unwrap_err().to_string();
    assert!(refused.contains("the calibration is another model's: nothing fits model.layers"), "{refused}");
}

#[test]
fn a_device_reads_a_text_and_the_file_that_comes_of_it() {
    let (folder, path) = model(true);
    // Gates that four bits hold as they are, beside ups that more would help.
    let file = path.join("model.safetensors");
    let reader = Reader::open(&file).unwrap();
    let level = |t: Tensor| Tensor::new(t.shape(), vec![0.25; t.len()]).unwrap();
    let changed = |name: &str| match (name.contains("gate_proj"), reader.tensor(name).unwrap()) {
        (true, gates) => (name.to_string(), level(gates)),
        (false, as_it_was) => (name.to_string(), as_it_was),
    };
    let tensors: Vec<(String, Tensor)> = reader.names().map(changed).collect();
    let mut writer = Writer::default();
    for (name, tensor) in &tensors {
        writer.tensor(name, tensor);
    }
    writer.write(&file).unwrap();
    let (text, out) = (folder.path().join("text.txt"), folder.path().join("out.gguf"));
    fs::write(&text, &TEXT[..40]).unwrap();
    let [from, text, to] = [&path, &text, &out].map(|path| path.to_str().unwrap());
    let convert = converting(from, to, ["q4_k", text, "cuda"]);
    let compare = ["llm", "perplexity", "--model", from, "--text", text, "--compare-with", to, "--context", "32"];
    for args in [&convert[..], &[&compare[..], &["--device", "cuda"]].concat()] {
        let output = fissfuse_on_cusim(args, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // A device multiplies gates and ups by turns.
    let file = Gguf::open(&out).unwrap();
    let kinds =
        |part: &str| (0..2).map(|i| file.precision(&format!("blk.{i}.{part}.weight")).unwrap()).collect::<Vec<_>>();
    assert_eq!(kinds("ffn_gate"), kinds("ffn_up"));
}
