//! The decoder's attention over cached keys and values against its definition.

use std::ops::Range;

use bytemuck::cast_slice;

use super::decoder::{rounded, tolerance};
use super::definition::values;
use super::{Check, Findings};
use crate::device::Gpu;
use crate::device::cuda::Ptr;
use crate::error::Result;
use crate::ops::paged_attention::{Heads, PAGE, Page, Queries, Sequences, Tile};
use crate::tensor::{Element, Tensor};

/// Single queries in all types, groups of queries in those of tensor cores.
pub fn checks() -> Vec<Check> {
    let cases = [
        Sequence { shared: 0, cached: 0, rows: 1 },
        Sequence { shared: 70, cached: 75, rows: 67 },
        Sequence { shared: 3, cached: 3, rows: 5 },
        Sequence { shared: 0, cached: 64, rows: 65 },
    ];
    let steps = cases.map(|case| Sequence { rows: 1, ..case });
    let all_heads = [(2, 2, 64), (6, 2, 16), (6, 2, 100), (9, 1, 8)];
    let mut checks = Vec::new();
    for element in [Element::F32, Element::Bf16, Element::F16] {
        checks.push(Check::new(format!("decoder attention, one by one, {element:?}"), move |gpu, found| {
            for (queries, kv, size) in all_heads {
                let heads = Heads { queries, kv, size, element };
                attend(gpu, &heads, &steps, How::Step, found)?;
                if element == Element::F32 {
                    attend(gpu, &heads, &steps, How::Single, found)?;
                }
            }
            if element == Element::F32 {
                attend(gpu, &Heads { queries: 2, kv: 1, size: 128, element }, &cases, How::Single, found)?;
            }
            // More than a launch takes.
            let many: Vec<Sequence> = (0..67).map(|i| Sequence { shared: 0, cached: i % 3, rows: 1 }).collect();
            attend(gpu, &Heads { queries: 2, kv: 1, size: 8, element }, &many, How::Step, found)?;
            Ok(())
        }));
        if element != Element::F32 {
            checks.push(Check::new(format!("decoder attention, prompts, {element:?}"), move |gpu, found| {
                let attend =
                    |(queries, kv, size)| attend(gpu, &Heads { queries, kv, size, element }, &cases, How::Tiles, found);
                all_heads.into_iter().try_for_each(attend)
            }));
        }
    }
    checks
}

/// A sequence whose first `cached` tokens are stored already, `shared` of them in a prefix's pages.
#[derive(Clone, Copy)]
struct Sequence {
    shared: usize,
    cached: usize,
    rows: usize,
}

/// Context (rows, heads · size) of new tokens, by definition. `qkv` (cached + rows, (heads + 2 kv) · size) before rotation.
fn attention(heads: &Heads, qkv: &[f32], cached: usize, turns: &[[f32; 2]]) -> Vec<f32> {
    let (size, half, width) = (heads.size, heads.size / 2, (heads.queries + 2 * heads.kv) * heads.size);
    let rows = qkv.len() / width;
    let head = |row: usize, head: usize, rotated: bool| -> Vec<f64> {
        let x = &qkv[row * width + head * size..][..size];
        let turned = |i: usize| {
            let [cos, sin] = turns[row * half + i % half];
            let (low, high) = (x[i % half], x[i % half + half]);
            rounded(&[if i < half { low * cos - high * sin } else { high * cos + low * sin }], heads.element)[0]
        };
        (0..size).map(|i| if rotated { turned(i) } else { x[i] } as f64).collect()
    };
    let mut out = Vec::new();
    for row in cached..rows {
        for query in 0..heads.queries {
            let kv = query / (heads.queries / heads.kv);
            let q = head(row, query, true);
            let weights: Vec<f64> = (0..=row)
                .map(|key| {
                    let k = head(key, heads.queries + kv, true);
                    (q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut context = vec![0.0; size];
            for (key, weight) in weights.iter().enumerate() {
                let v = head(key, heads.queries + heads.kv + kv, false);
                context.iter_mut().zip(&v).for_each(|(c, v)| *c += weight / sum * v);
            }
            out.extend(context.iter().map(|c| *c as f32));
        }
    }
    out
}

/// How the new tokens are attended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Single,
    Step,
    Tiles,
}

/// Runs attention kernels over cases: first over all cached tokens, then over the new ones.
fn attend(gpu: &Gpu, heads: &Heads, cases: &[Sequence], how: How, found: &mut Findings) -> Result<()> {
    let (width, half) = ((heads.queries + 2 * heads.kv) * heads.size, heads.size / 2);
    let layers = 2;
    let page = heads.page_bytes(layers);
    let stride = 8;
    let mut tables = Vec::new();
    let memory: Vec<_> = cases.iter().map(|_| gpu.alloc::<u8>("checked", stride * page)).collect::<Result<_>>()?;
    for (case, memory) in cases.iter().zip(&memory) {
        // The prefix's pages, the last of them not full, then the sequence's own.
        let mut table = Vec::new();
        for (first, end) in [(0, case.shared), (case.shared, case.cached + case.rows)] {
            for first in (first..end).step_by(PAGE) {
                let at = memory.ptr().offset::<u8>(table.len() * page);
                table.push(Page { at, first: first as i32, count: PAGE.min(end - first) as i32 });
            }
        }
        table.resize(stride, Page::NONE);
        tables.push(table);
    }
    let all: Vec<Page> = tables.concat();
    let pages = gpu.upload("checked", cast_slice::<Page, u8>(&all))?;
    let data: Vec<Vec<f32>> = cases
        .iter()
        .enumerate()
        .map(|(i, case)| rounded(&values((case.cached + case.rows) * width, i as u32 + 7, 24), heads.element))
        .collect();
    let bias = values(width, 5, 24);
    let turn = |row: usize, i: usize| {
        let angle = row as f32 / (i + 1) as f32;
        [angle.cos(), angle.sin()]
    };
    let turns =
        |rows: Range<usize>| -> Vec<[f32; 2]> { rows.flat_map(|row| (0..half).map(move |i| turn(row, i))).collect() };
    let counts = gpu.zeros::<u32>("checked", heads.counts())?;
    let run = |ranges: &[Range<usize>], how: How| -> Result<Vec<f32>> {
        let rows: Vec<(usize, usize)> =
            ranges.iter().enumerate().flat_map(|(s, range)| range.clone().map(move |row| (s, row))).collect();
        let qkv: Vec<f32> = rows.iter().flat_map(|&(s, row)| data[s][row * width..][..width].to_vec()).collect();
        let angles: Vec<[f32; 2]> = rows.iter().flat_map(|&(_, row)| turns(row..row + 1)).collect();
        let slot = |&(s, row): &(usize, usize)| -> Option<Ptr> {
            let page = tables[s].iter().rfind(|page| page.first as usize <= row)?;
            Some(heads.slot(page.at, row - page.first as usize))
        };
        let slots: Vec<Ptr> = rows.iter().filter_map(slot).collect();
        let mut tiles = Vec::new();
        let mut first = 0;
        for (s, range) in ranges.iter().enumerate() {
            tiles.extend(Tile::of(s, first, range.len(), range.start));
            first += range.len();
        }
        let positions: Vec<u32> = rows.iter().map(|r| r.1 as u32).collect();
        let numbers: Vec<u32> = rows.iter().map(|r| r.0 as u32).collect();
        let angles = gpu.upload("checked", cast_slice::<_, u8>(&angles))?;
        let (positions, numbers) = (gpu.upload("checked", &positions)?, gpu.upload("checked", &numbers)?);
        let slots = gpu.upload("checked", cast_slice::<_, u8>(&slots))?;
        let count = tiles.len();
        let tiles = gpu.upload("checked", cast_slice::<_, u8>(&tiles))?;
        let sequences = Sequences {
            angles: angles.ptr(),
            positions: positions.ptr(),
            numbers: numbers.ptr(),
            slots: slots.ptr(),
            pages: pages.ptr(),
            page_stride: stride,
            counts: counts.ptr(),
            queries: match how {
                How::Single => Queries::Single,
                How::Step => Queries::Step,
                How::Tiles => Queries::Tiles(tiles.ptr(), count),
            },
        };
        let qkv = Tensor::upload(gpu, "activations", &qkv, width, heads.element)?;
        let bias = Tensor::new([width], bias.clone())?.to(Some(gpu))?;
        Ok(heads.attend_pages(&sequences, 1, &qkv, Some(&bias))?.read()?.to_vec())
    };
    let cached: Vec<_> = cases.iter().map(|case| 0..case.cached).collect();
    if cases.iter().any(|case| case.cached > 0) {
        run(&cached, if heads.element == Element::F32 { How::Single } else { How::Tiles })?;
    }
    let new: Vec<_> = cases.iter().map(|case| case.cached..case.cached + case.rows).collect();
    let got = run(&new, how)?;
    let want: Vec<f32> = cases
        .iter()
        .zip(&data)
        .flat_map(|(case, data)| {
            let data: Vec<f32> = data.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
            attention(heads, &data, case.cached, &turns(0..case.cached + case.rows))
        })
        .collect();
    let what =
        format!("{how:?}, {} and {} heads of {}, {} sequences", heads.queries, heads.kv, heads.size, cases.len());
    // On tensor cores the weights of the values are rounded, too.
    found.near(what, &got, &want, if how == How::Tiles { 2.0 } else { 1.0 } * tolerance(heads.element));
    Ok(())
}
