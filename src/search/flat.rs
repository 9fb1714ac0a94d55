//! Every vector, compared in f32.

use rayon::prelude::*;

use super::{Candidates, Found, Top, rows_of};
use crate::device::cpu::{simd, vector};
use crate::error::Result;

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
