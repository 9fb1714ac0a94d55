//! Linking mentions that were never seen: encodes them, scores them against their candidates or the whole knowledge base.

use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::best::{Best, Scored};
use super::entities::{Entities, Keeping, Mentions};
use super::ranking::finite;
use super::shortlist::{FirstStage, Recall, Shortlist};
use crate::data::{Batcher, Dataset, Item, Mention, blank};
use crate::device::Gpu;
use crate::encoder::{Encoded, Encoders};
use crate::error::{Error, Result};
use crate::model::{Modality, Model, PreparedMention, PreparedSide, Side, mean_over_scores};
use crate::span;
use crate::trace::{next_step, on_device};

/// An entity that a mention may refer to.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The entity's identifier.
    pub qid: String,
    /// Its name.
    pub name: String,
    /// Mean of the scores (Eq. 11).
    pub score: f32,
    /// Softmax of the mean score over all entities that were considered.
    pub confidence: f32,
    /// Each score by its name.
    pub scores: serde_json::Map<String, serde_json::Value>,
}

/// A mention with its entities, best first.
#[derive(Clone, Debug, Serialize)]
pub struct Linked {
    /// The mention's identifier.
    pub mention_id: String,
    /// The span that was linked.
    pub mention: String,
    /// Entities, best first.
    pub links: Vec<Link>,
}

/// A model, its encoders and a knowledge base.
pub struct Linker<'a> {
    entities: Entities<'a>,
    dataset: &'a Dataset,
    encoders: &'a Encoders,
    /// Where there is a first stage, the whole model ranks what it lists.
    shortlist: Option<Shortlist>,
}

impl<'a> Linker<'a> {
    /// Prepares nothing yet. The model's weights lie on the host; `gpu` is where it shall compute, if not there.
    pub fn new(
        (model, gpu): (&Model, Option<&Gpu>),
        batcher: &'a Batcher,
        dataset: &'a Dataset,
        encoders: &'a Encoders,
        keeping: Keeping,
    ) -> Result<Linker<'a>> {
        let entities = Entities::new((model, gpu), batcher, dataset.entities().len(), keeping)?;
        Ok(Linker { entities, dataset, encoders, shortlist: None })
    }

    /// From now on, mentions without lists are ranked by a first stage, and what it lists by the whole model. Its recall is
    /// measured on some of these mentions, which the feature store has.
    pub fn shortlist(&mut self, stage: &FirstStage, mentions: &[Item], bar: &ProgressBar) -> Result<Recall> {
        let (shortlist, recall) = Shortlist::new(&mut self.entities, stage, mentions, bar)?;
        self.shortlist = Some(shortlist);
        Ok(recall)
    }

    /// The `top` best entities of a mention: of its candidates, none of an empty list, or of all entities if it has no list.
    pub fn link(&mut self, mention: &Mention, top: usize, bar: &ProgressBar) -> Result<Linked> {
        self.link_together(std::slice::from_ref(mention), top, bar)?
            .pop()
            .ok_or_else(|| Error::shape("link", "no answer"))
    }

    /// The same of several mentions: those without lists meet each entity together. One that fails fails all.
    pub fn link_together(&mut self, asked: &[Mention], top: usize, bar: &ProgressBar) -> Result<Vec<Linked>> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        next_step();
        let _span = span!("mention");
        let features = asked.iter().map(|mention| self.encode(mention)).collect::<Result<Vec<_>>>()?;
        let sides = asked.iter().zip(&features).map(|(mention, side)| self.prepare(mention, side));
        let sides = sides.collect::<Result<Vec<_>>>()?;
        let all: Vec<u32> = (0..self.entities.count() as u32).collect();
        let mut best: Vec<Best> = asked.iter().map(|_| Best::new(top)).collect();
        let mut together = Vec::new();
        let mut lists = self.lists(asked, &sides)?.into_iter();
        for (at, ((mention, side), prepared)) in asked.iter().zip(&features).zip(&sides).enumerate() {
            let list = match (mention.candidates.is_some(), prepared) {
                (true, _) => mention.listed().to_vec(),
                (false, None) => all.clone(),
                (false, Some(prepared)) => match lists.next() {
                    Some(list) => list,
                    None => {
                        together.push((at, prepared.mention(0)));
                        continue;
                    }
                },
            };
            let one = match prepared {
                Some(prepared) => Mentions::Prepared(vec![prepared.mention(0)]),
                None => Mentions::Features(side),
            };
            self.rank(&one, &[at], asked, &list, &mut best, bar)?;
        }
        if !together.is_empty() {
            let (together, mentions): (Vec<usize>, Vec<PreparedMention>) = together.into_iter().unzip();
            self.rank(&Mentions::Prepared(mentions), &together, asked, &all, &mut best, bar)?;
        }
        Ok(asked.iter().zip(best).map(|(mention, best)| self.linked(mention, best)).collect())
    }

    /// What the first stage lists for the mentions without lists, in their order; nothing without a first stage.
    fn lists(&self, asked: &[Mention], sides: &[Option<PreparedSide>]) -> Result<Vec<Vec<u32>>> {
        let Some(shortlist) = &self.shortlist else { return Ok(Vec::new()) };
        let without = asked.iter().zip(sides).filter(|(mention, _)| mention.candidates.is_none());
        shortlist.of(&without.filter_map(|(_, side)| Some(side.as_ref()?.mention(0))).collect::<Vec<_>>())
    }

    /// The mention's side, prepared, unless the model does not, or it is scored but once where its features are as good.
    fn prepare(&self, mention: &Mention, side: &Side) -> Result<Option<PreparedSide>> {
        let once = mention.candidates.is_some() && mention.listed().len() <= self.entities.block();
        let prepares = self.entities.prepares() && !(once && self.entities.takes_features());
        prepares.then(|| PreparedSide::new(self.entities.model(), side)).transpose()
    }

    /// From now on, prepared mentions are scored by a kernel that stays on the device until none came for `idle`. Fails without a
    /// device, and with a model whose mentions are not prepared.
    pub fn keep_resident(&mut self, idle: Duration) -> Result<()> {
        self.entities.keep_resident(idle)
    }

    /// Scores mentions, which are these of `asked`, against the entities of a list, block by block.
    fn rank(
        &mut self,
        mentions: &Mentions,
        which: &[usize],
        asked: &[Mention],
        list: &[u32],
        best: &mut [Best],
        bar: &ProgressBar,
    ) -> Result<()> {
        let kinds = self.entities.model().config().scores().len();
        let (size, gpu) = (self.entities.block(), self.entities.model().gpu().cloned());
        for (first, block) in list.chunks(size).enumerate().map(|(b, block)| (b * size, block)) {
            let preparing = (span!("prepare entities"), on_device(gpu.as_ref(), "prepare entities", ""));
            self.entities.prepare(block, bar)?;
            drop(preparing);
            let scoring = (span!("score"), on_device(gpu.as_ref(), "score", ""));
            let scores = self.entities.score(mentions, block)?;
            drop(scoring);
            let _ranking = span!("rank");
            for (&at, scores) in which.iter().zip(scores.chunks_exact(kinds * block.len())) {
                finite(scores, &asked[at].id)?;
                best[at].add(block, &mean_over_scores(scores, kinds), scores, |i| (first + i) as u32);
            }
        }
        Ok(())
    }

    /// The answer to a mention.
    fn linked(&self, mention: &Mention, best: Best) -> Linked {
        let kinds = self.entities.model().config().scores();
        let confidences = best.confidences();
        let link = |scored: Scored| {
            let entity = &self.dataset.entities()[scored.entity as usize];
            let score = |(kind, &score): (&&str, &f32)| (kind.to_string(), score.into());
            Link {
                qid: entity.qid.clone(),
                name: entity.name.clone(),
                score: scored.mean,
                confidence: confidences.of(scored.mean),
                scores: kinds.iter().zip(&scored.scores).map(score).collect(),
            }
        };
        let links = best.into_sorted().into_iter().map(link).collect();
        Linked { mention_id: mention.id.clone(), mention: mention.mention.clone(), links }
    }

    /// Features of a mention. A path of an image is relative to the dataset.
    fn encode(&self, mention: &Mention) -> Result<Side> {
        let _span = span!("encode mention");
        let manifest = self.entities.batcher().store().manifest();
        let one = |mut encoded: Vec<Encoded>, what: &str, encoder: &str| {
            let encoded = encoded.pop().ok_or_else(|| Error::invalid("the encoder gave nothing"))?;
            encoded.expect_finite(what, encoder).map(|()| encoded)
        };
        let text = manifest.mention_text(&mention.mention, &mention.sentence);
        let text = match &self.encoders.text {
            Some(encoder) => one(encoder.encode_texts(&[&text], manifest.max_tokens)?, "its text", encoder.identity())?,
            None => blank(),
        };
        let image = match (&mention.image, &self.encoders.image) {
            (None, _) | (_, None) => self.entities.batcher().missing_image()?,
            (Some(name), Some(encoder)) => {
                let pixels = encoder.prepare(
                    &self.dataset.root().join(name),
                    self.entities.batcher().store().manifest().exif_orientation,
                )?;
                let image = one(encoder.encode_images(&[pixels])?, "its image", encoder.identity())?;
                Modality::single(&image.tokens, manifest.widths.image, &image.global)?
            }
        };
        Ok(Side { text: Modality::single(&text.tokens, manifest.widths.text, &text.global)?, image })
    }
}
