//! Characters to words and numbers.

use super::PtxError;

/// A cursor over PTX text that skips blanks and comments.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(u64),
    F32(u32),
    F64(u64),
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%')
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    pub fn line(&self) -> u32 {
        self.line
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError { line: self.line, message: message.into() })
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn advance(&mut self) {
        if self.byte(0) == b'\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    /// Skips blanks and comments.
    pub fn skip(&mut self) {
        loop {
            match self.byte(0) {
                b' ' | b'\t' | b'\r' | b'\n' => self.advance(),
                b'/' if self.byte(1) == b'/' => {
                    while self.at < self.text.len() && self.byte(0) != b'\n' {
                        self.at += 1;
                    }
                }
                b'/' if self.byte(1) == b'*' => {
                    self.at += 2;
                    while self.at < self.text.len() && !(self.byte(0) == b'*' && self.byte(1) == b'/') {
                        self.advance();
                    }
                    self.at = (self.at + 2).min(self.text.len());
                }
                _ => return,
            }
        }
    }

    /// The next byte after blanks, 0 at the end.
    pub fn peek(&mut self) -> u8 {
        self.skip();
        self.byte(0)
    }

    pub fn at_end(&mut self) -> bool {
        self.skip();
        self.at >= self.text.len()
    }

    /// Takes this byte if it comes next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte && byte != 0;
        if found {
            self.at += 1;
        }
        found
    }

    pub fn expect(&mut self, byte: u8) -> Result<(), PtxError> {
        if self.take(byte) {
            return Ok(());
        }
        let found = self.rest_of_line();
        self.error(format!("expected '{}', found '{found}'", byte as char))
    }

    /// What follows on this line, for messages.
    pub fn rest_of_line(&self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or("");
        let line = rest.lines().next().unwrap_or("");
        match line.char_indices().nth(60) {
            Some((cut, _)) => &line[..cut],
            None => line,
        }
    }

    /// Takes the rest of the line.
    pub fn take_line(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).and_then(|rest| rest.lines().next()).unwrap_or("");
        self.skip_line();
        rest
    }

    fn slice_while(&mut self, mut accept: impl FnMut(&Self) -> bool) -> &'a str {
        let start = self.at;
        while self.at < self.text.len() && accept(self) {
            self.at += 1;
        }
        // Only ASCII bytes are accepted, so both ends lie between characters.
        self.text.get(start..self.at).unwrap_or("")
    }

    /// A name; empty if none comes next.
    pub fn word(&mut self) -> &'a str {
        self.skip();
        self.slice_while(|s| is_word(s.byte(0)))
    }

    pub fn name(&mut self) -> Result<&'a str, PtxError> {
        let word = self.word();
        if word.is_empty() {
            let found = self.rest_of_line();
            return self.error(format!("expected a name, found '{found}'"));
        }
        Ok(word)
    }

    /// An opcode with its modifiers, or a label without its colon.
    pub fn opcode(&mut self) -> &'a str {
        self.skip();
        let mut pair = false;
        self.slice_while(|s| match s.byte(0) {
            b':' if pair => {
                pair = false;
                true
            }
            b':' if s.byte(1) == b':' => {
                pair = true;
                true
            }
            b'.' => true,
            byte => is_word(byte),
        })
    }

    pub fn string(&mut self) -> Result<&'a str, PtxError> {
        self.expect(b'"')?;
        let start = self.at;
        while self.at < self.text.len() && self.byte(0) != b'"' {
            self.at += usize::from(self.byte(0) == b'\\');
            self.advance();
        }
        let text = self.text.get(start..self.at);
        self.expect(b'"')?;
        match text {
            Some(text) => Ok(text),
            None => self.error("a string ends inside a character"),
        }
    }

    /// Skips to after the closing brace that matches one already taken.
    pub fn skip_braces(&mut self) -> Result<(), PtxError> {
        let mut depth = 1u32;
        while depth > 0 {
            match self.peek() {
                0 if self.at_end() => return self.error("a '{' is never closed"),
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }

    /// Skips the rest of the line.
    pub fn skip_line(&mut self) {
        while self.at < self.text.len() && self.byte(0) != b'\n' {
            self.at += 1;
        }
    }

    /// A number, with its sign.
    pub fn number(&mut self) -> Result<Number, PtxError> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        self.skip();
        let word = self.slice_while(|s| s.byte(0).is_ascii_alphanumeric() || s.byte(0) == b'.');
        let Some(number) = read_number(word) else {
            return self.error(format!("'{word}' is no number"));
        };
        Ok(match number {
            Number::Int(value) if negative => Number::Int(value.wrapping_neg()),
            Number::F32(bits) if negative => Number::F32(bits ^ 1 << 31),
            Number::F64(bits) if negative => Number::F64(bits ^ 1 << 63),
            number => number,
        })
    }

    pub fn integer(&mut self) -> Result<u64, PtxError> {
        match self.number()? {
            Number::Int(value) => Ok(value),
            _ => self.error("an integer is needed here"),
        }
    }

    /// An integer that must fit 32 bits.
    pub fn small(&mut self) -> Result<u32, PtxError> {
        match u32::try_from(self.integer()?) {
            Ok(value) => Ok(value),
            Err(_) => self.error("this number is too large"),
        }
    }
}

fn read_number(word: &str) -> Option<Number> {
    let lower = word.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f").filter(|hex| hex.len() == 8) {
        return u32::from_str_radix(hex, 16).ok().map(Number::F32);
    }
    if let Some(hex) = lower.strip_prefix("0d").filter(|hex| hex.len() == 16) {
        return u64::from_str_radix(hex, 16).ok().map(Number::F64);
    }
    if lower.contains('.') {
        return lower.parse::<f64>().ok().map(|value| Number::F64(value.to_bits()));
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    value.ok().map(Number::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_notation() {
        for (text, bits) in [
            ("42", 42),
            ("-1", u64::MAX),
            ("0X1F79U", 0x1f79),
            ("017", 15),
            ("0b101", 5),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(Scanner::new(text).number().unwrap(), Number::Int(bits), "{text}");
        }
        assert_eq!(Scanner::new("0f3F800000").number().unwrap(), Number::F32(1.0f32.to_bits()));
        assert_eq!(Scanner::new("-0d3FF0000000000000").number().unwrap(), Number::F64((-1.0f64).to_bits()));
        assert!(Scanner::new("0x").number().is_err());
        assert!(Scanner::new("99999999999999999999").number().is_err());
    }

    #[test]
    fn opcodes_keep_double_colons_and_labels_stop_at_one() {
        assert_eq!(Scanner::new("cp.async.cg.shared::cta.L2::128B [a]").opcode(), "cp.async.cg.shared::cta.L2::128B");
        assert_eq!(Scanner::new("$L__BB0_1: add").opcode(), "$L__BB0_1");
    }
}
