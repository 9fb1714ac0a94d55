//! Scans in a device's memory, which find more than they are asked for; of these the host decides.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Candidates, Found, rows_of};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::linear::stored::{DeviceWeight, OnDevice as _};
use crate::ops::top_k::{MOST, top_k};
use crate::tensor::{Element, Tensor};

/// The most products that are in the device's memory at a time, and queries that go over the vectors together.
const PRODUCTS: usize = 1 << 25;
const TOGETHER: usize = 128;

/// A scan that a device can begin.
pub trait Scan: Candidates {
    /// What queries are multiplied in.
    const ELEMENT: Element;

    /// Bytes that [`Scan::upload`] takes of a device's memory.
    fn bytes_on_device(&self) -> usize;

    /// What a device compares queries with: (len, padded width).
    fn upload(&self, gpu: &Gpu) -> Result<DeviceWeight>;

    /// Queries (n, width) as rows of the padded width. Fails if they are no rows of this width, or none that can be compared.
    fn padded(&self, queries: &[f32]) -> Result<Vec<f32>>;

    /// The best `k` of those that were found for a query of the padded width.
    fn decided(&self, query: &[f32], found: Vec<Found>, k: usize) -> Vec<Found>;
}

/// How many more than `k` are found, for others to decide between.
pub(super) fn widened(k: usize) -> usize {
    k.saturating_add(k / 2 + 32)
}

/// The same rows with zeros behind.
pub(super) fn padded_rows(rows: &[f32], width: usize, padded: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() / width * padded];
    for (out, row) in out.chunks_exact_mut(padded).zip(rows.chunks_exact(width)) {
        out[..width].copy_from_slice(row);
    }
    out
}

/// A scan of vectors in a device's memory. It finds what the same scan finds on the host, but for vectors whose products are
/// nearly equal.
#[derive(Debug)]
pub struct OnDevice<S> {
    scan: Arc<S>,
    vectors: DeviceWeight,
    gpu: Gpu,
}

impl<S: Scan> OnDevice<S> {
    /// Copies the vectors to a device. Fails if they have no room there.
    pub fn new(scan: Arc<S>, gpu: &Gpu) -> Result<OnDevice<S>> {
        Ok(OnDevice { vectors: scan.upload(gpu)?, scan, gpu: gpu.clone() })
    }
}

/// The scan on a device, if there is one with room for its vectors and their products, else where it is.
pub(super) fn placed<S: Scan + 'static>(scan: S, gpu: Option<&Gpu>) -> Result<Arc<dyn Candidates>> {
    let bytes = scan.bytes_on_device() + 4 * PRODUCTS.max(scan.len());
    let scan = Arc::new(scan);
    match gpu {
        Some(gpu) if bytes <= gpu.available()? / 100 * gpu.resident_percent() && !scan.is_empty() => {
            Ok(Arc::new(OnDevice::new(scan, gpu)?))
        }
        _ => Ok(scan),
    }
}

impl<S: Scan> Candidates for OnDevice<S> {
    fn name(&self) -> String {
        format!("{} on {:?}", self.scan.name(), self.gpu)
    }

    fn width(&self) -> usize {
        self.scan.width()
    }

    fn len(&self) -> usize {
        self.scan.len()
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        let more = widened(k).min(self.len());
        // A device sorts short lists alone; long ones take the host no longer than what is done with them.
        if more > MOST {
            return self.scan.top_k(queries, k);
        }
        let padded = self.vectors.columns();
        let together = (PRODUCTS / self.len().max(1)).clamp(1, TOGETHER);
        let mut all = Vec::with_capacity(rows_of(queries, self.width())?);
        for queries in queries.chunks(together * self.width()) {
            let queries = self.scan.padded(queries)?;
            let rows = Tensor::upload(&self.gpu, "queries", &queries, padded, S::ELEMENT)?.into();
            let found = top_k(&self.vectors.multiply_wide(&rows)?, more)?;
            let decided = found.into_par_iter().zip(queries.par_chunks(padded));
            all.extend(decided.map(|(found, query)| self.scan.decided(query, found, k)).collect::<Vec<_>>());
        }
        Ok(all)
    }
}
