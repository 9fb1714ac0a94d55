//! The settings of a JSON file by their names: what is there has the right kind or is refused by name, and `null` is
//! as if it were not there.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;

/// No size of a model is larger. What is smaller may still not fit the weights, which is checked there.
const MOST: u64 = 1 << 30;

/// Most characters of a value that an error repeats.
const SHOWN: usize = 60;

/// A JSON object, of a file or inside of one.
#[derive(Clone, Debug)]
pub struct Fields {
    path: PathBuf,
    /// What stands before each key: `text_config.`
    place: String,
    entries: Map<String, Value>,
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Result<Value> {
    parse_json(path, &files::read_text(path)?)
}

/// The JSON of a text that was read from a file.
pub fn parse_json(path: &Path, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        Error::file(
            path,
            match e.classify() {
                Category::Eof => format!("is no JSON: it ends in line {line} before it is complete; was it cut short?"),
                _ => format!("is no JSON: it cannot be read at line {line}, column {column}"),
            },
        )
    })
}

impl Fields {
    /// Reads a file that holds a JSON object.
    pub fn read(path: &Path) -> Result<Fields> {
        match read_json(path)? {
            Value::Object(entries) => Ok(Fields::of(path, entries)),
            other => Err(Error::file(path, format!("holds {}, needs an object of settings", kind(&other)))),
        }
    }

    /// Settings that a file of another format holds.
    pub fn of(path: &Path, entries: Map<String, Value>) -> Fields {
        Fields { path: path.to_path_buf(), place: String::new(), entries }
    }

    /// The file that they are from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A value; none if it is `null`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    /// Whether an entry is there and is null, where that means something else than its default.
    pub fn is_null(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(Value::is_null)
    }

    /// Names of what is there and not `null`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// The settings under a key.
    pub fn under(&self, key: &str) -> Result<Option<Fields>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(entries)) => {
                let place = format!("{}{key}.", self.place);
                Ok(Some(Fields { path: self.path.clone(), place, entries: entries.clone() }))
            }
            Some(_) => Err(self.wrong(key, "an object of settings")),
        }
    }

    /// A whole number.
    pub fn whole(&self, key: &str) -> Result<Option<u64>> {
        self.get(key).map(|value| value.as_u64().ok_or_else(|| self.wrong(key, "a whole number"))).transpose()
    }

    /// A size: a whole number that is not absurd.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        match self.whole(key)? {
            Some(size) if size > MOST => Err(self.wrong(key, "a size that makes sense")),
            size => Ok(size.map(|size| size as usize)),
        }
    }

    /// A size of at least 1, or else this one.
    pub fn positive(&self, key: &str, default: usize) -> Result<usize> {
        self.or(self.size_from_1(key), default)
    }

    /// A size of at least 1.
    pub fn size_from_1(&self, key: &str) -> Result<Option<usize>> {
        match self.size(key)? {
            Some(0) => Err(self.wrong(key, "a size of at least 1")),
            size => Ok(size),
        }
    }

    /// What was read of a key, or else its default; an error says that, too.
    pub fn or<T: Debug>(&self, read: Result<Option<T>>, default: T) -> Result<T> {
        match read {
            Ok(value) => Ok(value.unwrap_or(default)),
            Err(error) => Err(error.advising(&format!("left out, it is {default:?}"))),
        }
    }

    /// Sizes of at least 1.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let size = |value: &Value| value.as_u64().filter(|&size| size > 0 && size <= MOST).map(|size| size as usize);
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => {
                self.each(key, list, size, &format!("a whole number from 1 to {MOST}")).map(Some)
            }
            Some(_) => Err(self.wrong(key, &format!("a list of whole numbers from 1 to {MOST}"))),
        }
    }

    /// What was read of each value of a list; an error names the first that is wrong.
    pub fn each<T>(
        &self,
        key: &str,
        list: &[Value],
        read: impl Fn(&Value) -> Option<T>,
        needs: &str,
    ) -> Result<Vec<T>> {
        let one = |(at, value): (usize, &Value)| {
            let wrong = || self.error(format!("`{}{key}[{at}]` is {}, needs {needs}", self.place, shown(value)));
            read(value).ok_or_else(wrong)
        };
        list.iter().enumerate().map(one).collect()
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f32>> {
        let number = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        self.get(key).map(|value| number(value).ok_or_else(|| self.wrong(key, "a number"))).transpose()
    }

    /// A number above zero.
    pub fn above_zero(&self, key: &str) -> Result<Option<f32>> {
        match self.number(key)? {
            Some(x) if x <= 0.0 => Err(self.wrong(key, "a number above 0")),
            number => Ok(number),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))).transpose()
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a text"))).transpose()
    }

    /// Fails if a key is there with another value than these: what it asks for is not computed.
    pub fn only(&self, key: &str, supported: &[Value]) -> Result<()> {
        match self.get(key) {
            Some(value)
                if !supported.iter().any(|s| s == value || s.as_f64().is_some_and(|s| value.as_f64() == Some(s))) =>
            {
                let list: Vec<String> = supported.iter().map(shown).collect();
                let instead = match &list[..] {
                    [] => "; take it out, or take a model without it".to_string(),
                    list => format!("; supported: {}", list.join(", ")),
                };
                Err(self.error(format!("`{}{key}` is {}, which is not computed{instead}", self.place, shown(value))))
            }
            _ => Ok(()),
        }
    }

    /// An error about a value of the wrong kind.
    pub fn wrong(&self, key: &str, needs: &str) -> Error {
        let found = self.get(key).map_or("missing".into(), |value| format!("{}, needs {needs}", shown(value)));
        self.error(format!("`{}{key}` is {found}", self.place))
    }

    /// An error about these settings.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::file(&self.path, reason)
    }

    /// A key with what stands before it.
    pub fn name(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }
}

/// What a value is, in the words of errors.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as an error shows it: what is long is cut, and nothing in it steers a terminal.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("`{}`", text.escape_debug()),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, value.to_string()).unwrap();
        Fields::read(&path).unwrap()
    }

    #[test]
    fn null_is_absent_and_what_is_wrong_is_named() {
        let f = fields(
            json!({"a": null, "n": 3, "x": 0.5, "t": "\u{1b}[31m", "o": {"n": "many", "l": [64, 0, 256]}, "zero": 0, "huge": 1u64 << 40}),
        );
        assert_eq!((f.size("a").unwrap(), f.size("b").unwrap(), f.size("n").unwrap()), (None, None, Some(3)));
        let inner = f.under("o").unwrap().unwrap();
        for (error, says) in [
            (inner.size("n").unwrap_err(), "x.json: `o.n` is `many`, needs a whole number"),
            (inner.sizes("l").unwrap_err(), "`o.l[1]` is 0, needs a whole number from 1 to 1073741824"),
            (f.sizes("n").unwrap_err(), "`n` is 3, needs a list of whole numbers from 1 to 1073741824"),
            (f.size("x").unwrap_err(), "`x` is 0.5, needs a whole number"),
            (f.positive("x", 768).unwrap_err(), "`x` is 0.5, needs a whole number; left out, it is 768"),
            (f.size_from_1("zero").unwrap_err(), "`zero` is 0, needs a size of at least 1"),
            (f.positive("zero", 4).unwrap_err(), "`zero` is 0, needs a size of at least 1; left out, it is 4"),
            (f.or(f.text("n"), "gelu").unwrap_err(), "`n` is 3, needs a text; left out, it is \"gelu\""),
            (f.size("huge").unwrap_err(), "a size that makes sense"),
            (f.flag("n").unwrap_err(), "`n` is 3, needs true or false"),
            (f.number("t").unwrap_err(), "`t` is `\\u{1b}[31m`, needs a number"),
            (f.under("n").unwrap_err(), "`n` is 3, needs an object"),
            (f.only("n", &[json!(4)]).unwrap_err(), "`n` is 3, which is not computed; supported: 4"),
        ] {
            assert!(error.to_string().ends_with(says) || error.to_string().contains(says), "{error}");
        }
        f.only("n", &[json!(3.0)]).unwrap();
        f.only("a", &[]).unwrap();
    }

    #[test]
    fn what_is_no_object_is_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for (text, says) in [
            ("[1]", "holds a list, needs an object"),
            ("{\"a\": 1", "is no JSON: it ends in line 1 before it is complete"),
            ("{\n\"a\": 1e999}", "is no JSON: it cannot be read at line 2"),
            (&"[".repeat(100_000), "is no JSON"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Fields::read(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
