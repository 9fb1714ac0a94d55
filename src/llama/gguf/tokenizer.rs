//! The tokenizer of a GGUF file, as `tokenizer.json` would have it.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::tensor::gguf::Gguf;

/// Kinds of tokens that are no pieces of text: control tokens, and those that users added.
pub const CONTROL: f64 = 3.0;
pub const ADDED: f64 = 4.0;

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// How texts are cut before bytes are merged, by the name that such files have for it.
const CUTS: [(&[&str], Cut); 5] = [
    (&["gpt-2", "gpt2"], Cut::Gpt2),
    (&["smollm"], Cut::DigitsAndGpt2),
    (&["llama-bpe", "llama3", "llama-v3", "smaug-bpe"], Cut::Expression(LLAMA_3)),
    (&[COMPOSED], Cut::Expression(QWEN_2)),
    (&["deepseek-r1-qwen"], Cut::Expression(QWEN_2)),
];

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The kind whose texts are composed first (Unicode's NFC).
const COMPOSED: &str = "qwen2";

/// Names of the ways to cut texts, one of each.
pub fn cuts() -> impl Iterator<Item = &'static str> {
    CUTS.iter().filter_map(|(names, _)| names.first().copied())
}

#[derive(Clone, Copy)]
enum Cut {
    /// As GPT-2 does.
    Gpt2,
    /// The same, after each digit stands alone.
    DigitsAndGpt2,
    Expression(&'static str),
}

/// What `tokenizer.json` would say. Fails if the vocabulary is of another kind than these two, or cut in a way that is not
/// known here.
pub fn tokenizer(file: &Gguf) -> Result<Value> {
    let vocabulary = Vocabulary::read(file)?;
    let mut parts = match file.text("tokenizer.ggml.model")? {
        Some("llama") => vocabulary.by_scores()?,
        Some("gpt2") => vocabulary.by_merges()?,
        _ => {
            return Err(
                file.wrong("tokenizer.ggml.model", "`llama` or `gpt2`; put the model's tokenizer.json beside it")
            );
        }
    };
    parts["version"] = "1.0".into();
    parts["added_tokens"] = vocabulary.added();
    parts["post_processor"] = vocabulary.around()?;
    Ok(parts)
}

/// What `tokenizer_config.json` would say: the chat template, and the texts of the tokens that templates name.
pub fn settings(file: &Gguf) -> Result<Map<String, Value>> {
    let vocabulary = Vocabulary::read(file)?;
    let mut settings = Map::new();
    for (theirs, ours) in
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
    {
        if let Some((_, text)) = vocabulary.special(theirs)? {
            settings.insert(ours.into(), text.into());
        }
    }
    if let Some(template) = file.text("tokenizer.chat_template")? {
        settings.insert("chat_template".into(), template.into());
    }
    Ok(settings)
}

struct Vocabulary<'a> {
    file: &'a Gguf,
    tokens: Vec<&'a str>,
    /// Kind of each token; empty if the file says nothing.
    kinds: Vec<f64>,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Vocabulary<'a>> {
        let (tokens, kinds) = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type");
        let Some(tokens) = file.texts(tokens)?.filter(|tokens| !tokens.is_empty()) else {
            return Err(file.wrong(tokens, "a list of texts; put the model's tokenizer.json beside it"));
        };
        let found = file.numbers(kinds)?.unwrap_or_default();
        if !found.is_empty() && found.len() != tokens.len() {
            return Err(file.wrong(kinds, &format!("a kind for each of {} tokens", tokens.len())));
        }
        Ok(Vocabulary { file, tokens, kinds: found })
    }

    fn is(&self, token: usize, kind: f64) -> bool {
        self.kinds.get(token) == Some(&kind)
    }

    /// Number and text of a special token, such as `bos`.
    fn special(&self, which: &str) -> Result<Option<(u64, &'a str)>> {
        let key = format!("tokenizer.ggml.{which}_token_id");
        let Some(id) = self.file.whole(&key)? else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| self.tokens.get(id)) {
            Some(text) => Ok(Some((id, text))),
            None => Err(self.file.wrong(&key, &format!("the number of one of {} tokens", self.tokens.len()))),
        }
    }

    /// Numbers of the tokens. Of tokens with the same text the first counts.
    fn numbers(&self) -> HashMap<&'a str, usize> {
        let mut numbers = HashMap::with_capacity(self.tokens.len());
        for (number, token) in self.tokens.iter().enumerate() {
            numbers.entry(*token).or_insert(number);
        }
        numbers
    }

    /// The vocabulary of a `tokenizer.json`. Tokens whose text another has already keep their numbers under names that no
    /// text has.
    fn vocab(&self) -> Map<String, Value> {
        let mut vocab = Map::new();
        for (number, token) in self.tokens.iter().enumerate() {
            match vocab.contains_key(*token) {
                false => vocab.insert(token.to_string(), number.into()),
                true => vocab.insert(format!("{token}\u{0}{number}"), number.into()),
            };
        }
        vocab
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self) -> Value {
        let unknown = self.file.whole("tokenizer.ggml.unknown_token_id").ok().flatten();
        let tokens = self.tokens.iter().enumerate();
        tokens
            .filter(|&(number, token)| {
                let whole = self.is(number, CONTROL) || self.is(number, ADDED) || unknown == Some(number as u64);
                whole && !token.is_empty()
            })
            .map(|(number, token)| {
                json!({"id": number, "content": token, "special": !self.is(number, ADDED), "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false})
            })
            .collect()
    }

    /// The tokens that stand before and after a text.
    fn around(&self) -> Result<Value> {
        // Files of SentencePiece models begin texts if they do not say otherwise.
        let scores = self.file.text("tokenizer.ggml.model")? == Some("llama");
        let asked = |which: &str, usual: bool| -> Result<Option<(u64, &str)>> {
            let asked = self.file.flag(&format!("tokenizer.ggml.add_{which}_token"))?.unwrap_or(usual);
            if asked { self.special(which) } else { Ok(None) }
        };
        let (start, end) = (asked("bos", scores)?, asked("eos", false)?);
        if start.is_none() && end.is_none() {
            return Ok(Value::Null);
        }
        let piece =
            |token: Option<(u64, &str)>| token.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": 0}}));
        let text = |id: &str| Some(json!({"Sequence": {"id": id, "type_id": 0}}));
        let single: Vec<Value> = [piece(start), text("A"), piece(end)].into_iter().flatten().collect();
        let pair = [piece(start), text("A"), piece(end), piece(start), text("B"), piece(end)];
        let pair: Vec<Value> = pair.into_iter().flatten().collect();
        let special = [start, end].into_iter().flatten();
        let special: Map<String, Value> =
            special.map(|(id, text)| (text.to_string(), json!({"id": text, "ids": [id], "tokens": [text]}))).collect();
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}))
    }

    /// SentencePiece's BPE (`llama`): of all neighbours those are merged whose text has the highest score. A merge of a
    /// `tokenizer.json` is such a pair of tokens; they are ordered as Hugging Face's converter orders them.
    fn by_scores(&self) -> Result<Value> {
        let key = "tokenizer.ggml.scores";
        let scores = self.file.numbers(key)?.unwrap_or_default();
        if scores.len() != self.tokens.len() {
            return Err(self.file.wrong(key, &format!("a score for each of {} tokens", self.tokens.len())));
        }
        let numbers = self.numbers();
        let mut merges: Vec<(f64, [usize; 2], &str, &str)> = Vec::new();
        for (number, token) in self.tokens.iter().enumerate() {
            if numbers.get(token) != Some(&number) || self.is(number, CONTROL) {
                continue;
            }
            let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let known = |text: &str| numbers.get(text).copied();
            let of_token = cuts.filter_map(|(a, b)| Some((scores[number], [known(a)?, known(b)?], a, b)));
            let first = merges.len();
            merges.extend(of_token);
            merges[first..].sort_by_key(|merge| merge.1);
        }
        merges.sort_by(|a, b| {
            let lengths = |merge: &(f64, [usize; 2], &str, &str)| (merge.2.chars().count(), merge.3.chars().count());
            b.0.total_cmp(&a.0).then_with(|| lengths(b).cmp(&lengths(a)))
        });
        let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, a, b)| [a, b]).collect();
        let unknown = self.special("unknown")?.map(|(_, text)| text);
        let bytes = (0..=255u8).all(|byte| numbers.contains_key(&format!("<0x{byte:02X}>")[..]));
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let prefix = self.file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let first = prefix.then(|| json!({"type": "Prepend", "prepend": SPACE}));
        let before: Vec<Value> = first.into_iter().chain([spaces]).collect();
        let back = json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "});
        let strip = prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        let after = [back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})].into_iter().chain(strip);
        Ok(json!({
            "normalizer": {"type": "Sequence", "normalizers": before},
            "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": after.collect::<Vec<_>>()},
            "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false,
                "vocab": self.vocab(), "merges": merges},
        }))
    }

    /// GPT-2's BPE over bytes (`gpt2`): neighbours are merged in the order of a list.
    fn by_merges(&self) -> Result<Value> {
        let (merges, cut) = ("tokenizer.ggml.merges", "tokenizer.ggml.pre");
        let Some(merges) = self.file.texts(merges)? else { return Err(self.file.wrong(merges, "a list of texts")) };
        let known = self.file.text(cut)?.and_then(|name| CUTS.iter().find(|(names, _)| names.contains(&name)));
        let Some((names, how)) = known else {
            let names: Vec<&str> = cuts().collect();
            let needs = format!(
                "one of {} (how texts are cut before bytes are merged); put the model's tokenizer.json beside it",
                names.join(", ")
            );
            return Err(self.file.wrong(cut, &needs));
        };
        let by_bytes =
            |cut: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cut});
        let steps = match how {
            Cut::Gpt2 => vec![by_bytes(true)],
            Cut::DigitsAndGpt2 => vec![json!({"type": "Digits", "individual_digits": true}), by_bytes(true)],
            Cut::Expression(expression) => {
                let split =
                    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
                vec![split, by_bytes(false)]
            }
        };
        // Llama 3 takes a piece that is a token as it is.
        let whole = matches!(how, Cut::Expression(expression) if *expression == LLAMA_3);
        Ok(json!({
            "normalizer": names.contains(&COMPOSED).then(|| json!({"type": "NFC"})),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "decoder": by_bytes(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole,
                "vocab": self.vocab(), "merges": merges},
        }))
    }
}
