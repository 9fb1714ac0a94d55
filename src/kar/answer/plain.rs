//! Answers without what only dresses them: entities, wide and circled letters, markdown, LaTeX, tags, code fences.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::pattern;

/// Characters that HTML writes by name.
const ENTITIES: [(&str, &str); 12] = [
    ("&gt;", ">"),
    ("&#62;", ">"),
    ("&#x3e;", ">"),
    ("&lt;", "<"),
    ("&#60;", "<"),
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("&#39;", "'"),
    ("&apos;", "'"),
    ("&nbsp;", " "),
    ("&rarr;", "→"),
    ("&amp;", "&"),
];

/// Signs that say the same as `>` between two options.
const AHEAD_OF: [char; 20] =
    ['≻', '≥', '⩾', '»', '›', '→', '⇒', '➜', '➔', '➡', '⟶', '⟹', '▶', '►', '≫', '⪰', '≽', '⟩', '↦', '⊳'];

/// What stands where a person would see the answer alone, the surest first.
static FRAMED: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    [
        pattern(
            r"(?is)<(?:final_?answer|answer|choice|output|ranking|order)>(.*?)(?:</(?:final_?answer|answer|choice|output|ranking|order)>|$)",
        ),
        pattern(r"(?i)\\f?boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}"),
        pattern(
            r#"(?i)["'](?:final[_ ]?answer|answer|choice|selected(?:[_ ]option)?|option|letter|best(?:[_ ]match)?|prediction|ranking|order|ranked|result)["']\s*:\s*("[^"]*"|\[[^\]]*\]|\d+\b|null)"#,
        ),
    ]
});

/// Where a model without an end of its answer goes on with an example of its own.
static GOES_ON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?:\n\s*(?:#+ *)?(?:Text|Sentence|Mention|Entities|Question|Candidates|User|Human|Instruction|Input)\s*:|\n\s*###|<\|im_start\|>|<\|start_header_id\|>|\[INST\]|<start_of_turn>|<\|user\|>|<\|eot_id\|>|<\|im_end\|>|<\|endoftext\|>|</s>|<end_of_turn>|<\|end\|>)",
    )
});

/// Special tokens, tags and the commands of LaTeX around a text.
static DRESS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)<\|[^|>\n]{1,40}\|>|</?[a-z][a-z0-9_:]*/?>|\\(?:text|textbf|mathbf|mathrm|mathit|boldsymbol|rm|bf)\b")
});

/// The same order by a command of LaTeX.
static LATEX_AHEAD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\\(?:succ|gg|gt|geq|ge|rightarrow|to|Rightarrow|succeq)\b"));

/// A line of a table that only rules it, or a line that only fences code.
static RULE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^[ \t]*(?:\|?[ \t:]*-{2,}[-|: \t]*|```\w*[ \t]*)$"));

/// A line end beside a sign that needs something on its other side.
static CONTINUED: LazyLock<Regex> = LazyLock::new(|| pattern(r"([>,;])[ \t]*\n\s*|[ \t]*\n\s*([>])"));

/// An answer as plain text.
pub fn plain(answer: &str) -> String {
    let text = characters(answer);
    let text = match GOES_ON.find(&text) {
        Some(end) if text[..end.start()].chars().any(char::is_alphanumeric) => &text[..end.start()],
        _ => &text,
    };
    let framed = FRAMED.iter().find_map(|frame| frame.captures_iter(text).last().and_then(|found| found.get(1)));
    let text = framed.map_or(text, |inner| inner.as_str());
    let text = LATEX_AHEAD.replace_all(text, ">");
    let text = DRESS.replace_all(&text, " ");
    let text = RULE.replace_all(&text, "");
    let text = words(&text);
    CONTINUED.replace_all(text.trim(), "$1$2 ").into_owned()
}

/// A name as a plain text has it.
pub fn plain_name(name: &str) -> String {
    words(&characters(name)).trim().to_string()
}

/// The text with one character for whatever looks the same.
fn characters(text: &str) -> String {
    let mut text = text.to_string();
    for (entity, character) in ENTITIES {
        if text.contains('&') {
            text = text.replace(entity, character);
        }
    }
    let same = |c: char| match c {
        c if AHEAD_OF.contains(&c) => '>',
        // Letters on black circles and squares, which have no decomposition.
        '\u{1F150}'..='\u{1F169}' => char::from(b'A' + (u32::from(c) - 0x1F150) as u8),
        '\u{1F170}'..='\u{1F189}' => char::from(b'A' + (u32::from(c) - 0x1F170) as u8),
        '’' | '‘' | 'ʼ' => '\'',
        '“' | '”' | '„' | '«' => '"',
        c => c,
    };
    let shown = |c: &char| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{fe0f}' | '\r');
    text.chars().map(same).nfkc().filter(shown).collect::<String>()
}

/// The text without markup, escapes, quotes and brackets.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        match c {
            '*' | '`' | '$' | '"' => {
                // A bullet stays one.
                let line = out.trim_end_matches([' ', '\t']);
                let bullet = c == '*' && next == Some(' ') && (line.is_empty() || line.ends_with('\n'));
                out.push_str(if bullet { "-" } else { "" });
            }
            '\\' if next.is_none_or(|n| !n.is_alphanumeric()) => {}
            '[' | ']' | '{' | '}' => out.push(' '),
            '\'' if !(out.ends_with(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric)) => {}
            '_' if !(out.ends_with(char::is_alphanumeric) && next.is_some_and(char::is_alphanumeric)) => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_dresses_an_answer_is_taken_off() {
        for (answer, want) in [
            ("**B**", "B"),
            ("Ｂ", "B"),
            ("Ⓑ", "B"),
            ("🅱️", "B"),
            ("𝐁", "B"),
            ("$\\boxed{\\text{B}}$", "B"),
            ("<answer>\nB\n</answer>", "B"),
            ("```json\n{\"reason\": \"A is a king\", \"answer\": \"B\"}\n```", "B"),
            ("B &gt; A", "B > A"),
            ("B \\> A", "B > A"),
            ("B ≻ A ＞ C", "B > A > C"),
            ("$B \\succ A$", "B > A"),
            ("B<|im_end|>", "B"),
            ("B\n\nText: another\nAnswer: A", "B"),
            ("B >\nA", "B > A"),
            ("I'm", "I'm"),
        ] {
            assert_eq!(plain(answer), want, "{answer}");
        }
        assert_eq!(plain_name("\"Weird Al\" Yankovic"), "Weird Al Yankovic");
    }
}
