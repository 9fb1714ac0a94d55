//! GGUF files (ggml's format, versions 2 and 3), as most people have a Llama: settings, and tensors that stay where and
//! as they are in the mapped file.

mod parse;
mod value;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};

use self::parse::{Described, Header};
use self::value::{Kind, List, Value};
pub use self::writer::{Planned, Setting, write};
use super::blocks::BlockType;
use super::safetensors::{Element, first_unbounded};
use super::{Matrix, Precision, SharedSlice, Tensor, Values};
use crate::device::MappedFile;
use crate::error::{Error, Result};
use crate::foreign::foreign;

/// How the names of such files end.
pub const EXTENSION: &str = "gguf";

/// Numbers of the types of floats.
const FLOATS: [(u32, Precision); 3] = [(0, Precision::F32), (1, Precision::F16), (30, Precision::Bf16)];

/// Names of types that are not read, by their numbers.
const OTHERS: [(u32, &str); 16] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// A model in one file, or in several that belong together.
#[derive(Debug)]
pub struct Gguf {
    parts: Vec<Part>,
    /// Which part has a tensor, and where.
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Part {
    file: Arc<MappedFile>,
    fields: BTreeMap<String, Value>,
}

#[derive(Debug)]
struct Entry {
    part: usize,
    shape: Vec<usize>,
    precision: Precision,
    bytes: Range<usize>,
}

impl Gguf {
    /// Opens a file and, if it is one of several (`-00001-of-00003.gguf`), all of them.
    ///
    /// Fails if one is missing, cut short, or not what the format asks for.
    pub fn open(path: &Path) -> Result<Gguf> {
        let (first, mut header) = read(path)?;
        let count = match header.fields.get("split.count") {
            None => 1,
            Some(Value::Whole(count @ 1..=99_999)) => *count,
            Some(other) => return Err(Error::file(path, format!("`split.count` is {other}, needs 1 to 99999"))),
        };
        let mut gguf = Gguf { parts: Vec::new(), tensors: BTreeMap::new() };
        if count == 1 {
            gguf.add(first, header)?;
            return Ok(gguf);
        }
        let paths = parts_beside(path, count)?;
        for (number, path) in paths.iter().enumerate() {
            let file;
            (file, header) = read(path)?;
            let found = [("split.no", number as u64), ("split.count", count)];
            if let Some((key, _)) = found.iter().find(|(key, n)| header.fields.get(*key) != Some(&Value::Whole(*n))) {
                let reason = format!("is not part {} of {count} of a model, by its `{key}`", number + 1);
                return Err(Error::file(path, reason));
            }
            gguf.add(file, header)?;
        }
        match gguf.whole("split.tensors.count")? {
            Some(all) if all != gguf.tensors.len() as u64 => {
                let reason = format!("`split.tensors.count` is {all}, but its parts have {}", gguf.tensors.len());
                Err(gguf.error(reason))
            }
            _ => Ok(gguf),
        }
    }

    fn add(&mut self, file: MappedFile, header: Header) -> Result<()> {
        let part = self.parts.len();
        let mut places: Vec<(Range<usize>, &String)> = Vec::new();
        for (name, described) in &header.tensors {
            let entry = place(&file, &header, part, name, described)?;
            places.push((entry.bytes.clone(), name));
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::tensor(file.path(), name, "is in another part of the model too"));
            }
        }
        places.sort_by_key(|(bytes, _)| bytes.start);
        if let Some([_, (_, second), ..]) = places.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            return Err(Error::tensor(file.path(), second, "begins within another tensor"));
        }
        self.parts.push(Part { file: Arc::new(file), fields: header.fields });
        Ok(())
    }

    /// Where the file lies, the first of several.
    pub fn path(&self) -> &Path {
        self.parts[0].file.path()
    }

    /// All of its files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.file.path())
    }

    /// An error about the file.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::file(self.path(), reason)
    }

    /// An error about a setting: what it needs to be.
    pub fn wrong(&self, key: &str, needs: &str) -> Error {
        let found = self.parts[0].fields.get(key).map_or("missing".into(), Value::to_string);
        self.error(format!("`{key}` is {found}, needs {needs}"))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.parts[0].fields.get(key)
    }

    /// A setting that is a text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A setting that is a whole number, not below 0.
    pub fn whole(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) => Ok(Some(*number)),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// A setting that is a finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(*number)),
            Some(Value::Whole(number)) => Ok(Some(*number as f64)),
            Some(_) => Err(self.wrong(key, "a finite number")),
        }
    }

    /// A setting that is yes or no.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn list(&self, key: &str) -> Result<Option<&List>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        if list.kind != Kind::Text {
            return Err(self.wrong(key, "a list of texts"));
        }
        let texts = parse::texts(&self.parts[0].file, list.place.clone()).enumerate();
        let text = |(at, bytes)| {
            std::str::from_utf8(bytes).map_err(|_| self.error(format!("`{key}`: entry {at} is no text in UTF-8")))
        };
        texts.map(text).collect::<Result<_>>().map(Some)
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let bytes = self.parts[0].file.get(list.place.clone()).unwrap_or_default();
        let values = bytes.chunks_exact(list.kind.bytes()).map(|bytes| match Value::read(list.kind, bytes) {
            Ok(Value::Whole(n)) => Some(n as f64),
            Ok(Value::Negative(n)) => Some(n as f64),
            Ok(Value::Float(x)) if x.is_finite() => Some(x),
            _ => None,
        });
        match list.kind {
            Kind::Text | Kind::List | Kind::Flag => None,
            _ => values.collect::<Option<Vec<_>>>(),
        }
        .map(Some)
        .ok_or_else(|| self.wrong(key, "a list of finite numbers"))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| Error::tensor(self.path(), name, "is missing; is the download complete?"))
    }

    /// An error about a tensor.
    pub fn tensor_error(&self, name: &str, reason: impl Into<String>) -> Error {
        let part = self.tensors.get(name).map_or(0, |entry| entry.part);
        Error::tensor(self.parts[part].file.path(), name, reason)
    }

    /// Shape of a tensor, rows first.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.entry(name).map(|entry| &entry.shape[..])
    }

    /// What a tensor's numbers are.
    pub fn precision(&self, name: &str) -> Result<Precision> {
        self.entry(name).map(|entry| entry.precision)
    }

    /// A matrix, as it lies in the file. Fails if a number of it, or the scale of a block, is not finite.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        let entry = self.entry(name)?;
        let &[rows, columns] = &entry.shape[..] else {
            return Err(self.tensor_error(name, format!("has shape {:?}, needs rows and columns", entry.shape)));
        };
        let values = match entry.precision {
            Precision::F32 => Values::F32(self.finite(name, entry)?),
            Precision::F16 => Values::F16(self.finite::<f16>(name, entry)?),
            Precision::Bf16 => Values::Bf16(self.finite::<bf16>(name, entry)?),
            Precision::Blocks(kind) => {
                let blocks: SharedSlice<u8> = self.mapped(name, entry)?;
                if let Some(at) = kind.first_unbounded(&blocks) {
                    return Err(self.tensor_error(name, format!("block {at} has a scale that is not finite")));
                }
                Values::Blocks { kind, blocks }
            }
            Precision::Int8 | Precision::Int4 => return Err(self.tensor_error(name, "is of a type of other files")),
        };
        Matrix::new(rows, columns, values)
    }

    /// A vector of floats, as f32.
    pub fn vector(&self, name: &str, length: usize) -> Result<Tensor> {
        let entry = self.entry(name)?;
        if entry.shape != [length] {
            return Err(self.tensor_error(name, format!("has shape {:?}, needs [{length}]", entry.shape)));
        }
        let values = match entry.precision {
            Precision::F32 => self.finite::<f32>(name, entry)?.to_vec(),
            Precision::F16 => self.finite::<f16>(name, entry)?.iter().map(|x| x.to_f32()).collect(),
            Precision::Bf16 => self.finite::<bf16>(name, entry)?.iter().map(|x| x.to_f32()).collect(),
            other => return Err(self.tensor_error(name, format!("is {other}, needs floats"))),
        };
        Tensor::new([length], values)
    }

    fn finite<T: Element + super::safetensors::Float>(&self, name: &str, entry: &Entry) -> Result<SharedSlice<T>> {
        let values: SharedSlice<T> = self.mapped(name, entry)?;
        match first_unbounded(&values) {
            None => Ok(values),
            Some(at) => Err(self.tensor_error(name, format!("holds NaN or infinity (value {at})"))),
        }
    }

    fn mapped<T: bytemuck::Pod>(&self, name: &str, entry: &Entry) -> Result<SharedSlice<T>> {
        let file = &self.parts[entry.part].file;
        if let Some(values) = SharedSlice::mapped(Arc::clone(file), entry.bytes.clone()) {
            return Ok(values);
        }
        // Files may be aligned to less than a float.
        let bytes = file.get(entry.bytes.clone()).unwrap_or_default();
        match bytemuck::allocation::pod_collect_to_vec::<u8, T>(bytes) {
            values if size_of_val(&values[..]) == bytes.len() => Ok(values.into()),
            _ => Err(self.tensor_error(name, "is of a size that is not whole")),
        }
    }
}

/// Maps a file and reads its header.
fn read(path: &Path) -> Result<(MappedFile, Header)> {
    let file = MappedFile::open(path)?;
    match parse::header(&file) {
        Ok(header) => Ok((file, header)),
        Err(reason) => Err(Error::file(path, foreign(&file).map_or(reason, str::to_string))),
    }
}

/// Where a described tensor lies in its file.
fn place(file: &MappedFile, header: &Header, part: usize, name: &str, described: &Described) -> Result<Entry> {
    let refuse = |reason: String| Err(Error::tensor(file.path(), name, reason));
    let Described { shape, kind, offset } = described;
    let floats = FLOATS.iter().find(|(number, _)| number == kind).map(|&(_, precision)| precision);
    let Some(precision) = floats.or_else(|| BlockType::numbered(*kind).map(Precision::Blocks)) else {
        let known = OTHERS.iter().find(|(number, _)| number == kind);
        let name = known.map_or(format!("type {kind}"), |(_, name)| name.to_string());
        let reason = format!(
            "is {name}; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are read: take such a file of the \
             model, as Q4_K_M"
        );
        return refuse(reason);
    };
    let columns = shape[shape.len() - 1];
    let rows: usize = shape[..shape.len() - 1].iter().product();
    let row = match precision {
        Precision::Blocks(kind) if !columns.is_multiple_of(kind.weights()) => {
            return refuse(format!("has rows of {columns}, which are no whole blocks of {}", kind.weights()));
        }
        Precision::Blocks(kind) => Some(kind.bytes(columns)),
        floats => columns.checked_mul(floats.bytes(1)),
    };
    if !offset.is_multiple_of(header.alignment) {
        return refuse(format!("begins at {offset}, which is no multiple of {}", header.alignment));
    }
    let length = row.and_then(|row| row.checked_mul(rows));
    let start = usize::try_from(*offset).ok().and_then(|offset| offset.checked_add(header.data));
    match start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?)) {
        Some(bytes) if bytes.end <= file.len() => Ok(Entry { part, shape: shape.clone(), precision, bytes }),
        _ => refuse(format!("lies beyond the file's end ({} bytes); was the download cut short?", file.len())),
    }
}

/// The files of a model in `count` parts, of which one is given.
fn parts_beside(path: &Path, count: u64) -> Result<Vec<PathBuf>> {
    let end = format!("-of-{count:05}.{EXTENSION}");
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(&end).and_then(|start| start.get(..start.len().checked_sub(6)?));
    let Some(stem) = stem else {
        let reason =
            format!("is one of {count} parts of a model; they are found by their names, which end in `-00001{end}`");
        return Err(Error::file(path, reason));
    };
    let paths = (1..=count).map(|number| path.with_file_name(format!("{stem}-{number:05}{end}")));
    let paths: Vec<PathBuf> = paths.collect();
    match paths.iter().find(|path| !path.exists()) {
        None => Ok(paths),
        Some(missing) => {
            Err(Error::file(missing, format!("is missing: the model has {count} parts; download all of them")))
        }
    }
}
