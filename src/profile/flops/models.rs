//! The paper's Fig. 11: FLOPs of one mention and parameters, of every model with each backbone.

use serde::Serialize;

use super::{Backbone, inference};
use crate::error::Result;
use crate::model::{Architecture, ModelConfig};
use crate::profile::synthetic::Shape;

/// Candidates of the mention (section 4.3.6).
const CANDIDATES: usize = 10;

/// What one mention with ten candidates costs a model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCost {
    /// The model.
    pub model: &'static str,
    /// Encoders of its features.
    pub backbone: &'static str,
    /// FLOPs of scoring the mention from features.
    pub flops: u64,
    /// The same as a textbook would spend them, texts padded.
    pub textbook: u64,
    /// Parameters that are trained.
    pub parameters: u64,
    /// FLOPs of the encoders that the model reads, for the mention and its candidates.
    pub encoder_flops: u64,
    /// The same with texts padded.
    pub encoder_textbook: u64,
    /// Parameters of these encoders.
    pub encoder_parameters: u64,
}

/// A model that the figure has and the engine has not, with its figures as far as they were published.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Published {
    /// The model.
    pub model: &'static str,
    /// FLOPs of one mention with ten candidates.
    pub flops: Option<f64>,
    /// Parameters in all.
    pub parameters: Option<f64>,
    /// Where the figures are from.
    pub source: &'static str,
}

/// Models of the figure that the engine has not.
pub const PUBLISHED: [Published; 1] = [Published {
    model: "gemel",
    flops: None,
    parameters: None,
    source: "the paper's Fig. 11 draws GEMEL without printing a figure; section 4.3.6 says that its language model makes it \
             costly",
}];

/// Every model with each backbone: one mention, ten candidates, texts of a length that is usual in WikiDiverse.
pub fn models() -> Result<Vec<ModelCost>> {
    let mut costs = Vec::new();
    for backbone in [Backbone::clip(), Backbone::bert_resnet()] {
        for network in Architecture::all() {
            let config = ModelConfig { network, widths: backbone.widths(), ..ModelConfig::default() };
            costs.push(model(config, &backbone)?);
        }
    }
    Ok(costs)
}

fn model(config: ModelConfig, backbone: &Backbone) -> Result<ModelCost> {
    let shape = Shape { mentions: 1, candidates: CANDIDATES, patches: backbone.patches(), ..Shape::WIKIDIVERSE };
    let (model, reads) = (config.network.name(), config.reads());
    let (cost, parameters) = inference(config, shape, 0)?;
    let encoders = backbone.per_sample(&shape)?;
    let read = |reads: bool, figure: u64| if reads { figure } else { 0 };
    Ok(ModelCost {
        model,
        backbone: backbone.name(),
        flops: cost.forward,
        textbook: cost.textbook_forward,
        parameters: parameters as u64,
        encoder_flops: read(reads.text, encoders.text) + read(reads.image, encoders.image),
        encoder_textbook: read(reads.text, encoders.textbook_text) + read(reads.image, encoders.image),
        encoder_parameters: read(reads.text, encoders.text_parameters) + read(reads.image, encoders.image_parameters),
    })
}
