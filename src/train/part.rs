//! What each of several ranks does of a batch.

use std::ops::Range;

use crate::parallel::Group;

/// A rank's part of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part<'a> {
    /// The training samples of the batch.
    pub batch: &'a [usize],
    /// Those that the rank computes on: from `start` to before `end`, one at least.
    pub start: usize,
    /// See `start`.
    pub end: usize,
    /// How many of them count: none, where the batch has fewer mentions than there are ranks and this one got none. It computes
    /// one of another rank's then, with weight zero, so that all ranks do the same.
    mentions: usize,
}

impl<'a> Part<'a> {
    /// The part of the batch of these training samples, one at least: all, or that of a rank of the group.
    pub fn new(batch: &'a [usize], group: Option<&Group>) -> Part<'a> {
        let own = group.map_or(0..batch.len(), |group| group.part(batch.len()));
        let mentions = own.len();
        let Range { start, end } = if own.is_empty() { 0..1 } else { own };
        Part { batch, start, end, mentions }
    }

    /// The samples that the rank computes on.
    pub fn members(&self) -> &'a [usize] {
        &self.batch[self.start..self.end]
    }

    /// Whether it is all of the batch.
    pub fn is_whole(&self) -> bool {
        self.members().len() == self.batch.len()
    }

    /// The share of the batch's loss, a mean over mentions, that this part's has.
    pub fn weight(&self) -> f32 {
        self.mentions as f32 / self.batch.len() as f32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn parts_of_a_batch_weigh_what_they_have_of_its_mentions() {
        let places = ["a", "b", "c"].map(String::from);
        let groups = Group::within(&places, Duration::from_secs(1)).unwrap();
        let batch: Vec<usize> = (10..17).collect();
        let parts: Vec<Part> = groups.iter().map(|group| Part::new(&batch, Some(group))).collect();
        assert_eq!(parts.iter().map(Part::members).collect::<Vec<_>>().concat(), batch);
        assert!((parts.iter().map(Part::weight).sum::<f32>() - 1.0).abs() < 1e-6);
        let few: Vec<Part> = groups.iter().map(|group| Part::new(&batch[..1], Some(group))).collect();
        assert_eq!(few.iter().map(Part::weight).collect::<Vec<_>>(), [0.0, 0.0, 1.0]);
        assert!(few.iter().all(|part| part.members() == [10]));
        assert_eq!(Part::new(&batch, None).weight(), 1.0);
    }
}
