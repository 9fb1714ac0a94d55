//! MIMIC (Luo et al. 2023): three units that match texts, images, and both, and the mean of the three.
//!
//! From its code: the units, the losses of each and of the mean. Assumed: the encoders are frozen, negatives are the list's and
//! not the batch's, padding is masked. The layer normalizations of its inputs are left out.

use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Side};
use crate::model::config::ModelConfig;
use crate::model::layers::{Layers, single_rows};
use crate::model::network::{Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Operand, Pairing, Pooling};
use crate::tensor::Ragged;

/// See the module's documentation.
pub struct Mimic;

/// The visual unit's two directions.
const DIRECTIONS: [&str; 2] = ["visual_unit.entity_to_mention", "visual_unit.mention_to_entity"];

impl Network for Mimic {
    fn name(&self) -> &'static str {
        "mimic"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "dropout", "layer_norm_eps"]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["text", "visual", "cross", "mean"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        plan.linear("image_global", widths.image_global, d);
        plan.linear("image", widths.image, d);
        ["query", "key", "value"].iter().for_each(|layer| plan.linear(&format!("text_unit.{layer}"), widths.text, d));
        plan.norm("text_unit.norm", d);
        plan.linear("text_unit.global", widths.text_global, d);
        for name in DIRECTIONS {
            ["global", "patches", "hidden"].iter().for_each(|layer| plan.linear(&format!("{name}.{layer}"), d, d));
            plan.linear(&format!("{name}.gate"), d, 1);
            plan.norm(&format!("{name}.norm1"), d);
            plan.norm(&format!("{name}.norm2"), d);
        }
        plan.linear("cross_unit.text", widths.text_global, d);
        plan.linear("cross_unit.image", d, d);
        plan.linear("cross_unit.gate", d, 1);
        plan.norm("cross_unit.norm", d);
    }

    fn records(&self) -> bool {
        false
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let projected = |side: &Side, stream: u32| -> Result<Projected> {
            Ok(Projected {
                text: layers.unit(&layers.features(&side.text.global)?)?,
                global: layers.linear_of("image_global", &side.image.global, None, (noise, stream))?,
                patches: layers.linear_of("image", &side.image.tokens, None, (noise, stream + 1))?,
            })
        };
        let (mention, entity) = (projected(&batch.mention, 0)?, projected(&batch.entity, 2)?);
        let [s, t] = text_unit(layers, batch, &mention, &entity)?;
        let pairs = &batch.pairs;
        let images = [&batch.mention.image.sequences, &batch.entity.image.sequences];
        let a = visual_unit(layers, DIRECTIONS[0], &pairs.flip(), &entity, (&mention, images[0]))?;
        let b = visual_unit(layers, DIRECTIONS[1], pairs, &mention, (&entity, images[1]))?;
        let mention = cross_unit(layers, &batch.mention, &mention)?;
        let entity = cross_unit(layers, &batch.entity, &entity)?;
        let cross = layers.dot(pairs, Operand::Item, &mention, &entity)?;
        let (half, sixth) = (0.5, 0.5 / 3.0);
        let coefficients = vec![
            vec![half, half, 0.0, 0.0, 0.0],
            vec![0.0, 0.0, half, half, 0.0],
            vec![0.0, 0.0, 0.0, 0.0, 1.0],
            vec![sixth, sixth, sixth, sixth, 1.0 / 3.0],
        ];
        layers.combine(&[&s, &t, &a, &b, &cross], coefficients)
    }
}

/// What the units share of a side.
struct Projected {
    /// The text's vector, of length 1.
    text: Var,
    /// The image's vector, to d.
    global: Var,
    /// The image's patches, to d.
    patches: Var,
}

/// Both halves of s_T: the entity's tokens attend to the mention's, and the texts' vectors.
fn text_unit(layers: &Layers, batch: &Batch, mention: &Projected, entity: &Projected) -> Result<[Var; 2]> {
    let (m, e, pairs) = (&batch.mention.text, &batch.entity.text, &batch.pairs);
    let words = layers.features(&m.tokens)?;
    let query = layers.linear_of("text_unit.query", &e.tokens, None, (None, 0))?;
    let key = layers.linear("text_unit.key", &[&words], None)?;
    let value = layers.linear("text_unit.value", &[&words], None)?;
    let scale = 1.0 / (layers.config.d as f32).sqrt();
    let (context, of_pairs) =
        layers.attention((1, scale), (&query, &e.sequences), (&key, &value, &m.sequences), pairs.flip())?;
    let context = layers.norm("text_unit.norm", &layers.pool(&of_pairs, Pooling::Mean, &context)?)?;
    let global = layers.gather(&pairs.flip(), &layers.linear("text_unit.global", &[&entity.text], None)?)?;
    Ok([
        layers.dot(pairs, Operand::Pair, &global, &context)?,
        layers.dot(pairs, Operand::Item, &mention.text, &entity.text)?,
    ])
}

/// D(a→b): what image a takes from the patches of image b, by a gate. `pairs` has a on its left and b on its right.
fn visual_unit(
    layers: &Layers,
    name: &str,
    pairs: &Pairing,
    a: &Projected,
    (b, patches_of_b): (&Projected, &Ragged),
) -> Result<Var> {
    let layer = |what: &str, x: &Var| layers.linear(&format!("{name}.{what}"), &[x], None);
    let (query, key) = (layer("global", &a.global)?, layer("global", &b.global)?);
    let patches = layers.pool(patches_of_b, Pooling::Mean, &layer("patches", &b.patches)?)?;
    let (q, k) = (layers.gather(pairs, &query)?, layers.gather(&pairs.flip(), &key)?);
    let p = layers.gather(&pairs.flip(), &patches)?;
    let hidden = layers.norm(&format!("{name}.norm1"), &layers.sum(&[(1.0, &p), (1.0, &q)])?)?;
    let hidden = layer("hidden", &hidden)?;
    let gate = layers.activate(Activation::Tanh, &layer("gate", &hidden)?)?;
    let taken = layers.sum(&[(1.0, &layers.multiply(&hidden, &gate)?), (1.0, &k)])?;
    let norm = |x: &Var| layers.norm(&format!("{name}.norm2"), x);
    layers.dot(pairs, Operand::Pair, &norm(&taken)?, &norm(&q)?)
}

/// A side's text with what it takes from its own image's patches.
fn cross_unit(layers: &Layers, side: &Side, projected: &Projected) -> Result<Var> {
    let text = layers.linear("cross_unit.text", &[&projected.text], None)?;
    let patches = layers.linear("cross_unit.image", &[&projected.patches], None)?;
    let image = &side.image.sequences;
    let one_each = single_rows(image.len())?;
    let pairs = Pairing::identity(image.len());
    let (context, _) = layers.attention((1, 1.0), (&text, &one_each), (&patches, &patches, image), pairs)?;
    let gate = layers.linear("cross_unit.gate", &[&text], Some(Activation::Tanh))?;
    layers.norm("cross_unit.norm", &layers.sum(&[(1.0, &layers.multiply(&text, &gate)?), (1.0, &context)])?)
}
