//! Types that activations are stored in.

use bytemuck::Pod;
use half::bf16;

use crate::device::cpu::vector;

/// A type that activations are stored in; sums are always f32. Inline into `simd!`.
pub trait Value: Pod + Send + Sync {
    /// to = from
    fn load(to: &mut [f32], from: &[Self]);

    /// to = from, rounded to this type.
    fn store(to: &mut [Self], from: &[f32]);

    /// to = from, rounded to bf16.
    fn round(to: &mut [bf16], from: &[Self]);
}

impl Value for f32 {
    #[inline(always)]
    fn load(to: &mut [f32], from: &[f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn store(to: &mut [f32], from: &[f32]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn round(to: &mut [bf16], from: &[f32]) {
        vector::round_bf16(to, from);
    }
}

impl Value for bf16 {
    #[inline(always)]
    fn load(to: &mut [f32], from: &[bf16]) {
        vector::widen_bf16(to, from);
    }

    #[inline(always)]
    fn store(to: &mut [bf16], from: &[f32]) {
        vector::round_bf16(to, from);
    }

    #[inline(always)]
    fn round(to: &mut [bf16], from: &[bf16]) {
        to.copy_from_slice(from);
    }
}
