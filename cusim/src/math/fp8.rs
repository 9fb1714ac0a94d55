//! Eight-bit floats as bit patterns: four exponent bits and three of fraction, or five and two.

use super::float::NEAREST;
use super::half::{self, F16, Half, round_magnitude};

/// An eight-bit float format.
pub trait Fp8: Copy + 'static {
    /// Bits of fraction.
    const FRACTION: u32;
    /// Smallest exponent of a normal number.
    const MIN_EXPONENT: i64;
    /// The pattern of the largest finite number.
    const LARGEST: u8;
    /// A number as a half, given without its sign; a NaN is half precision's.
    fn magnitude(bits: u8) -> u16;
}

/// Four exponent bits, three of fraction; no infinities, and one NaN of each sign.
#[derive(Clone, Copy)]
pub struct E4M3;
/// Five exponent bits, two of fraction: half precision's upper byte.
#[derive(Clone, Copy)]
pub struct E5M2;

/// What conversions to these formats give for a NaN.
pub const NAN: u8 = 0x7f;

impl Fp8 for E4M3 {
    const FRACTION: u32 = 3;
    const MIN_EXPONENT: i64 = -6;
    const LARGEST: u8 = 0x7e;

    #[inline(always)]
    fn magnitude(bits: u8) -> u16 {
        // In half precision the same bits stand for 2^-8 of the number, whose exponent's bias is smaller by 8.
        let value = F16::widen(u16::from(bits) << 7) * 256.0;
        if bits == NAN { half::NAN } else { half::narrow::<F16>(value) }
    }
}

impl Fp8 for E5M2 {
    const FRACTION: u32 = 2;
    const MIN_EXPONENT: i64 = -14;
    const LARGEST: u8 = 0x7b;

    #[inline(always)]
    fn magnitude(bits: u8) -> u16 {
        let value = u16::from(bits) << 8;
        if value > F16::INFINITY { half::NAN } else { value }
    }
}

/// Rounds to nearest; what does not fit, infinities included, becomes the largest finite number of its sign
/// (`.satfinite`). With `RELU` negative numbers are +0.
#[inline(always)]
pub fn narrow<F: Fp8, const RELU: bool>(x: f32) -> u8 {
    let rounded = round_magnitude::<NEAREST>(f64::from(x), F::FRACTION, F::MIN_EXPONENT);
    let magnitude = rounded.min(F::LARGEST.into()) as u8;
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    if x.is_nan() {
        NAN
    } else if RELU && sign != 0 {
        0
    } else {
        magnitude | sign
    }
}

/// The same number in half precision, which holds all of them.
#[inline(always)]
pub fn widen<F: Fp8>(bits: u8) -> u16 {
    let magnitude = F::magnitude(bits & 0x7f);
    let sign = u16::from(bits & 0x80) << 8;
    if magnitude == half::NAN { magnitude } else { magnitude | sign }
}
