//! Losses of a batch and their gradients: at once, or by chunks (Gao et al., 2021). Then both towers' vectors are computed
//! without a tape first, the loss gives their gradients, and each chunk is computed once more, on a tape of its own, from where
//! its gradients are added up in the order of the chunks. What is kept for the backward pass is what a chunk needs, and the loss
//! is that of the whole batch all the same.

use crate::autograd::{Gradients, Parameters, Profile, Tape, Var, Variables};
use crate::device::Gpu;
use crate::encoder::clip::weights::LOG_SCALE;
use crate::encoder::clip::{ClipConfig, Towers};
use crate::encoder::trained::Layers;
use crate::error::{Error, Result};
use crate::ops::Contrastive;
use crate::tensor::Tensor;
use crate::train::chunks::{added, chunks};

/// Losses (2), and the gradient of their mean for each parameter.
pub type Found = (Tensor, Vec<Tensor>);

/// A batch and what sees it.
pub struct Batch<'a> {
    /// Sizes of the encoders.
    pub config: &'a ClipConfig,
    /// Their weights.
    pub parameters: &'a Parameters,
    /// Whether the input alone is kept of each of their layers.
    pub gradient_checkpointing: bool,
    /// Where these lie; `None` for the host.
    pub gpu: Option<&'a Gpu>,
    /// Notes the operations, if given.
    pub profile: Option<&'a Profile>,
    /// Texts by the numbers of their tokens, and images as the processor prepares them.
    pub texts: &'a [&'a [u32]],
    pub images: &'a [&'a [f32]],
}

impl Batch<'_> {
    /// All at once, or for a size above 0 so many texts or images at a time.
    pub fn gradients(&self, chunk: usize) -> Result<Found> {
        match chunk {
            0 => self.whole(),
            size => self.in_chunks(size),
        }
    }

    fn tape(&self, tape: Tape) -> Tape {
        let tape = tape.with_checkpoints(self.gradient_checkpointing);
        match self.profile {
            Some(profile) => tape.timed(profile),
            None => tape,
        }
    }

    fn towers<'t>(&'t self, tape: &'t Tape, vars: &'t Variables) -> Towers<'t> {
        Towers { config: self.config, layers: Layers { tape, vars, gpu: self.gpu, masks: None } }
    }

    /// Of the mean of both losses.
    fn seed(&self) -> Result<Tensor> {
        Tensor::filled([2], 0.5, self.gpu)
    }

    fn whole(&self) -> Result<Found> {
        let tape = self.tape(Tape::recording());
        let vars = self.parameters.bind(&tape);
        let towers = self.towers(&tape, &vars);
        let losses = towers.losses(self.texts, self.images)?;
        let grads = tape.backward(&losses, self.seed()?)?;
        Ok((losses.into_tensor(), self.parameters.gradients(vars, grads)?))
    }

    fn in_chunks(&self, size: usize) -> Result<Found> {
        let items = [self.texts.len(), self.images.len()];
        let vectors = {
            let tape = self.tape(Tape::inference());
            let vars = self.parameters.bind(&tape);
            let towers = self.towers(&tape, &vars);
            let all = |which: usize| -> Result<Tensor> {
                let parts = chunks(items[which], size).map(|chunk| self.say(&towers, which, chunk));
                let parts = parts.collect::<Result<Vec<Var>>>()?;
                Tensor::stacked(&parts.iter().map(Var::tensor).collect::<Vec<_>>())
            };
            [all(0)?, all(1)?]
        };
        let tape = self.tape(Tape::recording());
        let [texts, images] = vectors.map(|vectors| tape.leaf(vectors));
        let scale = tape.leaf(self.parameters.get(LOG_SCALE)?.clone());
        let losses = tape.apply(Contrastive, &[&texts, &images, &scale])?;
        let mut of_vectors = tape.backward(&losses, self.seed()?)?;
        let mut sums: Vec<Option<Tensor>> = self.parameters.iter().map(|_| None).collect();
        for (which, vectors) in [texts, images].iter().enumerate() {
            let grad = taken(&mut of_vectors, vectors)?;
            for chunk in chunks(items[which], size) {
                let tape = self.tape(Tape::recording());
                let vars = self.parameters.bind(&tape);
                let towers = self.towers(&tape, &vars);
                let said = self.say(&towers, which, chunk.clone())?;
                let mut grads = tape.backward(&said, grad.rows(chunk)?)?;
                for (sum, grad) in sums.iter_mut().zip(self.parameters.gradients_among(&vars, &mut grads)?) {
                    *sum = added(sum.take(), grad)?;
                }
            }
        }
        let of_scale = taken(&mut of_vectors, &scale)?;
        let found = self.parameters.iter().zip(sums).map(|((name, _), sum)| match name == LOG_SCALE {
            true => Ok(of_scale.clone()),
            false => sum.ok_or_else(|| Error::invalid(format!("no gradient reached parameter `{name}`"))),
        });
        Ok((losses.into_tensor(), found.collect::<Result<_>>()?))
    }

    /// Global vectors of some of the texts (0) or of the images (1).
    fn say(&self, towers: &Towers, which: usize, items: std::ops::Range<usize>) -> Result<Var> {
        match which {
            0 => towers.texts(&self.texts[items]),
            _ => towers.images(&self.images[items]),
        }
    }
}

/// The gradient of what the loss is made of.
fn taken(grads: &mut Gradients, of: &Var) -> Result<Tensor> {
    grads.take(of).ok_or_else(|| Error::invalid("the loss reaches neither vectors nor the scale"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::clip::{ClipSizes, TowerSizes, weights};

    #[test]
    fn chunks_of_any_size_and_layers_computed_again_give_the_gradients_of_the_whole_batch() {
        let tower = TowerSizes { width: 16, layers: 2, heads: 2, inner: 24 };
        let sizes = ClipSizes {
            text: tower,
            vision: tower,
            projection: 8,
            image_size: 12,
            patch_size: 4,
            vocabulary: 30,
            ..ClipSizes::default()
        };
        let config = sizes.checked().unwrap();
        let parameters = weights::initial(&config, 3).unwrap();
        let end = config.text_config.eos_token_id;
        let text = |i: u32| (0..3 + i % 3).map(|j| 5 + (3 * i + j) % 25).chain([end]).collect();
        let texts: Vec<Vec<u32>> = (0..7).map(text).collect();
        let images: Vec<Vec<f32>> =
            (0..7).map(|i| (0..432).map(|j| ((i * 432 + j) as f32 * 0.37).sin()).collect()).collect();
        let (texts, images): (Vec<&[u32]>, Vec<&[f32]>) =
            (texts.iter().map(Vec::as_slice).collect(), images.iter().map(Vec::as_slice).collect());
        let batch = |gradient_checkpointing: bool| Batch {
            config: &config,
            parameters: &parameters,
            gradient_checkpointing,
            gpu: None,
            profile: None,
            texts: &texts,
            images: &images,
        };
        let (losses, want) = batch(false).gradients(0).unwrap();
        let bits = |(losses, grads): (Tensor, Vec<Tensor>)| -> Vec<Vec<u32>> {
            [losses].iter().chain(&grads).map(|tensor| tensor.data().iter().map(|x| x.to_bits()).collect()).collect()
        };
        for size in [0, 3] {
            let of = |checkpointing: bool| bits(batch(checkpointing).gradients(size).unwrap());
            assert!(of(true) == of(false), "layers that are computed again have other gradients, chunks of {size}");
        }
        for size in [1, 2, 3, 7, 100] {
            let (chunked, got) = batch(false).gradients(size).unwrap();
            // Vectors of a row have the same bits in any batch; sums of gradients are of another order: some roundings of 6e-8.
            assert_eq!(chunked.data(), losses.data(), "chunks of {size}");
            for (((name, _), want), got) in parameters.iter().zip(&want).zip(&got) {
                // A key's bias moves all logits of a row alike: its gradient is 0 but for rounding of what it is a sum of.
                let floor: f32 = if name.ends_with("k_proj.bias") { 1e-1 } else { 1e-3 };
                let largest = want.data().iter().fold(floor, |largest, x| largest.max(x.abs()));
                let off = want.data().iter().zip(got.data()).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
                assert!(off <= 1e-5 * largest, "chunks of {size}, {name}: {off} of {largest}");
            }
        }
    }
}
