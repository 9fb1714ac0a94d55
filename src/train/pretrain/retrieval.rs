//! How often the right image is found by a text, and the right text by an image, among all of a file of pairs.

use std::cmp::Ordering;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pairs::PreparedPairs;
use crate::autograd::{Parameters, Tape};
use crate::device::Gpu;
use crate::device::cpu::{simd, vector};
use crate::encoder::clip::{ClipConfig, Towers};
use crate::encoder::trained::Layers;
use crate::error::Result;

/// Shares of queries whose right answer is among the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// The first alone.
    pub at1: f64,
    /// The first five.
    pub at5: f64,
}

/// Both ways.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Of texts, each of which has one right image.
    pub text_to_image: Recall,
    /// Of images; each of an image's texts is right.
    pub image_to_text: Recall,
}

impl Recall {
    /// From each query's number of wrong answers ahead of the right one.
    fn of(ahead: &[usize]) -> Recall {
        let share = |most: usize| ahead.iter().filter(|&&n| n < most).count() as f64 / ahead.len().max(1) as f64;
        Recall { at1: share(1), at5: share(5) }
    }
}

impl Retrieval {
    /// Of an encoder with these weights on pairs, so many at a time.
    pub fn of(
        (config, parameters): (&ClipConfig, &Parameters),
        pairs: &PreparedPairs,
        batch: usize,
        gpu: Option<&Gpu>,
    ) -> Result<Retrieval> {
        let tape = Tape::inference();
        let vars = parameters.bind(&tape);
        let towers = Towers { config, layers: Layers { tape: &tape, vars: &vars, gpu, masks: None } };
        let (mut texts, mut owners, mut images) = (Vec::new(), Vec::new(), Vec::new());
        let all = pairs.texts().iter().enumerate();
        let all: Vec<(usize, &[u32])> =
            all.flat_map(|(image, of)| of.iter().map(move |ids| (image, &ids[..]))).collect();
        for batch in all.chunks(batch) {
            let ids: Vec<&[u32]> = batch.iter().map(|(_, ids)| *ids).collect();
            texts.extend_from_slice(towers.texts(&ids)?.into_tensor().to(None)?.data());
            owners.extend(batch.iter().map(|(image, _)| *image));
        }
        for numbers in (0..pairs.len()).collect::<Vec<_>>().chunks(batch) {
            let encoded = pairs.with_images(numbers, |images| towers.images(images))?;
            images.extend_from_slice(encoded.into_tensor().to(None)?.data());
        }
        Ok(retrieval(config.projection_dim, &texts, &owners, &images))
    }
}

/// Whether a wrong answer is at least as near as the right one, or no number says.
fn is_ahead(wrong: f32, right: f32) -> bool {
    wrong.partial_cmp(&right) != Some(Ordering::Less)
}

/// Of vectors (texts, width), each with its image's number, and (images, width). A wrong answer that is as near as the
/// right one, or where no number says which is nearer, is ahead of it.
fn retrieval(width: usize, texts: &[f32], owners: &[usize], images: &[f32]) -> Retrieval {
    let dots = |query: &[f32], all: &[f32]| -> Vec<f32> {
        all.chunks_exact(width).map(|other| simd!(vector::dot(query, other))).collect()
    };
    let of_text = |(text, &own): (&[f32], &usize)| {
        let dots = dots(text, images);
        dots.iter().enumerate().filter(|&(image, dot)| image != own && is_ahead(*dot, dots[own])).count()
    };
    let of_image = |(image, vector): (usize, &[f32])| {
        let dots = dots(vector, texts);
        let own = dots.iter().zip(owners).filter(|(_, owner)| **owner == image);
        let best = own.map(|(dot, _)| *dot).fold(f32::NEG_INFINITY, f32::max);
        dots.iter().zip(owners).filter(|&(dot, owner)| *owner != image && is_ahead(*dot, best)).count()
    };
    let by_text: Vec<usize> = texts.par_chunks_exact(width).zip(owners).map(of_text).collect();
    let by_image: Vec<usize> = images.par_chunks_exact(width).enumerate().map(of_image).collect();
    Retrieval { text_to_image: Recall::of(&by_text), image_to_text: Recall::of(&by_image) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_near_as_the_right_one_are_ahead_of_it() {
        // Two images; the first has two texts, of which one is right, one as near to both.
        let images = [1.0, 0.0, 0.0, 1.0];
        let texts = [0.9, 0.1, 0.5, 0.5, 0.2, 0.8];
        let found = retrieval(2, &texts, &[0, 0, 1], &images);
        assert_eq!(found.text_to_image, Recall { at1: 2.0 / 3.0, at5: 1.0 });
        assert_eq!(found.image_to_text, Recall { at1: 1.0, at5: 1.0 });
        let none = retrieval(2, &[1.0, 0.0, 1.0, 0.0], &[0, 1], &[1.0, 0.0, 1.0, 0.0]);
        assert_eq!((none.text_to_image.at1, none.image_to_text.at1), (0.0, 0.0));
        let broken = retrieval(2, &[f32::NAN; 4], &[0, 1], &[f32::NAN; 4]);
        assert_eq!((broken.text_to_image.at1, broken.image_to_text.at1), (0.0, 0.0));
    }
}
