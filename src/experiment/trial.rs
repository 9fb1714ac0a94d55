//! One training with its evaluation, in a folder of its own.

use std::fs;
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::plan::Trial;
use crate::data::{Batcher, Counts, Dataset, GoldMissing, Mention, Protocol, RunFile, Sample, Skipped, Split};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::eval::{Metrics, evaluate, write_run};
use crate::files::names::{LAST, RUN};
use crate::files::{self, FolderLock};
use crate::model::ModelConfig;
use crate::provenance::Provenance;
use crate::settings::difference;
use crate::train::{Start, Steps, TrainSettings, TrainedModel, Trainer};

/// The file in a trial's folder that says that it is finished.
pub(super) const RESULT: &str = "result.json";

/// The file in a trial's folder that says why it failed.
const FAILED: &str = "failed.txt";

/// A dataset whose mentions were read.
pub struct Data<'a> {
    /// Entities and mentions.
    pub dataset: &'a Dataset,
    /// Their features.
    pub batcher: &'a Batcher,
    /// Mentions by split; those of validation may be none.
    pub train: Vec<Mention>,
    /// See `train`.
    pub valid: Vec<Mention>,
    /// See `train`.
    pub test: Vec<Mention>,
    /// Checksum of the dataset's files.
    pub checksum: String,
    /// What becomes of mentions whose lists lack their gold entity.
    pub gold_missing: GoldMissing,
}

impl<'a> Data<'a> {
    /// Reads the mentions of all splits. Fails if the features lack one, or if no test mention is left.
    pub fn read(
        dataset: &'a Dataset,
        batcher: &'a Batcher,
        gold_missing: GoldMissing,
        skipped: &mut Skipped,
    ) -> Result<Data<'a>> {
        let mut mentions = |split: Split| match dataset.has(split) || split != Split::Valid {
            true => dataset.ranked_mentions(split, Some(gold_missing), skipped),
            false => Ok(Vec::new()),
        };
        let [train, valid, test] = [mentions(Split::Train)?, mentions(Split::Valid)?, mentions(Split::Test)?];
        let data = Data { dataset, batcher, train, valid, test, checksum: dataset.checksum()?, gold_missing };
        // Features that lack something are no matter of one trial.
        [&data.train, &data.valid].into_iter().try_for_each(|mentions| data.samples(mentions, 0).map(drop))?;
        data.tested()?;
        Ok(data)
    }

    /// Samples of mentions; the seed draws the order of each list, which decides ties.
    pub fn samples(&self, mentions: &[Mention], seed: u64) -> Result<(Vec<Sample>, Counts)> {
        self.batcher.samples(mentions, seed, self.gold_missing)
    }

    /// The test samples, which are the same for all trials, and the protocol that they are of.
    pub fn tested(&self) -> Result<(Vec<Sample>, Protocol)> {
        let (samples, counts) = self.samples(&self.test, 0)?;
        if samples.is_empty() {
            return Err(Error::invalid("no test mention is left to rank"));
        }
        let missing = if self.gold_missing == GoldMissing::Miss { counts.gold_missing } else { 0 };
        Ok((samples, Protocol::of(missing)))
    }
}

/// What a trial came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrialResult {
    /// The model.
    pub model: ModelConfig,
    /// Its training.
    pub train: TrainSettings,
    /// The epoch whose model was kept, from 1.
    pub epoch: usize,
    /// Trained parameters.
    pub parameters: usize,
    /// Metrics on the validation mentions, if there are any.
    pub valid: Option<Metrics>,
    /// Metrics on the test mentions.
    pub test: Metrics,
    /// Checksum of the run file.
    pub run: String,
    /// Seconds that this process took for training and evaluation.
    pub seconds: f64,
    /// What made it.
    pub provenance: Provenance,
}

impl TrialResult {
    /// The result in a trial's folder, if it is finished.
    ///
    /// Fails if it is that of other settings.
    pub fn of(trial: &Trial, data: &Data, experiment: &Path) -> Result<Option<TrialResult>> {
        let path = experiment.join(&trial.folder).join(RESULT);
        if !path.try_exists().map_err(Error::io(&path, "look for"))? {
            return Ok(None);
        }
        let folder = experiment.join(&trial.folder);
        let advice = format!("put it back, or delete {} to have it computed anew", folder.display());
        let text = files::read_text_or_stream(&path)?;
        let unreadable = |e| Error::file(&path, format!("is no result of a trial: {e}; {advice}"));
        let result: TrialResult = serde_json::from_str(&text).map_err(unreadable)?;
        let model = trial.config.model.for_features(data.batcher.store().manifest())?;
        let what = [difference(&result.model, &model), difference(&result.train, &trial.config.train)];
        let what: Vec<String> = what.into_iter().filter(|text| !text.is_empty()).collect();
        if !what.is_empty() {
            let reason = format!(
                "is a result of other settings: {}; choose another --out, or delete its folder to compute it anew",
                what.join(", ")
            );
            return Err(Error::file(&path, reason));
        }
        expect_as_written(&folder.join(RUN), &result.run, &advice)?;
        Ok(Some(result))
    }
}

/// Fails if the run file of what is finished is gone, or has another checksum than it was written with; `advice` says what to do.
pub(super) fn expect_as_written(run: &Path, checksum: &str, advice: &str) -> Result<()> {
    let found = match run.try_exists().map_err(Error::io(run, "look for"))? {
        true => Some(RunFile::read(run)?.checksum()),
        false => None,
    };
    let what = match found {
        Some(found) if found == checksum => return Ok(()),
        Some(_) => "is not as it was written",
        None => "is gone, though the result beside it is there",
    };
    Err(Error::file(run, format!("{what}; {advice}")))
}

/// Rank of each mention's gold entity and whether the list holds it, as a trial's run file has them.
pub fn ranks(run: &Path) -> Result<Vec<(String, usize, bool)>> {
    #[derive(Deserialize)]
    struct Line {
        mention_id: String,
        rank: usize,
        gold: Option<String>,
    }
    let lines = crate::data::read_records::<Line>(run)?.into_iter();
    lines.map(|(_, line)| line.map(|Line { mention_id, rank, gold }| (mention_id, rank, gold.is_some()))).collect()
}

/// Trains a trial, goes on with it if it was begun, and evaluates it; `None` if another process is at it.
pub fn run(trial: &Trial, data: &Data, experiment: &Path, gpu: Option<&Gpu>) -> Result<Option<TrialResult>> {
    let folder = experiment.join(&trial.folder);
    files::create_folder(&folder)?;
    let Some(_lock) = FolderLock::free(&folder)? else { return Ok(None) };
    // It may have been finished by another process since it was looked for.
    if let Some(result) = TrialResult::of(trial, data, experiment)? {
        return Ok(Some(result));
    }
    let failed = folder.join(FAILED);
    let computed = compute(trial, data, &folder, gpu);
    match &computed {
        Err(error @ Error::Stopped { .. }) => tracing::debug!("{}: {error}", folder.display()),
        Err(error) => files::write_whole(&failed, |out| writeln!(out, "{error}"))?,
        Ok(_) if failed.exists() => fs::remove_file(&failed).map_err(Error::io(&failed, "remove"))?,
        Ok(_) => {}
    }
    match computed {
        Err(Error::Stopped { signal, .. }) => {
            let advice = format!("what is done is kept in {}; the same command goes on", experiment.display());
            Err(Error::Stopped { signal, advice })
        }
        computed => computed.map(Some),
    }
}

fn compute(trial: &Trial, data: &Data, folder: &Path, gpu: Option<&Gpu>) -> Result<TrialResult> {
    let start = Instant::now();
    let model = trial.config.model.for_features(data.batcher.store().manifest())?;
    let (train, _) = data.samples(&data.train, trial.seed)?;
    let (valid, _) = data.samples(&data.valid, trial.seed)?;
    let last = folder.join(LAST);
    let begin = if last.exists() { Start::Resume { new_horizon: false } } else { Start::New };
    let settings = (model.clone(), trial.config.train.clone());
    let (source, steps) = ((data.batcher, data.checksum.clone()), Steps::new(gpu, false)?);
    let mut trainer = Trainer::new(folder, settings, source, (train, valid), begin, steps)?;
    trainer.run(&ProgressBar::hidden(), |_| {})?;
    let trained = TrainedModel::read(folder)?;
    let (samples, _) = data.tested()?;
    let evaluation = evaluate(&trained.model.to(gpu)?, data.batcher, &samples, &ProgressBar::hidden())?;
    let run = folder.join(RUN);
    write_run(&run, data.dataset, &samples, &evaluation)?;
    let device = crate::device::describe(gpu);
    let result = TrialResult {
        model,
        train: trial.config.train.clone(),
        epoch: trained.epoch,
        parameters: trained.model.parameters().count(),
        valid: trained.metrics,
        test: evaluation.mean,
        run: RunFile::read(&run)?.checksum(),
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::new(device, data.checksum.clone()),
    };
    files::write_whole(&folder.join(RESULT), |out| writeln!(out, "{}", serde_json::to_string_pretty(&result)?))?;
    // Nothing goes on from a finished trial, and its optimizer's state is twice the model.
    fs::remove_file(&last).map_err(Error::io(&last, "remove"))?;
    Ok(result)
}
