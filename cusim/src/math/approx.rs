//! The approximate functions, each closer to the truth than the error that the PTX manual allows.
//!
//! The hardware's own bits are not documented; nothing may rely on them or on these.

use super::float::{canonical, flush};

/// 2^x in f64, for |x| up to 1000.
#[inline(always)]
fn exp2(x: f64) -> f64 {
    let whole = x.round_ties_even();
    let t = (x - whole) * std::f64::consts::LN_2;
    // Taylor series to the eighth power: |t| <= 0.347 leaves a relative error below 3e-10.
    let mut p = 1.0 / 40320.0;
    for c in [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = t.mul_add(p, c);
    }
    // Adding 1.5 * 2^52 leaves the integer in the low bits.
    let whole = (whole + 6_755_399_441_055_744.0).to_bits() << 52;
    f64::from_bits(p.to_bits().wrapping_add(whole))
}

/// `ex2.approx.f32`: at most 2 ulp.
#[inline(always)]
pub fn ex2<const FTZ: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    let clamped = f64::from(x.clamp(-200.0, 200.0));
    canonical(if x.is_nan() { x } else { flush::<FTZ>(exp2(clamped) as f32) })
}

/// `lg2.approx.f32`: absolute error 2^-22 near 1, else 2^-22 relative.
#[inline(always)]
pub fn lg2<const FTZ: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    let wide = f64::from(x);
    let bits = wide.to_bits();
    // The exponent is split off so that the rest lies between sqrt(1/2) and sqrt(2).
    let offset = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
    let exponent = ((offset as i64) >> 52) as f64;
    let m = f64::from_bits(bits.wrapping_sub(offset & 0xfff0_0000_0000_0000));
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut p = 1.0 / 13.0;
    for c in [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0, 1.0] {
        p = s2.mul_add(p, c);
    }
    let value = (2.0 * std::f64::consts::LOG2_E * s).mul_add(p, exponent) as f32;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 || x.is_nan() {
        canonical(f32::NAN)
    } else if x == f32::INFINITY {
        x
    } else {
        flush::<FTZ>(value)
    }
}

/// sin and cos of a quarter turn's worth of angle.
#[inline(always)]
fn sin_cos(x: f64) -> (f64, f64) {
    let turns = x * (0.5 / std::f64::consts::PI);
    let quarters = 4.0 * (turns - turns.round_ties_even());
    let quadrant = quarters.round_ties_even();
    let r = (quarters - quadrant) * std::f64::consts::FRAC_PI_2;
    let r2 = r * r;
    let mut s = -1.0 / 39_916_800.0;
    for c in [1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        s = r2.mul_add(s, c);
    }
    let s = s * r;
    let mut c = -1.0 / 3_628_800.0;
    for k in [1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0] {
        c = r2.mul_add(c, k);
    }
    if quadrant == 0.0 {
        (s, c)
    } else if quadrant == 1.0 {
        (c, -s)
    } else if quadrant == -1.0 {
        (-c, s)
    } else {
        (-s, -c)
    }
}

/// `sin.approx.f32`: absolute error at most 2^-20.5 within [-pi, pi].
#[inline(always)]
pub fn sin<const FTZ: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    let value = sin_cos(f64::from(x)).0 as f32;
    canonical(if x == 0.0 { x } else { flush::<FTZ>(value) })
}

/// `cos.approx.f32`: absolute error at most 2^-20.5 within [-pi, pi].
#[inline(always)]
pub fn cos<const FTZ: bool>(x: f32) -> f32 {
    canonical(flush::<FTZ>(sin_cos(f64::from(flush::<FTZ>(x))).1 as f32))
}

/// `tanh.approx.f32`: relative error at most 2^-11.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let wide = f64::from(x);
    let clamped = wide.clamp(-20.0, 20.0);
    let large = 1.0 - 2.0 / (exp2(clamped * (2.0 * std::f64::consts::LOG2_E)) + 1.0);
    let small = wide - wide * wide * wide / 3.0;
    canonical(if x.abs() < 1e-3 { small as f32 } else { large as f32 })
}

/// `rcp.approx.f32`: at most 1 ulp.
#[inline(always)]
pub fn rcp<const FTZ: bool>(x: f32) -> f32 {
    canonical(flush::<FTZ>(1.0 / flush::<FTZ>(x)))
}

/// `rsqrt.approx.f32`: relative error at most 2^-22.9.
#[inline(always)]
pub fn rsqrt<const FTZ: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    canonical(flush::<FTZ>((1.0 / f64::from(x).sqrt()) as f32))
}

/// `sqrt.approx.f32`: relative error at most 2^-23.
#[inline(always)]
pub fn sqrt<const FTZ: bool>(x: f32) -> f32 {
    canonical(flush::<FTZ>(flush::<FTZ>(x).sqrt()))
}

/// `div.approx.f32`: at most 2 ulp for divisors up to 2^126; beyond, the reciprocal underflows as on the hardware.
#[inline(always)]
pub fn div<const FTZ: bool>(a: f32, b: f32) -> f32 {
    let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
    let huge = b.abs() > f32::from_bits(0x7e80_0000) && b.abs() < f32::INFINITY;
    let signed_zero = f32::from_bits((a.to_bits() ^ b.to_bits()) & 0x8000_0000);
    let lost = if a.is_finite() { signed_zero } else { f32::NAN };
    canonical(flush::<FTZ>(if huge { lost } else { a / b }))
}

/// `rcp.approx.ftz.f64`: 20 bits of fraction.
#[inline(always)]
pub fn rcp_f64(x: f64) -> f64 {
    coarse(1.0 / flush_f64(x))
}

/// `rsqrt.approx.f64`, `.ftz` or not.
#[inline(always)]
pub fn rsqrt_f64<const FTZ: bool>(x: f64) -> f64 {
    if FTZ { coarse(1.0 / flush_f64(x).sqrt()) } else { 1.0 / x.sqrt() }
}

#[inline(always)]
fn flush_f64(x: f64) -> f64 {
    if x.is_subnormal() { 0.0f64.copysign(x) } else { x }
}

#[inline(always)]
fn coarse(x: f64) -> f64 {
    if x.is_nan() { x } else { flush_f64(f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)) }
}
