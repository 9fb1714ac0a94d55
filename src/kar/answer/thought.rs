//! What a reasoning model thinks before it answers, by the marks that models put around it.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern;

/// Names of the tags that stand around thoughts, as `<think>` and `</think>`.
const TAGS: &str = r"think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad|seed:think";

/// Opens a thought.
static OPENED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)<(?:{TAGS})>|\[think\]|◁think▷|<\|(?:start_thinking|begin_of_thought|think)\|>|<\|channel\|>\s*(?:analysis|commentary)|<unused94>"
    ))
});

/// Closes it; the answer follows.
static CLOSED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)</(?:{TAGS})>|\[/think\]|◁/think▷|<\|(?:end_thinking|end_of_thought|/think)\|>|<\|channel\|>\s*final\s*(?:<\|message\|>)?|<unused95>"
    ))
});

/// The same channels where a server left out their marks.
static UNMARKED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*analysis[A-Z](?s:.*?)(assistant\s?final|$)"));

/// An answer without the thoughts before it; `None` if it ends within one.
pub fn after(answer: &str) -> Option<&str> {
    if let Some(unmarked) = UNMARKED.captures(answer) {
        let end = unmarked.get(1).filter(|end| !end.is_empty())?;
        return Some(&answer[end.end()..]);
    }
    let answer = CLOSED.find_iter(answer).last().map_or(answer, |closed| &answer[closed.end()..]);
    let Some(opened) = OPENED.find(answer) else { return Some(answer) };
    let before = &answer[..opened.start()];
    before.chars().any(char::is_alphanumeric).then_some(before)
}

/// Whether a token opens a thought and is nothing else.
pub fn opens(token: &str) -> bool {
    OPENED.find(token).is_some_and(|mark| mark.as_str() == token)
}

/// Whether a token closes a thought and is nothing else.
pub fn closes(token: &str) -> bool {
    CLOSED.find(token).is_some_and(|mark| mark.as_str() == token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_cut_in_whatever_marks() {
        for (open, close) in [
            ("<think>", "</think>"),
            ("<THINK>", "</Think>"),
            ("<thinking>\n", "\n</thinking>"),
            ("<thought>", "</thought>"),
            ("<reasoning>", "</reasoning>"),
            ("[THINK]", "[/THINK]"),
            ("◁think▷", "◁/think▷"),
            ("<seed:think>", "</seed:think>"),
            ("<|START_THINKING|>", "<|END_THINKING|>"),
            ("<|begin_of_thought|>", "<|end_of_thought|>"),
            ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
            ("<unused94>thought\n", "<unused95>"),
            ("analysis", "assistantfinal"),
            // The chat template has opened it.
            ("", "</think>"),
        ] {
            assert_eq!(after(&format!("{open}Option A is a king.{close}B")), Some("B"), "{open}");
            if !open.is_empty() {
                assert_eq!(after(&format!("{open}Option A is a king.")), None, "{open}");
            }
        }
        assert_eq!(after("B<think>or A"), Some("B"));
        assert_eq!(after("analysis of A"), Some("analysis of A"));
    }
}
