//! Conversions between floats and integers.

use super::float::{self, Mode};

/// An integer that floats convert to.
pub trait Integer: Copy + 'static {
    /// Converts an integral f64, clamping; a NaN gives the pattern with only the top bit set.
    fn clamp(x: f64) -> Self;
    /// Converts from f32, clamping; a NaN gives 0, for 64-bit integers the pattern with only the top bit set.
    fn clamp_f32(x: f32) -> Self;
}

macro_rules! integers {
    ($($t:ident)*) => {$(
        impl Integer for $t {
            #[inline(always)]
            fn clamp(x: f64) -> Self {
                if x.is_nan() { 1 << ($t::BITS - 1) } else { x as $t }
            }

            #[inline(always)]
            fn clamp_f32(x: f32) -> Self {
                let nan = if $t::BITS == 64 { 1 << ($t::BITS - 1) } else { 0 };
                if x.is_nan() { nan } else { x as $t }
            }
        }
    )*};
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);

/// f32 to an integer.
#[inline(always)]
pub fn float_to_int<I: Integer, const M: Mode, const FTZ: bool>(x: f32) -> I {
    I::clamp_f32(float::integral::<M>(float::flush::<FTZ>(x)))
}

/// f64 to an integer.
#[inline(always)]
pub fn double_to_int<I: Integer, const M: Mode>(x: f64) -> I {
    let integral = match M {
        float::ZERO => x.trunc(),
        float::DOWN => x.floor(),
        float::UP => x.ceil(),
        _ => x.round_ties_even(),
    };
    I::clamp(integral)
}

/// A 64-bit integer rounded to odd at 53 bits, so that shorter formats round correctly from it.
#[inline(always)]
pub fn int_to_odd(value: i128) -> f64 {
    let negative = value < 0;
    let magnitude = value.unsigned_abs() as u64;
    let excess = 11u32.saturating_sub(magnitude.leading_zeros());
    let kept = magnitude >> excess;
    let lost = magnitude & ((1u64 << excess) - 1) != 0;
    let scaled = (kept | u64::from(lost)) as f64 * (1u64 << excess) as f64;
    if negative { -scaled } else { scaled }
}

/// A 64-bit integer to f64.
#[inline(always)]
pub fn int_to_double<const M: Mode>(value: i128) -> f64 {
    let near = value as f64;
    if M == float::NEAREST {
        return near;
    }
    let back = near as i128;
    let toward_zero = match M {
        float::ZERO => back.abs() > value.abs(),
        float::DOWN => back > value && value > 0,
        float::UP => back < value && value < 0,
        _ => false,
    };
    let away = match M {
        float::DOWN => back > value && value < 0,
        float::UP => back < value && value > 0,
        _ => false,
    };
    let bits = near.to_bits();
    f64::from_bits(bits.wrapping_sub(u64::from(toward_zero)).wrapping_add(u64::from(away)))
}
