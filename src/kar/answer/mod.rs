//! What a model's answer says: letters, names, identifiers, lists or prose, to options in an order.
//!
//! Precision comes first: an answer is read as what it says, whole, or not at all. What models write is in tables: marks of
//! thoughts (`thought`), dress (`plain`), words before and after an option (`mentions`), ways to settle on one
//! (`select`) and ways to list them (`order`).

mod mentions;
mod order;
mod plain;
mod select;
pub(super) mod thought;

use std::sync::LazyLock;

use regex::Regex;

use super::instruction::Strategy;

/// An option as an answer may name it.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The entity's name.
    pub name: &'a str,
    /// Its identifier.
    pub qid: &'a str,
}

/// An option whose name is written as [`plain::plain`] writes answers.
struct PlainChoice<'a> {
    name: String,
    qid: &'a str,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Options, each once, the best first. *Select one*: the one it settles on. *Rank top-k*: its order; what it does not
    /// name follows.
    Named(Vec<usize>),
    /// None that can be told for sure.
    Invalid,
    /// Nothing yet: it ends within the model's thoughts.
    Unfinished,
}

/// Longest answer that is read, in bytes: whoever says more has not settled on anything.
const LONGEST: usize = 16 << 10;

/// Reads an answer to a question with these options.
pub fn read(answer: &str, options: &[Choice], strategy: Strategy) -> Reading {
    let Some(said) = thought::after(answer) else { return Reading::Unfinished };
    // Dress is a small part of what anybody reads.
    if said.len() > 8 * LONGEST {
        return Reading::Invalid;
    }
    let options: Vec<PlainChoice> =
        options.iter().map(|c| PlainChoice { name: plain::plain_name(c.name), qid: c.qid }).collect();
    let text = plain::plain(said);
    if text.len() > LONGEST {
        return Reading::Invalid;
    }
    let text = after_correction(&text);
    let found = mentions::find(text, &options);
    let named = match strategy {
        Strategy::SelectOne => select::selected(text, &found, options.len()).map(|option| vec![option]),
        Strategy::RankTopK => order::ranked(text, &found, options.len()),
    };
    named.map_or(Reading::Invalid, Reading::Named)
}

/// Whether an answer ends within the model's thoughts.
pub fn ends_in_thought(answer: &str) -> bool {
    thought::after(answer).is_none()
}

/// Takes back what was said before.
static CORRECTION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:wait|hold on|hmm|scratch that|strike that|on second thoughts?|correction|corrected|i was wrong|i made (?:a|an) (?:mistake|error)|my mistake|let me (?:re\w+|correct|fix|double-check)|(?:that|this)(?: is|'s| was| order is)? (?:wrong|incorrect|not right)|actually,? (?:it is|it's|the|i|no|my|that)|no, (?:it|the|that|i)|sorry,? (?:it|the|i|that)|i apologi[sz]e)\b|等等|不对，|更正|訂正|정정",
    )
});

/// What stands after an answer's last correction of itself.
fn after_correction(text: &str) -> &str {
    CORRECTION
        .find_iter(text)
        .last()
        .map_or(text, |found| text[found.end()..].trim_start_matches([',', ':', '.', ' ', '\n']))
}

/// Words and signs that say nothing about an option but where it stands among others.
static FILLER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?ix)^(?:\s|[-.,:;>|=/()\#!•·~→–—&\u{3001}\u{3002}]|\d{1,3}(?:\.\d+)?%?|
        \b(?:and|then|next|followed|closely|by|last|lastly|finally|afterwards|after\ that|is|are|was|comes?|goes|would|be|should|i|it|
        most|least|more|less|very|highly|slightly|somewhat|likely|probable|plausible|possible|suitable|relevant|best|good|great|fit|match|
        first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d{1,2}(?:st|nd|rd|th)|one|two|three|four|five|
        ranks?|ranked|ranking|order|final|answer|correct|place|placed|position|spot|put|in|at|the|as|to|with|of|over|above|before|ahead|my|
        options?|candidates?|entity|entities|choices?|letters?|sure|here|so|
        puis|ensuite|enfin|dann|gefolgt|von|luego|despu[eé]s|seguido|de|poi|depois)\b|
        然后|其次|接着|随后|最后|再是|再|和|与|第一|第二|第三|第四|第五|首先|是|选项|选择|选|答案|顺序|排序|为|次に|最後に|そして|の順|です|答え|は|그다음|다음|마지막|정답|입니다|은|는)*$",
    )
});

/// Whether a text is filler alone.
fn is_filler(text: &str) -> bool {
    FILLER.is_match(text)
}

/// What a pattern that this module writes down compiles to.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|e| unreachable!("{e}"))
}

#[cfg(test)]
mod tests;
