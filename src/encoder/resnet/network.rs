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
        let mut x = self.first(Maps { rows: Var::constant(rows), side: self.size })?;
        for block in self.config.blocks() {
            let (name, before) = (format!("{}{}", self.prefix, block.name), x.side);
            let side = windows(&block.parts[1], before).size().0;
            let layer = name.clone();
            let rows = self.layers.checkpointed(&layer, x.rows, move |layers, rows| {
                bottleneck(layers, &name, &block, Maps { rows, side: before })
            })?;
            x = Maps { rows, side };
        }
        let length = x.side * x.side;
        let sequences = Ragged::new(images.iter().map(|_| length), Textbook { sequences: images.len(), length })?;
        let mean = SequencePool { sequences: sequences.clone(), kind: Pooling::Mean };
        let global = self.layers.tape.apply(mean, &[&x.rows])?;
        Ok(States { tokens: x.rows, sequences, global })
    }

    /// The convolution of pixels, and the maxima of its windows.
    fn first(&self, x: Maps) -> Result<Maps> {
        let x = normalized(self.layers, &format!("{}{EMBEDDER}", self.prefix), self.config.first(), &x, true)?;
        let windows =
            Windows { height: x.side, width: x.side, kernel: POOL.kernel, stride: POOL.stride, padding: POOL.padding };
        Ok(Maps { rows: self.layers.tape.apply(MaxPool { windows }, &[&x.rows])?, side: windows.size().0 })
    }
}

/// Of a convolution over squares.
fn windows(&Filters { kernel, stride, padding, .. }: &Filters, side: usize) -> Windows {
    Windows { height: side, width: side, kernel, stride, padding }
}

/// The rows that a bottleneck gives, of weights under this name.
fn bottleneck(layers: Layers, name: &str, Block { shortcut, parts, .. }: &Block, x: Maps) -> Result<Var> {
    let part = |i: usize, x: &Maps, relu: bool| normalized(layers, &format!("{name}.layer.{i}"), parts[i], x, relu);
    let inner = part(2, &part(1, &part(0, &x, true)?, true)?, false)?;
    let past = match shortcut {
        Some(filters) => normalized(layers, &format!("{name}.shortcut"), *filters, &x, false)?,
        None => x,
    };
    layers.tape.apply(Activation::Relu, &[&layers.sum(&[&inner.rows, &past.rows])?])
}

/// A convolution and its batch normalization, `weight (y - mean) / sqrt(variance + eps) + bias` with fixed statistics: folded into
/// the filters and the bias, which costs nothing for each pixel, and gradients flow through.
fn normalized(layers: Layers, name: &str, filters: Filters, x: &Maps, relu: bool) -> Result<Maps> {
    let Layers { tape, vars, .. } = layers;
    let parts = ["weight", "bias", "running_mean", "running_var"];
    let [weight, bias, mean, per_deviation] = vars.group(&format!("{name}.normalization"), parts)?;
    let factor = tape.apply(Multiply, &[weight, per_deviation])?;
    let folded = tape.apply(Multiply, &[vars.get(&format!("{name}.convolution.weight"))?, &factor])?;
    let shift = tape.apply(Multiply, &[mean, &factor])?;
    let bias = tape.apply(Sum { coefficients: vec![1.0, -1.0] }, &[bias, &shift])?;
    let windows = windows(&filters, x.side);
    let convolution = Convolution { windows, relu, at_a_time: Convolution::AT_A_TIME };
    Ok(Maps { rows: tape.apply(convolution, &[&folded, &bias, &x.rows])?, side: windows.size().0 })
}
