//! Token embeddings, and the class token that vision transformers put before the patches.

mod cuda;

use std::iter::once;

use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::{Compute, Data, Rows, Sequences, Tensor, fours};

/// Rows that are sums of two.
fn sums<'a>(count: usize, width: usize, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Rows {
    let mut out = Buffer::scratch(count * width);
    for (out, (vector, position)) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(vector);
        simd!(vector::add(out, position));
    }
    Rows::new(out, width)
}

/// Vectors and those of positions, which are added to them, where they are computed with.
fn placed(vectors: &Tensor, positions: &Tensor, compute: &Compute) -> Result<[Tensor; 2]> {
    let gpu = compute.gpu.as_ref();
    if let (Some(_), [_, width]) = (gpu, positions.shape()) {
        fours("embedding", *width)?;
    }
    Ok([vectors.to(gpu)?, positions.to(gpu)?])
}

/// Vectors of tokens and of their positions in a sequence, which are added.
pub struct Embedding {
    /// (vocabulary, width), (most tokens, width)
    tables: [Tensor; 2],
    width: usize,
}

impl Embedding {
    /// From two tables of one width.
    pub fn new(tokens: &Tensor, positions: &Tensor, compute: &Compute) -> Result<Embedding> {
        let (_, width) = tokens.matrix("embedding", "table of tokens")?;
        positions.expect("embedding", "table of positions", &[positions.len() / width.max(1), width])?;
        Ok(Embedding { tables: placed(tokens, positions, compute)?, width })
    }

    /// Rows of the tokens of all sequences.
    pub fn forward(&self, ids: &[&[u32]]) -> Result<Rows> {
        let ([tokens, positions], width) = (&self.tables, self.width);
        let [vocabulary, most_tokens] = [tokens, positions].map(|table| table.shape()[0]);
        if let Some(id) = ids.iter().flat_map(|ids| ids.iter()).find(|&&id| id as usize >= vocabulary) {
            let reason = format!("gives token {id} of a model that has {vocabulary}; is it another model's?");
            return Err(Error::invalid(reason));
        }
        if ids.iter().any(|ids| ids.len() > most_tokens) {
            return Err(Error::shape("embedding", "a text has more tokens than positions"));
        }
        let places = ids.iter().flat_map(|ids| 0..ids.len() as u32);
        let ids = ids.concat();
        if let Some(gpu) = tokens.gpu() {
            return cuda::tokens(tokens, positions, &ids, &places.collect::<Vec<_>>(), gpu).map(Rows::on_device);
        }
        let row = |i: u32| i as usize * width..(i as usize + 1) * width;
        let rows = ids.iter().zip(places);
        let rows = rows.map(|(&id, place)| (&tokens.data()[row(id)], &positions.data()[row(place)]));
        Ok(sums(ids.len(), width, rows))
    }
}

/// Puts the class token before each image's patches and adds their positions.
pub struct ClassToken {
    /// (width), (patches of an image + 1, width)
    vectors: [Tensor; 2],
}

impl ClassToken {
    /// From the token (width) and the positions (patches + 1, width).
    pub fn new(class: &Tensor, positions: &Tensor, compute: &Compute) -> Result<ClassToken> {
        let (_, width) = positions.matrix("class token", "table of positions")?;
        class.expect("class token", "token", &[width])?;
        Ok(ClassToken { vectors: placed(class, positions, compute)? })
    }

    /// (images · patches, width) -> (images · (patches + 1), width) and the images' sequences.
    pub fn forward(&self, patches: &Rows) -> Result<(Rows, Sequences)> {
        let [class, positions] = &self.vectors;
        let (width, length) = (class.len(), positions.shape()[0]);
        patches.expect_beside("class token", class, width)?;
        if length < 2 || !patches.count().is_multiple_of(length - 1) {
            return Err(Error::shape("class token", format!("{} patches of images of {length}", patches.count())));
        }
        let images = patches.count() / (length - 1);
        let rows = match patches.data() {
            Data::Device(patches) => Rows::on_device(cuda::patches(class, positions, patches)?),
            _ => {
                let patches = patches.wide("class token")?.chunks_exact((length - 1) * width);
                let rows = patches.flat_map(|patches| once(class.data()).chain(patches.chunks_exact(width)));
                sums(images * length, width, rows.zip(positions.data().chunks_exact(width).cycle()))
            }
        };
        Ok((rows, Sequences::equal(images, length)))
    }
}
