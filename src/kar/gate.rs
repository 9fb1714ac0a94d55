//! Asking only where a ranking is unsure of itself.

use crate::data::Ranking;
use crate::error::{Error, Result};

/// How far a ranking's first candidate is ahead of its second: the difference of their confidences, which are the
/// softmax of the scores over all candidates. At most 1; less than 0 if the list is not in the order of its scores.
pub fn margin(ranking: &Ranking) -> Result<f32> {
    let scores = ranking.scores.as_deref().ok_or_else(|| {
        let id = &ranking.mention.id;
        Error::invalid(format!("mention `{id}`: the run file has no `scores`, which the gate needs; leave out --gate"))
    })?;
    let &[first, second, ..] = scores else { return Ok(1.0) };
    // In f64 and relative to the highest: no score is too large to be raised.
    let highest = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let weight = |s: f32| (f64::from(s) - f64::from(highest)).exp();
    let all: f64 = scores.iter().map(|&s| weight(s)).sum();
    Ok(((weight(first) - weight(second)) / all) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Mention;

    fn ranking(scores: Option<&[f32]>) -> Ranking {
        let [id, mention, sentence] = ["m", "x", "x y"].map(String::from);
        let mention = Mention { id, mention, sentence, image: None, candidates: None, gold: None };
        let n = scores.map_or(2, <[f32]>::len) as u32;
        Ranking { mention, candidates: (0..n).collect(), scores: scores.map(<[f32]>::to_vec) }
    }

    #[test]
    fn the_margin_is_the_difference_of_the_confidences() {
        let of = |scores: &[f32]| margin(&ranking(Some(scores))).unwrap();
        // Confidences 0.6, 0.3, 0.1.
        let scores = [0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        assert!((of(&scores) - 0.3).abs() < 1e-6);
        assert!((of(&scores.map(|s| s + 1e3)) - 0.3).abs() < 1e-4);
        assert_eq!((of(&[3e38, -3e38]), of(&[5.0, 5.0]), of(&[-1e30]), of(&[])), (1.0, 0.0, 1.0, 1.0));
        assert!(of(&[1.0, 2.0]) < 0.0);
        assert!(margin(&ranking(None)).unwrap_err().to_string().contains("no `scores`"));
    }
}
