//! Syntax tree to program: names become registers and addresses, opcodes become operations.

mod asynchronous;
mod atomics;
mod body;
mod bulk;
mod calls;
mod carry;
mod draft;
mod emit;
mod exchange;
mod instruction;
mod memory;
mod moves;
mod problem;
mod reach;
mod registers;
mod statements;
mod sync;
mod tensor;
mod work;

use crate::exec::program::{Program, Slot};
use crate::machine::listing::Listing;
use crate::machine::names::readable;
use crate::ptx::Module;
use body::Body;
pub use body::{Globals, Options};

/// What cannot be lowered: a PTX line and the reason, for each instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerError {
    /// The kernel that was asked for.
    pub kernel: String,
    /// Line and reason.
    pub problems: Vec<(u32, String)>,
}

impl std::fmt::Display for LowerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kernel {} cannot run on cusim:", readable(&self.kernel))?;
        for (line, reason) in self.problems.iter().take(50) {
            write!(f, "\n  PTX line {line}: {reason}")?;
        }
        if self.problems.len() > 50 {
            write!(f, "\n  and {} more", self.problems.len() - 50)?;
        }
        Ok(())
    }
}

impl std::error::Error for LowerError {}

/// Code addresses of functions begin here; they are spaced by [`FUNCTION_SPACING`].
pub const FUNCTION_BASE: u64 = 0x0f00_0000_0000;
/// Distance of code addresses.
pub const FUNCTION_SPACING: u64 = 256;

/// The code address of a function of a module.
pub fn function_address(module: &Module, name: &str) -> Option<u64> {
    let index = module.functions.iter().position(|function| function.name == name)?;
    Some(FUNCTION_BASE + index as u64 * FUNCTION_SPACING)
}

/// The most local memory that recursion and indirect calls get per thread, on top of what is known.
const RECURSION_LOCAL: u32 = 16 << 10;
/// Likewise for registers of a warp.
const RECURSION_REGISTERS: u32 = 2 << 20;

/// Makes a program of a kernel and all functions that it may call.
pub fn lower(module: &Module, kernel: &str, globals: &Globals, options: Options) -> Result<Program, LowerError> {
    let fail = |problems| LowerError { kernel: kernel.to_string(), problems };
    let Some(entry) = module
        .functions
        .iter()
        .find(|function| function.name == kernel && function.is_kernel && function.body.is_some())
    else {
        return Err(fail(vec![(0, "the module has no such kernel".into())]));
    };
    let reached = reach::reach(module, entry);
    let mut program = Program {
        listing: Listing {
            name: entry.name.to_string(),
            files: module.files.iter().map(|(number, path)| (*number, path.to_string())).collect(),
            shared: reached.shared.clone(),
            ..Listing::default()
        },
        hints: entry.hints,
        target: target_number(module.target),
        ..Program::default()
    };
    let mut end = 0;
    for param in &entry.params {
        let offset = u32::div_ceil(end, param.align) * param.align;
        let bytes = param.size() as u32;
        program.params.push(Slot { offset, bytes });
        end = offset + bytes;
    }
    program.param_bytes = end;
    if end > 32764 {
        return Err(fail(vec![(entry.line, format!("{end} bytes of parameters; the limit is 32764"))]));
    }

    let mut problems = vec![];
    for (index, function) in reached.functions.iter().enumerate() {
        if let Some(address) = function_address(module, function.name) {
            program.function_addresses.push((address, index as u32));
        }
        let mut body = Body::new(module, globals, options, &reached, function, &mut program);
        body.lower();
        problems.append(&mut body.problems);
        let function_code = body.finish();
        program.functions.push(function_code);
    }
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(fail(problems));
    }
    size_stacks(&mut program, &reached);
    Ok(program)
}

/// The number in a target such as `sm_80` or `sm_90a`.
pub fn target_number(target: &str) -> u32 {
    let digits: String = target.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Adds up the frames along the longest chain of calls.
fn size_stacks(program: &mut Program, reached: &reach::Reached) {
    let (registers, local) = if reached.unbounded {
        let largest = |size: fn(&crate::exec::program::FunctionCode) -> u32| {
            program.functions.iter().map(size).max().unwrap_or(0)
        };
        (
            largest(|function| function.register_bytes) * 2 + RECURSION_REGISTERS,
            largest(|function| function.local_bytes) * 2 + RECURSION_LOCAL,
        )
    } else {
        // Callees come after their callers, so that one pass from the end sees every chain.
        let mut depth = vec![(0, 0); program.functions.len()];
        for index in (0..program.functions.len()).rev() {
            let below = reached.calls[index].iter().map(|callee| depth[*callee]);
            let deepest = below.fold((0, 0), |most: (u32, u32), next| (most.0.max(next.0), most.1.max(next.1)));
            let function = &program.functions[index];
            depth[index] = (deepest.0 + function.register_bytes, deepest.1 + function.local_bytes);
        }
        depth.first().copied().unwrap_or_default()
    };
    program.register_bytes = registers;
    program.listing.local_bytes = local.next_multiple_of(16);
}
