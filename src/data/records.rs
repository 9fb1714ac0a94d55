//! Files of one JSON object per line.

use std::io::{self, BufRead, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fields::kind;
use crate::files;

/// What may have become of JSON that ends too early.
pub(super) const CUT_SHORT: &str = "; was it cut short?";

/// A line of a stream.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// Its bytes without the line break.
    Whole(Vec<u8>),
    /// It has more bytes than were allowed and was passed over.
    TooLong,
}

/// The next line of a stream, of which no more than `most` bytes are kept; nothing at its end.
pub fn next_line(reader: &mut impl BufRead, most: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    if reader.take(most as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > most {
        reader.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Whole(line)))
}

/// An error about one line of a file.
pub fn record_error(path: &Path, line: usize, reason: impl Into<String>) -> Error {
    Error::Record { path: path.to_path_buf(), line, reason: reason.into() }
}

/// Parses one line, passing over a mark in front of it. It must hold an object: serde takes lists for records as well, field by
/// field.
pub fn parse_record<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T> {
    let text = text.trim_start_matches('\u{feff}');
    if !text.trim_start().starts_with('{')
        && let Ok(other) = serde_json::from_str::<Value>(text)
    {
        return Err(record_error(path, line, format!("is no valid record: it is {}, and no object", kind(&other))));
    }
    parse_value(path, line, text)
}

/// The same of what may hold any value.
pub(super) fn parse_value<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T> {
    // serde counts lines within the text, of which there is one; our own line number says where it stands.
    let placed = |e: serde_json::Error| {
        let message = plain(&e.to_string());
        message.rsplit_once(" at line ").map_or(message.clone(), |(what, _)| format!("{what} (column {})", e.column()))
    };
    serde_json::from_str(text).map_err(|e| {
        let hint = if e.is_eof() { CUT_SHORT } else { "" };
        record_error(path, line, format!("is no valid record: {}{hint}", placed(e)))
    })
}

/// What serde says, by the names that JSON has for things.
fn plain(message: &str) -> String {
    let names = [
        ("EOF while parsing", "it ends within"),
        ("invalid type: map", "invalid type: object"),
        ("invalid type: sequence", "invalid type: list"),
        ("expected a map", "expected an object"),
        ("expected a sequence", "expected a list"),
    ];
    let said = names.iter().fold(message.to_string(), |said, (theirs, ours)| said.replace(theirs, ours));
    // Names of types are this program's own.
    match said.split_once("expected struct ") {
        Some((found, rest)) => {
            format!("{found}expected an object{}", rest.find(" at line ").map_or("", |at| &rest[at..]))
        }
        None => said,
    }
}

/// Each record of a file with its line number, from 1; blank lines are passed over. What cannot be parsed comes as
/// an error in its place.
pub fn read_records<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, Result<T>)>> {
    Ok(parse_records(path, &files::read_text(path)?))
}

/// The same of a text that was read from there.
pub fn parse_records<T: DeserializeOwned>(path: &Path, text: &str) -> Vec<(usize, Result<T>)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(i, line)| (i + 1, parse_record(path, i + 1, line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_up_to_a_length_and_the_next_one_is_found() {
        let mut reader = io::BufReader::with_capacity(2, &b"1234\n12345\n\n123456789\n12"[..]);
        let mut next = || next_line(&mut reader, 4).unwrap();
        let whole = |text: &str| Some(Line::Whole(text.into()));
        assert_eq!([next(), next(), next()], [whole("1234"), Some(Line::TooLong), whole("")]);
        assert_eq!([next(), next(), next()], [Some(Line::TooLong), whole("12"), None]);
    }

    #[test]
    fn what_is_no_object_of_the_right_fields_is_said_in_words() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only what is refused is looked at")]
        struct Inner {
            name: String,
        }
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only what is refused is looked at")]
        struct Record {
            id: String,
            list: Vec<Inner>,
        }
        for (text, says) in [
            ("[]", "is no valid record: it is a list, and no object"),
            // Which serde takes for the two fields.
            ("[\"a\", []]", "it is a list, and no object"),
            ("\u{feff} null", "it is null, and no object"),
            ("3", "it is a number, and no object"),
            ("words", "expected value (column 1)"),
            ("{\"id\": \"a\"}", "missing field `list` (column 11)"),
            ("{\"id\": [], \"list\": []}", "invalid type: list, expected a string (column 7)"),
            ("{\"id\": \"a\", \"list\": {}}", "invalid type: object, expected a list (column 20)"),
            ("{\"id\": \"a\", \"list\": [3]}", "invalid type: integer `3`, expected an object (column 22)"),
            ("{\"id\": \"a\", \"list\": [", "it ends within a list (column 21); was it cut short?"),
        ] {
            let error = parse_record::<Record>(Path::new("x"), 7, text).unwrap_err().to_string();
            assert!(error.starts_with("x:7: ") && error.ends_with(says), "{text}: {error}");
        }
    }
}
