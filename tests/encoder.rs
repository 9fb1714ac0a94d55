//! The encoders against transformers (tests/fixtures/{clip,siglip,bert,resnet}/make.py).

use std::path::PathBuf;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::{Compute, Encoded, EncoderPaths, Encoders, ImageEncoder, Precision, TextEncoder, read_image};
use fissfuse::tensor::safetensors::Reader;
use tempfile::tempdir;

use crate::support::{World, fixture, on_device, refuse, succeed};

/// The sentence of the scripts.
const TEXT: &str = "Hussein of Jordan. King Hussein, with his wife and Shahbanu Farah!";

/// f32 against transformers' f64, relative to the largest element: both round a few hundred times.
const FEATURES: f32 = 5e-6;

/// The same in bf16, whose 8 bits round each operand by up to 2⁻⁹ and a few layers' errors add up.
const FEATURES_BF16: f32 = 2e-2;

/// Of a normalized pixel. PIL and we round to whole colours; a colour that falls the other way is off by
/// 1 / 255 / 0.22 = 0.018.
const PIXELS: f32 = 0.019;

const CLIP: [&str; 4] =
    ["clip/quick-gelu-f32", "clip/quick-gelu-f16", "clip/gelu-bf16-legacy-eos", "clip/open-clip-f32"];
const SIGLIP: [&str; 2] = ["siglip/siglip-f32", "siglip/siglip2-bf16"];
const BERT: [&str; 3] = ["bert/sharded-f32", "bert/masked-lm-bf16", "bert/distilled-f32"];
const RESNET: [&str; 3] = ["resnet/three-stages-f32", "resnet/classifier-bf16", "resnet/eights-f16"];

fn image() -> PathBuf {
    fixture("clip/image.png")
}

fn expected(name: &str) -> Reader {
    Reader::open(&fixture(name).join("expected.safetensors")).unwrap()
}

fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0, |max, (g, w)| max.max((g - w).abs()))
}

#[test]
fn pixels_are_those_of_transformers() {
    for name in CLIP.iter().chain(&SIGLIP).chain(&RESNET) {
        let encoder = ImageEncoder::open(&fixture(name), Precision::F32).unwrap();
        let pixels = encoder.processor().process(read_image(&image()).unwrap()).unwrap();
        let error = difference(&pixels, expected(name).tensor("pixels").unwrap().data());
        assert!(error < PIXELS, "{name}: {error}");
    }
}

#[test]
fn tokens_are_those_of_transformers() {
    for name in CLIP.iter().chain(&SIGLIP).chain(&BERT) {
        let encoder = TextEncoder::open(&fixture(name), Precision::F32).unwrap();
        let ids: Vec<u32> = expected(name).values::<i64>("ids").unwrap().into_iter().map(|id| id as u32).collect();
        let by_ids = encoder.encode_ids(&[ids]).unwrap();
        assert_eq!(by_ids, encoder.encode_texts(&[TEXT], usize::MAX).unwrap(), "{name}");
    }
}

#[test]
fn embed_writes_what_transformers_computes() {
    let out = tempdir().unwrap();
    let file = out.path().join("features.safetensors");
    let text = ["--text", TEXT];
    let image = ["--image".to_string(), image().to_str().unwrap().to_string()];
    let image = [image[0].as_str(), image[1].as_str()];
    let both = [&text[..], &image].concat();
    let cases = CLIP.into_iter().chain(SIGLIP).map(|name| (name, &both[..]));
    let cases = cases.chain(BERT.map(|name| (name, &text[..]))).chain(RESNET.map(|name| (name, &image[..])));
    for (name, input) in cases {
        for (precision, bound) in [("f32", FEATURES), ("bf16", FEATURES_BF16)] {
            let (folder, file_name) = (fixture(name), file.to_str().unwrap());
            let encoder = ["embed", "--encoder", folder.to_str().unwrap(), "--precision", precision];
            succeed(&[&encoder[..], input, &["--out", file_name]].concat());
            let got = Reader::open(&file).unwrap();
            assert_eq!(got.names().count(), input.len());
            for feature in got.names() {
                let error = feature_error(got.tensor(feature).unwrap().data(), name, feature);
                assert!(error < bound, "{name} in {precision}: {feature} is off by {error}");
            }
        }
    }
}

/// Of a feature, relative to its largest element.
fn feature_error(got: &[f32], name: &str, feature: &str) -> f32 {
    let want = expected(name).tensor(feature).unwrap();
    let largest = want.data().iter().fold(0.0f32, |max, x| max.max(x.abs()));
    difference(got, want.data()) / largest
}

#[test]
fn a_device_computes_what_transformers_does() {
    on_device("encoder::a_device_computes_what_transformers_does", || {
        // The kernels take heads and channels in eights for bf16, and channels in fours for f32.
        let texts = [CLIP[0], CLIP[1], CLIP[2], SIGLIP[1], BERT[0], BERT[1]];
        let images = [CLIP[0], CLIP[1], SIGLIP[1], RESNET[0], RESNET[2]];
        let (half_texts, half_images) =
            ([CLIP[0], CLIP[1], SIGLIP[1], BERT[0], BERT[1]], [CLIP[1], SIGLIP[1], RESNET[2]]);
        let f32 = (Precision::F32, Arithmetic::F32, 2e-5, &texts[..], &images[..]);
        let bf16 = (Precision::Bf16, Arithmetic::Mixed, FEATURES_BF16, &half_texts[..], &half_images[..]);
        for (precision, arithmetic, bound, texts, images) in [f32, bf16] {
            let compute = Compute { precision, gpu: Some(Gpu::open(0, arithmetic).unwrap()) };
            let check = |encoded: &Encoded, name: &str, features: [&str; 2]| {
                for (got, feature) in [&encoded.tokens, &encoded.global].into_iter().zip(features) {
                    let error = feature_error(got, name, feature);
                    assert!(error < bound, "{name} in {precision}: {feature} is off by {error}");
                }
            };
            for name in texts {
                let encoder = TextEncoder::open(&fixture(name), &compute).unwrap();
                let encoded = encoder.encode_texts(&["king", TEXT, ""], usize::MAX).unwrap();
                check(&encoded[1], name, ["text.tokens", "text.global"]);
                assert_eq!(encoded[1..2], encoder.encode_texts(&[TEXT], usize::MAX).unwrap());
            }
            for name in images {
                let encoder = ImageEncoder::open(&fixture(name), &compute).unwrap();
                let pixels = encoder.processor().process(read_image(&image()).unwrap()).unwrap();
                let mirrored: Vec<f32> = pixels.iter().rev().copied().collect();
                let encoded = encoder.encode_images(&[mirrored, pixels.clone()]).unwrap();
                check(&encoded[1], name, ["image.patches", "image.global"]);
                assert_eq!(encoded[1..], encoder.encode_images(&[pixels]).unwrap());
            }
        }
    });
}

#[test]
fn texts_encoded_together_are_as_if_encoded_alone() {
    for name in [CLIP[0], SIGLIP[0], BERT[0]] {
        let encoder = TextEncoder::open(&fixture(name), Precision::F32).unwrap();
        let texts = ["king", TEXT, "", "Hussein of Jordan"];
        let together = encoder.encode_texts(&texts, 12).unwrap();
        for (text, together) in texts.iter().zip(together) {
            let alone = &encoder.encode_texts(&[text], 12).unwrap()[0];
            assert!(difference(&together.tokens, &alone.tokens) < 1e-6 && together.global.len() == alone.global.len());
            assert!(together.tokens.len() / encoder.widths().0 <= 12);
        }
    }
}

#[test]
fn images_encoded_together_are_as_if_encoded_alone() {
    for name in [CLIP[0], RESNET[0]] {
        let encoder = ImageEncoder::open(&fixture(name), Precision::Bf16).unwrap();
        let pixels = encoder.processor().process(read_image(&image()).unwrap()).unwrap();
        let mirrored: Vec<f32> = pixels.iter().rev().copied().collect();
        let together = encoder.encode_images(&[mirrored.clone(), pixels, mirrored.clone()]).unwrap();
        assert_eq!(together[0], together[2]);
        assert_ne!(together[0], together[1]);
        assert_eq!(together[..1], encoder.encode_images(&[mirrored]).unwrap(), "{name}");
    }
}

#[test]
fn a_side_that_a_model_does_not_encode_is_refused() {
    let (bert, resnet) = (fixture(BERT[0]), fixture(RESNET[0]));
    let mixed = EncoderPaths { text: Some(bert.clone()), image: Some(resnet.clone()) };
    assert_eq!(Encoders::open(&mixed, Precision::F32).unwrap().image.unwrap().widths(), (64, 64));
    let [bert, resnet] = [&bert, &resnet].map(|path| path.to_str().unwrap());
    let out = tempdir().unwrap();
    let out = out.path().join("x").to_str().unwrap().to_string();
    refuse(&["embed", "--encoder", resnet, "--text", "x", "--out", &out], &["ResNet, which encodes images"]);
    let image = image().to_str().unwrap().to_string();
    refuse(&["embed", "--encoder", bert, "--image", &image, "--out", &out], &["BERT, which encodes texts"]);
    refuse(&["embed", "--text", "x", "--out", &out], &["no encoder of texts", "--text-encoder"]);
    for (given, says) in
        [("nowhere", "nowhere: there is no such folder"), ("config.json", "config.json: is a file, and no folder")]
    {
        let given = format!("{bert}/{given}");
        let advice = "give the directory of a Hugging Face model";
        refuse(&["embed", "--encoder", &given, "--text", "x", "--out", &out], &[says, advice]);
    }
}

#[test]
fn features_of_different_precision_do_not_mix() {
    let world = World::new();
    let encode = |precision: &'static str| [&world.encode()[..], &["--precision", precision]].concat();
    succeed(&encode("bf16"));
    refuse(&encode("f32"), &["features", "precision is \"bf16\" in the store, \"f32\" in this call"]);
    succeed(&encode("bf16"));
}

#[test]
fn a_store_goes_on_in_its_precision() {
    for precision in ["f32", "bf16"] {
        let world = World::new();
        succeed(&[&world.encode()[..], &["--precision", precision]].concat());
        let printed = succeed(&world.encode());
        assert!(printed.contains(&format!("encoded 0 texts and 0 images in {precision}")), "{printed}");
    }
}

#[test]
fn a_siglip_that_reads_texts_in_another_way_is_refused() {
    let copy = |name: &str, text: Option<&str>| {
        let folder = tempdir().unwrap();
        for entry in std::fs::read_dir(fixture(SIGLIP[0])).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        match text {
            Some(text) => std::fs::write(folder.path().join(name), text).unwrap(),
            None => std::fs::remove_file(folder.path().join(name)).unwrap(),
        }
        folder
    };
    let config = std::fs::read_to_string(fixture(SIGLIP[0]).join("config.json")).unwrap();
    let headless = config.replace("\"vision_use_head\": true", "\"vision_use_head\": false");
    let settings = "tokenizer_config.json";
    for (name, text, texts, says) in [
        (settings, None, true, "says how a SigLIP reads texts"),
        (settings, Some(r#"{"tokenizer_class": "CLIPTokenizer"}"#), true, "tokenizer_class"),
        (settings, Some(r#"{"tokenizer_class": "SiglipTokenizer", "pad_token": "<none>"}"#), true, "pad_token"),
        ("config.json", Some(&*headless), false, "vision_use_head"),
    ] {
        let folder = copy(name, text);
        let refused = match texts {
            true => TextEncoder::open(folder.path(), Precision::F32).err(),
            false => ImageEncoder::open(folder.path(), Precision::F32).err(),
        };
        let refused = refused.expect(says).to_string();
        assert!(refused.contains(name) && refused.contains(says), "{refused}");
    }
}
