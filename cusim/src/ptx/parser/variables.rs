//! Variables, their types and what they begin with.

use super::super::ast::*;
use super::super::scanner::Number;
use super::super::{PtxError, ScalarType, Space};
use super::Parser;

impl<'a> Parser<'a> {
    /// `.align 4 .b8 a[16] = {...}, b;` after the space's name.
    pub(super) fn variables(&mut self, space: Space, is_extern: bool) -> Result<Vec<Variable<'a>>, PtxError> {
        let mut variables = vec![];
        let (ty, align, width) = self.variable_type()?;
        loop {
            let mut variable = self.declarator(space, ty, align, width)?;
            variable.is_extern = is_extern;
            if variable.is_texture() && self.scan.take(b'=') {
                // How a sampler samples.
                self.scan.expect(b'{')?;
                self.scan.skip_braces()?;
            } else if self.scan.take(b'=') {
                self.initialiser(&mut variable)?;
            }
            variables.push(variable);
            if !self.scan.take(b',') {
                break;
            }
        }
        self.scan.expect(b';')?;
        Ok(variables)
    }

    /// Type, alignment and vector width.
    pub(super) fn variable_type(&mut self) -> Result<(ScalarType, u32, u32), PtxError> {
        let (mut align, mut width) = (0, 1);
        loop {
            self.scan.expect(b'.')?;
            match self.scan.name()? {
                "align" => align = self.scan.small()?,
                "ptr" | "global" | "const" | "shared" | "local" => {}
                "v2" => width = 2,
                "v4" => width = 4,
                name => match ScalarType::parse(name) {
                    Some(ty) => {
                        let natural = ty.bytes() * width;
                        // A parameter's `.ptr .align` describes what it points to, and follows the type.
                        if self.scan.peek() == b'.' {
                            self.pointer_attributes()?;
                        }
                        if align != 0 && !align.is_power_of_two() || align > 1 << 16 {
                            return self.scan.error(format!("alignment {align} is no power of two"));
                        }
                        return Ok((ty, align.max(natural.next_power_of_two()), width));
                    }
                    None => return self.scan.error(format!("unknown type .{name}")),
                },
            }
        }
    }

    pub(super) fn pointer_attributes(&mut self) -> Result<(), PtxError> {
        while self.scan.take(b'.') {
            match self.scan.name()? {
                "align" => {
                    self.scan.integer()?;
                }
                "ptr" | "global" | "const" | "shared" | "local" => {}
                name => {
                    return self.scan.error(format!("unknown parameter attribute .{name}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn declarator(
        &mut self,
        space: Space,
        ty: ScalarType,
        align: u32,
        width: u32,
    ) -> Result<Variable<'a>, PtxError> {
        let line = self.scan.line();
        let name = self.scan.name()?;
        let mut count = u64::from(width);
        let mut is_array = width > 1;
        while self.scan.take(b'[') {
            is_array = true;
            let length = if self.scan.peek() == b']' { 0 } else { self.scan.integer()? };
            count = count.saturating_mul(length);
            self.scan.expect(b']')?;
        }
        let variable = Variable { name, space, ty, align, count, is_array, is_extern: false, init: vec![], line };
        if variable.size() > 1 << 40 {
            return self.scan.error(format!("{name} is too large"));
        }
        Ok(variable)
    }

    pub(super) fn initialiser(&mut self, variable: &mut Variable<'a>) -> Result<(), PtxError> {
        let mut depth = 0;
        loop {
            if self.scan.take(b'{') {
                depth += 1;
            } else if self.scan.take(b'}') {
                depth -= 1;
            } else if depth > 0 && self.scan.take(b',') {
                continue;
            } else {
                let item = self.init_item(variable.ty)?;
                variable.init.push(item);
            }
            if depth <= 0 {
                break;
            }
        }
        if variable.count == 0 {
            variable.count = variable.init.len() as u64;
        }
        if variable.init.len() as u64 > variable.count {
            return self.scan.error(format!("{} has more initial values than elements", variable.name));
        }
        Ok(())
    }

    pub(super) fn init_item(&mut self, ty: ScalarType) -> Result<InitItem<'a>, PtxError> {
        let next = self.scan.peek();
        if next.is_ascii_digit() || next == b'-' {
            let number = self.scan.number()?;
            // `0xFF00(symbol)` is one byte of an address.
            if let (Number::Int(mask), true) = (number, self.scan.peek() == b'(') {
                self.scan.expect(b'(')?;
                let InitItem::Address { name, offset, generic, .. } = self.init_address()? else {
                    return self.scan.error("an address is needed here");
                };
                self.scan.expect(b')')?;
                return Ok(InitItem::Address {
                    name,
                    offset,
                    generic,
                    byte_shift: Some(mask.trailing_zeros() / 8 * 8),
                });
            }
            return Ok(InitItem::Value(match (number, ty.bits) {
                (Number::Int(value), _) => value,
                (Number::F32(bits), _) => u64::from(bits),
                (Number::F64(bits), 64) => bits,
                (Number::F64(bits), _) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            }));
        }
        self.init_address()
    }

    pub(super) fn init_address(&mut self) -> Result<InitItem<'a>, PtxError> {
        let mut name = self.scan.name()?;
        let generic = name == "generic";
        if generic {
            self.scan.expect(b'(')?;
            name = self.scan.name()?;
        }
        let mut offset = self.offset()?;
        if generic {
            self.scan.expect(b')')?;
            offset = offset.wrapping_add(self.offset()?);
        }
        Ok(InitItem::Address { name, offset, generic, byte_shift: None })
    }

    /// `+4`, `-4` or nothing.
    pub(super) fn offset(&mut self) -> Result<i64, PtxError> {
        match self.scan.peek() {
            b'+' => {
                self.scan.expect(b'+')?;
                Ok(self.scan.integer()? as i64)
            }
            b'-' => Ok(self.scan.integer()? as i64),
            _ => Ok(0),
        }
    }

    /// `(.param .b32 a, ...)`
    pub(super) fn params(&mut self) -> Result<Vec<Variable<'a>>, PtxError> {
        let mut params = vec![];
        self.scan.expect(b'(')?;
        if self.scan.take(b')') {
            return Ok(params);
        }
        loop {
            self.scan.expect(b'.')?;
            match self.scan.name()? {
                "param" | "reg" => {}
                name => return self.scan.error(format!("expected .param, found .{name}")),
            }
            let (ty, align, width) = self.variable_type()?;
            params.push(self.declarator(Space::Param, ty, align, width)?);
            if !self.scan.take(b',') {
                break;
            }
        }
        self.scan.expect(b')')?;
        Ok(params)
    }
}
