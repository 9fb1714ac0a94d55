//! Reading a feature store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Kind, Manifest, Seal};
use crate::error::{Error, Result};
use crate::model::{Modality, Side};
use crate::tensor::safetensors::Reader;
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Textbook};

/// An opened store.
#[derive(Debug)]
pub struct FeatureStore {
    manifest: Manifest,
    text: Column,
    image: Column,
}

/// Features of one modality of all items in the store.
#[derive(Debug)]
struct Column {
    tokens: Arc<RowTable>,
    global: Arc<RowTable>,
    /// First row and number of rows of each item.
    ranges: Vec<(u32, u32)>,
    index: HashMap<u128, u32>,
    /// Whether the features of each item were found to be finite: each is looked at once, when first used.
    finite: Vec<AtomicBool>,
    /// Number of the first item of each shard, and its file.
    shards: Vec<(u32, PathBuf)>,
    kind: Kind,
}

impl Column {
    fn open(folder: &Path, kind: Kind, manifest: &Manifest) -> Result<Column> {
        let (width, global_width) = kind.widths(manifest.widths);
        let (mut tokens, mut global) = (RowTable::new(width), RowTable::new(global_width));
        let (mut ranges, mut index, mut shards) = (Vec::new(), HashMap::new(), Vec::new());
        for (_, path) in kind.shards(folder)? {
            let reader = Reader::open(&path)?;
            if let Some(difference) =
                reader.metadata::<Seal>()?.manifest.difference(manifest, ["in the file", "in the store"])
            {
                let reason =
                    format!("was made otherwise than its store: {difference}; delete the file and encode again");
                return Err(Error::file(&path, reason));
            }
            let (keys, offsets) = (kind.keys(&reader)?, reader.values::<u64>(&kind.tensor("offsets"))?);
            let refuse = |e: Error| reader.error(kind.tokens(), format!("{e}; delete the file and encode again"));
            let first = tokens.push_f16(reader.mapped(kind.tokens())?).map_err(refuse)? as u64;
            let item = global.push_f16(reader.mapped(&kind.tensor("global"))?).map_err(refuse)?;
            let rows = tokens.rows() as u64 - first;
            let rising = offsets.windows(2).all(|w| w[0] < w[1]);
            let whole = offsets.len() == keys.len() + 1 && offsets.first() == Some(&0) && offsets.last() == Some(&rows);
            if !rising || !whole || global.rows() - item != keys.len() || first + rows > u32::MAX as u64 {
                let reason = "does not match its offsets and keys; delete the file and encode again";
                return Err(reader.error(kind.tokens(), reason));
            }
            ranges.extend(offsets.windows(2).map(|w| ((first + w[0]) as u32, (w[1] - w[0]) as u32)));
            index.extend(keys.into_iter().zip(item as u32..));
            shards.push((item as u32, path));
        }
        let finite = ranges.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Column { tokens: Arc::new(tokens), global: Arc::new(global), ranges, index, finite, shards, kind })
    }

    /// Fails if a feature of one of these items is NaN or infinite: no model could make anything of it.
    fn check(&self, items: &[u32]) -> Result<()> {
        for &item in items {
            let finite = &self.finite[item as usize];
            if finite.load(Ordering::Relaxed) {
                continue;
            }
            let (first, rows) = self.ranges[item as usize];
            let broken = if !self.tokens.all_finite(first..first + rows) {
                self.kind.tokens().to_string()
            } else if !self.global.all_finite(item..item + 1) {
                self.kind.tensor("global")
            } else {
                finite.store(true, Ordering::Relaxed);
                continue;
            };
            let (start, path) = &self.shards[self.shards.partition_point(|(start, _)| *start <= item) - 1];
            let reason =
                format!("holds NaN or infinite features (item {}); delete the file and encode again", item - start);
            return Err(Error::tensor(path, &broken, reason));
        }
        Ok(())
    }

    /// Features of those of `whole` that are chosen, as a part of them.
    fn select_part(&self, whole: &[u32], chosen: &[u32], textbook: Textbook) -> Result<Modality> {
        let items: Vec<u32> = chosen.iter().map(|&place| whole[place as usize]).collect();
        let mut starts = Vec::with_capacity(whole.len());
        let mut rows = 0;
        for &item in whole {
            starts.push(rows);
            rows += self.ranges[item as usize].1;
        }
        let (tokens, sequences, global) = self.rows(&items, textbook)?;
        let firsts: Vec<u32> = chosen.iter().map(|&place| starts[place as usize]).collect();
        let places = Indices::runs(firsts, sequences.offsets())?;
        Ok(Modality { tokens: tokens.at(places).into(), sequences, global: global.at(chosen.to_vec()).into() })
    }

    fn select(&self, items: &[u32], textbook: Textbook) -> Result<Modality> {
        let (tokens, sequences, global) = self.rows(items, textbook)?;
        Ok(Modality { tokens: tokens.into(), sequences, global: global.into() })
    }

    /// Rows of items' tokens, which of them are whose, and rows of their global vectors.
    fn rows(&self, items: &[u32], textbook: Textbook) -> Result<(FeatureRows, Ragged, FeatureRows)> {
        self.check(items)?;
        let range = |&item: &u32| self.ranges[item as usize];
        let sequences = Ragged::new(items.iter().map(range).map(|(_, n)| n as usize), textbook)?;
        let rows = Indices::runs(items.iter().map(|item| range(item).0).collect::<Vec<_>>(), sequences.offsets())?;
        let global = FeatureRows::new(self.global.clone(), items.to_vec());
        Ok((FeatureRows::new(self.tokens.clone(), rows), sequences, global))
    }
}

impl FeatureStore {
    /// Maps all shards of a store.
    pub fn open(folder: &Path) -> Result<FeatureStore> {
        let manifest = Manifest::read(folder)?;
        let text = Column::open(folder, Kind::Text, &manifest)?;
        let image = Column::open(folder, Kind::Image, &manifest)?;
        let (texts, images) = (text.ranges.len(), image.ranges.len());
        tracing::debug!(
            "{}: {texts} texts by {}, {images} images by {}, {}",
            folder.display(),
            manifest.text_encoder,
            manifest.image_encoder,
            manifest.precision
        );
        Ok(FeatureStore { manifest, text, image })
    }

    /// How the features were made.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of the text with this key.
    pub fn text(&self, key: u128) -> Option<u32> {
        self.text.index.get(&key).copied()
    }

    /// Number of the image with this key.
    pub fn image(&self, key: u128) -> Option<u32> {
        self.image.index.get(&key).copied()
    }

    /// Features of images given by their numbers.
    pub fn images(&self, images: &[u32]) -> Result<Modality> {
        self.image.select(images, Textbook { sequences: images.len(), length: self.manifest.patches })
    }

    /// Features of items given by their texts' and images' numbers. `uses` is how often a textbook implementation
    /// would compute an item of this side.
    pub fn side(&self, texts: &[u32], images: &[u32], uses: usize) -> Result<Side> {
        let Manifest { max_tokens, patches, .. } = self.manifest;
        Ok(Side {
            text: self.text.select(texts, Textbook { sequences: uses, length: max_tokens })?,
            image: self.image.select(images, Textbook { sequences: uses, length: patches })?,
        })
    }

    /// The same of the chosen ones among them, as a part of all.
    pub fn side_part(&self, [texts, images]: [&[u32]; 2], chosen: &[u32], uses: usize) -> Result<Side> {
        let Manifest { max_tokens, patches, .. } = self.manifest;
        Ok(Side {
            text: self.text.select_part(texts, chosen, Textbook { sequences: uses, length: max_tokens })?,
            image: self.image.select_part(images, chosen, Textbook { sequences: uses, length: patches })?,
        })
    }
}
