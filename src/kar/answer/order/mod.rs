//! Orders: which one an answer gives, if it gives one, and one only.

mod chains;
mod lines;
mod numbers;
mod remarks;

use std::ops::Range;
use std::sync::LazyLock;

use chains::chains;
use lines::lines;
use regex::Regex;

use super::mentions::{By, Mention, is_label};
use super::{is_filler, pattern};

/// How plainly a list of options is an order, the plainest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Plainness {
    /// Remarks on options, one by one, or options in a sentence.
    Remarks,
    /// Options and nothing else between them.
    List,
    /// With signs that say which comes first: `>`, or numbers.
    Ordered,
}

/// Options that stand in a list.
#[derive(Debug)]
struct Listing {
    span: Range<usize>,
    options: Vec<usize>,
    plainness: Plainness,
}

/// The order that a text gives. `None` if it gives none, not a whole one, or several.
pub fn ranked(text: &str, found: &[Mention], options: usize) -> Option<Vec<usize>> {
    let named = labelled(text, found)?;
    if BACKWARDS.is_match(text) {
        return None;
    }
    let mut listings = chains(text, &named, options)?;
    listings.extend(lines(text, &named, options)?);
    let Some(plainest) = listings.iter().map(|l| l.plainness).max() else { return alone(text, &named) };
    listings.retain(|l| l.plainness == plainest);
    listings.sort_by_key(|l| l.span.start);
    let last = listings.pop()?;
    for earlier in &listings {
        let between = text.get(earlier.span.end..last.span.start).unwrap_or_default();
        let same = last.options.starts_with(&earlier.options);
        let replaced = FINALLY.is_match(between) && last.options.len() >= earlier.options.len();
        if !(same || replaced) {
            return None;
        }
    }
    // An order in part, and more to say about others: the order was not read whole.
    let left_out = |m: &&Mention| m.by == By::Letter && !last.options.contains(&m.option);
    let whole = last.options.len() == options;
    (whole || !found.iter().any(|m| left_out(&m))).then_some(last.options)
}

/// The order of a text that has nothing but one list in it, if its signs agree.
pub fn bare(text: &str, found: &[Mention], options: usize) -> Option<Vec<usize>> {
    let mut end = 0;
    for m in found {
        if m.span.start >= end && !is_filler(&text[end..m.span.start]) {
            return None;
        }
        end = end.max(m.span.end);
    }
    is_filler(&text[end..]).then(|| ranked(text, found, options)).flatten()
}

/// Whether a text has an order with signs that say which option comes first.
pub fn ordered(text: &str, found: &[Mention], options: usize) -> Option<Vec<usize>> {
    let mut named = labelled(text, found)?;
    // Between names, such a sign may mean anything.
    named.retain(|m| m.by == By::Letter);
    let any = chains(text, &named, options)?.iter().any(|l| l.plainness == Plainness::Ordered);
    if any { ranked(text, found, options) } else { None }
}

/// Says that the best comes last.
static BACKWARDS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:least|worst|lowest|less)\b[^.\n>]{0,40}\bto\b[^.\n>]{0,40}\b(?:most|best|highest|more)\b|\bascending\b|\breversed?\b|\b(?:least|worst)\b[^.,>\n()]{0,20}\bfirst\b|(?m:^|[.] )(?:the )?(?:least|worst)\b[^.,>\n()]{0,20}\bis\b|(?m:^\W*worst\b[^\n:]{0,20}:)|\bbest\b[^.,>\n()]{0,20}\blast\b|从(?:低到高|最不|差到好)",
    )
});

/// Says that what follows replaces what came before.
static FINALLY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:final\w*|therefore|thus|hence|so|in (?:summary|conclusion)|conclusion|correct\w*|answer|overall|updated|revised)\b|最终|因此|所以|最終|최종",
    )
});

/// Mentions with an option's letter and its name as one. `None` if a letter is labelled with another option's name.
fn labelled(text: &str, found: &[Mention]) -> Option<Vec<Mention>> {
    let mut named: Vec<Mention> = Vec::with_capacity(found.len());
    for m in found {
        match named.last_mut() {
            Some(last) if last.span.end <= m.span.start && is_label(&text[last.span.end..m.span.start]) => {
                let pair = last.by != m.by;
                if last.option == m.option {
                    last.span.end = m.span.end;
                    if m.by == By::Letter {
                        last.by = By::Letter;
                    }
                    continue;
                }
                if pair
                    && last.by == By::Letter
                    && m.by == By::Name
                    && !text[last.span.end..m.span.start].trim().is_empty()
                {
                    return None;
                }
                named.push(m.clone());
            }
            _ => named.push(m.clone()),
        }
    }
    let letters: Vec<&Mention> = named.iter().filter(|m| m.by == By::Letter).collect();
    let several = letters.iter().any(|m| m.option != letters[0].option);
    if several {
        named.retain(|m| m.by == By::Letter);
    }
    // What stands within a remark in parentheses is not of the list.
    let in_remark = |m: &Mention| {
        let (before, after) = (&text[..m.span.start], &text[m.span.end..]);
        let opened = before.rfind('(').filter(|&at| !before[at..].contains([')', '\n']));
        opened.is_some_and(|at| after.contains(')') && !(is_filler(&before[at + 1..]) && after.starts_with(')')))
    };
    named.retain(|m| !in_remark(m));
    Some(named)
}

/// The options of a list, each once, in the order in which they are first named.
fn distinct(sequence: &[usize]) -> Vec<usize> {
    let mut distinct = Vec::new();
    for option in sequence {
        if !distinct.contains(option) {
            distinct.push(*option);
        }
    }
    distinct
}

/// The one option of an answer that is nothing else.
fn alone(text: &str, named: &[Mention]) -> Option<Vec<usize>> {
    let first = named.first().filter(|m| !m.ruled_out)?;
    let mut end = 0;
    for m in named {
        if m.option != first.option || !is_filler(text.get(end..m.span.start)?) {
            return None;
        }
        end = m.span.end;
    }
    is_filler(text.get(end..)?).then(|| vec![first.option])
}
