//! `tokenizer_config.json`: what transformers would change in `tokenizer.json` by it is refused, since only one of the two
//! can be meant.

use std::path::Path;

use serde_json::Value;

use super::Tokenizer;
use crate::error::{Error, Result};
use crate::fields::{Fields, read_json};

/// Settings of BertTokenizer, and what they are in the normalizer that `tokenizer.json` holds.
const BERT: [(&str, &str); 3] = [
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
];

/// Fails if `tokenizer_config.json` is there and disagrees with the tokenizer.
pub fn check(folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(());
    }
    let settings = Fields::read(&path)?;
    let class = settings.text("tokenizer_class")?.unwrap_or_default().to_string();
    if class.starts_with("Bert") {
        let file = read_json(&tokenizer.path)?;
        let normalizer =
            file.get("normalizer").filter(|n| n.get("type").and_then(Value::as_str) == Some("BertNormalizer"));
        for (key, name) in BERT {
            let (Some(asked), Some(found)) = (settings.flag(key)?, normalizer.and_then(|n| n.get(name)?.as_bool()))
            else {
                continue;
            };
            if asked != found {
                let reason =
                    format!("`{key}` is {asked}, `normalizer.{name}` of tokenizer.json is {found}; let them agree");
                return Err(settings.error(reason));
            }
        }
    }
    if class.starts_with("Llama") || class.starts_with("CodeLlama") {
        let around = tokenizer.encode("", true)?;
        for (key, token, what) in [("add_bos_token", "bos_token", "start"), ("add_eos_token", "eos_token", "end")] {
            let Some(asked) = settings.flag(key)? else { continue };
            let text = settings.get(token).and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
            let Some(id) = text.and_then(|text| tokenizer.id(text)) else { continue };
            if around.contains(&id) != asked {
                let verb = if asked { "adds no" } else { "adds a" };
                let reason = format!("`{key}` is {asked}, but tokenizer.json {verb} {what} token; let them agree");
                return Err(settings.error(reason));
            }
        }
    }
    let Some(added) = settings.under("added_tokens_decoder")? else { return Ok(()) };
    for key in added.keys() {
        let content = added.get(key).and_then(|token| token.get("content")).and_then(Value::as_str);
        let (Ok(id), Some(content)) = (key.parse::<u32>(), content) else {
            return Err(added.wrong(key, "a token with its `content`"));
        };
        let found = tokenizer.id(content);
        if found != Some(id) {
            let found = found.map_or("has no such token".into(), |found| format!("numbers it {found}"));
            let name = added.name(key);
            return Err(Error::file(
                &path,
                format!("`{name}` is {content:?}, but tokenizer.json {found}; let them agree"),
            ));
        }
    }
    Ok(())
}
