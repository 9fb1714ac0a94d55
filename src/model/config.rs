//! What a model consists of: widths, heads, and which of the paper's parts take part.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::network::Reads;
use super::registry::Architecture;
use crate::error::{Error, Result};

/// The largest width that makes sense: with it, no number of values overflows.
const LARGEST: usize = 1 << 24;

/// Widths of the frozen encoders' four features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Widths {
    /// Text token states.
    #[serde(rename = "text_dim")]
    pub text: usize,
    /// Text global vector.
    #[serde(rename = "text_global_dim")]
    pub text_global: usize,
    /// Image patch states.
    #[serde(rename = "image_dim")]
    pub image: usize,
    /// Image global vector.
    #[serde(rename = "image_global_dim")]
    pub image_global: usize,
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Widths { text, text_global, image, image_global } = self;
        write!(f, "text_dim {text}, text_global_dim {text_global}, image_dim {image}, image_global_dim {image_global}")
    }
}

impl Default for Widths {
    /// CLIP ViT-B/32's.
    fn default() -> Widths {
        Widths { text: 512, text_global: 512, image: 768, image_global: 512 }
    }
}

/// Everything that fixes the parameters' names and shapes and the computation. Reads the reference's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// Which model.
    #[serde(rename = "model")]
    pub network: Architecture,
    /// Widths of the features.
    #[serde(flatten)]
    pub widths: Widths,
    /// Hidden width of the network (paper: 100).
    pub d: usize,
    /// Cross-attention heads; must divide `d`.
    pub heads: usize,
    /// Epsilon of every layer normalization.
    pub layer_norm_eps: f32,
    /// Probability of zeroing a projected feature in training.
    pub dropout: f32,
    /// Which of Table 3's parts are removed.
    pub ablation: Ablation,
    /// Which modalities are read.
    pub modalities: Modalities,
    /// How far the right entity is to be ahead, by models that learn from a hinge loss.
    pub margin: f32,
    /// What cosines are divided by, by models that learn from their softmax.
    pub temperature: f32,
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig {
            network: Architecture::default(),
            widths: Widths::default(),
            d: 100,
            heads: 1,
            layer_norm_eps: 1e-5,
            dropout: 0.0,
            ablation: Ablation::None,
            modalities: Modalities::Both,
            margin: 0.25,
            temperature: 0.07,
        }
    }
}

/// The rows of the paper's Table 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ablation {
    /// The full model.
    #[default]
    None,
    /// Without the Fission branch.
    A,
    /// Without the Fusion branch.
    B,
    /// Without S1* and S2*.
    C,
    /// Without S1T and S1V (S1* still sees both attentions).
    D,
    /// Without S2T and S2V (S2* still sees both attentions).
    E,
    /// Without S1T, S1V, S2T and S2V.
    F,
    /// Without the visual modality.
    G,
}

/// Which modalities are read. With one, the MLPs of Eq. 7 and 9 take that one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Modalities {
    /// Text and image.
    #[default]
    Both,
    /// Text alone; the same as ablation (g).
    Text,
    /// Image alone.
    Image,
}

/// What remains of one branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Scores of single modalities.
    pub single: bool,
    /// The score of both together.
    pub star: bool,
}

impl Branch {
    /// Whether anything of the branch remains.
    pub fn any(self) -> bool {
        self.single || self.star
    }
}

/// What remains of the model after ablation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Text is read.
    pub text: bool,
    /// Images are read.
    pub image: bool,
    /// Section 3.3.1.
    pub fission: Branch,
    /// Section 3.3.2.
    pub fusion: Branch,
}

/// The six scores, in the order of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    FissionText,
    FissionImage,
    FissionStar,
    FusionText,
    FusionImage,
    FusionStar,
}

impl ScoreKind {
    /// All six, in order.
    pub const ALL: [ScoreKind; 6] = [
        ScoreKind::FissionText,
        ScoreKind::FissionImage,
        ScoreKind::FissionStar,
        ScoreKind::FusionText,
        ScoreKind::FusionImage,
        ScoreKind::FusionStar,
    ];

    /// Fission's score of one modality, "text" or "image".
    pub fn fission(modality: &str) -> ScoreKind {
        if modality == "text" { ScoreKind::FissionText } else { ScoreKind::FissionImage }
    }

    /// Fusion's score of one modality, "text" or "image".
    pub fn fusion(modality: &str) -> ScoreKind {
        if modality == "text" { ScoreKind::FusionText } else { ScoreKind::FusionImage }
    }

    /// The paper's name, in plain letters.
    pub fn label(self) -> &'static str {
        ["S1T", "S1V", "S1*", "S2T", "S2V", "S2*"][self as usize]
    }
}

impl ModelConfig {
    /// Fails if a number makes no sense.
    pub fn check(&self) -> Result<()> {
        let Widths { text, text_global, image, image_global } = self.widths;
        let sizes = [
            ("text_dim", text),
            ("text_global_dim", text_global),
            ("image_dim", image),
            ("image_global_dim", image_global),
            ("d", self.d),
            ("heads", self.heads),
        ];
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size)) {
            return Err(Error::invalid(format!("model: {name} = {size}: must be from 1 to {LARGEST}")));
        }
        if !self.d.is_multiple_of(self.heads) {
            return Err(Error::invalid(format!(
                "model: heads = {} does not divide d = {}; choose a divisor of d",
                self.heads, self.d
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::invalid(format!("model: dropout = {} is not in [0, 1)", self.dropout)));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps.is_finite()) {
            return Err(Error::invalid(format!(
                "model: layer_norm_eps = {} is no number above 0",
                self.layer_norm_eps
            )));
        }
        for (name, value) in [("margin", self.margin), ("temperature", self.temperature)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::invalid(format!("model: {name} = {value} is no number above 0")));
            }
        }
        if self.ablation == Ablation::G && self.modalities == Modalities::Image {
            return Err(Error::invalid("model: ablation g removes images, modalities = \"image\" removes all else"));
        }
        Ok(())
    }

    /// Fails if a setting that the model does not heed was given another value than its default. Files of the reference give
    /// all; what users set is to have an effect.
    pub fn check_settings(&self) -> Result<()> {
        let default = ModelConfig::default();
        let settings = [
            ("d", self.d != default.d),
            ("heads", self.heads != default.heads),
            ("layer_norm_eps", self.layer_norm_eps != default.layer_norm_eps),
            ("dropout", self.dropout != default.dropout),
            ("ablation", self.ablation != default.ablation),
            ("modalities", self.modalities != default.modalities),
            ("margin", self.margin != default.margin),
            ("temperature", self.temperature != default.temperature),
        ];
        let heeded = self.network.settings();
        match settings.iter().find(|(name, changed)| *changed && !heeded.contains(name)) {
            Some((name, _)) => Err(Error::invalid(format!(
                "model: `{}` has no setting `{name}`; leave it out (it has {})",
                self.network,
                if heeded.is_empty() { "none".into() } else { heeded.join(", ") }
            ))),
            None => Ok(()),
        }
    }

    /// What takes part in FissFuse's computation.
    pub fn parts(&self) -> Parts {
        use Ablation::*;
        let without = |removed: &[Ablation]| !removed.contains(&self.ablation);
        Parts {
            text: self.modalities != Modalities::Image,
            image: self.modalities != Modalities::Text && without(&[G]),
            fission: Branch { single: without(&[A, D, F]), star: without(&[A, C]) },
            fusion: Branch { single: without(&[B, E, F]), star: without(&[B, C]) },
        }
    }

    /// Names of the scores that the model computes, in order.
    pub fn scores(&self) -> Vec<&'static str> {
        self.network.scores(self)
    }

    /// Which features the model reads.
    pub fn reads(&self) -> Reads {
        self.network.reads(self)
    }

    /// Those of FissFuse's six scores that are computed, in order.
    pub fn six(&self) -> Vec<ScoreKind> {
        let parts = self.parts();
        let present = |kind: &ScoreKind| match kind {
            ScoreKind::FissionText => parts.fission.single && parts.text,
            ScoreKind::FissionImage => parts.fission.single && parts.image,
            ScoreKind::FissionStar => parts.fission.star,
            ScoreKind::FusionText => parts.fusion.single && parts.text,
            ScoreKind::FusionImage => parts.fusion.single && parts.image,
            ScoreKind::FusionStar => parts.fusion.star,
        };
        ScoreKind::ALL.into_iter().filter(present).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ablation: Ablation) -> String {
        let config = ModelConfig { ablation, ..ModelConfig::default() };
        config.scores().join(" ")
    }

    #[test]
    fn ablations_leave_the_scores_of_table_3() {
        assert_eq!(labels(Ablation::None), "S1T S1V S1* S2T S2V S2*");
        assert_eq!(labels(Ablation::A), "S2T S2V S2*");
        assert_eq!(labels(Ablation::B), "S1T S1V S1*");
        assert_eq!(labels(Ablation::C), "S1T S1V S2T S2V");
        assert_eq!(labels(Ablation::D), "S1* S2T S2V S2*");
        assert_eq!(labels(Ablation::E), "S1T S1V S1* S2*");
        assert_eq!(labels(Ablation::F), "S1* S2*");
        assert_eq!(labels(Ablation::G), "S1T S1* S2T S2*");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let base = ModelConfig::default();
        for bad in [
            ModelConfig { heads: 8, ..base.clone() },
            ModelConfig { d: 0, ..base.clone() },
            ModelConfig { dropout: 1.0, ..base.clone() },
            ModelConfig { layer_norm_eps: f32::NAN, ..base.clone() },
            ModelConfig { ablation: Ablation::G, modalities: Modalities::Image, ..base.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(base.check().is_ok());
    }
}
