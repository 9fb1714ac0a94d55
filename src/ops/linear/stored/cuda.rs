//! Weights and products with them (kernels/linear_few.cu, linear_stored.cu, linear.cu), embeddings.

use bytemuck::{Pod, Zeroable};

use super::super::tiled::{Finish, Gemm, Output, THREADS, tile};
use super::cuda_integers as integers;
use super::on_device::{FEW, Into, NextArgs, OnDevice, Product, ScaleArgs};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Precision, Tensor};

/// Bytes of gates and ups that are put together at a time on their way to a device.
const STAGED: usize = 64 << 20;

/// A matrix (outputs, inputs) in a device's memory.
#[derive(Debug)]
pub struct DeviceWeight {
    codes: DeviceBuffer<u8>,
    scales: Option<DeviceBuffer<u8>>,
    rows: usize,
    columns: usize,
    /// Weights that share a scale.
    group: usize,
    precision: Precision,
    /// Whether many rows are multiplied in integers.
    integers: bool,
}

/// Outputs of a block of threads of a product of few rows.
const BLOCK: usize = 4;

/// Numbers of a matrix and, if these are codes, the bf16 scales of its groups.
pub type Numbers<'a> = (&'a [u8], &'a [u8]);

/// As in kernels/stored_weights.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Weights {
    codes: Ptr,
    scales: Ptr,
    rows: i32,
    k: i32,
    group: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Gemv {
    weights: Weights,
    x: Ptr,
    out: Ptr,
    scale: ScaleArgs,
    next: NextArgs,
    rows: i32,
    into: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LlamaGemm {
    weights: Weights,
    a: Ptr,
    out: Output,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Embed {
    table: Weights,
    tokens: Ptr,
    out: Ptr,
}

/// Rows of the weights must be whole multiples of this many: 16 bytes, or what shares a block of codes.
fn multiple(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 | Precision::F16 => 8,
        Precision::Int8 | Precision::Int4 => 64,
        Precision::Blocks(kind) => kind.weights(),
    }
}

impl DeviceWeight {
    /// Copies matrices of `columns` to a device, one below the other.
    pub fn upload(gpu: &Gpu, precision: Precision, columns: usize, parts: &[Numbers]) -> Result<DeviceWeight> {
        let sum = |of: fn(&Numbers) -> usize| parts.iter().map(of).sum::<usize>();
        let mut weight = DeviceWeight::alloc(gpu, precision, columns, sum(|p| p.0.len()), sum(|p| p.1.len()))?;
        let (mut at, mut scale_at) = (0, 0);
        for (part, scales) in parts {
            weight.codes.write(at, part)?;
            at += part.len();
            if let Some(to) = &mut weight.scales {
                to.write(scale_at, scales)?;
                scale_at += scales.len();
            }
        }
        Ok(weight)
    }

    /// The same of a matrix of gates and one of ups, a row of each in turn, as [`OnDevice::gated`] wants them.
    pub fn in_turn(
        gpu: &Gpu,
        precision: Precision,
        columns: usize,
        gates: Numbers,
        ups: Numbers,
    ) -> Result<DeviceWeight> {
        if (gates.0.len(), gates.1.len()) != (ups.0.len(), ups.1.len()) {
            return Err(Error::shape("linear", "gates and ups of different shapes"));
        }
        let mut both = DeviceWeight::alloc(gpu, precision, columns, 2 * gates.0.len(), 2 * gates.1.len())?;
        let inner = (both.rows / 2).max(1);
        in_turn(&mut both.codes, gates.0, ups.0, gates.0.len() / inner)?;
        if let Some(scales) = &mut both.scales {
            in_turn(scales, gates.1, ups.1, gates.1.len() / inner)?;
        }
        Ok(both)
    }

    /// Memory for so many bytes of numbers and of scales.
    fn alloc(
        gpu: &Gpu,
        precision: Precision,
        columns: usize,
        bytes: usize,
        scale_bytes: usize,
    ) -> Result<DeviceWeight> {
        let row = precision.bytes(columns);
        if columns == 0 || !columns.is_multiple_of(multiple(precision)) || !bytes.is_multiple_of(row) {
            let multiple = multiple(precision);
            let reason =
                format!("rows of {columns} {precision} weights; the CUDA kernels need a multiple of {multiple}");
            return Err(Error::invalid(format!("{reason}; use --device cpu")));
        }
        let rows = bytes / row;
        let codes = gpu.alloc("weights", bytes)?;
        let scales = if scale_bytes > 0 { Some(gpu.alloc("weights", scale_bytes)?) } else { None };
        // A scale has two bytes.
        let group = (2 * rows * columns).checked_div(scale_bytes).unwrap_or(columns);
        let integers = integers::multiplies(gpu, precision)?;
        Ok(DeviceWeight { codes, scales, rows, columns, group, precision, integers })
    }

    /// The same, with many rows multiplied in integers or not, whatever suits the device. Of codes alone.
    pub fn with_integers(self, integers: bool) -> DeviceWeight {
        DeviceWeight { integers: integers && self.scales.is_some(), ..self }
    }

    /// Weights in f16 (rows, columns) that lie on a device already.
    pub(super) fn of_f16(codes: DeviceBuffer<u8>, rows: usize, columns: usize) -> DeviceWeight {
        let precision = Precision::F16;
        DeviceWeight { codes, scales: None, rows, columns, group: columns, precision, integers: false }
    }

    /// Inputs that share a scale.
    pub(super) fn group(&self) -> usize {
        self.group
    }

    /// What its numbers are.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn args(&self) -> Weights {
        Weights {
            codes: self.codes.ptr(),
            scales: self.scales.as_ref().map_or(Ptr::NULL, DeviceBuffer::ptr),
            rows: self.rows as i32,
            k: self.columns as i32,
            group: self.group as i32,
            padding: 0,
        }
    }

    fn row_by_row(&self, product: Product) -> Result<()> {
        let (x, one) = (&product.x.rows, product.count() == 1);
        let choose = |single, several| if one { single } else { several };
        let kernel = match (self.precision, x.element()) {
            (Precision::F32, Element::F32) => choose("linear_few_f32_f32_1", "linear_few_f32_f32_8"),
            (Precision::Bf16, Element::F32) => choose("linear_few_bf16_f32_1", "linear_few_bf16_f32_8"),
            (Precision::F16, Element::F32) if product.narrows() => {
                choose("linear_few_f16_waiting_1", "linear_few_f16_waiting_8")
            }
            (Precision::F16, Element::F32) => choose("linear_few_f16_f32_1", "linear_few_f16_f32_8"),
            (Precision::Int8, Element::F32) => choose("linear_few_int8_f32_1", "linear_few_int8_f32_8"),
            (Precision::Int4, Element::F32) => choose("linear_few_int4_f32_1", "linear_few_int4_f32_8"),
            (Precision::Bf16, Element::Bf16) => choose("linear_few_bf16_bf16_1", "linear_few_bf16_bf16_8"),
            (Precision::Int8, Element::Bf16) => choose("linear_few_int8_bf16_1", "linear_few_int8_bf16_8"),
            (Precision::Int4, Element::Bf16) => choose("linear_few_int4_bf16_1", "linear_few_int4_bf16_8"),
            (Precision::F16, Element::F16) => choose("linear_few_f16_f16_1", "linear_few_f16_f16_8"),
            (precision, element) => return Err(no_kernel(precision, element)),
        };
        let args = Gemv {
            weights: self.args(),
            x: x.address(),
            out: product.out.address(),
            scale: product.scale(),
            next: product.next(),
            rows: x.count() as i32,
            into: product.into as i32,
        };
        let blocks = [self.rows.div_ceil(BLOCK), x.count().div_ceil(FEW), 1];
        // The bf16 scales of four rows.
        let shared = if self.scales.is_some() { (8 * self.columns / self.group) as u32 } else { 0 };
        x.device("linear")?.launch(kernel, Grid { blocks, threads: 128, shared }, &args)
    }

    fn tiles(&self, x: &Tensor, out: &Tensor, into: Into) -> Result<()> {
        let (gpu, [m, n, k]) = (x.device("linear")?, [x.count(), self.rows, self.columns]);
        let residual = if into == Into::Added { out.address() } else { Ptr::NULL };
        // The output's 16-bit type is the operands'.
        let output = match into {
            Into::Own | Into::Gated => Element::Bf16,
            Into::Wide | Into::Added => Element::F32,
        };
        let finish = if into == Into::Gated { Finish::Swiglu } else { Finish::Plain };
        let c_row = out.width();
        let kernels = match (self.precision, x.element()) {
            (Precision::Bf16, Element::Bf16) => {
                return Gemm {
                    a: x.address(),
                    a_row: k,
                    w: self.codes.ptr(),
                    w_row: k,
                    bias: Ptr::NULL,
                    finish,
                    residual,
                    residual_row: n,
                    c: out.address(),
                    c_row,
                    size: [m, n, k],
                    element: Element::Bf16,
                    output,
                }
                .launch(gpu);
            }
            (Precision::F16, Element::F16) => ["linear_stored_f16_64", "linear_stored_f16_128"],
            (Precision::Int8, Element::Bf16) => ["linear_stored_int8_64", "linear_stored_int8_128"],
            (Precision::Int4, Element::Bf16) => ["linear_stored_int4_64", "linear_stored_int4_128"],
            (precision, element) => return Err(no_kernel(precision, element)),
        };
        let pointers = (Ptr::NULL, residual, out.address());
        let out = Output::new("linear_stored", (m, n), finish, pointers, (n, c_row), output)?;
        let (side, shared) = tile(gpu, Element::Bf16, m, n)?;
        let args = LlamaGemm { weights: self.args(), a: x.address(), out };
        let blocks = m.div_ceil(side) * n.div_ceil(side);
        let kernel = if side == 64 { kernels[0] } else { kernels[1] };
        gpu.launch(kernel, Grid { shared, ..Grid::line(blocks, THREADS) }, &args)
    }
}

impl OnDevice for DeviceWeight {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn block(&self) -> Option<usize> {
        Some(BLOCK)
    }

    fn queue(&self, product: Product) -> Result<()> {
        let (x, out, into) = (&product.x.rows, product.out, product.into);
        // The epilogue on tensor cores takes four neighbours; a vocabulary may be odd.
        let many = x.count() > FEW && x.element() != Element::F32 && self.rows.is_multiple_of(4);
        match many && !product.waits() {
            true if self.integers => self.in_integers(x, out, into),
            true => self.tiles(x, out, into),
            false => self.row_by_row(product),
        }
    }

    fn embed(&self, tokens: Ptr, n: usize) -> Result<Tensor> {
        let gpu = self.codes.gpu();
        let out = Tensor::chunked(gpu, Element::F32, [n, self.columns])?;
        let kernel = match self.precision {
            Precision::F32 => "embedding_stored_f32",
            Precision::Bf16 => "embedding_stored_bf16",
            Precision::F16 => "embedding_stored_f16",
            Precision::Int8 => "embedding_stored_int8",
            Precision::Int4 | Precision::Blocks(_) => {
                return Err(Error::shape("embedding", format!("a table of {}", self.precision)));
            }
        };
        gpu.launch(kernel, Grid::line(n, 128), &Embed { table: self.args(), tokens, out: out.ptr() })?;
        Ok(out)
    }
}

/// Copies rows of so many bytes, one of each in turn.
fn in_turn(to: &mut DeviceBuffer<u8>, first: &[u8], second: &[u8], row: usize) -> Result<()> {
    if row == 0 {
        return Ok(());
    }
    let some = (STAGED / 2 / row).max(1) * row;
    let (mut staged, mut at) = (Vec::<u8>::new(), 0);
    for (first, second) in first.chunks(some).zip(second.chunks(some)) {
        staged.clear();
        for (first, second) in first.chunks_exact(row).zip(second.chunks_exact(row)) {
            staged.extend_from_slice(first);
            staged.extend_from_slice(second);
        }
        to.write(at, &staged)?;
        at += staged.len();
    }
    Ok(())
}

fn no_kernel(precision: Precision, element: Element) -> Error {
    Error::shape("linear", format!("no kernel multiplies {element:?} activations by {precision} weights"))
}
