//! Orders: which one an answer gives, if it gives one, and one only.

use std::ops::Range;
use std::sync::LazyLock;

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

/// What stands between two options of a list.
struct Gap {
    ahead: bool,
    behind: bool,
    words_only: bool,
    remark: Option<String>,
    /// Numbers outside and within the remark.
    numbers: Vec<Number>,
}

/// A number beside an option: a place, or a share.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    share: bool,
}

/// A remark in parentheses.
static REMARK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\(([^()\n]*)\)"));

/// A capital letter alone.
static LONE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-Z]\b"));

/// A number or an ordinal.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(\d{1,3}(?:\.\d+)?)(%)?|\b(first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|finally|lastly|last)\b|第([一二三四五])",
    )
});

fn numbers(text: &str) -> Vec<Number> {
    let ordinals = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let one = |c: regex::Captures| {
        if let Some(digits) = c.get(1) {
            let share = c.get(2).is_some() || digits.as_str().contains('.');
            return digits.as_str().parse().ok().map(|value| Number { value, share });
        }
        let word = c.get(3).map(|w| w.as_str().to_lowercase());
        let place = match word {
            Some(word) => ordinals.iter().position(|&o| o == word).map_or(99, |at| at + 1),
            None => 1 + "一二三四五".chars().position(|o| c.get(4).is_some_and(|w| w.as_str().starts_with(o)))?,
        };
        Some(Number { value: place as f64, share: false })
    };
    NUMBER.captures_iter(text).filter_map(one).collect()
}

/// Whether numbers beside options stand in the order in which the options do.
fn agree(numbers: &[Number], options: usize) -> bool {
    let places = numbers.iter().all(|n| !n.share && (n.value <= options as f64 || n.value == 99.0));
    let pairs = || numbers.windows(2).map(|w| (w[0].value, w[1].value));
    if places { pairs().all(|(a, b)| a <= b) } else { pairs().all(|(a, b)| a >= b) }
}

fn gap(text: &str, options: usize) -> Option<Gap> {
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

/// The same, even with a colon.
static SHOWN_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:format|example|e\.g|given|original|initial)\b[^\n.:]{0,20}:?\s*$|^\W*(?:the |all )?(?:options|candidates|entities)(?: are| were)?\s*:?\s*$",
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
fn chains(text: &str, named: &[Mention], options: usize) -> Option<Vec<Listing>> {
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
        let mut distinct = Vec::new();
        sequence.iter().for_each(|o| {
            if !distinct.contains(o) {
                distinct.push(*o)
            }
        });
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

/// Whether remarks on the options of a list, in its order, call none but the first the best and none but the last the worst.
fn remarks_agree<'a>(remarks: impl Iterator<Item = &'a str>) -> bool {
    let remarks: Vec<&str> = remarks.map(str::trim).collect();
    let last = remarks.len().saturating_sub(1);
    remarks.iter().enumerate().all(|(i, remark)| {
        let (worst, best) = (i < last && WORST.is_match(remark), i > 0 && BEST.is_match(remark));
        !worst && !best
    })
}

static WORST: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^(?:the )?(?:least|worst|most unlikely|lowest)\b"));

static BEST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)^(?:the )?(?:most (?:likely|relevant|probable|suitable|plausible)|best|highest|correct|winner)\b")
});

/// Begins a line that is an item; its number is captured.
static HEAD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[\s|#•·~-]*(?:(?:rank|no\.?|place|position|top)?[ \t]*#?(\d{1,2}|first|second|third|fourth|fifth)(?:st|nd|rd|th)?(?:[ \t](?:place|choice|rank))?[ \t]*[.):|=>–-]*)?[\s|]*(?:option|entity|candidate|answer|choice)?[ \t]*[:#]?[ \t]*\(?$",
    )
});

/// Lists of one option per line. `None` if the numbers of one contradict its lines.
fn lines(text: &str, named: &[Mention], options: usize) -> Option<Vec<Listing>> {
    let mut lists: Vec<Vec<Item>> = vec![Vec::new()];
    let mut start = 0;
    for line in text.split('\n') {
        let range = start..start + line.len();
        start = range.end + 1;
        let numbered = lists.last().and_then(|l| l.first()).is_some_and(|item| item.number.is_some());
        match item(text, &range, named, options) {
            Some(item) if numbered && item.number.is_none() => {}
            Some(item) => {
                let fresh = item.number.is_some() && !numbered;
                match lists.last_mut() {
                    Some(list) if !fresh || list.is_empty() => list.push(item),
                    _ => lists.push(vec![item]),
                }
            }
            None if line.trim().is_empty() || numbered => {}
            None => lists.push(Vec::new()),
        }
    }
    let mut listings = Vec::new();
    for list in lists.into_iter().filter(|list| list.len() >= 2) {
        let sequence: Vec<usize> = list.iter().map(|item| item.option).collect();
        let mut distinct = Vec::new();
        sequence.iter().for_each(|o| {
            if !distinct.contains(o) {
                distinct.push(*o)
            }
        });
        if distinct.len() < 2 {
            continue;
        }
        let places: Vec<Number> = list.iter().filter_map(|item| item.number).collect();
        let values: Vec<Number> = list.iter().filter_map(|item| item.value).collect();
        let periodic = sequence.iter().enumerate().all(|(i, &o)| o == distinct[i % distinct.len()]);
        let once = distinct.len() == sequence.len();
        if !agree(&values, options) || once && places.windows(2).any(|w| w[0].value >= w[1].value) {
            return None;
        }
        let remarks = list.iter().any(|item| item.remark);
        // Remarks on the options one by one may come back to one of them; an order does not.
        if !periodic && !remarks {
            return None;
        }
        if !periodic {
            continue;
        }
        let (Some(first), Some(last)) = (list.first(), list.last()) else { continue };
        let remark =
            |item: &Item| REMARK.captures(&text[item.line.clone()]).map_or(String::new(), |c| c[1].to_string());
        let marks: Vec<String> = list.iter().map(remark).collect();
        let headed = text[..first.line.start].trim_end().lines().next_back().unwrap_or_default();
        let in_their_order = distinct.windows(2).all(|pair| pair[0] < pair[1]);
        if !remarks_agree(marks.iter().map(String::as_str)) {
            return None;
        }
        // A list of the options as they were given is no order.
        let given = SHOWN_BEFORE.is_match(headed) || remarks && places.is_empty() && in_their_order;
        if given {
            continue;
        }
        let plainness = match () {
            _ if places.len() == list.len() => Plainness::Ordered,
            _ if remarks => Plainness::Remarks,
            _ => Plainness::List,
        };
        listings.push(Listing { span: first.line.start..last.line.end, options: distinct, plainness });
    }
    Some(listings)
}

/// A line that begins with an option.
struct Item {
    line: Range<usize>,
    option: usize,
    /// Its number in the list.
    number: Option<Number>,
    /// A number that is said of the option.
    value: Option<Number>,
    /// Whether more is said.
    remark: bool,
}

fn item(text: &str, line: &Range<usize>, named: &[Mention], options: usize) -> Option<Item> {
    let mut within = named.iter().filter(|m| line.start <= m.span.start && m.span.end <= line.end);
    let head = within.next()?;
    let before = HEAD.captures(&text[line.start..head.span.start])?;
    let number = before.get(1).and_then(|n| numbers(n.as_str()).first().copied());
    let after = &text[head.span.end..line.end];
    // A whole list in one line is none of one per line.
    if within
        .next()
        .is_some_and(|next| next.option != head.option && gap(&text[head.span.end..next.span.start], options).is_some())
    {
        return None;
    }
    let bulleted = text[line.start..head.span.start].contains(['-', '•', '·', '|', '#']);
    let closed =
        after.trim().is_empty() || after.trim_start().starts_with(['.', ')', ':', '|', '-', '–', '—', '(', ',', '=']);
    if number.is_none() && !bulleted && !closed {
        return None;
    }
    static VALUE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"(?i)^[\s.):|=(–—-]*(?:rank|score|place|probability)?[\s:#=]*(\d{1,3}(?:\.\d+)?%?)[\s|)]*$")
    });
    let value = VALUE.captures(after).and_then(|c| numbers(&c[1]).first().copied());
    Some(Item {
        line: line.clone(),
        option: head.option,
        number,
        value,
        remark: !is_filler(&REMARK.replace_all(after, " ")),
    })
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
