//! 32-bit and 64-bit floats: flushing, saturation, NaNs, directed rounding.

/// A rounding mode, as a const parameter.
pub type Mode = u8;
/// To nearest, ties to even.
pub const NEAREST: Mode = 0;
/// Toward zero.
pub const ZERO: Mode = 1;
/// Toward minus infinity.
pub const DOWN: Mode = 2;
/// Toward plus infinity.
pub const UP: Mode = 3;
/// To nearest, ties away from zero.
pub const NEAREST_AWAY: Mode = 4;

/// The NaN that every f32 instruction returns.
pub const NAN_F32: u32 = 0x7fff_ffff;

/// Subnormals to zero of the same sign.
#[inline(always)]
pub fn flush<const FTZ: bool>(x: f32) -> f32 {
    let bits = x.to_bits();
    if FTZ && bits & 0x7f80_0000 == 0 { f32::from_bits(bits & 0x8000_0000) } else { x }
}

/// Any NaN to PTX's canonical one. Decided on the bits: to the compiler all NaNs are the same, and it may drop a choice
/// between two of them.
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { NAN_F32 } else { bits })
}

/// `.sat`: clamps to 0..=1, NaN to +0.
#[inline(always)]
pub fn saturate(x: f32) -> f32 {
    let low = if x > 0.0 { x } else { 0.0 };
    if low < 1.0 { low } else { 1.0 }
}

/// `.sat` for f64.
#[inline(always)]
pub fn saturate_f64(x: f64) -> f64 {
    let low = if x > 0.0 { x } else { 0.0 };
    if low < 1.0 { low } else { 1.0 }
}

/// Result of an f32 instruction: flushed, saturated, canonical.
#[inline(always)]
pub fn finish<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    if SAT { saturate(x) } else { canonical(x) }
}

/// The sum rounded to odd: a 53-bit value from which any shorter format rounds correctly.
#[inline(always)]
pub fn sum_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    let bits = sum.to_bits();
    let inexact = error != 0.0 && error.is_finite() && bits & 1 == 0;
    let away = (error > 0.0) == (sum > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { odd } else { bits })
}

/// Rounds an exact or rounded-to-odd value to f32.
#[inline(always)]
pub fn round_to_f32<const M: Mode>(x: f64) -> f32 {
    let near = x as f32;
    let bits = near.to_bits();
    let back = f64::from(near);
    let (down, up) = if bits >> 31 != 0 {
        (bits.wrapping_add(1), bits.wrapping_sub(1))
    } else {
        (bits.wrapping_sub(1), bits.wrapping_add(1))
    };
    let too_high = back > x;
    let too_low = back < x;
    let bits = match M {
        ZERO if x > 0.0 && too_high => down,
        ZERO if x < 0.0 && too_low => up,
        DOWN if too_high => down,
        UP if too_low => up,
        _ => bits,
    };
    f32::from_bits(bits)
}

/// An exact zero sum of terms with different signs is -0 when rounding down.
#[inline(always)]
fn signed_zero<const M: Mode>(sum: f64, a: f64, b: f64) -> f64 {
    if M == DOWN && sum == 0.0 && (a.to_bits() ^ b.to_bits()) >> 63 != 0 { -0.0 } else { sum }
}

/// `a + b`.
#[inline(always)]
pub fn add<const M: Mode>(a: f32, b: f32) -> f32 {
    if M == NEAREST {
        return a + b;
    }
    let (a, b) = (f64::from(a), f64::from(b));
    round_to_f32::<M>(signed_zero::<M>(sum_to_odd(a, b), a, b))
}

/// `a * b`.
#[inline(always)]
pub fn mul<const M: Mode>(a: f32, b: f32) -> f32 {
    if M == NEAREST {
        return a * b;
    }
    round_to_f32::<M>(f64::from(a) * f64::from(b))
}

/// `a * b + c` rounded once.
#[inline(always)]
pub fn fma<const M: Mode>(a: f32, b: f32, c: f32) -> f32 {
    if M == NEAREST {
        return a.mul_add(b, c);
    }
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    round_to_f32::<M>(signed_zero::<M>(sum_to_odd(product, c), product, c))
}

/// Moves a quotient or root that is not exact onto the odd neighbour; `remainder` has the sign of true - rounded.
#[inline(always)]
fn odd_by_remainder(value: f64, remainder: f64) -> f64 {
    let bits = value.to_bits();
    if remainder == 0.0 || !remainder.is_finite() || !value.is_finite() || bits & 1 == 1 {
        return value;
    }
    let away = (remainder > 0.0) == (value > 0.0);
    f64::from_bits(if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) })
}

/// `a / b`.
#[inline(always)]
pub fn div<const M: Mode>(a: f32, b: f32) -> f32 {
    if M == NEAREST {
        return a / b;
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let quotient = a / b;
    let remainder = (-quotient).mul_add(b, a);
    let remainder = if b < 0.0 { -remainder } else { remainder };
    round_to_f32::<M>(odd_by_remainder(quotient, remainder))
}

/// Square root.
#[inline(always)]
pub fn sqrt<const M: Mode>(a: f32) -> f32 {
    if M == NEAREST {
        return a.sqrt();
    }
    let a = f64::from(a);
    let root = a.sqrt();
    round_to_f32::<M>(odd_by_remainder(root, (-root).mul_add(root, a)))
}

/// Minimum: of a number and a NaN the number, unless `NAN`; -0 below +0.
#[inline(always)]
pub fn min<const NAN: bool>(a: f32, b: f32) -> f32 {
    let smaller = if a < b || (a == b && a.is_sign_negative()) { a } else { b };
    pick_number::<NAN>(a, b, smaller)
}

/// Maximum: of a number and a NaN the number, unless `NAN`; +0 above -0.
#[inline(always)]
pub fn max<const NAN: bool>(a: f32, b: f32) -> f32 {
    let larger = if a > b || (a == b && a.is_sign_positive()) { a } else { b };
    pick_number::<NAN>(a, b, larger)
}

#[inline(always)]
fn pick_number<const NAN: bool>(a: f32, b: f32, chosen: f32) -> f32 {
    let nan = f32::from_bits(NAN_F32);
    if NAN && (a.is_nan() || b.is_nan()) {
        nan
    } else if a.is_nan() {
        canonical(b)
    } else if b.is_nan() {
        a
    } else {
        chosen
    }
}

/// Minimum of f64, as [`min`].
#[inline(always)]
pub fn min_f64(a: f64, b: f64) -> f64 {
    let smaller = if a < b || (a == b && a.is_sign_negative()) { a } else { b };
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        smaller
    }
}

/// Maximum of f64, as [`max`].
#[inline(always)]
pub fn max_f64(a: f64, b: f64) -> f64 {
    let larger = if a > b || (a == b && a.is_sign_positive()) { a } else { b };
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        larger
    }
}

/// The magnitude of a minimum or maximum with the product's sign, `.xorsign.abs`.
#[inline(always)]
pub fn xor_sign(chosen: f32, a: f32, b: f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    if chosen.is_nan() { chosen } else { f32::from_bits(chosen.to_bits() & 0x7fff_ffff | sign) }
}

/// The MXCSR value for a rounding mode, all exceptions masked.
const fn control(mode: Mode) -> u32 {
    let field = match mode {
        ZERO => 3,
        DOWN => 1,
        UP => 2,
        _ => 0,
    };
    0x1f80 | field << 13
}

/// Defines an f64 operation that runs with the processor's rounding mode switched.
macro_rules! with_mode {
    ($(#[$doc:meta])* $name:ident($first:ident $(, $rest:ident)*), $instruction:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<const M: Mode>($first: f64 $(, $rest: f64)*) -> f64 {
            let mut result = $first;
            let (mode, normal) = (control(M), control(NEAREST));
            // SAFETY: the rounding mode is back to normal before the block ends, so that no other code sees it;
            // cusim runs only on processors with FMA, which the device checks before it starts.
            unsafe {
                core::arch::asm!(
                    "vldmxcsr [{mode}]",
                    $instruction,
                    "vldmxcsr [{normal}]",
                    mode = in(reg) &mode,
                    normal = in(reg) &normal,
                    result = inout(xmm_reg) result,
                    $($rest = in(xmm_reg) $rest,)*
                    options(nostack, readonly),
                );
            }
            result
        }
    };
}

with_mode!(
    /// `a + b`.
    add_f64(a, b), "vaddsd {result}, {result}, {b}"
);
with_mode!(
    /// `a * b`.
    mul_f64(a, b), "vmulsd {result}, {result}, {b}"
);
with_mode!(
    /// `a * b + c` rounded once.
    fma_f64(a, b, c), "vfmadd213sd {result}, {b}, {c}"
);
with_mode!(
    /// `a / b`.
    div_f64(a, b), "vdivsd {result}, {result}, {b}"
);
with_mode!(
    /// Square root.
    sqrt_f64(a), "vsqrtsd {result}, {result}, {result}"
);
with_mode!(
    /// To an integral value.
    integral_f64(a), "vroundsd {result}, {result}, {result}, 4"
);

/// To an integral value.
#[inline(always)]
pub fn integral<const M: Mode>(x: f32) -> f32 {
    match M {
        ZERO => x.trunc(),
        DOWN => x.floor(),
        UP => x.ceil(),
        _ => x.round_ties_even(),
    }
}
