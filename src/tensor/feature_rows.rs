//! Rows of a table that a batch is made of.

use std::sync::{Arc, OnceLock};

use super::{Indices, RowTable, Tensor};
use crate::device::Gpu;
use crate::device::cuda::DeviceBuffer;
use crate::error::Result;

/// Some rows of a table. Cloning shares them.
#[derive(Clone, Debug)]
pub struct FeatureRows {
    /// Where the rows lie.
    pub table: Arc<RowTable>,
    /// Their numbers.
    pub rows: Indices,
    /// A copy of them alone on a device, for tables that do not stay there.
    staged: Arc<OnceLock<Staged>>,
    places: Option<Indices>,
}

#[derive(Debug)]
struct Staged {
    values: Tensor,
    /// 0, 1, ...: the numbers of the copy's rows.
    rows: Indices,
}

impl FeatureRows {
    /// These rows of a table.
    pub fn new(table: Arc<RowTable>, rows: impl Into<Indices>) -> FeatureRows {
        FeatureRows { table, rows: rows.into(), staged: Arc::default(), places: None }
    }

    /// The same as a part of more rows, among which they stand at these places.
    pub fn at(self, places: impl Into<Indices>) -> FeatureRows {
        FeatureRows { places: Some(places.into()), ..self }
    }

    /// Where they stand among the rows that they are a part of; `None` if they are all of them.
    pub fn places(&self) -> Option<&Indices> {
        self.places.as_ref()
    }

    /// As many rows as these of the same table, which lie on a device from byte `first` of an array on, one after the other: whatever
    /// [`FeatureRows::put`] gave is copied there.
    pub fn placed(&self, array: &Arc<DeviceBuffer<u8>>, first: usize) -> Result<FeatureRows> {
        let (rows, width) = (self.len(), self.table.width());
        let bytes = DeviceBuffer::<u8>::part(array, first, self.bytes())?;
        let values = Tensor::of_bytes([rows, width], bytes, self.table.element())?;
        let staged = OnceLock::from(Staged { values, rows: Indices::counting(rows) });
        Ok(FeatureRows { table: self.table.clone(), rows: self.rows.clone(), staged: Arc::new(staged), places: None })
    }

    /// Whether the rows have the place of others on a device: as many, of the same width and type.
    pub fn lie_as(&self, others: &FeatureRows) -> bool {
        let shape = |rows: &FeatureRows| (rows.len(), rows.table.width(), rows.table.element());
        shape(self) == shape(others)
    }

    /// Bytes of the rows as a device has them.
    pub fn bytes(&self) -> usize {
        self.len() * self.table.row_bytes()
    }

    /// Puts the rows as a device has them into `out`, which lies as f32 do.
    pub fn put(&self, out: &mut [u8]) {
        self.table.put(&self.rows, out);
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Starts copying the features that the device will need, if the table does not stay there.
    pub fn stage(&self, gpu: &Gpu) -> Result<()> {
        if self.staged.get().is_none() && self.table.resident(gpu)?.is_none() {
            let staged = self.copy(gpu)?;
            self.staged.get_or_init(|| staged);
        }
        Ok(())
    }

    fn copy(&self, gpu: &Gpu) -> Result<Staged> {
        let rows = Indices::counting(self.rows.len());
        Ok(Staged { values: self.table.gathered(gpu, &self.rows)?, rows })
    }

    /// The row numbers that kernels will be given, once [`FeatureRows::stage`] has been called.
    pub fn numbers(&self) -> &Indices {
        self.staged.get().map_or(&self.rows, |staged| &staged.rows)
    }

    /// Where kernels that are queued from now on find the rows, and their numbers there.
    pub fn on(&self, gpu: &Gpu) -> Result<(Tensor, Indices)> {
        if self.staged.get().is_none()
            && let Some(table) = self.table.resident(gpu)?
        {
            return Ok((table, self.rows.clone()));
        }
        let staged = match self.staged.get() {
            Some(staged) => staged,
            None => {
                let staged = self.copy(gpu)?;
                self.staged.get_or_init(|| staged)
            }
        };
        staged.values.arrive(gpu)?;
        Ok((staged.values.clone(), staged.rows.clone()))
    }
}
