//! Where an answer names an option: by its letter, its identifier or its name.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::Choice;
use crate::kar::instruction::letter;
use crate::kar::words::{occurrences, stands_alone};

/// How an answer names an option, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A letter that can only be meant as one: `B.`, `(B)`, `option B`, `B > A`.
    Letter,
    /// The entity's identifier.
    Identifier,
    /// The entity's name.
    Name,
    /// A capital letter alone in running text.
    LooseLetter,
}

/// A place where an answer names an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    /// Which option it names.
    pub option: usize,
    /// How.
    pub kind: Kind,
}

/// All places where the text names an option and does not just rule it out, in order.
pub fn find(text: &str, options: &[Choice]) -> Vec<Evidence> {
    let mut found = names(text, options);
    found.extend(identifiers(text, options));
    // A letter within a name, an initial, is none.
    let free = |e: &Evidence| !found.iter().any(|f| f.span.start < e.span.end && e.span.start < f.span.end);
    let letters: Vec<Evidence> = letters(text, options.len()).into_iter().filter(free).collect();
    found.extend(letters);
    found.retain(|e| !RULED_OUT.is_match(&text[..e.span.start]));
    found.sort_by_key(|e| (e.span.start, e.kind));
    found
}

/// What a pattern that this module writes down compiles to.
pub fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|e| unreachable!("{e}"))
}

/// Ends where an option is named only to rule it out.
static RULED_OUT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)(?:\b(?:not|cannot be|neither|nor|than|unlike|instead of|except)|n['’]t(?: be)?) (?:(?:the|an?|to|option|candidate|entity|answer) )*["'“‘(\[*]*$"#,
    )
});

fn names(text: &str, options: &[Choice]) -> Vec<Evidence> {
    let mut found = Vec::new();
    for (option, choice) in options.iter().enumerate() {
        let name = choice.name.trim();
        let shared = options.iter().enumerate().any(|(o, c)| o != option && c.name.trim().eq_ignore_ascii_case(name));
        if name.chars().count() < 2 || shared {
            continue;
        }
        found.extend(alone(text, name, option, Kind::Name));
    }
    // Of a name within a longer one, such as Paris in Paris Hilton, only the longer is meant.
    let all = found.clone();
    let inside = |a: &Range<usize>, b: &Range<usize>| a != b && b.start <= a.start && a.end <= b.end;
    found.retain(|e| !all.iter().any(|other| inside(&e.span, &other.span)));
    found
}

fn identifiers(text: &str, options: &[Choice]) -> Vec<Evidence> {
    // A bare number could be any number, a bare letter any letter.
    let telling = |qid: &str| qid.chars().any(|c| c.is_ascii_digit()) && qid.chars().any(char::is_alphabetic);
    let told = options.iter().enumerate().filter(|(_, choice)| telling(choice.qid));
    told.flat_map(|(option, choice)| alone(text, choice.qid, option, Kind::Identifier)).collect()
}

/// Where an option's words stand alone, in any case.
fn alone<'a>(text: &'a str, words: &'a str, option: usize, kind: Kind) -> impl Iterator<Item = Evidence> + 'a {
    let alone = occurrences(text, words, true).filter(|at| stands_alone(text, at));
    alone.map(move |span| Evidence { span, option, kind })
}

/// A run of letters.
static RUN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z]+"));

/// Ends at the beginning of an item: of a line, perhaps after a bullet or number, or after `:`, `;`, `>` and the like.
static ITEM_START: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?:^|[\n:;>|=.,/→])[ \t]*(?:[-*•#]+[ \t]*)?(?:\d{1,2}[.):][ \t]*)?["'“‘`(\[{*_]*$"#));

/// Ends with a word that a letter follows.
static CUE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\b(?:option|candidate|entity|answer|choice|letter|choose|select|pick|selected|chose|is|be|to|as|with)[ \t]*[:=]?[ \t]*["'“‘`(\[{*_]*$"#,
    )
});

/// Begins with what closes an item's letter.
static CLOSED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"^(?:["'”’`)\]}*_]*(?:$|[\n.:;)\]>|=→/,]|[ \t]+[-–—>=→]))"#));

/// Begins with another letter of a list, after what separates the two.
static LISTED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"^["'”’`)\]}*_]*[ \t]*(?:[,;>/|=→\-–—]+|,? ?\b(?:and|then)\b|[ \t])[ \t]*(?:then[ \t]+)?["'“‘`(\[{*_]*[A-Z](?:$|[^\w'’])"#,
    )
});

/// Ends with a letter of a list and what separates it from the next.
static LISTED_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?:^|[^\w'’])[A-Z]["'”’`)\]}*_]*[ \t]*(?:[,;>/|=→\-–—]+|,? ?\b(?:and|then)\b|[ \t])[ \t]*(?:then[ \t]+)?["'“‘`(\[{*_]*$"#,
    )
});

fn letters(text: &str, options: usize) -> Vec<Evidence> {
    let Some(last) = options.checked_sub(1).map(letter) else { return Vec::new() };
    let mut found = Vec::new();
    for run in RUN.find_iter(text) {
        let (word, (start, end)) = (run.as_str(), (run.start(), run.end()));
        let of = |c: char| (c.to_ascii_uppercase() <= last).then(|| (c.to_ascii_uppercase() as u8 - b'A') as usize);
        if let [byte] = word.as_bytes() {
            let kind = kind_of_letter(text, start, end);
            if let (Some(option), Some(kind)) = (of(char::from(*byte)), kind) {
                found.push(Evidence { span: start..end, option, kind });
            }
        } else if is_permutation(word, last, options, text.trim() == word) && stands_alone(text, &run.range()) {
            let each = word.char_indices().filter_map(|(i, c)| Some((start + i, of(c)?)));
            found.extend(each.map(|(at, option)| Evidence { span: at..at + 1, option, kind: Kind::Letter }));
        }
    }
    found
}

/// Whether a word is letters of options in some order, such as `BAC`: all of them, or it is the whole answer.
fn is_permutation(word: &str, last: char, options: usize, whole: bool) -> bool {
    let distinct = word.chars().enumerate().all(|(i, c)| ('A'..=last).contains(&c) && !word[..i].contains(c));
    distinct && (word.len() == options || whole)
}

/// How a single letter is meant, if it is meant to name an option at all.
fn kind_of_letter(text: &str, start: usize, end: usize) -> Option<Kind> {
    let (before, after, capital) = (&text[..start], &text[end..], text[start..end].chars().all(char::is_uppercase));
    let attaches = |c: char| c.is_alphanumeric() || matches!(c, '_' | '\'' | '’' | '-' | '&' | '@' | '+');
    let next_is_word = |rest: &str| rest.chars().nth(1).is_some_and(char::is_alphanumeric);
    // Part of a word: A-level, I'm, R&B, U.S.
    let joined_after = after.chars().next().is_some_and(|c| attaches(c) || c == '.') && next_is_word(after);
    let previous: Vec<char> = before.chars().rev().take(2).collect();
    let joined_before = match previous[..] {
        [c, d] if attaches(c) || c == '.' => d.is_alphanumeric() && !d.is_ascii_digit() && !(c == '\'' || c == '_'),
        [c, ..] => c.is_alphanumeric(),
        [] => false,
    };
    if joined_before || joined_after || after.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let whole = text.trim().trim_matches(|c: char| !c.is_alphanumeric()).len() == end - start;
    if whole {
        return Some(Kind::Letter);
    }
    let opened = before.ends_with(['(', '[', '{', '"', '“', '\'', '‘', '`', '*']);
    let enclosed = opened && after.starts_with([')', ']', '}', '"', '”', '\'', '’', '`', '*', '.', ':']);
    let cued = CUE.is_match(before);
    if enclosed || (cued && (capital || CLOSED.is_match(after))) {
        return Some(Kind::Letter);
    }
    if !capital {
        return None;
    }
    let item = ITEM_START.is_match(before) && CLOSED.is_match(after);
    if item || LISTED.is_match(after) || LISTED_BEFORE.is_match(before) {
        return Some(Kind::Letter);
    }
    // An article, a pronoun, or an initial in a name that no option bears.
    let article = matches!(&text[start..end], "A" | "I") && after.starts_with(' ');
    let initial = after.starts_with('.') && after[1..].trim_start().starts_with(char::is_uppercase);
    (!article && !initial).then_some(Kind::LooseLetter)
}
