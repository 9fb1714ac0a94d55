//! The header of a GGUF file: settings and where tensors lie. Nothing is taken on trust, and nothing is allocated that the
//! file's own bytes do not fill.

use std::collections::BTreeMap;
use std::ops::Range;

use super::value::{Kind, List, Value};

/// First bytes of a file.
const MAGIC: &[u8] = b"GGUF";

/// Tensors begin at multiples of this where the file says nothing else.
const ALIGNMENT: u64 = 32;

/// No file is aligned to more.
const MOST_ALIGNED: u64 = 1 << 20;

/// Longest key or name, in bytes: the format's own limit.
const LONGEST_NAME: usize = 65_535;

/// Lists of lists of lists ... deeper than this have no meaning.
const DEEPEST: usize = 4;

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Rows first: the reverse of what the file says.
    pub shape: Vec<usize>,
    /// Number of its type.
    pub kind: u32,
    /// Where it begins, from the start of the data.
    pub offset: u64,
}

/// What a header says.
#[derive(Debug, Default)]
pub struct Header {
    pub fields: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, Described>,
    /// Where the data starts in the file.
    pub data: usize,
    /// Tensors begin at multiples of this.
    pub alignment: u64,
}

/// Reads a header. Fails with what is wrong, and where in the file.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4)? != MAGIC {
        return Err("is no GGUF file: it does not begin with `GGUF`".into());
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => return Err("is of GGUF version 1, of 2023; convert the model again".into()),
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err("is a big-endian GGUF file; convert the model again for little-endian machines".into());
        }
        version => return Err(format!("is of GGUF version {version}; versions 2 and 3 are read")),
    }
    let (tensors, fields) = (cursor.u64()?, cursor.u64()?);
    let mut header = Header::default();
    for _ in 0..fields {
        let key = cursor.name("a setting")?;
        let value = cursor.value(&key)?;
        if header.fields.insert(key.clone(), value).is_some() {
            return Err(format!("has the setting `{}` twice", key.escape_debug()));
        }
    }
    header.alignment = match header.fields.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Whole(n)) if n.is_power_of_two() && *n <= MOST_ALIGNED => *n,
        Some(other) => {
            return Err(format!("`general.alignment` is {other}, needs a power of two up to {MOST_ALIGNED}"));
        }
    };
    for _ in 0..tensors {
        let name = cursor.name("a tensor")?;
        let tensor = cursor.tensor(&name)?;
        if header.tensors.insert(name.clone(), tensor).is_some() {
            return Err(format!("has the tensor `{}` twice", name.escape_debug()));
        }
    }
    // A header without tensors may end the file.
    header.data = cursor.at.next_multiple_of(header.alignment as usize).min(bytes.len());
    Ok(header)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| {
            format!("ends within its header, at byte {}; was the download cut short?", self.bytes.len())
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The bytes of a text.
    fn text(&mut self) -> Result<&'a [u8], String> {
        // More bytes than the memory could hold are not there either.
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn name(&mut self, of: &str) -> Result<String, String> {
        let at = self.at;
        let bytes = self.text()?;
        match std::str::from_utf8(bytes) {
            Ok(name) if !name.is_empty() && name.len() <= LONGEST_NAME => Ok(name.to_string()),
            _ => Err(format!("names {of} at byte {at} by what is no text of 1 to {LONGEST_NAME} bytes of UTF-8")),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value, String> {
        let kind = self.kind(key)?;
        let bytes = match kind {
            Kind::Text => self.text()?,
            Kind::List => return self.list(key).map(Value::List),
            _ => self.take(kind.bytes())?,
        };
        Value::read(kind, bytes).map_err(|reason| format!("`{}` {reason}", key.escape_debug()))
    }

    fn kind(&mut self, key: &str) -> Result<Kind, String> {
        let number = self.u32()?;
        Kind::numbered(number).ok_or_else(|| format!("`{}` is of the unknown type {number}", key.escape_debug()))
    }

    fn list(&mut self, key: &str) -> Result<List, String> {
        let kind = self.kind(key)?;
        let count = self.u64()?;
        let start = self.at;
        self.skip(key, kind, count, 1)?;
        Ok(List { kind, count, place: start..self.at })
    }

    /// Passes over the entries of a list.
    fn skip(&mut self, key: &str, kind: Kind, count: u64, depth: usize) -> Result<(), String> {
        match kind {
            Kind::List if depth == DEEPEST => {
                return Err(format!("`{}` holds lists within lists, too deep", key.escape_debug()));
            }
            Kind::List => {
                for _ in 0..count {
                    let (kind, count) = (self.kind(key)?, self.u64()?);
                    self.skip(key, kind, count, depth + 1)?;
                }
            }
            Kind::Text => {
                for _ in 0..count {
                    self.text()?;
                }
            }
            _ => {
                let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(kind.bytes()));
                self.take(bytes.unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str) -> Result<Described, String> {
        let refuse = |reason: String| Err(format!("tensor `{}` {reason}", name.escape_debug()));
        let dimensions = self.u32()?;
        if !(1..=4).contains(&dimensions) {
            return refuse(format!("has {dimensions} dimensions, 1 to 4 are possible"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.u64()?);
        }
        shape.reverse();
        let sizes: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n > 0)).collect();
        let whole = |sizes: &Vec<usize>| sizes.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).is_some();
        let Some(sizes) = sizes.filter(whole) else { return refuse(format!("has the impossible shape {shape:?}")) };
        let (kind, offset) = (self.u32()?, self.u64()?);
        Ok(Described { shape: sizes, kind, offset })
    }
}

/// The texts of a list, in bytes; the header was read, so that all are there.
pub fn texts(bytes: &[u8], place: Range<usize>) -> impl Iterator<Item = &[u8]> {
    let mut cursor = Cursor { bytes: bytes.get(..place.end).unwrap_or_default(), at: place.start };
    std::iter::from_fn(move || if cursor.at < place.end { cursor.text().ok() } else { None })
}
