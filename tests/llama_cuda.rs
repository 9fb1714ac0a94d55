//! The decoder on devices against the decoder on the CPU.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Output;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::llama::{Generation, Llama, LlamaConfig, Precision, Preset, Sampling, Wanted, write_random};
use fissfuse::profile::counts::Counts;
use serde_json::Value;
use tempfile::TempDir;

use crate::support;

/// Runs the body of a test of this file on a device.
fn on_device(test: &str, body: impl FnOnce()) {
    support::on_device(&format!("llama_cuda::{test}"), body);
}

const TEXTS: [&str; 3] = ["a red ball and a green box", "the mention is in the sentence", "which of these is it"];

fn small() -> LlamaConfig {
    let tiny = Preset::Tiny.config();
    LlamaConfig {
        vocab_size: 301,
        hidden_size: 64,
        intermediate_size: 192,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ..tiny
    }
}

fn model(config: &LlamaConfig, precision: Precision) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_random(folder.path(), config, precision, 7, TEXTS.into_iter()).unwrap();
    folder
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + seed * 101) % 290 + 2) as u32).collect()
}

fn agrees(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * largest, "{what}: [{i}] is {got}, should be {want} of {largest}");
    }
}

fn open(folder: &Path, precision: Option<Precision>, gpu: Option<&Gpu>) -> Llama {
    Llama::open(folder, precision, gpu).unwrap()
}

/// Logits of a text cut in three: a prefix, more prefix, and the rest, beside a short sequence on the same prefix.
fn in_pieces(llama: &Llama, ids: &[u32], cuts: [usize; 2]) -> Vec<f32> {
    let first = llama.prefill_prefix(None, &ids[..cuts[0]]).unwrap();
    let second = llama.prefill_prefix(Some(&first), &ids[cuts[0]..cuts[1]]).unwrap();
    let engine = llama.engine();
    let rest = &ids[cuts[1]..];
    let mut sequences = [(Some(&second), rest), (Some(&first), &ids[..3])]
        .map(|(prefix, tokens)| (engine.sequence(prefix, tokens.len()).unwrap(), tokens));
    let mut batch: Vec<_> = sequences.iter_mut().map(|(sequence, tokens)| (sequence, *tokens)).collect();
    let logits = engine.forward(&mut batch, Wanted::All).unwrap();
    logits[..rest.len() * llama.config().vocab_size].to_vec()
}

#[test]
fn logits_are_the_cpus_for_any_split_in_f32() {
    on_device("logits_are_the_cpus_for_any_split_in_f32", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let ids = tokens(75, 1);
        for (config, precision) in [
            (small(), Precision::F32),
            (LlamaConfig { tied: true, kv_heads: 4, ..small() }, Precision::Bf16),
            (LlamaConfig { kv_heads: 1, ..small() }, Precision::F16),
        ] {
            let folder = model(&config, precision);
            // In f32 the CPU's keys and values are f32, too.
            let want = open(folder.path(), Some(Precision::F32), None).logits(&ids).unwrap();
            let device = open(folder.path(), None, Some(&gpu));
            let got = device.logits(&ids).unwrap();
            agrees("whole", got.data(), want.data(), 1e-4);
            for cuts in [[1, 2], [66, 74]] {
                let rest = &want.data()[cuts[1] * config.vocab_size..];
                agrees(&format!("cut at {cuts:?}"), &in_pieces(&device, &ids, cuts), rest, 1e-4);
            }
        }
    });
}

#[test]
fn logits_are_near_the_cpus_in_every_precision() {
    on_device("logits_are_near_the_cpus_in_every_precision", || {
        let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
        let ids = tokens(75, 2);
        let folder = model(&small(), Precision::F32);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8, Precision::Int4] {
            let want = open(folder.path(), Some(precision), None).logits(&ids).unwrap();
            let device = open(folder.path(), Some(precision), Some(&gpu));
            let tolerance = if precision == Precision::F32 { 1e-4 } else { 2e-2 };
            agrees(&format!("{precision}"), device.logits(&ids).unwrap().data(), want.data(), tolerance);
            let rest = &want.data()[70 * 301..];
            agrees(&format!("{precision} in pieces"), &in_pieces(&device, &ids, [65, 70]), rest, tolerance);
        }
    });
}

#[test]
fn generated_tokens_are_the_cpus_in_f32() {
    on_device("generated_tokens_are_the_cpus_in_f32", || {
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let folder = model(&small(), Precision::F32);
        let prompts = [tokens(60, 3), tokens(2, 4), tokens(9, 5)];
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let [device, cpu] = [Some(&gpu), None].map(|gpu| open(folder.path(), None, gpu));
        let generate = |llama: &Llama, sampling| {
            let prefix = llama.prefill_prefix(None, &tokens(67, 6)).unwrap();
            let how = Generation { sampling, max_new_tokens: 12 };
            // One answer is cut short, so that the batch shrinks on the way.
            let mut heard = 0;
            let on_token = |number, _| {
                heard += (number == 1) as usize;
                if heard == 5 && number == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            llama.generate(Some(&prefix), &prompts, how, on_token).unwrap().0
        };
        let drawn = |temperature, top_p| Sampling { temperature, top_p, seed: 3 };
        for sampling in [Sampling::GREEDY, drawn(0.8, 0.9), drawn(1.5, 1.0)] {
            let got = generate(&device, sampling);
            assert_eq!(got, generate(&cpu, sampling), "{sampling:?}");
            assert_eq!((got[0].tokens.len(), got[1].tokens.len()), (12, 5), "{sampling:?}");
        }
    });
}

#[test]
fn the_logits_of_some_tokens_are_theirs_among_all() {
    on_device("the_logits_of_some_tokens_are_theirs_among_all", || {
        let gpu = Gpu::open(0, Arithmetic::Mixed).unwrap();
        let folder = model(&small(), Precision::Bf16);
        for gpu in [Some(&gpu), None] {
            let llama = open(folder.path(), None, gpu);
            let (texts, asked) = ([tokens(7, 8), tokens(1, 9)], [300, 5, 77]);
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let all = llama.continue_from(None, &texts).unwrap();
            let mut sequences: Vec<_> =
                texts.iter().map(|text| (llama.engine().sequence(None, text.len()).unwrap(), *text)).collect();
            let mut batch: Vec<_> = sequences.iter_mut().map(|(sequence, text)| (sequence, *text)).collect();
            let got = llama.engine().logits_of(&mut batch, &asked).unwrap();
            let want: Vec<f32> = all.iter().flat_map(|row| asked.map(|token| row[token as usize])).collect();
            assert_eq!(got, want);
            let beyond = llama.engine().logits_of(&mut batch, &[301]).unwrap_err().to_string();
            assert!(beyond.contains("token 301 is beyond the vocabulary of 301"), "{beyond}");
        }
    });
}

/// `fissfuse llm` on cusim.
fn llm(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let model = ["llm", "--device", "cuda", "--prompt", "a", "--model", folder.to_str().unwrap()];
    let cusim = support::cusim();
    let mut command = support::fissfuse(&[&model[..], args].concat());
    command.env("LD_LIBRARY_PATH", cusim.path()).envs(environment.iter().copied());
    command.output().unwrap()
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let config = LlamaConfig { layers: 8, hidden_size: 256, intermediate_size: 1024, context: 1 << 20, ..small() };
    let folder = model(&config, Precision::F32);
    // 8 layers of about a million weights each, beside activations of 13 MB.
    let failed = llm(folder.path(), &["--precision", "f32"], &[("CUSIM_FAIL", "memory=36MiB")]);
    support::refused(&failed, &["cuda:0", "f32 weights and activations need", "what would fit: bf16", "int4"]);
    let failed = llm(folder.path(), &["--max-new-tokens", "100000"], &[("CUSIM_FAIL", "memory=96MiB")]);
    support::refused(&failed, &["cuda:0", "tokens need", "tokens would fit", "fewer new tokens"]);
    let wide = LlamaConfig { hidden_size: 260, head_dim: 130, heads: 2, kv_heads: 2, ..small() };
    let folder = model(&wide, Precision::F32);
    support::refused(&llm(folder.path(), &[], &[]), &["heads of 130 values", "--device cpu"]);
}

/// The products of few rows among what cusim counted.
fn products(counts: &Value) -> impl Iterator<Item = &Value> {
    let kernels = counts["kernels"].as_array().unwrap();
    let of_few = |kernel: &str| kernel.starts_with("linear_few") || kernel.starts_with("linear_blocks");
    kernels.iter().filter(move |k| of_few(k["kernel"].as_str().unwrap()))
}

/// Bytes of the sectors that they loaded as weights, as often as they loaded them.
fn loaded(counts: &Value) -> u64 {
    let lines = include_str!("../kernels/decoder.cuh").lines().enumerate();
    // The compiler counts an asm statement to its last line.
    let places: Vec<String> = lines
        .filter(|(_, line)| line.contains("L1::no_allocate"))
        .map(|(at, _)| format!("decoder.cuh:{}", at + 3))
        .collect();
    let lines = products(counts).flat_map(|k| k["lines"].as_array().unwrap());
    let of_weights = lines.filter(|line| places.iter().any(|place| line["source"].as_str().unwrap().ends_with(place)));
    of_weights.map(|line| 32 * line["global_load"]["sectors"].as_u64().unwrap()).sum()
}

#[test]
fn a_decoding_step_reads_each_weight_once() {
    let config = LlamaConfig { hidden_size: 512, intermediate_size: 1408, vocab_size: 1003, layers: 2, ..small() };
    let config = LlamaConfig { heads: 8, kv_heads: 2, head_dim: 64, ..config };
    let folder = model(&config, Precision::Bf16);
    // Bits of a weight, and how many share a scale that lies elsewhere: blocks have theirs among their codes.
    for (precision, bits, group) in [
        ("bf16", 16.0, None),
        ("int8", 8.0, Some(128.0)),
        ("int4", 4.0, Some(64.0)),
        ("q8_0", 8.5, None),
        ("q4_0", 4.5, None),
    ] {
        let counts = folder.path().join(format!("{precision}.json"));
        let environment = [("CUSIM_COUNT", counts.to_str().unwrap())];
        let output = llm(folder.path(), &["--precision", precision, "--max-new-tokens", "5"], &environment);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let decoded = errors.lines().find_map(|line| line.strip_prefix("decode: ")?.split(' ').next()?.parse().ok());
        let passes: u64 = 1 + decoded.unwrap_or(0u64);
        let counts: Value = serde_json::from_str(&std::fs::read_to_string(&counts).unwrap()).unwrap();
        // The last layer keeps 8 bits where the layers have 4.
        let head = if bits < 8.0 { bits + 4.0 } else { bits };
        let [blocks, head] = [(config.matrix_parameters() - 512 * 1003, bits), (512 * 1003, head)]
            .map(|(numbers, bits)| numbers as f64 * bits / 8.0);
        let scales = group.map_or(0.0, |group| blocks / bits * 16.0 / group + 512.0 * 1003.0 * 2.0 / 128.0);
        let once: u64 = products(&counts).map(|k| k["loaded_once_bytes"].as_u64().unwrap()).sum();
        let all = once as f64 / passes as f64 / (blocks + head + scales);
        println!("{precision}: a step touches {all:.4} of its weights' bytes, with scales and activations");
        assert!((1.0..=1.02).contains(&all), "{precision}: {all}");
        // What blocks load is not told from the rest by its line.
        if !precision.starts_with('q') {
            let codes = loaded(&counts) as f64 / passes as f64 / (blocks + head);
            println!("{precision}: and loads its weights {codes:.4} times");
            assert!((0.9999..1.0001).contains(&codes), "{precision}: {codes}");
        }
    }
}

#[test]
fn a_decoding_step_is_five_launches_a_layer() {
    // Of a step: two more tokens have one more than one has, since the first comes of the prompt.
    let launches = |folder: &Path, precision: &str| -> u64 {
        let of = |tokens: &str| {
            let model = ["llm", "--device", "cuda", "--prompt", "a", "--model", folder.to_str().unwrap()];
            let how = ["--precision", precision, "--max-new-tokens", tokens];
            support::launches_on_cusim(&[&model[..], &how].concat())
        };
        of("4") - of("3")
    };
    let sizes = |layers| LlamaConfig { hidden_size: 256, intermediate_size: 512, layers, ..small() };
    let folders = [1, 3].map(|layers| model(&sizes(layers), Precision::F32));
    for precision in ["f32", "bf16", "f16", "int8", "int4", "q8_0"] {
        let [one, three] = folders.each_ref().map(|folder| launches(folder.path(), precision));
        let layer = (three - one) / 2;
        println!("{precision}: {layer} launches a layer, {} of 32 layers", one + 31 * layer);
        assert_eq!((three - one, layer), (2 * layer, 5), "{precision}");
        assert!(one + 31 * layer <= 170, "{precision}: {one} of one layer");
    }
}

#[test]
fn decoding_whose_kernels_begin_early_gives_the_same_text() {
    let folder = model(&LlamaConfig { hidden_size: 256, intermediate_size: 512, layers: 2, ..small() }, Precision::F32);
    // What is generated on an H200 with all of cusim's checks, and whether kernels were launched early.
    let generated = |precision: &str, environment: &[(&str, &str)]| {
        let counts = folder.path().join("counts.json");
        let path = folder.path().to_str().unwrap();
        let args = ["llm", "--device", "cuda", "--prompt", "a red", "--max-new-tokens", "4", "--model", path];
        let checked = [("CUSIM_DEVICE", "h200"), ("CUSIM_CHECK", "all"), ("FISSFUSE_MEMORY_CACHE", "off")];
        let counted = [("CUSIM_COUNT", counts.to_str().unwrap())];
        let all = [&checked[..], &counted, environment].concat();
        let output = support::fissfuse_on_cusim(&[&args[..], &["--precision", precision]].concat(), &all);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("cusim: ["), "{precision} {environment:?}: {errors}");
        let early = Counts::read(&counts).unwrap().calls.get("cuLaunchKernelEx").is_some_and(|calls| *calls > 0);
        (String::from_utf8_lossy(&output.stdout).into_owned(), early)
    };
    for precision in ["f32", "bf16", "int4", "q8_0"] {
        let (text, early) = generated(precision, &[]);
        assert!(early, "{precision}");
        assert_eq!(generated(precision, &[("FISSFUSE_EARLY_LAUNCH", "off")]), (text, false), "{precision}");
    }
    // Graphs of CUDA 12.2 do not keep it, and older devices do not have it.
    let usual = generated("bf16", &[]).0;
    assert_eq!(generated("bf16", &[("CUSIM_DRIVER", "535")]), (usual, false));
    assert!(!generated("bf16", &[("CUSIM_DEVICE", "rtx3090")]).1);
}
