//! Weights as PyTorch writes them: `pytorch_model.bin`, alone or in shards.

use std::fs;
use std::io::Write;
use std::path::Path;

use fissfuse::encoder::TextEncoder;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{DType, Precision};
use tempfile::{TempDir, tempdir};

use crate::support::fixture;

const TEXT: &str = "Hussein of Jordan. King Hussein, with his wife and Shahbanu Farah!";

/// A copy of a BERT's directory with nothing but a file of PyTorch's for its weights.
fn bert(name: &str, weights: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(fixture("bert").join(name).join(file), folder.path().join(file)).unwrap();
    }
    fs::copy(fixture("pickle").join(weights), folder.path().join("pytorch_model.bin")).unwrap();
    folder
}

fn features(folder: &Path) -> Vec<f32> {
    let encoder = TextEncoder::open(folder, Precision::F32).unwrap();
    encoder.encode_texts(&[TEXT], usize::MAX).unwrap().remove(0).tokens
}

/// Why a file is not read.
fn refused(path: &Path) -> String {
    Reader::open_pickled(path).unwrap_err().to_string()
}

#[test]
fn encoders_are_the_same_in_files_of_either_kind() {
    for (name, weights) in [("sharded-f32", "f32.bin"), ("masked-lm-bf16", "bf16.bin")] {
        let folder = bert(name, weights);
        let want = features(&fixture("bert").join(name));
        assert_eq!(features(folder.path()), want, "{name}");
        let [shard, index] = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"];
        fs::rename(folder.path().join("pytorch_model.bin"), folder.path().join(shard)).unwrap();
        let map = format!(r#"{{"weight_map": {{"bert.pooler.dense.bias": "{shard}"}}}}"#).replace("bert.", "");
        fs::write(folder.path().join(index), map).unwrap();
        let found = TextEncoder::open(folder.path(), Precision::F32).map(|_| ());
        match name {
            "sharded-f32" => assert_eq!(features(folder.path()), want, "{name} with an index"),
            _ => {
                let says = found.unwrap_err().to_string();
                assert!(says.contains("`pooler.dense.bias`: is missing, pytorch_model.bin.index.json says"), "{says}");
            }
        }
    }
}

#[test]
fn tensors_are_parts_of_their_storages() {
    let parts = Reader::open_pickled(&fixture("pickle/parts.bin")).unwrap();
    assert_eq!(parts.names().collect::<Vec<_>>(), ["half", "none", "one", "rows", "tied"]);
    let counted: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(parts.tensor_of("tied", &[4, 3]).unwrap().data(), counted);
    assert_eq!(parts.tensor_of("rows", &[2, 3]).unwrap().data(), &counted[3..9]);
    assert_eq!((parts.dtype("half").unwrap(), parts.tensor("half").unwrap().data()), (DType::F16, &counted[..]));
    assert_eq!(parts.tensor_of("one", &[]).unwrap().data(), [2.5]);
    assert_eq!(parts.tensor_of("none", &[0, 3]).unwrap().data(), [0.0; 0]);
    assert_eq!(parts.mapped::<f32>("rows").unwrap()[..], counted[3..9]);
    let whole = Reader::open_pickled(&fixture("pickle/f32.bin")).unwrap();
    assert_eq!(whole.values::<i64>("embeddings.position_ids").unwrap(), (0..60).collect::<Vec<i64>>());
}

#[test]
fn pickles_that_hold_or_ask_for_anything_else_are_refused_by_name() {
    let fixture = |name: &str| fixture("pickle").join(name);
    for (name, says) in [
        ("turned.bin", "tensor `turned`: is a view of other values"),
        ("command.bin", "asks for \"posix.system\", which no tensor needs: it would be run"),
        ("nested.bin", "`epoch` is no tensor; save the model's `state_dict()` alone"),
        ("old.bin", "is of a PyTorch before 1.6"),
        ("make.py", "is no file of PyTorch"),
    ] {
        let said = refused(&fixture(name));
        assert!(said.contains(name) && said.contains(says), "{said}");
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    let whole = fs::read(fixture("parts.bin")).unwrap();
    for len in [0, 4, 100, whole.len() / 2, whole.len() - 30] {
        fs::write(&path, &whole[..len]).unwrap();
        let said = refused(&path);
        assert!(said.contains("was it cut short?"), "{said}");
    }
    // So many values that they are no names of tensors.
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("archive/data.pkl", stored).unwrap();
    archive.write_all(&[&b"\x80\x02"[..], &[b'N'; 5_000_000]].concat()).unwrap();
    archive.finish().unwrap();
    assert!(refused(&path).contains("more than 4000000 values"), "{}", refused(&path));
    // In place of an empty dictionary, an object of a class.
    let at = whole.windows(3).position(|bytes| bytes == b"\x80\x02}").unwrap();
    let mut other = whole.clone();
    other[at + 2] = 0x81;
    fs::write(&path, other).unwrap();
    assert!(refused(&path).contains("holds the pickle opcode 0x81"), "{}", refused(&path));
}
