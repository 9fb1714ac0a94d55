//! DRIN (Xing et al. 2023): text and image of a mention and of its candidates as a graph whose edges weigh and change.
//!
//! From the paper and its code: vertices, two layers, edges that follow the vertices, the mean of the hinge over all candidates.
//! Assumed: edges start from cosines of the vertices, where the original has CLIP's and an object detector's similarities.
//! A mention's vertices take in all its candidates: its scores depend on the whole list.

use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Side};
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Loss, Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Operand, Pooling};
use crate::tensor::{Ragged, Textbook};

/// See the module's documentation.
pub struct Drin;

impl Network for Drin {
    fn name(&self) -> &'static str {
        "drin"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "dropout", "layer_norm_eps", "margin"]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["cosine"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        plan.linear("text", widths.text_global, d);
        plan.linear("image", widths.image_global, d);
        for layer in ["layer1", "layer2"] {
            plan.linear(&format!("{layer}.linear"), d, d);
            plan.norm(&format!("{layer}.norm"), d);
        }
        plan.linear("edge.mention", d, d);
        plan.linear("edge.entity", d, d);
    }

    fn loss(&self, config: &ModelConfig) -> Loss {
        Loss::Hinge { margin: config.margin }
    }

    fn records(&self) -> bool {
        false
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let pairs = &batch.pairs;
        let vertices = |side: &Side, stream: u32| -> Result<[Var; 2]> {
            let text = layers.linear_of("text", &side.text.global, None, (noise, stream))?;
            Ok([text, layers.linear_of("image", &side.image.global, None, (noise, stream + 1))?])
        };
        let of_pairs = |vertices: [Var; 2]| -> Result<[Var; 2]> {
            let [text, image] = &vertices;
            Ok([layers.gather(&pairs.flip(), text)?, layers.gather(&pairs.flip(), image)?])
        };
        let lists = pairs.by_left();
        let lengths = (0..lists.len()).map(|mention| lists.of(mention).len());
        let textbook = Textbook { sequences: lists.len(), length: pairs.len().div_ceil(lists.len().max(1)) };
        let graph = Graph { layers, batch, lists: Ragged::new(lengths, textbook)? };
        let (mention, entity) = (vertices(&batch.mention, 0)?, vertices(&batch.entity, 2)?);
        let edges = graph.each(|m, e| layers.cosine(pairs, Operand::Item, &mention[m], &entity[e]))?;
        let entity = of_pairs(entity)?;
        let (next_mention, next_entity) = graph.layer("layer1", &mention, &entity, &edges)?;
        let edges = graph.edges(&mention, &entity, &edges)?;
        let (mention, entity) = graph.layer("layer2", &next_mention, &next_entity, &edges)?;
        layers.cosine(pairs, Operand::Pair, &layers.gather(pairs, &mention[0])?, &entity[0])
    }
}

/// Mentions with their lists: vertices (text, image) of each mention and of each pair's entity, edges of each pair.
struct Graph<'a> {
    layers: &'a Layers<'a>,
    batch: &'a Batch,
    /// A mention's pairs, which stand next to each other.
    lists: Ragged,
}

/// Edges (1, pairs) from each of a mention's vertices to each of an entity's.
type Edges = [[Var; 2]; 2];

impl Graph<'_> {
    /// A value of each kind of edge, by the number of the mention's vertex and of the entity's.
    fn each(&self, edge: impl Fn(usize, usize) -> Result<Var>) -> Result<Edges> {
        Ok([[edge(0, 0)?, edge(0, 1)?], [edge(1, 0)?, edge(1, 1)?]])
    }

    /// All vertices from those before, weighted by the edges.
    fn layer(&self, name: &str, mention: &[Var; 2], entity: &[Var; 2], edges: &Edges) -> Result<([Var; 2], [Var; 2])> {
        let Graph { layers, batch, lists } = self;
        let updated = |own: &Var, others: &Var| {
            let sum = layers.sum(&[(1.0, own), (1.0, others)])?;
            let linear = layers.linear(&format!("{name}.linear"), &[&sum], None)?;
            layers.activate(Activation::Gelu, &layers.norm(&format!("{name}.norm"), &linear)?)
        };
        let weighted = |[text, image]: [&Var; 2], [by_text, by_image]: [&Var; 2]| {
            let (text, image) = (layers.multiply(text, by_text)?, layers.multiply(image, by_image)?);
            layers.sum(&[(1.0, &text), (1.0, &image)])
        };
        let [et, ei] = entity;
        let of_mention = |m: usize| {
            let [by_text, by_image] = &edges[m];
            updated(&mention[m], &layers.pool(lists, Pooling::Mean, &weighted([et, ei], [by_text, by_image])?)?)
        };
        let (mt, mi) = (layers.gather(&batch.pairs, &mention[0])?, layers.gather(&batch.pairs, &mention[1])?);
        let of_entity = |e: usize| updated(&entity[e], &weighted([&mt, &mi], [&edges[0][e], &edges[1][e]])?);
        Ok(([of_mention(0)?, of_mention(1)?], [of_entity(0)?, of_entity(1)?]))
    }

    /// σ(mean of the product of both vertices, each through a layer, + the edge before).
    fn edges(&self, mention: &[Var; 2], entity: &[Var; 2], before: &Edges) -> Result<Edges> {
        let Graph { layers, batch, .. } = self;
        let through = |name: &str, [text, image]: &[Var; 2]| -> Result<[Var; 2]> {
            Ok([layers.linear(name, &[text], None)?, layers.linear(name, &[image], None)?])
        };
        let (mention, entity) = (through("edge.mention", mention)?, through("edge.entity", entity)?);
        let [text, image] = &mention;
        let mention = [layers.gather(&batch.pairs, text)?, layers.gather(&batch.pairs, image)?];
        self.each(|m, e| {
            let dot = layers.dot(&batch.pairs, Operand::Pair, &mention[m], &entity[e])?;
            let mean = 1.0 / layers.config.d as f32;
            layers.activate(Activation::Sigmoid, &layers.sum(&[(mean, &dot), (1.0, &before[m][e])])?)
        })
    }
}
