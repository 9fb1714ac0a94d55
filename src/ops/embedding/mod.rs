//! Token embeddings, and what vision transformers add to patches: positions, and a class token before them.

mod cuda;

use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::{Compute, Sequences, Tensor, fours};

/// Rows that are sums of two.
fn sums<'a>(count: usize, width: usize, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Result<Tensor> {
    let mut out = Buffer::scratch(count * width);
    for (out, (vector, position)) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(vector);
        simd!(vector::add(out, position));
    }
    Tensor::new([count, width], out)
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
    pub fn forward(&self, ids: &[&[u32]]) -> Result<Tensor> {
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
            return cuda::tokens(tokens, positions, &ids, &places.collect::<Vec<_>>(), gpu);
        }
        let row = |i: u32| i as usize * width..(i as usize + 1) * width;
        let rows = ids.iter().zip(places);
        let rows = rows.map(|(&id, place)| (&tokens.data()[row(id)], &positions.data()[row(place)]));
        sums(ids.len(), width, rows)
    }
}

/// Adds their positions to each image's patches, with a class token before them where the model has one.
pub struct PatchEmbedding {
    /// (width), of which there is none where it is empty; (patches of an image and the class token, width)
    vectors: [Tensor; 2],
}

impl PatchEmbedding {
    /// From the class token (width), if there is one, and the positions (patches, or patches + 1, width).
    pub fn new(class: Option<&Tensor>, positions: &Tensor, compute: &Compute) -> Result<PatchEmbedding> {
        let (_, width) = positions.matrix("patch embedding", "table of positions")?;
        let none = Tensor::zeros([0]);
        if let Some(class) = class {
            class.expect("patch embedding", "class token", &[width])?;
        }
        Ok(PatchEmbedding { vectors: placed(class.unwrap_or(&none), positions, compute)? })
    }

    /// (images · patches, width) -> (images · positions, width) and the images' sequences.
    pub fn forward(&self, patches: &Tensor) -> Result<(Tensor, Sequences)> {
        let [class, positions] = &self.vectors;
        let (length, width) = (positions.shape()[0], positions.shape()[1]);
        let own = length - !class.is_empty() as usize;
        patches.expect_beside("patch embedding", positions, width)?;
        if own == 0 || !patches.count().is_multiple_of(own) {
            return Err(Error::shape("patch embedding", format!("{} patches of images of {own}", patches.count())));
        }
        let images = patches.count() / own;
        let rows = match patches.gpu() {
            Some(_) => cuda::patches(class, positions, patches)?,
            None => {
                let patches = patches.wide("patch embedding")?.chunks_exact(own * width);
                let class = (!class.is_empty()).then(|| class.data());
                let rows = patches.flat_map(|patches| class.into_iter().chain(patches.chunks_exact(width)));
                sums(images * length, width, rows.zip(positions.data().chunks_exact(width).cycle()))?
            }
        };
        Ok((rows, Sequences::equal(images, length)))
    }
}
