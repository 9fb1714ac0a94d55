//! What matrices are made of: types of elements and of sums, and how registers hold them.

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm256_broadcast_ss, _mm256_castsi128_si256, _mm256_fmadd_ps, _mm256_inserti128_si256,
    _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpackhi_ps, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_unpacklo_ps,
};

use super::core::{Core, Lane};
use crate::machine::LANES;
use crate::math::half::{self, BF16, F16, Half};

/// An accumulator.
pub trait Accumulator: Copy + Default + 'static {
    /// `self + a * b`.
    fn multiply_add(self, a: Self, b: Self) -> Self;

    /// Adds the product of eight rows of A, which follow each other, and `B`, of which each row has eight columns.
    ///
    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[inline(always)]
    unsafe fn multiply_block(sums: &mut [[Self; 8]; 8], a: &[Self], b: &[[Self; 8]]) {
        for (sums, a) in sums.iter_mut().zip(a.chunks_exact(b.len())) {
            for (a, b) in a.iter().zip(b) {
                for column in 0..8 {
                    sums[column] = sums[column].multiply_add(*a, b[column]);
                }
            }
        }
    }
}

impl Accumulator for f32 {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        a.mul_add(b, self)
    }

    #[inline(always)]
    unsafe fn multiply_block(sums: &mut [[Self; 8]; 8], a: &[Self], b: &[[Self; 8]]) {
        // From memory, for all that the compiler knows: broadcasts from there are free, unlike those from registers.
        let factors = std::hint::black_box(a.as_ptr());
        let width = a.len() / 8;
        // SAFETY: operations run only where the processor has these features; the pointers are those of slices that
        // hold eight rows.
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (row, sums) in rows.iter_mut().zip(sums.iter()) {
                *row = _mm256_loadu_ps(sums.as_ptr());
            }
            for (product, b) in b.iter().enumerate() {
                let columns = _mm256_loadu_ps(b.as_ptr());
                for (row, sum) in rows.iter_mut().enumerate() {
                    let factor = _mm256_broadcast_ss(&*factors.add(row * width + product));
                    *sum = _mm256_fmadd_ps(factor, columns, *sum);
                }
            }
            for (sums, row) in sums.iter_mut().zip(rows) {
                _mm256_storeu_ps(sums.as_mut_ptr(), row);
            }
        }
    }
}

impl Accumulator for f64 {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        a.mul_add(b, self)
    }
}

impl Accumulator for i32 {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// The most elements that a register holds.
pub const MAX_PACKED: usize = 8;

impl Accumulator for i64 {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}

/// An element type of A and B, packed into registers.
pub trait Element: 'static {
    /// What products are added up in.
    type Sum: Accumulator;
    /// The register.
    type Register: Lane + Default;
    /// Elements per register.
    const PACKED: usize;
    /// Four lanes for each of eight columns become eight columns for each of four lanes.
    fn turn(register: &[Self::Register; LANES]) -> [[Self::Register; 8]; 4];
    /// The `index`-th element of a register.
    fn unpack(register: Self::Register, index: usize) -> Self::Sum;
}

/// Transposes eight rows of four.
#[inline(always)]
fn turn<T: Copy + Default>(rows: &[T; LANES]) -> [[T; 8]; 4] {
    let mut out = [[T::default(); 8]; 4];
    if size_of::<T>() == 4 {
        // SAFETY: operations run only where the processor has AVX2; both arrays hold 32 values of four bytes.
        unsafe {
            let row = |index: usize| rows.as_ptr().add(4 * index).cast::<__m128i>();
            let pair = |low: usize| {
                let both = _mm256_castsi128_si256(_mm_loadu_si128(row(low)));
                _mm256_inserti128_si256::<1>(both, _mm_loadu_si128(row(low + 4)))
            };
            let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            let turned = [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ];
            for (out, turned) in out.iter_mut().zip(turned) {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), turned);
            }
        }
        return out;
    }
    for lane in 0..LANES {
        out[lane % 4][lane / 4] = rows[lane];
    }
    out
}

macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident: $sum:ty, $register:ty, $packed:literal, |$r:ident, $i:ident| $e:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Element for $name {
            type Sum = $sum;
            type Register = $register;
            const PACKED: usize = $packed;
            #[inline(always)]
            fn turn(register: &[$register; LANES]) -> [[$register; 8]; 4] {
                turn(register)
            }
            #[inline(always)]
            fn unpack($r: $register, $i: usize) -> $sum {
                let _ = $i;
                $e
            }
        }
    )*};
}

elements! {
    /// Half precision.
    F16Element: f32, u32, 2, |r, i| F16::widen((r >> (16 * i)) as u16);
    /// bfloat16.
    BF16Element: f32, u32, 2, |r, i| BF16::widen((r >> (16 * i)) as u16);
    /// f32 with ten bits of fraction; the rest is ignored.
    TF32Element: f32, u32, 1, |r, i| f32::from_bits(r & 0xffff_e000);
    /// f64.
    F64Element: f64, f64, 1, |r, i| r;
    /// Signed bytes.
    S8Element: i32, u32, 4, |r, i| i32::from((r >> (8 * i)) as i8);
    /// Unsigned bytes.
    U8Element: i32, u32, 4, |r, i| i32::from((r >> (8 * i)) as u8);
    /// Signed half-bytes.
    S4Element: i32, u32, 8, |r, i| (r << (28 - 4 * i)) as i32 >> 28;
    /// Unsigned half-bytes.
    U4Element: i32, u32, 8, |r, i| (r >> (4 * i) & 15) as i32;
    /// Signed bytes whose products are added up in 64 bits, to be clamped in the end.
    S8Wide: i64, u32, 4, |r, i| i64::from((r >> (8 * i)) as i8);
    /// Unsigned bytes, likewise.
    U8Wide: i64, u32, 4, |r, i| i64::from((r >> (8 * i)) as u8);
    /// Signed half-bytes, likewise.
    S4Wide: i64, u32, 8, |r, i| i64::from((r << (28 - 4 * i)) as i32 >> 28);
    /// Unsigned half-bytes, likewise.
    U4Wide: i64, u32, 8, |r, i| i64::from(r >> (4 * i) & 15);
}

/// How accumulators are stored in registers.
pub trait Store<S>: 'static {
    /// Registers for 8 rows.
    const PER_BLOCK: usize;
    /// Reads the 8x8 block of accumulators that begins at register `first`.
    ///
    /// # Safety
    /// The operands must be registers of the right width.
    unsafe fn load(core: &Core, operands: &[u32]) -> [[S; 8]; 8];
    /// Writes it.
    ///
    /// # Safety
    /// As for loads.
    unsafe fn store(core: &mut Core, operands: &[u32], block: &[[S; 8]; 8]);
}

/// Values at even places from one register, at odd ones from another.
#[inline(always)]
fn interleave<S: Copy>(even: &[S; LANES], odd: &[S; LANES], flat: &mut [S]) {
    assert!(flat.len() == 2 * LANES);
    if size_of::<S>() == 4 {
        for eight in 0..LANES / 8 {
            // SAFETY: operations run only where the processor has AVX2; the slices hold the 8 and 16 values of four
            // bytes that are read and written here.
            unsafe {
                let even = _mm256_loadu_ps(even.as_ptr().add(8 * eight).cast());
                let odd = _mm256_loadu_ps(odd.as_ptr().add(8 * eight).cast());
                let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
                let out = flat.as_mut_ptr().add(16 * eight).cast::<f32>();
                _mm256_storeu_ps(out, _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(out.add(8), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
        return;
    }
    for lane in 0..LANES {
        flat[2 * lane] = even[lane];
        flat[2 * lane + 1] = odd[lane];
    }
}

/// The reverse of [`interleave`].
///
/// # Safety
/// `even` and `odd` must be valid for writes.
#[inline(always)]
unsafe fn part<S: Copy>(flat: &[S], even: *mut [S; LANES], odd: *mut [S; LANES]) {
    let (even, odd) = (even.cast::<S>(), odd.cast::<S>());
    assert!(flat.len() == 2 * LANES);
    if size_of::<S>() == 4 {
        for eight in 0..LANES / 8 {
            // SAFETY: as for `interleave`.
            unsafe {
                let from = flat.as_ptr().add(16 * eight).cast::<f32>();
                let (first, second) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
                let low = _mm256_permute2f128_ps::<0x20>(first, second);
                let high = _mm256_permute2f128_ps::<0x31>(first, second);
                _mm256_storeu_ps(even.add(8 * eight).cast(), _mm256_shuffle_ps::<0x88>(low, high));
                _mm256_storeu_ps(odd.add(8 * eight).cast(), _mm256_shuffle_ps::<0xdd>(low, high));
            }
        }
        return;
    }
    for lane in 0..LANES {
        // SAFETY: as for this function.
        unsafe {
            even.add(lane).write(flat[2 * lane]);
            odd.add(lane).write(flat[2 * lane + 1]);
        }
    }
}

/// Accumulators of their own width: two registers hold neighbouring columns.
pub struct Plain;

impl<S: Lane + Accumulator> Store<S> for Plain {
    const PER_BLOCK: usize = 2;

    #[inline(always)]
    unsafe fn load(core: &Core, operands: &[u32]) -> [[S; 8]; 8] {
        let mut block = [[S::default(); 8]; 8];
        // SAFETY: as for this function; nothing writes registers meanwhile.
        let (even, odd) = unsafe { (&*core.register(operands[0]), &*core.register(operands[1])) };
        interleave(even, odd, block.as_flattened_mut());
        block
    }

    #[inline(always)]
    unsafe fn store(core: &mut Core, operands: &[u32], block: &[[S; 8]; 8]) {
        // SAFETY: as for this function; the whole warp runs.
        unsafe { part(block.as_flattened(), core.register(operands[0]), core.register(operands[1])) };
    }
}

/// 32-bit accumulators that clamp, `.satfinite`.
pub struct Clamped;

impl Store<i64> for Clamped {
    const PER_BLOCK: usize = 2;

    #[inline(always)]
    unsafe fn load(core: &Core, operands: &[u32]) -> [[i64; 8]; 8] {
        // SAFETY: as for this function.
        let narrow: [[i32; 8]; 8] = unsafe { Plain::load(core, operands) };
        narrow.map(|row| row.map(i64::from))
    }

    #[inline(always)]
    unsafe fn store(core: &mut Core, operands: &[u32], block: &[[i64; 8]; 8]) {
        let clamp = |sum: i64| sum.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        // SAFETY: as for this function.
        unsafe { Plain::store(core, operands, &block.map(|row| row.map(clamp))) };
    }
}

/// Half-precision accumulators, two in a register.
pub struct Packed;

impl Store<f32> for Packed {
    const PER_BLOCK: usize = 1;

    #[inline(always)]
    unsafe fn load(core: &Core, operands: &[u32]) -> [[f32; 8]; 8] {
        let mut block = [[0.0; 8]; 8];
        // SAFETY: as for this function.
        let pairs: [u32; LANES] = unsafe { core.get(operands[0]) };
        for lane in 0..LANES {
            block[lane / 4][lane % 4 * 2] = F16::widen(pairs[lane] as u16);
            block[lane / 4][lane % 4 * 2 + 1] = F16::widen((pairs[lane] >> 16) as u16);
        }
        block
    }

    #[inline(always)]
    unsafe fn store(core: &mut Core, operands: &[u32], block: &[[f32; 8]; 8]) {
        let pairs = std::array::from_fn(|lane| {
            let low = half::narrow::<F16>(block[lane / 4][lane % 4 * 2]);
            let high = half::narrow::<F16>(block[lane / 4][lane % 4 * 2 + 1]);
            u32::from(low) | u32::from(high) << 16
        });
        // SAFETY: as for this function.
        unsafe { core.put::<u32>(operands[0], pairs) };
    }
}
