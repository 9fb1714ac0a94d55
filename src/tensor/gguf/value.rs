//! Settings of a GGUF file.

use std::fmt;
use std::ops::Range;

/// Types of settings, by their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Flag,
    Text,
    List,
    U64,
    I64,
    F64,
}

const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Flag,
    Kind::Text,
    Kind::List,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

impl Kind {
    pub fn numbered(number: u32) -> Option<Kind> {
        KINDS.get(usize::try_from(number).ok()?).copied()
    }

    /// Bytes of a value; of texts and lists those that each begins with.
    pub fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Flag => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Text => 8,
            Kind::List => 12,
        }
    }
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Negative(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    List(List),
}

/// A list, which stays in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    pub kind: Kind,
    pub count: u64,
    /// Its bytes in the file.
    pub place: Range<usize>,
}

impl Value {
    /// The value that bytes of a file are, as many as it has; of a text its own.
    pub fn read(kind: Kind, bytes: &[u8]) -> Result<Value, String> {
        let whole = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let signed = |value: i64| u64::try_from(value).map_or(Value::Negative(value), Value::Whole);
        Ok(match kind {
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Value::Whole(whole(bytes)),
            Kind::I8 => signed(i64::from(whole(bytes) as i8)),
            Kind::I16 => signed(i64::from(whole(bytes) as i16)),
            Kind::I32 => signed(i64::from(whole(bytes) as i32)),
            Kind::I64 => signed(whole(bytes) as i64),
            Kind::F32 => Value::Float(f64::from(f32::from_bits(whole(bytes) as u32))),
            Kind::F64 => Value::Float(f64::from_bits(whole(bytes))),
            Kind::Flag => match whole(bytes) {
                0 => Value::Flag(false),
                1 => Value::Flag(true),
                other => return Err(format!("is {other}, needs 0 (no) or 1 (yes)")),
            },
            Kind::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_string()),
                Err(_) => return Err("is no text in UTF-8".into()),
            },
            Kind::List => return Err("is a list".into()),
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Whole(n) => write!(f, "{n}"),
            Value::Negative(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Flag(b) => write!(f, "{b}"),
            Value::Text(text) => {
                let start: String = text.chars().take(60).collect();
                write!(f, "{start:?}")
            }
            Value::List(list) => write!(f, "a list of {}", list.count),
        }
    }
}
