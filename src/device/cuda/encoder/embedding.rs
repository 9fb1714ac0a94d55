//! The first rows of a transformer (kernels/encoder_embed.cu).

use bytemuck::{Pod, Zeroable};

use super::super::{Gpu, Grid, Ptr};
use super::{Element, Matrix};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tokens {
    table: Ptr,
    positions: Ptr,
    ids: Ptr,
    places: Ptr,
    out: Ptr,
    rows: i32,
    width: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Patches {
    first: Ptr,
    patches: Ptr,
    positions: Ptr,
    out: Ptr,
    rows: i32,
    length: i32,
    width: i32,
    padding: i32,
}

/// Width of tables of f32 that the kernels take.
fn width_of(tables: [&Matrix; 2]) -> Result<usize> {
    let [width, other] = tables.map(|table| table.width_of("encoder_embed", Element::F32));
    match (width?, other?) {
        (width, other) if width == other && width.is_multiple_of(4) => Ok(width),
        (width, other) => {
            Err(Error::shape("encoder_embed", format!("rows of {width} and {other}: must be a multiple of 4")))
        }
    }
}

/// Row ids[i] of `table` plus row places[i] of `positions`, as f32.
pub fn embed_tokens(gpu: &Gpu, table: &Matrix, positions: &Matrix, ids: &[u32], places: &[u32]) -> Result<Matrix> {
    let width = width_of([table, positions])?;
    let within = |numbers: &[u32], table: &Matrix| numbers.iter().all(|&i| (i as usize) < table.rows());
    if ids.len() != places.len() || !within(ids, table) || !within(places, positions) {
        return Err(Error::shape("encoder_embed", "a token or its position is beyond its table"));
    }
    let out = Matrix::alloc(gpu, "activations", Element::F32, ids.len(), width)?;
    let (ids_there, places) = (gpu.upload("row numbers", ids)?, gpu.upload("row numbers", places)?);
    let args = Tokens {
        table: table.ptr(),
        positions: positions.ptr(),
        ids: ids_there.ptr(),
        places: places.ptr(),
        out: out.ptr(),
        rows: ids.len() as i32,
        width: width as i32,
    };
    gpu.launch("encoder_embed_tokens", Grid::values(ids.len() * width / 4, 256), &args)?;
    Ok(out)
}

/// `first` (1, width) and the patches of each image (images · n, width), plus `positions` (1 + n, width): (images · (1 + n),
/// width), as f32.
pub fn embed_patches(first: &Matrix, patches: &Matrix, positions: &Matrix) -> Result<Matrix> {
    let (gpu, width, length) = (positions.gpu(), width_of([patches, positions])?, positions.rows());
    if first.width_of("encoder_embed", Element::F32)? != width
        || length < 2
        || !patches.rows().is_multiple_of(length - 1)
    {
        let reason = format!("{} patches of images of {length}, with those of {}", patches.rows(), first.width());
        return Err(Error::shape("encoder_embed", reason));
    }
    let rows = patches.rows() / (length - 1) * length;
    let out = Matrix::alloc(gpu, "activations", Element::F32, rows, width)?;
    let args = Patches {
        first: first.ptr(),
        patches: patches.ptr(),
        positions: positions.ptr(),
        out: out.ptr(),
        rows: rows as i32,
        length: length as i32,
        width: width as i32,
        padding: 0,
    };
    gpu.launch("encoder_embed_patches", Grid::values(rows * width / 4, 256), &args)?;
    Ok(out)
}
