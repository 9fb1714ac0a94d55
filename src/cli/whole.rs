//! Flags of subcommands that rank whole knowledge bases.

use std::path::Path;

use clap::builder::RangedU64ValueParser;
use fissfuse::data::{Batcher, Dataset};
use fissfuse::eval::{FirstStage, FusionVectors, Keeping, ShortlistSettings};
use fissfuse::model::Model;
use fissfuse::search::Location;

use super::common::at_least_one;
use super::database::{self, DatabaseArgs, location};

/// How a whole knowledge base is ranked.
#[derive(clap::Args)]
pub struct WholeKbArgs {
    /// Score with the whole model only the K entities whose vectors of the Fusion branch agree best with the mention's [default:
    /// all entities].
    #[arg(long, value_name = "K", value_parser = at_least_one())]
    pub shortlist: Option<usize>,

    /// What finds the K entities: scan (all vectors in f32, in memory), scan:int8, usearch:FILE, qdrant://HOST:PORT/COLLECTION
    /// or milvus://HOST:PORT/COLLECTION, which `fissfuse index push` fills (docs/scale.md).
    #[arg(long, value_name = "PLACE", default_value = "scan", value_parser = location, requires = "shortlist")]
    pub candidates_from: Location,

    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Least share of mentions for which the list must hold the entity that the whole model ranks first among all, and of the
    /// entities of a scan in f32 that it must hold; else nothing is ranked.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = share, requires = "shortlist")]
    pub min_recall: f64,

    /// Mentions on which that share is measured, at most: each is scored against all entities.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one(), requires = "shortlist")]
    pub recall_mentions: usize,

    /// Percent of the free memory that prepared entities may take to stay there. Those without room are prepared anew when they
    /// are needed again.
    #[arg(long, value_name = "PERCENT", default_value_t = 60, value_parser = RangedU64ValueParser::<usize>::new().range(0..=90))]
    pub index_memory: usize,
}

/// Parses shares.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a share between 0 and 1".into())
}

impl WholeKbArgs {
    /// The first stage, if there is one; `seed` draws the mentions that judge it.
    pub fn first_stage(&self, seed: u64) -> Option<ShortlistSettings> {
        let (min_recall, recall_mentions) = (self.min_recall, self.recall_mentions);
        self.shortlist.map(|length| ShortlistSettings { length, min_recall, recall_mentions, seed })
    }

    /// What finds the entities of the first stage's lists, opened if it holds the vectors of this model and knowledge base.
    pub fn stage(
        &self,
        seed: u64,
        (dataset, batcher): (&Dataset, &Batcher),
        (features, model): (&Path, &Path),
        trained: &Model,
    ) -> anyhow::Result<Option<FirstStage>> {
        let Some(settings) = self.first_stage(seed) else { return Ok(None) };
        let seal = || {
            let width = FusionVectors::new((trained, None), batcher, dataset.entities().len())?.width();
            database::seal(dataset, features, model, width)
        };
        let source = self.database.source(&self.candidates_from, seal)?;
        Ok(Some(FirstStage { settings, source }))
    }

    /// How prepared entities are kept.
    pub fn keeping(&self, full_precision: bool) -> Keeping {
        Keeping { percent: self.index_memory, full_precision, ..Keeping::default() }
    }
}
