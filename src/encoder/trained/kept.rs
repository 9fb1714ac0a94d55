//! Tensors that stand in a file beside those that are trained.

use crate::error::Result;
use crate::tensor::safetensors::Writer;
use crate::tensor::{DType, Shards};

/// Tensors of any types, which are written with the bits that they were read with.
#[derive(Default)]
pub(in crate::encoder) struct Kept(Vec<Tensor>);

struct Tensor {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Kept {
    /// Those tensors of a model's files whose names are wanted.
    pub fn read(shards: &Shards, wanted: impl Fn(&str) -> bool) -> Result<Kept> {
        let read = |name: &str| {
            let reader = shards.reader(name)?;
            Ok(Tensor {
                name: name.into(),
                dtype: reader.dtype(name)?,
                shape: reader.shape(name)?.to_vec(),
                bytes: reader.bytes(name)?.to_vec(),
            })
        };
        shards.names().filter(|name| wanted(name)).map(read).collect::<Result<_>>().map(Kept)
    }

    /// Adds them to what is written.
    pub fn add_to<'a>(&'a self, writer: &mut Writer<'a>) {
        for Tensor { name, dtype, shape, bytes } in &self.0 {
            writer.stored(name, *dtype, shape, bytes);
        }
    }
}
