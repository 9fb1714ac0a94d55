//! A model's chat template: how a conversation becomes one text.
//!
//! Templates are Jinja written for Python's engine; [`ChatTemplate`] gives them what Hugging Face gives: blocks trimmed,
//! Python's string and dict methods, `raise_exception`, `strftime_now`, `tojson` that escapes nothing, loop controls.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;

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

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or else `chat_template` of `tokenizer_config.json`; `None` if there is neither.
    pub fn open(folder: &Path) -> Result<Option<ChatTemplate>> {
        let (own, config) = (folder.join("chat_template.jinja"), folder.join("tokenizer_config.json"));
        let settings: Value = match config.exists() {
            true => serde_json::from_str(&files::read_text(&config)?)
                .map_err(|e| Error::file(&config, format!("is no JSON: {e}")))?,
            false => Value::Null,
        };
        let (path, text) = match (own.exists(), in_settings(&settings)) {
            (true, _) => (own.clone(), files::read_text(&own)?),
            (false, Some(text)) => (config, text),
            (false, None) => return Ok(None),
        };
        let mut environment = environment();
        environment.add_template_owned(NAME, text).map_err(|e| refused(&path, &e))?;
        Ok(Some(ChatTemplate { path, environment, tokens: tokens(&settings) }))
    }

    /// The text of a conversation; with `answer`, up to where the assistant's answer starts.
    ///
    /// Fails if the template refuses the conversation, as some do with a system message; the error is the template's own.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let mut variables = self.tokens.clone();
        variables.insert("add_generation_prompt".into(), answer.into());
        let context = context! { messages, ..minijinja::Value::from_serialize(&variables) };
        let template = self.environment.get_template(NAME).map_err(|e| refused(&self.path, &e))?;
        template.render(context).map_err(|e| refused(&self.path, &e))
    }
}

/// The message of the innermost error: what the template itself said, or what it tripped over.
fn refused(path: &Path, error: &minijinja::Error) -> Error {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line} of the template)"));
    Error::file(path, format!("chat template: {error}{line}"))
}

/// `chat_template`: a text, or a list of named ones, of which `default` counts.
fn in_settings(settings: &Value) -> Option<String> {
    match settings.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let text = |t: &Value| t.get("template").and_then(Value::as_str).map(str::to_string);
            let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            default.or(named.first()).and_then(text)
        }
        _ => None,
    }
}

/// Entries such as `bos_token`, each a text or an object with its `content`.
fn tokens(settings: &Value) -> serde_json::Map<String, Value> {
    let entries = settings.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token"));
    let text = |v: &Value| v.as_str().or_else(|| v.get("content").and_then(Value::as_str)).map(|t| t.into());
    entries.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
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
