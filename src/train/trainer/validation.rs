//! Validation at the end of an epoch.

use indicatif::ProgressBar;

use super::super::encoder::Candidate;
use super::super::source::Features;
use super::super::together;
use super::Trainer;
use crate::error::{Error, Result};
use crate::eval::{Metrics, evaluate};

impl Trainer<'_> {
    /// Metrics on the validation mentions, if there are any; and the encoder that is trained along, as it was written for them.
    pub(super) fn validate(&mut self) -> Result<(Option<Metrics>, Option<Candidate>)> {
        let _span = crate::span!("validation");
        let (model, valid) = (&self.state.model, &self.valid);
        let validated = match (&self.features, &self.state.encoder) {
            (Features::Trained(run), Some(encoder)) => {
                run.validate(&self.folder, model, encoder).map(|candidate| (candidate.valid, Some(candidate)))
            }
            _ if valid.is_empty() => Ok((None, None)),
            (Features::Stored(batcher), _) => match self.group() {
                Some(group) => together::evaluate_together(group, model, batcher, valid).map(|all| (Some(all), None)),
                None => evaluate(model, batcher, valid, &ProgressBar::hidden()).map(|all| (Some(all.mean), None)),
            },
            (Features::Trained(_), None) => Err(Error::invalid("a run that lost its encoder")),
        };
        let along = matches!(self.features, Features::Trained(_));
        match validated {
            // Features are made within it, which takes long: what was trained is kept.
            Err(Error::Stopped { signal, .. }) => {
                self.write_checkpoint()?;
                Err(Error::Stopped { signal, advice: self.how_to_go_on() })
            }
            // They are of images of which only the first bytes were looked at before.
            Err(error) => {
                if along && self.write_checkpoint().is_ok() {
                    tracing::warn!("the validation failed, but {}", self.how_to_go_on());
                }
                match error {
                    Error::Invalid(e) => {
                        Err(Error::invalid(format!("validation after epoch {}: {e}", self.state.progress.epoch + 1)))
                    }
                    error => Err(error),
                }
            }
            validated => validated,
        }
    }
}
