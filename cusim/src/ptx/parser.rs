//! Text to syntax tree, by recursive descent over a [`Scanner`].

mod statements;
mod variables;

use std::collections::HashMap;

use super::ast::*;
use super::scanner::Scanner;
use super::{PtxError, Space};

/// Nested braces and brackets in operands beyond this are refused, so that no input can exhaust the stack.
const MAX_NESTING: u32 = 8;

/// Functions inlined into each other beyond this are not followed.
const MAX_INLINED: usize = 64;

/// Parses a PTX text.
pub fn parse(text: &str) -> Result<Module<'_>, PtxError> {
    let mut parser = Parser { scan: Scanner::new(text), module: Module::default(), inlined: HashMap::new() };
    while !parser.scan.at_end() {
        parser.item()?;
    }
    if parser.module.version == (0, 0) {
        return parser.scan.error("no .version directive: this is not PTX");
    }
    Ok(parser.module)
}

/// The version that a PTX text begins with, and the line that says it; the rest is not read.
pub fn version(text: &str) -> Result<((u32, u32), u32), PtxError> {
    let mut parser = Parser { scan: Scanner::new(text), module: Module::default(), inlined: HashMap::new() };
    parser.scan.skip();
    let line = parser.scan.line();
    parser.item()?;
    match parser.module.version {
        (0, 0) => parser.scan.error("no .version directive: this is not PTX"),
        version => Ok((version, line)),
    }
}

/// File, line and column.
type Position = (u32, u32, u32);

struct Parser<'a> {
    scan: Scanner<'a>,
    module: Module<'a>,
    /// Where each place in the source, a file, line and column, was inlined, as far as the function says.
    inlined: HashMap<Position, Option<Position>>,
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
            self.inlined.clear();
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
    fn inlined_functions_are_followed_to_the_kernel() {
        let text = kernel(
            ".loc 1 8 5\n.loc 2 542 7, function_name $L__info_string0, inlined_at 1 8 5
            .loc 3 64 8, function_name $L__info_string1+8, inlined_at 2 542 7\nret;\n.loc 1 9 1\nret;
            .loc 4 1 1, function_name f, inlined_at 4 1 1",
        );
        let module = parse(&text).unwrap();
        let at = |file, line| SourceLine { file, line };
        let lines: Vec<_> = module.functions[0]
            .body
            .as_ref()
            .unwrap()
            .iter()
            .filter_map(|statement| match statement {
                Statement::Line { line, callers } => Some((*line, callers.to_vec())),
                _ => None,
            })
            .collect();
        assert_eq!(lines[2], (at(3, 64), vec![at(2, 542), at(1, 8)]));
        assert_eq!(lines[3], (at(1, 9), vec![]));
        assert_eq!(lines[4].1.len(), MAX_INLINED, "inlined into itself");
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
