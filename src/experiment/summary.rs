//! The table of an experiment: means over seeds, spreads, tests against one row, and the paper's values beside them.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::differences::{Difference, RESAMPLING, Reciprocals, compare};
use super::examples::{Example, examples};
use super::file::ExperimentFile;
use super::plan::Plan;
use super::question::Question;
use super::rerank::Reranked;
use super::run::Outcome;
use super::trial::{self, Data, TrialResult};
use crate::data::Protocol;
use crate::error::Result;
use crate::eval::statistics::{self, Resampling};
use crate::eval::{Baselines, Metrics, RunMetrics, RunRanks};
use crate::files::names::RUN;
use crate::printable::quoted;
use crate::profile::flops;
use crate::profile::synthetic::Shape;
use crate::report::{Paper, Printed};

/// Candidates of the mention whose FLOPs are counted (section 4.3.6).
const CANDIDATES: usize = 10;

/// Everything an experiment's table says.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Title.
    pub title: String,
    /// Checksum of the dataset.
    pub dataset: String,
    /// What the lists mean.
    pub protocol: Protocol,
    /// Test mentions.
    pub mentions: usize,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// The row that the others are compared with.
    pub against: Option<String>,
    /// How intervals of differences were drawn.
    pub bootstrap: Resampling,
    /// Number of the paper's table that `paper` of the rows is of.
    pub paper: Option<u8>,
    /// In the order of the file, a re-ranked row behind the one it is made of; then what is reached without a model.
    pub rows: Vec<SummaryRow>,
    /// Mentions that the row `against` alone links rightly, with the first seed.
    pub examples: Vec<Example>,
    /// What re-ranking did, in the order of rows, of questions and of seeds.
    pub reranked: Vec<Reranked>,
}

/// A row of the table.
#[derive(Debug, Default, Serialize)]
pub struct SummaryRow {
    /// Its name.
    pub name: String,
    /// What was chosen for it on validation, such as `learning_rate=0.001`.
    pub chosen: Option<String>,
    /// The validation MRR of each point that was tried.
    pub tried: Vec<(String, Option<f64>)>,
    /// Its metrics, if a trial of it is finished.
    pub metrics: Option<Spread>,
    /// Its difference to the row that it is compared with.
    pub difference: Option<Difference>,
    /// Trained parameters.
    pub parameters: Option<usize>,
    /// FLOPs of one mention with 10 candidates whose features are cached.
    pub flops: Option<u64>,
    /// The language model that re-ranked the rankings of a row, and that row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranked_by: Option<(String, String)>,
    /// The paper's metrics.
    pub paper: Option<Printed>,
    /// What is missing, and why.
    pub missing: Vec<String>,
}

/// Metrics over seeds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Share of mentions whose gold entity ranks first.
    #[serde(rename = "H@1")]
    pub hits1: statistics::Summary,
    /// Share of those that rank among the first two.
    #[serde(rename = "H@2")]
    pub hits2: statistics::Summary,
    /// Share of those that rank among the first three.
    #[serde(rename = "H@3")]
    pub hits3: statistics::Summary,
    /// Mean rank.
    #[serde(rename = "MR")]
    pub mean_rank: statistics::Summary,
    /// Mean reciprocal rank.
    #[serde(rename = "MRR")]
    pub reciprocal: statistics::Summary,
}

impl Spread {
    fn of(metrics: &[Metrics]) -> Result<Spread> {
        let over = |value: fn(&Metrics) -> f64| statistics::Summary::of(&metrics.iter().map(value).collect::<Vec<_>>());
        Ok(Spread {
            hits1: over(|m| m.hits1)?,
            hits2: over(|m| m.hits2)?,
            hits3: over(|m| m.hits3)?,
            mean_rank: over(|m| m.mean_rank)?,
            reciprocal: over(|m| m.reciprocal)?,
        })
    }
}

impl Summary {
    /// Of what is finished. `runs` are run files by the names of their rows.
    pub fn new(
        (file, plan): (&ExperimentFile, &Plan),
        data: &Data,
        outcome: &Outcome,
        (out, runs): (&Path, &HashMap<String, RunRanks>),
        reranked: Vec<Reranked>,
    ) -> Result<Summary> {
        let (samples, protocol) = data.tested()?;
        let (mut rows, mut reciprocals) = (Vec::new(), Vec::new());
        for (number, planned) in plan.rows.iter().enumerate() {
            let name = &planned.row.name;
            let (mut row, reciprocal) = match planned.row.run_file {
                true => given(name, protocol, runs)?,
                false => trained(plan, number, outcome, out)?,
            };
            if file.complexity && row.metrics.is_some() {
                row.flops = planned.points.first().map(|point| flops_of(&point.config, data)).transpose()?;
            }
            rows.push(row);
            reciprocals.push(reciprocal);
            for question in file.rerank.iter().filter(|question| question.of.as_ref() == Some(name)) {
                let (row, reciprocal) = answered(question, name, &reranked)?;
                rows.push(row);
                reciprocals.push(reciprocal);
            }
        }
        if let Some(against) = rows.iter().position(|row| Some(&row.name) == file.against.as_ref()) {
            let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            let compared = compare(&names, &reciprocals, against)?;
            for (row, (difference, note)) in rows.iter_mut().zip(compared) {
                row.difference = difference;
                row.missing.extend(note);
            }
        }
        let examples = match &file.against {
            Some(against) if file.examples > 0 => {
                let run = |number: usize| {
                    let trial = plan.chosen(number, outcome.chosen[number]?).into_iter().next()?;
                    let run = out.join(&trial.folder).join(RUN);
                    outcome.finished.contains_key(&trial.folder).then(|| (plan.rows[number].row.name.clone(), run))
                };
                let runs: Vec<_> = (0..plan.rows.len()).filter_map(run).collect();
                examples(data, against, &runs, file.examples)?
            }
            _ => Vec::new(),
        };
        let Baselines { list_order, chance } = Baselines::of(&samples, &data.test);
        for (name, metrics) in [("the lists' order", list_order), ("chance", chance)] {
            let metrics = Some(Spread::of(&[metrics])?);
            rows.push(SummaryRow { name: name.into(), metrics, ..SummaryRow::default() });
        }
        Ok(Summary {
            title: file.title.clone(),
            dataset: data.checksum.clone(),
            protocol,
            mentions: samples.len(),
            seeds: file.seeds.clone(),
            against: file.against.clone(),
            bootstrap: RESAMPLING,
            paper: file.paper,
            rows,
            examples,
            reranked,
        })
    }
}

impl Summary {
    /// Stands the paper's values on this dataset beside the rows, where it has some.
    pub fn stand_beside(&mut self, file: &ExperimentFile, paper: &Paper, dataset: &str) {
        let Some(table) = file.paper else { return };
        for row in &mut self.rows {
            let named = file.rows.iter().find(|named| named.name == row.name).and_then(|named| named.paper.as_ref());
            row.paper = paper.lookup(table, dataset, named.unwrap_or(&row.name)).cloned();
        }
    }
}

/// A row that was trained, and each mention's reciprocal rank by its seeds.
fn trained(plan: &Plan, number: usize, outcome: &Outcome, out: &Path) -> Result<(SummaryRow, Reciprocals)> {
    let planned = &plan.rows[number];
    let mut row = SummaryRow { name: planned.row.name.clone(), ..SummaryRow::default() };
    if let Some(hole) = &planned.hole {
        row.missing.push(hole.clone());
        return Ok((row, Reciprocals::new()));
    }
    let finished = |trial: &super::Trial| outcome.finished.get(&trial.folder);
    for trial in plan.choosing(number) {
        let valid = finished(&trial).and_then(|result| result.valid).map(|valid| valid.reciprocal);
        row.tried.push((planned.points[trial.point].label.clone(), valid));
        row.missing.extend(outcome.failed.get(&trial.folder).map(|why| format!("{}: {why}", trial.folder.display())));
    }
    let Some(chosen) = outcome.chosen[number] else {
        row.missing.push("its settings are not chosen yet".into());
        return Ok((row, Reciprocals::new()));
    };
    row.chosen = Some(planned.points[chosen].label.clone()).filter(|label| !label.is_empty());
    let (mut results, mut reciprocals): (Vec<&TrialResult>, _) = (Vec::new(), Reciprocals::new());
    for trial in plan.chosen(number, chosen) {
        let Some(result) = finished(&trial) else {
            let why = outcome.failed.get(&trial.folder).map_or("not computed yet", String::as_str);
            row.missing.push(format!("seed {}: {why}", trial.seed));
            continue;
        };
        let ranks = trial::ranks(&out.join(&trial.folder).join(RUN))?.into_iter();
        let reciprocal = ranks.map(|(mention, rank, _)| (mention, 1.0 / rank as f64)).collect();
        reciprocals.push((Some(trial.seed), reciprocal));
        results.push(result);
    }
    row.parameters = results.first().map(|result| result.parameters);
    let metrics: Vec<Metrics> = results.iter().map(|result| result.test).collect();
    row.metrics = if metrics.is_empty() { None } else { Some(Spread::of(&metrics)?) };
    Ok((row, reciprocals))
}

/// A row that re-ranks another one's rankings, and each mention's reciprocal rank by the seeds.
fn answered(question: &Question, of: &str, reranked: &[Reranked]) -> Result<(SummaryRow, Reciprocals)> {
    let mut row = SummaryRow { name: question.name.clone(), ..SummaryRow::default() };
    let (mut models, mut metrics, mut reciprocals) = (Vec::new(), Vec::new(), Reciprocals::new());
    let all: Vec<&Reranked> = reranked.iter().filter(|reranked| reranked.question == question.name).collect();
    for Reranked { asked, ranks, seed, .. } in &all {
        let Some(asked) = asked else { continue };
        let Some(after) = asked.after else { continue };
        let reciprocal = ranks.iter().map(|(mention, rank)| (mention.clone(), 1.0 / *rank as f64)).collect();
        reciprocals.push((*seed, reciprocal));
        metrics.push(after);
        if !models.contains(&&asked.model) {
            models.push(&asked.model);
        }
    }
    let missing = |reranked: &&Reranked| Some((reranked.seed?, reranked.missing.clone()?));
    let missing: Vec<(u64, String)> = all.iter().filter_map(missing).collect();
    row.missing = match missing.first() {
        // One reason for all seeds is said once.
        Some((_, why)) if missing.len() == all.len() && missing.iter().all(|(_, other)| other == why) => {
            vec![why.clone()]
        }
        _ => missing.into_iter().map(|(seed, why)| format!("seed {seed}: {why}")).collect(),
    };
    let model = match &models[..] {
        [] => return Ok((row, Reciprocals::new())),
        [model] => model.to_string(),
        [one, other, ..] => {
            row.missing.push(format!("its seeds were re-ranked by different models, {one} and {other}"));
            return Ok((row, Reciprocals::new()));
        }
    };
    row.reranked_by = Some((model, of.to_string()));
    row.metrics = Some(Spread::of(&metrics)?);
    Ok((row, reciprocals))
}

/// A row whose run file is given.
fn given(name: &str, protocol: Protocol, runs: &HashMap<String, RunRanks>) -> Result<(SummaryRow, Reciprocals)> {
    let mut row = SummaryRow { name: name.to_string(), ..SummaryRow::default() };
    let Some(ranks) = runs.get(name) else {
        row.missing
            .push(format!("no run file is given (--run {}; docs/reproduce.md)", quoted(&format!("{name}=FILE"))));
        return Ok((row, Reciprocals::new()));
    };
    if ranks.protocol() != protocol {
        row.missing.push(format!("its lists are of another protocol, {} and not {protocol}", ranks.protocol()));
        return Ok((row, Reciprocals::new()));
    }
    let RunMetrics { metrics, absent, .. } = ranks.metrics();
    row.metrics = Some(Spread::of(&[metrics])?);
    if absent > 0 {
        row.missing.push(format!(
            "its metrics are over the {} test mentions that it ranks, not {absent} more",
            metrics.mentions
        ));
    }
    let reciprocal = ranks.ranks.iter().map(|(mention, gold)| (mention.clone(), 1.0 / gold.rank as f64)).collect();
    Ok((row, vec![(None, reciprocal)]))
}

/// FLOPs of inferring one mention with 10 candidates whose features are cached.
fn flops_of(config: &crate::train::RunConfig, data: &Data) -> Result<u64> {
    let model = config.model.for_features(data.batcher.store().manifest())?;
    let patches = data.batcher.store().manifest().patches;
    let shape = Shape { mentions: 1, candidates: CANDIDATES, patches, ..Shape::WIKIDIVERSE };
    Ok(flops::inference(model, shape, 0)?.0.forward)
}
