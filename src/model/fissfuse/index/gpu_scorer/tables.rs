//! An index of entities on a device.

use std::sync::Arc;

use super::super::entities::EntityIndex;
use super::GpuScorer;
use crate::bytes::Bytes;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};
use crate::model::ScoreKind;
use crate::tensor::{Element, Tensor};

/// An index's tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// Rows, logit vectors and queries of each modality, then Fusion's vectors.
    tables: Vec<Tensor>,
    /// First row of each entity, per modality.
    starts: Vec<DeviceBuffer<u32>>,
    fused: Vec<ScoreKind>,
}

impl Tables {
    /// Where rows, logit vectors, queries and first rows of a modality lie.
    pub fn modality(&self, m: usize) -> [Ptr; 4] {
        let [rows, logits, queries] = [0, 1, 2].map(|part| self.tables[3 * m + part].address());
        [rows, logits, queries, self.starts[m].ptr()]
    }

    /// Fusion's scores with the vectors that they compare.
    pub fn fused(&self) -> impl Iterator<Item = (ScoreKind, Ptr)> {
        let tables = &self.tables[3 * self.starts.len()..];
        self.fused.iter().copied().zip(tables.iter().map(Tensor::address))
    }

    /// Whether rows are of f16.
    pub fn half(&self) -> bool {
        (0..self.starts.len()).any(|m| self.tables[3 * m].element() == Element::F16)
    }
}

impl GpuScorer {
    /// The index's tables on the device: the same until it grew, or until memory was needed elsewhere.
    pub(super) fn tables(&mut self, index: &EntityIndex) -> Result<Arc<Tables>> {
        let of_modalities = index.modalities.iter().flat_map(|m| [&m.tokens, &m.logits, &m.queries]);
        let all = of_modalities.chain(index.fused.iter().map(|(_, table)| table));
        let resident = all.map(|table| {
            let no_room = || {
                let bytes = table.rows() * table.width() * table.value_bytes();
                let reason = format!(
                    "the index of {} entities has a table of {}, and a table may take {} % of the free memory; raise \
                     --feature-memory, or use --device cpu",
                    index.len(),
                    Bytes::of(bytes),
                    self.gpu.resident_percent()
                );
                Error::device(format!("{:?}", self.gpu), "copying the entity index", reason)
            };
            table.resident(&self.gpu)?.ok_or_else(no_room)
        });
        let tables = resident.collect::<Result<Vec<_>>>()?;
        let same = |before: &&Arc<Tables>| {
            before.tables.len() == tables.len()
                && before.tables.iter().zip(&tables).all(|(before, now)| before.address() == now.address())
        };
        if let Some(before) = self.tables.as_ref().filter(same) {
            return Ok(before.clone());
        }
        let starts = index.modalities.iter().map(|m| self.gpu.upload("entity rows", &m.starts));
        let starts = starts.collect::<Result<Vec<_>>>()?;
        let tables = Arc::new(Tables { tables, starts, fused: index.fused.iter().map(|(kind, _)| *kind).collect() });
        Ok(self.tables.insert(tables).clone())
    }
}
