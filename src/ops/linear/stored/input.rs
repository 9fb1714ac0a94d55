//! What products take: rows as they are, or of a normalization of which the product itself finds the scale.

use crate::error::Result;
use crate::tensor::{Element, Tensor};

/// Rows that a product takes (n, inputs).
///
/// A device normalizes a few rows between two products without a launch of its own (kernels/few_rows.cuh): the product before
/// leaves them times the gain, with the sums of their squares, and the product behind multiplies what comes out by each row's
/// scale, 1 / sqrt(mean square + eps).
#[derive(Debug)]
pub struct Input {
    pub(super) rows: Tensor,
    pub(super) scale: Option<Scale>,
}

/// The scale that rows wait for.
#[derive(Debug)]
pub struct Scale {
    /// Sums of squares of parts of each row (n, parts), f32.
    pub(super) squares: Tensor,
    pub(super) eps: f32,
    /// Of activations: of f16 ones the rows that wait are f32.
    pub(super) element: Element,
}

/// What a normalization needs of the product before it.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    /// Of each column of the sums (columns), f32.
    pub gain: &'a Tensor,
    /// What is added to the mean square.
    pub eps: f32,
    /// Type of the activations that the product behind it takes.
    pub element: Element,
}

impl From<Tensor> for Input {
    fn from(rows: Tensor) -> Input {
        Input { rows, scale: None }
    }
}

impl Input {
    /// Of activations, in which a product gives what is to be of its input's type.
    pub fn element(&self) -> Element {
        self.scale.as_ref().map_or(self.rows.element(), |scale| scale.element)
    }

    /// The rows themselves (n, inputs), with their scale, as f32 on the host. Fails if the device failed to compute them.
    pub fn to_host(&self) -> Result<Tensor> {
        let rows = self.rows.to(None)?;
        let Some(scale) = &self.scale else { return Ok(rows) };
        let (width, squares) = (rows.width(), scale.squares.to(None)?);
        let mut values = rows.into_host()?;
        for (row, squares) in values.chunks_exact_mut(width).zip(squares.data().chunks_exact(squares.width())) {
            let factor = 1.0 / (squares.iter().sum::<f32>() / width as f32 + scale.eps).sqrt();
            row.iter_mut().for_each(|x| *x *= factor);
        }
        Tensor::of_rows(values, width)
    }
}
