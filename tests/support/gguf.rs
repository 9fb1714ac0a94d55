//! A GGUF file as the format's document describes it, written by the tests alone, so that broken ones can be written too.

use std::path::Path;

/// A setting's value.
#[derive(Clone, Debug)]
pub enum Value {
    U32(u32),
    F32(f32),
    Flag(u8),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Ints(Vec<i32>),
}

/// A tensor: name, dimensions with the fastest first, number of its type, bytes.
pub type Tensor = (String, Vec<u64>, u32, Vec<u8>);

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct File {
    pub settings: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl File {
    pub fn set(&mut self, key: &str, value: Value) {
        match self.settings.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.settings.push((key.into(), value)),
        }
    }

    pub fn unset(&mut self, key: &str) {
        self.settings.retain(|(name, _)| name != key);
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
    }

    pub fn add_f32(&mut self, name: &str, dimensions: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.into(), dimensions.iter().map(|&n| n as u64).collect(), 0, bytes));
    }

    /// Its bytes, of version 3, aligned to 32.
    pub fn bytes(&self) -> Vec<u8> {
        let sizes: Vec<u64> = self.tensors.iter().map(|tensor| tensor.3.len() as u64).collect();
        let (mut out, _) = self.header(&sizes);
        for (_, _, _, bytes) in &self.tensors {
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(32), 0);
        }
        out
    }

    /// A file whose tensors have these sizes in bytes and hold nothing but zeros, which take no room on most disks.
    pub fn write_sparse(&self, path: &Path, sizes: &[u64]) {
        let (header, data) = self.header(sizes);
        std::fs::write(path, &header).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(header.len() as u64 + data).unwrap();
    }

    /// The bytes before the tensors, and how many the tensors take.
    fn header(&self, sizes: &[u64]) -> (Vec<u8>, u64) {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.settings.len() as u64).to_le_bytes());
        for (key, value) in &self.settings {
            text(&mut out, key);
            let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
                out.extend(9u32.to_le_bytes());
                out.extend(kind.to_le_bytes());
                out.extend((count as u64).to_le_bytes());
            };
            match value {
                Value::U32(x) => out.extend(4u32.to_le_bytes().into_iter().chain(x.to_le_bytes())),
                Value::F32(x) => out.extend(6u32.to_le_bytes().into_iter().chain(x.to_le_bytes())),
                Value::Flag(x) => out.extend(7u32.to_le_bytes().into_iter().chain([*x])),
                Value::Text(x) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, x);
                }
                Value::Texts(all) => {
                    list(&mut out, 8, all.len());
                    all.iter().for_each(|x| text(&mut out, x));
                }
                Value::Floats(all) => {
                    list(&mut out, 6, all.len());
                    all.iter().for_each(|x| out.extend(x.to_le_bytes()));
                }
                Value::Ints(all) => {
                    list(&mut out, 5, all.len());
                    all.iter().for_each(|x| out.extend(x.to_le_bytes()));
                }
            }
        }
        let mut offset = 0u64;
        for ((name, dimensions, kind, _), size) in self.tensors.iter().zip(sizes) {
            text(&mut out, name);
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + size).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        (out, offset)
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}
