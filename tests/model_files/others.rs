//! BERT, DistilBERT and ResNet.

use std::path::Path;

use fissfuse::Result;
use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder, read_image};
use serde_json::{Value, json};

use super::{Differ, Refuse, Row, Same, check, copy};
use crate::support::fixture;

/// A BERT's states of a text's tokens.
fn states(folder: &Path) -> Result<Vec<f32>> {
    let encoded = TextEncoder::open(folder, Precision::F32).map_err(|error| match error {
        // Sizes are held against the tensors, which are in other files.
        fissfuse::Error::Tensor { .. } => fissfuse::Error::file(folder.join("config.json"), error.to_string()),
        error => error,
    })?;
    Ok(encoded.encode_texts(&["Hussein of Jordan"], 60)?.remove(0).tokens)
}

#[test]
fn every_entry_of_a_distilbert_is_computed_or_refused() {
    let c = "config.json";
    let rows: Vec<Row> = vec![
        (c, "activation", json!("relu"), Differ),
        (c, "activation", json!("swish"), Refuse("hidden_act `swish` is not supported")),
        (c, "dim", json!(48), Refuse("has shape")),
        (c, "hidden_dim", json!(41), Refuse("has shape")),
        (c, "n_heads", json!(2), Differ),
        (c, "n_heads", json!(5), Refuse("5 attention heads do not divide 24")),
        (c, "n_layers", json!(1), Differ),
        (c, "n_layers", json!(3), Refuse("`distilbert.transformer.layer.2.")),
        (c, "vocab_size", json!(0), Refuse("`vocab_size` is 0")),
        (c, "pruned_heads", json!({"0": [1]}), Refuse("`pruned_heads`")),
        // Positions were trained or computed; the file has them either way.
        (c, "sinusoidal_pos_embds", json!(true), Same),
        (c, "dropout", json!(0.5), Same),
        (c, "hidden_size", json!(5), Same),
    ];
    check(copy("bert/distilled-f32").path(), rows, states);
}

#[test]
fn every_entry_of_a_bert_is_computed_or_refused() {
    let folder = copy("bert/sharded-f32");
    let (c, t) = ("config.json", "tokenizer_config.json");
    let mut rows: Vec<Row> = vec![
        (c, "hidden_act", json!("relu"), Differ),
        (c, "hidden_act", json!("gelu_python"), Same),
        (c, "hidden_act", json!("gelu_new"), Differ),
        (c, "hidden_act", json!("gelu_fast"), Refuse("hidden_act `gelu_fast` is not supported")),
        (c, "layer_norm_eps", json!(0.5), Differ),
        (c, "num_attention_heads", json!(2), Differ),
        (c, "is_decoder", json!(true), Refuse("`is_decoder` is true")),
        (c, "add_cross_attention", json!(true), Refuse("`add_cross_attention` is true")),
        (c, "position_embedding_type", json!("absolute"), Same),
        (c, "position_embedding_type", json!("relative_key"), Refuse("`position_embedding_type` is `relative_key`")),
        (c, "pruned_heads", json!({"0": [1]}), Refuse("`pruned_heads`")),
        (c, "pruned_heads", json!({}), Same),
        (c, "type_vocab_size", json!(0), Refuse("`type_vocab_size` is 0")),
        (c, "num_hidden_layers", json!(1), Differ),
        (c, "vocab_size", json!(1 << 30), Refuse("")),
        (t, "do_lower_case", json!(null), Same),
        ("model.safetensors.index.json", "weight_map", json!(null), Refuse("it has no `weight_map`")),
        ("model.safetensors.index.json", "weight_map.x", json!(3), Refuse("`weight_map.x` is 3, needs a text")),
        ("tokenizer.json", "padding", json!({"strategy": {"Fixed": 9}}), Same),
        ("tokenizer.json", "model.vocab", json!({}), Refuse("`model.vocab` is empty")),
    ];
    for (key, value) in [
        ("hidden_dropout_prob", json!(0.5)),
        ("attention_probs_dropout_prob", json!(0.5)),
        ("classifier_dropout", json!(0.5)),
        ("pad_token_id", json!(9)),
        ("tie_word_embeddings", json!(false)),
        ("gradient_checkpointing", json!(true)),
    ] {
        rows.push((c, key, value, Same));
    }
    check(folder.path(), rows, states);
    let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true});
    let file = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    tokenizer["normalizer"] = normalizer;
    std::fs::write(&file, tokenizer.to_string()).unwrap();
    let settings = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false});
    std::fs::write(folder.path().join(t), settings.to_string()).unwrap();
    let says = TextEncoder::open(folder.path(), Precision::F32).err().unwrap().to_string();
    assert!(says.contains("`do_lower_case` is false, `normalizer.lowercase` of tokenizer.json is true"), "{says}");
}

#[test]
fn every_entry_of_a_resnet_is_computed_or_refused() {
    let folder = copy("resnet/three-stages-f32");
    let (c, p) = ("config.json", "preprocessor_config.json");
    let rows: Vec<Row> = vec![
        (c, "layer_type", json!("basic"), Refuse("`layer_type` is `basic`")),
        (c, "hidden_act", json!("gelu"), Refuse("`hidden_act` is `gelu`")),
        (c, "num_channels", json!(1), Refuse("`num_channels` is 1")),
        (c, "downsample_in_bottleneck", json!(true), Refuse("ResNet's first version")),
        (c, "downsample_in_bottleneck", json!(null), Same),
        (c, "downsample_in_first_stage", json!(true), Differ),
        (c, "depths", json!([1, 2]), Refuse("has 3 `hidden_sizes` and 2 `depths`")),
        (c, "depths", json!([2, 0, 2]), Refuse("`depths[1]` is 0, needs a whole number from 1")),
        (c, "depths", json!("many"), Refuse("`depths` is `many`, needs a list")),
        (c, "hidden_sizes", json!([16, 32, 2]), Refuse("`hidden_sizes[2]` is 2")),
        (c, "out_features", json!(["stage1"]), Same),
        (c, "stage_names", json!(null), Same),
        (p, "crop_pct", json!(null), Same),
        (p, "crop_pct", json!(0.5), Differ),
        (p, "crop_pct", json!(1.5), Refuse("`crop_pct` is 1.5")),
        (p, "crop_pct", json!("0.875"), Refuse("`crop_pct` is `0.875`, needs a number")),
        (p, "size", json!({"shortest_edge": 56}), Same),
        (p, "size", json!(5000), Refuse("at most 4096 x 4096")),
        (p, "size", json!(0), Refuse("`size` is 0, needs a size of at least 1")),
        (
            c,
            "hidden_sizes",
            json!([16, 32, 1u64 << 40]),
            Refuse("`hidden_sizes[2]` is 1099511627776, needs a whole number from 1 to 1073741824"),
        ),
        (p, "crop_size", json!(null), Same),
        (p, "do_center_crop", json!(null), Same),
        (p, "do_center_crop", json!(true), Refuse("`do_center_crop` is true")),
        (p, "feature_extractor_type", json!(null), Same),
        (p, "image_mean", json!(null), Differ),
    ];
    let image = read_image(&fixture("clip/image.png")).unwrap();
    check(folder.path(), rows, |folder| {
        let encoder = ImageEncoder::open(folder, Precision::F32)?;
        let pixels = encoder.processor().process(image.clone())?;
        Ok(encoder.encode_images(&[pixels])?.remove(0).tokens)
    });
}

#[test]
fn a_size_that_has_no_default_is_refused_without_one() {
    let folder = copy("resnet/three-stages-f32");
    for size in [json!(0), json!({"shortest_edge": 0}), json!({"height": 0, "width": 40})] {
        std::fs::write(folder.path().join("preprocessor_config.json"), json!({"size": size}).to_string()).unwrap();
        let error = ImageEncoder::open(folder.path(), Precision::F32).err().unwrap().to_string();
        assert!(
            error.contains("preprocessor_config.json") && error.ends_with("0, needs a size of at least 1"),
            "{error}"
        );
    }
}
