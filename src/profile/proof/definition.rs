//! What layers are by definition, in f64 and without any cleverness.

/// Values from -1 to 1 that look random, of this many bits: bf16 holds 8 of them exactly.
pub fn values(count: usize, seed: u32, bits: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> (32 - bits)) as f32 / (1u32 << (bits - 1)) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// x · w
pub fn dot(x: &[f32], w: &[f32]) -> f64 {
    x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum()
}

/// X Wᵀ of rows of `k` values.
pub fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f64> {
    x.chunks_exact(k).flat_map(|x| w.chunks_exact(k).map(|w| dot(x, w))).collect()
}

/// The error function by its series and, beyond 3, its limit: 2e-5 off at most.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 3.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// gain · x / sqrt(mean(x²) + 1e-5), row by row.
pub fn normalized(x: &[f64], gain: &[f32]) -> Vec<f32> {
    let of_row = |row: &[f64]| {
        let scale = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + 1e-5).sqrt();
        row.iter().zip(gain).map(|(x, gain)| (x * scale * f64::from(*gain)) as f32).collect::<Vec<_>>()
    };
    x.chunks(gain.len()).flat_map(of_row).collect()
}
