//! ResNet on a tape, to be trained: what [`ResNet`](super::ResNet) computes, of parameters by the names that files give them.

use super::config::{Block, ResNetConfig};
use super::{EMBEDDER, POOL};
use crate::autograd::Var;
use crate::encoder::trained::{Layers, States};
use crate::error::Result;
use crate::ops::convolution::{Filters, pixels};
use crate::ops::linear::Windows;
use crate::ops::{Activation, Convolution, MaxPool, Multiply, Pooling, SequencePool, Sum};
use crate::tensor::{Ragged, Tensor, Textbook};

/// The model of a configuration on a tape.
pub struct Network<'a> {
    /// Its sizes.
    pub config: &'a ResNetConfig,
    /// Of its images, downwards and across.
    pub size: usize,
    /// What the names of its weights begin with.
    pub prefix: &'a str,
    /// The weights, as [`read`](super::weights::read) reads them.
    pub layers: Layers<'a>,
}

/// Feature maps (images · side · side, channels) of squares.
struct Maps {
    rows: Var,
    side: usize,
}

impl Network<'_> {
    /// All that it says of images as the processor prepares them, (3, size, size) each.
    pub fn image_states(&self, images: &[&[f32]]) -> Result<States> {
        let values = pixels(images, self.size, self.size)?;
        let rows = Tensor::new([images.len() * self.size * self.size, 3], values)?.to(self.layers.gpu)?;
        let x = Maps { rows: Var::constant(rows), side: self.size };
        let x = self.normalized(EMBEDDER, self.config.first(), &x, true)?;
        let mut x = self.pooled(&x)?;
        for block in self.config.blocks() {
            x = self.bottleneck(&block, x)?;
        }
        let length = x.side * x.side;
        let sequences = Ragged::new(images.iter().map(|_| length), Textbook { sequences: images.len(), length })?;
        let mean = SequencePool { sequences: sequences.clone(), kind: Pooling::Mean };
        let global = self.layers.tape.apply(mean, &[&x.rows])?;
        Ok(States { tokens: x.rows, sequences, global })
    }

    fn bottleneck(&self, Block { name, shortcut, parts: [reduce, spatial, expand] }: &Block, x: Maps) -> Result<Maps> {
        let part = |i: usize, filters: &Filters, x: &Maps, relu: bool| {
            self.normalized(&format!("{name}.layer.{i}"), *filters, x, relu)
        };
        let inner = part(1, spatial, &part(0, reduce, &x, true)?, true)?;
        let inner = part(2, expand, &inner, false)?;
        let past = match shortcut {
            Some(filters) => self.normalized(&format!("{name}.shortcut"), *filters, &x, false)?,
            None => x,
        };
        let sum = self.layers.sum(&[&inner.rows, &past.rows])?;
        Ok(Maps { rows: self.layers.tape.apply(Activation::Relu, &[&sum])?, ..inner })
    }

    fn pooled(&self, x: &Maps) -> Result<Maps> {
        let windows =
            Windows { height: x.side, width: x.side, kernel: POOL.kernel, stride: POOL.stride, padding: POOL.padding };
        Ok(Maps { rows: self.layers.tape.apply(MaxPool { windows }, &[&x.rows])?, side: windows.size().0 })
    }

    /// A convolution and its batch normalization, `weight (y - mean) / sqrt(variance + eps) + bias` with fixed statistics: folded into
    /// the filters and the bias, which costs nothing for each pixel, and gradients flow through.
    fn normalized(&self, name: &str, filters: Filters, x: &Maps, relu: bool) -> Result<Maps> {
        let Layers { tape, vars, .. } = self.layers;
        let name = format!("{}{name}", self.prefix);
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let [weight, bias, mean, per_deviation] = vars.group(&format!("{name}.normalization"), parts)?;
        let factor = tape.apply(Multiply, &[weight, per_deviation])?;
        let folded = tape.apply(Multiply, &[vars.get(&format!("{name}.convolution.weight"))?, &factor])?;
        let shift = tape.apply(Multiply, &[mean, &factor])?;
        let bias = tape.apply(Sum { coefficients: vec![1.0, -1.0] }, &[bias, &shift])?;
        let Filters { kernel, stride, padding, .. } = filters;
        let windows = Windows { height: x.side, width: x.side, kernel, stride, padding };
        let convolution = Convolution { windows, relu, at_a_time: Convolution::AT_A_TIME };
        Ok(Maps { rows: tape.apply(convolution, &[&folded, &bias, &x.rows])?, side: windows.size().0 })
    }
}
