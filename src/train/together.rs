//! What the ranks of a run tell each other beside gradients: what they train on, where the run stands, ranks of validation
//! mentions, weights.

use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::checkpoint::{Checkpoint, Progress, Start};
use super::config::TrainSettings;
use super::part::Part;
use crate::autograd::Parameters;
use crate::data::{Batcher, Manifest, Sample};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::eval::{Metrics, evaluate};
use crate::model::{Model, ModelConfig};
use crate::ops::Moments;
use crate::parallel::Group;
use crate::tensor::Tensor;

/// What a run is made of, as each rank has it.
#[derive(Clone, Copy, Debug)]
pub struct Ingredients<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// How it is trained.
    pub settings: &'a TrainSettings,
    /// How its features were made.
    pub features: &'a Manifest,
    /// Checksum of the dataset's files.
    pub dataset: &'a str,
    /// Training and validation mentions.
    pub samples: [&'a [Sample]; 2],
    /// What computes; `None` is the host.
    pub gpu: Option<&'a Gpu>,
    /// Whether it goes on.
    pub start: Start,
}

impl Ingredients<'_> {
    /// Fails on all ranks, and says on each of them which rank differs in what, unless all have the same. Before anything is
    /// computed or written.
    pub fn agree(&self, group: &Group) -> Result<()> {
        group.now("comparing what it trains on");
        let (ranks, size, mentions) = (group.size(), self.settings.batch_size, self.samples[0].len());
        if size.min(mentions) < ranks {
            return Err(Error::invalid(format!(
                "{ranks} devices share each batch, of batch_size {size}, and there are {mentions} training mentions: not one for \
                 each; take fewer devices or a larger batch_size"
            )));
        }
        let arithmetic = |gpu: &Gpu| format!("cuda, {} arithmetic", gpu.arithmetic().name());
        let device = self.gpu.map_or("cpu".into(), arithmetic);
        let mentions = self.samples.map(|samples| {
            let mut hash = Xxh3::new();
            for Sample { id, candidates, gold, .. } in samples {
                hash.update(format!("{id}\n{candidates:?}\n{gold:?}\n").as_bytes());
            }
            format!("{} with checksum {:016x}", samples.len(), hash.digest())
        });
        group.agree(&json!({
            "model": self.model,
            "train": self.settings,
            "features": self.features,
            "dataset": {"checksum": self.dataset, "training mentions": mentions[0], "validation mentions": mentions[1]},
            "device": device,
            "--resume": self.start != Start::New,
        }))
    }
}

/// The state of rank 0, which alone must have one, on every rank and on the host.
pub(super) fn share_state(group: &Group, state: Option<Checkpoint>, config: &ModelConfig) -> Result<Checkpoint> {
    group.now("beginning");
    let broken = |e: serde_json::Error| Error::Rank(format!("rank 0 sent no state of a run: {e}"));
    let progress = state.as_ref().map(|state| serde_json::to_vec(&state.progress)).transpose().map_err(broken)?;
    let progress = group.broadcast(progress.unwrap_or_default())?;
    let progress: Progress = serde_json::from_slice(&progress).map_err(broken)?;
    let values = state.iter().flat_map(Checkpoint::tensors).flat_map(Tensor::data);
    let values = group.broadcast(bytemuck::cast_slice(&values.copied().collect::<Vec<f32>>()).to_vec())?;
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&values);
    if let Some(state) = state {
        return Ok(state);
    }
    let mut model = Model::with_parameters(config.clone(), Parameters::random(config, 0))?;
    let shapes: Vec<Vec<usize>> = model.parameters().tensors().iter().map(|tensor| tensor.shape().to_vec()).collect();
    let mut moments: Vec<Moments> = shapes.iter().map(|shape| Moments::zeros(shape)).collect();
    let of_moments = moments.iter_mut().flat_map(|m| [&mut m.first, &mut m.second]);
    let mut rest = &values[..];
    for tensor in model.parameters_mut().tensors_mut().iter_mut().chain(of_moments) {
        let Some((own, others)) = rest.split_at_checked(tensor.len()) else {
            return Err(Error::Rank("rank 0 sent the state of a smaller model".into()));
        };
        tensor.data_mut().copy_from_slice(own);
        rest = others;
    }
    Ok(Checkpoint { model, moments, encoder: None, progress })
}

/// Metrics of a model on these mentions, each of which one rank ranks.
pub(super) fn evaluate_together(
    group: &Group,
    model: &Model,
    batcher: &Batcher,
    samples: &[Sample],
) -> Result<Metrics> {
    let own = &samples[group.part(samples.len())];
    let ranked = match own.is_empty() {
        true => Vec::new(),
        false => evaluate(model, batcher, own, &indicatif::ProgressBar::hidden())?.ranked,
    };
    let ranks: Vec<u64> = ranked.iter().map(|ranked| ranked.rank as u64).collect();
    let ranks = group.gather(bytemuck::cast_slice(&ranks))?;
    let ranks = ranks.iter().flat_map(|ranks| bytemuck::pod_collect_to_vec::<u8, u64>(ranks));
    let found = samples.iter().map(|sample| sample.gold.is_some());
    Ok(Metrics::with_misses(&ranks.map(|rank| rank as usize).zip(found).collect::<Vec<_>>()))
}

/// Fails on all ranks unless all have the same weights, to the bit.
pub(super) fn same_weights(group: &Group, model: &Model, epoch: usize) -> Result<()> {
    let mut hash = Xxh3::new();
    for tensor in model.parameters().to(None)?.tensors() {
        hash.update(bytemuck::cast_slice(tensor.data()));
    }
    let weights: Value =
        json!({format!("checksum of the weights after epoch {epoch}"): format!("{:016x}", hash.digest())});
    group.agree(&weights)
}

/// The parts of an epoch's batches that are this rank's.
pub(super) fn parts<'a>(batches: &[&'a [usize]], group: Option<&Group>) -> Vec<Part<'a>> {
    batches.iter().map(|batch| Part::new(batch, group)).collect()
}
