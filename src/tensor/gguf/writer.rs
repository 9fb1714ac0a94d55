//! Writing a GGUF file of version 3.

use std::io::Write;
use std::path::Path;

use super::FLOATS;
use super::value::Kind;
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{Matrix, Precision, Values};

/// Tensors begin at multiples of so many bytes, where a file says nothing else.
const ALIGNMENT: u64 = 32;

/// A setting's value.
#[derive(Clone, Debug)]
pub enum Setting {
    Size(u32),
    Number(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f32>),
    Kinds(Vec<i32>),
}

/// A tensor as it will be written: its name, its shape with rows first, and what its numbers are.
#[derive(Clone, Debug)]
pub struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
    pub precision: Precision,
}

impl Planned {
    /// Number of its type and its bytes.
    fn kind(&self) -> Option<(u32, usize)> {
        let number = match self.precision {
            Precision::Blocks(kind) => Some(kind.number()),
            other => FLOATS.iter().find(|(_, precision)| *precision == other).map(|(number, _)| *number),
        };
        number.map(|number| (number, self.precision.bytes(self.shape.iter().product())))
    }
}

/// Writes a file, whole or not at all: its settings, and the tensors, each of which `make` gives when its turn comes.
///
/// Fails if a tensor is none that such a file can hold, or if `make` gives another one than was planned.
pub fn write(
    path: &Path,
    settings: &[(String, Setting)],
    tensors: &[Planned],
    make: impl Fn(&Planned) -> Result<Matrix>,
) -> Result<()> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((settings.len() as u64).to_le_bytes());
    for (key, setting) in settings {
        text(&mut header, key);
        value(&mut header, setting);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        let Some((number, bytes)) = tensor.kind() else {
            return Err(Error::tensor(path, &tensor.name, format!("{} has no place in a GGUF file", tensor.precision)));
        };
        text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&n| header.extend((n as u64).to_le_bytes()));
        header.extend(number.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = (offset + bytes as u64).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    if let Some(folder) = path.parent() {
        files::expect_room_for(folder, header.len() as u64 + offset)?;
    }
    // What `make` says is kept: the writer's own errors are those of files.
    let mut failed = None;
    let written = files::write_whole(path, |out| {
        out.write_all(&header)?;
        for tensor in tensors {
            match make(tensor) {
                Ok(weight)
                    if weight.precision() == tensor.precision && Some(weight.bytes()) == tensor.kind().map(|k| k.1) =>
                {
                    padded(out, weight.values())?;
                }
                other => {
                    let unlike = || Error::tensor(path, &tensor.name, "is not what was planned");
                    failed = Some(other.err().unwrap_or_else(unlike));
                    return Err(std::io::Error::other("a tensor cannot be made"));
                }
            }
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

/// A tensor's bytes, up to where the next one begins.
fn padded(out: &mut dyn Write, values: &Values) -> std::io::Result<()> {
    let bytes: &[u8] = match values {
        Values::F32(v) => bytemuck::cast_slice(v),
        Values::F16(v) => bytemuck::cast_slice(v),
        Values::Bf16(v) => bytemuck::cast_slice(v),
        Values::Blocks { blocks, .. } => blocks,
        Values::Quantized { .. } => return Err(std::io::Error::other("codes of another format")),
    };
    out.write_all(bytes)?;
    let rest = bytes.len().next_multiple_of(ALIGNMENT as usize) - bytes.len();
    out.write_all(&[0; ALIGNMENT as usize][..rest])
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn value(out: &mut Vec<u8>, setting: &Setting) {
    let number = |kind: Kind| kind as u32;
    let list = |out: &mut Vec<u8>, kind: Kind, count: usize| {
        out.extend(number(Kind::List).to_le_bytes());
        out.extend(number(kind).to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match setting {
        Setting::Size(size) => out.extend([number(Kind::U32), *size].iter().flat_map(|x| x.to_le_bytes())),
        Setting::Number(x) => out.extend([number(Kind::F32), x.to_bits()].iter().flat_map(|x| x.to_le_bytes())),
        Setting::Flag(flag) => {
            out.extend(number(Kind::Flag).to_le_bytes());
            out.push(u8::from(*flag));
        }
        Setting::Text(string) => {
            out.extend(number(Kind::Text).to_le_bytes());
            text(out, string);
        }
        Setting::Texts(all) => {
            list(out, Kind::Text, all.len());
            all.iter().for_each(|string| text(out, string));
        }
        Setting::Numbers(all) => {
            list(out, Kind::F32, all.len());
            all.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        Setting::Kinds(all) => {
            list(out, Kind::I32, all.len());
            all.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
    }
}
