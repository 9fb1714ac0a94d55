//! Layers of weights that stay in their precision: where they are, or copied to a device.

use bytemuck::cast_slice;
use rayon::prelude::*;

use super::activations::Width;
use super::{DeviceBlocks, DeviceWeight, Input, Next, Numbers, OnDevice, run};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::device::cuda::Ptr;
use crate::device::switch::is_on;
use crate::error::{Error, Result};
use crate::tensor::{BlockType, Matrix, Precision, Tensor, Values};

/// Whether a processor multiplies prompts by the blocks of a GGUF file in bytes, as llama.cpp does, and not in 16 bits.
const BYTE_PROMPTS: &str = "FISSFUSE_BYTE_PROMPTS";

/// Whether a processor multiplies prompts by blocks in bytes. Fails if the variable is neither on nor off.
pub fn prompts_in_bytes() -> Result<bool> {
    is_on(BYTE_PROMPTS, false)
}

/// x Wᵀ, of matrices (outputs, inputs) one below the other.
pub enum StoredLinear {
    Host(OnHost),
    Device(Box<dyn OnDevice>),
}

/// SwiGLU (Shazeer, 2020): silu(x Wᵀ of the gates) · (x Wᵀ of the ups).
pub enum SwiGlu {
    Host(OnHost),
    /// A row of gates and one of ups in turn.
    Device(Box<dyn OnDevice>),
}

/// Matrices (outputs, inputs) of one width on the host, one below the other.
pub struct OnHost {
    weights: Vec<Matrix>,
    /// Of the activations' codes where many rows are multiplied by blocks.
    prompts: Width,
}

/// Numbers of tokens, where they lie.
pub enum Tokens<'a> {
    Host(&'a [u32]),
    Device { at: Ptr, count: usize },
}

fn elsewhere(op: &'static str) -> Error {
    Error::shape(op, "weights and rows lie on different devices")
}

impl StoredLinear {
    /// From matrices of one width; on a device of one precision too, or all in blocks.
    pub fn new(stacked: Vec<Matrix>, gpu: Option<&Gpu>) -> Result<StoredLinear> {
        let Some(gpu) = gpu else { return OnHost::new(stacked).map(StoredLinear::Host) };
        if let Some(parts) = stacked.iter().map(in_blocks).collect::<Option<Vec<_>>>()
            && let Some(first) = stacked.first()
        {
            return Ok(StoredLinear::Device(Box::new(DeviceBlocks::upload(gpu, first.columns(), &parts)?)));
        }
        let (precision, columns) = alike(&stacked)?;
        let parts: Vec<Numbers> = stacked.iter().map(|matrix| numbers(matrix.values())).collect();
        Ok(StoredLinear::Device(Box::new(DeviceWeight::upload(gpu, precision, columns, &parts)?)))
    }

    /// (n, inputs) -> (n, outputs), of the input's type.
    pub fn forward(&self, x: &Input) -> Result<Tensor> {
        match self {
            StoredLinear::Host(weights) => weights.multiply(&x.rows),
            StoredLinear::Device(weight) => weight.multiply(x),
        }
    }

    /// The same in f32, whatever the input is.
    pub fn forward_wide(&self, x: &Input) -> Result<Tensor> {
        match self {
            StoredLinear::Host(weights) => weights.multiply(&x.rows),
            StoredLinear::Device(weight) => weight.multiply_wide(x),
        }
    }

    /// Adds to f32 sums (n, outputs). Gives the input of the product behind a normalization of the sums, where that comes with
    /// this product; where it does not, the sums are yet to be normalized.
    pub fn forward_onto(&self, x: &Input, sums: &mut Tensor, next: Next) -> Result<Option<Input>> {
        match self {
            StoredLinear::Host(weights) => weights.project(sums.wide_mut("linear")?, &x.rows, true).map(|()| None),
            StoredLinear::Device(weight) => weight.add_to(sums, x, Some(next)),
        }
    }

    /// The rows of tokens (n), which are less than the matrix has, as f32.
    pub fn embed(&self, tokens: Tokens) -> Result<Tensor> {
        match (self, tokens) {
            (StoredLinear::Host(tables), Tokens::Host(tokens)) => {
                let [table] = &tables.weights[..] else { return Err(Error::shape("embedding", "needs one table")) };
                let mut x = Buffer::scratch(tokens.len() * table.columns());
                let rows = x.par_chunks_exact_mut(table.columns()).zip(tokens);
                rows.for_each(|(row, &token)| table.row(token as usize, row));
                Tensor::of_rows(x, table.columns())
            }
            (StoredLinear::Device(table), Tokens::Device { at, count }) => table.embed(at, count),
            _ => Err(elsewhere("embedding")),
        }
    }
}

impl SwiGlu {
    /// From two matrices (inner, inputs) of one precision.
    pub fn new(gate: Matrix, up: Matrix, gpu: Option<&Gpu>) -> Result<SwiGlu> {
        let both = [gate, up];
        let Some(gpu) = gpu else { return OnHost::new(both.into()).map(SwiGlu::Host) };
        if let (Some((kind, gates)), Some((other, ups))) = (in_blocks(&both[0]), in_blocks(&both[1]))
            && kind == other
        {
            return Ok(SwiGlu::Device(Box::new(DeviceBlocks::in_turn(gpu, both[0].columns(), kind, gates, ups)?)));
        }
        let ((precision, columns), [gates, ups]) = (alike(&both)?, both.each_ref().map(|m| numbers(m.values())));
        Ok(SwiGlu::Device(Box::new(DeviceWeight::in_turn(gpu, precision, columns, gates, ups)?)))
    }

    /// (n, inputs) -> (n, inner), of the input's type.
    pub fn forward(&self, x: &Input) -> Result<Tensor> {
        match self {
            SwiGlu::Device(gates) => gates.gated(x),
            SwiGlu::Host(both) => {
                let products = both.multiply(&x.rows)?;
                let (products, inner) = (products.wide("gates")?, products.width() / 2);
                let mut out = Buffer::scratch(products.len() / 2);
                out.par_chunks_mut(inner).zip(products.par_chunks(2 * inner)).for_each(|(out, row)| {
                    let (gate, up) = row.split_at(inner);
                    simd!(vector::swiglu(out, gate, up));
                });
                Tensor::of_rows(out, inner)
            }
        }
    }
}

impl OnHost {
    fn new(weights: Vec<Matrix>) -> Result<OnHost> {
        Ok(OnHost { weights, prompts: if prompts_in_bytes()? { Width::One } else { Width::Two } })
    }

    /// x Wᵀ
    fn multiply(&self, x: &Tensor) -> Result<Tensor> {
        let outputs = self.weights.iter().map(Matrix::rows).sum();
        let mut y = Buffer::scratch(x.count() * outputs);
        self.project(&mut y, x, false)?;
        Tensor::new([x.count(), outputs], y)
    }

    fn project(&self, y: &mut [f32], x: &Tensor, add: bool) -> Result<()> {
        run(y, x.wide("linear")?, &self.weights, add, self.prompts, true)
    }
}

/// Precision and columns of matrices that are multiplied together.
fn alike(matrices: &[Matrix]) -> Result<(Precision, usize)> {
    let mut kinds = matrices.iter().map(|matrix| (matrix.precision(), matrix.columns()));
    let first = kinds.next().ok_or_else(|| Error::shape("linear", "no matrix"))?;
    match kinds.all(|kind| kind == first) {
        true => Ok(first),
        false => Err(Error::invalid("query, key and value weights, or gate and up weights, differ in type")),
    }
}

/// Type and bytes of a matrix in blocks.
fn in_blocks(matrix: &Matrix) -> Option<(BlockType, &[u8])> {
    match matrix.values() {
        Values::Blocks { kind, blocks } => Some((*kind, blocks)),
        _ => None,
    }
}

/// Numbers, and scales if there are any.
fn numbers(values: &Values) -> Numbers<'_> {
    match values {
        Values::F32(v) => (cast_slice(v), &[]),
        Values::F16(v) => (cast_slice(v), &[]),
        Values::Bf16(v) => (cast_slice(v), &[]),
        Values::Quantized { codes, scales, .. } => (codes, cast_slice(scales)),
        Values::Blocks { blocks, .. } => (blocks, &[]),
    }
}
