//! Matrix multiply-accumulate, `mma.sync` and `wmma.mma`.
//!
//! Products are exact and are added to the accumulator one by one in the order of k, each time rounded to nearest
//! (a fused multiply-add). Real tensor cores add several products at once with truncation, in ways that differ between
//! generations; results agree to within a few units in the last place of the largest term.

use std::mem::MaybeUninit;

use super::core::Core;
use super::elements::{
    Accumulator, BF16Element, Clamped, Element, F16Element, F64Element, MAX_PACKED, Packed, Plain, S4Element, S4Wide,
    S8Element, S8Wide, Store, TF32Element, U4Element, U4Wide, U8Element, U8Wide,
};
use super::op::{Inst, Op, OpFn, op};
use crate::machine::fault::FaultKind;
use crate::machine::{LANES, Mask};

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
            self.fault(inst, FaultKind::Divergence, lane, detail);
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
