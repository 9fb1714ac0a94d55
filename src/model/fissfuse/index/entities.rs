//! The prepared entities of a knowledge base.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::attention::{Direction, Finish};
use super::prepared::PreparedSide;
use super::scorer::Scorer;
use crate::error::{Error, Result};
use crate::model::ScoreKind;
use crate::tensor::{Element, RowTable};

/// Prepared entities, numbered in the order they were added.
#[derive(Debug)]
pub struct EntityIndex {
    pub(super) modalities: Vec<IndexedModality>,
    /// Fusion's vectors, one table per score.
    pub(super) fused: Vec<(ScoreKind, RowTable)>,
    element: Element,
    len: usize,
}

#[derive(Debug)]
pub(super) struct IndexedModality {
    pub tokens: RowTable,
    /// First row of each entity, then the number of rows.
    pub starts: Vec<u32>,
    pub queries: RowTable,
    pub logits: RowTable,
    /// What Eq. 7's hidden layer makes of the queries.
    pub hidden: RowTable,
    /// How that is computed.
    direction: Arc<Direction>,
}

impl IndexedModality {
    /// Rows of an entity.
    pub fn rows(&self, entity: u32) -> std::ops::Range<u32> {
        self.starts[entity as usize]..self.starts[entity as usize + 1]
    }
}

fn push(table: &mut RowTable, values: &[f32], element: Element) -> Result<()> {
    match element {
        Element::F32 => table.push_f32(values.to_vec().into())?,
        Element::F16 => {
            let mut narrow = vec![f16::ZERO; values.len()];
            narrow.convert_from_f32_slice(values);
            table.push_f16(narrow.into())?
        }
        Element::Bf16 => return Err(Error::shape("index", "rows of bf16")),
    };
    Ok(())
}

impl EntityIndex {
    /// An empty index for entities that this scorer, or a device's of the same model, shall score. `element` is what its largest
    /// parts are kept in, the projected rows and the logit vectors: f32, exactly what training computes, or f16, half the memory,
    /// with scores that differ by about 1e-3 of their size.
    pub fn new(scorer: &Scorer, element: Element) -> EntityIndex {
        let (d, heads) = (scorer.d, scorer.heads);
        let modality = |(_, finish): &(ScoreKind, Finish)| IndexedModality {
            tokens: RowTable::new(d),
            starts: vec![0],
            queries: RowTable::new(d),
            logits: RowTable::new(heads * d),
            hidden: RowTable::new(finish.entity.width() - d),
            direction: finish.entity.clone(),
        };
        EntityIndex { modalities: scorer.finish.iter().map(modality).collect(), fused: Vec::new(), element, len: 0 }
    }

    /// Number of entities.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entities.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fails unless these are numbers of its entities.
    pub(super) fn has_all(&self, entities: &[u32]) -> Result<()> {
        match entities.iter().find(|&&entity| entity as usize >= self.len) {
            Some(beyond) => Err(Error::shape("link", format!("entity {beyond} of an index of {}", self.len))),
            None => Ok(()),
        }
    }

    /// Fusion's vectors of entities, those of all scores side by side (entities, scores * d). Their dot product with a
    /// mention's, [`super::PreparedMention::fused`], is the sum of Fusion's scores.
    pub fn fused(&self, entities: &[u32]) -> Vec<f32> {
        let width: usize = self.fused.iter().map(|(_, table)| table.width()).sum();
        let mut all = vec![0.0; entities.len() * width];
        for (&entity, mut row) in entities.iter().zip(all.chunks_exact_mut(width.max(1))) {
            for (_, table) in &self.fused {
                let (vector, rest) = std::mem::take(&mut row).split_at_mut(table.width());
                table.gather(&[entity], vector);
                row = rest;
            }
        }
        all
    }

    /// Adds `items` entities.
    pub fn add(&mut self, side: &PreparedSide, items: usize) -> Result<()> {
        for (indexed, prepared) in self.modalities.iter_mut().zip(&side.modalities) {
            let first = indexed.tokens.rows() as u32;
            indexed.starts.extend(prepared.sequences.ranges().map(|r| first + r.end as u32));
            push(&mut indexed.tokens, prepared.tokens.data(), self.element)?;
            push(&mut indexed.logits, prepared.logits.data(), self.element)?;
            push(&mut indexed.queries, prepared.queries.data(), Element::F32)?;
            if indexed.hidden.width() > 0 {
                push(&mut indexed.hidden, &indexed.direction.hidden(prepared.queries.data())?, Element::F32)?;
            }
        }
        if self.fused.is_empty() {
            self.fused = side.fused.iter().map(|(kind, t)| (*kind, RowTable::new(t.shape()[1]))).collect();
        }
        for ((_, table), (_, vectors)) in self.fused.iter_mut().zip(&side.fused) {
            push(table, vectors.data(), Element::F32)?;
        }
        self.len += items;
        Ok(())
    }
}
