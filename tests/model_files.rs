//! What each entry of a model directory's files does: for every key that transformers 4 and 5 write for the models
//! that are read, a value and what must come of it.

use std::path::Path;

use fissfuse::Result;
use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder, read_image};
use fissfuse::llama::{self, GenerationConfig, Llama, LlamaConfig};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::{fixture, refuse};

/// What must come of an entry.
#[derive(Clone, Copy)]
enum Must {
    /// It changes nothing.
    Same,
    /// It is computed: the result is another one.
    Differ,
    /// It is refused with these words.
    Refuse(&'static str),
}

use Must::{Differ, Refuse, Same};

type Row = (&'static str, &'static str, Value, Must);

fn copy(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

/// Puts each row's value into its file in turn, and compares what the model computes then.
fn check(folder: &Path, rows: Vec<Row>, compute: impl Fn(&Path) -> Result<Vec<f32>>) {
    let plain = compute(folder).unwrap();
    for (file, key, value, must) in rows {
        let path = folder.join(file);
        let before = std::fs::read_to_string(&path).ok();
        let mut content: Value = before.as_deref().map_or(json!({}), |text| serde_json::from_str(text).unwrap());
        let mut at = &mut content;
        for part in key.split('.') {
            at = &mut at[part];
        }
        *at = value.clone();
        std::fs::write(&path, content.to_string()).unwrap();
        let (got, what) = (compute(folder), format!("{file}: {key} = {value}"));
        match (must, got) {
            (Same, Ok(got)) => assert!(got == plain, "{what}: another result"),
            (Differ, Ok(got)) => assert!(got != plain, "{what}: the same result"),
            (Refuse(says), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(file) && error.contains(says), "{what}: {error}");
                assert!(!error.contains("untagged") && !error.contains("invalid type"), "{what}: {error}");
            }
            (Refuse(_), Ok(_)) => panic!("{what}: not refused"),
            (_, Err(error)) => panic!("{what}: {error}"),
        }
        match before {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
}

#[test]
fn every_entry_of_a_llama_is_computed_or_refused() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig::read(&fixture("llama/multi-head")).unwrap();
    llama::write_random(folder.path(), &config, llama::Precision::F32, 11, ["a word"].into_iter()).unwrap();
    std::fs::copy(fixture("llama/multi-head/config.json"), folder.path().join("config.json")).unwrap();
    let c = "config.json";
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 10000.0});
    let with = |base: &Value, key: &str, value: Value| {
        let mut base = base.clone();
        base[key] = value;
        base
    };
    let mut rows: Vec<Row> = vec![
        (c, "num_key_value_heads", json!(null), Same),
        (c, "head_dim", json!(null), Same),
        (c, "hidden_act", json!(null), Same),
        (c, "hidden_act", json!("swish"), Same),
        (c, "hidden_act", json!("relu"), Refuse("`hidden_act` is `relu`")),
        (c, "rms_norm_eps", json!(0.5), Differ),
        (c, "rms_norm_eps", json!(-1.0), Refuse("`rms_norm_eps` is -1.0, needs a number above 0")),
        (c, "rms_norm_eps", json!("1e-5"), Refuse("`rms_norm_eps` is `1e-5`, needs a number")),
        (c, "hidden_size", json!(64.5), Refuse("`hidden_size` is 64.5, needs a whole number")),
        (c, "max_position_embeddings", json!(4), Refuse("")),
        (c, "mlp_bias", json!(true), Refuse("`mlp_bias` is true")),
        (c, "mlp_bias", json!(null), Same),
        (c, "tie_word_embeddings", json!(null), Same),
        (c, "tie_word_embeddings", json!(1), Refuse("`tie_word_embeddings` is 1, needs true or false")),
        (c, "quantization_config", json!(null), Same),
        (c, "quantization_config", json!({"quant_method": "awq"}), Refuse("is quantized by `awq`")),
        (c, "pruned_heads", json!({"0": [1]}), Refuse("`pruned_heads`")),
        (c, "partial_rotary_factor", json!(0.5), Refuse("`partial_rotary_factor` is 0.5")),
        (c, "partial_rotary_factor", json!(1), Same),
        (c, "rope_parameters", json!(null), Same),
        (c, "rope_parameters", json!({}), Same),
        (c, "rope_parameters.rope_theta", json!(100.0), Differ),
        (c, "rope_theta", json!(100.0), Refuse("`rope_parameters.rope_theta` is 10000, `rope_theta` is 100")),
        (c, "rope_theta", json!(10000.0), Same),
        (c, "rope_scaling", json!(null), Same),
        (c, "rope_scaling", linear.clone(), Refuse("`rope_scaling` and `rope_parameters` are there and disagree")),
        (c, "rope_scaling", json!({"rope_type": "default"}), Same),
        (c, "rope_parameters", linear.clone(), Differ),
        (c, "rope_parameters", json!({"type": "linear", "factor": 2.0}), Differ),
        (c, "rope_parameters", with(&linear, "type", json!("llama3")), Refuse("let them agree")),
        (c, "rope_parameters", with(&linear, "factor", json!(null)), Refuse("`rope_parameters.factor`")),
        (c, "rope_parameters", with(&linear, "factor", json!(0)), Refuse("`rope_parameters.factor` is 0")),
        (c, "rope_parameters", llama3.clone(), Differ),
        (c, "rope_parameters", with(&llama3, "high_freq_factor", json!(1.0)), Refuse("is not above")),
        (c, "rope_parameters", json!({"full_attention": linear}), Refuse("`rope_parameters.full_attention`")),
        (c, "rope_parameters", json!({"rope_type": "dynamic", "factor": 2.0}), Refuse("rope type `dynamic`")),
        (c, "rope_parameters.attention_factor", json!(1.5), Same),
        (c, "rope_parameters", json!([1]), Refuse("`rope_parameters` is [1], needs an object")),
        (c, "eos_token_id", json!([1, 2]), Same),
        (c, "eos_token_id", json!(-1), Refuse("`eos_token_id` is -1, needs a token's number")),
        ("generation_config.json", "eos_token_id", json!([1, "x"]), Refuse("`eos_token_id`")),
        ("generation_config.json", "repetition_penalty", json!(1.1), Same),
        ("tokenizer_config.json", "added_tokens_decoder.900", json!({"content": "<no>"}), Refuse("has no such token")),
    ];
    // What transformers keeps for training, for memory, or for others.
    for (key, value) in [
        ("attention_dropout", json!(0.1)),
        ("initializer_range", json!(0.5)),
        ("use_cache", json!(false)),
        ("pretraining_tp", json!(2)),
        ("bos_token_id", json!(7)),
        ("pad_token_id", json!(7)),
        ("torch_dtype", json!("float16")),
        ("dtype", json!("float16")),
        ("architectures", json!(["LlamaForCausalLM"])),
        ("transformers_version", json!("4.31.0")),
        ("chunk_size_feed_forward", json!(0)),
        ("id2label", json!({"0": "x"})),
    ] {
        rows.push((c, key, value, Same));
    }
    check(folder.path(), rows, |folder| {
        let tokens = [3, 100, 42, 7, 99, 8];
        Ok(Llama::open(folder, None, None)?
            .logits(&tokens)
            .map_err(|e| {
                // The context is a matter of the text's length.
                fissfuse::Error::file(folder.join(c), e.to_string())
            })?
            .data()
            .to_vec())
    });
    assert!(!GenerationConfig::read(folder.path()).unwrap().end.is_empty());
}

#[test]
fn every_entry_of_a_clip_is_computed_or_refused() {
    let folder = copy("clip/quick-gelu-f32");
    let (c, p, q) = ("config.json", "preprocessor_config.json", "processor_config.json");
    let own: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join(p)).unwrap()).unwrap();
    let mut other = own.clone();
    other["image_mean"] = json!([0.5, 0.5, 0.5]);
    let mut rows: Vec<Row> = vec![
        (c, "text_config.hidden_act", json!("gelu"), Differ),
        (c, "text_config.hidden_act", json!("tanh"), Refuse("`text_config`: hidden_act `tanh` is not supported")),
        (c, "vision_config.hidden_act", json!("gelu"), Differ),
        (c, "text_config.layer_norm_eps", json!(0.1), Differ),
        (c, "vision_config.layer_norm_eps", json!(0.1), Differ),
        (c, "text_config.num_attention_heads", json!(4), Differ),
        (c, "text_config.num_attention_heads", json!(3), Refuse("3 attention heads do not divide 16")),
        (c, "text_config.eos_token_id", json!(2), Same),
        (c, "text_config.eos_token_id", json!([1]), Refuse("`text_config.eos_token_id` is [1]")),
        (c, "text_config.projection_dim", json!(7), Same),
        (c, "vision_config.image_size", json!([40, 40]), Same),
        (c, "vision_config.image_size", json!([40, 48]), Refuse("`vision_config.image_size` is [40,48]")),
        (c, "vision_config.patch_size", json!(0), Refuse("`vision_config.patch_size` is 0")),
        (c, "vision_config.patch_size", json!(41), Refuse("is above `vision_config.image_size`")),
        (c, "vision_config.num_channels", json!(1), Refuse("`vision_config.num_channels` is 1")),
        (c, "text_config_dict", json!(null), Same),
        (c, "text_config_dict", json!({"hidden_size": 999}), Refuse("take out the one not meant")),
        (c, "quantization_config", json!({"load_in_8bit": true}), Refuse("`quantization_config`")),
        (c, "logit_scale_init_value", json!(1.0), Same),
        (c, "initializer_factor", json!(2.0), Same),
        (p, "size", json!(40), Same),
        (p, "size", json!({"shortest_edge": 60}), Differ),
        (p, "size", json!({"height": 40, "width": 40}), Differ),
        (p, "size", json!({"height": null, "shortest_edge": 40}), Same),
        (p, "size", json!({"longest_edge": 40}), Refuse("`size` is")),
        (p, "size", json!("40"), Refuse("`size` is `40`, needs a number")),
        (p, "crop_size", json!(40), Same),
        (p, "crop_size", json!(null), Refuse("makes images of (224, 224)")),
        (p, "crop_size", json!(39), Refuse("makes images of (39, 39), the model takes 40 x 40")),
        (p, "do_center_crop", json!(null), Same),
        (p, "do_center_crop", json!(false), Refuse("neither crops nor resizes")),
        (p, "do_resize", json!(false), Differ),
        (p, "do_resize", json!(null), Same),
        (p, "do_rescale", json!(null), Same),
        (p, "do_rescale", json!(false), Differ),
        (p, "do_rescale", json!("yes"), Refuse("`do_rescale` is `yes`, needs true or false")),
        (p, "rescale_factor", json!(0.5), Differ),
        (p, "rescale_factor", json!(null), Same),
        (p, "do_normalize", json!(false), Differ),
        (p, "resample", json!(null), Same),
        (p, "resample", json!(2), Differ),
        (p, "resample", json!(0), Refuse("`resample` 0")),
        (p, "image_mean", json!(0.5), Differ),
        (p, "image_mean", json!(null), Same),
        (p, "image_mean", json!([0.5, 0.5]), Refuse("`image_mean` is [0.5,0.5], needs a number")),
        (p, "image_std", json!([0.5, 0.0, 0.5]), Refuse("has a zero in `image_std`")),
        (p, "do_pad", json!(true), Refuse("`do_pad` is true")),
        (p, "do_pad", json!(null), Same),
        (p, "pad_size", json!(null), Same),
        (p, "do_flip_channel_order", json!(true), Refuse("`do_flip_channel_order` is true")),
        (p, "data_format", json!("channels_first"), Same),
        (p, "data_format", json!("channels_last"), Refuse("`data_format` is `channels_last`")),
        (p, "size_divisor", json!(32), Refuse("`size_divisor` is 32")),
        (p, "crop_pct", json!(0.5), Same),
        (p, "image_processor_type", json!("CLIPImageProcessorFast"), Same),
        (p, "image_processor_type", json!("CLIPFeatureExtractor"), Same),
        (
            p,
            "image_processor_type",
            json!("BlipImageProcessor"),
            Refuse("`image_processor_type` is `BlipImageProcessor`"),
        ),
        (p, "do_convert_rgb", json!(null), Same),
        (q, "processor_class", json!("CLIPProcessor"), Same),
        (q, "image_processor", own.clone(), Same),
    ];
    for key in ["device", "disable_grouping", "return_tensors", "input_data_format", "default_to_square"] {
        rows.push((p, key, json!(null), Same));
    }
    let image = read_image(&fixture("clip/image.png")).unwrap();
    let compute = |folder: &Path| {
        let encoder = ImageEncoder::open(folder, Precision::F32)?;
        let mut all = encoder.encode_images(&[encoder.processor().process(image.clone())?])?.remove(0).tokens;
        all.extend(TextEncoder::open(folder, Precision::F32)?.encode_texts(&["king"], 60)?.remove(0).global);
        Ok(all)
    };
    check(folder.path(), rows, compute);
    // Transformers 5 keeps the image's settings with those of other processors.
    let plain = compute(folder.path()).unwrap();
    let write = |value: &Value| {
        std::fs::write(folder.path().join(q), json!({"image_processor": value}).to_string()).unwrap();
    };
    write(&other);
    let says = compute(folder.path()).unwrap_err().to_string();
    assert!(says.contains("disagrees with `image_processor` of processor_config.json"), "{says}");
    std::fs::remove_file(folder.path().join(p)).unwrap();
    assert_ne!(compute(folder.path()).unwrap(), plain);
    let identity = ImageEncoder::open(folder.path(), Precision::F32).unwrap().identity().to_string();
    write(&own);
    assert_eq!(compute(folder.path()).unwrap(), plain);
    assert_ne!(ImageEncoder::open(folder.path(), Precision::F32).unwrap().identity(), identity);
    std::fs::remove_file(folder.path().join(q)).unwrap();
    let says = compute(folder.path()).unwrap_err().to_string();
    assert!(says.contains("preprocessor_config.json: is missing, and so is `image_processor`"), "{says}");
    // Its texts need none of it, and its images no tokenizer.
    TextEncoder::open(folder.path(), Precision::F32).unwrap();
    write(&own);
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    ImageEncoder::open(folder.path(), Precision::F32).unwrap();
}

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
fn every_entry_of_an_open_clip_is_computed_or_refused() {
    let folder = copy("clip/open-clip-f32");
    let c = "open_clip_config.json";
    let rows: Vec<Row> = vec![
        (c, "model_cfg", json!(null), Refuse("has no `model_cfg`")),
        (c, "model_cfg.embed_dim", json!(null), Refuse("has no `model_cfg.embed_dim`")),
        (c, "model_cfg.quick_gelu", json!(true), Differ),
        (c, "model_cfg.quick_gelu", json!(null), Same),
        (c, "model_cfg.custom_text", json!(true), Refuse("`model_cfg.custom_text` is true")),
        (c, "model_cfg.multimodal_cfg", json!({}), Refuse("`model_cfg.multimodal_cfg` is {}, which is not computed")),
        (c, "model_cfg.vision_cfg.head_width", json!(24), Differ),
        (c, "model_cfg.vision_cfg.head_width", json!(7), Refuse("`model_cfg.vision_cfg.head_width` 7 does not divide")),
        (c, "model_cfg.vision_cfg.layers", json!([3, 4]), Refuse("`model_cfg.vision_cfg.layers` is [3,4]")),
        (c, "model_cfg.vision_cfg.patch_size", json!(50), Refuse("`model_cfg.vision_cfg.patch_size` 50 is above")),
        (c, "model_cfg.vision_cfg.pool_type", json!("avg"), Refuse("`model_cfg.vision_cfg.pool_type` is `avg`")),
        (c, "model_cfg.text_cfg.hf_model_name", json!("roberta"), Refuse("`model_cfg.text_cfg.hf_model_name`")),
        (c, "preprocess_cfg", json!(null), Same),
        (c, "preprocess_cfg.mean", json!([0.5, 0.5, 0.5]), Differ),
        (c, "preprocess_cfg.std", json!([0.0, 1.0, 1.0]), Refuse("a zero in `preprocess_cfg.std`")),
        (c, "preprocess_cfg.size", json!([3, 40, 40]), Same),
        (c, "preprocess_cfg.size", json!(41), Refuse("`preprocess_cfg.size` is 41")),
        (c, "preprocess_cfg.interpolation", json!("bilinear"), Refuse("`preprocess_cfg.interpolation` is `bilinear`")),
        (c, "preprocess_cfg.resize_mode", json!("squash"), Refuse("`preprocess_cfg.resize_mode` is `squash`")),
    ];
    check(folder.path(), rows, |folder| {
        let encoder = ImageEncoder::open(folder, Precision::F32)?;
        let pixels = encoder.processor().process(read_image(&fixture("clip/image.png"))?)?;
        Ok(encoder.encode_images(&[pixels])?.remove(0).tokens)
    });
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
        (c, "depths", json!([2, 0, 2]), Refuse("`depths` is [2,0,2]")),
        (c, "depths", json!("many"), Refuse("`depths` is `many`, needs a list")),
        (c, "hidden_sizes", json!([16, 32, 2]), Refuse("`hidden_sizes` has 2")),
        (c, "out_features", json!(["stage1"]), Same),
        (c, "stage_names", json!(null), Same),
        (p, "crop_pct", json!(null), Same),
        (p, "crop_pct", json!(0.5), Differ),
        (p, "crop_pct", json!(1.5), Refuse("`crop_pct` is 1.5")),
        (p, "crop_pct", json!("0.875"), Refuse("`crop_pct` is `0.875`, needs a number")),
        (p, "size", json!({"shortest_edge": 56}), Same),
        (p, "size", json!(5000), Refuse("at most 4096 x 4096")),
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
fn a_tokenizer_that_is_something_else_is_named() {
    let folder = copy("bert/sharded-f32");
    let (model, file) = (folder.path().to_str().unwrap().to_string(), folder.path().join("tokenizer.json"));
    let good = std::fs::read(&file).unwrap();
    let out = folder.path().join("x").to_str().unwrap().to_string();
    let embed = ["embed", "--encoder", &model, "--text", "king", "--out", &out];
    for (bytes, says) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"{\"version\": \"1.0\"", "ends in line 1 before it is complete"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        refuse(&embed, &["tokenizer.json", says]);
    }
    std::fs::write(&file, [b"\xef\xbb\xbf", &good[..]].concat()).unwrap();
    crate::support::succeed(&embed);
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let folder = copy("clip/quick-gelu-f32");
    let file = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let says = TextEncoder::open(folder.path(), Precision::F32)
        .map(drop)
        .and(ImageEncoder::open(folder.path(), Precision::F32).map(drop))
        .unwrap_err()
        .to_string();
    assert!(says.contains("model.safetensors: tensor `") && says.contains("holds NaN or infinity"), "{says}");
}
