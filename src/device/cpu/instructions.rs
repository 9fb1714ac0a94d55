//! Instructions that this processor has beyond those that `simd!` picks by itself.

/// Whether it multiplies pairs of bf16 (AVX-512 BF16).
#[cfg(target_arch = "x86_64")]
pub fn has_bf16() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Whether it widens and multiplies sixteen floats at a time (AVX-512).
#[cfg(target_arch = "x86_64")]
pub fn has_floats() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Whether it multiplies fours of 8-bit integers (AVX-512 VNNI).
#[cfg(target_arch = "x86_64")]
pub fn has_integers() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
}

/// Whether it widens and multiplies sixteen floats at a time.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_floats() -> bool {
    false
}

/// Whether it multiplies pairs of bf16.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_bf16() -> bool {
    false
}

/// Whether it multiplies fours of 8-bit integers.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_integers() -> bool {
    false
}
