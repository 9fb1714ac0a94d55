//! The contrastive loss of pairs of a text and an image, with the other items of the batch as negatives (InfoNCE, van den
//! Oord et al., 2018, as CLIP has it): softmax cross-entropy over a text's images and over an image's texts.
//!
//! texts (n, d), images (n, d), log_scale (1) -> (2): with logits `e^log_scale · texts imagesᵀ`, the mean over the texts
//! of -log softmax of their rows at the diagonal, and the mean over the images of the same of their columns. The loss is
//! their mean, so backward starts from halves.

mod cpu;
mod cuda;

use super::lanes::EXP;
use super::matmul::{summed, written};
use super::{arity, elsewhere};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "contrastive";

/// See the module's documentation. Inputs: texts, images, log of the scale.
#[derive(Clone, Copy, Debug)]
pub struct Contrastive;

/// What backward needs.
pub struct Saved {
    /// Texts and images.
    sides: [Tensor; 2],
    log_scale: Tensor,
    products: Products,
}

/// Dot products of texts and images (n, n), and logarithms of the sums of e to the logits: of each row, then of each
/// column (2, n).
enum Products {
    Host { dots: Buffer, sums: Buffer },
    Device(cuda::Products),
}

impl Op for Contrastive {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["texts", "images", "log_scale"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (n, d) = (inputs[0][0], inputs[0][1]);
        // Of each logit: scaled, its distance from a maximum, e to it and a sum, for its row and for its column; in
        // backward both weights, less the diagonal, scaled, and their part of the gradient of the scale.
        let (forward, backward) = (2 * (EXP + 3) * n * n, (2 * (EXP + 4) + 4) * n * n);
        let (product, values) = (2 * n * n * d, 2 * n * d);
        let [forward_flops, backward_flops] = [product + forward, 2 * product + backward].map(|flops| flops as u64);
        Cost {
            forward: forward_flops,
            backward: backward_flops,
            textbook_forward: forward_flops,
            textbook_backward: backward_flops,
            // The logits are computed in f32, whatever the arithmetic.
            kernels_forward: KernelWork::vector(forward_flops),
            kernels_backward: KernelWork::vector(backward as u64) + written(1, [n, d, n]) + summed(1, [n, d, n], false),
            forward_bytes: 4 * (values + n * n) as u64,
            backward_bytes: 4 * (2 * values + 2 * n * n) as u64,
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[texts, images, log_scale] = arity(NAME, inputs)?;
        let (n, d) = texts.matrix(NAME, "texts")?;
        images.expect(NAME, "images", &[n, d])?;
        log_scale.expect(NAME, "log_scale", &[1])?;
        if n == 0 || d == 0 {
            return Err(Error::shape(NAME, format!("{n} pairs of vectors of {d} values: must be at least 1")));
        }
        let (losses, products) = match texts.gpu() {
            Some(gpu) => {
                let (losses, products) = cuda::forward(gpu, [texts, images], log_scale)?;
                (losses, Products::Device(products))
            }
            None => cpu::forward([texts, images], log_scale.data()[0])?,
        };
        Ok((losses, Saved { sides: [texts, images].map(Tensor::clone), log_scale: log_scale.clone(), products }))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { sides, log_scale, products } = saved;
        match (products, grad.gpu()) {
            (Products::Host { dots, sums }, None) => {
                cpu::backward((&sides, log_scale.data()[0]), (dots, &sums), grad.data(), grads)
            }
            (Products::Device(products), Some(gpu)) => cuda::backward(gpu, (&sides, &log_scale), products, grad, grads),
            _ => Err(elsewhere(NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn losses_are_those_of_the_rows_and_columns_of_the_logits() {
        // Logits of scale e^0: [[0.6, 0], [0.8, 0.5]].
        let tensor = |values: &[f32]| Tensor::new([2, 2], values.to_vec()).unwrap();
        let tape = Tape::recording();
        let texts = tape.leaf(tensor(&[1.0, 0.0, 0.0, 1.0]));
        let images = tape.leaf(tensor(&[0.6, 0.8, 0.0, 0.5]));
        let scale = tape.leaf(Tensor::zeros([1]));
        let losses = tape.apply(Contrastive, &[&texts, &images, &scale]).unwrap();
        let cross = |gold: f32, other: f32| (1.0 + (other - gold).exp()).ln();
        let want = [[(0.6, 0.0), (0.5, 0.8)], [(0.6, 0.8), (0.5, 0.0)]];
        for (got, pairs) in losses.tensor().data().iter().zip(want) {
            let want = pairs.iter().map(|(gold, other)| cross(*gold, *other)).sum::<f32>() / 2.0;
            // Some roundings of 6e-8.
            assert!((got - want).abs() < 1e-6, "{got}, want {want}");
        }
    }

    #[test]
    fn a_pair_alone_has_no_loss_and_moves_nothing() {
        let tape = Tape::recording();
        let one = tape.leaf(Tensor::new([1, 3], vec![0.5, 0.1, -0.2]).unwrap());
        let scale = tape.leaf(Tensor::new([1], vec![2.0]).unwrap());
        let losses = tape.apply(Contrastive, &[&one, &one, &scale]).unwrap();
        assert_eq!(losses.tensor().data(), [0.0; 2]);
        let mut grads = tape.backward(&losses, Tensor::new([2], vec![0.5; 2]).unwrap()).unwrap();
        assert_eq!((grads.take(&one).unwrap().data(), grads.take(&scale).unwrap().data()), (&[0.0; 3][..], &[0.0][..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let says = |shapes: [&[usize]; 3]| {
            let inputs = shapes.map(Tensor::zeros);
            Contrastive.forward(&inputs.each_ref()).err().unwrap().to_string()
        };
        assert!(says([&[2, 3], &[3, 3], &[1]]).contains("images has shape [3, 3], needs [2, 3]"));
        assert!(says([&[2, 3], &[2, 3], &[2]]).contains("log_scale has shape [2], needs [1]"));
        assert!(says([&[0, 3], &[0, 3], &[1]]).contains("0 pairs"));
    }
}
