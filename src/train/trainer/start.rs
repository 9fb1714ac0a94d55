//! How a run begins, or is taken up again.

use std::path::Path;

use super::super::checkpoint::{Checkpoint, EncoderState, Progress, RunIdentity, Start};
use super::super::config::TrainSettings;
use super::super::encoder::EncoderRun;
use super::super::memory::Needs;
use super::super::record::{Stages, read_log};
use super::super::source::{Features, of_epoch};
use super::super::steps::Steps;
use super::super::{share, together};
use super::Trainer;
use crate::data::Sample;
use crate::device::describe;
use crate::error::{Error, Result};
use crate::files;
use crate::files::names::LAST;
use crate::model::{Model, ModelConfig};
use crate::ops::Moments;
use crate::provenance::Provenance;

impl<'a> Trainer<'a> {
    /// A new run in `folder`, or the one that was started there; on the device or the host of `steps`. Of ranks that train
    /// together each has a trainer; that of rank 0 alone reads and writes the folder.
    pub fn new(
        folder: &Path,
        (config, settings): (ModelConfig, TrainSettings),
        (features, dataset): (impl Into<Features<'a>>, String),
        (train, valid): (Vec<Sample>, Vec<Sample>),
        start: Start,
        steps: Steps,
    ) -> Result<Trainer<'a>> {
        settings.check()?;
        let mut features = features.into();
        let train: Vec<Sample> = train.into_iter().filter(|s| s.gold.is_some()).collect();
        if train.is_empty() {
            return Err(Error::invalid("no training mention has its gold entity among its candidates"));
        }
        let train = share::take(train, settings.share, settings.seed, |sample| &sample.id);
        if settings.batch_size > train.len() {
            let (size, mentions) = (settings.batch_size, train.len());
            tracing::warn!("batch_size {size} exceeds the {mentions} training mentions; every epoch is one step");
        }
        let group = steps.group().cloned();
        let ranks = group.as_ref().map_or(1, |group| group.size());
        let mut needs = Needs::of(&config, &settings, &train, ranks)?;
        needs.check(steps.gpu())?;
        let encoder = match &mut features {
            Features::Stored(_) => None,
            Features::Trained(run) => {
                if ranks > 1 {
                    return Err(Error::invalid("an encoder is trained along on one device; leave out --devices"));
                }
                let first: Vec<Sample> =
                    train.iter().take(settings.batch_size).map(|s| of_epoch(s, &settings, 0)).collect();
                needs = run.needs(needs, &first, steps.gpu())?;
                Some(EncoderState::new(run.take_start()?))
            }
        };
        // Without the number of threads: no result depends on it.
        let device = steps.gpu().map_or("cpu".into(), |gpu| describe(Some(gpu)));
        let device = if ranks > 1 { format!("{device}, with {} other ranks", ranks - 1) } else { device };
        let provenance = Provenance::new(device, dataset);
        let along = features.encoder().map(EncoderRun::along);
        let run = RunIdentity {
            settings: &settings,
            manifest: features.manifest(),
            encoder: along.as_ref(),
            provenance: &provenance,
        };
        let mut records = Vec::new();
        let leads = group.as_ref().is_none_or(|group| group.leads());
        let state = match start {
            _ if !leads => None,
            Start::Resume { new_horizon } => {
                start.check(folder)?;
                let state = Checkpoint::resume(&folder.join(LAST), (&config, encoder), run, new_horizon)?;
                records = read_log(&folder.join("train.jsonl"), state.progress.epoch)?;
                Some(state)
            }
            Start::New => {
                start.check(folder)?;
                let model = Model::new(config.clone(), settings.seed)?;
                let moments = model.parameters().tensors().iter().map(|t| Moments::zeros(t.shape())).collect();
                Some(Checkpoint { model, moments, encoder, progress: Progress::default() })
            }
        };
        if leads {
            files::create_folder(folder)?;
        }
        let state = match (&group, state) {
            (Some(group), state) => together::share_state(group, state, &config)?,
            (None, Some(state)) => state,
            (None, None) => return Err(Error::invalid("a run alone has no other rank's state")),
        };
        Ok(Trainer {
            folder: folder.to_path_buf(),
            features,
            along,
            train,
            valid,
            settings,
            provenance,
            state: state.to(steps.gpu())?,
            needs,
            steps,
            pending: None,
            asked: false,
            records,
            stages: Stages::default(),
        })
    }
}
