//! Matrix products with bias, activation and residual (kernels/linear.cu).

use bytemuck::{Pod, Zeroable};

use super::Activation;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Sides of the kernels' tiles.
const LARGE: usize = 128;
const SMALL: usize = 64;

/// Threads of the bf16 kernels, and of those that compute in f32.
pub(in crate::ops) const THREADS: u32 = 128;
pub(in crate::ops) const THREADS_F32: u32 = 256;

/// What becomes of sums; the numbers are those of kernels/activation.cuh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    #[default]
    Plain = 0,
    QuickGelu = 1,
    Gelu = 2,
    Relu = 3,
    /// silu(first) · second of each two neighbours, so that C is half as wide; takes no residual.
    Swiglu = 4,
    Tanh = 5,
    Sigmoid = 6,
    TanhGelu = 7,
}

impl From<Option<Activation>> for Finish {
    fn from(activation: Option<Activation>) -> Finish {
        match activation {
            None => Finish::Plain,
            Some(Activation::QuickGelu) => Finish::QuickGelu,
            Some(Activation::Gelu) => Finish::Gelu,
            Some(Activation::TanhGelu) => Finish::TanhGelu,
            Some(Activation::Relu) => Finish::Relu,
            Some(Activation::Tanh) => Finish::Tanh,
            Some(Activation::Sigmoid) => Finish::Sigmoid,
        }
    }
}

/// C (m, n) = activation(A (m, k) W (n, k)ᵀ + bias + residual), of matrices in device memory.
///
/// Strides are in values from one row to the next. For bf16 operands k and the strides of A and W are multiples of 8, and n
/// and the strides of C and the residual of 4; [`Gemm::launch`] refuses others.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub a: Ptr,
    pub a_row: usize,
    pub w: Ptr,
    pub w_row: usize,
    /// n values of f32, or null.
    pub bias: Ptr,
    pub finish: Finish,
    /// Of C's type, or null; may be C itself.
    pub residual: Ptr,
    pub residual_row: usize,
    pub c: Ptr,
    pub c_row: usize,
    /// m, n, k.
    pub size: [usize; 3],
    /// What A and W are.
    pub element: Element,
    /// What C and the residual are; f32 if the operands are.
    pub output: Element,
}

/// The part of the kernels' argument that says where sums go.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(in crate::ops) struct Output {
    bias: Ptr,
    residual: Ptr,
    c: Ptr,
    residual_row: i64,
    c_row: i64,
    m: i32,
    n: i32,
    finish: i32,
    wide: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    a: Ptr,
    w: Ptr,
    a_row: i64,
    w_row: i64,
    out: Output,
    k: i32,
    padding: i32,
}

impl Gemm {
    /// A Wᵀ of whole matrices into `c`, without bias, activation or residual.
    pub fn new(a: &Tensor, w: &Tensor, c: &Tensor) -> Result<Gemm> {
        let (m, n, k) = (a.count(), w.count(), a.width());
        let fits = w.width() == k && (c.count(), c.width()) == (m, n) && a.element() == w.element();
        if !fits {
            let shape = |x: &Tensor| format!("({}, {}) {:?}", x.count(), x.width(), x.element());
            let shapes = format!("A {} times W {} transposed into C {}", shape(a), shape(w), shape(c));
            return Err(Error::shape("linear", shapes));
        }
        Ok(Gemm {
            a: a.address(),
            a_row: k,
            w: w.address(),
            w_row: k,
            bias: Ptr::NULL,
            finish: Finish::Plain,
            residual: Ptr::NULL,
            residual_row: n,
            c: c.address(),
            c_row: n,
            size: [m, n, k],
            element: a.element(),
            output: c.element(),
        })
    }

    /// Queues the product. Small ones take smaller tiles, with the same bits.
    pub fn launch(&self, gpu: &Gpu) -> Result<()> {
        let Gemm { size: [m, n, k], a_row, w_row, element, .. } = *self;
        let output = self.output("linear")?;
        if element == Element::Bf16 && [k, a_row, w_row].iter().any(|x| !x.is_multiple_of(8)) {
            let reason = format!("k = {k}, rows of {a_row} and {w_row} values: must be multiples of 8");
            return Err(Error::shape("linear", reason));
        }
        let args = Args {
            a: self.a,
            w: self.w,
            a_row: a_row as i64,
            w_row: w_row as i64,
            out: output,
            k: k as i32,
            padding: 0,
        };
        let (side, shared) = tile(gpu, element, m, n)?;
        let (kernel, threads) = match (element, side) {
            (Element::F32, _) => ("linear_f32", THREADS_F32),
            (Element::Bf16, LARGE) => ("linear_128", THREADS),
            (Element::Bf16, _) => ("linear_64", THREADS),
            (Element::F16, _) => return Err(Error::shape("linear", "operands of f16")),
        };
        let blocks = m.div_ceil(side) * n.div_ceil(side);
        gpu.launch(kernel, Grid { shared, ..Grid::line(blocks, threads) }, &args)
    }

    fn output(&self, op: &'static str) -> Result<Output> {
        let Gemm { size: [m, n, _], c_row, residual_row, .. } = *self;
        Output::new(op, (m, n), self.finish, (self.bias, self.residual, self.c), (residual_row, c_row), self.output)
    }
}

impl Output {
    /// Checks what the epilogue takes: four neighbours at a time.
    pub(in crate::ops) fn new(
        op: &'static str,
        (m, n): (usize, usize),
        finish: Finish,
        (bias, residual, c): (Ptr, Ptr, Ptr),
        (residual_row, c_row): (usize, usize),
        element: Element,
    ) -> Result<Output> {
        if [n, c_row, residual_row].iter().any(|x| !x.is_multiple_of(4)) {
            let reason = format!("n = {n}, rows of {c_row} and {residual_row} values: must be multiples of 4");
            return Err(Error::shape(op, reason));
        }
        Ok(Output {
            bias,
            residual,
            c,
            residual_row: residual_row as i64,
            c_row: c_row as i64,
            m: m as i32,
            n: n as i32,
            finish: finish as i32,
            wide: (element == Element::F32) as i32,
        })
    }
}

/// Side of the tiles for a product, and their dynamic shared memory: large ones if they are filled and fill
/// the device.
pub(in crate::ops) fn tile(gpu: &Gpu, element: Element, m: usize, n: usize) -> Result<(usize, u32)> {
    const STAGES: usize = 3;
    const DEPTH: usize = 32;
    let shared = |side: usize| (STAGES * 2 * side * DEPTH * 2) as u32;
    if element == Element::F32 {
        return Ok((SMALL, 0));
    }
    let enough = n > SMALL && m.div_ceil(LARGE) * n.div_ceil(LARGE) >= gpu.multiprocessors();
    let side = if enough { LARGE } else { SMALL };
    Ok((side, shared(side)))
}
