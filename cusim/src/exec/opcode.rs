//! An opcode taken apart: nothing of it may remain unread.

use crate::math::float;
use crate::ptx::ScalarType;

/// An opcode whose modifiers are ticked off as they are understood.
pub struct Opcode<'a> {
    /// The first word.
    pub base: &'a str,
    modifiers: Vec<&'a str>,
}

impl<'a> Opcode<'a> {
    /// Splits at the dots.
    pub fn new(text: &'a str) -> Self {
        let mut words = text.split('.');
        Self { base: words.next().unwrap_or(""), modifiers: words.collect() }
    }

    /// Takes a modifier; whether it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.modifiers.iter().position(|modifier| *modifier == name);
        found.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// Takes the first of these that is there.
    pub fn one_of(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.flag(name)).copied()
    }

    /// Takes the first modifier that `read` understands.
    pub fn take<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (at, value) = self.modifiers.iter().enumerate().find_map(|(at, word)| Some((at, read(word)?)))?;
        self.modifiers.remove(at);
        Some(value)
    }

    /// Takes the last modifier, which must be a type.
    pub fn ty(&mut self) -> Option<ScalarType> {
        let ty = ScalarType::parse(self.modifiers.last()?)?;
        self.modifiers.pop();
        Some(ty)
    }

    /// Takes a rounding mode, if there is one.
    pub fn rounding(&mut self) -> Option<float::Mode> {
        self.take(|word| match word {
            "rn" => Some(float::NEAREST),
            "rz" => Some(float::ZERO),
            "rm" => Some(float::DOWN),
            "rp" => Some(float::UP),
            _ => None,
        })
    }

    /// Whether every modifier was taken.
    pub fn is_done(&self) -> bool {
        self.modifiers.is_empty()
    }
}
