//! Loads, stores and transposition of 8x8 matrices of 16-bit values, `ldmatrix`, `stmatrix` and `movmatrix`.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_load_si128, _mm_loadu_si128, _mm_setzero_si128, _mm_store_si128, _mm_unpackhi_epi16,
    _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi16, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    _mm256_set_m128i, _mm256_storeu_si256,
};

use super::core::Core;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::address::space;
use crate::machine::{LANES, Mask};

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

/// `movmatrix`: `ops` are the transposed matrix and the matrix, a row in each four lanes.
struct MoveMatrix;

impl Op for MoveMatrix {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction 32-bit registers, which hold eight rows of 16 bytes.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let from = core.register::<u32>(inst.ops[1]).cast::<__m128i>();
            let rows = transpose(std::array::from_fn(|row| _mm_load_si128(from.add(row))));
            let to = core.register::<u32>(inst.ops[0]).cast::<__m128i>();
            for (row, values) in rows.into_iter().enumerate() {
                _mm_store_si128(to.add(row), values);
            }
        }
        false
    }
}

/// `movmatrix`.
pub fn transposition() -> OpFn {
    op::<MoveMatrix>()
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
pub fn transfer(store: bool, count: usize, transposed: bool) -> Option<OpFn> {
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
