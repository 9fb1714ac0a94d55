//! The CLIP encoder against transformers (tests/fixtures/clip/make.py).

use std::path::{Path, PathBuf};

use fissfuse::encoder::{Encoders, Precision, read_image};
use fissfuse::tensor::safetensors::Reader;
use tempfile::tempdir;

use crate::support::succeed;

/// The sentence of make.py.
const TEXT: &str = "Hussein of Jordan. King Hussein, with his wife and Shahbanu Farah!";

/// f32 against transformers' f32, relative to the largest element: both round a few hundred times.
const FEATURES: f32 = 5e-6;

/// Of a normalized pixel. PIL and we round to whole colours; a colour that falls the other way is off by
/// 1 / 255 / 0.26 = 0.015.
const PIXELS: f32 = 0.016;

fn fixtures() -> (Vec<PathBuf>, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip");
    let names = ["quick-gelu-f32", "quick-gelu-f16", "gelu-bf16-legacy-eos"];
    (names.map(|name| folder.join(name)).to_vec(), folder.join("image.png"))
}

fn open(folder: &Path) -> fissfuse::Result<Encoders> {
    Encoders::open(&folder.into(), Precision::F32)
}

fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0, |max, (g, w)| max.max((g - w).abs()))
}

#[test]
fn pixels_and_tokens_are_those_of_transformers() {
    let (folders, image) = fixtures();
    for folder in folders {
        let expected = Reader::open(&folder.join("expected.safetensors")).unwrap();
        let encoders = open(&folder).unwrap();
        let pixels = encoders.image.processor().process(read_image(&image).unwrap()).unwrap();
        let wanted = expected.tensor("pixels").unwrap();
        assert!(difference(&pixels, wanted.data()) < PIXELS);
        let tokens = encoders.text.encode_texts(&[TEXT], usize::MAX).unwrap()[0].tokens.len();
        let ids = expected.values::<i64>("ids").unwrap();
        assert_eq!(tokens / encoders.text.widths().0, ids.len());
    }
}

#[test]
fn embed_writes_what_transformers_computes() {
    let (folders, image) = fixtures();
    let out = tempdir().unwrap();
    let file = out.path().join("features.safetensors");
    for folder in folders {
        let path = |path: &Path| path.to_str().unwrap().to_string();
        let (folder_name, image, file_name) = (path(&folder), path(&image), path(&file));
        succeed(&["embed", "--encoder", &folder_name, "--text", TEXT, "--image", &image, "--out", &file_name]);
        let (got, want) = (Reader::open(&file).unwrap(), Reader::open(&folder.join("expected.safetensors")).unwrap());
        for name in ["text.tokens", "text.global", "image.patches", "image.global"] {
            let (got, want) = (got.tensor(name).unwrap(), want.tensor(name).unwrap());
            let largest = want.data().iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let error = difference(got.data(), want.data()) / largest;
            assert!(error < FEATURES, "{folder_name}: {name} is off by {error}");
        }
    }
}

#[test]
fn texts_encoded_together_are_as_if_encoded_alone() {
    let (folders, _) = fixtures();
    let encoders = open(&folders[0]).unwrap();
    let texts = ["king", TEXT, "", "Hussein of Jordan"];
    let together = encoders.text.encode_texts(&texts, 12).unwrap();
    for (text, together) in texts.iter().zip(together) {
        let alone = &encoders.text.encode_texts(&[text], 12).unwrap()[0];
        assert!(difference(&together.tokens, &alone.tokens) < 1e-6 && together.global.len() == alone.global.len());
        assert!(together.tokens.len() / encoders.text.widths().0 <= 12);
    }
}
