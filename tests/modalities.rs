//! One modality alone, from a dataset or encoders that lack the other, through every command.

use std::fs;

use serde_json::{Value, json};

use crate::support::{World, refuse, replace, run, succeed};

/// A dataset in which nothing has an image, as MELBench's.
pub fn without_images() -> World {
    let world = World::new();
    for file in ["entities", "train", "valid", "test"].map(|name| format!("data/{name}.jsonl")) {
        let mut lines = world.read_lines(&file);
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("image")));
        world.write_lines(&file, &lines);
    }
    fs::remove_dir_all(world.path("data/images")).unwrap();
    world
}

/// Trains, evaluates, links and re-ranks with one modality.
fn go_through(world: &World, modalities: &'static str, encoder: &'static str, scores: [&str; 2]) {
    refuse(&world.train(), &["made without an encoder of", "--modalities"]);
    let train = [&world.train()[..], &["--epochs", "1", "--modalities", modalities]].concat();
    succeed(&train);
    let printed = succeed(&world.eval("eval"));
    assert!(scores.iter().all(|score| printed.contains(score)), "{printed}");
    let mut link = world.link();
    let at = link.iter().position(|argument| *argument == "--encoder").unwrap();
    link[at] = encoder;
    let mut mention = World::mention("test", 3);
    if modalities == "text" {
        mention.as_object_mut().unwrap().remove("image");
    }
    world.write_lines("asked.jsonl", &[mention.clone()]);
    let linked = succeed(&[&link[..], &["--input", world.arg("asked.jsonl"), "--top", "6"]].concat());
    let linked: Value = serde_json::from_str(&linked).unwrap();
    // As eval ranks it.
    let ranked = &world.read_lines("eval/run.jsonl")[3];
    let links: Vec<&Value> = linked["links"].as_array().unwrap().iter().map(|link| &link["qid"]).collect();
    assert_eq!(json!(links), ranked["candidates"]);
    succeed(&["llm", "random", "--out", world.arg("llama"), "--layers", "1", "--precision", "f32"]);
    let data = ["rerank", "--data", world.arg("data"), "--ranking", world.arg("eval/run.jsonl")];
    let rest = ["--llm", world.arg("llama"), "--out", world.arg("eval/reranked.jsonl"), "--k", "2"];
    succeed(&[&data[..], &rest].concat());
    succeed(&["eval", "--data", world.arg("data"), "--ranking", world.arg("eval/reranked.jsonl")]);
}

#[test]
fn a_dataset_without_images_needs_no_encoder_of_images() {
    let world = without_images();
    let mut encode = world.encode();
    let at = encode.iter().position(|argument| *argument == "--encoder").unwrap();
    encode[at] = "--text-encoder";
    let output = run(&encode);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("names no image: its texts alone are encoded"), "{errors}");
    assert!(succeed(&encode).contains("encoded 0 texts and 0 images"));
    world.write_lines("new.jsonl", &[json!({"qid": "Q100", "name": "a thing"})]);
    let add = ["index", "add", "--entities", world.arg("new.jsonl"), "--data", world.arg("data")];
    let paths = ["--features", world.arg("features"), "--text-encoder", world.arg("encoder")];
    assert!(succeed(&[&add[..], &paths].concat()).contains("encoded 1 texts and 0 images"));
    go_through(&world, "text", "--text-encoder", ["S1T", "S2T"]);
}

#[test]
fn a_dataset_with_images_is_encoded_by_its_texts_alone_only_if_told() {
    let world = World::new();
    let text_alone = ["--text-encoder", world.arg("encoder"), "--out", world.arg("features")];
    let encode = [&["encode", "--data", world.arg("data")][..], &text_alone].concat();
    refuse(&encode, &["no encoder of images is given", "--modalities text"]);
    let printed = succeed(&[&encode[..], &["--modalities", "text"]].concat());
    assert!(printed.contains(" texts and 0 images"), "{printed}");
}

#[test]
fn images_alone_need_no_encoder_of_texts() {
    let world = World::new();
    let mut encode = [&world.encode()[..], &["--modalities", "image"]].concat();
    let at = encode.iter().position(|argument| *argument == "--encoder").unwrap();
    encode[at] = "--image-encoder";
    let printed = succeed(&encode);
    assert!(printed.contains("encoded 0 texts and 12 images"), "{printed}");
    // Another store than one of both.
    refuse(&world.encode(), &["features", "made otherwise"]);
    go_through(&world, "image", "--image-encoder", ["S1V", "S2V"]);
    let other = replace(world.train(), "--out", world.arg("other"));
    refuse(&[&other[..], &["--modalities", "text"]].concat(), &["made without an encoder of texts"]);
}
