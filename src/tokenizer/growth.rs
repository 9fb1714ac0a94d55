//! How much longer a text can become on its way through a `tokenizer.json`: some steps lengthen it, and a row of them
//! multiplies.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// A text may become so many times as long. ALBERT's tokenizer, of the published ones the longest row, counts about 1300.
const MOST: f64 = 1e5;

/// Lists of steps, in parts that are made of steps.
const LISTS: [&str; 4] = ["normalizers", "pretokenizers", "processors", "decoders"];

/// Fails if a text can become so long that it fits into no memory.
pub fn check(path: &Path, file: &Value) -> Result<()> {
    for parts in [&["normalizer", "pre_tokenizer", "post_processor"][..], &["decoder"]] {
        let growth: f64 = parts.iter().filter_map(|part| file.get(part)).map(growth).product();
        if growth > MOST {
            let parts = parts.iter().map(|part| format!("`{part}`")).collect::<Vec<_>>().join(", ");
            let reason = format!(
                "{parts} can make a text more than {MOST} times as long; take the tokenizer.json that the model was \
                 published with"
            );
            return Err(Error::file(path, reason));
        }
    }
    Ok(())
}

/// How many times as long a text can become in a part; 1 for one that keeps it about as it is.
fn growth(part: &Value) -> f64 {
    let length = |text: &Value| text.as_str().map_or(0, str::len) as f64;
    match part.get("type").and_then(Value::as_str) {
        Some("Sequence") => LISTS.iter().filter_map(|list| part.get(list)?.as_array()).flatten().map(growth).product(),
        // An expression may match what is empty, before each letter.
        Some("Replace") => match part.get("pattern").and_then(|pattern| pattern.get("String")) {
            Some(pattern) if length(pattern) > 0.0 => (length(&part["content"]) / length(pattern)).max(1.0),
            _ => 1.0 + length(&part["content"]),
        },
        // Each byte becomes a letter of up to two.
        Some("ByteLevel") => 2.0,
        // The longest decomposition of Unicode has 18 letters (U+FDFA).
        Some("NFD" | "NFKD" | "NFC" | "NFKC" | "Precompiled") => 18.0,
        Some("TemplateProcessing") => repeats(&part["single"]).max(1.0),
        _ => 1.0,
    }
}

/// How often a template repeats the text: as a list, or written in one line.
fn repeats(template: &Value) -> f64 {
    match template {
        Value::String(line) => line.matches('$').count() as f64,
        Value::Array(pieces) => pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count() as f64,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_that_multiply_a_text_are_refused_and_usual_ones_are_not() {
        let sequence = |list: &str, step: Value, times: usize| json!({"type": "Sequence", list: vec![step; times]});
        let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
        let empty = json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "ab"});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false});
        let twice = json!({"type": "TemplateProcessing", "single": "$A $A", "pair": "$A $B"});
        let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
        let often = json!({"type": "TemplateProcessing", "single": vec![piece; 100_001], "pair": []});
        for (part, value, good) in [
            ("normalizer", sequence("normalizers", replace("aa"), 17), false),
            ("normalizer", sequence("normalizers", replace("aa"), 16), true),
            ("normalizer", sequence("normalizers", replace("b"), 1000), true),
            ("normalizer", sequence("normalizers", empty, 11), false),
            ("normalizer", sequence("normalizers", sequence("normalizers", json!({"type": "NFKC"}), 2), 2), false),
            ("pre_tokenizer", sequence("pretokenizers", bytes.clone(), 17), false),
            ("pre_tokenizer", sequence("pretokenizers", bytes, 2), true),
            ("post_processor", sequence("processors", twice.clone(), 17), false),
            ("post_processor", twice, true),
            ("post_processor", often, false),
            ("decoder", sequence("decoders", replace("aa"), 17), false),
        ] {
            let checked = check(Path::new("tokenizer.json"), &json!({ part: value }));
            assert_eq!(checked.is_ok(), good, "{part} {value}");
            let said = checked.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(good || said.contains(&format!("`{part}`")) && said.contains("100000 times"), "{said}");
        }
    }
}
