//! Matrix multiply-accumulate, `mma.sync` and `wmma.mma`, and matrix loads and stores.
//!
//! Products are exact and are added to the accumulator one by one in the order of k, each time rounded to nearest
//! (a fused multiply-add). Real tensor cores add several products at once with truncation, in ways that differ between
//! generations; results agree to within a few units in the last place of the largest term.

use super::core::{Core, Lane};
use super::op::{Inst, LANES, Mask, Op, OpFn, op};
use super::site::space;
use crate::math::half::{self, BF16, F16, Half};

/// An accumulator.
pub trait Accumulator: Copy + Default + 'static {
    /// `self + a * b`.
    fn multiply_add(self, a: Self, b: Self) -> Self;
}

impl Accumulator for f32 {
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        a.mul_add(b, self)
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
    type Register: Lane;
    /// Elements per register.
    const PACKED: usize;
    /// The `index`-th element of a register.
    fn unpack(register: Self::Register, index: usize) -> Self::Sum;
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

/// Accumulators of their own width: two registers hold neighbouring columns.
pub struct Plain;

impl<S: Lane + Accumulator> Store<S> for Plain {
    const PER_BLOCK: usize = 2;

    #[inline(always)]
    unsafe fn load(core: &Core, operands: &[u32]) -> [[S; 8]; 8] {
        let mut block = [[S::default(); 8]; 8];
        // SAFETY: as for this function.
        let (even, odd): ([S; LANES], [S; LANES]) = unsafe { (core.get(operands[0]), core.get(operands[1])) };
        let flat = block.as_flattened_mut();
        for lane in 0..LANES {
            flat[2 * lane] = even[lane];
            flat[2 * lane + 1] = odd[lane];
        }
        block
    }

    #[inline(always)]
    unsafe fn store(core: &mut Core, operands: &[u32], block: &[[S; 8]; 8]) {
        let flat = block.as_flattened();
        let (mut even, mut odd) = ([S::default(); LANES], [S::default(); LANES]);
        for lane in 0..LANES {
            even[lane] = flat[2 * lane];
            odd[lane] = flat[2 * lane + 1];
        }
        // SAFETY: as for this function.
        unsafe {
            core.put::<S>(operands[0], even);
            core.put::<S>(operands[1], odd);
        }
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

            // B as rows of k, so that a row of D takes it eight columns at a time. Registers hold it column by column:
            // four lanes per column become eight columns per quarter.
            let mut b = [[A::Sum::default(); 8]; K];
            for (part, slot) in b_list.iter().enumerate() {
                let register: [B::Register; LANES] = core.get(*slot);
                let mut turned = register;
                for lane in 0..LANES {
                    turned[lane] = register[lane % 8 * 4 + lane / 8];
                }
                for quarter in 0..4 {
                    for index in 0..B::PACKED {
                        let row = &mut b[4 * B::PACKED * part + quarter * B::PACKED + index];
                        for column in 0..8 {
                            row[column] = B::unpack(turned[quarter * 8 + column], index);
                        }
                    }
                }
            }
            let mut result = [[[A::Sum::default(); 8]; 8]; BLOCKS];
            for block in 0..BLOCKS {
                let mut sums = C::load(core, &c_list[block * C::PER_BLOCK..]);
                for part in 0..parts {
                    // Registers alternate between the blocks of eight rows, and hold four lanes' elements per row.
                    let register: [A::Register; LANES] = core.get(a_list[part * BLOCKS + block]);
                    // Lane after lane these are rows of the block; at most eight elements are packed into a register.
                    let mut a = [[A::Sum::default(); 4 * MAX_PACKED]; 8];
                    let flat = a.as_flattened_mut();
                    for lane in 0..LANES {
                        for index in 0..A::PACKED {
                            flat[lane / 4 * 4 * MAX_PACKED + lane % 4 * A::PACKED + index] =
                                A::unpack(register[lane], index);
                        }
                    }
                    for product in 0..4 * A::PACKED {
                        let b = &b[4 * A::PACKED * part + product];
                        for row in 0..8 {
                            for column in 0..8 {
                                sums[row][column] = sums[row][column].multiply_add(a[row][product], b[column]);
                            }
                        }
                    }
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
            let mut out = [[0u32; LANES]; N];
            for matrix in 0..N {
                let rows: [*const u16; 8] =
                    std::array::from_fn(|row| base.wrapping_add(rows[8 * matrix + row]) as *const u16);
                for lane in 0..LANES {
                    let (major, minor) = (lane / 4, lane % 4 * 2);
                    out[matrix][lane] = if TRANSPOSED {
                        u32::from(rows[minor].add(major).read()) | u32::from(rows[minor + 1].add(major).read()) << 16
                    } else {
                        rows[major].add(minor).cast::<u32>().read()
                    };
                }
            }
            for matrix in 0..N {
                core.put(inst.ops[matrix], out[matrix]);
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
                let row = |row: usize| base.wrapping_add(rows[8 * matrix + row]) as *mut u16;
                for lane in 0..LANES {
                    let (major, minor) = (lane / 4, lane % 4 * 2);
                    let (low, high) = (values[lane] as u16, (values[lane] >> 16) as u16);
                    if TRANSPOSED {
                        row(minor).add(major).write(low);
                        row(minor + 1).add(major).write(high);
                    } else {
                        row(major).add(minor).write(low);
                        row(major).add(minor + 1).write(high);
                    }
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
