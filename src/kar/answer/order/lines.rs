//! Lists of one option per line.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::chains::gap;
use super::numbers::{Number, agree, numbers};
use super::remarks::{REMARK, SHOWN_BEFORE, remarks_agree};
use super::{Listing, Plainness, distinct};
use crate::kar::answer::mentions::Mention;
use crate::kar::answer::{is_filler, pattern};

/// Begins a line that is an item; its number is captured.
static HEAD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[\s|#•·~-]*(?:(?:rank|no\.?|place|position|top)?[ \t]*#?(\d{1,2}|first|second|third|fourth|fifth)(?:st|nd|rd|th)?(?:[ \t](?:place|choice|rank))?[ \t]*[.):|=>–-]*)?[\s|]*(?:option|entity|candidate|answer|choice)?[ \t]*[:#]?[ \t]*\(?$",
    )
});

/// Lists of one option per line. `None` if the numbers of one contradict its lines.
pub(super) fn lines(text: &str, named: &[Mention], options: usize) -> Option<Vec<Listing>> {
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
        let distinct = distinct(&sequence);
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
