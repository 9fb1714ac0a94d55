//! The first rows of a transformer (kernels/embedding.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix, fours};

/// Tables of tokens and of their positions.
pub struct DeviceEmbedding {
    tokens: Matrix,
    positions: Matrix,
}

/// The vector before an image's patches, and the positions of both.
pub struct DeviceClassToken {
    class: Matrix,
    positions: Matrix,
}

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
    padding: i32,
}

fn table(gpu: &Gpu, values: &[f32], width: usize) -> Result<Matrix> {
    fours("embedding", width)?;
    Matrix::upload(gpu, "weights", values, width, Element::F32)
}

impl DeviceEmbedding {
    /// Copies tables of rows of one width to a device.
    pub fn new(gpu: &Gpu, tokens: &[f32], positions: &[f32], width: usize) -> Result<DeviceEmbedding> {
        Ok(DeviceEmbedding { tokens: table(gpu, tokens, width)?, positions: table(gpu, positions, width)? })
    }

    /// Row `ids[i]` of the tokens plus row `places[i]` of the positions, as f32.
    pub fn forward(&self, ids: &[u32], places: &[u32]) -> Result<Matrix> {
        let DeviceEmbedding { tokens, positions } = self;
        let within = |numbers: &[u32], table: &Matrix| numbers.iter().all(|&i| (i as usize) < table.rows());
        if ids.len() != places.len() || !within(ids, tokens) || !within(places, positions) {
            return Err(Error::shape("embedding", "a token or its position is beyond its table"));
        }
        let (gpu, width) = (tokens.gpu(), tokens.width());
        let out = Matrix::alloc(gpu, "activations", Element::F32, ids.len(), width)?;
        let [ids, places] = [ids, places].map(|numbers| gpu.upload("row numbers", numbers));
        let (ids, places, rows) = (ids?, places?, out.rows());
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
}

impl DeviceClassToken {
    /// Copies the vector (width) and the positions (1 + patches, width) to a device.
    pub fn new(gpu: &Gpu, class: &[f32], positions: &[f32]) -> Result<DeviceClassToken> {
        let width = class.len();
        Ok(DeviceClassToken { class: table(gpu, class, width)?, positions: table(gpu, positions, width)? })
    }

    /// The patches (images · patches, width), f32, with the class vector before each image's and all with their positions:
    /// (images · (1 + patches), width).
    pub fn forward(&self, patches: &Matrix) -> Result<Matrix> {
        let (gpu, width, length) = (patches.gpu(), self.class.width(), self.positions.rows());
        let fits = patches.width_of("embedding", Element::F32)? == width && length > 1;
        if !fits || !patches.rows().is_multiple_of(length - 1) {
            let reason = format!("({}, {}) patches of images of {length}", patches.rows(), patches.width());
            return Err(Error::shape("embedding", reason));
        }
        let rows = patches.rows() / (length - 1) * length;
        let out = Matrix::alloc(gpu, "activations", Element::F32, rows, width)?;
        let args = Patches {
            class: self.class.ptr(),
            patches: patches.ptr(),
            positions: self.positions.ptr(),
            out: out.ptr(),
            rows: rows as i32,
            length: length as i32,
            width: width as i32,
            padding: 0,
        };
        gpu.launch("embedding_patches", Grid::values(rows * width / 4, 256), &args)?;
        Ok(out)
    }
}
