//! Token embeddings, and the class token that vision transformers put before the patches.

use super::rows::Data;
use super::{Rows, Sequences};
use crate::device::cpu::{Buffer, simd, vector};
use crate::device::cuda::encoder as cuda;
use crate::encoder::Compute;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Vectors of tokens and of their positions in a sequence, which are added.
pub struct Embedding {
    tables: Tables,
    /// Rows of the two tables.
    vocabulary: usize,
    most_tokens: usize,
    width: usize,
}

enum Tables {
    Host { tokens: Tensor, positions: Tensor },
    Device(cuda::Embedding),
}

impl Embedding {
    /// From two tables of one width.
    pub fn new(tokens: Tensor, positions: Tensor, compute: &Compute) -> Result<Embedding> {
        let (vocabulary, width) = tokens.matrix("embedding", "table of tokens")?;
        let most_tokens = positions.len() / width.max(1);
        positions.expect("embedding", "table of positions", &[most_tokens, width])?;
        let tables = match &compute.gpu {
            Some(gpu) => Tables::Device(cuda::Embedding::new(gpu, tokens.data(), positions.data(), width)?),
            None => Tables::Host { tokens, positions },
        };
        Ok(Embedding { tables, vocabulary, most_tokens, width })
    }

    /// Rows of the tokens of all sequences.
    pub fn forward(&self, ids: &[&[u32]]) -> Result<Rows> {
        if let Some(id) = ids.iter().flat_map(|ids| ids.iter()).find(|&&id| id as usize >= self.vocabulary) {
            let reason = format!("token {id} is beyond the vocabulary of {}", self.vocabulary);
            return Err(Error::invalid(format!("{reason}; tokenizer.json belongs to another model")));
        }
        if ids.iter().any(|ids| ids.len() > self.most_tokens) {
            return Err(Error::shape("embedding", "a text has more tokens than positions"));
        }
        let (tokens, positions) = match &self.tables {
            Tables::Host { tokens, positions } => (tokens, positions),
            Tables::Device(embedding) => {
                let places: Vec<u32> = ids.iter().flat_map(|ids| 0..ids.len() as u32).collect();
                return Ok(Rows::on_device(embedding.forward(&ids.concat(), &places)?));
            }
        };
        let mut out = Buffer::scratch(ids.iter().map(|ids| ids.len()).sum::<usize>() * self.width);
        let row = |i: usize| i * self.width..(i + 1) * self.width;
        let places = ids.iter().flat_map(|ids| ids.iter().enumerate());
        for (out, (position, &id)) in out.chunks_exact_mut(self.width).zip(places) {
            out.copy_from_slice(&tokens.data()[row(id as usize)]);
            simd!(vector::add(out, &positions.data()[row(position)]));
        }
        Ok(Rows::new(out, self.width))
    }
}

/// Puts the class token before each image's patches and adds their positions.
pub struct ClassToken {
    vectors: Vectors,
    width: usize,
    /// Patches of an image and the class token.
    length: usize,
}

enum Vectors {
    Host { class: Tensor, positions: Tensor },
    Device(cuda::ClassToken),
}

impl ClassToken {
    /// From the token (width) and the positions (patches + 1, width).
    pub fn new(class: Tensor, positions: Tensor, compute: &Compute) -> Result<ClassToken> {
        let (width, length) = (class.len(), positions.len() / class.len().max(1));
        let vectors = match &compute.gpu {
            Some(gpu) => Vectors::Device(cuda::ClassToken::new(gpu, class.data(), positions.data())?),
            None => Vectors::Host { class, positions },
        };
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
            (Vectors::Device(token), Data::Device(patches)) => Rows::on_device(token.forward(&patches.rows)?),
            (Vectors::Device(_), _) => {
                return Err(Error::shape("class token", "lies on a device, patches on the host"));
            }
            (Vectors::Host { class, positions }, _) => {
                let mut out = Buffer::scratch(images * length * width);
                let patches = patches.wide("class token")?.chunks_exact((length - 1) * width);
                for (out, patches) in out.chunks_exact_mut(length * width).zip(patches) {
                    out[..width].copy_from_slice(class.data());
                    out[width..].copy_from_slice(patches);
                    simd!(vector::add(out, positions.data()));
                }
                Rows::new(out, width)
            }
        };
        Ok((rows, Sequences::equal(images, length)))
    }
}
