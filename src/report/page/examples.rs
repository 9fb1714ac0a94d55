//! Mentions with what methods rank first, as in Fig. 10 of the paper.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::block::{Block, Candidate, Example, Method, Section};
use super::input::{From, Inputs};
use super::results::Evaluation;
use super::thumbnail::Thumbnails;
use crate::data::{Dataset, Mention, Ranking, RunFile, Skipped, Split, Tolerance};
use crate::error::Result;

/// Entities that are shown of each ranking.
const SHOWN: usize = 3;

/// Mentions that are shown of runs: so many that the first run links rightly, and so many that it does not.
const OF_EACH: usize = 2;

/// Most examples of an experiment.
const MOST: usize = 8;

/// Most methods side by side.
const METHODS: usize = 4;

/// An example as a summary.json has it.
#[derive(Debug, Deserialize)]
pub struct OfSummary {
    mention_id: String,
    mention: String,
    sentence: String,
    image: Option<String>,
    gold: String,
    ranked: Vec<(String, Vec<Ranked>)>,
}

/// An entity of an example: summaries of earlier versions have its name alone.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ranked {
    Name(String),
    Entity {
        qid: String,
        name: String,
        image: Option<String>,
        #[serde(default)]
        right: bool,
        score: Option<f64>,
        #[serde(default)]
        by_score: Map<String, Value>,
    },
}

/// A dataset that examples are looked up in.
pub struct Known<'a> {
    /// Its entities and mentions.
    pub dataset: &'a Dataset,
    /// Its checksum.
    pub checksum: String,
}

/// The section, if there are examples to show.
pub fn section(inputs: &Inputs, known: Option<&Known>) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    let mut of_dataset = Thumbnails::new(known.map(|known| known.dataset.root()));
    for experiment in inputs.experiments.iter().filter(|experiment| !experiment.what.examples.is_empty()) {
        blocks.push(Block::heading(&experiment.what.title, &experiment.source()));
        let row = experiment.what.against.as_deref().unwrap_or("one row");
        blocks.push(Block::text(format!(
            "The first mentions of the test split whose right entity {row} ranks first and no other row does."
        )));
        // Another dataset may have other images by the same names.
        let mut none = Thumbnails::new(None);
        let same = known.is_some_and(|known| known.checksum == experiment.what.dataset);
        let thumbnails = if same { &mut of_dataset } else { &mut none };
        let shown = experiment.what.examples.iter().take(MOST).map(|example| of_summary(example, thumbnails));
        blocks.extend(shown.map(Block::Example));
    }
    match known {
        Some(known) => of_runs(inputs, known, &mut of_dataset, &mut blocks)?,
        None if !inputs.runs.is_empty() => {
            blocks.push(Block::text("Examples of runs are shown if the dataset is named (--data DIR)."));
        }
        None => {}
    }
    let lead = "What the methods rank first, with the scores that each gives. The right entity is marked.";
    Ok((!blocks.is_empty()).then_some(Section { id: "examples", title: "Examples", lead, blocks }))
}

fn of_summary(example: &OfSummary, thumbnails: &mut Thumbnails) -> Example {
    let OfSummary { mention_id, mention, sentence, image, gold, ranked } = example;
    let image = thumbnails.picture(image.as_deref());
    let mut method = |(row, entities): &(String, Vec<Ranked>)| {
        let mut scores: Vec<String> = Vec::new();
        let mut candidates = Vec::new();
        for (at, entity) in entities.iter().take(SHOWN).enumerate() {
            candidates.push(match entity {
                Ranked::Name(name) => Candidate {
                    rank: at + 1,
                    name: name.clone(),
                    qid: None,
                    image: thumbnails.picture(None),
                    gold: name == gold,
                    values: Vec::new(),
                },
                Ranked::Entity { qid, name, image, right, score, by_score } => {
                    let number = |value: Option<f64>| value.map_or("–".to_string(), |value| format!("{value:.2}"));
                    scores = ["mean".to_string()].into_iter().chain(by_score.keys().cloned()).collect();
                    let each = by_score.values().map(|value| number(value.as_f64()));
                    Candidate {
                        rank: at + 1,
                        name: name.clone(),
                        qid: Some(qid.clone()),
                        image: thumbnails.picture(image.as_deref()),
                        gold: *right,
                        values: [number(*score)].into_iter().chain(each).collect(),
                    }
                }
            });
        }
        Method { name: row.clone(), scores, candidates }
    };
    Example {
        id: mention_id.clone(),
        sentence: around(sentence, mention),
        mention: mention.clone(),
        gold: gold.clone(),
        image,
        methods: ranked.iter().map(&mut method).collect(),
    }
}

/// A sentence in three parts, of which the second is the mention.
fn around(sentence: &str, mention: &str) -> [String; 3] {
    match sentence.split_once(mention).filter(|_| !mention.is_empty()) {
        Some((before, after)) => [before.to_string(), mention.to_string(), after.to_string()],
        None => [sentence.to_string(), String::new(), String::new()],
    }
}

/// A run with its rankings by mention, and the scores of these.
struct Read {
    name: String,
    order: Vec<String>,
    rankings: HashMap<String, Ranking>,
    scores: HashMap<String, Vec<(String, Vec<f32>)>>,
}

/// Examples of run files, those of one split together.
fn of_runs(inputs: &Inputs, known: &Known, thumbnails: &mut Thumbnails, blocks: &mut Vec<Block>) -> Result<()> {
    let beside = |run: &Path| {
        let same = |evaluation: &&From<Evaluation>| evaluation.path.parent() == run.parent();
        inputs.evaluations.iter().find(same).map(|evaluation| evaluation.what.task())
    };
    for split in Split::ALL {
        let of_split =
            |run: &&PathBuf| beside(run).map_or(Split::Test.to_string(), |task| task.split) == split.to_string();
        let (same, other): (Vec<&PathBuf>, Vec<&PathBuf>) = inputs
            .runs
            .iter()
            .filter(of_split)
            .partition(|run| beside(run).is_none_or(|task| task.dataset == known.checksum));
        for run in other {
            blocks.push(Block::warning(format!(
                "{}: no examples, since it is of another dataset than {}.",
                run.display(),
                known.dataset.root().display()
            )));
        }
        if same.is_empty() {
            continue;
        }
        let mentions = known.dataset.mentions(split, &mut Skipped::default())?;
        let runs: Vec<Read> =
            same.iter().take(METHODS).map(|run| read(run, known.dataset, &mentions)).collect::<Result<_>>()?;
        let files: Vec<String> = same.iter().map(|run| run.display().to_string()).collect();
        blocks.push(Block::Heading { text: format!("Mentions of {split}"), source: Some(files.join(", ")) });
        blocks.push(Block::text(format!(
            "The first {OF_EACH} mentions whose right entity {} ranks first, and the first {OF_EACH} it gets wrong.",
            runs[0].name
        )));
        let right = |id: &&String| runs[0].rankings[*id].rank(0..runs[0].rankings[*id].candidates.len()) == Some(1);
        let judged = |id: &&String| runs[0].rankings[*id].mention.gold.is_some();
        let (right, wrong): (Vec<&String>, Vec<&String>) = runs[0].order.iter().filter(judged).partition(right);
        for id in right.into_iter().take(OF_EACH).chain(wrong.into_iter().take(OF_EACH)) {
            blocks.push(Block::Example(of_mention(id, &runs, known.dataset, thumbnails)));
        }
    }
    Ok(())
}

fn read(path: &Path, dataset: &Dataset, mentions: &[Mention]) -> Result<Read> {
    let run = RunFile::read(path)?;
    let rankings = run.rankings(dataset, mentions, Tolerance::Strict, &mut Skipped::default())?.rankings;
    let name = From { path: path.to_path_buf(), what: () }.short();
    Ok(Read {
        // A run beside its metrics is called by its folder, as these are.
        name: name.strip_suffix("/run").unwrap_or(&name).to_string(),
        order: rankings.iter().map(|ranking| ranking.mention.id.clone()).collect(),
        rankings: rankings.into_iter().map(|ranking| (ranking.mention.id.clone(), ranking)).collect(),
        scores: run.scores_by_name(),
    })
}

fn of_mention(id: &str, runs: &[Read], dataset: &Dataset, thumbnails: &mut Thumbnails) -> Example {
    let Mention { mention, sentence, image, gold, .. } = &runs[0].rankings[id].mention;
    let image = thumbnails.picture(image.as_deref());
    let mut method = |run: &Read| {
        let ranking = run.rankings.get(id)?;
        let named = run.scores.get(id).map(Vec::as_slice).unwrap_or_default();
        let means = ranking.scores.as_ref().map(|scores| ("mean".to_string(), scores.clone()));
        let columns: Vec<(String, Vec<f32>)> = means.into_iter().chain(named.iter().cloned()).collect();
        let candidate = |(at, &entity): (usize, &u32)| {
            let found = &dataset.entities()[entity as usize];
            let value = |(_, scores): &(String, Vec<f32>)| scores.get(at).map_or("–".into(), |x| format!("{x:.2}"));
            Candidate {
                rank: at + 1,
                name: found.name.clone(),
                qid: Some(found.qid.clone()),
                image: thumbnails.picture(found.image.as_deref()),
                gold: Some(entity) == *gold,
                values: columns.iter().map(value).collect(),
            }
        };
        let candidates = ranking.candidates.iter().take(SHOWN).enumerate().map(candidate).collect();
        let scores = columns.iter().map(|(name, _)| name.clone()).collect();
        Some(Method { name: run.name.clone(), scores, candidates })
    };
    let methods = runs.iter().filter_map(&mut method).collect();
    Example {
        id: id.to_string(),
        sentence: around(sentence, mention),
        mention: mention.clone(),
        gold: gold.map_or("unknown".into(), |gold| dataset.entities()[gold as usize].name.clone()),
        image,
        methods,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_layouts_are_read() {
        let line = r#"{
            "mention_id":"m","mention":"ball","sentence":"A ball flies.","image":null,"gold":"red ball","ranked":[
            ["old",["box","red ball"]],
            ["new",[{"qid":"Q1","name":"red ball","image":null,"right":true,"score":1.5,
                     "by_score":{"S1T":2.0,"S1V":null}}]]]}"#;
        let example = of_summary(&serde_json::from_str(line).unwrap(), &mut Thumbnails::new(None));
        assert_eq!(example.sentence, ["A ", "ball", " flies."]);
        let [old, new] = &example.methods[..] else { panic!() };
        assert_eq!(old.candidates.iter().map(|c| c.gold).collect::<Vec<_>>(), [false, true]);
        assert_eq!(new.scores, ["mean", "S1T", "S1V"]);
        assert_eq!(new.candidates[0].values, ["1.50", "2.00", "–"]);
        assert_eq!(around("A ball.", "box"), ["A ball.", "", ""].map(String::from));
    }
}
