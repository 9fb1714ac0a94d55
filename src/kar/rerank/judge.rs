//! What a mention's answers make of its ranking.

use super::Subject;
use crate::data::{Entity, Ranking};
use crate::kar::answer::{Choice as Named, Reading, read};
use crate::kar::debias::{Prior, over_rotations, softmax};
use crate::kar::fuse::{log_softmax, of_ranking};
use crate::kar::instruction::Strategy;
use crate::kar::model::{Reply, Said};
use crate::kar::types::{Choice, Reranked, Verdict};

/// The letters' probabilities of each reply, if every one has them.
pub fn letters_of(replies: &[Reply]) -> Option<Vec<Vec<f64>>> {
    let letters = |reply: &Reply| match &reply.said {
        Said::Letters(logits) => Some(softmax(logits)),
        _ => None,
    };
    replies.iter().map(letters).collect()
}

/// A ranking that stays as it is, for this reason.
pub fn kept(ranking: &Ranking, verdict: Verdict) -> Reranked {
    Reranked { order: (0..ranking.candidates.len()).collect(), verdict, choice: None }
}

/// The new ranking that these replies make of one: to one question, or to one per rotation of its options.
pub fn judge(ranking: &Ranking, replies: &[Reply], subject: Subject, prior: Option<&Prior>) -> Reranked {
    let settings = subject.settings;
    let shown = settings.shown(ranking);
    if let Some(rotations) = letters_of(replies).filter(|r| !r.is_empty()) {
        let letter = best(&rotations[0]);
        let fused = settings.weights.as_ref().zip(log_letters(&replies[0]));
        let by_letter = match (fused, rotations.as_slice(), prior) {
            (Some((weights, model)), ..) => weights.probabilities(&of_ranking(ranking, &shown), &model),
            (None, [one], Some(prior)) => prior.divided_out(one),
            (None, [one], None) => one.clone(),
            (None, all, _) => over_rotations(all),
        };
        let mut probabilities = vec![0.0; shown.len()];
        shown.iter().zip(by_letter).for_each(|(&option, p)| probabilities[option] = p);
        let mut order: Vec<usize> = (0..shown.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        // What the ranking says of the others is in their probabilities too where both are added.
        if settings.strategy == Strategy::SelectOne && settings.weights.is_none() {
            order.truncate(1);
        }
        let order = reordered(&order, ranking.candidates.len());
        let verdict = Verdict::Answered { probabilities: Some(probabilities) };
        return Reranked { order, verdict, choice: Some(Choice { shown, letter }) };
    }
    let verdict = match replies.iter().map(|r| &r.said).find(|said| !matches!(said, Said::Letters(_))) {
        Some(Said::Text(text)) => {
            let entity = |&at: &usize| &subject.dataset.entities()[ranking.candidates[at] as usize];
            let entities: Vec<&Entity> = shown.iter().map(entity).collect();
            let options: Vec<Named> = entities.iter().map(|e| Named { name: &e.name, qid: &e.qid }).collect();
            // A text among several rotations' letters does not fit with them.
            let reading = if replies.len() == 1 { read(text, &options, settings.strategy) } else { Reading::Invalid };
            match reading {
                Reading::Named(letters) => {
                    let named: Vec<usize> = letters.iter().map(|&letter| shown[letter]).collect();
                    let choice = letters.first().map(|&letter| Choice { shown, letter });
                    let order = reordered(&named, ranking.candidates.len());
                    return Reranked { order, verdict: Verdict::Answered { probabilities: None }, choice };
                }
                Reading::Invalid => Verdict::Invalid(text.clone()),
                Reading::Unfinished => Verdict::Unfinished(text.clone()),
            }
        }
        Some(Said::Unfinished(text)) => Verdict::Unfinished(text.clone()),
        Some(Said::Unsure(text)) => Verdict::Unsure(text.clone()),
        Some(Said::Refused(reason)) => Verdict::Refused(reason.clone()),
        _ => Verdict::Refused("the model gave no answer".into()),
    };
    kept(ranking, verdict)
}

/// The letters' log-probabilities of a reply, if it has them.
pub fn log_letters(reply: &Reply) -> Option<Vec<f64>> {
    match &reply.said {
        Said::Letters(logits) => Some(log_softmax(logits.iter().map(|&logit| logit.into()).collect())),
        _ => None,
    }
}

/// The first of the largest.
fn best(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// The positions of a ranking with those that were named first, and the rest in their old order.
fn reordered(named: &[usize], candidates: usize) -> Vec<usize> {
    let rest = (0..candidates).filter(|at| !named.contains(at));
    named.iter().copied().chain(rest).collect()
}
