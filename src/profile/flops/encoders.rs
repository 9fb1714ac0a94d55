//! What the frozen encoders spend and how many parameters they have.

use serde::Serialize;

use crate::encoder::bert::BertConfig;
use crate::encoder::clip::ClipConfig;
use crate::encoder::resnet::ResNetConfig;
use crate::error::Result;
use crate::model::Widths;
use crate::profile::synthetic::Shape;

/// The pair of encoders that features come from.
#[derive(Clone, Debug)]
pub enum Backbone {
    /// Both towers of a CLIP.
    Clip(Box<ClipConfig>),
    /// BERT and ResNet, the paper's B+R (section 4.2.1).
    BertResNet(BertConfig, ResNetConfig),
}

/// Side of ResNet's images, as its processor crops them.
const RESNET_IMAGE: usize = 224;

/// FLOPs of encoding what one sample needs: a mention and its candidates, a text and an image each. Caching the
/// features spares all of it but the first time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncoderCost {
    /// Texts at their own length.
    pub text: u64,
    /// Texts padded to the longest that is read, as far as the encoder takes it.
    pub textbook_text: u64,
    /// Images.
    pub image: u64,
    /// Parameters of the texts' encoder.
    pub text_parameters: u64,
    /// Parameters of the images' encoder.
    pub image_parameters: u64,
}

impl Backbone {
    /// CLIP ViT-B/32.
    pub fn clip() -> Backbone {
        Backbone::Clip(Box::new(ClipConfig { projection_dim: 512, ..ClipConfig::default() }))
    }

    /// bert-base-uncased and ResNet-101.
    pub fn bert_resnet() -> Backbone {
        Backbone::BertResNet(
            BertConfig::default(),
            ResNetConfig { depths: vec![3, 4, 23, 3], ..ResNetConfig::default() },
        )
    }

    /// As tables name it.
    pub fn name(&self) -> &'static str {
        match self {
            Backbone::Clip(_) => "clip",
            Backbone::BertResNet(..) => "bert+resnet",
        }
    }

    /// Widths of the features.
    pub fn widths(&self) -> Widths {
        match self {
            Backbone::Clip(clip) => {
                let (text, image, global) =
                    (clip.text_config.hidden_size, clip.vision_config.hidden_size, clip.projection_dim);
                Widths { text, text_global: global, image, image_global: global }
            }
            Backbone::BertResNet(bert, resnet) => {
                let (text, image) = (bert.hidden_size, resnet.hidden_sizes.last().copied().unwrap_or(0));
                Widths { text, text_global: text, image, image_global: image }
            }
        }
    }

    /// Rows of an image's features.
    pub fn patches(&self) -> usize {
        match self {
            Backbone::Clip(clip) => clip.vision_config.patches(),
            Backbone::BertResNet(_, resnet) => resnet.patches(RESNET_IMAGE),
        }
    }

    /// Of a sample of this shape, each text as long as their mean.
    pub fn per_sample(&self, shape: &Shape) -> Result<EncoderCost> {
        let items = 1 + shape.candidates as u64;
        let lengths = |longest: usize| [shape.mean_tokens, shape.max_tokens.min(longest)];
        let ([text, textbook_text], image, parameters) = match self {
            Backbone::Clip(clip) => {
                let texts = lengths(clip.text_config.max_position_embeddings).map(|tokens| clip.text_cost(tokens));
                (texts, clip.image_cost()?, clip.parameters())
            }
            Backbone::BertResNet(bert, resnet) => {
                let texts = lengths(bert.max_position_embeddings).map(|tokens| bert.text_cost(tokens));
                let (image, image_parameters) = resnet.image_cost(RESNET_IMAGE);
                (texts, image, (bert.parameters(), image_parameters))
            }
        };
        Ok(EncoderCost {
            text: items * text?.forward,
            textbook_text: items * textbook_text?.forward,
            image: items * image.forward,
            text_parameters: parameters.0,
            image_parameters: parameters.1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_textbook_pads_to_the_longest_text_that_is_read() {
        let clip = ClipConfig { projection_dim: 512, ..ClipConfig::default() };
        let of = |max_tokens: usize| Backbone::clip().per_sample(&Shape { max_tokens, ..Shape::WIKIDIVERSE }).unwrap();
        assert_eq!(of(64).textbook_text, 11 * clip.text_cost(64).unwrap().forward);
        assert_eq!(of(100).textbook_text, 11 * clip.text_cost(77).unwrap().forward);
    }

    #[test]
    fn parameters_are_those_of_the_published_models() {
        let of = |backbone: Backbone| {
            let cost = backbone.per_sample(&Shape::WIKIDIVERSE).unwrap();
            (cost.text_parameters, cost.image_parameters)
        };
        // transformers' CLIPModel of openai/clip-vit-base-patch32 has 151,277,313, one of which is the logits' scale.
        let (text, image) = of(Backbone::clip());
        assert_eq!(text + image, 151_277_312);
        // BertModel of bert-base-uncased has 109,482,240, of which its pooler, which is not used, has 768 * 769. torchvision's
        // resnet101 has 44,549,160, of which its classifier has 1000 * 2049.
        assert_eq!(of(Backbone::bert_resnet()), (109_482_240 - 768 * 769, 44_549_160 - 1000 * 2049));
    }

    #[test]
    fn resnet_spends_what_is_published() {
        let (cost, _) = ResNetConfig { depths: vec![3, 4, 23, 3], ..ResNetConfig::default() }.image_cost(224);
        // torchvision says 7.80 G multiply-adds, of which the classifier has 0.002.
        assert!((cost.forward as f64 / 2e9 - 7.80).abs() < 0.01, "{}", cost.forward);
    }
}
