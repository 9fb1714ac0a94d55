//! What products with weights in a device's memory have in common, however these are stored.

use crate::device::cuda::Ptr;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Rows of activations that go through one reading of the weights; more are multiplied tile by tile on tensor cores.
pub(super) const FEW: usize = 8;

/// What becomes of a product; as in kernels/linear_few.cu.
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

/// Matrices (outputs, inputs) in a device's memory, one below the other.
pub trait OnDevice: std::fmt::Debug + Send + Sync {
    /// Outputs.
    fn rows(&self) -> usize;

    /// Inputs.
    fn columns(&self) -> usize;

    /// Queues x Wᵀ, whose shapes fit.
    fn queue(&self, x: &Tensor, out: &Tensor, into: Into) -> Result<()>;

    /// The rows of tokens (n), as f32. `tokens` lie on the device and are less than the number of rows.
    fn embed(&self, tokens: Ptr, n: usize) -> Result<Tensor>;

    /// Queues x Wᵀ. Fails if the shapes do not fit.
    fn product(&self, x: &Tensor, out: &Tensor, into: Into) -> Result<()> {
        let width = if into == Into::Gated { self.rows() / 2 } else { self.rows() };
        if x.width() != self.columns() || out.width() != width || out.count() != x.count() {
            let ((n, k), (rows, columns)) = ((x.count(), x.width()), (self.rows(), self.columns()));
            let shapes = format!("({n}, {k}) times ({rows}, {columns}) into ({}, {})", out.count(), out.width());
            return Err(Error::shape("linear", shapes));
        }
        self.queue(x, out, into)
    }

    /// x Wᵀ, of the activations' type.
    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        let out = Tensor::chunked(x.device("linear")?, x.element(), [x.count(), self.rows()])?;
        self.product(x, &out, Into::Own).map(|()| out)
    }

    /// x Wᵀ in f32.
    fn multiply_wide(&self, x: &Tensor) -> Result<Tensor> {
        let out = Tensor::alloc(x.device("linear")?, "activations", Element::F32, [x.count(), self.rows()])?;
        self.product(x, &out, Into::Wide).map(|()| out)
    }

    /// sum += x Wᵀ, of f32 sums.
    fn add_to(&self, sum: &mut Tensor, x: &Tensor) -> Result<()> {
        if sum.element() != Element::F32 {
            return Err(Error::shape("linear", "sums that are not f32"));
        }
        self.product(x, sum.written()?, Into::Added)
    }

    /// silu(x Wᵀ of the gates) · (x Wᵀ of the ups), of the activations' type; of matrices that have a row of each in turn.
    fn gated(&self, x: &Tensor) -> Result<Tensor> {
        let out = Tensor::chunked(x.device("linear")?, x.element(), [x.count(), self.rows() / 2])?;
        self.product(x, &out, Into::Gated).map(|()| out)
    }
}
