//! Reading and writing safetensors files.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use super::{DType, SharedSlice, Tensor};
use crate::device::MappedFile;
use crate::error::{Error, Result};
use crate::files;
use crate::foreign::foreign;

/// Our metadata lives under one key, since the format keeps its keys in no order.
const METADATA_KEY: &str = "fissfuse";

/// Metadata with a checksum of itself and of all tensors. It takes the place of the bare metadata, so that no bit that tells
/// one from the other can be lost unseen: neither is the other's JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    xxh3: Cow<'a, str>,
    #[serde(borrow)]
    header: &'a RawValue,
}

/// A hash of the metadata and of every tensor's name, type, shape and bytes, in the order of their names.
fn seal<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>) -> String {
    let mut hash = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(header.as_bytes());
    for (name, dtype, shape, bytes) in tensors {
        part(name.as_bytes());
        part(format!("{dtype:?} {shape:?}").as_bytes());
        part(bytes);
    }
    format!("{:032x}", hash.digest128())
}

/// An opened file; tensors are read when asked for.
#[derive(Debug)]
pub struct Reader {
    file: Arc<MappedFile>,
    entries: BTreeMap<String, Entry>,
    metadata: Option<String>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
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
                (name, Entry { dtype: info.dtype, shape: info.shape.clone(), bytes })
            })
            .collect();
        let metadata = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY).cloned());
        Ok(Reader { file, entries, metadata })
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

    /// What [`Writer::metadata`] stored.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.metadata.as_deref().ok_or_else(|| {
            Error::file(self.path(), "was not written by fissfuse: its header carries no `fissfuse` entry")
        })?;
        self.parsed(text)
    }

    /// What [`Writer::sealed_metadata`] stored, once all of the file was found to be what was written. Files of versions that
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

    fn typed<T: Element>(&self, name: &str) -> Result<&Entry> {
        let entry = self.entry(name)?;
        if entry.dtype != storage(T::DTYPE) {
            return Err(self.error(name, format!("is {:?}, needs {}", entry.dtype, T::DTYPE)));
        }
        Ok(entry)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.get(name).ok_or_else(|| self.error(name, "is missing from the file"))
    }

    /// An error about one tensor of this file.
    pub fn error(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::tensor(self.path(), name, reason)
    }
}

/// Numbers whose exponent says whether they are finite.
pub trait Float: Sync {
    /// Whether the number is neither infinite nor NaN.
    fn bounded(&self) -> bool;
}

impl Float for f32 {
    fn bounded(&self) -> bool {
        self.is_finite()
    }
}

impl Float for f16 {
    fn bounded(&self) -> bool {
        self.to_bits() & 0x7c00 != 0x7c00
    }
}

impl Float for bf16 {
    fn bounded(&self) -> bool {
        self.to_bits() & 0x7f80 != 0x7f80
    }
}

/// The place of the first value that is infinite or no number.
pub fn first_unbounded<T: Float>(values: &[T]) -> Option<usize> {
    // Pieces without a branch per value: weights have billions.
    const PIECE: usize = 1 << 16;
    let bad = |piece: &[T]| piece.iter().fold(false, |bad, value| bad | !value.bounded());
    let piece = values.par_chunks(PIECE).position_first(bad)?;
    Some(piece * PIECE + values[piece * PIECE..].iter().position(|value| !value.bounded())?)
}

/// A Rust type that files can hold.
pub trait Element: bytemuck::Pod {
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}

elements!(u8 => U8, i64 => I64, u64 => U64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64);

fn storage(dtype: DType) -> Dtype {
    match dtype {
        DType::U8 => Dtype::U8,
        DType::I64 => Dtype::I64,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

/// Collects named tensors and writes them as one file.
#[derive(Default)]
pub struct Writer<'a> {
    tensors: Vec<(String, Entrant<'a>)>,
    metadata: Option<String>,
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
        let entrant = Entrant { dtype: T::DTYPE, shape: shape.to_vec(), bytes: bytemuck::cast_slice(values) };
        self.tensors.push((name.into(), entrant));
        self
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, name: impl Into<String>, tensor: &'a Tensor) -> &mut Self {
        self.add(name, tensor.shape(), tensor.data())
    }

    /// Stores a value in the header.
    pub fn metadata<T: Serialize>(&mut self, value: &T) -> Result<&mut Self> {
        let text = serde_json::to_string(value).map_err(|e| Error::invalid(format!("cannot store metadata: {e}")))?;
        self.metadata = Some(text);
        Ok(self)
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
            let header = self.metadata.clone().map(|text| HashMap::from([(METADATA_KEY.to_string(), text)]));
            let tensors = self.tensors.iter().map(|(name, entrant)| (name, entrant));
            safetensors::serialize_to_file(tensors, header, temp).map_err(|e| match e {
                safetensors::SafeTensorError::IoError(e) => e,
                other => std::io::Error::other(other),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let (wide, narrow) = ([1.5f32, -2.0], [bf16::from_f32(0.5); 3]);
        let mut writer = Writer::default();
        writer.add("wide", &[2, 1], &wide).add("narrow", &[3], &narrow).metadata(&"note").unwrap();
        writer.write(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.names().collect::<Vec<_>>(), ["narrow", "wide"]);
        assert_eq!(reader.tensor_of("wide", &[2, 1]).unwrap().data(), wide);
        assert_eq!(reader.tensor("narrow").unwrap().data(), [0.5; 3]);
        assert_eq!(reader.mapped::<f32>("wide").unwrap()[..], wide);
        assert_eq!(reader.metadata::<String>().unwrap(), "note");
        for (wrong, says) in [
            (reader.tensor_of("wide", &[2]).unwrap_err(), "has shape [2, 1], needs [2]"),
            (reader.tensor("other").unwrap_err(), "`other`: is missing"),
            (reader.values::<u64>("wide").unwrap_err(), "is F32, needs U64"),
        ] {
            assert!(wrong.to_string().contains(says), "{wrong}");
        }
    }

    #[test]
    fn weights_that_are_no_numbers_are_named_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut wide = vec![1.0f32; 100_000];
            wide[70_003] = bad;
            let [half, brain] = [f16::from_f32(bad).to_f32(), bf16::from_f32(bad).to_f32()];
            assert!(!f16::from_f32(half).bounded() && !bf16::from_f32(brain).bounded());
            Writer::default().add("w", &[wide.len()], &wide).write(&path).unwrap();
            let error = Reader::open(&path).unwrap().tensor("w").unwrap_err().to_string();
            assert!(error.contains("`w`: holds NaN or infinity (value 70003)"), "{error}");
        }
        assert_eq!(first_unbounded(&[f16::MAX, f16::MIN, f16::MIN_POSITIVE_SUBNORMAL]), None);
        assert_eq!(first_unbounded(&[bf16::MAX, bf16::MIN, bf16::ZERO]), None);
        assert_eq!(first_unbounded(&[f32::MAX, f32::MIN]), None);
    }

    #[test]
    fn any_bit_that_flips_in_a_sealed_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut writer = Writer::default();
        writer.add("b", &[2, 1], &[1.5f32, -2.0]).add("a", &[3], &[7u64, 8, 9]);
        writer.sealed_metadata(&BTreeMap::from([("epoch", 3)])).unwrap().write(&path).unwrap();
        let read = || Reader::open(&path)?.sealed_metadata::<BTreeMap<String, u32>>();
        assert_eq!(read().unwrap()["epoch"], 3);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let error = read().expect_err(&format!("bit {bit}")).to_string();
            assert!(error.contains("x.safetensors"), "{error}");
        }
        // What older versions wrote has no seal.
        let mut writer = Writer::default();
        writer.add("a", &[3], &[7u64, 8, 9]).metadata(&BTreeMap::from([("epoch", 3)])).unwrap().write(&path).unwrap();
        assert_eq!(read().unwrap()["epoch"], 3);
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        Writer::default().add("x", &[4], &[0.0f32; 4]).write(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 4, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Reader::open(&path).is_err(), "{len} bytes");
        }
    }
}
