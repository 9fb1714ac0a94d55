//! The weights of a Hugging Face directory: one file or several with an index, of safetensors or as PyTorch writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Tensor;
use super::safetensors::Reader;
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The one file of a small model.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Which file of a larger one holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A file of weights, or the index of several, and how they are opened.
type Kind = (&'static str, &'static str, fn(&Path) -> Result<Reader>);

/// What a directory may have, the first that is there counts: PyTorch's own files are all that older models have, and OpenCLIP's
/// stand beside those of transformers.
const KINDS: [Kind; 4] = [
    (SINGLE, INDEX, Reader::open),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", Reader::open_pickled),
    ("open_clip_model.safetensors", "open_clip_model.safetensors.index.json", Reader::open),
    ("open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin.index.json", Reader::open_pickled),
];

/// The opened files of a model.
#[derive(Debug)]
pub struct Shards {
    /// The index, whether it exists or not.
    index: PathBuf,
    readers: Vec<Reader>,
    /// The reader of each tensor.
    places: BTreeMap<String, usize>,
}

impl Shards {
    /// Whether a directory has files of weights.
    pub fn are_in(folder: &Path) -> bool {
        Shards::kind(folder).is_some()
    }

    fn kind(folder: &Path) -> Option<Kind> {
        let is_there = |name: &str| folder.join(name).exists();
        KINDS.into_iter().find(|(single, index, _)| is_there(single) || is_there(index))
    }

    /// Opens `model.safetensors`, or all files that `model.safetensors.index.json` names; without them the same of
    /// `pytorch_model.bin`, `open_clip_model.safetensors` or `open_clip_pytorch_model.bin`.
    ///
    /// Fails if files are missing or cut short, or if one lacks a tensor that the index says it has.
    pub fn open(folder: &Path) -> Result<Shards> {
        let Some((single, index, open)) = Shards::kind(folder) else {
            let names = KINDS.map(|(single, ..)| single).join(", ");
            return Err(Error::file(folder, format!("has no weights: none of {names}, nor an index of their parts")));
        };
        let is_there = |name: &str| folder.join(name).exists();
        let named = if is_there(single) { BTreeMap::new() } else { Shards::named_by(&folder.join(index))? };
        let single = is_there(single).then_some(single);
        let names: BTreeSet<&str> = named.values().map(String::as_str).chain(single).collect();
        let missing: Vec<&str> = names.iter().copied().filter(|name| !folder.join(name).exists()).collect();
        if !missing.is_empty() {
            let reason = format!("names shards that are missing: {}; download them", missing.join(", "));
            return Err(Error::file(folder.join(index), reason));
        }
        let readers = names.iter().map(|name| open(&folder.join(name))).collect::<Result<Vec<_>>>()?;
        let mut places = BTreeMap::new();
        for (i, reader) in readers.iter().enumerate() {
            places.extend(reader.names().map(|name| (name.to_string(), i)));
        }
        for (tensor, file) in &named {
            if !readers.iter().any(|r| r.path() == folder.join(file) && r.contains(tensor)) {
                let reason = format!("is missing, {index} says it is here");
                return Err(Error::tensor(folder.join(file), tensor, reason));
            }
        }
        Ok(Shards { index: folder.join(index), readers, places })
    }

    fn named_by(index: &Path) -> Result<BTreeMap<String, String>> {
        let fields = Fields::read(index)?;
        let Some(map) = fields.under("weight_map")? else {
            return Err(fields.error("is no index of shards: it has no `weight_map`"));
        };
        let place = |tensor: &str| match map.text(tensor)? {
            Some(name) if Path::new(name).components().count() == 1 => Ok((tensor.to_string(), name.to_string())),
            name => Err(fields.error(format!("names {:?}, which is no file beside it", name.unwrap_or_default()))),
        };
        map.keys().map(place).collect()
    }

    /// Names of the files, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.readers.iter().filter_map(|reader| reader.path().file_name()?.to_str())
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.reader(name)?.shape(name)
    }

    /// Reads a tensor of f32, f16 or bf16 as f32 and checks its shape.
    pub fn tensor_of(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.reader(name)?.tensor_of(name, shape)
    }

    /// The file that holds a tensor.
    pub fn reader(&self, name: &str) -> Result<&Reader> {
        let reader = self.places.get(name).and_then(|&i| self.readers.get(i));
        reader.ok_or_else(|| {
            let reason = "is missing; is the download complete, and is config.json this model's?";
            match &self.readers[..] {
                [only] => Error::tensor(only.path(), name, reason),
                _ => Error::tensor(&self.index, name, reason),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::safetensors::Writer;
    use super::*;

    fn write(folder: &Path, file: &str, tensor: &str) {
        Writer::default().add(tensor, &[2], &[1.0f32, 2.0]).write(&folder.join(file)).unwrap();
    }

    fn refused(folder: &Path) -> String {
        Shards::open(folder).unwrap_err().to_string()
    }

    #[test]
    fn shards_are_found_and_their_faults_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(refused(path).contains("has no weights"));
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        std::fs::write(path.join(INDEX), index).unwrap();
        write(path, "1.safetensors", "a");
        assert!(refused(path).contains("names shards that are missing: 2.safetensors"));
        write(path, "2.safetensors", "c");
        assert!(refused(path).contains("2.safetensors: tensor `b`: is missing"));
        write(path, "2.safetensors", "b");
        let shards = Shards::open(path).unwrap();
        assert_eq!(shards.tensor_of("b", &[2]).unwrap().data(), [1.0, 2.0]);
        assert_eq!(shards.files().collect::<Vec<_>>(), ["1.safetensors", "2.safetensors"]);
        assert!(shards.tensor_of("c", &[2]).unwrap_err().to_string().contains("`c`: is missing"));
        std::fs::write(path.join(INDEX), index.replace("2.s", "../2.s")).unwrap();
        assert!(refused(path).contains("no file beside it"));
        std::fs::write(path.join(INDEX), "{}").unwrap();
        assert!(refused(path).contains("is no index of shards"));
    }
}
