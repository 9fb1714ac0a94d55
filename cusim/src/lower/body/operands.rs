//! Operands: values, addresses and special registers as registers.

use super::super::draft::Reg;
use super::super::problem::{NO_TEXTURES, Problem};
use super::super::reach::{RESERVED_BYTES, RESERVED_NAMES};
use super::{Body, Symbol, register_bits};
use crate::exec::op::map;
use crate::exec::program::{Source, Special};
use crate::ptx::{Kind, Operand, ScalarType};

impl<'m> Body<'_, 'm> {
    /// Reads a source operand as a value of a type.
    pub fn source(&mut self, operand: &Operand<'m>, ty: ScalarType) -> Result<Reg, Problem> {
        let bits = register_bits(ty);
        match operand {
            Operand::Int(value) if bits == 1 => Ok(self.bits(u64::from(*value != 0), 1)),
            Operand::Int(value) => {
                // An integer literal for a float type would be its value, not its bits; nvcc writes none.
                if matches!(ty.kind, Kind::Float | Kind::BFloat) && *value != 0 {
                    return Err(format!("integer literal {value} where a float is needed"));
                }
                Ok(self.bits(*value, bits))
            }
            Operand::F32(value) if bits == 32 => Ok(self.bits(u64::from(*value), bits)),
            Operand::F32(value) => Ok(self.bits(f64::from(f32::from_bits(*value)).to_bits(), bits)),
            Operand::F64(value) if bits == 64 => Ok(self.bits(*value, bits)),
            Operand::F64(value) => Ok(self.bits(u64::from((f64::from_bits(*value) as f32).to_bits()), bits)),
            Operand::Not(name) if bits == 1 => {
                let reg = self.register(name)?;
                let not = self.temporary(1);
                self.push(map!(|a: bool| -> bool { !a }), vec![not], vec![reg]);
                Ok(not)
            }
            Operand::Component(name, component) => self.special(name, Some(component), bits),
            Operand::Offset(name, offset) => self.address_of(name, *offset, bits),
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Reg(reg)) => self.fit(reg, bits, name),
                Some(_) => self.address_of(name, 0, bits),
                None => self.special(name, None, bits),
            },
            operand => Err(format!("operand {operand:?} is no value")),
        }
    }

    /// A register as one of this width: wider ones are cut.
    pub(super) fn fit(&mut self, reg: Reg, bits: u32, name: &str) -> Result<Reg, Problem> {
        let have = self.regs[reg as usize].bits;
        if have == bits {
            return Ok(reg);
        }
        let run = match (have, bits) {
            (32, 16) => map!(|a: u32| -> u16 { a as u16 }),
            (64, 16) => map!(|a: u64| -> u16 { a as u16 }),
            (64, 32) => map!(|a: u64| -> u32 { a as u32 }),
            _ => return Err(format!("{name} has {have} bits where {bits} are needed")),
        };
        let cut = self.temporary(bits);
        self.push(run, vec![cut], vec![reg]);
        Ok(cut)
    }

    /// Runs an operation whose result goes to an operand: into the register itself, or through a temporary where the
    /// register is wider than the type.
    pub fn store_result(
        &mut self,
        operand: &Operand<'m>,
        ty: ScalarType,
        emit: impl FnOnce(&mut Self, Reg),
    ) -> Result<(), Problem> {
        let bits = register_bits(ty);
        let Operand::Name(name) = operand else {
            return Err(format!("operand {operand:?} cannot be written"));
        };
        if *name == "_" {
            let unused = self.temporary(bits);
            emit(self, unused);
            return Ok(());
        }
        let reg = self.register(name)?;
        let have = self.regs[reg as usize].bits;
        if have == bits {
            emit(self, reg);
            return Ok(());
        }
        let signed = ty.kind == Kind::Signed;
        let run = match (bits, have, signed) {
            (16, 32, false) => map!(|a: u16| -> u32 { u32::from(a) }),
            (16, 32, true) => map!(|a: i16| -> i32 { i32::from(a) }),
            (16, 64, false) => map!(|a: u16| -> u64 { u64::from(a) }),
            (16, 64, true) => map!(|a: i16| -> i64 { i64::from(a) }),
            (32, 64, false) => map!(|a: u32| -> u64 { u64::from(a) }),
            (32, 64, true) => map!(|a: i32| -> i64 { i64::from(a) }),
            _ => return Err(format!("{name} has {have} bits where {bits} are needed")),
        };
        let narrow = self.temporary(bits);
        emit(self, narrow);
        self.push(run, vec![reg], vec![narrow]);
        Ok(())
    }

    /// The address of a variable as a value.
    pub(super) fn address_of(&mut self, name: &str, offset: i64, bits: u32) -> Result<Reg, Problem> {
        let offset = offset as u64;
        match self.lookup(name) {
            Some(Symbol::Fixed(address)) => Ok(self.bits(address.wrapping_add(offset), bits)),
            Some(Symbol::Stack(slot)) => {
                let source = Source::Local { offset: slot.offset.wrapping_add(offset as u32) };
                Ok(self.constant(source, bits))
            }
            Some(Symbol::Param(slot)) => {
                let address = crate::machine::address::PARAM_WINDOW + u64::from(slot.offset);
                Ok(self.bits(address.wrapping_add(offset), bits))
            }
            _ => Err(format!("{name} is not declared")),
        }
    }

    /// Where the reserved part of shared memory begins and ends, its size, and where its two halves begin.
    fn reserved_shared(&self, which: &str) -> Option<u64> {
        let start = self.reached.reserved_shared?;
        Some(u64::from(match which {
            "begin" | "0" => start,
            "end" => start + RESERVED_BYTES,
            "cap" => RESERVED_BYTES,
            "1" => start + RESERVED_BYTES / 2,
            _ => return None,
        }))
    }

    /// A special register.
    pub(super) fn special(&mut self, name: &str, component: Option<&str>, bits: u32) -> Result<Reg, Problem> {
        let axis = match component {
            Some("x") => 0,
            Some("y") => 1,
            Some("z") => 2,
            None => 3,
            Some(other) => return Err(format!("{name} has no component {other}")),
        };
        let special = match (name, axis) {
            ("%tid", 0..3) => Special::Tid(axis),
            ("%ntid", 0..3) => Special::Ntid(axis),
            ("%ctaid", 0..3) => Special::Ctaid(axis),
            ("%nctaid", 0..3) => Special::Nctaid(axis),
            ("%laneid", 3) => Special::LaneId,
            ("%warpid", 3) => Special::WarpId,
            ("%nwarpid", 3) => Special::WarpCount,
            ("%smid", 3) => Special::SmId,
            ("%nsmid", 3) => Special::SmCount,
            ("%gridid", 3) => Special::GridId,
            ("%lanemask_eq", 3) => Special::MaskEqual,
            ("%lanemask_le", 3) => Special::MaskLessEqual,
            ("%lanemask_lt", 3) => Special::MaskLess,
            ("%lanemask_ge", 3) => Special::MaskGreaterEqual,
            ("%lanemask_gt", 3) => Special::MaskGreater,
            ("%dynamic_smem_size", 3) => Special::DynamicShared,
            ("%total_smem_size", 3) => Special::TotalShared,
            (name, 3) if name.starts_with(RESERVED_NAMES) => {
                let value = self.reserved_shared(&name[RESERVED_NAMES.len()..]);
                return Ok(self.bits(value.ok_or_else(|| format!("{name} is no special register"))?, bits));
            }
            ("WARP_SZ", 3) => return Ok(self.bits(32, bits)),
            ("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi", 3) => {
                let ticks = self.temporary(64);
                let is_timer = name.starts_with("%globaltimer");
                let ask = if is_timer { crate::exec::control::timer } else { crate::exec::control::clock };
                self.push(ask(), vec![ticks], vec![]);
                if name.ends_with("_hi") {
                    let high = self.temporary(64);
                    self.push(map!(|a: u64| -> u64 { a >> 32 }), vec![high], vec![ticks]);
                    return self.fit(high, bits, name);
                }
                return self.fit(ticks, bits, name);
            }
            ("%envreg1", 3) => Special::Workspace { high: true },
            ("%envreg2", 3) => Special::Workspace { high: false },
            // The other environment registers hold whatever the driver put there: nothing.
            (name, 3) if name.starts_with("%envreg") => return Ok(self.bits(0, bits)),
            _ if self.module.variables.iter().any(|variable| variable.name == name && variable.is_texture()) => {
                return Err(format!("texture {name}: {NO_TEXTURES}"));
            }
            _ => {
                return Err(format!("{name} is neither a declared name nor a special register that cusim has"));
            }
        };
        Ok(self.constant(Source::Special(special), bits))
    }
}
