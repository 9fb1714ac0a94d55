//! Costs of operations beside what cusim counts of the kernels that they launch.

use std::collections::BTreeMap;

use fissfuse::autograd::{Cost, Profile, Tape};
use fissfuse::device::{Clock, Gpu};
use fissfuse::encoder::TrainableEncoder;
use fissfuse::encoder::trained::Layers;
use fissfuse::model::{EntityIndex, GpuScorer, Model, ModelConfig, NETWORKS, PreparedSide, Scorer, Side, Widths};
use fissfuse::profile::flops::Counted;
use fissfuse::profile::measurement::{Measurement, Measurements};
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::{Element, Tensor};
use serde_json::Value;

use crate::support::{counted_on_cusim, cusim, fissfuse_bench, fixture};

/// What `fissfuse-bench flops` says of a step, beside what cusim counted of it.
fn counted_step(work: &[&str]) -> Vec<Measurement> {
    let (library, folder) = (cusim(), tempfile::tempdir().unwrap());
    let counts = folder.path().join("counts.json");
    let mut bench = fissfuse_bench();
    bench.args(["step", "--device", "cuda", "--warmup", "0", "--runs", "1", "--ranges"]).args(work);
    bench.env("LD_LIBRARY_PATH", library.path()).env("CUSIM_COUNT", &counts);
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut flops = fissfuse_bench();
    flops.args(["flops", "--output", "json", "--counts"]).arg(&counts).args(work);
    let output = flops.output().unwrap();
    let step: Measurements = serde_json::from_slice(&output.stdout).unwrap();
    step.results
}

#[test]
fn kernels_compute_what_the_costs_of_a_step_say() {
    for (mentions, d, heads) in [("8", "20", "2"), ("8", "132", "1"), ("16", "100", "1")] {
        let work = ["--mentions", mentions, "--candidates", "5", "--d", d, "--heads", heads];
        let rows = counted_step(&work);
        let all = rows.iter().find(|row| row.name == "all").unwrap();
        let of = |figure: &str| all.figures[figure].unwrap();
        // Tensor cores do what the costs say to the last operation, padding and all.
        let (tensor, said) = (of("counted_tensor_flops"), of("tensor_flops"));
        assert!(tensor > 0.0 && tensor == said && of("unattributed_tensor_flops") == 0.0, "d = {d}: {tensor}, {said}");
        // The rest, too: but for which lanes fill up what, and how nvcc expands exp, it is known from shapes.
        let (rest, unattributed) = (of("counted_flops") - tensor, of("unattributed_flops"));
        assert!(unattributed.abs() <= 0.01 * rest, "d = {d}: {unattributed} of {rest} FLOPs are in no cost");
        let columns = ["executed_flops", "padding_of_d_flops", "padding_of_tiles_flops"].map(of);
        assert!(columns.iter().all(|&flops| flops > 0.0));
        assert_eq!(columns.iter().sum::<f64>() + unattributed, of("counted_flops"));
    }
}

/// Operations whose FLOPs off the tensor cores are not those that their costs say to 2 %: of the other models, scores of an item with
/// itself, activations of single values, GELU, whose erf is computed otherwise near 0, and a layer whose parts' gradients are added
/// to another's.
const ROUGHLY: [(&str, &str); 5] =
    [("clip", "score"), ("mimic", "score"), ("mimic", "activation"), ("drin", "activation"), ("jmel", "linear")];

#[test]
fn each_operation_of_every_model_computes_what_its_cost_says() {
    for model in NETWORKS.iter() {
        let work = ["--model", model.name(), "--mentions", "8", "--candidates", "5", "--d", "100"];
        let rows = counted_step(&work);
        let figure = |row: &Measurement, name: &str| row.figures.get(name).copied().flatten();
        let mut counted = 0.0;
        let operations = rows.iter().filter(|row| row.name != "all" && !row.name.starts_with("stage "));
        for row in operations.filter(|row| figure(row, "counted_flops").is_some()) {
            let of = |name: &str| figure(row, name).unwrap_or(0.0);
            counted += of("counted_flops");
            let what = format!("{}: {}", model.name(), row.name);
            assert_eq!(of("unattributed_tensor_flops"), 0.0, "{what}");
            let (rest, unattributed) = (of("counted_flops") - of("counted_tensor_flops"), of("unattributed_flops"));
            let roughly = ROUGHLY.contains(&(model.name(), &row.name));
            assert!(
                roughly || unattributed.abs() <= 0.02 * rest,
                "{what}: {unattributed} of {rest} FLOPs are in no cost"
            );
        }
        let all = rows.iter().find(|row| row.name == "all").unwrap();
        assert_eq!(Some(counted), figure(all, "counted_flops"), "{}: operations do not add up", model.name());
    }
}

/// A pass forward and backward through an encoder, of images if it takes them and else of texts; what its operations cost.
fn pass(encoder: &str, gpu: Option<&Gpu>) -> BTreeMap<&'static str, Cost> {
    let folder = fixture(encoder);
    let files = TrainableEncoder::read(&folder).unwrap();
    let (parameters, profile) = (files.weights(&folder).unwrap().to(gpu).unwrap(), Profile::new(Clock::Host));
    let tape = Tape::recording().profiled().timed(&profile);
    let vars = parameters.bind(&tape);
    let layers = Layers { tape: &tape, vars: &vars, gpu, masks: None };
    let states = match files.processor().map(|processor| processor.size()) {
        Some(size) => {
            let image = |i: usize| (0..3 * size * size).map(|at| (at + i) as f32 % 7.0 - 3.0).collect();
            let images: Vec<Vec<f32>> = (0..3).map(image).collect();
            files.image_states(layers, &images.iter().map(Vec::as_slice).collect::<Vec<_>>())
        }
        None => {
            let ids = files.tokens_at_most(&["a king", "hussein of jordan", "with his wife"], 9).unwrap();
            files.text_states(layers, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>())
        }
    };
    // From the global vectors alone: what is added to another gradient is in no cost.
    let global = states.unwrap().global;
    let ones = Tensor::filled(global.tensor().shape(), 1.0, gpu).unwrap();
    tape.backward_of(vec![(&global, ones)]).unwrap();
    let mut costs = BTreeMap::new();
    for timed in profile.timed().unwrap() {
        *costs.entry(timed.sample.op).or_default() += timed.sample.cost();
    }
    costs
}

/// Holds the operations of an encoder that is trained to what cusim counts of them in the test with this path: on tensor cores to
/// the last operation, of the rest within 2 %, but for GELU's layers, whose erf is computed otherwise near 0. These must be among them.
fn expect_costs(test: &str, encoder: &str, some: &[&str]) {
    let Some(counts) = counted_on_cusim(test, |gpu| drop(pass(encoder, Some(gpu)))) else { return };
    let costs = pass(encoder, None);
    for op in some {
        assert!(costs.contains_key(op), "{encoder}: no {op} ran");
    }
    for (op, cost) in costs {
        let Counted { flops, tensor, unattributed, unattributed_tensor } =
            Counted::of_operations(&counts, &[op], &cost).unwrap();
        assert!(
            flops > 0 && unattributed_tensor == 0,
            "{encoder}: {op}: {unattributed_tensor} of {tensor} are in no cost"
        );
        let (rest, roughly) = ((flops - tensor) as f64, op == "linear" && encoder.starts_with("bert"));
        let beyond = unattributed.abs() as f64;
        assert!(roughly || beyond <= 0.02 * rest, "{encoder}: {op}: {unattributed} of {rest} FLOPs are in no cost");
    }
}

/// Every operation of a ResNet, at even and at odd sides of its maps.
#[test]
fn each_operation_of_a_trained_resnet_computes_what_its_cost_says() {
    let test = "costs::each_operation_of_a_trained_resnet_computes_what_its_cost_says";
    let all = ["convolution", "max_pool", "multiply", "sum", "activation", "sequence_pool"];
    expect_costs(test, "resnet/three-stages-f32", &all);
}

#[test]
fn each_operation_of_a_resnet_of_odd_sides_computes_what_its_cost_says() {
    let test = "costs::each_operation_of_a_resnet_of_odd_sides_computes_what_its_cost_says";
    expect_costs(test, "resnet/classifier-bf16", &["convolution", "max_pool"]);
}

#[test]
fn each_operation_of_a_trained_clip_computes_what_its_cost_says() {
    let test = "costs::each_operation_of_a_trained_clip_computes_what_its_cost_says";
    expect_costs(test, "clip/quick-gelu-f32", &["linear", "attention", "layer_norm", "gather"]);
}

#[test]
fn each_operation_of_a_trained_bert_computes_what_its_cost_says() {
    let test = "costs::each_operation_of_a_trained_bert_computes_what_its_cost_says";
    expect_costs(test, "bert/sharded-f32", &["linear", "attention", "layer_norm", "gather"]);
}

/// What cusim counts of a step of pretraining beside what its operations say that they need.
#[test]
fn a_step_of_pretraining_computes_and_moves_hardly_more_than_its_operations_have_to() {
    let folder = tempfile::tempdir().unwrap();
    let (config, counts) = (folder.path().join("clip.toml"), folder.path().join("counts.json"));
    let tower = "width = 64\nlayers = 4\nheads = 2\ninner = 256\n";
    let sizes = "projection = 32\nimage_size = 32\npatch_size = 8\nvocabulary = 200\nmax_tokens = 16";
    std::fs::write(&config, format!("[model]\n{sizes}\n[model.text]\n{tower}[model.vision]\n{tower}")).unwrap();
    let library = cusim();
    let step = |more: &[&str]| -> Measurement {
        let mut bench = fissfuse_bench();
        bench.args(["pretrain", "--pairs", "8", "--tokens", "12", "--device", "cuda", "--runs", "1", "--warmup", "0"]);
        bench.args(["--output", "json", "--config"]).arg(&config).args(more);
        let output = bench.env("LD_LIBRARY_PATH", library.path()).env("CUSIM_COUNT", &counts).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut found: Measurements = serde_json::from_slice(&output.stdout).unwrap();
        let step = found.results.remove(0);
        let of = |name: &str| step.figures[name].unwrap();
        let counted: Value = serde_json::from_slice(&std::fs::read(&counts).unwrap()).unwrap();
        // The step that is measured, and the one before whose operations are noted.
        let counted =
            |of: &dyn Fn(&Value) -> f64| counted["kernels"].as_array().unwrap().iter().map(of).sum::<f64>() / 2.0;
        let bytes = counted(&|kernel| {
            ["loaded_once_bytes", "stored_once_bytes"].map(|name| kernel[name].as_f64().unwrap()).iter().sum()
        });
        // Beyond the least, all gradients are written once more where they are cut to a length.
        let ratio = bytes / of("least_bytes");
        assert!((1.0..1.3).contains(&ratio), "{more:?}: {ratio}");
        let tensor = counted(&|kernel| kernel["operations"]["tensor_tf32"].as_f64().unwrap_or(0.0));
        assert!(tensor > 0.0 && tensor == of("tensor_flops"), "{more:?}: {tensor}, {}", of("tensor_flops"));
        step
    };
    let (kept, again) = (step(&[]), step(&["--gradient-checkpointing"]));
    let of = |step: &Measurement, name: &str| step.figures[name].unwrap();
    assert!(of(&kept, "backward_over_forward") <= 2.1);
    // Every product of the layers once more.
    let more = of(&again, "tensor_flops") / of(&kept, "tensor_flops");
    assert!((1.25..1.34).contains(&more), "{more}");
    // Of eight texts of 12 tokens and images of 17 patches, what four layers keep at least: inputs, and normalized rows in f16.
    let rows = (8 * (12 + 17) * 4 * 4 * (7 * 64 + 256)) as f64;
    let [kept, again] = [&kept, &again].map(|step| of(step, "device_peak_bytes"));
    assert!(kept - again >= 2.0 / 3.0 * rows, "{again} of {kept} bytes, activations take {rows}");
}

const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };

/// A mention of so many tokens and patches, 40 entities, and those of them that are its candidates.
const LINKED: (Shape, usize, [u32; 10]) = (Shape::WIKIDIVERSE, 40, [31, 2, 17, 8, 39, 0, 25, 11, 3, 22]);

fn linked_sides() -> [Side; 2] {
    let (shape, entities, _) = LINKED;
    [(1, 1), (entities, 2)].map(|(items, which)| shape.side(items, WIDTHS, 5, which).unwrap())
}

#[test]
fn linking_a_mention_moves_its_rows_and_the_weights_once() {
    let [mention, entities] = linked_sides();
    let d = 100;
    let counts = counted_on_cusim("costs::linking_a_mention_moves_its_rows_and_the_weights_once", |gpu| {
        let model = Model::new(ModelConfig { widths: WIDTHS, d, ..ModelConfig::default() }, 5).unwrap();
        let (scorer, mention) = (Scorer::new(&model).unwrap(), PreparedSide::new(&model, &mention).unwrap());
        let mut index = EntityIndex::new(&scorer, Element::F16);
        index.add(&PreparedSide::new(&model, &entities).unwrap(), LINKED.1).unwrap();
        GpuScorer::new(&scorer, gpu).unwrap().score(mention.mention(0), &index, &LINKED.2).unwrap();
    });
    let Some(counts) = counts else { return };
    let kernel = counts.kernels.iter().find(|kernel| kernel.kernel.starts_with("link_f16")).unwrap();
    assert_eq!(kernel.launches, 1);
    let rows =
        |side: &Side, item: usize| side.text.sequences.range(item).len() + side.image.sequences.range(item).len();
    let of_candidates: usize = LINKED.2.iter().map(|&entity| rows(&entities, entity as usize)).sum();
    // Of a candidate: logit vectors in f16 and queries of both modalities, Fusion's three vectors, its number, where its rows begin
    // and end, and six scores.
    let candidate = 2 * (2 + 4) * d + 3 * 4 * d + 4 + 2 * 8 + 6 * 4;
    let mention = 4 * d * (rows(&mention, 0) + 2 * 2 + 3);
    // Value layers, which hold the output layers, with normalizations; Eq. 7's two MLPs.
    let weights = 4 * (2 * (d * d + 3 * d) + 2 * (2 * d * d + d + d * d + d));
    let least = 2 * d * of_candidates + candidate * LINKED.2.len() + mention + weights;
    let times = kernel.once_bytes() as f64 / least as f64;
    println!("linking a mention moves {times:.4} times the bytes of its rows and the weights");
    assert!((1.0..=1.05).contains(&times), "{} of {least}: {times}", kernel.once_bytes());
}

#[test]
fn a_mention_goes_from_features_to_scores_as_one_graph_of_which_nothing_else_comes_back() {
    let [_, entities] = linked_sides();
    let test = "costs::a_mention_goes_from_features_to_scores_as_one_graph_of_which_nothing_else_comes_back";
    let counts = counted_on_cusim(test, |gpu| {
        let model = Model::new(ModelConfig { widths: WIDTHS, d: 20, ..ModelConfig::default() }, 5).unwrap();
        let scorer = Scorer::new(&model).unwrap();
        let mut index = EntityIndex::new(&scorer, Element::F16);
        index.add(&PreparedSide::new(&model, &entities).unwrap(), LINKED.1).unwrap();
        let model = model.to(Some(gpu)).unwrap();
        let mut scorer = GpuScorer::new(&scorer, gpu).unwrap();
        // Others of this shape take the graph of the first.
        let shape = Shape { max_tokens: LINKED.0.mean_tokens, ..LINKED.0 };
        for (seed, candidates) in [(1, 10), (2, 4), (3, 9)] {
            let mention = shape.side(1, WIDTHS, seed, 1).unwrap();
            scorer.score_features(&model, &mention, &index, &[&LINKED.2[..candidates]]).unwrap();
        }
    });
    let Some(counts) = counts else { return };
    let calls = |name: &str| counts.calls.get(name).copied().unwrap_or(0);
    // Made once, and once before its kernels were loaded.
    let recorded = (calls("cuGraphInstantiateWithFlags"), calls("cuGraphExecUpdate_v2"));
    assert_eq!((calls("cuGraphLaunch"), recorded, calls("cuMemcpyDtoHAsync_v2")), (3, (2, 0), 0));
    let of = |kernel: &str| counts.kernels.iter().filter(|k| k.kernel.starts_with(kernel)).map(|k| k.launches).sum();
    // Projections, poolings, four queries and a star, of two layers each, logit vectors of four attentions, two of which complete
    // each other here; their rows are scaled for the kernel that scores.
    let (all, scoring): (u64, u64) = (of(""), of("link"));
    println!("from features to scores is {} launches", all / 3);
    assert!(all <= 3 * 10 && scoring == 3, "{all}, {scoring} of which score");
}
