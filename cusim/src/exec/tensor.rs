//! Matrix multiply-accumulate, `mma.sync` and `wmma.mma`, and matrix loads and stores.
//!
//! Products are exact and are added to the accumulator one by one in the order of k, each time rounded to nearest
//! (a fused multiply-add). Real tensor cores add several products at once with truncation, in ways that differ between
//! generations; results agree to within a few units in the last place of the largest term.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_load_si128, _mm_loadu_si128, _mm_setzero_si128, _mm_store_si128, _mm_unpackhi_epi16,
    _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    _mm256_broadcast_ss, _mm256_castsi128_si256, _mm256_fmadd_ps, _mm256_inserti128_si256, _mm256_loadu_ps,
    _mm256_permute2f128_ps, _mm256_set_m128i, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpackhi_ps, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_unpacklo_ps,
};
use std::mem::MaybeUninit;

use super::core::{Core, Lane};
use super::op::{Inst, LANES, Mask, Op, OpFn, op};
use super::site::space;
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
const MAX_PACKED: usize = 8;

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

/// `mma.sync` with `8 * BLOCKS` rows, 8 columns and `K` products. Operands, in the program's list from `ops[0]` on:
/// D, A, B, C.
struct Multiply<A, B, D, C, const BLOCKS: usize, const K: usize>(std::marker::PhantomData<(A, B, D, C)>);

impl<A, B, D, C, const BLOCKS: usize, const K: usize> Op for Multiply<A, B, D, C, BLOCKS, K>
where
    A: Element,
    B: Element<Sum = A::Sum>,
    D: Store<A::Sum>,
    C: Store<A::Sum>,
{
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering listed operands of these types; the block outlives the run of its warps.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let parts = K / (4 * A::PACKED);
            let d_count = D::PER_BLOCK * BLOCKS;
            let a_count = parts * BLOCKS;
            let program = (*core.block).launch().program;
            let list = &program.operands[inst.ops[0] as usize..];
            let (d_list, list) = list.split_at(d_count);
            let (a_list, list) = list.split_at(a_count);
            let (b_list, c_list) = list.split_at(parts);

            // B as rows of k, so that a row of D takes it eight columns at a time.
            let mut b = MaybeUninit::<[[A::Sum; 8]; K]>::uninit();
            let b_rows = b.as_mut_ptr().cast::<[A::Sum; 8]>();
            for (part, slot) in b_list.iter().enumerate() {
                let register: [B::Register; LANES] = core.get(*slot);
                for (quarter, columns) in B::turn(&register).iter().enumerate() {
                    for index in 0..B::PACKED {
                        let mut row = [A::Sum::default(); 8];
                        for column in 0..8 {
                            row[column] = B::unpack(columns[column], index);
                        }
                        b_rows.add(4 * B::PACKED * part + quarter * B::PACKED + index).write(row);
                    }
                }
            }
            // All K rows were written: each part wrote as many as its registers hold.
            let b = b.assume_init();
            let mut result = [[[A::Sum::default(); 8]; 8]; BLOCKS];
            for block in 0..BLOCKS {
                let mut sums = C::load(core, &c_list[block * C::PER_BLOCK..]);
                for part in 0..parts {
                    // Registers alternate between the blocks of eight rows; lane after lane they hold row after row.
                    let register: [A::Register; LANES] = core.get(a_list[part * BLOCKS + block]);
                    let mut a = MaybeUninit::<[A::Sum; LANES * MAX_PACKED]>::uninit();
                    let a = a.as_mut_ptr().cast::<A::Sum>();
                    for lane in 0..LANES {
                        for index in 0..A::PACKED {
                            a.add(lane * A::PACKED + index).write(A::unpack(register[lane], index));
                        }
                    }
                    let width = 4 * A::PACKED;
                    let a = std::slice::from_raw_parts(a, 8 * width);
                    A::Sum::multiply_block(&mut sums, a, &b[part * width..][..width]);
                }
                result[block] = sums;
            }
            for (block, sums) in result.iter().enumerate() {
                D::store(core, &d_list[block * D::PER_BLOCK..], sums);
            }
        }
        false
    }
}

impl Core {
    /// Whether all lanes of the warp run; raises the event that waits for them if not.
    #[inline(always)]
    pub fn whole_warp(&mut self, inst: &Inst) -> bool {
        if self.mask == Mask::MAX {
            return true;
        }
        self.partial_warp(inst)
    }

    #[cold]
    fn partial_warp(&mut self, inst: &Inst) -> bool {
        if self.mask != self.alive {
            self.raise(super::event::Event::Converge);
        } else {
            let lane = (!self.mask).trailing_zeros();
            let detail = format!("lane {lane} does not take part, but all 32 lanes must");
            self.fault(inst, super::fault::FaultKind::Divergence, lane, detail);
        }
        false
    }
}

/// A multiply with 16 or 8 rows.
macro_rules! multiply {
    ($a:ident, $b:ident, $d:ident, $c:ident, $blocks:literal, $k:literal) => {
        Some(op::<Multiply<$a, $b, $d, $c, $blocks, $k>>())
    };
}

/// Names of an `mma`: shape and the types of D, A, B and C.
pub struct Shape<'a> {
    /// Rows, columns, products.
    pub size: (u32, u32, u32),
    /// Types of D, A, B, C.
    pub types: [&'a str; 4],
    /// Whether integer sums clamp.
    pub saturate: bool,
}

/// Register counts of D, A, B and C, and whether they are 64 bits wide.
pub struct Registers {
    /// Of D, A, B, C.
    pub counts: [usize; 4],
    /// Bits of each.
    pub bits: u32,
}

/// The `mma.sync` of this shape.
pub fn multiply(shape: &Shape) -> Option<(OpFn, Registers)> {
    let [d, a, b, c] = shape.types;
    let registers = |counts| Registers { counts, bits: 32 };
    if shape.saturate && d != "s32" {
        return None;
    }
    let found = match (shape.size, d, a, b, c) {
        ((16, 8, 16), "f32", "f16", "f16", "f32") => {
            (multiply!(F16Element, F16Element, Plain, Plain, 2, 16), registers([4, 4, 2, 4]))
        }
        ((16, 8, 16), "f16", "f16", "f16", "f16") => {
            (multiply!(F16Element, F16Element, Packed, Packed, 2, 16), registers([2, 4, 2, 2]))
        }
        ((16, 8, 8), "f32", "f16", "f16", "f32") => {
            (multiply!(F16Element, F16Element, Plain, Plain, 2, 8), registers([4, 2, 1, 4]))
        }
        ((16, 8, 8), "f16", "f16", "f16", "f16") => {
            (multiply!(F16Element, F16Element, Packed, Packed, 2, 8), registers([2, 2, 1, 2]))
        }
        ((16, 8, 16), "f32", "bf16", "bf16", "f32") => {
            (multiply!(BF16Element, BF16Element, Plain, Plain, 2, 16), registers([4, 4, 2, 4]))
        }
        ((16, 8, 8), "f32", "bf16", "bf16", "f32") => {
            (multiply!(BF16Element, BF16Element, Plain, Plain, 2, 8), registers([4, 2, 1, 4]))
        }
        ((16, 8, 8), "f32", "tf32", "tf32", "f32") => {
            (multiply!(TF32Element, TF32Element, Plain, Plain, 2, 8), registers([4, 4, 2, 4]))
        }
        ((16, 8, 4), "f32", "tf32", "tf32", "f32") => {
            (multiply!(TF32Element, TF32Element, Plain, Plain, 2, 4), registers([4, 2, 1, 4]))
        }
        ((8, 8, 4), "f64", "f64", "f64", "f64") => {
            (multiply!(F64Element, F64Element, Plain, Plain, 1, 4), Registers { counts: [2, 1, 1, 2], bits: 64 })
        }
        (size, "s32", a, b, "s32") => integers(size, a, b, shape.saturate)?,
        _ => return None,
    };
    Some((found.0?, found.1))
}

fn integers(size: (u32, u32, u32), a: &str, b: &str, saturate: bool) -> Option<(Option<OpFn>, Registers)> {
    /// Picks among the four combinations of signs.
    macro_rules! signs {
        ($s:ident, $u:ident, $store:ident, $signed:literal, $unsigned:literal, $blocks:literal, $k:literal) => {
            match (a, b) {
                ($signed, $signed) => multiply!($s, $s, $store, $store, $blocks, $k),
                ($signed, $unsigned) => multiply!($s, $u, $store, $store, $blocks, $k),
                ($unsigned, $signed) => multiply!($u, $s, $store, $store, $blocks, $k),
                ($unsigned, $unsigned) => multiply!($u, $u, $store, $store, $blocks, $k),
                _ => None,
            }
        };
    }
    /// Picks between sums that wrap and sums that clamp.
    macro_rules! bytes {
        ($blocks:literal, $k:literal) => {
            if saturate {
                signs!(S8Wide, U8Wide, Clamped, "s8", "u8", $blocks, $k)
            } else {
                signs!(S8Element, U8Element, Plain, "s8", "u8", $blocks, $k)
            }
        };
    }
    /// The same for half-bytes.
    macro_rules! half_bytes {
        ($blocks:literal, $k:literal) => {
            if saturate {
                signs!(S4Wide, U4Wide, Clamped, "s4", "u4", $blocks, $k)
            } else {
                signs!(S4Element, U4Element, Plain, "s4", "u4", $blocks, $k)
            }
        };
    }
    let registers = |counts| Registers { counts, bits: 32 };
    Some(match (size, a.ends_with('8')) {
        ((16, 8, 32), true) => (bytes!(2, 32), registers([4, 4, 2, 4])),
        ((16, 8, 16), true) => (bytes!(2, 16), registers([4, 2, 1, 4])),
        ((8, 8, 16), true) => (bytes!(1, 16), registers([2, 1, 1, 2])),
        ((16, 8, 64), false) => (half_bytes!(2, 64), registers([4, 4, 2, 4])),
        ((16, 8, 32), false) => (half_bytes!(2, 32), registers([4, 2, 1, 4])),
        ((8, 8, 32), false) => (half_bytes!(1, 32), registers([2, 1, 1, 2])),
        _ => return None,
    })
}

/// Transposes eight rows of eight 16-bit values.
#[inline(always)]
fn transpose(rows: [__m128i; 8]) -> [__m128i; 8] {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe {
        let [a, b, c, d, e, f, g, h] = rows;
        // Rows two by two, four by four, then all eight interleaved.
        let (ab, cd) = (_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
        let (ef, gh) = (_mm_unpacklo_epi16(e, f), _mm_unpacklo_epi16(g, h));
        let (ab_high, cd_high) = (_mm_unpackhi_epi16(a, b), _mm_unpackhi_epi16(c, d));
        let (ef_high, gh_high) = (_mm_unpackhi_epi16(e, f), _mm_unpackhi_epi16(g, h));
        let top = [
            _mm_unpacklo_epi32(ab, cd),
            _mm_unpackhi_epi32(ab, cd),
            _mm_unpacklo_epi32(ab_high, cd_high),
            _mm_unpackhi_epi32(ab_high, cd_high),
        ];
        let bottom = [
            _mm_unpacklo_epi32(ef, gh),
            _mm_unpackhi_epi32(ef, gh),
            _mm_unpacklo_epi32(ef_high, gh_high),
            _mm_unpackhi_epi32(ef_high, gh_high),
        ];
        let mut out = rows;
        for pair in 0..4 {
            out[2 * pair] = _mm_unpacklo_epi64(top[pair], bottom[pair]);
            out[2 * pair + 1] = _mm_unpackhi_epi64(top[pair], bottom[pair]);
        }
        out
    }
}

/// `ldmatrix` of `N` matrices: `ops` are the destinations, then the address.
struct LoadMatrix<const N: usize, const TRANSPOSED: bool>;

impl<const N: usize, const TRANSPOSED: bool> Op for LoadMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction 32-bit registers and a site; `locate` checks every row.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let Some((base, rows)) = matrix_rows::<N>(core, inst, inst.ops[N], false) else {
                return true;
            };
            // Destinations may be what other matrices' addresses come from, but these were read already.
            for matrix in 0..N {
                let mut values = [_mm_setzero_si128(); 8];
                for (row, value) in values.iter_mut().enumerate() {
                    *value = _mm_load_si128(base.wrapping_add(rows[8 * matrix + row]) as *const __m128i);
                }
                if TRANSPOSED {
                    values = transpose(values);
                }
                let out = core.register::<u32>(inst.ops[matrix]).cast::<__m256i>();
                for pair in 0..4 {
                    _mm256_storeu_si256(out.add(pair), _mm256_set_m128i(values[2 * pair + 1], values[2 * pair]));
                }
            }
        }
        false
    }
}

/// `stmatrix` of `N` matrices: `ops` are the address, then the sources.
struct StoreMatrix<const N: usize, const TRANSPOSED: bool>;

impl<const N: usize, const TRANSPOSED: bool> Op for StoreMatrix<N, TRANSPOSED> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: as for loads.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let Some((base, rows)) = matrix_rows::<N>(core, inst, inst.ops[0], true) else {
                return true;
            };
            for matrix in 0..N {
                let values: [u32; LANES] = core.get(inst.ops[1 + matrix]);
                let mut rows_out = [_mm_setzero_si128(); 8];
                for (row, value) in rows_out.iter_mut().enumerate() {
                    *value = _mm_loadu_si128(values.as_ptr().add(4 * row).cast());
                }
                if TRANSPOSED {
                    rows_out = transpose(rows_out);
                }
                for (row, value) in rows_out.into_iter().enumerate() {
                    _mm_store_si128(base.wrapping_add(rows[8 * matrix + row]) as *mut __m128i, value);
                }
            }
        }
        false
    }
}

/// Checks the rows whose addresses the first `8 * N` lanes hold.
#[inline(always)]
unsafe fn matrix_rows<const N: usize>(
    core: &mut Core,
    inst: &Inst,
    slot: u32,
    write: bool,
) -> Option<(u64, [u64; LANES])> {
    let all = core.mask;
    core.mask = if N == 4 { Mask::MAX } else { (1 << (8 * N)) - 1 };
    // SAFETY: the slot is the instruction's address register.
    let (rows, located) = unsafe {
        let rows = core.addresses::<{ space::SHARED }>(slot, inst.imm);
        (rows, core.locate::<{ space::SHARED }>(inst, &rows, 16, write))
    };
    core.mask = all;
    located.map(|at| (at.base, rows))
}

/// `ldmatrix` or `stmatrix` of this many matrices.
pub fn matrix(store: bool, count: usize, transposed: bool) -> Option<OpFn> {
    Some(match (store, count, transposed) {
        (false, 1, false) => op::<LoadMatrix<1, false>>(),
        (false, 2, false) => op::<LoadMatrix<2, false>>(),
        (false, 4, false) => op::<LoadMatrix<4, false>>(),
        (false, 1, true) => op::<LoadMatrix<1, true>>(),
        (false, 2, true) => op::<LoadMatrix<2, true>>(),
        (false, 4, true) => op::<LoadMatrix<4, true>>(),
        (true, 1, false) => op::<StoreMatrix<1, false>>(),
        (true, 2, false) => op::<StoreMatrix<2, false>>(),
        (true, 4, false) => op::<StoreMatrix<4, false>>(),
        (true, 1, true) => op::<StoreMatrix<1, true>>(),
        (true, 2, true) => op::<StoreMatrix<2, true>>(),
        (true, 4, true) => op::<StoreMatrix<4, true>>(),
        _ => return None,
    })
}
