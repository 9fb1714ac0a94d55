//! Whether encoders can be trained along with a model, and as the settings say.

use super::EncoderSettings;
use crate::data::Manifest;
use crate::encoder::trained::Role;
use crate::encoder::{EncoderPaths, Opened, TrainableEncoders};
use crate::error::{Error, Result};
use crate::model::Reads;

/// The directories of what a model reads. Fails if one of that is not given, if one is given for what it does not read alone, or if
/// one is no directory of an encoder.
pub(super) fn read(paths: &EncoderPaths, reads: Reads) -> Result<TrainableEncoders> {
    let EncoderPaths { text, image } = paths;
    if let Some(folder) = text.iter().chain(image).find(|folder| Manifest::exists(folder)) {
        let reason = "is a feature store, which frozen encoders made: --features trains on it, --train-encoder takes the \
                      Hugging Face directory of a CLIP, a SigLIP, a BERT or a ResNet";
        return Err(Error::file(folder, reason));
    }
    for (what, read, folder, beside) in [("text", reads.text, text, image), ("image", reads.image, image, text)] {
        let other = if what == "text" { "image" } else { "text" };
        match folder {
            None if read => {
                return Err(Error::invalid(format!(
                    "the model reads {what}s, and no encoder of {what}s is given: add --train-{what}-encoder DIR, or read {other}s \
                     alone (--modalities {other})"
                )));
            }
            // A tower that is not read may be in the directory of the other one.
            Some(folder) if !read && beside.as_ref() != Some(folder) => {
                let reason =
                    format!("encodes {what}s, which the model does not read: leave it out, or take a model that does");
                return Err(Error::file(folder, reason));
            }
            _ => {}
        }
    }
    let files = TrainableEncoders::read(paths)?;
    let Opened { folder, files: of_texts } = files.of_texts();
    if reads.text && !of_texts.encodes_texts() {
        return Err(Error::file(
            folder,
            "holds a ResNet, which encodes images, and the model reads texts, whose features cannot come from a store while an \
             encoder is trained along: give a CLIP, a SigLIP or a BERT for the texts (--train-text-encoder), or --modalities image \
             (--model fissfuse)",
        ));
    }
    let Opened { folder, files: of_images } = files.of_images();
    if reads.image && of_images.processor().is_none() {
        return Err(Error::file(
            folder,
            "holds a BERT, which encodes texts, and the model reads images: give a CLIP, a SigLIP or a ResNet for the images \
             (--train-image-encoder), --modalities text, or a model that reads texts alone (bert, blink)",
        ));
    }
    Ok(files)
}

/// Fails if nothing of the encoders would be trained, or if LoRA cannot.
pub(super) fn expect_fit(files: &TrainableEncoders, settings: &EncoderSettings) -> Result<()> {
    let (shapes, shown) = (files.shapes(), files.shown());
    let EncoderSettings { freeze_layers, lora_rank, dropout, .. } = *settings;
    let [text, vision] = [shapes.text.layers, shapes.vision.layers];
    if freeze_layers > text.max(vision) {
        let there = match (text, vision) {
            (0, one) | (one, 0) => one.to_string(),
            _ => format!("{text} and {vision}"),
        };
        return Err(Error::invalid(format!(
            "encoder: freeze_layers = {freeze_layers}: there are {there} layers in {shown}; no more than {} can be frozen",
            text.max(vision)
        )));
    }
    let widest = shapes.text.width.max(shapes.vision.width);
    if lora_rank > widest {
        return Err(Error::invalid(format!(
            "encoder: lora_rank = {lora_rank}: the towers in {shown} are {widest} wide at most, and a rank above it holds more than \
             the weights themselves; 4 to 64 is usual, 0 trains the weights"
        )));
    }
    let has_queries = |one: &Opened| one.files.parameters().iter().any(|parameter| parameter.role == Role::Query);
    if dropout > 0.0 && !files.all().any(has_queries) {
        return Err(Error::invalid(format!(
            "encoder: dropout = {dropout}: it is of the layers of a transformer, of which {shown} has none; set it to 0"
        )));
    }
    match files.all().find(|one| !has_queries(one)) {
        Some(Opened { folder, .. }) if lora_rank > 0 => Err(Error::invalid(format!(
            "encoder: lora_rank = {lora_rank}: LoRA changes queries and values, and the encoder in {} has none; 0 trains the weights",
            folder.display()
        ))),
        _ => Ok(()),
    }
}
