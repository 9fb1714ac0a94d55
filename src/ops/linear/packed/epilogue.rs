//! What a product does with its sums before it writes them.

use super::Value;
use crate::device::cpu::vector;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x σ(1.702 x), CLIP's.
    QuickGelu,
    /// x Φ(x), BERT's.
    Gelu,
    /// x Φ(x) by tanh, SigLIP's.
    TanhGelu,
    /// max(x, 0), ResNet's.
    Relu,
    /// tanh x.
    Tanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
}

impl Activation {
    /// In place. Inline into `simd!`.
    #[inline(always)]
    pub fn apply(self, x: &mut [f32]) {
        match self {
            Activation::QuickGelu => vector::quick_gelu(x),
            Activation::Gelu => vector::gelu(x),
            Activation::TanhGelu => vector::tanh_gelu(x),
            Activation::Relu => vector::relu(x),
            Activation::Tanh => vector::tanh(x),
            Activation::Sigmoid => vector::sigmoid(x),
        }
    }
}

/// `out = activation(sums + bias + residual)`, each part only if it is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per output.
    pub bias: Option<&'a [f32]>,
    /// What `out` holds is the residual; else its values are not read.
    pub residual: bool,
    /// After both.
    pub activation: Option<Activation>,
}

impl<'a> Epilogue<'a> {
    /// `out = sums + bias`
    pub fn bias(bias: &'a [f32]) -> Epilogue<'a> {
        Epilogue { bias: Some(bias), ..Epilogue::default() }
    }

    /// Finishes the sums of outputs `column..` of one row; `scratch` is as long. Inline into `simd!`.
    #[inline(always)]
    pub(super) fn finish<T: Value>(&self, sums: &mut [f32], scratch: &mut [f32], column: usize, out: &mut [T]) {
        if let Some(bias) = self.bias {
            vector::add(sums, &bias[column..][..sums.len()]);
        }
        if self.residual {
            T::load(scratch, out);
            vector::add(sums, scratch);
        }
        if let Some(activation) = self.activation {
            activation.apply(sums);
        }
        T::store(out, sums);
    }
}
