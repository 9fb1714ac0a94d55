//! Foreign text on a terminal: what would steer it is shown, not obeyed.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::LazyLock;

use regex::Regex;

/// Whether a character changes the direction of the text around it.
pub(crate) fn bidirectional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a terminal takes a character for a command, or lets it reorder the text around it.
fn steers(c: char) -> bool {
    // Line and paragraph separators end a line where nobody expects it.
    let separator = matches!(c, '\u{2028}' | '\u{2029}');
    c.is_control() && c != '\n' && c != '\t' || bidirectional(c) || separator
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if steers(c) { escape(c) } else { c.to_string() }).collect())
}

/// Text with its control characters (but line breaks and tabs) and bidirectional controls written as `\u{1b}`.
///
/// Text of data, servers, configurations and templates goes through this before it reaches a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_unicode().to_string())
}

/// A line of JSON with the same characters as JSON's escapes; it means the same.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    // All of them lie below U+10000, where one escape is enough.
    escaped(json, |c| format!("\\u{:04x}", c as u32))
}

/// Words as a shell reads them: a command that is printed can be run, whatever its paths are called.
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<Cow<str>> = words.into_iter().map(quoted).collect();
    quoted.join(" ")
}

/// One of them.
pub fn quoted(word: &str) -> Cow<'_, str> {
    // No word of a command holds the NUL that has no quotes.
    shlex::try_quote(word).unwrap_or(Cow::Borrowed(word))
}

/// A writer to a terminal that makes each text [`printable`]; a text must come in one write.
pub struct PrintableWriter<W>(pub W);

impl<W: Write> Write for PrintableWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(printable(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The beginning of a foreign text in one line, for messages: without control characters, escape sequences and signs that
/// turn the direction of writing.
pub fn excerpt(text: &str) -> String {
    const LENGTH: usize = 500;
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
            .unwrap_or_else(|e| unreachable!("{e}"))
    });
    let start = text.char_indices().nth(8 * LENGTH).map_or(text, |(at, _)| &text[..at]);
    let text = ESCAPE.replace_all(start, "");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|&c| !c.is_control() && !bidirectional(c)).collect();
    match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_does_nothing_to_a_terminal() {
        assert_eq!(excerpt("a \x1b[31mred\x1b[0m\n\u{202e}b\u{7}\x1b]0;title\x07c"), "a red bc");
        assert_eq!(excerpt(&"x".repeat(1000)).chars().count(), 501);
    }

    #[test]
    fn what_steers_a_terminal_is_shown_and_all_else_is_left() {
        assert_eq!(printable("\u{1b}[2J\u{7}\r\u{7f}\u{9b}31m"), r"\u{1b}[2J\u{7}\u{d}\u{7f}\u{9b}31m");
        assert_eq!(printable("a\u{202e}b\u{2066}\u{2028}"), r"a\u{202e}b\u{2066}\u{2028}");
        for plain in ["", "line\n\tnext", "é 漢字 👩\u{200d}🚀 עברית", "{sentence}"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn a_line_of_json_means_the_same() {
        let text = "a\u{1b}\u{9b}\u{202e}\u{7f}\n\"";
        let line = serde_json::to_string(text).unwrap();
        let shown = printable_json(&line);
        assert!(!shown.contains(steers), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }

    #[test]
    fn a_writer_counts_what_it_was_given() {
        let mut writer = PrintableWriter(Vec::new());
        writer.write_all(b"a\x1bb\n").unwrap();
        assert_eq!(writer.0, b"a\\u{1b}b\n");
    }

    #[test]
    fn a_command_is_read_by_a_shell_as_it_was_meant() {
        let words = ["fissfuse", "encode", "--data", "my data/it's", "--out", "a$b", ""];
        let line = command_line(words);
        assert_eq!(shlex::split(&line).unwrap(), words);
        assert_eq!(command_line(["fissfuse", "train", "--out", "a/b-1.c"]), "fissfuse train --out a/b-1.c");
    }
}
