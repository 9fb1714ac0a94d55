//! Text to syntax tree, by recursive descent over a [`Scanner`].

use super::ast::*;
use super::scanner::{Number, Scanner};
use super::{PtxError, ScalarType, Space};

/// Nested braces and brackets in operands beyond this are refused, so that no input can exhaust the stack.
const MAX_NESTING: u32 = 8;

/// Parses a PTX text.
pub fn parse(text: &str) -> Result<Module<'_>, PtxError> {
    let mut parser = Parser { scan: Scanner::new(text), module: Module::default() };
    while !parser.scan.at_end() {
        parser.item()?;
    }
    if parser.module.version == (0, 0) {
        return parser.scan.error("no .version directive: this is not PTX");
    }
    Ok(parser.module)
}

struct Parser<'a> {
    scan: Scanner<'a>,
    module: Module<'a>,
}

/// Linking directives before an item.
#[derive(Default)]
struct Linkage {
    is_extern: bool,
}

impl<'a> Parser<'a> {
    /// One directive at module scope.
    fn item(&mut self) -> Result<(), PtxError> {
        let mut linkage = Linkage::default();
        loop {
            if !self.scan.take(b'.') {
                let found = self.scan.rest_of_line();
                return self.scan.error(format!("expected a directive, found '{found}'"));
            }
            match self.scan.name()? {
                "version" => return self.version(),
                "target" => return self.target(),
                "address_size" => {
                    let size = self.scan.integer()?;
                    if size != 64 {
                        return self.scan.error("only .address_size 64 is supported");
                    }
                    return Ok(());
                }
                "file" => return self.file(),
                "section" => {
                    while self.scan.peek() != b'{' && !self.scan.at_end() {
                        self.scan.skip_line();
                        self.scan.skip();
                    }
                    self.scan.expect(b'{')?;
                    return self.scan.skip_braces();
                }
                "pragma" => {
                    self.scan.string()?;
                    return self.scan.expect(b';');
                }
                "alias" => return self.scan.error(".alias is not supported"),
                "extern" => linkage.is_extern = true,
                "visible" | "weak" | "common" => {}
                "entry" => return self.function(true),
                "func" => return self.function(false),
                name => match Space::parse(name) {
                    Some(space @ (Space::Global | Space::Const | Space::Shared)) => {
                        let variables = self.variables(space, linkage.is_extern)?;
                        self.module.variables.extend(variables);
                        return Ok(());
                    }
                    _ => return self.scan.error(format!("unknown directive .{name}")),
                },
            }
        }
    }

    fn version(&mut self) -> Result<(), PtxError> {
        let word = self.scan.opcode();
        let parts = word.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        match parts {
            Some(version) => {
                self.module.version = version;
                Ok(())
            }
            None => self.scan.error(format!("'{word}' is no PTX version")),
        }
    }

    fn target(&mut self) -> Result<(), PtxError> {
        self.module.target = self.scan.name()?;
        while self.scan.take(b',') {
            self.scan.name()?;
        }
        Ok(())
    }

    fn file(&mut self) -> Result<(), PtxError> {
        let number = self.scan.small()?;
        let path = self.scan.string()?;
        while self.scan.take(b',') {
            self.scan.integer()?;
        }
        self.module.files.push((number, path));
        Ok(())
    }

    /// `.align 4 .b8 a[16] = {...}, b;` after the space's name.
    fn variables(&mut self, space: Space, is_extern: bool) -> Result<Vec<Variable<'a>>, PtxError> {
        let mut variables = vec![];
        let (ty, align, width) = self.variable_type()?;
        loop {
            let mut variable = self.declarator(space, ty, align, width)?;
            variable.is_extern = is_extern;
            if self.scan.take(b'=') {
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
    fn variable_type(&mut self) -> Result<(ScalarType, u32, u32), PtxError> {
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

    fn pointer_attributes(&mut self) -> Result<(), PtxError> {
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

    fn declarator(&mut self, space: Space, ty: ScalarType, align: u32, width: u32) -> Result<Variable<'a>, PtxError> {
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

    fn initialiser(&mut self, variable: &mut Variable<'a>) -> Result<(), PtxError> {
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

    fn init_item(&mut self, ty: ScalarType) -> Result<InitItem<'a>, PtxError> {
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

    fn init_address(&mut self) -> Result<InitItem<'a>, PtxError> {
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
    fn offset(&mut self) -> Result<i64, PtxError> {
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
    fn params(&mut self) -> Result<Vec<Variable<'a>>, PtxError> {
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

    fn function(&mut self, is_kernel: bool) -> Result<(), PtxError> {
        let mut function = Function { is_kernel, ..Function::default() };
        if !is_kernel && self.scan.peek() == b'(' {
            function.returns = self.params()?;
        }
        function.line = self.scan.line();
        function.name = self.scan.name()?;
        if self.scan.peek() == b'(' {
            function.params = self.params()?;
        }
        while self.scan.take(b'.') {
            self.function_directive(&mut function)?;
        }
        if !self.scan.take(b';') {
            self.scan.expect(b'{')?;
            function.body = Some(self.body()?);
        }
        self.module.functions.push(function);
        Ok(())
    }

    fn function_directive(&mut self, function: &mut Function<'a>) -> Result<(), PtxError> {
        match self.scan.name()? {
            "maxntid" => function.hints.max_threads = Some(self.extent()?),
            "reqntid" => function.hints.required_threads = Some(self.extent()?),
            "minnctapersm" => function.hints.min_blocks = Some(self.scan.small()?),
            "maxnreg" => function.hints.max_registers = Some(self.scan.small()?),
            "pragma" => {
                self.scan.string()?;
                self.scan.expect(b';')?;
            }
            "noreturn" => {}
            name => {
                return self.scan.error(format!("unknown directive .{name} of function {}", function.name));
            }
        }
        Ok(())
    }

    fn extent(&mut self) -> Result<[u32; 3], PtxError> {
        let mut extent = [1; 3];
        for (axis, slot) in extent.iter_mut().enumerate() {
            if axis > 0 && !self.scan.take(b',') {
                break;
            }
            *slot = self.scan.small()?;
        }
        Ok(extent)
    }

    /// Statements up to the closing brace of the function.
    fn body(&mut self) -> Result<Vec<Statement<'a>>, PtxError> {
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
    fn directive(&mut self, name: &'a str, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
        match name {
            "reg" => self.registers(body),
            "loc" => {
                let file = self.scan.small()?;
                let line = self.scan.small()?;
                self.scan.skip_line();
                body.push(Statement::Line(SourceLine { file, line }));
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

    fn registers(&mut self, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
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

    fn instruction_or_label(&mut self, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
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
    fn labelled(&mut self, name: &'a str, body: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
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

    fn operand(&mut self, nesting: u32) -> Result<Operand<'a>, PtxError> {
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
                self.address()?
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

    fn named_operand(&mut self) -> Result<Operand<'a>, PtxError> {
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

    fn operands_until(&mut self, close: u8, nesting: u32) -> Result<Vec<Operand<'a>>, PtxError> {
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
    fn address(&mut self) -> Result<Operand<'a>, PtxError> {
        let next = self.scan.peek();
        let operand = if next.is_ascii_digit() || next == b'-' {
            Operand::Address(None, self.scan.integer()? as i64)
        } else {
            let name = self.scan.name()?;
            Operand::Address(Some(name), self.offset()?)
        };
        self.scan.expect(b']')?;
        Ok(operand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

    fn kernel(body: &str) -> String {
        format!("{HEADER}.visible .entry k(.param .u64 p) {{\n{body}\n}}")
    }

    fn only_instruction(body: &str) -> (String, usize) {
        let text = kernel(body);
        let module = parse(&text).unwrap();
        let body = module.functions[0].body.as_ref().unwrap();
        let Some(Statement::Instruction(instruction)) = body.last() else { panic!("no instruction") };
        (instruction.opcode.to_string(), instruction.operands.len())
    }

    #[test]
    fn odd_operands() {
        assert_eq!(only_instruction("shfl.sync.bfly.b32 %r1|%p2, %r3, 1, 31, -1;").1, 5);
        assert_eq!(only_instruction("mov.b32 %r1, {0, %rs1};").1, 2);
        assert_eq!(only_instruction("call.uni (r), f, (a, b);").1, 3);
        assert_eq!(only_instruction("ld.global.v4.f32 {%f1, _, %f2, %f3}, [%rd1+-16];").1, 2);
        assert_eq!(only_instruction("@!%p1 bra $L;").0, "bra");
    }

    #[test]
    fn addresses_in_initialisers() {
        let text = format!("{HEADER}.global .u64 a[2] = {{f, generic(b)+4}};.global .b8 c[2] = {{0xFF00(a), 1}};");
        let module = parse(&text).unwrap();
        let address = |name, offset, generic, byte_shift| InitItem::Address { name, offset, generic, byte_shift };
        assert_eq!(module.variables[0].init, [address("f", 0, false, None), address("b", 4, true, None)]);
        assert_eq!(module.variables[1].init, [address("a", 0, false, Some(8)), InitItem::Value(1)]);
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse(&kernel("add.s32 %r1, %r2\n %r3 ]")).unwrap_err();
        assert_eq!(error.line, 6, "{error}");
        assert!(parse("").unwrap_err().message.contains("not PTX"));
        let deep = kernel(&format!("mov.b32 %r1, {};", "{".repeat(10_000)));
        assert!(parse(&deep).unwrap_err().message.contains("nested"));
    }
}
