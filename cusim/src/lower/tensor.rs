//! Matrix instructions.

use super::body::Body;
use super::draft::Reg;
use super::memory::{address, direct_target};
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::fragment::Part;
use crate::exec::op::{OpFn, map};
use crate::exec::opcode::Opcode;
use crate::exec::{matrix, tensor, wmma, wmma_multiply};
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::machine::address::space;
use crate::ptx::{Kind, Operand, ScalarType, Space};

const F64: ScalarType = ScalarType { kind: Kind::Float, bits: 64 };

/// Lowers a matrix instruction.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    match opcode.base {
        "mma" => multiply(body, opcode, operands),
        "wmma" => warp_matrix(body, opcode, operands),
        "movmatrix" => transpose(body, opcode, operands),
        _ => move_matrix(body, opcode, operands),
    }
}

fn take_shape(opcode: &mut Opcode) -> Option<(u32, u32, u32)> {
    opcode.take(super::work::shape)
}

/// The registers of a fragment.
fn fragment<'a, 'm>(operand: &'a Operand<'m>) -> Result<&'a [Operand<'m>], Problem> {
    match operand {
        Operand::Vector(list) => Ok(list),
        operand => Ok(std::slice::from_ref(operand)),
    }
}

fn sources<'m>(
    body: &mut Body<'_, 'm>,
    operand: &Operand<'m>,
    count: usize,
    ty: ScalarType,
) -> Result<Vec<Reg>, Problem> {
    let list = fragment(operand)?;
    expect(list, count)?;
    list.iter().map(|operand| body.source(operand, ty)).collect()
}

/// Registers to write, and moves to make afterwards where they cannot be written directly.
fn targets<'m>(body: &mut Body<'_, 'm>, operand: &Operand<'m>, count: usize, bits: u32) -> Result<Vec<Reg>, Problem> {
    let list = fragment(operand)?;
    expect(list, count)?;
    list.iter()
        .map(|operand| match operand {
            Operand::Name("_") => Ok(body.temporary(bits)),
            operand => direct_target(body, operand, bits).ok_or_else(|| format!("{operand:?} cannot be written")),
        })
        .collect()
}

/// Adds an instruction whose operands always go to the program's list.
fn push_listed(body: &mut Body, run: OpFn, defs: Vec<Reg>, mut uses: Vec<Reg>) {
    // At least seven operands, so that they are listed whatever the shape; the surplus is never read.
    let last = uses.last().copied().unwrap_or(0);
    while defs.len() + uses.len() < 7 {
        uses.push(last);
    }
    body.push(run, defs, uses);
}

/// `mma.sync.aligned.shape.row.col{.satfinite}.d.a.b.c`.
fn multiply<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    if !opcode.flag("sync") || !opcode.flag("aligned") || !opcode.flag("row") || !opcode.flag("col") {
        return Err(UNKNOWN.into());
    }
    let size = take_shape(opcode).ok_or(UNKNOWN)?;
    let saturate = opcode.flag("satfinite");
    let types = read_types(opcode)?;
    finish(opcode)?;
    expect(operands, 4)?;
    let [d, a, b, c] = types.each_ref().map(String::as_str);
    let (run, registers) = tensor::multiply(&tensor::Shape { size, types: [d, a, b, c], saturate }).ok_or(UNKNOWN)?;
    let ty = if registers.bits == 64 { F64 } else { ScalarType::bits(32) };
    let [d_count, a_count, b_count, c_count] = registers.counts;
    let mut uses = sources(body, &operands[1], a_count, ty)?;
    uses.extend(sources(body, &operands[2], b_count, ty)?);
    uses.extend(sources(body, &operands[3], c_count, ty)?);
    let defs = targets(body, &operands[0], d_count, registers.bits)?;
    push_listed(body, run, defs, uses);
    Ok(())
}

/// The last four modifiers.
fn read_types(opcode: &mut Opcode) -> Result<[String; 4], Problem> {
    let mut types: [String; 4] = Default::default();
    for ty in &mut types {
        *ty = opcode
            .take(|word| ScalarType::parse(word).map(|_| word.to_string()))
            .ok_or("the types of D, A, B and C are missing")?;
    }
    Ok(types)
}

/// `ldmatrix` and `stmatrix`.
fn move_matrix<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let store = opcode.base == "stmatrix";
    if !opcode.flag("sync") || !opcode.flag("aligned") || !opcode.flag("m8n8") {
        return Err(UNKNOWN.into());
    }
    let count = match opcode.one_of(&["x1", "x2", "x4"]).ok_or(UNKNOWN)? {
        "x1" => 1,
        "x2" => 2,
        _ => 4,
    };
    let transposed = opcode.flag("trans");
    let named = opcode.take(Space::parse).unwrap_or(Space::Generic);
    if opcode.ty() != Some(ScalarType::bits(16)) {
        return Err(UNKNOWN.into());
    }
    finish(opcode)?;
    expect(operands, 2)?;
    let (registers, target) = if store { (&operands[1], &operands[0]) } else { (&operands[0], &operands[1]) };
    let run = matrix::transfer(store, count, transposed).ok_or(UNKNOWN)?;
    let (base, offset) = shared_address(body, target, named)?;
    let origin = body.origin;
    let aux = body.site(MemorySite {
        space: Space::Shared,
        bytes: 16,
        access: if store { AccessKind::MatrixStore } else { AccessKind::MatrixLoad },
        values: 1,
        address: if store { 0 } else { count as u8 },
        wide: false,
        meets: Meets::default(),
        lanes: if count == 4 { u32::MAX } else { (1 << (8 * count)) - 1 },
        origin,
    });
    let (defs, uses) = if store {
        let mut uses = vec![base];
        uses.extend(sources(body, registers, count, ScalarType::bits(32))?);
        (vec![], uses)
    } else {
        (targets(body, registers, count, 32)?, vec![base])
    };
    let draft = body.push(run, defs, uses);
    (draft.imm, draft.aux, draft.observed) = (offset, aux, true);
    Ok(())
}

/// `movmatrix.sync.aligned.m8n8.trans.b16 d, a`.
fn transpose<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let whole = ["sync", "aligned", "m8n8", "trans"].into_iter().all(|word| opcode.flag(word));
    if !whole || opcode.ty() != Some(ScalarType::bits(16)) {
        return Err(UNKNOWN.into());
    }
    finish(opcode)?;
    expect(operands, 2)?;
    let from = body.source(&operands[1], ScalarType::bits(32))?;
    body.store_result(&operands[0], ScalarType::bits(32), |body, dst| {
        body.push(matrix::transposition(), vec![dst], vec![from]);
    })
}

/// A shared address, from a generic one if need be.
fn shared_address<'m>(body: &mut Body<'_, 'm>, operand: &Operand<'m>, named: Space) -> Result<(Reg, u64), Problem> {
    let at = address(body, operand, named)?;
    if at.space == space::SHARED {
        return Ok((at.base, at.offset));
    }
    let narrow = body.temporary(32);
    let window = body.bits(crate::machine::address::SHARED_WINDOW, 64);
    let run = map!(|a: u64, window: u64| -> u32 {
        let offset = a.wrapping_sub(window);
        if offset > 1 << 31 { u32::MAX } else { offset as u32 }
    });
    body.push(run, vec![narrow], vec![at.base, window]);
    Ok((narrow, at.offset))
}

/// `wmma.load`, `wmma.store`, `wmma.mma`.
fn warp_matrix<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let action = opcode.one_of(&["load", "store", "mma"]).ok_or(UNKNOWN)?;
    if !opcode.flag("sync") || !opcode.flag("aligned") {
        return Err(UNKNOWN.into());
    }
    let size = take_shape(opcode).ok_or(UNKNOWN)?;
    if action == "mma" {
        return warp_multiply(body, opcode, operands, size);
    }
    let store = action == "store";
    let role = opcode.one_of(&["a", "b", "c", "d"]).ok_or(UNKNOWN)?;
    let columns = opcode.one_of(&["row", "col"]).ok_or(UNKNOWN)? == "col";
    let named = opcode.take(Space::parse).unwrap_or(Space::Generic);
    let ty = opcode.take(|word| ScalarType::parse(word).map(|_| word.to_string())).ok_or(UNKNOWN)?;
    finish(opcode)?;
    let part = Part::new(size, role, &ty).ok_or(UNKNOWN)?;
    let (target, registers, rest) = match operands {
        [target, registers, rest @ ..] if store => (target, registers, rest),
        [registers, target, rest @ ..] => (target, registers, rest),
        _ => return Err("operands are missing".into()),
    };
    let at = address(body, target, named)?;
    let stride = match rest {
        [stride] => body.source(stride, ScalarType::bits(32))?,
        [] => body.bits(u64::from(part.default_stride(columns)), 32),
        _ => return Err("too many operands".into()),
    };
    let (mut stride, mut by_column) = (stride, columns);
    if part.is_packed() {
        if columns != (role == "b") {
            return Err(UNKNOWN.into());
        }
        let words = body.temporary(32);
        body.push(map!(|stride: u32| -> u32 { stride / 8 }), vec![words], vec![stride]);
        (stride, by_column) = (words, false);
    }
    let run = wmma::transfer(store, at.space, &part, by_column).ok_or(UNKNOWN)?;
    let origin = body.origin;
    let aux = body.site(MemorySite {
        space: named,
        bytes: part.element_bytes(),
        access: if store { AccessKind::MatrixStore } else { AccessKind::MatrixLoad },
        values: 1,
        address: u8::MAX,
        wide: at.space != space::SHARED,
        meets: Meets::default(),
        lanes: u32::MAX,
        origin,
    });
    let bits = part.register_bits();
    let count = part.registers();
    let ty = if bits == 64 { F64 } else { ScalarType::bits(bits) };
    let (defs, mut uses) = if store {
        (vec![], sources(body, registers, count, ty)?)
    } else {
        (targets(body, registers, count, bits)?, vec![])
    };
    uses.extend([at.base, stride]);
    push_listed(body, run, defs, uses);
    if let Some(draft) = body.drafts.last_mut() {
        (draft.imm, draft.aux) = (at.offset, aux);
    }
    Ok(())
}

fn warp_multiply<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    size: (u32, u32, u32),
) -> Result<(), Problem> {
    // Fragments keep their place in the matrix whatever its layout in memory was.
    for _ in 0..2 {
        opcode.one_of(&["row", "col"]).ok_or(UNKNOWN)?;
    }
    let mut types = vec![];
    while let Some(ty) = opcode.take(|word| ScalarType::parse(word).map(|_| word.to_string())) {
        types.push(ty);
    }
    if types.first().is_some_and(|ty| ty == "f64") {
        opcode.flag("rn");
    }
    let clamp = opcode.flag("satfinite");
    finish(opcode)?;
    expect(operands, 4)?;
    // Half precision leaves out the types of A and B.
    let [d, a, b, c] = match &types[..] {
        [d, c] => [d.as_str(), "f16", "f16", c.as_str()],
        [d, a, b, c] => [d.as_str(), a.as_str(), b.as_str(), c.as_str()],
        _ => return Err(UNKNOWN.into()),
    };
    let part = |role, ty| Part::new(size, role, ty).ok_or(UNKNOWN);
    let parts = [part("d", d)?, part("a", a)?, part("b", b)?, part("c", c)?];
    let run = wmma_multiply::multiply([d, a, b, c], clamp).ok_or(UNKNOWN)?;
    let mut uses = vec![];
    for (operand, part) in operands[1..].iter().zip(&parts[1..]) {
        let ty = if part.register_bits() == 64 { F64 } else { ScalarType::bits(32) };
        uses.extend(sources(body, operand, part.registers(), ty)?);
    }
    let defs = targets(body, &operands[0], parts[0].registers(), parts[0].register_bits())?;
    push_listed(body, run, defs, uses);
    if let Some(draft) = body.drafts.last_mut() {
        draft.imm = u64::from(size.0) | u64::from(size.1) << 8 | u64::from(size.2) << 16;
    }
    Ok(())
}
