//! Clipping gradients by their length: all of a model's together are scaled down to `most`, if they are longer.
//!
//! Not on the tape: it changes gradients in place after backward.

mod cuda;

use rayon::prelude::*;

use crate::device::cpu::{simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

/// Values of one part of the sum of squares.
const PART: usize = 1 << 14;

/// Scales gradients, which all lie on the host or on one device, by `most / length` if that is below 1, and gives the
/// length that they had.
pub fn clip_norm(grads: &mut [Tensor], most: f32) -> Result<f64> {
    if let Some(gpu) = grads.first().and_then(Tensor::gpu).cloned() {
        return Ok(cuda::clip(&gpu, grads, most)?.to(None)?.data()[0].into());
    }
    let parts: Vec<f64> = grads
        .par_iter()
        .map(|grad| grad.data().chunks(PART).map(|part| simd!(vector::squares_about(part, 0.0)) as f64).sum())
        .collect();
    let length = parts.iter().sum::<f64>().sqrt();
    if length > most as f64 {
        let scale = (most as f64 / length) as f32;
        grads.par_iter_mut().for_each(|grad| simd!(vector::scale(grad.data_mut(), scale)));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_gradients_get_the_length_and_others_stay() {
        let grads = || [vec![3.0, 0.0], vec![0.0, 4.0, 0.0]].map(|grad| Tensor::new([grad.len()], grad).unwrap());
        let mut clipped = grads();
        assert_eq!(clip_norm(&mut clipped, 1.0).unwrap(), 5.0);
        // Some roundings of 6e-8.
        let near = |got: &Tensor, want: &[f32]| got.data().iter().zip(want).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(near(&clipped[0], &[0.6, 0.0]) && near(&clipped[1], &[0.0, 0.8, 0.0]), "{clipped:?}");
        let mut same = grads();
        assert_eq!(clip_norm(&mut same, 5.0).unwrap(), 5.0);
        assert_eq!(same[1].data(), [0.0, 4.0, 0.0]);
    }
}
