//! `wmma.mma`, on fragments as `wmma` loads them.

use super::core::{Core, Lane};
use super::elements::{
    Accumulator, BF16Element, Element, F16Element, F64Element, MAX_PACKED, S4Element, S4Wide, S8Element, S8Wide,
    TF32Element, U4Element, U4Wide, U8Element, U8Wide,
};
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::math::half::{self, F16, Half};

/// How C and D are stored.
trait Sums<S> {
    const PER_REGISTER: usize;
    type Register: Lane + Default;
    fn unpack(register: Self::Register, index: usize) -> S;
    fn pack(values: &[S]) -> Self::Register;
}

/// One per register.
struct Single;
/// Two halves per register.
struct Halves;
/// 32-bit integers that clamp, `.satfinite`.
struct Clamped;

impl Sums<i64> for Clamped {
    const PER_REGISTER: usize = 1;
    type Register = i32;
    fn unpack(register: i32, _index: usize) -> i64 {
        register.into()
    }
    fn pack(values: &[i64]) -> i32 {
        values[0].clamp(i32::MIN.into(), i32::MAX.into()) as i32
    }
}

impl<S: Lane + Accumulator> Sums<S> for Single {
    const PER_REGISTER: usize = 1;
    type Register = S;
    fn unpack(register: S, _index: usize) -> S {
        register
    }
    fn pack(values: &[S]) -> S {
        values[0]
    }
}

impl Sums<f32> for Halves {
    const PER_REGISTER: usize = 2;
    type Register = u32;
    fn unpack(register: u32, index: usize) -> f32 {
        F16::widen((register >> (16 * index)) as u16)
    }
    fn pack(values: &[f32]) -> u32 {
        u32::from(half::narrow::<F16>(values[0])) | u32::from(half::narrow::<F16>(values[1])) << 16
    }
}

/// `wmma.mma`; the immediate holds m, n and k in a byte each.
struct Multiply<E, D, C, const DOUBLED: bool>(std::marker::PhantomData<(E, D, C)>);

impl<E, D, C, const DOUBLED: bool> Op for Multiply<E, D, C, DOUBLED>
where
    E: Element,
    D: Sums<E::Sum> + 'static,
    C: Sums<E::Sum> + 'static,
{
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let [m, n, k] = [0, 8, 16].map(|shift| (inst.imm >> shift & 0xff) as usize);
        // SAFETY: lowering listed operands of these types.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let program = (*core.block).launch().program;
            let list = &program.operands[inst.ops[0] as usize..];
            let count = |elements: usize| {
                if DOUBLED { 8 } else { (elements / 32).div_ceil(E::PACKED) }
            };
            let (d_list, list) = list.split_at(m * n / 32 / D::PER_REGISTER);
            let (a_list, list) = list.split_at(count(m * k));
            let (b_list, c_list) = list.split_at(count(k * n));
            let mut a = [E::Sum::default(); MAX_ELEMENTS];
            let mut b = a;
            read_elements::<E>(core, a_list, &mut a[..m * k]);
            read_elements::<E>(core, b_list, &mut b[..k * n]);
            if E::PACKED == MAX_PACKED {
                // Half-bytes lie column by column.
                let columns = b;
                (0..k * n).for_each(|at| b[at] = columns[at % n * k + at / n]);
            }
            let per_lane = m * n / 32;
            let mut sums = [E::Sum::default(); MAX_ELEMENTS];
            for (register, slot) in c_list[..per_lane / C::PER_REGISTER].iter().enumerate() {
                let values: [C::Register; LANES] = core.get(*slot);
                for (lane, value) in values.iter().enumerate() {
                    for index in 0..C::PER_REGISTER {
                        sums[lane * per_lane + register * C::PER_REGISTER + index] = C::unpack(*value, index);
                    }
                }
            }
            // Eight columns at a time, of which eight rows at a time: every shape has multiples of these.
            for first in (0..n).step_by(8) {
                let mut columns = [[E::Sum::default(); 8]; MAX_PRODUCTS];
                for (product, row) in columns[..k].iter_mut().enumerate() {
                    row.copy_from_slice(&b[product * n + first..][..8]);
                }
                for (eight, a) in a[..m * k].chunks_exact(8 * k).enumerate() {
                    let at = |row: usize| (8 * eight + row) * n + first;
                    let mut block = [[E::Sum::default(); 8]; 8];
                    for (row, sum) in block.iter_mut().enumerate() {
                        sum.copy_from_slice(&sums[at(row)..][..8]);
                    }
                    E::Sum::multiply_block(&mut block, a, &columns[..k]);
                    for (row, sum) in block.iter().enumerate() {
                        sums[at(row)..][..8].copy_from_slice(sum);
                    }
                }
            }
            for (register, slot) in d_list.iter().enumerate() {
                let values: [D::Register; LANES] = std::array::from_fn(|lane| {
                    let first = lane * per_lane + register * D::PER_REGISTER;
                    D::pack(&sums[first..first + D::PER_REGISTER])
                });
                core.put(*slot, values);
            }
        }
        false
    }
}

/// The most elements that a matrix has, and the most products that a sum has.
const MAX_ELEMENTS: usize = 512;
const MAX_PRODUCTS: usize = 32;

/// Reads the elements of A or B, row by row.
#[inline(always)]
unsafe fn read_elements<E: Element>(core: &Core, list: &[u32], out: &mut [E::Sum]) {
    let per_lane = out.len() / 32;
    for (register, slot) in list.iter().enumerate() {
        // SAFETY: the caller lists registers of this type.
        let values: [E::Register; LANES] = unsafe { core.get(*slot) };
        for index in 0..E::PACKED {
            let slot = register * E::PACKED + index;
            if slot < per_lane {
                for (lane, value) in values.iter().enumerate() {
                    out[lane * per_lane + slot] = E::unpack(*value, index);
                }
            }
        }
    }
}

/// The multiply of fragments of these types; `clamp` integers that leave their range.
pub fn multiply(types: [&str; 4], clamp: bool) -> Option<OpFn> {
    if clamp {
        return Some(match types {
            ["s32", "s8", "s8", "s32"] => op::<Multiply<S8Wide, Clamped, Clamped, false>>(),
            ["s32", "u8", "u8", "s32"] => op::<Multiply<U8Wide, Clamped, Clamped, false>>(),
            ["s32", "s4", "s4", "s32"] => op::<Multiply<S4Wide, Clamped, Clamped, false>>(),
            ["s32", "u4", "u4", "s32"] => op::<Multiply<U4Wide, Clamped, Clamped, false>>(),
            _ => return None,
        });
    }
    Some(match types {
        ["f32", "f16", "f16", "f32"] => op::<Multiply<F16Element, Single, Single, true>>(),
        ["f32", "f16", "f16", "f16"] => op::<Multiply<F16Element, Single, Halves, true>>(),
        ["f16", "f16", "f16", "f32"] => op::<Multiply<F16Element, Halves, Single, true>>(),
        ["f16", "f16", "f16", "f16"] => op::<Multiply<F16Element, Halves, Halves, true>>(),
        ["f32", "bf16", "bf16", "f32"] => op::<Multiply<BF16Element, Single, Single, false>>(),
        ["f32", "tf32", "tf32", "f32"] => op::<Multiply<TF32Element, Single, Single, false>>(),
        ["f64", "f64", "f64", "f64"] => op::<Multiply<F64Element, Single, Single, false>>(),
        ["s32", "s8", "s8", "s32"] => op::<Multiply<S8Element, Single, Single, false>>(),
        ["s32", "u8", "u8", "s32"] => op::<Multiply<U8Element, Single, Single, false>>(),
        ["s32", "s4", "s4", "s32"] => op::<Multiply<S4Element, Single, Single, false>>(),
        ["s32", "u4", "u4", "s32"] => op::<Multiply<U4Element, Single, Single, false>>(),
        _ => return None,
    })
}
