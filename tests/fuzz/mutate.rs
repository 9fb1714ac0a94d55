//! Inputs that are nearly right: valid ones with bytes, words, values or structure changed.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Words that parsers of text trip over.
const WORDS: [&str; 27] = [
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    ":",
    "-1",
    "0",
    "1e999",
    "-0.0",
    "NaN",
    "18446744073709551616",
    "4294967295",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{202e}",
    "é",
    "\n",
    "\r\n",
    "\0",
    "../",
    "%",
    "{{",
];

/// What draws inputs for one parser.
pub struct Mutator {
    random: ChaCha8Rng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// From valid inputs.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Mutator {
        assert!(!seeds.is_empty());
        Mutator { random: ChaCha8Rng::seed_from_u64(seed), seeds }
    }

    /// The next input.
    pub fn draw(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut bytes = self.seeds.choose(random).expect("there are seeds").clone();
        // Structure first, where there is any: what is changed then still parses.
        if random.random_bool(0.5)
            && let Ok(mut value) = serde_json::from_slice::<Value>(&bytes)
        {
            for _ in 0..random.random_range(1..4) {
                change_value(random, &mut value, 0);
            }
            bytes = value.to_string().into_bytes();
        }
        for _ in 0..random.random_range(0..4) {
            change_bytes(random, &mut bytes, &self.seeds);
        }
        bytes
    }
}

/// A place in the bytes.
fn place(random: &mut ChaCha8Rng, bytes: &[u8]) -> usize {
    random.random_range(0..=bytes.len())
}

fn change_bytes(random: &mut ChaCha8Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let (one, two) = (place(random, bytes), place(random, bytes));
    let range = one.min(two)..one.max(two).min(one.min(two) + 64);
    match random.random_range(0..8) {
        0 if one < bytes.len() => bytes[one] ^= 1 << random.random_range(0..8),
        1 if one < bytes.len() => bytes[one] = random.random(),
        2 => bytes.truncate(one),
        3 => drop(bytes.drain(range)),
        4 => {
            let copy = bytes[range].to_vec();
            bytes.splice(two..two, copy);
        }
        5 => {
            let word = WORDS.choose(random).expect("there are words");
            bytes.splice(one..one, word.bytes());
        }
        6 => {
            let other = seeds.choose(random).expect("there are seeds");
            let from = place(random, other);
            bytes.truncate(one);
            bytes.extend_from_slice(&other[from..]);
        }
        // Lengths and offsets of binary formats.
        _ => {
            let numbers = [0u64, 1, u64::MAX, u64::MAX / 2, u32::MAX.into(), 1 << 31, bytes.len() as u64 + 1];
            let number = numbers.choose(random).expect("there are numbers").to_le_bytes();
            let end = (one + random.random_range(1..=8)).min(bytes.len());
            let count = end - one.min(end);
            bytes.splice(one.min(end)..end, number[..count].iter().copied());
        }
    }
}

fn change_value(random: &mut ChaCha8Rng, value: &mut Value, depth: usize) {
    // Goes down to one of the values inside, most of the time.
    if depth < 12 && random.random_bool(0.8) {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let at = random.random_range(0..items.len());
                return change_value(random, &mut items[at], depth + 1);
            }
            Value::Object(fields) if !fields.is_empty() => {
                let at = random.random_range(0..fields.len());
                if random.random_bool(0.1) {
                    let key = fields.keys().nth(at).cloned().unwrap_or_default();
                    fields.shift_remove(&key);
                    return;
                }
                if let Some((_, inner)) = fields.iter_mut().nth(at) {
                    return change_value(random, inner, depth + 1);
                }
            }
            _ => {}
        }
    }
    *value = match random.random_range(0..10) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!([0, 1, -1, i64::MAX, i64::MIN, 1 << 31, 1 << 40][random.random_range(0..7)]),
        3 => json!(u64::MAX),
        4 => json!([0.5, -1e300, 1e-320, f64::MAX][random.random_range(0..4)]),
        5 => json!(["", "x", "../x", "\u{0}", "\u{202e}", "none", "1e5"][random.random_range(0..7)]),
        6 => json!("a".repeat(random.random_range(0..2000))),
        7 => json!([value.clone(), value.clone()]),
        8 => json!({"key": value.clone()}),
        _ => (0..random.random_range(1..200)).fold(value.clone(), |inner, _| json!([inner])),
    };
}
