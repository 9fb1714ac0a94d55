//! Writing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, View};
use serde::Serialize;

use super::seal::{Sealed, seal};
use super::{Element, METADATA_KEY, storage};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{DType, Tensor};

/// Collects named tensors and writes them as one file.
#[derive(Default)]
pub struct Writer<'a> {
    tensors: Vec<(String, Entrant<'a>)>,
    /// A key of the header, and its text.
    metadata: Option<(&'static str, String)>,
}

struct Entrant<'a> {
    dtype: DType,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl View for &Entrant<'_> {
    fn dtype(&self) -> Dtype {
        storage(self.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Writer<'a> {
    /// Adds values with their shape.
    pub fn add<T: Element>(&mut self, name: impl Into<String>, shape: &[usize], values: &'a [T]) -> &mut Self {
        self.stored(name, T::DTYPE, shape, bytemuck::cast_slice(values))
    }

    /// The same of values as a file holds them, in bytes.
    pub fn stored(&mut self, name: impl Into<String>, dtype: DType, shape: &[usize], bytes: &'a [u8]) -> &mut Self {
        self.tensors.push((name.into(), Entrant { dtype, shape: shape.to_vec(), bytes }));
        self
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, name: impl Into<String>, tensor: &'a Tensor) -> &mut Self {
        self.add(name, tensor.shape(), tensor.data())
    }

    /// Stores a value in the header.
    pub fn metadata<T: Serialize>(&mut self, value: &T) -> Result<&mut Self> {
        let text = serde_json::to_string(value).map_err(|e| Error::invalid(format!("cannot store metadata: {e}")))?;
        self.metadata = Some((METADATA_KEY, text));
        Ok(self)
    }

    /// Says in the header that the tensors are as PyTorch names and lays them out, which transformers asks of a file.
    pub fn as_pytorch(&mut self) -> &mut Self {
        self.metadata = Some(("format", "pt".into()));
        self
    }

    /// Stores a value in the header together with a checksum of it and of the tensors added so far, which must be all.
    pub fn sealed_metadata<T: Serialize>(&mut self, value: &T) -> Result<&mut Self> {
        let broken = |e: serde_json::Error| Error::invalid(format!("cannot store metadata: {e}"));
        let header = serde_json::value::to_raw_value(value).map_err(broken)?;
        let mut entrants: Vec<_> = self.tensors.iter().collect();
        entrants.sort_by(|a, b| a.0.cmp(&b.0));
        let tensors = entrants.iter().map(|(name, e)| (name.as_str(), storage(e.dtype), &e.shape[..], e.bytes));
        let xxh3 = seal(header.get(), tensors).into();
        self.metadata(&Sealed { xxh3, header: &header })
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_whole_at(path, |temp| {
            let header = self.metadata.clone().map(|(key, text)| HashMap::from([(key.to_string(), text)]));
            let tensors = self.tensors.iter().map(|(name, entrant)| (name, entrant));
            safetensors::serialize_to_file(tensors, header, temp).map_err(|e| match e {
                safetensors::SafeTensorError::IoError(e) => e,
                other => std::io::Error::other(other),
            })
        })
    }
}
