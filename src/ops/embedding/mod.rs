//! Token embeddings, and the class token that vision transformers put before the patches.

mod cuda;

use std::iter::once;

pub use cuda::{DeviceClassToken, DeviceEmbedding};

use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::{Compute, Data, Rows, Sequences, Tensor};

/// Vectors and those of positions, which are added to them; `D` has both on a device.
enum Weights<D> {
    Host { vectors: Tensor, positions: Tensor },
    Device(D),
}

impl<D> Weights<D> {
    fn new(
        vectors: Tensor,
        positions: Tensor,
        compute: &Compute,
        upload: impl FnOnce(&Gpu, &[f32], &[f32]) -> Result<D>,
    ) -> Result<Weights<D>> {
        Ok(match &compute.gpu {
            Some(gpu) => Weights::Device(upload(gpu, vectors.data(), positions.data())?),
            None => Weights::Host { vectors, positions },
        })
    }
}

/// Rows that are sums of two.
fn sums<'a>(count: usize, width: usize, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Rows {
    let mut out = Buffer::scratch(count * width);
    for (out, (vector, position)) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(vector);
        simd!(vector::add(out, position));
    }
    Rows::new(out, width)
}

/// Vectors of tokens and of their positions in a sequence, which are added.
pub struct Embedding {
    tables: Weights<DeviceEmbedding>,
    /// Rows of the two tables.
    vocabulary: usize,
    most_tokens: usize,
    width: usize,
}

impl Embedding {
    /// From two tables of one width.
    pub fn new(tokens: Tensor, positions: Tensor, compute: &Compute) -> Result<Embedding> {
        let (vocabulary, width) = tokens.matrix("embedding", "table of tokens")?;
        let most_tokens = positions.len() / width.max(1);
        positions.expect("embedding", "table of positions", &[most_tokens, width])?;
        let upload = |gpu: &Gpu, tokens: &[f32], positions: &[f32]| DeviceEmbedding::new(gpu, tokens, positions, width);
        let tables = Weights::new(tokens, positions, compute, upload)?;
        Ok(Embedding { tables, vocabulary, most_tokens, width })
    }

    /// Rows of the tokens of all sequences.
    pub fn forward(&self, ids: &[&[u32]]) -> Result<Rows> {
        if let Some(id) = ids.iter().flat_map(|ids| ids.iter()).find(|&&id| id as usize >= self.vocabulary) {
            let reason = format!("gives token {id} of a model that has {}; is it another model's?", self.vocabulary);
            return Err(Error::invalid(reason));
        }
        if ids.iter().any(|ids| ids.len() > self.most_tokens) {
            return Err(Error::shape("embedding", "a text has more tokens than positions"));
        }
        let places = ids.iter().flat_map(|ids| 0..ids.len() as u32);
        match &self.tables {
            Weights::Device(embedding) => {
                Ok(Rows::on_device(embedding.forward(&ids.concat(), &places.collect::<Vec<_>>())?))
            }
            Weights::Host { vectors, positions } => {
                let (ids, width) = (ids.concat(), self.width);
                let row = |i: u32| i as usize * width..(i as usize + 1) * width;
                let rows = ids.iter().zip(places);
                let rows = rows.map(|(&id, place)| (&vectors.data()[row(id)], &positions.data()[row(place)]));
                Ok(sums(ids.len(), width, rows))
            }
        }
    }
}

/// Puts the class token before each image's patches and adds their positions.
pub struct ClassToken {
    vectors: Weights<DeviceClassToken>,
    width: usize,
    /// Patches of an image and the class token.
    length: usize,
}

impl ClassToken {
    /// From the token (width) and the positions (patches + 1, width).
    pub fn new(class: Tensor, positions: Tensor, compute: &Compute) -> Result<ClassToken> {
        let (width, length) = (class.len(), positions.len() / class.len().max(1));
        let vectors = Weights::new(class, positions, compute, DeviceClassToken::new)?;
        Ok(ClassToken { vectors, width, length })
    }

    /// (images · patches, width) -> (images · (patches + 1), width) and the images' sequences.
    pub fn forward(&self, patches: &Rows) -> Result<(Rows, Sequences)> {
        let ClassToken { width, length, .. } = *self;
        if patches.width() != width || length < 2 || !patches.count().is_multiple_of(length - 1) {
            let (count, found) = (patches.count(), patches.width());
            return Err(Error::shape("class token", format!("({count}, {found}) patches of images of {length}")));
        }
        let images = patches.count() / (length - 1);
        let rows = match (&self.vectors, patches.data()) {
            (Weights::Device(token), Data::Device(patches)) => Rows::on_device(token.forward(patches)?),
            (Weights::Device(_), _) => {
                return Err(Error::shape("class token", "lies on a device, patches on the host"));
            }
            (Weights::Host { vectors: class, positions }, _) => {
                let patches = patches.wide("class token")?.chunks_exact((length - 1) * width);
                let rows = patches.flat_map(|patches| once(class.data()).chain(patches.chunks_exact(width)));
                sums(images * length, width, rows.zip(positions.data().chunks_exact(width).cycle()))
            }
        };
        Ok((rows, Sequences::equal(images, length)))
    }
}
