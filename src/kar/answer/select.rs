//! The one option that an answer settles on.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::mentions::{By, Mention, is_label};
use super::{is_filler, order, pattern};

/// How a sentence claims that an option is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It announces the answer.
    Announced,
    /// It is the option and nothing else.
    Bare,
    /// It begins with the option as with a title.
    Titled,
    /// It says that the option fits.
    Fitting,
}

/// A claim that an option is meant; without an option, that one of several may be.
struct Claim {
    how: How,
    option: Option<usize>,
}

/// Announces the answer.
static ANNOUNCED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:answer|choice|conclusion|prediction|selection|entity|option|match)(?: to [^.\n]{0,80}?| here| for [^.\n:]{0,60}?)?\s*(?:\b(?:is|are|would be|should be|must be)\b|[:=])|\b(?:i|we)(?:'d|'ll| would| will| have|'ve)? (?:choose|chose|chosen|select|selected|pick|picked|go with|opt for|say)\b|(?:答案|答え|正解|选择|應選|应选|选|選|选项|選項)(?:应该|應該)?(?:是|为|為|は|:)?|(?:정답|답)(?:은|:)|\b(?:respuesta|r[ée]ponse|antwort|risposta|resposta)(?: \w+)?\s*(?:\b(?:es|est|ist|lautet|[eèé])\b|[:=])|\bответ\s*[:—-]",
    )
});

/// Says, right before an option, that it fits.
static FITS_NEXT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:\brefer(?:s|ring)? to|\b(?:best|closest|strongest|most \w+) (?:match|fit|choice|option|candidate|answer|entity|one)\w*(?: here| for [^.\n]{0,60}?| to [^.\n]{0,60}?)?(?: is| would be|:)|\bmost (?:likely|probably)(?: refers to| is|:)?|\bcorrect (?:one|entity|option|match)?\s*(?:is|:)|\bpoints? to|\btherefore,?|\b(?:is|means) clearly)[ \t]*(?:the )?(?:option |entity |candidate )?\(?$",
    )
});

/// Says, right after an option, that it fits.
static FITS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\)?(?:[.:,]? ?\([^)]*\))?,?[ \t]*(?:\w+ly[ \t]+)?(?:(?:is|was|would be|seems|appears|looks|must be|should be|has to be)[ \t]+(?:to be[ \t]+)?(?:\w+ly[ \t]+)?(?:the[ \t]+|a[ \t]+|my[ \t]+)?(?:\w+ly[ \t]+|one[ \t]+|single[ \t]+)?(?:best|most|correct|right|likel|answer|intended|meant|appropriate|closest|strongest|choice|match|what)|(?:fits?|matches)\b|makes? (?:the )?(?:most )?sense|stands out|it is\b|wins\b|(?:选项|項)?(?:是|为)?(?:最|正确|正解)|が(?:正解|最)|[가이] ?(?:정답|가장))",
    )
});

/// Takes back or weighs what a sentence said before.
static BUT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:but|however|although|though|yet|only|less|unless|if|either|neither|nor|equally|partly|partially)\b|(?:不过|但|しかし|하지만)",
    )
});

/// Says on what condition something holds.
static IF: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:if|suppose|assuming|unless)\b|如果|若"));

/// Says what else may be.
static MAY: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:could|might|may|can)\b|可能"));

/// Ends the reach of an announcement.
static TURN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:because|since|while|whereas|although|but|however|unlike|instead|not|among|between|one of|either|options?:)\b|[;(]|不是",
    )
});

/// Says that no option fits, or that the model does not know.
static NONE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:none of|neither of|no (?:option|candidate|entity|match|correct|suitable)|not (?:sure|certain|possible|enough|clear)|can(?:not|'t) (?:be )?(?:determined?|tell|say|answer|identify)|don't know|unclear|unable|insufficient|ambiguous|sorry|(?:could|might|may) (?:also )?(?:be|refer)|maybe|perhaps|which (?:one|entity|option))\b|都不|无法|不确定|没有|わかりません|分かりません|모르",
    )
});

/// Whether another option stands beside one as its equal.
static EQUAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\)?[ \t]*(?:,?[ \t]*\b(?:or|and)\b|,|/|&|,?[ \t]*(?:或|和|または|또는))[ \t]*(?:possibly |maybe |even )?(?:the )?(?:option |entity )?\(?$",
    )
});

/// Ends a sentence, unlike the stop after an option's letter or an abbreviation.
static SENTENCE_END: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:\w\w|[)'%])[.!?](?:\s|$)|[。！？!?]|\n"));

/// How far from its announcement an answer may stand, in bytes.
const REACH: usize = 120;

/// The option that an answer settles on. `None` where it settles on none, or on more than one.
pub fn selected(text: &str, found: &[Mention], options: usize) -> Option<usize> {
    let counting: Vec<Mention> = found.iter().filter(|m| !m.ruled_out && !m.loose).cloned().collect();
    let several = counting.iter().any(|m| m.option != counting[0].option);
    if several {
        // A list and nothing else, or an order.
        let listed = order::bare(text, found, options).or_else(|| order::ordered(text, found, options));
        if let Some(first) = listed.and_then(|order| order.first().copied()) {
            return Some(first);
        }
    }
    let sentences = sentences(text);
    let claims: Vec<Claim> = sentences.iter().flat_map(|sentence| claims(text, sentence, &counting)).collect();
    let begins = claims.first().filter(|claim| claim.how == How::Bare).map(|claim| claim.option);
    if let Some(last) = claims.iter().rposition(|claim| claim.how == How::Announced) {
        let chosen = claims[last].option;
        let contradicted = claims[last + 1..].iter().any(|c| c.how != How::Titled && c.option != chosen);
        return chosen.filter(|_| begins.is_none_or(|begins| begins == chosen) && !contradicted);
    }
    if let Some(first) = claims.first() {
        let agreed = claims.iter().all(|claim| claim.option == first.option);
        // A title behind another option is one of a list of all there are.
        let listed = first.how == How::Titled && first.option != counting.first().map(|m| m.option);
        return first.option.filter(|_| agreed && !listed && (!NONE.is_match(text) || first.how == How::Bare));
    }
    // Nothing is claimed, but no other option is named.
    let first = counting.first()?;
    // The mention's own text may be an option's name: a sentence about it settles nothing.
    let last = counting.last()?;
    let talk = |m: &Mention| m.by == By::Name && text[m.span.end..].trim_start().starts_with(char::is_alphanumeric);
    if talk(last) {
        return None;
    }
    let described = |m: &Mention| m.by == By::Letter && DESCRIBED.is_match(&text[m.span.end..]);
    let sure =
        !several && !NONE.is_match(text) && !BUT.is_match(&text[first.span.end..]) && !counting.iter().any(described);
    sure.then_some(first.option)
}

/// Begins with what only tells what an option is.
static DESCRIBED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)^\)?,?[ \t]*(?:is|was|refers|describes|has|does|means|could|might|may|would|can)\b")
});

/// The sentences of a text. An announcement at the end of one goes on in the next line.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut start = 0;
    for end in SENTENCE_END.find_iter(text) {
        let at = end.end();
        if text[start..at].trim_end().ends_with(':') {
            continue;
        }
        sentences.push(start..at);
        start = at;
    }
    sentences.push(start..text.len());
    sentences.retain(|s| !text[s.clone()].trim().is_empty());
    sentences
}

fn claims(text: &str, sentence: &Range<usize>, counting: &[Mention]) -> Vec<Claim> {
    let within: Vec<&Mention> =
        counting.iter().filter(|m| sentence.start <= m.span.start && m.span.end <= sentence.end).collect();
    let claim = |how: How, at: usize| Claim { how, option: single(text, &within, at) };
    let Some(first) = within.first() else { return Vec::new() };
    let said = &text[sentence.clone()];
    // The last announcement that anything follows.
    for announced in ANNOUNCED.find_iter(said).map(|m| sentence.start + m.end()).collect::<Vec<_>>().into_iter().rev() {
        let next = within.iter().position(|m| (announced..announced + REACH).contains(&m.span.start));
        if let Some(at) =
            next.filter(|&at| !TURN.is_match(text[announced..within[at].span.start].trim_start_matches([' ', '('])))
        {
            let rest = &text[within[at].span.end..sentence.end];
            let others = within[at..].iter().any(|m| m.option != within[at].option);
            let doubtful = IF.is_match(&text[sentence.start..within[at].span.start]) || others && MAY.is_match(rest);
            let one = claim(How::Announced, at);
            return vec![Claim { option: one.option.filter(|_| !doubtful), ..one }];
        }
    }
    let mut end = sentence.start;
    let bare = within.iter().all(|m| {
        let filler = m.span.start < end || is_filler(&text[end..m.span.start]);
        end = end.max(m.span.end);
        filler
    });
    if bare && is_filler(&text[end..sentence.end]) {
        let equal = within.iter().all(|m| m.option == first.option);
        return vec![Claim { how: How::Bare, option: equal.then(|| claim(How::Bare, 0).option).flatten() }];
    }
    let mut claims = Vec::new();
    for (at, m) in within.iter().enumerate() {
        let (before, after) = (&text[sentence.start..m.span.start], &text[m.span.end..sentence.end]);
        if FITS.is_match(after) || FITS_NEXT.is_match(before) {
            let sure = !BUT.is_match(after) && !before.to_lowercase().trim_end().ends_with(" if");
            let one = claim(How::Fitting, at);
            claims.push(Claim { option: one.option.filter(|_| sure), ..one });
        }
    }
    let after = text[first.span.end..sentence.end].trim_start_matches(')');
    let title = is_filler(&text[sentence.start..first.span.start])
        && (after.starts_with(['.', ':', ',', ';', '\n']) || after.trim_start().starts_with(['-', '–', '—', '(', '=']));
    if title && claims.is_empty() {
        claims.push(claim(How::Titled, 0));
    }
    claims
}

/// The option of this mention, unless another stands beside it as its equal or it is labelled with another's name.
fn single(text: &str, within: &[&Mention], at: usize) -> Option<usize> {
    let option = within[at].option;
    let between = |a: &Mention, b: &Mention| text.get(a.span.end..b.span.start).unwrap_or_default().to_string();
    let beside = |a: usize, b: usize| {
        let (first, second) = (within[a], within[b]);
        let gap = between(first, second);
        let mislabelled = first.by == By::Letter && second.by == By::Name && is_label(&gap);
        first.option != second.option && (EQUAL.is_match(&gap) || mislabelled)
    };
    // A name after the letter is the letter's.
    let last = (at + 1..within.len()).take_while(|&i| within[i].option == option).last().unwrap_or(at);
    let next = last + 1 < within.len() && beside(last, last + 1);
    let previous = at > 0 && beside(at - 1, at);
    (!next && !previous).then_some(option)
}
