//! What the tape computes, and its gradients.

use std::fs;
use std::sync::Arc;

use fissfuse::autograd::{Tape, Var};
use fissfuse::data::{Batcher, Dataset, FeatureStore, GoldMissing, Inputs, Sample};
use fissfuse::encoder::clip::{ClipFiles, Towers, weights};
use fissfuse::encoder::trained::{Layers, States};
use fissfuse::encoder::{EncoderPaths, ExifOrientation, ImageEncoder, Precision, TextEncoder};
use fissfuse::model::{Batch, Modality, Model, NETWORKS, Noise, Side};
use fissfuse::ops::Pairing;
use fissfuse::tensor::{FeatureRows, Ragged, RowTable, Shards, Textbook};
use fissfuse::train::Gradients;

use super::{expect_gradients, expect_states, mentions, one, opened, run_of};
use crate::support::{World, fixture, largest, near, succeed};

/// What the towers say on a tape is what the encoders say that `encode` runs.
#[test]
fn the_towers_states_are_those_that_encoders_give() {
    let world = World::new();
    let fixtures =
        ["quick-gelu-f32", "gelu-bf16-legacy-eos", "open-clip-f32"].map(|name| fixture(&format!("clip/{name}")));
    for (number, folder) in fixtures.into_iter().chain([world.path("encoder")]).enumerate() {
        let files = ClipFiles::read(&folder).unwrap();
        let parameters = files.weights(&Shards::open(&folder).unwrap()).unwrap();
        let tape = Tape::inference();
        let vars = parameters.bind(&tape);
        let layers = Layers { tape: &tape, vars: &vars, gpu: None, masks: None };
        let towers = Towers { config: &files.config, layers };
        let texts = ["hussein of jordan", "a king", "with his wife, and shahbanu farah!", ""];
        let size = files.processor.size();
        let images: Vec<Vec<f32>> = (0..3)
            .map(|image| (0..3 * size * size).map(|i| ((i + 7 * image) * 37 % 101) as f32 / 50.0 - 1.0).collect())
            .collect();
        let ids = files.tokens_at_most(&texts, 6).unwrap();
        let encoder = TextEncoder::open(&folder, Precision::F32).unwrap();
        assert_eq!(ids, encoder.tokenize(&texts, 6).unwrap());
        let of_texts = towers.text_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let of_images = towers.image_states(&images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let encoder_images = ImageEncoder::open(&folder, Precision::F32).unwrap().encode_images(&images).unwrap();
        let encoded = [encoder.encode_texts(&texts, 6).unwrap(), encoder_images.clone()];
        for (states, encoded) in [of_texts, of_images].into_iter().zip(encoded) {
            expect_states(&folder.display().to_string(), states, &encoded);
        }
        // A directory of the same kind, and nothing else, comes out.
        let to = world.path(&format!("written-{number}"));
        files.write(&parameters, Precision::F32, &to).unwrap();
        let again = ImageEncoder::open(&to, Precision::F32).unwrap();
        let texts_again = TextEncoder::open(&to, Precision::F32).unwrap();
        assert_eq!(again.encode_images(&images).unwrap(), encoder_images, "{}", folder.display());
        assert_eq!(texts_again.encode_texts(&texts, 6).unwrap(), encoder.encode_texts(&texts, 6).unwrap());
        assert_eq!(to.join("open_clip_config.json").exists(), folder.ends_with("open-clip-f32"));
    }
}

/// Features at these places among states, as if they were stored in f32.
fn stored(states: &States, places: &[usize]) -> Modality {
    let rows = |x: &Var, rows: Vec<u32>| {
        let (x, width) = (x.tensor(), x.tensor().shape()[1]);
        FeatureRows::new(Arc::new(RowTable::from_f32(width, x.data().to_vec()).unwrap()), rows).into()
    };
    let ranges = || places.iter().map(|&place| states.sequences.range(place));
    let textbook = Textbook { sequences: places.len(), length: 64 };
    Modality {
        tokens: rows(&states.tokens, ranges().flat_map(|range| range.start as u32..range.end as u32).collect()),
        sequences: Ragged::new(ranges().map(|range| range.len()), textbook).unwrap(),
        global: rows(&states.global, places.iter().map(|&place| place as u32).collect()),
    }
}

/// A mention and its candidates, with the features that the encoder gives them.
fn batch_of(world: &World, dataset: &Dataset, sample: &Sample) -> Batch {
    let mention = mentions(dataset).into_iter().find(|mention| mention.id == sample.id).unwrap();
    let entities: Vec<_> = sample.candidates.iter().map(|&entity| &dataset.entities()[entity as usize]).collect();
    let of_entities = entities.iter().map(|entity| format!("{}. {}", entity.name, entity.description));
    let own = format!("{}. {}", mention.mention, mention.sentence);
    let texts: Vec<String> = [own].into_iter().chain(of_entities).collect();
    // The mention's image is that of its entity, and is encoded once.
    let mut images = vec![mention.image.unwrap()];
    let mut place = |name: &String| {
        let found = images.iter().position(|image| image == name);
        found.unwrap_or_else(|| {
            images.push(name.clone());
            images.len() - 1
        })
    };
    let places: Vec<usize> = entities.iter().map(|entity| place(entity.image.as_ref().unwrap())).collect();
    let files = ClipFiles::read(&world.path("encoder")).unwrap();
    let parameters = weights::read(&Shards::open(&world.path("encoder")).unwrap(), &files.config).unwrap();
    let tape = Tape::inference();
    let vars = parameters.bind(&tape);
    let layers = Layers { tape: &tape, vars: &vars, gpu: None, masks: None };
    let towers = Towers { config: &files.config, layers };
    let ids = files.tokens_at_most(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 64).unwrap();
    let texts = towers.text_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let prepare = |name: &String| files.processor.prepare(&world.path("data").join(name), ExifOrientation::Ignore);
    let pixels: Vec<Vec<f32>> = images.iter().map(|name| prepare(name).unwrap()).collect();
    let images = towers.image_states(&pixels.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let entity = Side { text: stored(&texts, &(1..=6).collect::<Vec<_>>()), image: stored(&images, &places) };
    let mention = Side { text: stored(&texts, &[0]), image: stored(&images, &[0]) };
    let pairs = Pairing::new(vec![0; 6], 1, (0..6).collect(), 6).unwrap();
    Batch::new(mention, entity, pairs, vec![sample.gold.unwrap()]).unwrap()
}

#[test]
fn every_model_reads_what_is_computed_as_it_reads_what_is_stored() {
    let world = World::new();
    let dataset = opened(&world);
    for network in NETWORKS {
        let settings = format!(
            "[model]\nname = \"{}\"\n{}",
            network.name(),
            match network.settings().contains(&"d") {
                true => "d = 16\n",
                false => "",
            }
        );
        let (mut run, samples) = run_of(&one(world.path("encoder")), &dataset, &settings);
        let (model, sample) = (Model::new(run.model().clone(), 3).unwrap(), &samples[0]);
        let want = model.gradients(&batch_of(&world, &dataset, sample), None).unwrap();
        let (prepared, start) = (run.prepare(&samples[..1]).unwrap(), run.take_start().unwrap());
        let got = run.gradients((&model, &start), &prepared, None).unwrap();
        // Of the same features all compute the same, but for FissFuse, whose projection of stored ones is an operation of its
        // own, with sums in another order: some hundreds of roundings of 6e-8.
        let bound = if network.name() == "fissfuse" { 2e-5 } else { 0.0 };
        near(network.name(), got.losses.data(), want.losses.data(), bound);
        for ((name, _), (got, want)) in model.parameters().iter().zip(got.model.iter().zip(&want.gradients)) {
            near(
                &format!("{}, {name}", network.name()),
                got.data(),
                want.data(),
                bound * largest(want.data()).max(1.0),
            );
        }
        assert!(got.encoder.iter().any(Option::is_some), "{}: nothing reaches the encoder", network.name());
    }
}

#[test]
fn an_entity_that_many_lists_have_is_encoded_once() {
    let world = World::encoded();
    let dataset = opened(&world);
    let manifest = FeatureStore::open(&world.path("features")).unwrap().manifest().clone();
    let mut inputs = Inputs::new(&dataset, manifest);
    let (samples, _) = inputs.samples(&mentions(&dataset), 0, GoldMissing::Drop).unwrap();
    let batch = inputs.batch(&samples).unwrap();
    assert_eq!((batch.pairs.len(), batch.entities[0].len()), (240, 12));
    // Forty sentences and twelve entities; images of mentions are those of entities.
    assert_eq!(batch.distinct.each_ref().map(Vec::len), [52, 12]);
    let mut texts = batch.distinct[0].clone();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 52);
    assert_eq!(inputs.text(batch.distinct[0][batch.mentions[0][1] as usize]), "box. A box number 1 that looks red.");
}

/// Images that are missing have the features that the store gives them.
#[test]
fn missing_images_have_the_features_that_a_store_gives_them() {
    for missing in ["white", "zeros"] {
        let world = World::new();
        for line in [1, 2] {
            world.change_line("data/train.jsonl", line, |mention| {
                drop(mention.as_object_mut().unwrap().remove("image"))
            });
            world.change_line("data/entities.jsonl", line, |entity| {
                drop(entity.as_object_mut().unwrap().remove("image"))
            });
        }
        let settings = format!("[model]\nd = 16\n[encode]\nmissing_image = \"{missing}\"\n");
        fs::write(world.path("settings.toml"), &settings).unwrap();
        succeed(&[&world.encode()[..], &["--config", world.arg("settings.toml"), "--precision", "f32"]].concat());
        let dataset = opened(&world);
        let (mut run, samples) = run_of(&one(world.path("encoder")), &dataset, &settings);
        let store = Arc::new(FeatureStore::open(&world.path("features")).unwrap());
        assert_eq!(store.manifest(), run.manifest());
        let batcher = Batcher::new(&dataset, store);
        let (stored, _) = batcher.samples(&mentions(&dataset), 0, GoldMissing::Drop).unwrap();
        let model = Model::new(run.model().clone(), 3).unwrap();
        let want = model.gradients(&batcher.batch(&stored[..4]).unwrap(), None).unwrap();
        let (prepared, start) = (run.prepare(&samples[..4]).unwrap(), run.take_start().unwrap());
        let got = run.gradients((&model, &start), &prepared, None).unwrap();
        // The store rounds features to f16, by 5e-4 of each.
        near(missing, got.losses.data(), want.losses.data(), 5e-3);
    }
}

#[test]
fn a_batch_in_chunks_has_the_gradients_of_the_whole() {
    let world = World::new();
    world.change_line("data/train.jsonl", 1, |mention| drop(mention.as_object_mut().unwrap().remove("image")));
    let dataset = opened(&world);
    for settings in [
        "[model]\nd = 16\ndropout = 0.2\n[encode]\nmissing_image = \"zeros\"\n[encoder]\n",
        "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nlora_rank = 2\n",
        "[model]\nname = \"clip\"\n[encoder]\nfreeze_layers = 1\n",
        "[model]\nd = 16\n[encoder]\nfreeze_layers = 1\n",
        "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nfreeze_layers = 1\n",
        "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\ndropout = 0.3\n",
    ] {
        let gradients = |chunk: usize| {
            let (mut run, samples) =
                run_of(&one(world.path("encoder")), &dataset, &format!("{settings}chunk = {chunk}\n"));
            let model = Model::new(run.model().clone(), 3).unwrap();
            let (prepared, start) = (run.prepare(&samples[..8]).unwrap(), run.take_start().unwrap());
            let noise = Some(Noise { seed: 1, step: 1 });
            run.gradients((&model, &start), &prepared, noise).unwrap()
        };
        let all = |of: &Gradients| {
            let of_encoder = of.encoder.iter().map(|grad| grad.as_ref().map(|grad| grad.data().to_vec()));
            of_encoder.chain(of.model.iter().map(|grad| Some(grad.data().to_vec()))).collect::<Vec<_>>()
        };
        let want = gradients(0);
        let of_all = all(&want).iter().flatten().map(|grad| largest(grad)).fold(0.0, f32::max);
        for chunk in [1, 5, 1000] {
            let got = gradients(chunk);
            // Sums over other parts, of some hundreds of roundings of 6e-8.
            near(settings, got.losses.data(), want.losses.data(), 2e-5 * largest(want.losses.data()).max(1.0));
            for (i, (got, want)) in all(&got).iter().zip(&all(&want)).enumerate() {
                assert_eq!(got.is_some(), want.is_some(), "{settings}, chunk {chunk}, {i}");
                let (Some(got), Some(want)) = (got, want) else { continue };
                near(&format!("{settings}, chunk {chunk}, {i}"), got, want, 1e-4 * largest(want).max(1e-2 * of_all));
            }
        }
    }
}

/// Values are dropped in training alone, others in another step, and with another seed.
#[test]
fn dropout_is_of_the_seed_and_of_the_step() {
    let world = World::new();
    let dataset = opened(&world);
    let bert = EncoderPaths { text: Some(fixture("bert/sharded-f32")), image: Some(world.path("encoder")) };
    for (paths, model) in
        [(one(world.path("encoder")), "clip"), (bert, "clip"), (one(fixture("bert/sharded-f32")), "bert")]
    {
        let losses = |dropout: f32, noise: Option<(u64, u32)>| {
            let settings = format!("[model]\nname = \"{model}\"\n[encoder]\ndropout = {dropout:?}\n");
            let (mut run, samples) = run_of(&paths, &dataset, &settings);
            let model = Model::new(run.model().clone(), 3).unwrap();
            let (prepared, start) = (run.prepare(&samples[..4]).unwrap(), run.take_start().unwrap());
            let noise = noise.map(|(seed, step)| Noise { seed, step });
            run.gradients((&model, &start), &prepared, noise).unwrap().losses.data().to_vec()
        };
        let without = losses(0.0, Some((1, 1)));
        assert_eq!(losses(0.3, None), without);
        let first = losses(0.3, Some((1, 1)));
        assert_eq!(losses(0.3, Some((1, 1))), first);
        for other in [without, losses(0.3, Some((1, 2))), losses(0.3, Some((2, 1))), losses(0.1, Some((1, 1)))] {
            assert_ne!(other, first, "{model}");
        }
    }
}

#[test]
fn gradients_of_the_whole_chain_are_those_of_finite_differences() {
    let world = World::new();
    let dataset = opened(&world);
    for settings in [
        "[model]\nd = 16\n",
        "[model]\nd = 16\nmodalities = \"text\"\n",
        "[model]\nname = \"clip\"\n",
        "[model]\nname = \"clip\"\n[encoder]\nlora_rank = 2\n",
        "[model]\nname = \"clip-projected\"\nd = 16\n[encoder]\nfreeze_layers = 1\n",
    ] {
        expect_gradients(&one(world.path("encoder")), &dataset, settings);
    }
}
