//! An index of entities on a device.

use std::sync::Arc;

use super::super::entities::EntityIndex;
use super::GpuScorer;
use crate::bytes::Bytes;
use crate::device::cuda::DeviceBuffer;
use crate::error::{Error, Result};
use crate::ops::link::Entities;
use crate::tensor::{Element, Tensor};

/// An index's tables.
#[derive(Debug)]
pub(super) struct Tables {
    /// Rows, logit vectors and queries of each modality, then Fusion's vectors.
    tables: Vec<Tensor>,
    /// First row of each entity, per modality.
    starts: Vec<DeviceBuffer<u32>>,
    /// Which scores compare Fusion's vectors.
    fused: Vec<Option<usize>>,
}

impl Tables {
    /// Where they lie.
    pub fn entities(&self) -> Entities {
        let (of_modalities, of_fusion) = self.tables.split_at(3 * self.starts.len());
        let modality = |(tables, starts): (&[Tensor], &DeviceBuffer<u32>)| {
            [tables[0].address(), tables[1].address(), tables[2].address(), starts.ptr()]
        };
        Entities {
            modalities: of_modalities.chunks_exact(3).zip(&self.starts).map(modality).collect(),
            fused: of_fusion.iter().map(Tensor::address).zip(self.fused.iter().copied()).collect(),
            half: of_modalities.iter().any(|table| table.element() == Element::F16),
        }
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
                let free =
                    self.gpu.available().map_or("what is".into(), |free| format!("the {} that are", Bytes::of(free)));
                let reason = format!(
                    "the index of {} entities has a table of {}, and a table may take {} % of {free} free; raise \
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
        let fused = index.fused.iter().map(|(kind, _)| self.kinds.iter().position(|k| k == kind));
        let tables = Arc::new(Tables { tables, starts, fused: fused.collect() });
        Ok(self.tables.insert(tables).clone())
    }
}
