//! Lists of options within a line.

use std::sync::LazyLock;

use regex::Regex;

use super::numbers::{Number, agree, numbers};
use super::remarks::{REMARK, SHOWN_BEFORE, remarks_agree};
use super::{Listing, Plainness, distinct};
use crate::kar::answer::mentions::Mention;
use crate::kar::answer::{is_filler, pattern};

/// What stands between two options of a list.
pub(super) struct Gap {
    ahead: bool,
    behind: bool,
    words_only: bool,
    remark: Option<String>,
    /// Numbers outside and within the remark.
    numbers: Vec<Number>,
}

/// A capital letter alone.
static LONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-Z]\b"));

/// What two options of one list have between them; `None` if they are not of one list.
pub(super) fn gap(text: &str, options: usize) -> Option<Gap> {
    if text.contains('\n') {
        return None;
    }
    let remark = REMARK.captures(text).map(|c| c[1].trim().to_string());
    let outside = REMARK.replace_all(text, " ");
    let ahead = outside.contains('>');
    let behind = outside.contains('<') || outside.contains('≺') || outside.contains('≤');
    // Letters that are no option's are made up.
    let made_up = |at: &regex::Captures| {
        let one = at[0].as_bytes()[0] - b'A';
        if usize::from(one) < options { at[0].to_string() } else { String::new() }
    };
    let shown = LONE.replace_all(&outside, made_up).replace(['<', '≺', '≤'], " ");
    if !is_filler(&shown) {
        return None;
    }
    let words_only = !outside.contains([',', ';', '>', '|', '/', '=', '•', '·', '→', '–', '—', '-', '、', '~']);
    let mut all = numbers(&outside);
    all.extend(remark.as_deref().map(numbers).unwrap_or_default());
    Some(Gap { ahead, behind, words_only: words_only && !outside.trim().is_empty(), remark, numbers: all })
}

/// What stands before a list that is no order of the model's own.
static NOT_MEANT_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\b(?:not|isn't|such as|like|between|among|compar(?:e|ing)|consider(?:ing)?|instead of|rather than|than|initially|(?:options|candidates|entities)(?: are| were|,)?)\b)[^\n.]{0,25}$",
    )
});

/// What stands after one.
static NOT_MEANT_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\)?,?[ \t]*(?:is|are|was|were|all|both|have|has|share|can|could|do|does|don't|refer|seem|would|might|may|being|would not|或|都)\b|^[ \t]*(?:\([^)]*\)[ \t]*)?(?:or\b|都|或)",
    )
});

/// Begins where a sentence ends with its list.
static ENDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[ \t>,]*(?:$|[\n.!;(|]|\.\.\.|…)"));

/// Lists within a line. `None` if the signs of one contradict each other.
pub(super) fn chains(text: &str, named: &[Mention], options: usize) -> Option<Vec<Listing>> {
    let mut listings = Vec::new();
    let mut at = 0;
    while at < named.len() {
        let mut gaps = Vec::new();
        while let Some(next) = named.get(at + gaps.len() + 1) {
            let (from, to) = (named[at + gaps.len()].span.end, next.span.start);
            let Some(gap) = text.get(from..to).and_then(|between| gap(between, options)) else { break };
            gaps.push(gap);
        }
        let members = &named[at..=at + gaps.len()];
        at += members.len();
        let (Some(first), Some(last)) = (members.first(), members.last()) else { break };
        let sequence: Vec<usize> = members.iter().map(|m| m.option).collect();
        let distinct = distinct(&sequence);
        if distinct.len() < 2 {
            continue;
        }
        let span = first.span.start..last.span.end;
        let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let (before, after) = (&text[line..span.start], &text[span.end..]);
        let ahead = gaps.iter().any(|g| g.ahead);
        let words_only = gaps.iter().all(|g| g.words_only);
        let announced = before.trim_end().ends_with(':');
        let follows_on = NOT_MEANT_AFTER.is_match(after) && !LAST_REMARK.is_match(after);
        let shown = SHOWN_BEFORE.is_match(before) || !announced && NOT_MEANT_BEFORE.is_match(before);
        if shown || follows_on || distinct.len() < options && !ENDS.is_match(after) {
            if ahead && follows_on {
                return None;
            }
            continue;
        }
        // The first and the last of the model's own remarks.
        let tail = REMARK.captures(after).filter(|c| c.get(0).is_some_and(|m| after[..m.start()].trim().is_empty()));
        let last_remark = tail.as_ref().map_or("", |c| c.get(1).map_or("", |m| m.as_str()));
        let remarks = gaps.iter().map(|g| g.remark.as_deref().unwrap_or_default()).chain([last_remark]);
        if !remarks_agree(remarks) {
            return None;
        }
        let mut all: Vec<Number> = numbers(before).into_iter().last().into_iter().collect();
        gaps.iter().for_each(|g| all.extend(&g.numbers));
        if gaps.iter().any(|g| g.behind) || !ahead && !agree(&all, options) {
            return None;
        }
        // Said again and again, in one order only.
        if sequence.iter().enumerate().any(|(i, &o)| o != distinct[i % distinct.len()]) {
            return None;
        }
        let plainness = match () {
            _ if ahead || all.len() >= 2 => Plainness::Ordered,
            _ if words_only => Plainness::Remarks,
            _ => Plainness::List,
        };
        // Two options in a sentence about them are no order.
        let sentence = words_only && distinct.len() < options;
        if !sentence {
            listings.push(Listing { span, options: distinct, plainness });
        }
    }
    Some(listings)
}

/// What may be said of the last option of a list.
static LAST_REMARK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\)?,?[ \t]*(?:is|being|comes|are)[ \t]+(?:the[ \t]+)?(?:least|last|fifth|less|unlikely|not relevant|irrelevant)",
    )
});
