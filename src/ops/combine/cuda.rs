//! Linear combinations on CUDA devices (kernels/combine.cu), of `combine` and of `sum`.

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;

/// The most inputs, and the most outputs, of one launch.
const ARRAYS: usize = 8;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: [Ptr; ARRAYS],
    out: [Ptr; ARRAYS],
    coefficients: [[f32; ARRAYS]; ARRAYS],
    length: i64,
    inputs: i32,
    outputs: i32,
    /// Bit i: out[i] is added to.
    adds: i32,
    padding: i32,
}

/// outs[i] = Σ_j coefficient(i, j) ins[j], of arrays of `length` values; outputs that are null are left out. There is
/// at least one input.
pub fn combine_on(
    gpu: &Gpu,
    outs: &[Target],
    ins: &[Ptr],
    coefficient: impl Fn(usize, usize) -> f32,
    length: usize,
) -> Result<()> {
    let wanted: Vec<(usize, Target)> = outs.iter().copied().enumerate().filter(|(_, out)| !out.is_null()).collect();
    for outs in wanted.chunks(ARRAYS) {
        for (part, ins) in ins.chunks(ARRAYS).enumerate() {
            let (first, outputs, inputs) = (part * ARRAYS, outs.len() as i32, ins.len() as i32);
            let mut args = Args { length: length as i64, inputs, outputs, ..Zeroable::zeroed() };
            args.x[..ins.len()].copy_from_slice(ins);
            for (i, (number, out)) in outs.iter().enumerate() {
                args.out[i] = out.at;
                args.adds |= ((out.adds || part > 0) as i32) << i;
                for j in 0..ins.len() {
                    args.coefficients[i][j] = coefficient(*number, first + j);
                }
            }
            gpu.launch("combine", Grid::values(length, 256), &args)?;
        }
    }
    Ok(())
}
