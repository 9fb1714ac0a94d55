//! 16-bit floats: IEEE half precision and bfloat16, as bit patterns.

use super::float::{self, Mode, NEAREST};

/// A 16-bit float format.
pub trait Half: Copy + 'static {
    /// Bits of fraction.
    const FRACTION: u32;
    /// Smallest exponent of a normal number.
    const MIN_EXPONENT: i64;
    /// The pattern of plus infinity.
    const INFINITY: u16;
    /// Widens.
    fn widen(bits: u16) -> f32;
}

/// IEEE half precision.
#[derive(Clone, Copy)]
pub struct F16;
/// bfloat16.
#[derive(Clone, Copy)]
pub struct BF16;

/// What every 16-bit float instruction returns for a NaN.
pub const NAN: u16 = 0x7fff;

impl Half for F16 {
    const FRACTION: u32 = 10;
    const MIN_EXPONENT: i64 = -14;
    const INFINITY: u16 = 0x7c00;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        let magnitude = u32::from(bits & 0x7fff) << 13;
        // 2^112 moves the exponent from one bias to the other and normalises subnormals.
        let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
        let special = magnitude >= 0x7c00 << 13;
        let value = if special { magnitude | 0x7f80_0000 } else { scaled.to_bits() };
        f32::from_bits(value | u32::from(bits & 0x8000) << 16)
    }
}

impl Half for BF16 {
    const FRACTION: u32 = 7;
    const MIN_EXPONENT: i64 = -126;
    const INFINITY: u16 = 0x7f80;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

/// Rounds an exact or rounded-to-odd value to a format with this fraction and exponent range; returns the pattern
/// without the sign, and infinity's pattern or above for what does not fit (the caller decides on overflow).
#[inline(always)]
pub(super) fn round_magnitude<const M: Mode>(x: f64, fraction: u32, min_exponent: i64) -> u64 {
    let bits = x.to_bits();
    let negative = bits >> 63 != 0;
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1023;
    let significand = bits & ((1 << 52) - 1) | 1 << 52;
    let below = (min_exponent - exponent).clamp(0, 64) as u64;
    let shift = (u64::from(52 - fraction) + below).min(63);
    let kept = significand >> shift;
    let rest = significand & ((1 << shift) - 1);
    let half = 1u64 << (shift - 1);
    let up = match M {
        float::ZERO => false,
        float::DOWN => negative && rest != 0,
        float::UP => !negative && rest != 0,
        float::NEAREST_AWAY => rest >= half,
        _ => rest > half || (rest == half && kept & 1 == 1),
    };
    let base = (exponent - min_exponent).max(0) as u64;
    let zero = bits << 1 == 0;
    let rounded = (base << fraction) + kept + u64::from(up);
    if zero { 0 } else { rounded }
}

/// Rounds an exact or rounded-to-odd value.
#[inline(always)]
pub fn round<H: Half, const M: Mode>(x: f64) -> u16 {
    let sign = (x.to_bits() >> 48) as u16 & 0x8000;
    let magnitude = round_magnitude::<M>(x, H::FRACTION, H::MIN_EXPONENT);
    let infinity = u64::from(H::INFINITY);
    let to_infinity = match M {
        float::ZERO => false,
        float::DOWN => sign != 0,
        float::UP => sign == 0,
        _ => true,
    };
    let overflow = if to_infinity || x.is_infinite() { infinity } else { infinity - 1 };
    let clipped = if magnitude >= infinity { overflow } else { magnitude };
    if x.is_nan() { NAN } else { clipped as u16 | sign }
}

/// Rounds to nearest.
#[inline(always)]
pub fn narrow<H: Half>(x: f32) -> u16 {
    if H::FRACTION == 7 {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        return if x.is_nan() { NAN } else { rounded };
    }
    // The sum with 2^(e+13) rounds the fraction at the right place for normal results; subnormal ones are rounded at
    // 2^-24 by a fixed addend.
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let normal = (magnitude.wrapping_add(0xc800_0fff).wrapping_add(magnitude >> 13 & 1)) >> 13;
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let value = if magnitude >= 0x4780_0000 { 0x7c00 } else { finite };
    if x.is_nan() { NAN } else { value as u16 | sign }
}

/// Rounds an f32 to 10 fraction bits, ties away from zero: `cvt.rna.tf32.f32`; `RN` ties to even.
#[inline(always)]
pub fn tensor_float<const EVEN: bool>(x: f32) -> u32 {
    let bits = x.to_bits();
    let addend = if EVEN { 0x0fff + (bits >> 13 & 1) } else { 0x1000 };
    let rounded = bits.wrapping_add(addend) & 0xffff_e000;
    if x.is_nan() {
        float::NAN_F32
    } else if x.is_infinite() {
        bits
    } else {
        rounded
    }
}

/// Subnormals of half precision to zero; bfloat16 instructions have no `.ftz`.
#[inline(always)]
pub fn flush<const FTZ: bool>(bits: u16) -> u16 {
    if FTZ && bits & 0x7c00 == 0 { bits & 0x8000 } else { bits }
}

#[inline(always)]
fn wide<H: Half, const FTZ: bool>(bits: u16) -> f64 {
    f64::from(H::widen(flush::<FTZ>(bits)))
}

/// `.sat`: clamps to 0..=1, NaN to +0.
#[inline(always)]
fn saturate<H: Half>(bits: u16) -> u16 {
    let one = round::<H, NEAREST>(1.0);
    let value = H::widen(bits);
    if value.is_nan() || value <= 0.0 {
        0
    } else if value >= 1.0 {
        one
    } else {
        bits
    }
}

#[inline(always)]
fn finish<H: Half, const FTZ: bool, const SAT: bool>(exact: f64) -> u16 {
    let bits = flush::<FTZ>(round::<H, NEAREST>(exact));
    if SAT { saturate::<H>(bits) } else { bits }
}

/// `a + b`.
#[inline(always)]
pub fn add<H: Half, const FTZ: bool, const SAT: bool>(a: u16, b: u16) -> u16 {
    finish::<H, FTZ, SAT>(float::sum_to_odd(wide::<H, FTZ>(a), wide::<H, FTZ>(b)))
}

/// `a - b`.
#[inline(always)]
pub fn sub<H: Half, const FTZ: bool, const SAT: bool>(a: u16, b: u16) -> u16 {
    finish::<H, FTZ, SAT>(float::sum_to_odd(wide::<H, FTZ>(a), -wide::<H, FTZ>(b)))
}

/// `a * b`.
#[inline(always)]
pub fn mul<H: Half, const FTZ: bool, const SAT: bool>(a: u16, b: u16) -> u16 {
    finish::<H, FTZ, SAT>(wide::<H, FTZ>(a) * wide::<H, FTZ>(b))
}

/// `a * b + c` rounded once; with `RELU` negative results and NaN are +0 and the canonical NaN.
#[inline(always)]
pub fn fma<H: Half, const FTZ: bool, const SAT: bool, const RELU: bool>(a: u16, b: u16, c: u16) -> u16 {
    let product = wide::<H, FTZ>(a) * wide::<H, FTZ>(b);
    let bits = finish::<H, FTZ, SAT>(float::sum_to_odd(product, wide::<H, FTZ>(c)));
    if RELU { relu::<H>(bits) } else { bits }
}

/// Negative values to +0.
#[inline(always)]
pub fn relu<H: Half>(bits: u16) -> u16 {
    if bits & 0x8000 != 0 && !H::widen(bits).is_nan() { 0 } else { bits }
}

/// Minimum, as [`float::min`].
#[inline(always)]
pub fn min<H: Half, const FTZ: bool, const NAN_: bool>(a: u16, b: u16) -> u16 {
    narrow::<H>(float::min::<NAN_>(H::widen(flush::<FTZ>(a)), H::widen(flush::<FTZ>(b))))
}

/// Maximum, as [`float::max`].
#[inline(always)]
pub fn max<H: Half, const FTZ: bool, const NAN_: bool>(a: u16, b: u16) -> u16 {
    narrow::<H>(float::max::<NAN_>(H::widen(flush::<FTZ>(a)), H::widen(flush::<FTZ>(b))))
}

/// Applies a 16-bit operation to both halves.
#[inline(always)]
pub fn pair1(f: impl Fn(u16) -> u16, a: u32) -> u32 {
    u32::from(f(a as u16)) | u32::from(f((a >> 16) as u16)) << 16
}

/// Applies a 16-bit operation to both halves.
#[inline(always)]
pub fn pair2(f: impl Fn(u16, u16) -> u16, a: u32, b: u32) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// Applies a 16-bit operation to both halves.
#[inline(always)]
pub fn pair3(f: impl Fn(u16, u16, u16) -> u16, a: u32, b: u32, c: u32) -> u32 {
    u32::from(f(a as u16, b as u16, c as u16))
        | u32::from(f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)) << 16
}
