//! What a re-ranking prints.

use clap::ValueEnum;
use fissfuse::data::Split;
use fissfuse::kar::{AtLetter, Fusion, Report, Scoring, Unanswered};
use fissfuse::printable::excerpt;
use fissfuse::report::{rank_change_table, reranking_table, table};

/// Invalid answers that are shown on the terminal.
const SHOWN: usize = 3;

pub fn print_report(report: &Report) {
    let (k, spent) = (report.settings.k, &report.spent);
    println!("{} mentions, the first {k} candidates of each; {}", report.mentions, report.model);
    if let Some(table) = reranking_table(report) {
        println!("{table}\n{}\n", report.note);
        println!("Ranks of the right entities before (rows) and after (columns):");
        println!("{}", rank_change_table(report));
        let changes = &report.changes;
        print!("{} better, {} worse, {} behind the first {k}", changes.improved, changes.degraded, changes.behind);
        println!(" ({} of them no candidate)", report.gold_missing);
    }
    if report.without_gold > 0 {
        println!("{} mentions have no gold entity: they are re-ranked and go into no metric", report.without_gold);
    }
    println!(
        "asked about {} mentions in {} calls ({} more in the journal): {} invalid answers, {} refused",
        report.asked(),
        spent.calls,
        spent.from_journal,
        report.invalid.len(),
        report.refused.len()
    );
    let first = |listed: &[Unanswered]| {
        listed.iter().take(SHOWN).for_each(|u| println!("  {}: {:?}", u.mention_id, excerpt(&u.answer)));
    };
    first(&report.invalid);
    first(&report.refused);
    if !report.unfinished.is_empty() {
        let longer = match report.settings.scoring {
            Scoring::Generate => "raise --max-new-tokens",
            Scoring::Letters => "let it think to its end with --scoring generate",
        };
        println!(
            "{} answers ended within the model's thoughts: {longer}, or switch its thinking off (--body)",
            report.unfinished.len()
        );
        first(&report.unfinished);
    }
    if !report.unsure.is_empty() {
        println!(
            "{} answers hardly begin with a letter, by their log-probabilities; --scoring generate reads them whole",
            report.unsure.len()
        );
        first(&report.unsure);
    }
    if report.settings.gate.is_some() {
        let right = report.sure_and_right.map(|s| format!("; of these, {:.1} % were right", 100.0 * s));
        println!("the gate saved {} calls{}", spent.calls_saved, right.unwrap_or_default());
    }
    if report.weightless > 0 {
        println!("{} mentions keep their ranking: the model's answers have no weight", report.weightless);
    }
    print_letters(report);
    if report.settings.debias.is_some() && report.letter_prior.is_none() {
        println!("nothing was debiased: no mention that was asked has {k} candidates and their letters' probabilities");
    }
    if let Some(prior) = &report.letter_prior {
        let shares: Vec<String> = prior
            .iter()
            .enumerate()
            .map(|(i, p)| format!("{} {:.1} %", char::from(b'A' + i as u8), 100.0 * p))
            .collect();
        println!("the model's preference for letters, divided out: {}", shares.join(", "));
    }
    if let Some(sample) = &report.debias_sample {
        let [letter, option] = [sample.by_letter, sample.by_option].map(|share| 100.0 * share);
        if sample.is_mostly_letters() {
            println!(
                "WARNING: letters explain {letter:.1} % of what the model says, options {option:.1} %: what is left is mostly \
                 noise"
            );
        }
        if let Some(gain) = sample.reciprocal.filter(|gain| gain.mean < 0.0) {
            println!(
                "WARNING: on {} of the sampled mentions the answers change MRR by {} %; --fuse weighs them",
                sample.judged,
                gain.shown(100.0, 2)
            );
        }
    }
    println!(
        "{} tokens of prompts, {} of them computed and not shared; {} new tokens; {:.1} s ({:.1} calls/s)",
        spent.prompt_tokens,
        spent.computed_tokens,
        spent.new_tokens,
        spent.seconds,
        spent.calls as f64 / spent.seconds.max(1e-9)
    );
}

/// How the model by itself did with what stood at each letter.
fn print_letters(report: &Report) {
    if report.by_letter.is_empty() {
        return;
    }
    let order = report.settings.order.to_possible_value().map(|value| value.get_name().to_string());
    println!("What the model itself chose, by letter (options {}):", order.unwrap_or_default());
    let row = |at: &AtLetter| {
        let share = if at.right > 0 { format!("{:.1}", 100.0 * at.found as f64 / at.right as f64) } else { "-".into() };
        vec![at.letter.to_string(), at.right.to_string(), at.found.to_string(), share, at.chosen.to_string()]
    };
    println!("{}", table(&["letter", "right there", "found", "%", "chosen"], report.by_letter.iter().map(row)));
}

/// What is expected of the weights, before a mention is asked about that they are for.
pub fn print_fusion(fusion: &Fusion, split: Split) {
    let Fusion { mentions, fitted, folds, weights, reason, likelihood, hits1, reciprocal, spent } = fusion;
    println!(
        "weights are fitted on {fitted} of {mentions} mentions of {split}, and judged in {folds} folds ({} calls, {} more in \
         the journal)",
        spent.calls, spent.from_journal
    );
    println!(
        "  with the model, mean change and 95 % interval: H@1 {} %, MRR {} %, log-likelihood {} nats",
        hits1.shown(100.0, 2),
        reciprocal.shown(100.0, 2),
        likelihood.shown(1.0, 4)
    );
    match reason {
        Some(reason) => println!("  the model counts 0, and nothing is asked or moved: {reason}"),
        None => {
            let letters = weights.letters.iter().zip('A'..).map(|(weight, letter)| format!("{letter} {weight:+.2}"));
            println!(
                "  log p = {:.4} * {} + {:.4} * the model's log p + letter ({})",
                weights.ranker,
                if weights.scored { "score" } else { "-ln(rank)" },
                weights.model,
                letters.collect::<Vec<_>>().join(", ")
            );
        }
    }
}
