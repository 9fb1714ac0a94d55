//! Features that always lie at the same place of a device: what is recorded with them serves every side of their shape.

use std::ops::Range;
use std::sync::Arc;

use super::batch::{Modality, Side};
use crate::device::cuda::DeviceBuffer;
use crate::error::{Error, Result};
use crate::tensor::FeatureRows;

/// Where arrays begin: at multiples of so many bytes, as those of their own do.
const APART: usize = 256;

/// A place for the features of sides of one shape.
#[derive(Debug)]
pub struct PlacedSide {
    /// Features that lie there.
    side: Side,
    /// Bytes of each of its arrays.
    places: Vec<Range<usize>>,
}

impl PlacedSide {
    /// Bytes that the place takes. Fails if features are computed on a tape, and have a place of their own.
    pub fn bytes(side: &Side) -> Result<usize> {
        let end = places(side)?.last().map_or(0, |place| place.end);
        Ok(end.next_multiple_of(APART))
    }

    /// A place for sides like this one: the first [`PlacedSide::bytes`] of an array.
    pub fn new(like: &Side, array: &Arc<DeviceBuffer<u8>>) -> Result<PlacedSide> {
        let places = places(like)?;
        let mut firsts = places.iter().map(|place| place.start);
        let mut placed = |rows: &FeatureRows| rows.placed(array, firsts.next().unwrap_or(0));
        let mut modality = |of: &Modality| -> Result<Modality> {
            let [tokens, global] = arrays_of(of)?;
            let (tokens, global) = (placed(tokens)?.into(), placed(global)?.into());
            Ok(Modality { tokens, sequences: of.sequences.clone(), global })
        };
        let side = Side { text: modality(&like.text)?, image: modality(&like.image)? };
        Ok(PlacedSide { side, places })
    }

    /// The features that lie there, whatever they are.
    pub fn side(&self) -> &Side {
        &self.side
    }

    /// Whether features of this side have their place there.
    pub fn holds(&self, side: &Side) -> bool {
        let same = |own: &Modality, other: &Modality| {
            own.sequences.offsets()[..] == other.sequences.offsets()[..]
                && match (arrays_of(own), arrays_of(other)) {
                    (Ok(own), Ok(other)) => own.iter().zip(other).all(|(own, other)| own.lie_as(other)),
                    _ => false,
                }
        };
        same(&self.side.text, &side.text) && same(&self.side.image, &side.image)
    }

    /// Puts the features of a side that has its place there into bytes that will be copied to the array.
    pub fn put(&self, side: &Side, bytes: &mut [u8]) -> Result<()> {
        for (rows, place) in arrays(side)?.iter().zip(&self.places) {
            rows.put(&mut bytes[place.clone()]);
        }
        Ok(())
    }
}

fn arrays_of(modality: &Modality) -> Result<[&FeatureRows; 2]> {
    let computed = || Error::shape("link", "features that are computed on a tape");
    let [tokens, global] = [&modality.tokens, &modality.global].map(|source| source.stored().ok_or_else(computed));
    Ok([tokens?, global?])
}

fn arrays(side: &Side) -> Result<Vec<&FeatureRows>> {
    Ok([arrays_of(&side.text)?, arrays_of(&side.image)?].concat())
}

/// The bytes of each array.
fn places(side: &Side) -> Result<Vec<Range<usize>>> {
    let mut next = 0;
    let place = |rows: &FeatureRows| {
        let start = next;
        next = (start + rows.bytes()).next_multiple_of(APART);
        start..start + rows.bytes()
    };
    Ok(arrays(side)?.into_iter().map(place).collect())
}
