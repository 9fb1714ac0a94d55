//! Tensors of `pytorch_model.bin`: a zip archive of a pickle, which says what they are called, and of their values.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch; opcodes in `pickletools.py` of Python.

mod machine;
mod values;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::rc::Rc;

use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use values::Pickled;

/// A tensor's place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What its values are.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its bytes in the file, row by row.
    pub bytes: Range<usize>,
}

/// The archive's entry of the pickle, behind the folder that all entries are in.
const PICKLE: &str = "data.pkl";

/// A zip archive begins so, and the files of PyTorch before 1.6, pickles one after the other, begin with their number.
const ZIP: &[u8] = b"PK\x03\x04";
const BEFORE_1_6: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// The tensors of a file, or why it is not read.
///
/// Fails for anything but a dictionary of dense tensors in little-endian byte order: nothing that a pickle asks for is run.
pub fn tensors(file: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    if !file.starts_with(ZIP) {
        return Err(match file.starts_with(BEFORE_1_6) {
            true => {
                "is of a PyTorch before 1.6; load it with PyTorch and save the model with safe_serialization".into()
            }
            false => "is no file of PyTorch: it is no zip archive; was it cut short? copy it again".into(),
        });
    }
    let mut archive = ZipArchive::new(Cursor::new(file))
        .map_err(|e| format!("its archive cannot be read ({e}); was it cut short? copy it again"))?;
    let mut entries = BTreeMap::new();
    for i in 0..archive.len() {
        let unreadable = |e| format!("entry {i} of its archive cannot be read: {e}");
        let entry = archive.by_index_raw(i).map_err(unreadable)?;
        let name = entry.name().map_err(unreadable)?;
        let name = name.split_once('/').map_or(&*name, |(_folder, name)| name).to_string();
        let start = entry.data_start().unwrap_or(u64::MAX);
        let range = start..start.saturating_add(entry.size());
        let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok()).map(|(a, b)| a..b);
        match range.filter(|range| entry.compression() == CompressionMethod::Stored && range.end <= file.len()) {
            Some(range) => drop(entries.insert(name, range)),
            None => return Err(format!("`{name}` is compressed or cut short; PyTorch writes neither")),
        }
    }
    let part = |name: &str| entries.get(name).cloned();
    if part("byteorder").is_some_and(|order| &file[order] != b"little") {
        return Err("is of a machine with another byte order; save the model there with safe_serialization".into());
    }
    let pickle = part(PICKLE).ok_or_else(|| format!("holds no {PICKLE}: no `torch.save` of weights wrote it"))?;
    let stored = |(name, tensor): (String, Rc<Pickled>)| {
        let storage = part(&format!("data/{}", tensor.storage.name));
        let place = storage.ok_or("its values are missing").and_then(|storage| place(&tensor, storage));
        let bytes = place.map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        Ok((name, Stored { dtype: tensor.storage.dtype, shape: tensor.shape.clone(), bytes }))
    };
    machine::tensors(&file[pickle])?.into_iter().map(stored).collect()
}

/// Where a tensor's values are, whose storage is at this place.
fn place(tensor: &Pickled, storage: Range<usize>) -> Result<Range<usize>, &'static str> {
    const OUTSIDE: &str = "lies outside of its values; the file is damaged";
    let count = tensor.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size)).ok_or(OUTSIDE)?;
    let mut step = 1;
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if count > 0 && size > 1 && stride != step {
            return Err(
                "is a view of other values (transposed, or with gaps); call `contiguous()` on it and save again",
            );
        }
        step = step.saturating_mul(size.max(1));
    }
    let bytes = |values: usize| values.checked_mul(tensor.storage.dtype.bitsize() / 8).ok_or(OUTSIDE);
    let end = tensor.offset.checked_add(count).filter(|&end| end <= tensor.storage.len).ok_or(OUTSIDE)?;
    let (start, end) = (bytes(tensor.offset)?, bytes(end)?);
    if end > storage.len() {
        return Err(OUTSIDE);
    }
    Ok(storage.start + start..storage.start + end)
}
