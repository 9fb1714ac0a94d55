//! The kernel that finds the largest of many values against sorting, and scans that are made of it against those of the host.

use std::sync::Arc;

use super::definition::values;
use super::{Check, Findings};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::top_k::{self, Found, MOST, Top};
use crate::search::{Candidates, Flat, Int8Builder, OnDevice, Scan};
use crate::tensor::{Element, Tensor};

pub fn checks() -> Vec<Check> {
    vec![Check::new("top k", best_of_rows), Check::new("scans for nearest vectors", scans)]
}

/// Numbers and the bits of products, in order.
fn numbers(lists: &[Vec<Found>]) -> Vec<[u32; 2]> {
    lists.iter().flatten().map(|found| [found.number, found.product.to_bits()]).collect()
}

fn best_of_rows(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    // Of one part and of several, with a short one at the end; of two rounds and of three.
    for (rows, length, k) in [(1, 1, 1), (3, 5, 9), (2, 1000, 100), (2, 16_384, 7), (3, 40_001, 150), (1, 40_000, MOST)]
    {
        let spread: Vec<f32> = values(rows * length, 3, 24).iter().map(|x| 10.0 * x).collect();
        // Most values are as large as many others, on both sides of 0.
        let tied: Vec<f32> = spread.iter().map(|x| (x / 3.0).round() * 1.5).collect();
        let mut holes = spread.clone();
        holes.chunks_mut(3).filter(|three| three.len() == 3).for_each(|three| {
            three[0] = f32::NAN;
            three[1] = f32::NEG_INFINITY;
        });
        let cases = [("spread", spread), ("tied", tied), ("equal", vec![-0.25; rows * length]), ("holes", holes)];
        for (name, values) in cases {
            let got = top_k::top_k(&Tensor::upload(gpu, "checked", &values, length, Element::F32)?, k)?;
            let best = |row: &[f32]| {
                let mut top = Top::new(k);
                top.add(0, row);
                top.into_sorted()
            };
            let want: Vec<Vec<Found>> = values.chunks(length).map(best).collect();
            found.equal(format!("{name}, the best {k} of {length}"), &numbers(&got), &numbers(&want));
        }
    }
    Ok(())
}

/// Compares a scan on a device with the same on the host.
fn compare<S: Scan>(gpu: &Gpu, scan: Arc<S>, queries: &[f32], k: usize, found: &mut Findings) -> Result<()> {
    let want = scan.top_k(queries, k)?;
    let got = OnDevice::new(scan.clone(), gpu)?.top_k(queries, k)?;
    let what = format!("{}, the best {k} of {} x {}", scan.name(), scan.len(), scan.width());
    // The host decides of what both find, so that there is nothing to round.
    found.equal(what, &numbers(&got), &numbers(&want));
    Ok(())
}

fn scans(gpu: &Gpu, found: &mut Findings) -> Result<()> {
    // Widths that are no multiple of what the kernels take, one query and more than tiles take, fewer vectors than are asked for.
    for (count, width, queries, k) in [(2000, 30, 1, 10), (700, 70, 19, 50), (20, 64, 3, 30)] {
        let (vectors, asked) = (values(count * width, 4, 24), values(queries * width, 5, 24));
        let mut builder = Int8Builder::new(width);
        builder.add(&vectors)?;
        compare(gpu, Arc::new(builder.finish()?), &asked, k, found)?;
        compare(gpu, Arc::new(Flat::new(vectors.clone(), width)?), &asked, k, found)?;
        // What is no number is found last.
        let mut holes = vectors;
        holes.chunks_mut(width).step_by(3).for_each(|row| row[0] = f32::NAN);
        compare(gpu, Arc::new(Flat::new(holes, width)?), &asked, k, found)?;
    }
    Ok(())
}
