//! The vocabulary of a `tokenizer.json` as the settings of a GGUF file, and the proof that both cut texts alike.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tokenizer::{ADDED, CONTROL, cuts, tokenizer};
use crate::error::{Error, Result};
use crate::fields::{Fields, read_json};
use crate::tensor::gguf::{Gguf, Setting, write};
use crate::tokenizer::{self, Tokenizer};

/// Kinds of tokens beside control tokens and those that users added.
const NORMAL: f64 = 1.0;
const UNKNOWN: f64 = 2.0;
const UNUSED: f64 = 5.0;
const BYTE: f64 = 6.0;

/// Texts that a file's tokenizer must cut as the directory's does: words, digits, spaces, lines, marks, contractions, scripts,
/// and what no vocabulary has.
const PROBES: [&str; 31] = [
    "Hello world",
    "The quick brown fox jumps over the lazy dog.",
    " leading and trailing ",
    "  two   three    four     spaces",
    "tabs\tand\nlines\n\nand\r\nmore \n x",
    "it's they're I'll we'd DON'T can't you've I'm",
    "1 12 123 1234 12345 3.14159 1,000,000 007",
    // The kinds differ in which of several spaces, tabs and lines they leave to what follows.
    "a  2   3    44 \t5 \n6 \n\n7",
    "x\n\n\n8\t\t9  !  ?\n\n... \n \n y\n\n\tz",
    "\r\n 1\r\n\r\n2  'tis  \t'll \u{a0}3\u{3000}\u{3000}4",
    "x=y+z; if(a<=b){return c[0];} // done",
    "https://example.org/a_b-c?d=e&f=%20#g",
    "snake_case camelCase SCREAMING-KEBAB",
    "“quotes” ‘single’ «guillemets» — dash… ellipsis",
    "Jürgen Müßig aß Käsespätzle in Zürich",
    "Où est l'été ? À côté de l'hôtel, garçon !",
    "El niño comió piñata mañana; ¿verdad?",
    "Žluťoučký kůň příšerně úpěl ďábelské ódy",
    "Съешь же ещё этих мягких французских булок",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "דג סקרן שט בים מאוכזב",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "ราชบัณฑิตยสถาน ภาษาไทย",
    "いろはにほへと ちりぬるを カタカナ",
    "天地玄黃宇宙洪荒 简体中文，标点。",
    "키스의 고유조건은 입술끼리 만나야",
    "emoji 👩‍👩‍👧‍👦 🇩🇪 😀😀 ✌🏽",
    "e\u{301} combining \u{200d} joiner \u{feff} mark",
    "a\u{0}b \u{1}\u{7f} \u{a0}nbsp\u{3000}wide",
    "\u{1d54f} \u{10ffff} \u{fffd}",
];

/// Settings of a file with the vocabulary of a directory, up to as many tokens as its embedding has.
///
/// Fails if the tokenizer is of a kind that such files do not have, or if, read back, it would cut one of [`PROBES`]
/// otherwise.
pub fn settings(folder: &Path, tokens: usize) -> Result<Vec<(String, Setting)>> {
    let path = folder.join(tokenizer::FILE);
    let own = Tokenizer::open(folder)?;
    let vocabulary = Vocabulary::read(&path, tokens)?;
    let mut settings = vocabulary.settings(&own)?;
    settings.extend(special(folder, &own)?);
    let mut differs = None;
    let cuts: Vec<Option<&str>> = if vocabulary.bytes { vec![None] } else { cuts().map(Some).collect() };
    for cut in cuts {
        let mut tried = settings.clone();
        tried.extend(cut.map(|cut| ("tokenizer.ggml.pre".into(), Setting::Text(cut.into()))));
        match difference(&own, &tried)? {
            None => return Ok(tried),
            Some(text) => differs = Some(text),
        }
    }
    let text = differs.unwrap_or_default();
    let reason = format!("cuts texts otherwise than the kinds that GGUF files name, for instance {text:?}");
    Err(Error::file(path, reason))
}

/// The first of [`PROBES`] whose tokens a file with these settings would have otherwise.
fn difference(own: &Tokenizer, settings: &[(String, Setting)]) -> Result<Option<&'static str>> {
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))?;
    let path = folder.path().join("vocabulary.gguf");
    write(&path, settings, &[], |_| Err(Error::invalid("a vocabulary has no tensors")))?;
    let file = Gguf::open(&path)?;
    let theirs = Tokenizer::of(&path, tokenizer(&file)?)?;
    for text in PROBES {
        for special in [false, true] {
            if own.encode(text, special)? != theirs.encode(text, special)? {
                return Ok(Some(text));
            }
        }
    }
    Ok(None)
}

/// Settings of the special tokens, and whether they stand around a text.
fn special(folder: &Path, own: &Tokenizer) -> Result<Vec<(String, Setting)>> {
    let mut settings = Vec::new();
    let path = folder.join("tokenizer_config.json");
    let around = own.encode("a", true)?;
    if path.is_file() {
        let fields = Fields::read(&path)?;
        for (ours, theirs) in [("bos_token", "bos"), ("unk_token", "unknown"), ("pad_token", "padding")] {
            let text = match fields.get(ours) {
                Some(Value::String(text)) => Some(text.as_str()),
                Some(other) => other["content"].as_str(),
                None => None,
            };
            if let Some(id) = text.and_then(|text| own.id(text)) {
                settings.push((format!("tokenizer.ggml.{theirs}_token_id"), Setting::Size(id)));
                if theirs == "bos" {
                    let first = around.first() == Some(&id);
                    settings.push(("tokenizer.ggml.add_bos_token".into(), Setting::Flag(first)));
                }
            }
        }
    }
    let end = crate::llama::GenerationConfig::read(folder)?.end;
    let names = ["eos", "eot", "eom"];
    if end.len() > names.len() {
        let reason = format!("has {} end tokens; a GGUF file has at most {}", end.len(), names.len());
        return Err(Error::file(folder, reason + ": take those out of `eos_token_id` that no answer ends with"));
    }
    for (which, &id) in names.into_iter().zip(&end) {
        settings.push((format!("tokenizer.ggml.{which}_token_id"), Setting::Size(id)));
        if which == "eos" {
            let last = around.len() > 1 && around.last() == Some(&id);
            settings.push(("tokenizer.ggml.add_eos_token".into(), Setting::Flag(last)));
        }
    }
    Ok(settings)
}

/// A vocabulary as `tokenizer.json` has it.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<f64>,
    /// Pairs, the first the most likely.
    merges: Vec<[String; 2]>,
    /// Whether texts are cut by SentencePiece's pieces, and bytes for what these lack; else by bytes alone.
    bytes: bool,
    path: PathBuf,
}

impl Vocabulary {
    fn read(path: &Path, count: usize) -> Result<Vocabulary> {
        let file = read_json(path)?;
        let model = &file["model"];
        let refuse = |reason: &str| Error::file(path, format!("{reason}; GGUF files have vocabularies of byte pairs"));
        if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
            return Err(refuse("is no BPE"));
        }
        let bytes = model["byte_fallback"] == true;
        let words = model["vocab"].as_object().ok_or_else(|| refuse("has no vocabulary"))?;
        let added = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let unknown = model["unk_token"].as_str();
        // Numbers that no token has are kept.
        let mut tokens: Vec<(String, f64)> = (0..count).map(|id| (format!("[UNUSED_{id}]"), UNUSED)).collect();
        let mut put = |id: Option<u64>, text: &str, kind: f64| {
            let place = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
            let reason = || format!("token {text:?} has no number below {count}, the rows of the embedding");
            *place.ok_or_else(|| Error::file(path, reason()))? = (text.into(), kind);
            Ok::<_, Error>(())
        };
        for (text, id) in words {
            let byte = bytes && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            let kind = if byte {
                BYTE
            } else if unknown == Some(text) {
                UNKNOWN
            } else {
                NORMAL
            };
            put(id.as_u64(), text, kind)?;
        }
        for token in added {
            let stripping = ["lstrip", "rstrip", "single_word"].into_iter().find(|key| token[*key] == true);
            if let Some(key) = stripping {
                let reason = format!("has an added token {} with `{key}`, which no GGUF file says", token["content"]);
                return Err(Error::file(path, reason));
            }
            let text = token["content"].as_str().ok_or_else(|| refuse("has an added token without a text"))?;
            let kind = match token["special"] == true {
                _ if unknown == Some(text) => UNKNOWN,
                true => CONTROL,
                false => ADDED,
            };
            put(token["id"].as_u64(), text, kind)?;
        }
        let merge = |merge: &Value| {
            let pair = match merge {
                Value::String(text) => text.split_once(' ').map(|(a, b)| [a.to_string(), b.to_string()]),
                other => other[0].as_str().zip(other[1].as_str()).map(|(a, b)| [a.to_string(), b.to_string()]),
            };
            pair.ok_or_else(|| refuse("has a merge that is no pair"))
        };
        let merges = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
        let merges = merges.iter().map(merge).collect::<Result<_>>()?;
        let (tokens, kinds) = tokens.into_iter().unzip();
        Ok(Vocabulary { tokens, kinds, merges, bytes, path: path.into() })
    }

    fn settings(&self, own: &Tokenizer) -> Result<Vec<(String, Setting)>> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let kinds = self.kinds.iter().map(|&kind| kind as i32).collect();
        let mut settings = vec![
            (key("model"), Setting::Text(if self.bytes { "llama" } else { "gpt2" }.into())),
            (key("tokens"), Setting::Texts(self.tokens.clone())),
            (key("token_type"), Setting::Kinds(kinds)),
        ];
        if self.bytes {
            settings.push((key("scores"), Setting::Numbers(self.scores()?)));
            // A space before a text is a token of its own, or part of the first one.
            let prefix =
                own.encode("a", false)? == own.encode(" a", false)? || own.encode("a", false)? != self.plain("a");
            settings.push((key("add_space_prefix"), Setting::Flag(prefix)));
        } else {
            let merges = self.merges.iter().map(|[a, b]| format!("{a} {b}")).collect();
            settings.push((key("merges"), Setting::Texts(merges)));
        }
        Ok(settings)
    }

    /// The number of a text that is a token.
    fn plain(&self, text: &str) -> Vec<u32> {
        self.tokens.iter().position(|token| token == text).map(|id| id as u32).into_iter().collect()
    }

    /// Scores of SentencePiece's pieces that give the merges' order: that of a token is minus the place of its merges, which
    /// must follow one another.
    fn scores(&self) -> Result<Vec<f32>> {
        let numbers: HashMap<&str, usize> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let mut scores = vec![0.0; self.tokens.len()];
        let mut ended = HashSet::new();
        let (mut last, mut rank) = (None, 0u32);
        for [a, b] in &self.merges {
            let made = format!("{a}{b}");
            let Some(&id) = numbers.get(&made[..]) else {
                return Err(Error::file(&self.path, format!("merges {made:?}, which is no token")));
            };
            if last != Some(id) {
                if !ended.insert(id) {
                    let reason = format!("merges {made:?} at two places, which no score of a piece says");
                    return Err(Error::file(&self.path, reason));
                }
                (last, rank) = (Some(id), rank + 1);
            }
            scores[id] = -(rank as f32);
        }
        // Pieces that nothing is merged into are single characters and whole words of the user's; none is made of others.
        let least = -(rank as f32) - 1.0;
        let merged = |id: &usize| ended.contains(id);
        (0..scores.len()).filter(|id| !merged(id) && self.kinds[*id] == NORMAL).for_each(|id| scores[id] = least);
        Ok(scores)
    }
}
