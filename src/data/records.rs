//! Files of one JSON object per line.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files;

/// What may have become of JSON that ends too early.
pub(super) const CUT_SHORT: &str = "; was it cut short?";

/// An error about one line of a file.
pub fn record_error(path: &Path, line: usize, reason: impl Into<String>) -> Error {
    Error::Record { path: path.to_path_buf(), line, reason: reason.into() }
}

/// Parses one line, passing over a mark in front of it.
pub fn parse_record<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T> {
    // serde counts lines within the text, of which there is one; our own line number says where it stands.
    let plain = |e: serde_json::Error| {
        let message = e.to_string();
        message.rsplit_once(" at line ").map_or(message.clone(), |(what, _)| format!("{what} (column {})", e.column()))
    };
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        let hint = if e.is_eof() { CUT_SHORT } else { "" };
        record_error(path, line, format!("is no valid record: {}{hint}", plain(e)))
    })
}

/// Each record of a file with its line number, from 1; blank lines are passed over. What cannot be parsed comes as
/// an error in its place.
pub fn read_records<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, Result<T>)>> {
    let text = files::read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    Ok(lines.map(|(i, line)| (i + 1, parse_record(path, i + 1, line))).collect())
}
