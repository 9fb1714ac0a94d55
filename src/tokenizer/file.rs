//! `tokenizer.json`: what the library that reads it takes for granted is checked before.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::guard::caught;

/// Token numbers stay below this: no model has as many.
const MOST_IDS: u64 = 1 << 24;

/// Most added tokens; the published tokenizers have some thousands.
const MOST_ADDED: usize = 20_000;

/// The parts beside the model, and what a text goes through in them.
const PARTS: [&str; 4] = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];

/// Fails if vocabulary, merges or added tokens are missing or not what they must be.
pub fn check(path: &Path, file: &Value) -> Result<()> {
    let refuse = |reason: String| Err(Error::file(path, reason));
    let Some(model) = file.get("model").filter(|model| model.is_object()) else {
        return refuse("is no tokenizer: it has no `model`".into());
    };
    let empty = || refuse("`model.vocab` is empty or missing".into());
    match model.get("vocab") {
        Some(Value::Object(vocab)) => {
            if vocab.is_empty() {
                return empty();
            }
            if let Some((token, id)) = vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id >= MOST_IDS)) {
                return refuse(format!("`model.vocab`: token {} has the number {}", shown(token), shown(id)));
            }
            check_merges(path, model, |token| vocab.contains_key(token))?;
        }
        Some(Value::Array(pieces)) => {
            if pieces.is_empty() {
                return empty();
            }
            let good = |piece: &Value| match piece.as_array().map(Vec::as_slice) {
                Some([text, score]) => {
                    text.as_str().is_some_and(|t| !t.is_empty()) && score.as_f64().is_some_and(f64::is_finite)
                }
                _ => false,
            };
            if let Some(at) = pieces.iter().position(|piece| !good(piece)) {
                return refuse(format!("`model.vocab`: entry {at} is no text with a score"));
            }
        }
        _ => return empty(),
    }
    let added = match file.get("added_tokens") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(added)) => added,
        Some(_) => return refuse("`added_tokens` is no list".into()),
    };
    if added.len() > MOST_ADDED {
        return refuse(format!("has {} `added_tokens`, at most {MOST_ADDED} are supported", added.len()));
    }
    for (at, token) in added.iter().enumerate() {
        let id = token.get("id").and_then(Value::as_u64).filter(|&id| id < MOST_IDS);
        let content = token.get("content").and_then(Value::as_str).filter(|text| !text.is_empty());
        if id.is_none() || content.is_none() {
            return refuse(format!("`added_tokens`: entry {at} has no `content` and `id` that make sense"));
        }
    }
    Ok(())
}

/// Merges of pairs, written as a list or as one text, of tokens that are there.
fn check_merges(path: &Path, model: &Value, known: impl Fn(&str) -> bool) -> Result<()> {
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    for (at, merge) in model.get("merges").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            Value::Array(pair) => match &pair[..] {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let refuse = |reason: String| Err(Error::file(path, format!("`model.merges`: entry {at} {reason}")));
        let Some((a, b)) = pair else { return refuse("is no pair of tokens".into()) };
        let Some(rest) = b.strip_prefix(prefix).or((prefix.is_empty()).then_some(b)) else {
            return refuse(format!("continues with {b:?}, which does not begin with `continuing_subword_prefix`"));
        };
        if let Some(missing) = [a, b, &format!("{a}{rest}")].into_iter().find(|token| !known(token)) {
            return refuse(format!("names {}, which is not in `model.vocab`", shown(missing)));
        }
    }
    Ok(())
}

/// Has the library read a checked file. What it says about padding and cutting does not count.
pub fn read(path: &Path, mut file: Value) -> Result<tokenizers::Tokenizer> {
    for ignored in ["padding", "truncation"] {
        if let Some(entry) = file.get_mut(ignored) {
            *entry = Value::Null;
        }
    }
    let parse = |file: &Value| {
        let text = file.to_string();
        caught(|| text.parse::<tokenizers::Tokenizer>().map_err(|_| String::new())).flatten()
    };
    parse(&file).map_err(|panic| {
        // The library's error names no place: without the part that it cannot read, it reads the rest.
        let without = |part: &&&str| {
            let mut file = file.clone();
            let had = file.get_mut(**part).map(Value::take);
            had.is_some_and(|part| !part.is_null()) && parse(&file).is_ok()
        };
        let part = PARTS.iter().find(without).copied().unwrap_or("model");
        let kind = file.get(part).and_then(|part| part.get("type")).and_then(Value::as_str);
        let kind = kind.map_or(String::new(), |kind| format!(" of type {}", shown(kind)));
        let said = if panic.is_empty() { String::new() } else { format!(" ({panic})") };
        Error::file(path, format!("cannot be read as a tokenizer: its `{part}`{kind} is broken or unknown{said}"))
    })
}

/// A value as an error shows it.
fn shown(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})
    }

    fn open(text: &str) -> Result<tokenizers::Tokenizer> {
        let path = Path::new("tokenizer.json");
        let file = crate::fields::parse_json(path, text)?;
        check(path, &file)?;
        read(path, file)
    }

    #[test]
    fn what_would_make_the_library_panic_or_hang_is_named() {
        assert_eq!(open(&good().to_string()).unwrap().encode("ab", false).unwrap().get_ids(), [2]);
        let unigram = |vocab: Value| json!({"type": "Unigram", "vocab": vocab, "unk_id": 0});
        let added = |token: Value| json!([token]);
        let nested =
            (0..100).fold(json!({"type": "Lowercase"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
        for (place, value, says) in [
            ("/model", json!(null), "has no `model`"),
            ("/model/vocab", json!({}), "`model.vocab` is empty"),
            ("/model/vocab", json!(3), "`model.vocab` is empty or missing"),
            ("/model/vocab/a", json!(u32::MAX), "token \"a\" has the number Number(4294967295)"),
            ("/model/vocab/a", json!(-1), "token \"a\""),
            ("/model/merges", json!(["a c"]), "entry 0 names \"c\", which is not in `model.vocab`"),
            ("/model/merges", json!([["b", "a"]]), "entry 0 names \"ba\""),
            ("/model/merges", json!(["a"]), "entry 0 is no pair"),
            ("/model/continuing_subword_prefix", json!("####"), "does not begin with `continuing_subword_prefix`"),
            ("/model", unigram(json!([])), "`model.vocab` is empty"),
            ("/model", unigram(json!([["", 0.0]])), "entry 0 is no text with a score"),
            ("/model", unigram(json!([["a", null]])), "entry 0 is no text with a score"),
            ("/model/type", json!("Markov"), "its `model` of type \"Markov\" is broken or unknown"),
            ("/added_tokens", added(json!({"id": u32::MAX, "content": "x"})), "`added_tokens`: entry 0"),
            ("/added_tokens", added(json!({"id": 3, "content": ""})), "`added_tokens`: entry 0"),
            ("/added_tokens", json!(vec![json!({"id": 3, "content": "x"}); 20_001]), "has 20001 `added_tokens`"),
            (
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false}),
                "its `pre_tokenizer` of type \"Split\" is broken",
            ),
            ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "its `normalizer`"),
            ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "its `normalizer`"),
            ("/normalizer", nested, "is no JSON"),
            ("/post_processor", json!({"type": "TemplateProcessing", "single": "$A [X]"}), "its `post_processor`"),
            ("/decoder", json!({"type": "Nothing"}), "its `decoder` of type \"Nothing\""),
        ] {
            let mut file = good();
            match file.pointer_mut(place) {
                Some(entry) => *entry = value,
                None => file["model"][place.rsplit('/').next().unwrap()] = value,
            }
            let error = open(&file.to_string()).expect_err(place).to_string();
            assert!(error.contains(says), "{place}: {error}");
        }
        assert!(open("[]").is_err() && open("{}").is_err());
    }
}
