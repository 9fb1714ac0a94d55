//! Token embeddings, and the class token that vision transformers put before the patches.

use super::{Rows, Sequences};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Vectors of tokens and of their positions in a sequence, which are added.
pub struct Embedding {
    /// (vocabulary, width)
    tokens: Tensor,
    /// (most tokens, width)
    positions: Tensor,
    width: usize,
}

impl Embedding {
    /// From two tables of one width.
    pub fn new(tokens: Tensor, positions: Tensor) -> Result<Embedding> {
        let (_, width) = tokens.matrix("embedding", "table of tokens")?;
        positions.expect("embedding", "table of positions", &[positions.len() / width.max(1), width])?;
        Ok(Embedding { tokens, positions, width })
    }

    /// Rows of the tokens of all sequences.
    pub fn forward<'a>(&'a self, ids: &[&[u32]]) -> Result<Rows> {
        let mut out = Buffer::scratch(ids.iter().map(|ids| ids.len()).sum::<usize>() * self.width);
        let row = |table: &'a Tensor, i: usize| table.data().get(i * self.width..(i + 1) * self.width);
        let places = ids.iter().flat_map(|ids| ids.iter().enumerate());
        for (out, (position, &id)) in out.chunks_exact_mut(self.width).zip(places) {
            let token = row(&self.tokens, id as usize).ok_or_else(|| {
                let known = self.tokens.len() / self.width;
                let reason = format!("token {id} is beyond the vocabulary of {known}");
                Error::invalid(format!("{reason}; tokenizer.json belongs to another model"))
            })?;
            let position = row(&self.positions, position);
            let position =
                position.ok_or_else(|| Error::shape("embedding", "a text has more tokens than positions"))?;
            out.copy_from_slice(token);
            simd!(vector::add(out, position));
        }
        Ok(Rows::new(out, self.width))
    }
}

/// Puts the class token before each image's patches and adds their positions.
pub struct ClassToken {
    class: Tensor,
    /// (patches + 1, width)
    positions: Tensor,
}

impl ClassToken {
    /// From the token (width) and the positions (patches + 1, width).
    pub fn new(class: Tensor, positions: Tensor) -> ClassToken {
        ClassToken { class, positions }
    }

    /// (images · patches, width) -> (images · (patches + 1), width) and the images' sequences.
    pub fn forward(&self, patches: &Rows) -> Result<(Rows, Sequences)> {
        let (width, length) = (self.class.len(), self.positions.len() / self.class.len().max(1));
        if patches.width() != width || length < 2 || !patches.count().is_multiple_of(length - 1) {
            let (count, found) = (patches.count(), patches.width());
            return Err(Error::shape("class token", format!("({count}, {found}) patches of images of {length}")));
        }
        let images = patches.count() / (length - 1);
        let mut out = Buffer::scratch(images * length * width);
        let patches = patches.wide("class token")?.chunks_exact((length - 1) * width);
        for (out, patches) in out.chunks_exact_mut(length * width).zip(patches) {
            out[..width].copy_from_slice(self.class.data());
            out[width..].copy_from_slice(patches);
            simd!(vector::add(out, self.positions.data()));
        }
        Ok((Rows::new(out, width), Sequences::equal(images, length)))
    }
}
