//! A model's chat template: how a conversation becomes one text.
//!
//! Templates are Jinja written for Python's engine; [`ChatTemplate`] gives them what Hugging Face gives: blocks trimmed,
//! Python's string and dict methods, `raise_exception`, `strftime_now`, `tojson` that escapes nothing, loop controls.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, context};
use regex::{Captures, Regex};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::{files, template};

/// Most spaces of a level of JSON that a template writes: each takes memory before any is written.
const WIDEST_INDENT: usize = 100;

/// Most characters of a template's own error.
const SAID: usize = 500;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What it says.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Message {
        Message { role: "user".into(), content: content.into() }
    }

    /// An instruction that stands before the conversation.
    pub fn system(content: impl Into<String>) -> Message {
        Message { role: "system".into(), content: content.into() }
    }
}

/// A compiled template.
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    /// Texts of the special tokens (`bos_token`, `eos_token`, ...) that templates name.
    tokens: serde_json::Map<String, Value>,
}

const NAME: &str = "chat template";

/// A file of its own, where transformers keeps the template by now.
const OWN: &str = "chat_template.jinja";

impl ChatTemplate {
    /// Reads `chat_template.jinja` or `chat_template` of `tokenizer_config.json`; `None` if there is neither. Where both
    /// are there, they must agree.
    pub fn open(folder: &Path) -> Result<Option<ChatTemplate>> {
        let Some(Found { path, text, settings }) = found(folder)? else { return Ok(None) };
        ChatTemplate::compiled(path, &text, settings.as_ref()).map(Some)
    }

    /// The template of settings such as those of `tokenizer_config.json`, if there is one.
    pub fn of(settings: &Fields) -> Result<Option<ChatTemplate>> {
        let Some(text) = in_settings(settings)? else { return Ok(None) };
        ChatTemplate::compiled(settings.path().to_path_buf(), &text, Some(settings)).map(Some)
    }

    fn compiled(path: PathBuf, text: &str, settings: Option<&Fields>) -> Result<ChatTemplate> {
        let mut environment = environment();
        environment.add_template_owned(NAME, unmarked(text).into_owned()).map_err(|e| refused(&path, &e))?;
        let tokens = settings.map(tokens).unwrap_or_default();
        Ok(ChatTemplate { path, environment, tokens })
    }

    /// The text of a conversation; with `answer`, up to where the assistant's answer starts.
    ///
    /// Fails if the template refuses the conversation, as some do with a system message; the error is the template's own.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let mut variables = self.tokens.clone();
        variables.insert("add_generation_prompt".into(), answer.into());
        // Always there in transformers, and asked for by templates.
        for none in ["tools", "documents"] {
            variables.insert(none.into(), Value::Null);
        }
        let context = context! { messages, ..minijinja::Value::from_serialize(&variables) };
        let template = self.environment.get_template(NAME).map_err(|e| refused(&self.path, &e))?;
        template::render(&template, context).map_err(|e| refused(&self.path, &e))
    }
}

/// The text of a template, the file that has it, and `tokenizer_config.json`.
pub(super) struct Found {
    path: PathBuf,
    pub text: String,
    settings: Option<Fields>,
}

/// The template of a directory, as [`ChatTemplate::open`] says.
pub(super) fn found(folder: &Path) -> Result<Option<Found>> {
    let (own, config) = (folder.join(OWN), folder.join("tokenizer_config.json"));
    let settings = if config.exists() { Some(Fields::read(&config)?) } else { None };
    let beside = settings.as_ref().map(in_settings).transpose()?.flatten();
    let alone = if own.exists() { Some(files::read_text(&own)?) } else { None };
    let (path, text) = match (alone, beside) {
        (Some(alone), Some(beside)) if alone.trim_end() != beside.trim_end() => {
            let reason = "disagrees with `chat_template` of tokenizer_config.json; take out the one not meant";
            return Err(Error::file(own, reason));
        }
        (Some(text), _) => (own, text),
        (None, Some(text)) => (config, text),
        (None, None) => return Ok(None),
    };
    Ok(Some(Found { path, text, settings }))
}

/// A template without the marks of what the assistant says, which mean something in training alone. What is between
/// them keeps its scope, its lines and how it treats white space.
fn unmarked(text: &str) -> Cow<'_, str> {
    static MARK: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})").ok());
    let instead = |marks: &Captures| {
        let end = marks.get(2).map_or("", |end| end.as_str());
        format!("{}{end}with{}", &marks[1], &marks[3])
    };
    MARK.as_ref().map_or(Cow::Borrowed(text), |mark| mark.replace_all(text, instead))
}

/// The message of the innermost error: what the template itself said, or what it tripped over.
fn refused(path: &Path, error: &minijinja::Error) -> Error {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line} of the template)"));
    let mut said = error.to_string();
    if let Some((cut, _)) = said.char_indices().nth(SAID) {
        said.truncate(cut);
        said.push_str("...");
    }
    Error::file(path, format!("chat template: {said}{line}"))
}

/// `chat_template`: a text, or a list of named ones, of which `default` counts.
fn in_settings(settings: &Fields) -> Result<Option<String>> {
    let wrong = || settings.wrong("chat_template", "a text, or a list of objects with a `name` and a `template`");
    match settings.get("chat_template") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let chosen = default.or(named.first()).and_then(|t| t.get("template")).and_then(Value::as_str);
            chosen.map(|text| Some(text.to_string())).ok_or_else(wrong)
        }
        Some(_) => Err(wrong()),
    }
}

/// Entries such as `bos_token`, each a text or an object with its `content`.
fn tokens(settings: &Fields) -> serde_json::Map<String, Value> {
    let entries = settings.keys().filter(|name| name.ends_with("_token"));
    let text = |v: &Value| v.as_str().or_else(|| v.get("content").and_then(Value::as_str)).map(|t| t.into());
    entries.filter_map(|name| Some((name.to_string(), text(settings.get(name)?)?))).collect()
}

fn environment() -> Environment<'static> {
    let mut environment = template::environment();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment.add_function("strftime_now", |format: String| {
        let now: chrono::DateTime<chrono::Utc> = SystemTime::now().into();
        let mut text = String::new();
        // Formatting fails on an unknown conversion.
        match std::fmt::Write::write_fmt(&mut text, format_args!("{}", now.format(&format))) {
            Ok(()) => Ok(text),
            Err(_) => Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime: `{format}`"))),
        }
    });
    environment.add_filter("tojson", |value: minijinja::Value, options: Kwargs| to_json(&value, &options));
    environment
}

/// Python's `json.dumps(value, ensure_ascii=False)`, which puts a space after commas and colons, unlike Rust's writer.
fn to_json(value: &minijinja::Value, options: &Kwargs) -> Result<String, minijinja::Error> {
    let failed = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|width| width > WIDEST_INDENT) {
        let reason = format!("tojson: an indent may be {WIDEST_INDENT} at most");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    }
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let format = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(failed)?,
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Separators as Python writes them.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
