//! Weights in the blocks of GGUF files on a device (kernels/linear_blocks.cu): few rows multiply them as they are; for many
//! they become f16 once a product, which the tensor cores take.

use bytemuck::{Pod, Zeroable};

use super::cuda::DeviceWeight;
use super::on_device::{FEW, NextArgs, OnDevice, Product, ScaleArgs};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::blocks::GROUP;
use crate::tensor::{BlockType, Element, Tensor};

/// Threads of a block of each of these kernels.
const THREADS: u32 = 128;

/// Columns and rows of a product that a block of threads computes.
const TILE: (usize, usize) = (2, 4);

/// A matrix (outputs, inputs) in blocks.
#[derive(Debug)]
struct Part {
    bytes: DeviceBuffer<u8>,
    kind: BlockType,
    rows: usize,
}

/// Matrices of one width in a device's memory, one below the other, each in blocks of its own type.
#[derive(Debug)]
pub struct DeviceBlocks {
    parts: Vec<Part>,
    rows: usize,
    columns: usize,
}

/// As in kernels/linear_blocks.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinearBlocks {
    weights: Ptr,
    x: Ptr,
    out: Ptr,
    scale: ScaleArgs,
    next: NextArgs,
    rows: i32,
    columns: i32,
    k: i32,
    stride: i32,
    into: i32,
    padding: i32,
}

/// As in kernels/linear_blocks.cu.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct UnpackBlocks {
    weights: Ptr,
    numbers: Ptr,
    out: Ptr,
    rows: i32,
    k: i32,
}

/// Names of the kernels: few rows by f32, by f16, and by f32 into f16; weights as f32 and as f16.
fn kernels(kind: BlockType) -> [&'static str; 5] {
    macro_rules! named {
        ($name:literal) => {
            [
                concat!("linear_blocks_", $name, "_f32"),
                concat!("linear_blocks_", $name, "_f16"),
                concat!("linear_blocks_", $name, "_waiting"),
                concat!("unpack_blocks_", $name, "_f32"),
                concat!("unpack_blocks_", $name, "_f16"),
            ]
        };
    }
    match kind {
        BlockType::Q4_0 => named!("q4_0"),
        BlockType::Q4_1 => named!("q4_1"),
        BlockType::Q5_0 => named!("q5_0"),
        BlockType::Q5_1 => named!("q5_1"),
        BlockType::Q8_0 => named!("q8_0"),
        BlockType::Q4K => named!("q4_k"),
        BlockType::Q5K => named!("q5_k"),
        BlockType::Q6K => named!("q6_k"),
    }
}

fn no_kernel(element: Element) -> Error {
    Error::shape("linear", format!("no kernel multiplies {element:?} activations by blocks"))
}

impl DeviceBlocks {
    /// Copies matrices of `columns` to a device: the type and the bytes of each. Neighbours of one type become one matrix, which
    /// one launch multiplies.
    pub fn upload(gpu: &Gpu, columns: usize, matrices: &[(BlockType, &[u8])]) -> Result<DeviceBlocks> {
        let part = |alike: &[(BlockType, &[u8])]| {
            let (kind, bytes) = (alike[0].0, alike.iter().map(|(_, bytes)| bytes.len()).sum());
            let row = kind.bytes(columns);
            if row == 0 || !columns.is_multiple_of(kind.weights()) || alike.iter().any(|(_, b)| b.len() % row != 0) {
                return Err(Error::shape("linear", format!("{bytes} bytes are no rows of {columns} {kind} weights")));
            }
            let (mut buffer, mut at) = (gpu.alloc("weights", bytes)?, 0);
            for (_, bytes) in alike {
                buffer.write(at, bytes)?;
                at += bytes.len();
            }
            Ok(Part { bytes: buffer, kind, rows: bytes / row })
        };
        let parts: Vec<Part> = matrices.chunk_by(|a, b| a.0 == b.0).map(part).collect::<Result<_>>()?;
        Ok(DeviceBlocks { rows: parts.iter().map(|part| part.rows).sum(), parts, columns })
    }

    /// The same of a matrix of gates and one of ups, a row of each in turn, as [`OnDevice::gated`] wants them.
    pub fn in_turn(gpu: &Gpu, columns: usize, kind: BlockType, gates: &[u8], ups: &[u8]) -> Result<DeviceBlocks> {
        let row = kind.bytes(columns).max(1);
        if gates.len() != ups.len() || !gates.len().is_multiple_of(row) {
            return Err(Error::shape("linear", "gates and ups of different shapes"));
        }
        let rows = gates.chunks_exact(row).zip(ups.chunks_exact(row));
        let both: Vec<u8> = rows.flat_map(|(gate, up)| [gate, up]).flatten().copied().collect();
        DeviceBlocks::upload(gpu, columns, &[(kind, &both)])
    }

    /// All of it as f16, for one product.
    fn unpacked(&self) -> Result<DeviceWeight> {
        let Some(first) = self.parts.first() else { return Err(Error::shape("linear", "no matrix")) };
        let gpu = first.bytes.gpu();
        let weights = gpu.alloc("weights as f16", 2 * self.rows * self.columns)?;
        let mut row = 0;
        for part in &self.parts {
            let to = weights.ptr().offset::<u16>(row * self.columns);
            self.unpack(part, (Ptr::NULL, part.rows), to, kernels(part.kind)[4])?;
            row += part.rows;
        }
        Ok(DeviceWeight::of_f16(weights, self.rows, self.columns))
    }

    /// Rows of a part, by their numbers or all.
    fn unpack(&self, part: &Part, (numbers, rows): (Ptr, usize), out: Ptr, kernel: &'static str) -> Result<()> {
        let args = UnpackBlocks { weights: part.bytes.ptr(), numbers, out, rows: rows as i32, k: self.columns as i32 };
        let groups = rows * (self.columns / GROUP);
        part.bytes.gpu().launch(kernel, Grid::line(groups.div_ceil(THREADS as usize), THREADS), &args)
    }
}

impl OnDevice for DeviceBlocks {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn block(&self) -> Option<usize> {
        (self.parts.len() == 1).then_some(TILE.0)
    }

    fn queue(&self, product: Product) -> Result<()> {
        let (x, out) = (&product.x.rows, product.out);
        if x.count() > FEW && x.element() == Element::F16 && self.rows.is_multiple_of(4) && !product.waits() {
            return self.unpacked()?.queue(product);
        }
        let gpu = x.device("linear")?;
        let mut column = 0;
        for part in &self.parts {
            let [by_f32, by_f16, waiting, ..] = kernels(part.kind);
            let kernel = match x.element() {
                Element::F32 if product.narrows() => waiting,
                Element::F32 => by_f32,
                Element::F16 => by_f16,
                Element::Bf16 => return Err(no_kernel(Element::Bf16)),
            };
            let args = LinearBlocks {
                weights: part.bytes.ptr(),
                x: x.address(),
                out: out.column(column),
                scale: product.scale(),
                next: product.next(),
                rows: x.count() as i32,
                columns: part.rows as i32,
                k: self.columns as i32,
                stride: out.width() as i32,
                into: product.into as i32,
                padding: 0,
            };
            let blocks = [part.rows.div_ceil(TILE.0), x.count().div_ceil(TILE.1), 1];
            gpu.launch(kernel, Grid { blocks, threads: THREADS, shared: 0 }, &args)?;
            column += part.rows;
        }
        Ok(())
    }

    fn embed(&self, tokens: Ptr, n: usize) -> Result<Tensor> {
        let [table] = &self.parts[..] else { return Err(Error::shape("embedding", "needs one table")) };
        let out = Tensor::chunked(table.bytes.gpu(), Element::F32, [n, self.columns])?;
        self.unpack(table, (tokens, n), out.ptr(), kernels(table.kind)[3])?;
        Ok(out)
    }
}
