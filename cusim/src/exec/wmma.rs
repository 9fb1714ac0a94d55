//! `wmma`: fragments whose layout is the implementation's own.
//!
//! Element `e` of a fragment, counted row by row, is slot `e % n` of lane `e / n`, with `n` elements per lane. Half
//! precision's A and B hold every element twice, as their registers have room for it. Half-bytes are moved by words, B's
//! column by column.

use super::core::{Core, Lane};
use super::elements::{
    Accumulator, BF16Element, Element, F16Element, F64Element, MAX_PACKED, S4Element, S4Wide, S8Element, S8Wide,
    TF32Element, U4Element, U4Wide, U8Element, U8Wide,
};
use super::fragment::Part;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::machine::address::space;
use crate::machine::fault::{Access, Fault, FaultKind};
use crate::math::half::{self, F16, Half};
use crate::ptx::Space;

/// `wmma.load` and `wmma.store`: operands, in the program's list, are the fragment, the address and the stride.
struct Transfer<
    R,
    const STORE: bool,
    const SPACE: u8,
    const BITS: u32,
    const ROWS: usize,
    const COLUMNS: usize,
    const BY_COLUMN: bool,
    const DOUBLED: bool,
>(std::marker::PhantomData<R>);

impl<
    R,
    const STORE: bool,
    const SPACE: u8,
    const BITS: u32,
    const ROWS: usize,
    const COLUMNS: usize,
    const BY_COLUMN: bool,
    const DOUBLED: bool,
> Op for Transfer<R, STORE, SPACE, BITS, ROWS, COLUMNS, BY_COLUMN, DOUBLED>
where
    R: Lane + Default + Into<u64> + TryFrom<u64>,
{
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let per_lane = ROWS * COLUMNS / 32;
        let per_register = size_of::<R>() * 8 / BITS as usize;
        let slots = if DOUBLED { 16 } else { per_lane };
        let registers = slots / per_register;
        let bytes = u64::from(BITS / 8);
        // SAFETY: lowering listed operands of these types; every element's address is checked.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let program = (*core.block).launch().program;
            let list = &program.operands[inst.ops[0] as usize..];
            let addresses = core.addresses::<SPACE>(list[registers], inst.imm);
            let strides: [u32; LANES] = core.get(list[registers + 1]);
            let mut values = [[0u64; LANES]; 16];
            if STORE {
                for register in 0..registers {
                    let pattern: [R; LANES] = core.get(list[register]);
                    for lane in 0..LANES {
                        values[register][lane] = pattern[lane].into();
                    }
                }
            }
            let mut observed = vec![];
            for slot in 0..slots {
                let mut at = [0; LANES];
                for lane in 0..LANES {
                    let element = (lane * per_lane + slot % per_lane) as u64;
                    let (row, column) = (element / COLUMNS as u64, element % COLUMNS as u64);
                    let stride = u64::from(strides[lane]);
                    let index = if BY_COLUMN { column * stride + row } else { row * stride + column };
                    let address = addresses[lane].wrapping_add(index * bytes);
                    at[lane] = address;
                    let Some(host) = core.checked::<SPACE>(lane, address, bytes, STORE) else {
                        return refuse::<SPACE>(core, inst, lane, address, bytes as u32, STORE);
                    };
                    let shift = (slot % per_register) as u32 * BITS;
                    let register = &mut values[slot / per_register][lane];
                    if STORE {
                        write_bits(host, *register >> shift, BITS);
                    } else {
                        *register |= read_bits(host, BITS) << shift;
                    }
                }
                observed.push(at);
            }
            if !STORE {
                for register in 0..registers {
                    let pattern: [R; LANES] = values[register].map(|value| R::try_from(value).unwrap_or_default());
                    core.put(list[register], pattern);
                }
            }
            core.observe_elements(inst, &observed);
        }
        false
    }
}

unsafe fn read_bits(host: u64, bits: u32) -> u64 {
    // SAFETY: the caller checked the address for this many bits.
    unsafe {
        match bits {
            8 => u64::from(*(host as *const u8)),
            16 => u64::from(*(host as *const u16)),
            32 => u64::from(*(host as *const u32)),
            _ => *(host as *const u64),
        }
    }
}

unsafe fn write_bits(host: u64, value: u64, bits: u32) {
    // SAFETY: the caller checked the address for this many bits.
    unsafe {
        match bits {
            8 => *(host as *mut u8) = value as u8,
            16 => *(host as *mut u16) = value as u16,
            32 => *(host as *mut u32) = value as u32,
            _ => *(host as *mut u64) = value,
        }
    }
}

#[cold]
fn refuse<const SPACE: u8>(core: &mut Core, inst: &Inst, lane: usize, address: u64, bytes: u32, write: bool) -> bool {
    let space = match SPACE {
        space::SHARED => Space::Shared,
        space::GLOBAL => Space::Global,
        _ => Space::Generic,
    };
    let misaligned = !address.is_multiple_of(u64::from(bytes));
    let kind = if misaligned { FaultKind::Misaligned } else { FaultKind::OutOfBounds };
    core.raise(super::event::Event::Fault(Box::new(Fault {
        kind,
        origin: inst.origin,
        lane: lane as u32,
        block: 0,
        access: Some(Access { address, bytes, space, write }),
        detail: "an element of the matrix lies outside of memory".into(),
    })))
}

/// The load or store of a fragment.
pub fn transfer(store: bool, space: u8, part: &Part, by_column: bool) -> Option<OpFn> {
    macro_rules! spaces {
        ($r:ty, $store:literal, $bits:literal, $rows:literal, $columns:literal, $by_column:literal, $doubled:literal) => {
            match space {
                space::GLOBAL => {
                    op::<Transfer<$r, $store, { space::GLOBAL }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                space::SHARED => {
                    op::<Transfer<$r, $store, { space::SHARED }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                space::GENERIC => {
                    op::<Transfer<$r, $store, { space::GENERIC }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                _ => return None,
            }
        };
    }
    macro_rules! kinds {
        ($r:ty, $bits:literal, $rows:literal, $columns:literal, $doubled:literal) => {
            match (store, by_column) {
                (false, false) => spaces!($r, false, $bits, $rows, $columns, false, $doubled),
                (false, true) => spaces!($r, false, $bits, $rows, $columns, true, $doubled),
                (true, false) => spaces!($r, true, $bits, $rows, $columns, false, $doubled),
                (true, true) => spaces!($r, true, $bits, $rows, $columns, true, $doubled),
            }
        };
    }
    Some(match (part.bits, part.rows, part.columns, part.doubled) {
        (16, 16, 16, true) => kinds!(u32, 16, 16, 16, true),
        (16, 32, 16, true) => kinds!(u32, 16, 32, 16, true),
        (16, 16, 8, true) => kinds!(u32, 16, 16, 8, true),
        (16, 8, 16, true) => kinds!(u32, 16, 8, 16, true),
        (16, 16, 32, true) => kinds!(u32, 16, 16, 32, true),
        (16, 16, 16, false) => kinds!(u32, 16, 16, 16, false),
        (16, 32, 16, false) => kinds!(u32, 16, 32, 16, false),
        (16, 16, 8, false) => kinds!(u32, 16, 16, 8, false),
        (16, 8, 16, false) => kinds!(u32, 16, 8, 16, false),
        (16, 16, 32, false) => kinds!(u32, 16, 16, 32, false),
        (16, 32, 8, false) => kinds!(u32, 16, 32, 8, false),
        (16, 8, 32, false) => kinds!(u32, 16, 8, 32, false),
        (32, 8, 8, _) => kinds!(u32, 32, 8, 8, false),
        (32, 8, 4, _) => kinds!(u32, 32, 8, 4, false),
        (32, 16, 16, _) => kinds!(u32, 32, 16, 16, false),
        (32, 32, 8, _) => kinds!(u32, 32, 32, 8, false),
        (32, 8, 32, _) => kinds!(u32, 32, 8, 32, false),
        (32, 16, 8, _) => kinds!(u32, 32, 16, 8, false),
        (32, 8, 16, _) => kinds!(u32, 32, 8, 16, false),
        (8, 16, 16, _) => kinds!(u32, 8, 16, 16, false),
        (8, 32, 16, _) => kinds!(u32, 8, 32, 16, false),
        (8, 16, 8, _) => kinds!(u32, 8, 16, 8, false),
        (8, 8, 16, _) => kinds!(u32, 8, 8, 16, false),
        (8, 16, 32, _) => kinds!(u32, 8, 16, 32, false),
        (64, 8, 8, _) => kinds!(u64, 64, 8, 8, false),
        (64, 8, 4, _) => kinds!(u64, 64, 8, 4, false),
        (64, 4, 8, _) => kinds!(u64, 64, 4, 8, false),
        _ => return None,
    })
}

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
            let a = elements::<E>(core, a_list, m * k);
            let mut b = elements::<E>(core, b_list, k * n);
            if E::PACKED == MAX_PACKED {
                // Half-bytes lie column by column.
                b = (0..k * n).map(|at| b[at % n * k + at / n]).collect();
            }
            let per_lane = m * n / 32;
            let mut sums = vec![E::Sum::default(); m * n];
            for (register, slot) in c_list[..per_lane / C::PER_REGISTER].iter().enumerate() {
                let values: [C::Register; LANES] = core.get(*slot);
                for (lane, value) in values.iter().enumerate() {
                    for index in 0..C::PER_REGISTER {
                        sums[lane * per_lane + register * C::PER_REGISTER + index] = C::unpack(*value, index);
                    }
                }
            }
            for row in 0..m {
                for product in 0..k {
                    let factor = a[row * k + product];
                    for column in 0..n {
                        let sum = &mut sums[row * n + column];
                        *sum = sum.multiply_add(factor, b[product * n + column]);
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

/// The elements of A or B, row by row.
unsafe fn elements<E: Element>(core: &Core, list: &[u32], count: usize) -> Vec<E::Sum> {
    let per_lane = count / 32;
    let mut out = vec![E::Sum::default(); count];
    for (register, slot) in list.iter().enumerate() {
        // SAFETY: the caller lists registers of this type.
        let values: [E::Register; LANES] = unsafe { core.get(*slot) };
        for (lane, value) in values.iter().enumerate() {
            for index in 0..E::PACKED {
                let slot = register * E::PACKED + index;
                if slot < per_lane {
                    out[lane * per_lane + slot] = E::unpack(*value, index);
                }
            }
        }
    }
    out
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
