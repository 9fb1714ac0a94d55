//! Where a plain text names an option: by its letter, its identifier or its name.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{PlainChoice, pattern};
use crate::kar::instruction::letter;
use crate::kar::words::{adjoins, occurrences, stands_alone};

/// How a text names an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Letter,
    Identifier,
    Name,
}

/// A place where a text names an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    /// Which option it names.
    pub option: usize,
    /// How.
    pub by: By,
    /// Whether it is named only to rule it out.
    pub ruled_out: bool,
    /// Whether the letter follows a word that says nothing, as in `vitamin C`: too little to count on.
    pub loose: bool,
}

/// All places where the text names an option, in order.
pub fn find(text: &str, options: &[PlainChoice]) -> Vec<Mention> {
    let mut found = names(text, options);
    // A letter within a name, an initial, is none.
    let within =
        |m: &Mention, all: &[Mention]| all.iter().any(|f| f.span.start < m.span.end && m.span.start < f.span.end);
    let letters: Vec<Mention> = letters(text, options, &found).into_iter().filter(|m| !within(m, &found)).collect();
    found.extend(letters);
    found.sort_by_key(|m| m.span.start);
    for mention in &mut found {
        mention.ruled_out = RULED_OUT_BEFORE.is_match(end_of(&text[..mention.span.start]))
            || RULED_OUT_AFTER.is_match(&text[mention.span.end..]);
    }
    found
}

/// As much of the end of a text as tells how an option after it is meant.
fn end_of(text: &str) -> &str {
    const BYTES: usize = 80;
    let least = text.len().saturating_sub(BYTES);
    (least..text.len()).find_map(|at| text.get(at..)).unwrap_or_default()
}

/// Ends where an option is named only to rule it out.
static RULED_OUT_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\b(?:not|cannot be|neither|nor|than|unlike|instead of|except|excluding|rejected?|ruled? out|eliminated?|different from|opposed to)|n't(?: be)?|不是|并非|而非|排除|不选) ?(?:(?:the|an?|to|option|candidate|entity|answer) )*\(*$",
    )
});

/// Begins with what rules the option before it out.
static RULED_OUT_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\)?(?: \([^)]*\))?,? ?(?:(?:is|was|are|seems|would be|can be|could be|does|do|did|has|makes) (?:\w+ly )?(?:not|no|wrong|incorrect|unlikely|less|out|ruled|excluded|eliminated|rejected|irrelevant|the wrong|an? (?:poor|bad))\b|(?:is|was|does|do|did|would|could|should|has)n't\b|can't\b|(?:cannot|can not|would not|does not|could not|should not)\b|不是|不对|不符|错|は違|ではな|じゃな|[은는이가] 아)",
    )
});

fn named(span: Range<usize>, option: usize, by: By) -> Mention {
    Mention { span, option, by, ruled_out: false, loose: false }
}

fn names(text: &str, options: &[PlainChoice]) -> Vec<Mention> {
    let mut found = Vec::new();
    for (option, choice) in options.iter().enumerate() {
        let (name, qid) = (choice.name.as_str(), choice.qid);
        let shared = options.iter().enumerate().any(|(o, c)| o != option && c.name.eq_ignore_ascii_case(name));
        if name.chars().count() >= 2 && !shared {
            found.extend(alone(text, name, option, By::Name));
        }
        // A bare number could be any number, a bare letter any letter.
        if qid.chars().any(|c| c.is_ascii_digit()) && qid.chars().any(char::is_alphabetic) {
            found.extend(alone(text, qid, option, By::Identifier));
        }
    }
    // Of a name within a longer one, such as Paris in Paris Hilton, only the longer is meant.
    let all = found.clone();
    let inside = |a: &Range<usize>, b: &Range<usize>| a != b && b.start <= a.start && a.end <= b.end;
    found.retain(|m| !all.iter().any(|other| inside(&m.span, &other.span)));
    found
}

/// Where an option's words stand alone, in any case.
fn alone<'a>(text: &'a str, words: &'a str, option: usize, by: By) -> impl Iterator<Item = Mention> + 'a {
    occurrences(text, words, true).filter(|at| stands_alone(text, at)).map(move |span| named(span, option, by))
}

/// A run of letters.
static RUN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z]+"));

/// Words after which a letter is an option's, and what a sentence, line or item begins with.
static CUED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?ix)(?:^|[\n.!?:;,>|=/(~•·→\u{3001}\u{3002}-]|\d[.):]|\b(?:
            options?|candidates?|entity|entities|answer|choices?|letters?|choose|chose|select|selected|pick|picked|prefer|rank|ranked|put|place|placed|
            is|are|be|was|to|as|with|by|then|and|or|over|above|before|than|not|nor|neither|either|both|between|from|
            hence|thus|therefore|so|because|since|while|but|that|say|think|believe|suggest|it's|i'd|now|only|
            first|second|third|fourth|fifth|last|lastly|finally|next|also|clearly|likely|probably|definitely|maybe|perhaps|possibly|even|
            opci[oó]n|respuesta|option|r[ée]ponse|antwort|lautet|ist|est|es|[eèé]|risposta|resposta|ответ|вариант
        ))[\x20\t]*[-•*\#]*[\x20\t]*\(?$|[\u{1100}-\u{11ff}\u{2e80}-\u{9fff}\u{ac00}-\u{d7af}\u{f900}-\u{faff}][\x20\t]*\(?$",
    )
});

/// Begins with what may follow `A` or `I` where it is an option and no article or pronoun: no noun of its own.
static NO_NOUN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?ix)^(?:$|[^\w\s']|[\x20\t]*\n|[\u{1100}-\u{11ff}\u{2e80}-\u{9fff}\u{ac00}-\u{d7af}]|[\x20\t]+(?:$|[^\w\s]|[A-Z](?:$|[^\w'.])|\d|
            (?:is|isn't|was|are|be|fits?|seems?|appears?|looks?|match(?:es)?|refers?|makes|would|could|should|might|may|must|can|cannot|can't|does|doesn't|has|remains|stands|wins|comes|goes|
            and|or|then|but|not|because|since|as|for|with|by|from|over|before|above|than|rather|while|at|in|on|to|
            first|second|third|fourth|fifth|next|last|here|again|too|also|followed)\b))",
    )
});

/// Begins with what closes a letter that a line or item begins with.
static CLOSED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\)?[ \t]*(?:$|[\n.:;)>|=/,<•·~→]|\(|[-–—][ \t>])"));

/// Ends at the beginning of an item: of a line, perhaps after a bullet or number, or after a separator.
static ITEM_START: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:^|[\n:;>|=,/<•·~]|\d[.):]|\()[ \t]*[-•#]*[ \t]*(?:\d{1,2}[.):])?[ \t]*\(?$"));

/// Ends with a word that announces a letter, in whatever case that is.
static ANNOUNCED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:option|candidate|entity|answer|choice|letter|answer is|it is|it's)[ \t]*[:=]?[ \t]*\(?$")
});

fn letters(text: &str, options: &[PlainChoice], names: &[Mention]) -> Vec<Mention> {
    let Some(last) = options.len().checked_sub(1).map(letter) else { return Vec::new() };
    let of = |c: char| {
        let capital = c.to_ascii_uppercase();
        ('A'..=last).contains(&capital).then(|| (capital as u8 - b'A') as usize)
    };
    let mut found = Vec::new();
    for run in RUN.find_iter(text) {
        let (word, range) = (run.as_str(), run.range());
        if let [byte] = word.as_bytes() {
            let Some(option) = of(char::from(*byte)) else { continue };
            let own_name = |m: &&Mention| m.option == option && m.span.start > range.end;
            let labels = names.iter().find(own_name).is_some_and(|m| is_label(&text[range.end..m.span.start]));
            found.extend(
                single(text, &range, labels).map(|loose| Mention { loose, ..named(range, option, By::Letter) }),
            );
        } else if is_permutation(word, last, options.len(), text.trim() == word) && stands_alone(text, &range) {
            let each = word.char_indices().filter_map(|(i, c)| Some((range.start + i, of(c)?)));
            found.extend(each.map(|(at, option)| named(at..at + 1, option, By::Letter)));
        }
    }
    found
}

/// Whether a letter and a name with this between them are one option's label.
pub fn is_label(between: &str) -> bool {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[ \t]*[.):(-]*[ \t]*(?:[-–—][ \t]*)?\(?$"));
    LABEL.is_match(between)
}

/// Whether a word is letters of options in some order, such as `BAC`: all of them, or it is the whole answer.
fn is_permutation(word: &str, last: char, options: usize, whole: bool) -> bool {
    let distinct = word.chars().enumerate().all(|(i, c)| ('A'..=last).contains(&c) && !word[..i].contains(c));
    distinct && (word.len() == options || whole)
}

/// Whether a single letter names an option at all, and if so, whether only loosely.
fn single(text: &str, range: &Range<usize>, labels: bool) -> Option<bool> {
    let (before, after) = (end_of(&text[..range.start]), &text[range.end..]);
    let capital = text[range.clone()].starts_with(|c: char| c.is_ascii_uppercase());
    // Part of a word: A-level, I'm, R&B, U.S.
    let attaches = |c: char| matches!(c, '\'' | '-' | '&' | '@' | '+' | '.' | '_');
    let previous: Vec<char> = before.chars().rev().take(2).collect();
    let next: Vec<char> = after.chars().take(2).collect();
    let joined_before = match previous[..] {
        [c, d] if attaches(c) => adjoins(d) && !d.is_ascii_digit(),
        [c, ..] => adjoins(c),
        [] => false,
    };
    let joined_after = match next[..] {
        [c, d] if attaches(c) => adjoins(d),
        [c, ..] => adjoins(c),
        [] => false,
    };
    if joined_before || joined_after {
        return None;
    }
    let whole = text.trim_matches(|c: char| !c.is_alphanumeric()).len() == 1;
    let enclosed = before.ends_with('(') && after.starts_with([')', '.', ':']);
    if whole || enclosed || labels && capital {
        return Some(false);
    }
    if !capital {
        let item = ITEM_START.is_match(before) || ANNOUNCED.is_match(before);
        return (item && CLOSED.is_match(after)).then_some(false);
    }
    if matches!(&text[range.clone()], "A" | "I") && !NO_NOUN.is_match(after) {
        return None;
    }
    let cued = CUED.is_match(before);
    // An initial in a name that no option bears, or a word's: Michael B. Jordan, U. S.
    let next_word = after.strip_prefix('.').unwrap_or(after).trim_start_matches([' ', '\t']);
    let name = |word: &str| word.starts_with(char::is_uppercase) && word.chars().nth(1).is_some_and(char::is_lowercase);
    let initial = !cued && name(next_word) && next_word.len() < after.len();
    (!initial).then_some(!cued)
}
