//! What products with weights in a device's memory have in common, however these are stored.

use bytemuck::{Pod, Zeroable};

use super::input::{Input, Next, Scale};
use crate::device::cuda::Ptr;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Rows of activations that go through one reading of the weights; more are multiplied tile by tile on tensor cores.
pub(super) const FEW: usize = 8;

/// What becomes of a product; as in kernels/few_rows.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// Rows of the activations' type.
    Own = 0,
    /// f32 rows.
    Wide = 1,
    /// Added to f32 rows.
    Added = 2,
    /// silu(first) · second of each two neighbours, as rows of the activations' type.
    Gated = 3,
}

/// x Wᵀ about to be computed.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub x: &'a Input,
    pub out: &'a Tensor,
    pub into: Into,
    /// What a product of few rows leaves beside sums that it adds to.
    pub left: Option<Left<'a>>,
}

/// Rows and sums of squares of an [`Input`] that waits for its scale.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    gain: &'a Tensor,
    rows: &'a Tensor,
    squares: &'a Tensor,
}

/// As in kernels/few_rows.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ScaleArgs {
    squares: Ptr,
    parts: i32,
    eps: f32,
}

/// As in kernels/few_rows.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NextArgs {
    gain: Ptr,
    rows: Ptr,
    squares: Ptr,
}

impl Product<'_> {
    /// Rows of activations.
    pub fn count(&self) -> usize {
        self.x.rows.count()
    }

    /// Whether it goes row by row, whatever its size: rows that wait for their scale do, and sums that leave such.
    pub(super) fn waits(&self) -> bool {
        self.x.scale.is_some() || self.left.is_some()
    }

    /// Whether rows of f32 give rows of f16.
    pub(super) fn narrows(&self) -> bool {
        let own = matches!(self.into, Into::Own | Into::Gated);
        own && self.x.rows.element() == Element::F32 && self.x.element() == Element::F16
    }

    pub(super) fn scale(&self) -> ScaleArgs {
        match &self.x.scale {
            None => ScaleArgs { squares: Ptr::NULL, parts: 0, eps: 0.0 },
            Some(scale) => {
                ScaleArgs { squares: scale.squares.ptr(), parts: scale.squares.width() as i32, eps: scale.eps }
            }
        }
    }

    pub(super) fn next(&self) -> NextArgs {
        match &self.left {
            None => NextArgs { gain: Ptr::NULL, rows: Ptr::NULL, squares: Ptr::NULL },
            Some(left) => NextArgs { gain: left.gain.ptr(), rows: left.rows.address(), squares: left.squares.ptr() },
        }
    }
}

/// Matrices (outputs, inputs) in a device's memory, one below the other.
pub trait OnDevice: std::fmt::Debug + Send + Sync {
    /// Outputs.
    fn rows(&self) -> usize;

    /// Inputs.
    fn columns(&self) -> usize;

    /// Outputs of a block of threads of a product of few rows, if one launch computes them all.
    fn block(&self) -> Option<usize>;

    /// Queues x Wᵀ, whose shapes fit.
    fn queue(&self, product: Product) -> Result<()>;

    /// The rows of tokens (n), as f32. `tokens` lie on the device and are less than the number of rows.
    fn embed(&self, tokens: Ptr, n: usize) -> Result<Tensor>;

    /// Queues x Wᵀ. Fails if the shapes do not fit.
    fn product(&self, product: Product) -> Result<()> {
        let (x, out) = (&product.x.rows, product.out);
        let width = if product.into == Into::Gated { self.rows() / 2 } else { self.rows() };
        if x.width() != self.columns() || out.width() != width || out.count() != x.count() {
            let ((n, k), (rows, columns)) = ((x.count(), x.width()), (self.rows(), self.columns()));
            let shapes = format!("({n}, {k}) times ({rows}, {columns}) into ({}, {})", out.count(), out.width());
            return Err(Error::shape("linear", shapes));
        }
        self.queue(product)
    }

    /// x Wᵀ, of the activations' type.
    fn multiply(&self, x: &Input) -> Result<Tensor> {
        let out = Tensor::chunked(x.rows.device("linear")?, x.element(), [x.rows.count(), self.rows()])?;
        self.product(Product { x, out: &out, into: Into::Own, left: None }).map(|()| out)
    }

    /// x Wᵀ in f32.
    fn multiply_wide(&self, x: &Input) -> Result<Tensor> {
        let gpu = x.rows.device("linear")?;
        let out = Tensor::alloc(gpu, "activations", Element::F32, [x.rows.count(), self.rows()])?;
        self.product(Product { x, out: &out, into: Into::Wide, left: None }).map(|()| out)
    }

    /// sum += x Wᵀ, of f32 sums. With it the input of the product behind a normalization of the sums, if it is that of a few rows;
    /// otherwise they are yet to be normalized.
    fn add_to(&self, sum: &mut Tensor, x: &Input, next: Option<Next>) -> Result<Option<Input>> {
        if sum.element() != Element::F32 {
            return Err(Error::shape("linear", "sums that are not f32"));
        }
        let (gpu, n) = (x.rows.device("linear")?, x.rows.count());
        let waiting = match (next, self.block()) {
            (Some(next), Some(block)) if n <= FEW => Some((next, self.rows().div_ceil(block))),
            _ => None,
        };
        let out = sum.written()?;
        let Some((Next { gain, eps, element }, parts)) = waiting else {
            return self.product(Product { x, out, into: Into::Added, left: None }).map(|()| None);
        };
        out.expect_beside("rms_norm", gain, gain.len())?;
        // Beyond f16's numbers there are sums; not beyond bf16's.
        let kept = if element == Element::Bf16 { Element::Bf16 } else { Element::F32 };
        let rows = Tensor::chunked(gpu, kept, [n, self.rows()])?;
        let squares = Tensor::alloc(gpu, "activations", Element::F32, [n, parts])?;
        let left = Some(Left { gain, rows: &rows, squares: &squares });
        self.product(Product { x, out, into: Into::Added, left })?;
        Ok(Some(Input { rows, scale: Some(Scale { squares, eps, element }) }))
    }

    /// silu(x Wᵀ of the gates) · (x Wᵀ of the ups), of the activations' type; of matrices that have a row of each in turn.
    fn gated(&self, x: &Input) -> Result<Tensor> {
        let out = Tensor::chunked(x.rows.device("linear")?, x.element(), [x.rows.count(), self.rows() / 2])?;
        self.product(Product { x, out: &out, into: Into::Gated, left: None }).map(|()| out)
    }
}
