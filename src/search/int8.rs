//! Every vector, compared in 8-bit integers; the best are compared once more in 16 bits.

use bytemuck::cast_slice;
use half::bf16;
use rayon::prelude::*;

use super::on_device::{Scan, padded_rows, widened};
use super::{Candidates, Found, Top, rows_of};
use crate::device::Gpu;
use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::ops::linear::stored::{DeviceWeight, Numbers, project};
use crate::tensor::quantized::{BLOCK as GROUP, Bits, dequantize, quantize};
use crate::tensor::{Element, Matrix, Precision, SharedSlice, Values};

/// Vectors of a part: their products with a few queries stay in the cache until the best of them are taken.
const PART: usize = 1 << 16;

/// Queries that go over a part together.
const TOGETHER: usize = 128;

/// Vectors as codes of 8 bits with a scale for each 64 numbers of a row, and what these leave over in as many codes again: two
/// bytes a number, half of what f32 takes.
///
/// A scan multiplies the first codes with a query's, in integers, and keeps more than are asked for; of these, the products of
/// both codes with the query as it is decide. So what is found is that of a scan in f32 but for entities whose products are
/// nearly equal.
#[derive(Clone, Debug, Default)]
pub struct Int8 {
    parts: Vec<Part>,
    width: usize,
    len: usize,
    /// Only the first codes decide.
    rough: bool,
}

#[derive(Clone, Debug)]
struct Part {
    /// (vectors, padded width)
    codes: Matrix,
    /// What they leave over.
    rest: Matrix,
}

/// Vectors on their way into an [`Int8`].
#[derive(Debug)]
pub struct Int8Builder {
    scan: Int8,
    codes: [Vec<u8>; 2],
    scales: [Vec<bf16>; 2],
}

impl Int8Builder {
    /// For vectors of this width.
    pub fn new(width: usize) -> Int8Builder {
        let scan = Int8 { width, ..Int8::default() };
        Int8Builder { scan, codes: Default::default(), scales: Default::default() }
    }

    /// Adds vectors (n, width) behind those that are there. Fails if they are no whole rows.
    pub fn add(&mut self, vectors: &[f32]) -> Result<()> {
        rows_of(vectors, self.scan.width)?;
        let padded = self.scan.padded_width();
        let (mut row, mut back) = (vec![0.0; padded], vec![0.0; padded]);
        for vector in vectors.chunks_exact(self.scan.width) {
            row[..vector.len()].copy_from_slice(vector);
            for (codes, scales) in self.codes.iter_mut().zip(&mut self.scales) {
                let (first, group) = (codes.len(), scales.len());
                codes.resize(first + padded, 0);
                scales.resize(group + padded / GROUP, bf16::ZERO);
                quantize(Bits::Eight, &row, &mut codes[first..], &mut scales[group..]);
                dequantize(Bits::Eight, &codes[first..], &scales[group..], &mut back);
                row.iter_mut().zip(&back).for_each(|(x, back)| *x -= back);
            }
            self.scan.len += 1;
            if self.scan.len.is_multiple_of(PART) {
                self.end_part()?;
            }
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<()> {
        let padded = self.scan.padded_width();
        let rows = self.codes[0].len() / padded;
        let mut weight = |at: usize| {
            let codes: SharedSlice<u8> = std::mem::take(&mut self.codes[at]).into();
            let scales: SharedSlice<bf16> = std::mem::take(&mut self.scales[at]).into();
            Matrix::new(rows, padded, Values::Quantized { bits: Bits::Eight, codes, scales })
        };
        if rows > 0 {
            let (codes, rest) = (weight(0)?, weight(1)?);
            self.scan.parts.push(Part { codes, rest });
        }
        Ok(())
    }

    /// What scans all of them.
    pub fn finish(mut self) -> Result<Int8> {
        self.end_part()?;
        Ok(self.scan)
    }
}

impl Int8 {
    /// The same, deciding by the first codes alone.
    pub fn rough(self) -> Int8 {
        Int8 { rough: true, ..self }
    }

    /// Bytes that the vectors take.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.codes.bytes() + part.rest.bytes()).sum()
    }

    fn padded_width(&self) -> usize {
        self.width.next_multiple_of(GROUP)
    }

    /// The best by the first codes. Queries are padded (n, padded width).
    fn scanned(&self, queries: &[f32], k: usize) -> Result<Vec<Top>> {
        let rows = queries.len() / self.padded_width();
        let mut tops = vec![Top::new(k); rows];
        let mut products = vec![0.0; rows * PART.min(self.len)];
        for (first, part) in (0..).step_by(PART).zip(&self.parts) {
            let products = &mut products[..rows * part.codes.rows()];
            project(products, queries, std::slice::from_ref(&part.codes), false)?;
            let of_each = tops.par_iter_mut().zip(products.par_chunks(part.codes.rows()));
            of_each.for_each(|(top, products)| simd!(top.add(first, products)));
        }
        Ok(tops)
    }
}

impl Candidates for Int8 {
    fn name(&self) -> String {
        "a scan in int8".into()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn len(&self) -> usize {
        self.len
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        let (padded, more) = (self.padded_width(), if self.rough { k } else { widened(k) });
        let mut all = Vec::with_capacity(rows_of(queries, self.width)?);
        for queries in queries.chunks(TOGETHER * self.width) {
            let rows = self.padded(queries)?;
            let tops = self.scanned(&rows, more)?;
            let found = tops.into_par_iter().zip(rows.par_chunks(padded)).map(|(top, query)| match self.rough {
                true => top.into_sorted(),
                false => self.decided(query, top.into_sorted(), k),
            });
            all.extend(found.collect::<Vec<_>>());
        }
        Ok(all)
    }
}

impl Scan for Int8 {
    const ELEMENT: Element = Element::Bf16;

    fn bytes_on_device(&self) -> usize {
        self.parts.iter().map(|part| part.codes.bytes()).sum()
    }

    /// The first codes: what these leave over is the host's.
    fn upload(&self, gpu: &Gpu) -> Result<DeviceWeight> {
        let mut parts: Vec<Numbers> = Vec::new();
        for part in &self.parts {
            if let Values::Quantized { codes, scales, .. } = part.codes.values() {
                parts.push((codes, cast_slice(scales)));
            }
        }
        DeviceWeight::upload(gpu, Precision::Int8, self.padded_width(), &parts)
    }

    fn padded(&self, queries: &[f32]) -> Result<Vec<f32>> {
        rows_of(queries, self.width)?;
        if !queries.iter().all(|x| x.is_finite()) {
            return Err(Error::overflow("a mention's vector is"));
        }
        Ok(padded_rows(queries, self.width, self.padded_width()))
    }

    /// By both codes.
    fn decided(&self, query: &[f32], found: Vec<Found>, k: usize) -> Vec<Found> {
        let (mut row, mut rest) = (vec![0.0; query.len()], vec![0.0; query.len()]);
        let decide = |Found { number, .. }| {
            let (part, at) = (&self.parts[number as usize / PART], number as usize % PART);
            part.codes.row(at, &mut row);
            part.rest.row(at, &mut rest);
            Found::new(number, simd!(vector::dot(&row, query) + vector::dot(&rest, query)))
        };
        Found::best(found.into_iter().map(decide).collect(), k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Flat;

    /// Vectors whose products are spread as those of random ones are.
    fn vectors(n: usize, width: usize, step: f32) -> Vec<f32> {
        (0..n * width).map(|i| ((i as f32 * step).sin() * 43_758.547).fract()).collect()
    }

    #[test]
    fn codes_of_16_bits_find_what_f32_finds() {
        // Over the end of a part, and of a width that is no multiple of a group.
        for (n, width, queries, k) in [(300, 48, 3, 10), (PART + 77, 12, 2, 100), (5, 64, 9, 5), (40, 130, 20, 1)] {
            let (rows, asked) = (vectors(n, width, 0.37), vectors(queries, width, 0.73));
            let mut builder = Int8Builder::new(width);
            rows.chunks(7 * width).for_each(|rows| builder.add(rows).unwrap());
            let scan = builder.finish().unwrap();
            assert_eq!((scan.len(), scan.width()), (n, width));
            let want = Flat::new(rows, width).unwrap().top_k(&asked, k).unwrap();
            let got = scan.top_k(&asked, k).unwrap();
            assert_eq!(got.len(), queries);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.len(), k.min(n));
                for (place, (got, want)) in got.iter().zip(want).enumerate() {
                    // Codes of both are off by half a step of at most 1 / (127 * 250), in each of the width's numbers of at
                    // most 1: the products at a place are, whichever vectors they are of.
                    let bound = width as f32 / (2.0 * 127.0 * 250.0) + 1e-5;
                    assert!(
                        (got.product - want.product).abs() <= bound,
                        "{n} x {width}, place {place}: {got:?}, {want:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        let mut builder = Int8Builder::new(8);
        assert!(builder.add(&[1.0; 7]).is_err());
        builder.add(&[1.0; 16]).unwrap();
        let scan = builder.finish().unwrap();
        assert!(scan.top_k(&[0.0; 9], 1).is_err());
        assert!(scan.top_k(&[f32::NAN; 8], 1).unwrap_err().to_string().contains("not finite"));
        assert!(scan.top_k(&[], 1).unwrap().is_empty());
    }
}
