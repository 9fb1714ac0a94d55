//! Rows of a table that a batch is made of.

use std::sync::{Arc, OnceLock};

use super::{Indices, RowTable, Tensor};
use crate::device::Gpu;
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
