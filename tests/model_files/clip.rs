//! CLIP, OpenCLIP and SigLIP.

use std::path::Path;

use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder, read_image};
use serde_json::{Value, json};

use super::{Differ, Refuse, Row, Same, check, copy};
use crate::support::fixture;

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
fn every_entry_of_a_siglip_is_computed_or_refused() {
    let folder = copy("siglip/siglip-f32");
    let (c, p, t) = ("config.json", "preprocessor_config.json", "tokenizer_config.json");
    let mut rows: Vec<Row> = vec![
        (c, "text_config.hidden_act", json!("gelu"), Differ),
        (c, "text_config.hidden_act", json!(null), Same),
        (c, "vision_config.hidden_act", json!("tanh"), Refuse("hidden_act `tanh` is not supported")),
        (c, "vision_config.hidden_act", json!("tanh"), Refuse("left out, hidden_act is `gelu_pytorch_tanh`")),
        (c, "text_config.hidden_act", json!(3), Refuse("needs a text; left out, it is \"gelu_pytorch_tanh\"")),
        (c, "text_config.layer_norm_eps", json!(0.1), Differ),
        (c, "vision_config.layer_norm_eps", json!(0.1), Differ),
        (c, "vision_config.layer_norm_eps", json!(0), Refuse("`vision_config.layer_norm_eps` is 0")),
        (c, "vision_config.layer_norm_eps", json!(0), Refuse("needs a number above 0; left out, it is 1e-6")),
        (c, "text_config.num_attention_heads", json!(4), Differ),
        (c, "vision_config.num_attention_heads", json!(5), Refuse("5 attention heads do not divide 24")),
        (
            c,
            "vision_config.num_attention_heads",
            json!(5),
            Refuse("left out, hidden_act is `gelu_pytorch_tanh`, num_attention_heads 12"),
        ),
        (c, "vision_config.num_hidden_layers", json!("two"), Refuse("needs a whole number; left out, it is 12")),
        (c, "text_config.pad_token_id", json!(2), Same),
        (c, "text_config.pad_token_id", json!("pad"), Refuse("needs a whole number; left out, it is 1")),
        (c, "text_config.projection_size", json!(null), Same),
        (c, "vision_config.patch_size", json!(0), Refuse("`vision_config.patch_size` is 0")),
        (c, "vision_config.patch_size", json!(0), Refuse("needs a size of at least 1; left out, it is 16")),
        (c, "vision_config.patch_size", json!(41), Refuse("is above `vision_config.image_size`")),
        (c, "vision_config.num_channels", json!(1), Refuse("`vision_config.num_channels` is 1")),
        (c, "vision_config.vision_use_head", json!(null), Same),
        (c, "vision_config.vision_use_head", json!(false), Refuse("`vision_config.vision_use_head` is false")),
        (c, "quantization_config", json!({"load_in_8bit": true}), Refuse("`quantization_config`")),
        (c, "model_type", json!("siglip3"), Refuse("siglip3")),
        (p, "size", json!({"height": 40, "width": 41}), Refuse("makes images of (40, 41)")),
        (p, "resample", json!(2), Differ),
        (p, "image_mean", json!([0.4, 0.4, 0.4]), Differ),
        (p, "do_rescale", json!(false), Differ),
        (p, "do_center_crop", json!(false), Same),
        (p, "image_processor_type", json!("SiglipImageProcessorFast"), Same),
        (p, "image_processor_type", json!("BlipImageProcessor"), Refuse("`image_processor_type`")),
        (t, "pad_token", json!("<none>"), Refuse("pad_token")),
        (t, "tokenizer_class", json!("CLIPTokenizer"), Refuse("tokenizer_class")),
    ];
    // What transformers keeps for training, or for others.
    for (key, value) in [
        ("initializer_factor", json!(2.0)),
        ("dtype", json!("float16")),
        ("text_config.attention_dropout", json!(0.1)),
        ("text_config.bos_token_id", json!(7)),
        ("text_config.eos_token_id", json!(7)),
        ("vision_config.attention_dropout", json!(0.1)),
    ] {
        rows.push((c, key, value, Same));
    }
    let image = read_image(&fixture("clip/image.png")).unwrap();
    check(folder.path(), rows, |folder| {
        let encoder = ImageEncoder::open(folder, Precision::F32)?;
        let mut all = encoder.encode_images(&[encoder.processor().process(image.clone())?])?.remove(0).tokens;
        all.extend(TextEncoder::open(folder, Precision::F32)?.encode_texts(&["king"], 60)?.remove(0).global);
        Ok(all)
    });
}
