//! A pre-training's log: the contrastive loss of its pairs, and what is found among held-out ones.

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::Line;
use super::epochs::{Epoch, Log, figure, line, percents, plot, range};
use super::input::From;
use crate::error::Result;
use crate::train::pretrain::{EpochRecord, Recall, Retrieval};

/// A pre-training's log.
pub type Pretraining = Log<EpochRecord>;

impl Epoch for EpochRecord {
    const OF: &'static str = "a pre-training's log";

    fn number(&self) -> usize {
        self.epoch
    }
}

/// The section, if there is a log.
pub fn section(pretrainings: &[From<Pretraining>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for pretraining in pretrainings {
        blocks.push(Block::heading(pretraining.short(), &pretraining.source()));
        let epochs = &pretraining.what.epochs;
        blocks.extend(pretraining.what.cut_short());
        blocks.extend(epochs.last().map(|last| Block::text(last_epoch(last))));
        blocks.push(Block::Figure(Box::new(loss(epochs)?)));
        if epochs.iter().any(|epoch| epoch.valid.is_some()) {
            blocks.push(Block::Figure(Box::new(retrieval(epochs)?)));
        }
    }
    let lead =
        "The loss is the mean cross-entropy of each text's own image among the batch's, and of each image's own text.";
    Ok((!blocks.is_empty()).then_some(Section { id: "pretraining", title: "Pre-training", lead, blocks }))
}

fn last_epoch(epoch: &EpochRecord) -> String {
    let EpochRecord { epoch, step, loss, scale, pairs_per_second, .. } = epoch;
    format!("{epoch} epochs, {step} steps, {pairs_per_second:.0} pairs/s: loss {loss:.4}, scale {scale:.1} at the end.")
}

/// The loss and its halves.
fn loss(epochs: &[EpochRecord]) -> Result<Figure> {
    let lines = vec![
        line(epochs, 1, Some("both"), |epoch| Some(epoch.loss)),
        line(epochs, 2, Some("texts"), |epoch| Some(epoch.text_to_image_loss)),
        line(epochs, 3, Some("images"), |epoch| Some(epoch.image_to_text_loss)),
    ];
    let draw = plot(epochs, "loss, nats", range(&lines, true), lines);
    let row = |epoch: &EpochRecord| {
        let losses = [epoch.loss, epoch.text_to_image_loss, epoch.image_to_text_loss].map(|loss| format!("{loss:.4}"));
        let [scale, length] = [f64::from(epoch.scale), epoch.gradient_norm].map(|value| format!("{value:.2}"));
        let clamped = (epoch.clamped_steps > 0).then(|| format!("scale clamped after {} steps", epoch.clamped_steps));
        let rest = [scale, length, format!("{:.2e}", epoch.learning_rate), format!("{:.0}", epoch.pairs_per_second)];
        Row { remark: clamped, ..Row::new(epoch.epoch.to_string(), losses.into_iter().chain(rest)) }
    };
    let header = ["Epoch", "Loss", "Texts", "Images", "Scale", "Gradient norm", "Learning rate", "Pairs/s"];
    let [first, last] = [epochs.first(), epochs.last()].map(|e| e.map_or("none".into(), |e| format!("{:.4}", e.loss)));
    let numbers = Table::new("Contrastive loss, and how the steps went", &header, epochs.iter().map(row).collect());
    let label = format!("Line chart of the contrastive loss over {} epochs, from {first} to {last}.", epochs.len());
    figure(
        "Contrastive loss over epochs, of texts that look for their image and the other way round",
        label,
        draw,
        numbers,
    )
}

/// One of the shares that validation gives.
type Series = (&'static str, fn(&Retrieval) -> f64);

/// What is found among held-out pairs.
fn retrieval(epochs: &[EpochRecord]) -> Result<Figure> {
    let series: [Series; 2] = [("texts", |found| found.text_to_image.at1), ("images", |found| found.image_to_text.at1)];
    let of_series = |(at, (name, of)): (usize, &Series)| {
        line(epochs, at + 1, Some(*name), |epoch| epoch.valid.as_ref().map(|found| 100.0 * of(found)))
    };
    let lines: Vec<Line> = series.iter().enumerate().map(of_series).collect();
    let draw = plot(epochs, "percent found first", percents(&lines), lines);
    let row = |epoch: &EpochRecord| {
        let Retrieval { text_to_image, image_to_text } = epoch.valid?;
        let both = [text_to_image, image_to_text].into_iter().flat_map(|Recall { at1, at5 }| [at1, at5]);
        Some(Row::new(epoch.epoch.to_string(), both.map(|share| format!("{:.2}", 100.0 * share))))
    };
    let header = ["Epoch", "Texts, first %", "Texts, first five %", "Images, first %", "Images, first five %"];
    let numbers = Table::new("Found among held-out pairs", &header, epochs.iter().filter_map(row).collect());
    let label = "Line chart of the share of held-out texts and images whose counterpart is found first.".into();
    figure(
        "Held-out texts whose own image is found first, and images whose own text is, over epochs",
        label,
        draw,
        numbers,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_log_becomes_a_section_that_says_what_was_cut_and_clamped() {
        let line = r#"{"epoch":1,"step":4,"loss":2.5,"text_to_image_loss":2.0,"image_to_text_loss":3.0,"scale":14.5,
            "clamped_steps":2,"gradient_norm":1.5,"learning_rate":1e-3,"valid":null,"pairs_per_second":80.0}"#;
        let line = line.replace('\n', "");
        let log = Pretraining::parse(Path::new("pretrain.jsonl"), &format!("{line}\n{}", &line[..30])).unwrap();
        assert_eq!((log.epochs.len(), log.cut), (1, Some(2)));
        let drawn = loss(&log.epochs).unwrap();
        let rows = &drawn.numbers.as_ref().unwrap().rows;
        assert_eq!(rows[0].remark.as_deref(), Some("scale clamped after 2 steps"));
        let section = section(&[From { path: "run/pretrain.jsonl".into(), what: log }]).unwrap().unwrap();
        let says = |wanted: &str| {
            section
                .blocks
                .iter()
                .any(|block| matches!(block, Block::Text { text } | Block::Warning { text } if text.contains(wanted)))
        };
        assert!(says("cut short") && says("4 steps, 80 pairs/s: loss 2.5000, scale 14.5"));
        let error = Pretraining::parse(Path::new("p.jsonl"), &line[..30]).unwrap_err().to_string();
        assert!(error.contains("p.jsonl:1: is no epoch of a pre-training's log"), "{error}");
    }
}
