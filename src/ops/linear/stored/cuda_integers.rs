//! Products of many rows with int8 and int4 weights in integers (kernels/linear_integer.cu).

use bytemuck::{Pod, Zeroable};

use super::super::tiled::{Finish, Output, tile};
use super::cuda::{DeviceWeight, Weights};
use super::on_device::{Into, OnDevice};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::device::switch::is_on;
use crate::error::Result;
use crate::tensor::{Bits, Element, Precision, Tensor};

/// Whether prompts are multiplied in integers: `on`, as where it is not set, or `off`.
const VARIABLE: &str = "FISSFUSE_INTEGER_PROMPTS";

/// The first compute capability whose tensor cores multiply bf16 fast enough by other means: Hopper's.
const HOPPER: u32 = 90;

/// Rows of a warp of `quantize_rows`, and its warps of a block.
const ROWS: usize = 8;
const WARPS: usize = 8;

/// Floats of a row of the weights' scales in shared memory.
const SCALES: usize = 17;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct QuantizeRows {
    x: Ptr,
    codes: Ptr,
    scales: Ptr,
    corrections: Ptr,
    m: i32,
    k: i32,
    group: i32,
    zero: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LinearInteger {
    weights: Weights,
    a: Ptr,
    scales: Ptr,
    corrections: Ptr,
    out: Output,
}

/// Activations as codes of 8 bits with a scale for each group of columns.
struct Codes {
    codes: DeviceBuffer<u8>,
    /// (groups, rows)
    scales: DeviceBuffer<f32>,
    /// Minus the weights' zero times the sum of a group's codes (groups, rows).
    corrections: DeviceBuffer<i32>,
}

/// Whether a device multiplies many rows by weights of this precision in integers.
pub(super) fn multiplies(gpu: &Gpu, precision: Precision) -> Result<bool> {
    if bits_of(precision).is_none() || gpu.capability()? >= HOPPER {
        return Ok(false);
    }
    is_on(VARIABLE, true)
}

fn bits_of(precision: Precision) -> Option<Bits> {
    match precision {
        Precision::Int8 => Some(Bits::Eight),
        Precision::Int4 => Some(Bits::Four),
        _ => None,
    }
}

/// Quantizes rows of bf16 in groups of columns.
fn quantized(x: &Tensor, group: usize, zero: u8) -> Result<Codes> {
    let (gpu, m, k) = (x.device("quantize_rows")?, x.count(), x.width());
    let groups = k / group;
    let codes = gpu.alloc("activations' codes", m * k)?;
    let scales = gpu.alloc("activations' scales", m * groups)?;
    let corrections = gpu.alloc("activations' scales", m * groups)?;
    let args = QuantizeRows {
        x: x.address(),
        codes: codes.ptr(),
        scales: scales.ptr(),
        corrections: corrections.ptr(),
        m: m as i32,
        k: k as i32,
        group: group as i32,
        zero: zero.into(),
    };
    let blocks = (m.div_ceil(ROWS) * groups).div_ceil(WARPS);
    gpu.launch("quantize_rows", Grid::line(blocks, 32 * WARPS as u32), &args)?;
    Ok(Codes { codes, scales, corrections })
}

impl DeviceWeight {
    /// x Wᵀ of many rows of bf16, as [`OnDevice::queue`] takes them.
    pub(super) fn in_integers(&self, x: &Tensor, out: &Tensor, into: Into) -> Result<()> {
        let (gpu, [m, n]) = (x.device("linear")?, [x.count(), self.rows()]);
        let kernels = match self.precision() {
            Precision::Int8 => ["linear_integer_int8_64", "linear_integer_int8_128"],
            _ => ["linear_integer_int4_64", "linear_integer_int4_128"],
        };
        let zero = bits_of(self.precision()).map_or(0, Bits::zero);
        let codes = quantized(x, self.group(), zero)?;
        let residual = if into == Into::Added { out.address() } else { Ptr::NULL };
        let output = match into {
            Into::Own | Into::Gated => Element::Bf16,
            Into::Wide | Into::Added => Element::F32,
        };
        let finish = if into == Into::Gated { Finish::Swiglu } else { Finish::Plain };
        let (pointers, c_row) = ((Ptr::NULL, residual, out.address()), out.width());
        let out = Output::new("linear_integer", (m, n), finish, pointers, (n, c_row), output)?;
        let (side, stages) = tile(gpu, Element::Bf16, m, n)?;
        let shared = stages + (side * SCALES * 4) as u32;
        let args = LinearInteger {
            weights: self.args(),
            a: codes.codes.ptr(),
            scales: codes.scales.ptr(),
            corrections: codes.corrections.ptr(),
            out,
        };
        let (kernel, threads) = if side == 64 { (kernels[0], 128) } else { (kernels[1], 256) };
        gpu.launch(kernel, Grid { shared, ..Grid::line(m.div_ceil(side) * n.div_ceil(side), threads) }, &args)
    }
}
