//! How sure figures are, in words.

use crate::error::Result;
use crate::eval::statistics::TTest;
use crate::eval::{Comparison, Metrics, Recall, ShortlistSettings};

use super::metrics_table;

/// H@1 with its interval, in a line. Fails for metrics of no mention.
pub fn hits_line(metrics: &Metrics) -> Result<String> {
    let [(name, interval), ..] = metrics.intervals()?;
    let [share, low, high] = [metrics.hits1, interval.low, interval.high].map(|share| 100.0 * share);
    Ok(format!("{name} {share:.2} %, 95 % interval {low:.2} to {high:.2} % (Wilson)"))
}

/// What a first stage's lists find, with its interval, in a line; where a scan in f32 does not make them, how much of its they
/// hold, in another one.
pub fn recall_line(settings: &ShortlistSettings, entities: usize, recall: &Recall) -> String {
    let [share, low, high] = [recall.share(), recall.interval.low, recall.interval.high].map(|share| 100.0 * share);
    let exact = recall.of_exact.map(|share| {
        let (share, mentions) = (100.0 * share, recall.mentions);
        format!("\nit holds {share:.2} % of the entities that a scan in f32 lists, in the mean of {mentions} mentions")
    });
    format!(
        "a list of {} of {entities} entities holds the whole model's first for {} of {} mentions: recall {share:.2} %, 95 % \
         interval {low:.2} to {high:.2} % (Wilson){}",
        settings.length,
        recall.found,
        recall.mentions,
        exact.unwrap_or_default()
    )
}

/// Both runs' metrics on the mentions that both rank, and what their difference is worth.
pub fn comparison_text(comparison: &Comparison) -> String {
    let Comparison { run, against, difference, interval, bootstrap, t_test, better, worse, equal, .. } = comparison;
    let [difference, low, high] = [*difference, interval.low, interval.high].map(|x| 100.0 * x);
    let resamples = bootstrap.resamples;
    let test = match t_test {
        TTest { t: Some(t), degrees_of_freedom, p, .. } => {
            format!("paired t-test: p {} (t = {t:.3}, {degrees_of_freedom} degrees of freedom)", probability(*p))
        }
        TTest { p, note, .. } => format!("paired t-test: p {} ({})", probability(*p), note.unwrap_or("no t")),
    };
    format!(
        "{}\nMRR {difference:+.2}, 95 % interval {low:+.2} to {high:+.2} (bootstrap, {resamples} resamples); {test}\n\
         gold entities ranked better: {better}, worse: {worse}, equally: {equal}",
        metrics_table([("run", run), ("against", against)])
    )
}

/// A p-value with its sign of relation.
fn probability(p: f64) -> String {
    match p {
        p if p < 1e-99 => "< 1e-99".into(),
        p if p < 1e-3 => format!("= {p:.1e}"),
        p => format!("= {p:.3}"),
    }
}
