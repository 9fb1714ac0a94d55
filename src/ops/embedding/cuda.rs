//! The first rows of a transformer (kernels/embedding.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

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
    class: Ptr,
    patches: Ptr,
    positions: Ptr,
    out: Ptr,
    rows: i32,
    length: i32,
    width: i32,
    /// Whether there is a class vector.
    class_rows: i32,
}

/// Row `ids[i]` of the tokens plus row `places[i]` of the positions, as f32. They are within the tables.
pub fn tokens(tokens: &Tensor, positions: &Tensor, ids: &[u32], places: &[u32], gpu: &Gpu) -> Result<Tensor> {
    let (rows, width) = (ids.len(), tokens.shape()[1]);
    let out = Tensor::alloc(gpu, "activations", Element::F32, [rows, width])?;
    let [ids, places] = [ids, places].map(|numbers| gpu.upload("row numbers", numbers));
    let (ids, places) = (ids?, places?);
    let args = Tokens {
        table: tokens.ptr(),
        positions: positions.ptr(),
        ids: ids.ptr(),
        places: places.ptr(),
        out: out.ptr(),
        rows: rows as i32,
        width: width as i32,
    };
    gpu.launch("embedding_tokens", Grid::values(rows * width / 4, 256), &args)?;
    Ok(out)
}

/// The patches (images · patches, width), f32, with the class vector (width), if it is not empty, before each image's and all
/// with their positions ((1 +) patches, width): (images · ((1 +) patches), width).
pub fn patches(class: &Tensor, positions: &Tensor, patches: &Tensor) -> Result<Tensor> {
    let (gpu, length) = (patches.device("embedding")?, positions.shape()[0]);
    let width = patches.width_of("embedding", Element::F32)?;
    let class_rows = !class.is_empty() as usize;
    let rows = patches.count() / (length - class_rows) * length;
    let out = Tensor::alloc(gpu, "activations", Element::F32, [rows, width])?;
    let args = Patches {
        class: class.ptr(),
        patches: patches.ptr(),
        positions: positions.ptr(),
        out: out.ptr(),
        rows: rows as i32,
        length: length as i32,
        width: width as i32,
        class_rows: class_rows as i32,
    };
    gpu.launch("embedding_patches", Grid::values(rows * width / 4, 256), &args)?;
    Ok(out)
}
