//! Activation functions and their derivatives. Inline into `simd!`.

use super::exp;

/// x σ(1.702 x), in place: CLIP's approximation of GELU.
#[inline(always)]
pub fn quick_gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x /= 1.0 + exp(-1.702 * *x));
}

/// What x Φ(x) by tanh is made of: √(8/π) and the factor of the cube.
const TANH_GELU: [f32; 2] = [1.595_769, 0.044_715];

/// x σ(√(8/π) (x + 0.044715 x³)), in place: GELU by tanh, since 1 + tanh(z) = 2 σ(2 z).
#[inline(always)]
pub fn tanh_gelu(x: &mut [f32]) {
    let [root, cube] = TANH_GELU;
    x.iter_mut().for_each(|x| *x /= 1.0 + exp(-root * (*x + cube * *x * *x * *x)));
}

/// dx *= the derivative of [`tanh_gelu`] at x.
#[inline(always)]
pub fn tanh_gelu_backward(dx: &mut [f32], x: &[f32]) {
    let [root, cube] = TANH_GELU;
    for (dx, &x) in dx.iter_mut().zip(x) {
        let sigma = 1.0 / (1.0 + exp(-root * (x + cube * x * x * x)));
        *dx *= sigma * (1.0 + x * (1.0 - sigma) * root * (1.0 + 3.0 * cube * x * x));
    }
}

/// Φ(x) by formula 7.1.26 of Abramowitz and Stegun (error below 1.5e-7), and exp(-x² / 2), which it is made of.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let p = 1.061_405_4f32.mul_add(t, -1.453_152);
    let p = p.mul_add(t, 1.421_413_7).mul_add(t, -0.284_496_74).mul_add(t, 0.254_829_6);
    let bell = exp(-z * z);
    let tail = 0.5 * p * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// x Φ(x), in place, with Φ within 1.5e-7.
#[inline(always)]
pub fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= normal(*x).0);
}

/// dx *= the derivative of x Φ(x), which is Φ(x) + x exp(-x² / 2) / √(2π).
#[inline(always)]
pub fn gelu_backward(dx: &mut [f32], x: &[f32]) {
    const INVERSE_SQRT_TWO_PI: f32 = 0.398_942_3;
    for (dx, &x) in dx.iter_mut().zip(x) {
        let (cumulative, bell) = normal(x);
        *dx *= (x * INVERSE_SQRT_TWO_PI).mul_add(bell, cumulative);
    }
}

/// dx *= the derivative of [`quick_gelu`] at x.
#[inline(always)]
pub fn quick_gelu_backward(dx: &mut [f32], x: &[f32]) {
    for (dx, &x) in dx.iter_mut().zip(x) {
        let sigma = 1.0 / (1.0 + exp(-1.702 * x));
        *dx *= sigma * (1.0 + 1.702 * x * (1.0 - sigma));
    }
}

/// tanh x, in place.
#[inline(always)]
pub fn tanh(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.tanh());
}

/// 1 / (1 + e⁻ˣ), in place.
#[inline(always)]
pub fn sigmoid(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = 1.0 / (1.0 + exp(-*x)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_has_the_values_of_its_definition() {
        // x Φ(x) to seven digits, from tables of the normal distribution.
        let mut x = [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0];
        gelu(&mut x);
        let want = [-0.004_049_7, -0.158_655_3, 0.0, 0.345_731_2, 0.841_344_7, 1.954_499_7];
        x.iter().zip(want).for_each(|(x, want)| assert!((x - want).abs() < 1e-6, "{x}, want {want}"));
        // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) in 64 bits.
        let mut x = [-3.0, -0.5, 0.0, 1.0, 4.0];
        let want = x.map(|x: f32| {
            let x = x as f64;
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        });
        tanh_gelu(&mut x);
        x.iter().zip(want).for_each(|(x, want)| assert!((*x as f64 - want).abs() < 1e-6, "{x}, want {want}"));
        let mut x = [-2.0f32, 0.0, 3.0];
        quick_gelu(&mut x);
        assert!((x[0] + 2.0 / (1.0 + 3.404f32.exp())).abs() < 1e-6 && x[1] == 0.0);
    }
}
