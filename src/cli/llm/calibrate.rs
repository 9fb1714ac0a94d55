//! `--calibrate`: a text by which weights are rounded.

use std::path::PathBuf;

use fissfuse::device::Gpu;
use fissfuse::files;
use fissfuse::llama::{Calibration, Precision, Source, rounded_by_a_text};

use super::super::common::progress;

/// Tokens of the pieces that a text is read in.
const CONTEXT: usize = 512;

#[derive(clap::Args)]
pub struct CalibrateArgs {
    /// Round weights to blocks so that the products of a model that reads this text, in UTF-8, are off least.
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
}

impl CalibrateArgs {
    /// Whether a text is given.
    pub fn given(&self) -> bool {
        self.calibrate.is_some()
    }

    /// What the text shows of a model that is to be rounded to these, if one is given. Fails, before it is read, if one of them is
    /// not rounded by a text.
    pub fn of(&self, source: &Source, to: &[Precision], gpu: Option<&Gpu>) -> anyhow::Result<Option<Calibration>> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        to.iter().try_for_each(|&precision| rounded_by_a_text(precision).map(drop))?;
        let (text, bar) = (files::read_text(path)?, progress("steps"));
        let calibration = Calibration::of(source, gpu, &text, CONTEXT, |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(Some(calibration))
    }
}
