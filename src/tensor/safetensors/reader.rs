//! Reading.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::de::DeserializeOwned;

use super::finite::first_unbounded;
use super::seal::{Sealed, seal};
use super::{Element, METADATA_KEY, storage};
use crate::device::MappedFile;
use crate::error::{Error, Result};
use crate::foreign::foreign;
use crate::tensor::pickle::{self, Stored};
use crate::tensor::{DType, SharedSlice, Tensor};

/// An opened file; tensors are read when asked for.
#[derive(Debug)]
pub struct Reader {
    file: Arc<MappedFile>,
    entries: BTreeMap<String, Stored>,
    metadata: Option<String>,
}

impl Reader {
    /// Opens a file and checks that its header and its length are consistent.
    pub fn open(path: &Path) -> Result<Reader> {
        let file = Arc::new(MappedFile::open(path)?);
        let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|e| {
            let what = match e {
                SafeTensorError::InvalidHeader(_) | SafeTensorError::InvalidHeaderDeserialization(_) => {
                    "its header cannot be read".to_string()
                }
                SafeTensorError::MetadataIncompleteBuffer => "its length is not what its header says".to_string(),
                other => other.to_string(),
            };
            let cut = || format!("is no complete safetensors file ({what}); was it cut short? write or copy it again");
            Error::file(path, foreign(&file).map_or_else(cut, str::to_string))
        })?;
        let start = header + 8;
        let entries = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
                (name, Stored { dtype: info.dtype, shape: info.shape.clone(), bytes })
            })
            .collect();
        let metadata = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY).cloned());
        Ok(Reader { file, entries, metadata })
    }

    /// The same of a file that PyTorch wrote, such as `pytorch_model.bin`. Nothing that it asks for is run.
    pub fn open_pickled(path: &Path) -> Result<Reader> {
        let file = Arc::new(MappedFile::open(path)?);
        let entries = pickle::tensors(&file).map_err(|reason| Error::file(path, reason))?;
        Ok(Reader { file, entries, metadata: None })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// What [`super::Writer::metadata`] stored.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.metadata.as_deref().ok_or_else(|| {
            Error::file(self.path(), "was not written by fissfuse: its header carries no `fissfuse` entry")
        })?;
        self.parsed(text)
    }

    /// What [`super::Writer::sealed_metadata`] stored, once all of the file was found to be what was written. Files of versions that
    /// sealed nothing are read as they are.
    pub fn sealed_metadata<T: DeserializeOwned>(&self) -> Result<T> {
        let Some(Ok(sealed)) = self.metadata.as_deref().map(serde_json::from_str::<Sealed>) else {
            return self.metadata();
        };
        let tensors = self.entries.iter();
        let tensors = tensors.map(|(name, e)| (name.as_str(), e.dtype, &e.shape[..], &self.file[e.bytes.clone()]));
        if seal(sealed.header.get(), tensors) != sealed.xxh3 {
            let reason = "is not what was written (its checksum differs): the disk or a copy lost bits; copy it again from where \
                          it came, or train again";
            return Err(Error::file(self.path(), reason));
        }
        self.parsed(sealed.header.get())
    }

    fn parsed<T: DeserializeOwned>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text)
            .map_err(|e| Error::file(self.path(), format!("header damaged, or of another version of fissfuse: {e}")))
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.entry(name)?.shape)
    }

    /// Type of a tensor's numbers. Fails for types that the engine never uses.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        let found = self.entry(name)?.dtype;
        let known = [DType::U8, DType::I64, DType::U64, DType::F16, DType::BF16, DType::F32, DType::F64];
        let dtype = known.into_iter().find(|&dtype| storage(dtype) == found);
        dtype.ok_or_else(|| self.error(name, format!("is {found:?}, which no part of the engine reads")))
    }

    /// Reads a tensor of f32, f16 or bf16 as f32, whatever its shape. Fails if a value is infinite or no number.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let bytes = &self.file[entry.bytes.clone()];
        let values: Vec<f32> = match entry.dtype {
            Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(bytes).to_f32_vec(),
            Dtype::BF16 => bytemuck::pod_collect_to_vec::<u8, bf16>(bytes).to_f32_vec(),
            other => return Err(self.error(name, format!("is {other:?}, needs F32, F16 or BF16"))),
        };
        self.expect_finite(name, first_unbounded(&values))?;
        Tensor::new(entry.shape.clone(), values)
    }

    /// Fails with the place of a tensor's first value that is infinite or no number, if there is one.
    pub fn expect_finite(&self, name: &str, unbounded: Option<usize>) -> Result<()> {
        let reason = |at| format!("holds NaN or infinity (value {at}): the file is damaged, or its training diverged");
        unbounded.map_or(Ok(()), |at| Err(self.error(name, reason(at))))
    }

    /// Reads a tensor as f32 and checks its shape.
    pub fn tensor_of(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(self.error(name, format!("has shape {found:?}, needs {shape:?}")));
        }
        self.tensor(name)
    }

    /// Reads a tensor of exactly this type.
    pub fn values<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let entry = self.typed::<T>(name)?;
        Ok(bytemuck::pod_collect_to_vec(&self.file[entry.bytes.clone()]))
    }

    /// The values of a tensor of exactly this type, left in the mapped file.
    pub fn mapped<T: Element>(&self, name: &str) -> Result<SharedSlice<T>> {
        let entry = self.typed::<T>(name)?;
        SharedSlice::mapped(self.file.clone(), entry.bytes.clone())
            .ok_or_else(|| self.error(name, "is not aligned in the file; write it again with a current safetensors"))
    }

    /// The bytes of a tensor of any type.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(&self.file[self.entry(name)?.bytes.clone()])
    }

    fn typed<T: Element>(&self, name: &str) -> Result<&Stored> {
        let entry = self.entry(name)?;
        if entry.dtype != storage(T::DTYPE) {
            return Err(self.error(name, format!("is {:?}, needs {}", entry.dtype, T::DTYPE)));
        }
        Ok(entry)
    }

    fn entry(&self, name: &str) -> Result<&Stored> {
        self.entries.get(name).ok_or_else(|| self.error(name, "is missing from the file"))
    }

    /// An error about one tensor of this file.
    pub fn error(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::tensor(self.path(), name, reason)
    }
}
