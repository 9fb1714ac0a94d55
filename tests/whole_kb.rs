//! Mentions against all entities at once: the scores are those of lists.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, OnceLock};

use fissfuse::data::{Batcher, Dataset, FeatureStore, GoldMissing, Mention, Sample, Skipped, Split, Tolerance};
use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::eval::{
    Evaluation, FirstStage, Keeping, ShortlistSettings, WholeKb, WholeKbEvaluation, evaluate, evaluate_whole,
};
use fissfuse::model::{EntityIndex, Modalities, Model, ModelConfig, PreparedMention, PreparedSide, Scorer, Widths};
use fissfuse::profile::synthetic::Shape;
use fissfuse::search::Source;
use fissfuse::tensor::Element;
use fissfuse::train::TrainedModel;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::support::{self, ENTITIES, World, refuse, run, succeed};

const WIDTHS: Widths = Widths { text: 32, text_global: 24, image: 40, image_global: 24 };

#[test]
fn a_pair_has_the_same_bits_whatever_it_is_scored_with() {
    // Texts of one row and more; more mentions and entities than are scored at a time, and a last one alone.
    let shape = Shape { mentions: 1, candidates: 1, mean_tokens: 2, max_tokens: 5, patches: 3 };
    let (mentions, entities) = (17, 151);
    for (d, heads, modalities, element) in [
        (20, 1, Modalities::Both, Element::F32),
        (36, 3, Modalities::Both, Element::F16),
        (100, 1, Modalities::Both, Element::F16),
        (20, 2, Modalities::Image, Element::F32),
    ] {
        let config = ModelConfig { widths: WIDTHS, d, heads, modalities, ..ModelConfig::default() };
        let model = Model::new(config, 5).unwrap();
        let prepare = |items, which| PreparedSide::new(&model, &shape.side(items, WIDTHS, 5, which).unwrap()).unwrap();
        let (scorer, all) = (Scorer::new(&model).unwrap(), (0..entities as u32).collect::<Vec<_>>());
        let mut index = EntityIndex::new(&scorer, element);
        index.add(&prepare(entities, 1), entities).unwrap();
        let side = prepare(mentions, 0);
        let together: Vec<PreparedMention> = (0..mentions).map(|m| side.mention(m)).collect();
        let scores = scorer.score_together(&together, &index, &all).unwrap();
        let kinds = scorer.kinds().len();
        assert_eq!(scores.len(), mentions * kinds * entities);
        let backwards: Vec<u32> = all.iter().rev().copied().collect();
        for list in [&all[..], &backwards, &all[149..], &all[7..8], &all[3..53], &[9, 9, 4]] {
            for (m, mention) in together.iter().enumerate() {
                let got = scorer.score(*mention, &index, list).unwrap();
                for (kind, got) in got.chunks_exact(list.len()).enumerate() {
                    for (got, &entity) in got.iter().zip(list) {
                        let want = scores[(m * kinds + kind) * entities + entity as usize];
                        let what = format!("d {d}, {heads} heads, mention {m}, score {kind}, entity {entity}");
                        assert_eq!(got.to_bits(), want.to_bits(), "{what} of {}: {got}, not {want}", list.len());
                    }
                }
            }
        }
        assert!(scorer.score_together(&[], &index, &all).unwrap().is_empty());
        assert!(scorer.score(together[0], &index, &[]).unwrap().is_empty());
    }
}

/// A trained model and test mentions of which some say nothing of their entity's colour, so that it does not always rank first.
fn hard() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let world = World::new();
        let mut mentions = world.read_lines("data/test.jsonl");
        for (i, mention) in mentions.iter_mut().enumerate().filter(|(i, _)| i % 4 != 0) {
            mention["sentence"] = json!(format!("A thing, number {i}."));
            mention.as_object_mut().unwrap().remove("image");
        }
        world.write_lines("data/test.jsonl", &mentions);
        world.change_line("data/entities.jsonl", 3, |entity| drop(entity.as_object_mut().unwrap().remove("image")));
        world.change_line("data/entities.jsonl", 8, |entity| {
            drop(entity.as_object_mut().unwrap().remove("description"))
        });
        succeed(&world.encode());
        succeed(&[&world.train()[..], &["--epochs", "1"]].concat());
        world
    })
}

/// The dataset of `world` with its features and model, as the commands read them.
fn opened(world: &World) -> (Dataset, Batcher, Model) {
    let dataset = Dataset::open(&world.path("data"), Tolerance::Strict, &mut Skipped::default()).unwrap();
    let store = FeatureStore::open(&world.path("features")).unwrap();
    let batcher = Batcher::new(&dataset, Arc::new(store));
    (dataset, batcher, TrainedModel::read(&world.path("model")).unwrap().model)
}

fn settings(percent: usize, block: usize) -> WholeKb {
    let keeping = Keeping { percent, full_precision: true, block };
    WholeKb { top: ENTITIES, seed: 0, keeping, shortlist: None }
}

/// Mentions of the test split, each with all entities as its candidates.
fn with_all(dataset: &Dataset) -> Vec<Mention> {
    let mut mentions = dataset.mentions(Split::Test, &mut Skipped::default()).unwrap();
    mentions.iter_mut().for_each(|mention| mention.candidates = Some((0..ENTITIES as u32).collect()));
    mentions
}

/// Compares rankings with lists' entity by entity. What is prepared in blocks of other sizes, or elsewhere, is summed in
/// another order.
fn same(got: &WholeKbEvaluation, (samples, want): &(Vec<Sample>, Evaluation), tolerance: f32) {
    for (m, (sample, ranked)) in got.samples.iter().zip(&got.evaluation.ranked).enumerate() {
        let (listed, of_list) = (&samples[m], &want.ranked[m]);
        assert_eq!((&sample.id, sample.candidates.len()), (&listed.id, ENTITIES));
        assert_eq!(ranked.rank, of_list.rank, "{}", sample.id);
        assert_eq!(sample.gold.map(|at| at as usize + 1), Some(ranked.rank));
        for (at, entity) in sample.candidates.iter().enumerate() {
            let place = listed.candidates.iter().position(|listed| listed == entity).unwrap();
            for k in 0..6 {
                let (got, want) = (ranked.scores[k * ENTITIES + at], of_list.scores[k * ENTITIES + place]);
                assert!(
                    (got - want).abs() <= tolerance * want.abs().max(1.0),
                    "{}, score {k}: {got}, {want}",
                    sample.id
                );
            }
        }
    }
    assert_eq!(got.evaluation.mean, want.mean);
    assert_eq!(got.evaluation.per_score, want.per_score);
}

#[test]
fn ranks_among_all_entities_are_those_of_a_list_of_all() {
    let (dataset, batcher, model) = opened(hard());
    let mentions = with_all(&dataset);
    let (samples, _) = batcher.samples(&mentions, 0, GoldMissing::Drop).unwrap();
    let bar = ProgressBar::hidden();
    let lists = evaluate(&model, &batcher, &samples, &bar).unwrap();
    let lists = (samples, lists);
    let (samples, counts) = batcher.without_lists(&mentions).unwrap();
    assert_eq!((counts.mentions, counts.dropped), (10, 0));
    let ranks: HashSet<usize> = lists.1.ranked.iter().map(|ranked| ranked.rank).collect();
    assert!(ranks.len() > 3, "{ranks:?}");
    let whole = |settings: &WholeKb| {
        evaluate_whole((&model, None), (&batcher, ENTITIES), (&samples, &samples), settings, &bar).unwrap()
    };
    // Kept and prepared anew, in blocks of which the last is short.
    let kept = whole(&settings(60, 5));
    same(&kept, &lists, 1e-5);
    let streamed = whole(&settings(0, 5));
    for (kept, streamed) in kept.evaluation.ranked.iter().zip(&streamed.evaluation.ranked) {
        assert_eq!((&kept.scores, kept.rank), (&streamed.scores, streamed.rank), "the same blocks have the same bits");
    }
    same(&whole(&settings(60, 4096)), &lists, 1e-5);
    // Fewer are listed, and ranked among all the same.
    let few = whole(&WholeKb { top: 2, ..settings(60, 4096) });
    assert_eq!(few.evaluation.mean, lists.1.mean);
    for (few, all) in few.samples.iter().zip(&kept.samples) {
        assert_eq!(few.candidates, all.candidates[..2]);
    }
}

#[test]
fn a_device_ranks_all_entities_block_by_block_as_the_host_does() {
    support::on_device("whole_kb::a_device_ranks_all_entities_block_by_block_as_the_host_does", || {
        let (dataset, batcher, model) = opened(hard());
        let (samples, _) = batcher.without_lists(&with_all(&dataset)[..3]).unwrap();
        let gpu = Gpu::open(0, Arithmetic::F32).unwrap();
        let whole = |gpu: Option<&Gpu>, settings: &WholeKb| {
            let bar = ProgressBar::hidden();
            evaluate_whole((&model, gpu), (&batcher, ENTITIES), (&samples, &samples), settings, &bar).unwrap()
        };
        let host = whole(None, &settings(60, 4096));
        let host = (host.samples, host.evaluation);
        // Both compute in f32, in another order. Once all are on the device, once a block at a time.
        for percent in [60, 0] {
            same(&whole(Some(&gpu), &settings(percent, 5)), &host, 2e-5);
        }
        // A first stage scans on the device, and lists what the host's lists.
        for source in [Source::Scan, Source::ScanInt8] {
            let listed = |gpu: Option<&Gpu>| {
                let of = ShortlistSettings { length: 5, min_recall: 0.0, recall_mentions: 3, seed: 0 };
                let shortlist = Some(FirstStage { settings: of, source: source.clone() });
                let found = whole(gpu, &WholeKb { shortlist, ..settings(60, 5) });
                let sorted = |sample: &Sample| sample.candidates.iter().copied().collect::<BTreeSet<u32>>();
                found.samples.iter().map(sorted).collect::<Vec<_>>()
            };
            let on_host = listed(None);
            assert!(on_host.iter().all(|list| list.len() == 5) && on_host[0] != on_host[1], "{on_host:?}");
            let (on_device, kernels) = gpu.launches_of(|| listed(Some(&gpu)));
            assert_eq!(on_device, on_host, "{source:?}");
            assert!(kernels.contains("top_k_of_values"), "{source:?}: {kernels:?}");
        }
    });
}

#[test]
fn eval_ranks_whole_knowledge_bases() {
    let world = hard();
    let whole = |out: &str, more: &[&'static str]| {
        let printed = succeed(&[&world.eval(out)[..], &["--protocol", "whole-kb"], more].concat());
        let text = std::fs::read_to_string(world.path(out).join("metrics.json")).unwrap();
        (printed, serde_json::from_str::<Value>(&text).unwrap(), world.read_lines(&format!("{out}/run.jsonl")))
    };
    let (printed, metrics, lines) = whole("whole", &["--top", "3"]);
    assert!(printed.contains("chance") && !printed.contains("the lists' order"), "{printed}");
    assert_eq!(metrics["protocol"], "whole-kb");
    assert_eq!(metrics["whole_kb"]["entities"], ENTITIES);
    assert_eq!(metrics["baselines"]["chance"]["MR"], (ENTITIES + 1) as f64 / 2.0);
    assert_eq!(metrics["counts"]["mentions"], 10);
    let rank = |line: &Value| line["rank"].as_u64().unwrap();
    let mean_rank = lines.iter().map(rank).sum::<u64>() as f64 / 10.0;
    assert!((metrics["mean"]["MR"].as_f64().unwrap() - mean_rank).abs() < 1e-9);
    for line in &lines {
        assert_eq!(line["candidates"].as_array().unwrap().len(), 3);
        assert_eq!(line["gold"].is_null(), rank(line) > 3, "{line}");
    }
    // A list of all entities finds everything and changes nothing.
    let first_stage = ["--shortlist", "12", "--min-recall", "1", "--top", "3"];
    let (printed, listed, of_list) = whole("shortlist", &first_stage);
    assert!(printed.contains("for 10 of 10 mentions: recall 100.00 %, 95 % interval 72.25"), "{printed}");
    assert_eq!((&listed["protocol"], &listed["whole_kb"]["recall"]["found"]), (&json!("shortlist"), &json!(10)));
    assert_eq!((&listed["mean"], &listed["per_score"]), (&metrics["mean"], &metrics["per_score"]));
    let names = |lines: &[Value]| lines.iter().map(|line| line["candidates"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&of_list), names(&lines));
    // One of a single entity does not: what the whole model ranks first is not always what Fusion does.
    let (printed, single, one) = whole("single", &["--shortlist", "1", "--min-recall", "0", "--recall-mentions", "9"]);
    let recall = &single["whole_kb"]["recall"];
    let found = recall["found"].as_u64().unwrap();
    assert!(
        recall["mentions"] == 9 && found < 9 && printed.contains(&format!("for {found} of 9 mentions")),
        "{printed}"
    );
    for line in &one {
        let hit = line["candidates"][0] == line["gold"];
        assert_eq!((rank(line), line["candidates"].as_array().unwrap().len()), (2 - hit as u64, 1), "{line}");
    }
    let refused = [&world.eval("refused")[..], &["--protocol", "whole-kb", "--shortlist", "1"]].concat();
    refuse(
        &refused,
        &["a list of 1 holds the whole model's first entity", "below --min-recall 0.99", "raise --shortlist"],
    );
    assert!(!world.path("refused").exists(), "nothing is written");
}

#[test]
fn link_answers_the_same_alone_in_batches_and_from_a_list_of_all() {
    let world = World::trained();
    let all: Vec<String> = (0..ENTITIES).map(|i| format!("Q{i}")).collect();
    let mention = |i: usize, candidates: Option<&[String]>| {
        let mut mention = World::mention("test", i);
        mention["candidates"] = json!(candidates);
        mention
    };
    // The fourth has a list in either file.
    let asked = |whole: bool| -> Vec<Value> {
        let list = |i: usize| if i == 3 { Some(&all[2..5]) } else { Some(&all[..]).filter(|_| !whole) };
        (0..6).map(|i| mention(i, list(i))).collect()
    };
    world.write_lines("whole-asked.jsonl", &asked(true));
    world.write_lines("list-asked.jsonl", &asked(false));
    let link = |input: &str, more: &[&'static str]| -> Vec<Value> {
        let args = [&world.link()[..], &["--input", world.arg(input), "--top", "5", "--device", "cpu"], more].concat();
        succeed(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let want = link("list-asked.jsonl", &[]);
    assert_eq!(want[3]["links"].as_array().unwrap().len(), 3);
    for more in
        [&[][..], &["--batch", "4"], &["--batch", "100", "--index-memory", "0"], &["--shortlist", "12", "--batch", "2"]]
    {
        let got = link("whole-asked.jsonl", more);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got["mention_id"], want["mention_id"]);
            let (got, want) = (got["links"].as_array().unwrap(), want["links"].as_array().unwrap());
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                assert_eq!(got["qid"], want["qid"], "{more:?}");
                let numbers = ["score", "confidence"].map(|name| (&got[name], &want[name]));
                let scores = want["scores"].as_object().unwrap().iter().map(|(kind, x)| (&got["scores"][kind], x));
                for (got, want) in numbers.into_iter().chain(scores) {
                    let [got, want] = [got, want].map(|x| x.as_f64().unwrap());
                    // Entities that are prepared in blocks of other sizes are summed in another order.
                    assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{more:?}: {got}, not {want}");
                }
            }
        }
    }
    // A bad line among others, and a bad image, fail alone.
    let mut bad = asked(true);
    bad[1]["image"] = json!("images/none.png");
    bad[4] = json!({"mention_id": "no"});
    world.write_lines("bad-asked.jsonl", &bad);
    let got = link("bad-asked.jsonl", &["--batch", "5", "--skip-bad"]);
    let wrong: Vec<usize> = (0..6).filter(|&i| !got[i]["error"].is_null()).collect();
    assert_eq!(wrong, [1, 4]);
    assert_eq!(got[5]["links"][0]["qid"], want[5]["links"][0]["qid"]);
}

#[test]
fn what_cannot_rank_a_whole_knowledge_base_says_so() {
    let world = World::trained();
    let whole = |more: &[&'static str]| [&world.eval("never")[..], &["--protocol", "whole-kb"], more].concat();
    refuse(&whole(&["--shortlist", "13"]), &["--shortlist 13: a list has at least one entity and at most all 12"]);
    // Flags that say nothing of a scan.
    for (flag, says) in [
        (["--database-timeout", "5"], "--database-timeout: scan is no server"),
        (["--database-key-env", "KEY"], "--database-key-env: scan is no server"),
        (["--search-breadth", "9"], "--search-breadth: scan looks at every vector"),
    ] {
        refuse(&whole(&[&["--shortlist", "3"], &flag[..]].concat()), &[says]);
    }
    refuse(&whole(&["--gold-missing", "miss"]), &["--gold-missing is of lists"]);
    refuse(&[&world.eval("never")[..], &["--shortlist", "3"]].concat(), &["a first stage of --protocol whole-kb"]);
    for usage in [&["--shortlist", "0"][..], &["--top", "0"], &["--min-recall", "0.5"], &["--index-memory", "91"]] {
        assert_eq!(run(&whole(usage)).status.code(), Some(2), "{usage:?}");
    }
    assert_eq!(run(&whole(&["--shortlist", "2", "--min-recall", "1.5"])).status.code(), Some(2));
    assert!(!world.path("never").exists());
    let world = World::encoded();
    // A model without the Fusion branch has nothing that a first stage could compare.
    succeed(&[&world.train()[..], &["--epochs", "1", "--ablation", "b"]].concat());
    let whole = |more: &[&'static str]| [&world.eval("eval")[..], &["--protocol", "whole-kb"], more].concat();
    succeed(&whole(&[]));
    refuse(&whole(&["--shortlist", "3"]), &["no scores of the Fusion branch", "leave it out"]);
    // A mention without its gold entity has no rank; nor has one that the features lack.
    let whole_line = World::mention("test", 2);
    world.change_line("data/test.jsonl", 3, |mention| drop(mention.as_object_mut().unwrap().remove("gold")));
    refuse(&whole(&[]), &["test.jsonl:3: mention `test-2`: has no `gold`"]);
    world.change_line("data/test.jsonl", 3, |mention| *mention = whole_line);
    world.change_line("data/entities.jsonl", 4, |entity| entity["name"] = json!("renamed"));
    refuse(&whole(&[]), &["entity `Q3`", "lacks its text", "fissfuse encode"]);
    let other = World::encoded();
    succeed(&[&other.train()[..], &["--epochs", "1", "--model", "mimic"]].concat());
    let whole = [&other.eval("eval")[..], &["--protocol", "whole-kb"]].concat();
    refuse(&whole, &["mimic does not prepare entities apart from mentions", "fissfuse candidates"]);
}
