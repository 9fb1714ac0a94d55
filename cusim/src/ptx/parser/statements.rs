//! What functions consist of: directives, labels, instructions and their operands.

use super::super::ast::*;
use super::super::scanner::Number;
use super::super::{PtxError, Space};
use super::{MAX_INLINED, MAX_NESTING, Parser};

impl<'a> Parser<'a> {
    /// Statements up to the closing brace of the function.
    pub(super) fn body(&mut self) -> Result<Vec<Statement<'a>>, PtxError> {
        let mut body = vec![];
        let mut depth = 0u32;
        loop {
            match self.scan.peek() {
                b'}' => {
                    self.scan.expect(b'}')?;
                    if depth == 0 {
                        return Ok(body);
                    }
                    depth -= 1;
                    body.push(Statement::ScopeClose);
                }
                b'{' => {
                    self.scan.expect(b'{')?;
                    depth += 1;
                    body.push(Statement::ScopeOpen);
                }
                b'.' => {
                    self.scan.expect(b'.')?;
                    let name = self.scan.name()?;
                    self.directive(name, &mut body)?;
                }
                b';' => self.scan.expect(b';')?,
                0 if self.scan.at_end() => {
                    return self.scan.error("the text ends inside a function");
                }
                _ => self.instruction_or_label(&mut body)?,
            }
        }
    }

    /// A directive inside a function.
    pub(super) fn directive(&mut self, name: &'a str, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
        match name {
            "reg" => self.registers(body),
            "loc" => {
                let statement = self.location()?;
                body.push(statement);
                Ok(())
            }
            "pragma" => {
                self.scan.string()?;
                self.scan.expect(b';')
            }
            name => match Space::parse(name) {
                Some(space @ (Space::Shared | Space::Local | Space::Param | Space::Global | Space::Const)) => {
                    body.extend(self.variables(space, false)?.into_iter().map(Statement::Variable));
                    Ok(())
                }
                _ => self.scan.error(format!("unknown directive .{name} in a function")),
            },
        }
    }

    /// `.loc file line column{, function_name name{+offset}, inlined_at file line column}`, up to the end of the line.
    fn location(&mut self) -> Result<Statement<'a>, PtxError> {
        let (file, line) = (self.scan.small()?, self.scan.small()?);
        let rest = self.scan.take_line();
        let column = rest.split([' ', '\t', ',']).find_map(|word| word.parse().ok()).unwrap_or(0);
        let mut caller = rest.split_once("inlined_at").and_then(|(_, place)| {
            let mut numbers = place.split_ascii_whitespace().map(|word| word.parse().ok());
            Some((numbers.next()??, numbers.next()??, numbers.next()??))
        });
        self.inlined.insert((file, line, column), caller);
        let mut callers = vec![];
        while let Some(place) = caller.filter(|_| callers.len() < MAX_INLINED) {
            callers.push(SourceLine { file: place.0, line: place.1 });
            // The line there was named before, and with it where it was inlined itself.
            caller = self.inlined.get(&place).copied().flatten();
        }
        Ok(Statement::Line { line: SourceLine { file, line }, callers: callers.into() })
    }

    pub(super) fn registers(&mut self, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
        let (ty, _, width) = self.variable_type()?;
        if width != 1 {
            return self.scan.error("vector registers are not supported");
        }
        loop {
            let name = self.scan.name()?;
            let count = if self.scan.take(b'<') {
                let count = self.scan.small()?;
                self.scan.expect(b'>')?;
                Some(count)
            } else {
                None
            };
            body.push(Statement::Registers { name, count, ty });
            if !self.scan.take(b',') {
                break;
            }
        }
        self.scan.expect(b';')
    }

    pub(super) fn instruction_or_label(&mut self, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
        let guard = if self.scan.take(b'@') {
            let negated = self.scan.take(b'!');
            Some((negated, self.scan.name()?))
        } else {
            None
        };
        let line = self.scan.line();
        let opcode = self.scan.opcode();
        if opcode.is_empty() {
            let found = self.scan.rest_of_line();
            return self.scan.error(format!("expected an instruction, found '{found}'"));
        }
        if guard.is_none() && self.scan.take(b':') {
            return self.labelled(opcode, body);
        }
        let mut operands = vec![];
        while self.scan.peek() != b';' {
            // Commas separate operands; the parts of a call's operand list stand beside each other too.
            if !operands.is_empty() {
                self.scan.take(b',');
            }
            operands.push(self.operand(0)?);
        }
        self.scan.expect(b';')?;
        body.push(Statement::Instruction(Instruction { guard, opcode, operands, line }));
        Ok(())
    }

    /// What follows `name:`.
    pub(super) fn labelled(&mut self, name: &'a str, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
        if self.scan.peek() != b'.' {
            body.push(Statement::Label(name));
            return Ok(());
        }
        self.scan.expect(b'.')?;
        match self.scan.name()? {
            "branchtargets" => {
                let mut labels = vec![self.scan.name()?];
                while self.scan.take(b',') {
                    labels.push(self.scan.name()?);
                }
                self.scan.expect(b';')?;
                body.push(Statement::Targets { name, labels });
                Ok(())
            }
            "callprototype" => {
                let returns = if self.scan.peek() == b'(' { self.params()? } else { vec![] };
                self.scan.name()?;
                let params = if self.scan.peek() == b'(' { self.params()? } else { vec![] };
                self.scan.expect(b';')?;
                body.push(Statement::Prototype { name, returns, params });
                Ok(())
            }
            // A label may stand before any directive.
            directive => {
                body.push(Statement::Label(name));
                self.directive(directive, body)
            }
        }
    }

    pub(super) fn operand(&mut self, nesting: u32) -> Result<Operand<'a>, PtxError> {
        if nesting > MAX_NESTING {
            return self.scan.error("operands are nested too deeply");
        }
        let operand = match self.scan.peek() {
            b'{' => {
                self.scan.expect(b'{')?;
                Operand::Vector(self.operands_until(b'}', nesting)?)
            }
            b'(' => {
                self.scan.expect(b'(')?;
                Operand::List(self.operands_until(b')', nesting)?)
            }
            b'[' => {
                self.scan.expect(b'[')?;
                self.address(nesting)?
            }
            b'!' => {
                self.scan.expect(b'!')?;
                Operand::Not(self.scan.name()?)
            }
            b'-' | b'0'..=b'9' => match self.scan.number()? {
                Number::Int(value) => Operand::Int(value),
                Number::F32(bits) => Operand::F32(bits),
                Number::F64(bits) => Operand::F64(bits),
            },
            _ => self.named_operand()?,
        };
        if self.scan.take(b'|') {
            let second = self.operand(nesting + 1)?;
            return Ok(Operand::Pair(Box::new(operand), Box::new(second)));
        }
        Ok(operand)
    }

    pub(super) fn named_operand(&mut self) -> Result<Operand<'a>, PtxError> {
        let name = self.scan.name()?;
        match self.scan.peek() {
            b'.' => {
                self.scan.expect(b'.')?;
                Ok(Operand::Component(name, self.scan.name()?))
            }
            b'+' | b'-' => Ok(Operand::Offset(name, self.offset()?)),
            _ => Ok(Operand::Name(name)),
        }
    }

    pub(super) fn operands_until(&mut self, close: u8, nesting: u32) -> Result<Vec<Operand<'a>>, PtxError> {
        let mut operands = vec![];
        if self.scan.take(close) {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand(nesting + 1)?);
            if !self.scan.take(b',') {
                self.scan.expect(close)?;
                return Ok(operands);
            }
        }
    }

    /// After `[`.
    pub(super) fn address(&mut self, nesting: u32) -> Result<Operand<'a>, PtxError> {
        let next = self.scan.peek();
        let operand = if next.is_ascii_digit() || next == b'-' {
            Operand::Address(None, self.scan.integer()? as i64)
        } else {
            let name = self.scan.name()?;
            Operand::Address(Some(name), self.offset()?)
        };
        if self.scan.take(b',') {
            let mut parts = vec![operand];
            parts.extend(self.operands_until(b']', nesting)?);
            return Ok(Operand::Element(parts));
        }
        self.scan.expect(b']')?;
        Ok(operand)
    }
}
