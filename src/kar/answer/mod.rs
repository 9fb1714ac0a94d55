//! What a model's answer says: letters, names, identifiers, lists or prose, to options in an order.

mod evidence;

use std::sync::LazyLock;

use regex::Regex;

use super::instruction::Strategy;
use evidence::{Evidence, Kind, find, pattern};

/// An option as an answer may name it.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The entity's name.
    pub name: &'a str,
    /// Its identifier.
    pub qid: &'a str,
}

/// The options that an answer names, each once. *Select one*: at most one, the option it settles on. *Rank top-k*: in
/// the order in which it names them. Empty for an answer that names none, which is invalid.
pub fn parse(answer: &str, options: &[Choice], strategy: Strategy) -> Vec<usize> {
    let text = after_thinking(answer);
    let found = find(text, options);
    match strategy {
        Strategy::SelectOne => selected(text, &found).into_iter().collect(),
        Strategy::RankTopK => ranked(text, &found),
    }
}

/// An answer without what a reasoning model thought before it.
fn after_thinking(answer: &str) -> &str {
    match answer.rsplit_once("</think>") {
        Some((_, answer)) => answer,
        None => answer.split("<think>").next().unwrap_or_default(),
    }
}

/// Announces the answer.
static ANNOUNCED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:answer|choice|conclusion)(?: to [^.\n]{0,80}?)?\s*(?:\b(?:is|are|would be|should be|must be)\b|[:=])|\b(?:i|we)(?:['’]d|['’]ll| would| will| have|['’]ve)? (?:choose|chose|chosen|select|selected|pick|picked|go with)\b",
    )
});

/// Says what fits, or is about to.
static FITTING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\brefer(?:s|ring)? to\b|\bbest (?:match|fit|choice|option|candidate|answer)\w*|\bmost (?:likely|suitable|appropriate|fitting|relevant|probabl[ey])\b|\bcorrect\b|\btherefore\b",
    )
});

/// Ends a sentence, unlike the stop after an option's letter.
static SENTENCE_END: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?:\w\w|[)\]"'’”])[.!?](?:\s|$)"#));

/// How far from its announcement an answer may stand, in bytes.
const REACH: usize = 120;

/// The option that an answer settles on: the one it announces last, else the one it begins with, else the one it
/// says fits, else the first it names in the surest way.
fn selected(text: &str, found: &[Evidence]) -> Option<usize> {
    let begins =
        found.first().filter(|e| e.kind == Kind::Letter && !text[..e.span.start].contains(char::is_alphanumeric));
    let first_of = |kind: Kind| found.iter().find(|e| e.kind == kind);
    let kinds = [Kind::Letter, Kind::Identifier, Kind::Name, Kind::LooseLetter];
    let chosen = announced(text, found, &ANNOUNCED)
        .or(begins)
        .or_else(|| announced(text, found, &FITTING))
        .or_else(|| kinds.into_iter().find_map(first_of));
    chosen.map(|e| e.option)
}

/// What stands in the sentence after the last announcement that anything follows.
fn announced<'a>(text: &str, found: &'a [Evidence], announcement: &Regex) -> Option<&'a Evidence> {
    let ends: Vec<usize> = announcement.find_iter(text).map(|m| m.end()).collect();
    ends.into_iter().rev().find_map(|end| {
        let within = |e: &&Evidence| (end..end + REACH).contains(&e.span.start);
        let same_sentence = |e: &&Evidence| {
            let between = text[end..e.span.start].trim_start();
            !SENTENCE_END.is_match(between) && !between.contains('\n')
        };
        found.iter().find(|e| within(e) && same_sentence(e))
    })
}

/// Announces an order.
static ORDER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(?:order|ranking|ranked|rank|answer)\b[^\n:]{0,80}:"));

/// Options in the order in which an answer names them: after its last announcement of an order that two or more
/// follow, else in all of it.
fn ranked(text: &str, found: &[Evidence]) -> Vec<usize> {
    let ends: Vec<usize> = ORDER.find_iter(text).map(|m| m.end()).collect();
    let after = |end: usize| found.iter().filter(move |e| e.span.start >= end);
    let last = ends.into_iter().rev().map(|end| surest(after(end))).find(|order| order.len() >= 2);
    last.unwrap_or_else(|| surest(found.iter()))
}

/// The options by letters if those name two or more, else by whatever names them; by loose letters only if nothing
/// else does.
fn surest<'a>(found: impl Iterator<Item = &'a Evidence> + Clone) -> Vec<usize> {
    let in_order = |wanted: &dyn Fn(Kind) -> bool| {
        let mut order = Vec::new();
        for e in found.clone().filter(|e| wanted(e.kind)) {
            if !order.contains(&e.option) {
                order.push(e.option);
            }
        }
        order
    };
    let letters = in_order(&|kind| kind == Kind::Letter);
    if letters.len() >= 2 {
        return letters;
    }
    let told = in_order(&|kind| kind != Kind::LooseLetter);
    if told.is_empty() { in_order(&|_| true) } else { told }
}

#[cfg(test)]
mod tests;
