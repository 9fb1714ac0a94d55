//! Every vector, compared in f32.

use bytemuck::cast_slice;
use rayon::prelude::*;

use super::on_device::{Scan, padded_rows};
use super::{Candidates, Found, Top, rows_of};
use crate::device::Gpu;
use crate::device::cpu::{simd, vector};
use crate::error::Result;
use crate::ops::linear::stored::DeviceWeight;
use crate::tensor::{Element, Precision};

/// Vectors that one task compares with a query.
const CHUNK: usize = 8192;

/// Vectors in memory, all of which are compared with a query: what it finds is exact.
#[derive(Debug)]
pub struct Flat {
    /// (len, width)
    vectors: Vec<f32>,
    width: usize,
}

impl Flat {
    /// Of these vectors (n, width). Fails if they are no whole rows.
    pub fn new(vectors: Vec<f32>, width: usize) -> Result<Flat> {
        rows_of(&vectors, width)?;
        Ok(Flat { vectors, width })
    }

    /// Inner products of vectors (n, width) with one of them.
    pub fn products(vectors: &[f32], query: &[f32]) -> Vec<f32> {
        let mut products = vec![0.0; vectors.len() / query.len()];
        // A loop, which is compiled with the instructions of `simd!`; what a collected iterator calls would not be.
        simd!({
            for (product, row) in products.iter_mut().zip(vectors.chunks_exact(query.len())) {
                *product = vector::dot(query, row);
            }
        });
        products
    }

    fn of_one(&self, query: &[f32], k: usize) -> Vec<Found> {
        let of_chunk = |(chunk, vectors): (usize, &[f32])| {
            let mut top = Top::new(k);
            let products = Flat::products(vectors, query);
            simd!(top.add((chunk * CHUNK) as u32, &products));
            top
        };
        let join = |mut one: Top, other: Top| {
            one.join(other);
            one
        };
        let chunks = self.vectors.par_chunks(CHUNK * self.width).enumerate();
        chunks.map(of_chunk).reduce(|| Top::new(k), join).into_sorted()
    }
}

impl Candidates for Flat {
    fn name(&self) -> String {
        "a scan in f32".into()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn len(&self) -> usize {
        self.vectors.len() / self.width
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        rows_of(queries, self.width)?;
        Ok(queries.chunks_exact(self.width).map(|query| self.of_one(query, k)).collect())
    }
}

impl Flat {
    /// The width of rows in a device's memory, whose kernels take four numbers at a time.
    fn padded_width(&self) -> usize {
        self.width.next_multiple_of(4)
    }
}

impl Scan for Flat {
    const ELEMENT: Element = Element::F32;

    fn bytes_on_device(&self) -> usize {
        4 * self.len() * self.padded_width()
    }

    fn upload(&self, gpu: &Gpu) -> Result<DeviceWeight> {
        let padded = self.padded_width();
        let copy = (padded != self.width).then(|| padded_rows(&self.vectors, self.width, padded));
        let rows = copy.as_ref().unwrap_or(&self.vectors);
        DeviceWeight::upload(gpu, Precision::F32, padded, &[(cast_slice(rows), &[])])
    }

    fn padded(&self, queries: &[f32]) -> Result<Vec<f32>> {
        rows_of(queries, self.width)?;
        Ok(padded_rows(queries, self.width, self.padded_width()))
    }

    fn decided(&self, query: &[f32], found: Vec<Found>, k: usize) -> Vec<Found> {
        let query = &query[..self.width];
        let row = |number: u32| &self.vectors[number as usize * self.width..][..self.width];
        let decide = |Found { number, .. }| Found::new(number, Flat::products(row(number), query)[0]);
        Found::best(found.into_iter().map(decide).collect(), k)
    }
}
