//! Functions that the driver provides to kernels: `vprintf` and `__assertfail`.

use std::io::Write;

use super::core::Core;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::machine::fault::FaultKind;

/// The most characters of a string argument that are printed.
const MAX_STRING: u64 = 4096;

impl Core {
    /// Reads bytes at a generic address as lane `lane` sees them.
    fn peek<const N: usize>(&self, lane: usize, address: u64) -> Option<[u8; N]> {
        let host = self.host_address(lane, address, N as u64)?;
        // SAFETY: the address was checked; any bytes make a byte array.
        Some(unsafe { std::ptr::read_unaligned(host as *const [u8; N]) })
    }

    /// Reads a string that ends with a zero.
    fn peek_string(&self, lane: usize, address: u64) -> Option<String> {
        let mut bytes = vec![];
        for offset in 0..MAX_STRING {
            match self.peek::<1>(lane, address.wrapping_add(offset))? {
                [0] => break,
                [byte] => bytes.push(byte),
            }
        }
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `vprintf(format, arguments)`: `ops` are the result, then two addresses.
struct Print;

impl Op for Print {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction a 32-bit and two 64-bit registers.
        let (formats, arguments): ([u64; LANES], [u64; LANES]) =
            unsafe { (core.get(inst.ops[1]), core.get(inst.ops[2])) };
        let mut out = String::new();
        for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0) {
            let text =
                core.peek_string(lane, formats[lane]).and_then(|format| expand(core, lane, &format, arguments[lane]));
            match text {
                Some(text) => out.push_str(&text),
                None => {
                    let detail = "printf: the format, an argument or a string lies outside of memory".to_string();
                    return core.fault(inst, FaultKind::OutOfBounds, lane as u32, detail);
                }
            }
        }
        // What cannot be printed is lost, as on a real device.
        let _ = std::io::stdout().lock().write_all(out.as_bytes());
        // SAFETY: as above.
        unsafe { core.put(inst.ops[0], [0u32; LANES]) };
        false
    }
}

/// Applies a format as C's printf does, to arguments packed with their natural alignment.
fn expand(core: &Core, lane: usize, format: &str, mut at: u64) -> Option<String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        let mut long = false;
        let conversion = loop {
            match chars.next() {
                None => return Some(out),
                Some('-') => spec.left = true,
                Some('0') if spec.width == 0 && spec.precision.is_none() => spec.zero = true,
                Some('+') => spec.plus = true,
                Some(' ' | '#' | 'h') => {}
                Some('l' | 'z' | 'j' | 't') => long = true,
                Some('.') => spec.precision = Some(0),
                Some('*') => {
                    let value = u32::from_le_bytes(core.peek(lane, align(&mut at, 4))?);
                    spec.digit(value.min(1000));
                }
                Some(digit) if digit.is_ascii_digit() => spec.next_digit(digit as u32 - 48),
                Some(conversion) => break conversion,
            }
        };
        let text = match conversion {
            '%' => "%".to_string(),
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' => {
                let raw = if long {
                    u64::from_le_bytes(core.peek(lane, align(&mut at, 8))?)
                } else {
                    let word = u32::from_le_bytes(core.peek(lane, align(&mut at, 4))?);
                    if matches!(conversion, 'd' | 'i') { word as i32 as i64 as u64 } else { u64::from(word) }
                };
                spec.integer(conversion, raw)
            }
            'p' => format!("{:#x}", u64::from_le_bytes(core.peek(lane, align(&mut at, 8))?)),
            's' => {
                let address = u64::from_le_bytes(core.peek(lane, align(&mut at, 8))?);
                core.peek_string(lane, address)?
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                spec.float(conversion, f64::from_le_bytes(core.peek(lane, align(&mut at, 8))?))
            }
            other => format!("%{other}"),
        };
        out.push_str(&spec.pad(&text));
    }
    Some(out)
}

/// Rounds an argument's address up, and moves on past it.
fn align(at: &mut u64, bytes: u64) -> u64 {
    let start = at.next_multiple_of(bytes);
    *at = start + bytes;
    start
}

/// Flags of a conversion.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    width: u32,
    precision: Option<u32>,
}

impl Spec {
    fn digit(&mut self, value: u32) {
        match &mut self.precision {
            Some(precision) => *precision = value,
            None => self.width = value,
        }
    }

    fn next_digit(&mut self, digit: u32) {
        let number = self.precision.as_mut().unwrap_or(&mut self.width);
        *number = (*number * 10 + digit).min(1000);
    }

    fn integer(&self, conversion: char, raw: u64) -> String {
        let text = match conversion {
            'd' | 'i' if self.plus => format!("{:+}", raw as i64),
            'd' | 'i' => format!("{}", raw as i64),
            'x' => format!("{raw:x}"),
            'X' => format!("{raw:X}"),
            'o' => format!("{raw:o}"),
            'c' => char::from(raw as u8).to_string(),
            _ => raw.to_string(),
        };
        match self.precision {
            Some(precision) if conversion != 'c' => {
                format!("{text:0>width$}", width = precision as usize)
            }
            _ => text,
        }
    }

    fn float(&self, conversion: char, value: f64) -> String {
        let precision = self.precision.unwrap_or(6) as usize;
        let sign = if self.plus && value >= 0.0 { "+" } else { "" };
        if !value.is_finite() {
            let name = if value.is_nan() { "nan" } else { "inf" };
            return if value < 0.0 { format!("-{name}") } else { format!("{sign}{name}") };
        }
        let text = match conversion {
            'f' | 'F' => format!("{value:.precision$}"),
            'e' | 'E' => exponential(value, precision),
            _ => general(value, precision.max(1)),
        };
        format!("{sign}{text}")
    }

    fn pad(&self, text: &str) -> String {
        let width = self.width as usize;
        let missing = width.saturating_sub(text.chars().count());
        if self.left {
            format!("{text}{}", " ".repeat(missing))
        } else if self.zero {
            let (sign, digits) = match text.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", text),
            };
            format!("{sign}{}{digits}", "0".repeat(missing))
        } else {
            format!("{}{text}", " ".repeat(missing))
        }
    }
}

/// C's `%e`.
fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// C's `%g`.
fn general(value: f64, precision: usize) -> String {
    let scientific = exponential(value, precision - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{exponent}", trim(digits));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}"))
}

/// `__assertfail(message, file, line, function, character size)`.
struct AssertFail;

impl Op for AssertFail {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let lane = core.mask.trailing_zeros() as usize & 31;
        // SAFETY: lowering gave the instruction registers of these widths.
        let (message, file, line, function): ([u64; LANES], [u64; LANES], [u32; LANES], [u64; LANES]) =
            unsafe { (core.get(inst.ops[0]), core.get(inst.ops[1]), core.get(inst.ops[2]), core.get(inst.ops[3])) };
        let text = |addresses: [u64; LANES]| core.peek_string(lane, addresses[lane]).unwrap_or_default();
        let detail = format!("{}:{}: {}: assertion `{}` failed", text(file), line[lane], text(function), text(message));
        core.fault(inst, FaultKind::Assert, lane as u32, detail)
    }
}

/// `vprintf`.
pub fn print() -> OpFn {
    op::<Print>()
}

/// `__assertfail`.
pub fn assert_fail() -> OpFn {
    op::<AssertFail>()
}
