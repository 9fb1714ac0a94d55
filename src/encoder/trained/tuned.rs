//! An encoder that there is, trained on: which of its weights are, and LoRA (Hu et al., 2022), which trains a small product in
//! the place of a weight's change.

use super::parameter::{Depth, Parameter, Role, Tower};
use super::weights::decays;
use crate::autograd::{Parameters, Tape, Var, Variables};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::{Linear, Sum};
use crate::random::{Purpose, generator, uniform};
use crate::tensor::Tensor;

/// What of an encoder is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Whether its texts are read, and its images: a tower that is not read stays as it is.
    pub towers: [bool; 2],
    /// Blocks of each tower that stay as they are, from below, and with them the embeddings.
    pub freeze_layers: usize,
    /// The rank of LoRA; 0 trains the weights themselves.
    pub lora_rank: usize,
    /// LoRA's product counts `lora_alpha / lora_rank` times.
    pub lora_alpha: f32,
    /// Draws what LoRA starts from.
    pub seed: u64,
}

/// An encoder's weights: those that are trained, and those that stay.
#[derive(Clone, Debug)]
pub struct Tuned {
    frozen: Parameters,
    trained: Parameters,
    /// How many of the trained ones, from the first, have weight decay.
    decaying: usize,
    /// Weights that LoRA changes, and how often its products count.
    lora: Vec<String>,
    lora_scale: f32,
}

/// Where LoRA's two factors of a weight's change (outputs, inputs) stand: (outputs, rank) and (inputs, rank).
fn factors(weight: &str) -> [String; 2] {
    let layer = weight.trim_end_matches(".weight");
    [format!("{layer}.lora_b"), format!("{layer}.lora_a")]
}

impl Tuning {
    /// Whether a parameter is trained, where there is no LoRA.
    fn trains(&self, parameter: &Parameter) -> bool {
        let above = match parameter.depth {
            Depth::Input => self.freeze_layers == 0,
            Depth::Block(block) => block >= self.freeze_layers,
            Depth::Output => true,
        };
        // No loss but the contrastive one reads the scale.
        let fixed = matches!(parameter.role, Role::LogScale | Role::Statistics);
        let read = parameter.read && self.towers[(parameter.tower == Tower::Vision) as usize];
        above && read && !fixed
    }

    /// Whether LoRA changes a parameter: queries and values of blocks that are not frozen.
    fn adapts(&self, parameter: &Parameter) -> bool {
        self.lora_rank > 0 && matches!(parameter.role, Role::Query | Role::Value) && self.trains(parameter)
    }

    /// How many scalars are trained, without making them.
    pub fn count(&self, all: &[Parameter]) -> u64 {
        let factors = |parameter: &Parameter| parameter.shape.iter().map(|&n| (n * self.lora_rank) as u64).sum::<u64>();
        match self.lora_rank {
            0 => all.iter().filter(|parameter| self.trains(parameter)).map(Parameter::count).sum(),
            _ => all.iter().filter(|parameter| self.adapts(parameter)).map(factors).sum(),
        }
    }
}

impl Tuned {
    /// Of weights that were read, on the host, of which these are all, those that decay first. Fails if nothing of them would
    /// be trained.
    pub fn new(all: &[Parameter], weights: Parameters, tuning: &Tuning) -> Result<Tuned> {
        let (mut frozen, mut trained, mut lora) = (Vec::new(), Vec::new(), Vec::new());
        let mut decaying = 0;
        for (index, parameter) in all.iter().enumerate() {
            let weight = (parameter.name.clone(), weights.get(&parameter.name)?.clone());
            if tuning.lora_rank == 0 && tuning.trains(parameter) {
                decaying += decays(parameter) as usize;
                trained.push(weight);
                continue;
            }
            if tuning.adapts(parameter) {
                let (outputs, inputs) = weight.1.matrix("lora", "weight")?;
                let [b, a] = factors(&parameter.name);
                // The product starts as zero: what is trained starts as what was read.
                let mut start = Tensor::zeros([inputs, tuning.lora_rank]);
                let mut rng = generator(tuning.seed, Purpose::Adapters, index as u64);
                uniform(start.data_mut(), (3.0 * inputs as f32).powf(-0.5), &mut rng);
                trained.extend([(b, Tensor::zeros([outputs, tuning.lora_rank])), (a, start)]);
                decaying += 2;
                lora.push(parameter.name.clone());
            }
            frozen.push(weight);
        }
        if trained.is_empty() {
            return Err(Error::invalid(format!(
                "encoder: freeze_layers = {} leaves nothing of the encoder to train{}",
                tuning.freeze_layers,
                if tuning.lora_rank > 0 { " (LoRA trains queries and values of the layers above)" } else { "" }
            )));
        }
        let lora_scale = tuning.lora_alpha / tuning.lora_rank.max(1) as f32;
        let [frozen, trained] = [frozen, trained].map(Parameters::from_iter);
        Ok(Tuned { frozen, trained, decaying, lora, lora_scale })
    }

    /// The same in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Tuned> {
        Ok(Tuned { frozen: self.frozen.to(gpu)?, trained: self.trained.to(gpu)?, ..self.clone() })
    }

    /// The same with these values of what is trained.
    pub fn with_trained(self, trained: Parameters) -> Tuned {
        Tuned { trained, ..self }
    }

    /// Those that are trained: first those that have weight decay.
    pub fn trained(&self) -> &Parameters {
        &self.trained
    }

    /// The same for the optimizer.
    pub fn trained_mut(&mut self) -> &mut Parameters {
        &mut self.trained
    }

    /// How many scalars it has, without what LoRA adds.
    pub fn count(&self) -> usize {
        self.frozen.count() + if self.lora.is_empty() { self.trained.count() } else { 0 }
    }

    /// How many of the trained ones, from the first, have weight decay.
    pub fn decaying(&self) -> usize {
        self.decaying
    }

    /// All weights on a tape, by their names: those that stay as constants, what LoRA changes as the changed ones.
    pub fn bind(&self, tape: &Tape) -> Result<Variables> {
        let frozen = self.frozen.iter().map(|(name, tensor)| (name.to_string(), Var::constant(tensor.clone())));
        let trained = self.trained.iter().map(|(name, tensor)| (name.to_string(), tape.leaf(tensor.clone())));
        let mut named: Vec<(String, Var)> = frozen.chain(trained).collect();
        let vars: Variables = named.iter().cloned().collect();
        for name in &self.lora {
            let [b, a] = factors(name).map(|factor| vars.get(&factor));
            let product = Linear { activation: None, bias: false, textbook_rows: 0 };
            let change = tape.apply(product, &[a?, b?])?;
            let changed = tape.apply(Sum { coefficients: vec![1.0, self.lora_scale] }, &[vars.get(name)?, &change])?;
            named.push((name.clone(), changed));
        }
        Ok(named.into_iter().collect())
    }

    /// All weights by the names that files give them, on the host, LoRA's changes among them.
    pub fn merged(&self) -> Result<Parameters> {
        let vars = self.to(None)?.bind(&Tape::inference())?;
        let weight = |(name, _): (&str, &Tensor)| Ok((name.to_string(), vars.get(name)?.tensor().clone()));
        let trained = self.trained.iter().filter(|_| self.lora.is_empty());
        self.frozen.iter().chain(trained).map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::clip::{ClipConfig, weights};

    #[test]
    fn what_lora_learned_is_in_the_weights_that_come_out() {
        let mut config = ClipConfig { projection_dim: 4, ..ClipConfig::default() };
        let (text, vision) = (&mut config.text_config, &mut config.vision_config);
        (text.vocab_size, text.max_position_embeddings, vision.image_size, vision.patch_size) = (9, 5, 8, 4);
        (text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_attention_heads) = (4, 8, 2, 2);
        (vision.hidden_size, vision.intermediate_size) = (6, 8);
        (vision.num_hidden_layers, vision.num_attention_heads) = (2, 2);
        let initial = weights::initial(&config, 3).unwrap();
        let tuning = Tuning { towers: [true, false], freeze_layers: 1, lora_rank: 3, lora_alpha: 6.0, seed: 1 };
        let mut tuned = Tuned::new(&weights::all(&config), initial.clone(), &tuning).unwrap();
        let start = tuned.merged().unwrap();
        assert!(initial.iter().all(|(name, weight)| start.get(name).unwrap().data() == weight.data()));
        // Queries and values of the second block alone, two factors each.
        assert_eq!(tuned.trained().tensors().len(), 4);
        let layer = "text_model.encoder.layers.1.self_attn.q_proj";
        for (i, tensor) in tuned.trained_mut().tensors_mut().iter_mut().enumerate() {
            tensor.data_mut().iter_mut().enumerate().for_each(|(at, x)| *x = (7 * at + i) as f32 % 5.0 - 2.0);
        }
        let [b, a] =
            ["lora_b", "lora_a"].map(|f| tuned.trained().get(&format!("{layer}.{f}")).unwrap().data().to_vec());
        let merged = tuned.merged().unwrap();
        let name = format!("{layer}.weight");
        let (was, is) = (initial.get(&name).unwrap().data(), merged.get(&name).unwrap().data());
        for (at, (was, is)) in was.iter().zip(is).enumerate() {
            let (row, column) = (at / 4, at % 4);
            let change: f32 = (0..3).map(|r| b[3 * row + r] * a[3 * column + r]).sum();
            // alpha / rank = 2.
            assert!((is - was - 2.0 * change).abs() < 1e-5, "{at}: {was} became {is}, its change is 2 x {change}");
        }
        let key = "text_model.encoder.layers.1.self_attn.k_proj.weight";
        assert_eq!(merged.get(key).unwrap().data(), initial.get(key).unwrap().data());
    }
}
