//! What is said of options beside a list of them.

use std::sync::LazyLock;

use regex::Regex;

use crate::kar::answer::pattern;

/// A remark in parentheses.
pub(super) static REMARK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\(([^()\n]*)\)"));

/// What stands before a list that is no order of the model's own, even with a colon.
pub(super) static SHOWN_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:format|example|e\.g|given|original|initial)\b[^\n.:]{0,20}:?\s*$|^\W*(?:the |all )?(?:options|candidates|entities)(?: are| were)?\s*:?\s*$",
    )
});

/// Whether remarks on the options of a list, in its order, call none but the first the best and none but the last the worst.
pub(super) fn remarks_agree<'a>(remarks: impl Iterator<Item = &'a str>) -> bool {
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
