//! Room for a prepared mention and its candidates.

use super::super::prepared::PreparedMention;
use super::GpuScorer;
use crate::device::cuda::Ptr;
use crate::ops::link::{HEADER, Mention};

/// Rows grow in these steps: all that there is room for are copied with each mention.
const ROWS: usize = 16;

/// Candidates that there is room for at least.
const CANDIDATES: usize = 16;

/// So many candidates as there is room for where so many are wanted.
pub(super) fn room_for(candidates: usize, before: usize) -> usize {
    candidates.next_power_of_two().max(before).max(CANDIDATES)
}

/// Header, candidates and a mention's floats, one after the other: rows, logit vectors and query of each modality, then Fusion's
/// vectors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Room {
    pub candidates: usize,
    /// Rows of the mention, per modality.
    rows: Vec<usize>,
}

/// A mention and its candidates.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub mention: PreparedMention<'a>,
    pub candidates: &'a [u32],
}

impl Asked<'_> {
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.mention.side.modalities.iter().map(|m| m.sequences.range(self.mention.item).len())
    }
}

impl Room {
    /// For such a mention; never less than there was, or two mentions might take turns to need more.
    pub fn new(asked: &Asked, before: Option<&Room>) -> Room {
        let grown =
            |(m, rows): (usize, usize)| rows.next_multiple_of(ROWS).max(before.map_or(0, |before| before.rows[m]));
        Room {
            candidates: room_for(asked.candidates.len(), before.map_or(0, |before| before.candidates)),
            rows: asked.rows().enumerate().map(grown).collect(),
        }
    }

    pub fn holds(&self, asked: &Asked) -> bool {
        asked.candidates.len() <= self.candidates && asked.rows().zip(&self.rows).all(|(rows, room)| rows <= *room)
    }

    /// Where each modality's rows, logit vectors and query begin among the floats, and where Fusion's vectors do.
    fn places(&self, d: usize, heads: usize) -> (Vec<[usize; 3]>, usize) {
        let mut at = 0;
        let modality = |rows: &usize| {
            let start = at;
            at += rows * d + heads * d + d;
            [start, start + rows * d, start + (rows + heads) * d]
        };
        let places = self.rows.iter().map(modality).collect();
        (places, at)
    }
}

impl GpuScorer {
    fn places(&self, room: &Room) -> (Vec<[usize; 3]>, usize) {
        room.places(self.weights.d, self.weights.heads)
    }

    /// All words of it.
    pub(super) fn words(&self, room: &Room, fused: usize) -> usize {
        HEADER + room.candidates + self.places(room).1 + fused * self.weights.d
    }

    /// The same on the device, from `header` on.
    pub(super) fn place_of(&self, room: &Room, fused: usize, header: Ptr) -> Mention {
        let (places, fused_at) = self.places(room);
        let floats = header.offset::<u32>(HEADER + room.candidates);
        Mention {
            header,
            candidates: header.offset::<u32>(HEADER),
            modalities: places.into_iter().map(|parts| parts.map(|at| floats.offset::<f32>(at))).collect(),
            fused: (0..fused).map(|f| floats.offset::<f32>(fused_at + f * self.weights.d)).collect(),
        }
    }

    /// Puts the mention and its candidates there.
    pub(super) fn write(&self, words: &mut [u32], room: &Room, asked: &Asked) {
        let (d, width, mention) = (self.weights.d, self.weights.heads * self.weights.d, asked.mention);
        let (header, rest) = words.split_at_mut(HEADER);
        let (list, floats) = rest.split_at_mut(room.candidates);
        header[0] = asked.candidates.len() as u32;
        header[1..].iter_mut().zip(asked.rows()).for_each(|(to, rows)| *to = rows as u32);
        list[..asked.candidates.len()].copy_from_slice(asked.candidates);
        let floats: &mut [f32] = bytemuck::cast_slice_mut(floats);
        let (places, fused) = self.places(room);
        for (modality, [tokens, logits, query]) in mention.side.modalities.iter().zip(places) {
            let range = modality.sequences.range(mention.item);
            let own = &modality.tokens.data()[range.start * d..range.end * d];
            floats[tokens..][..own.len()].copy_from_slice(own);
            floats[logits..][..width].copy_from_slice(&modality.logits.data()[mention.item * width..][..width]);
            floats[query..][..d].copy_from_slice(&modality.queries.data()[mention.item * d..][..d]);
        }
        for ((_, vectors), to) in mention.side.fused.iter().zip(floats[fused..].chunks_exact_mut(d)) {
            to.copy_from_slice(&vectors.data()[mention.item * d..][..d]);
        }
    }

    /// The scores (kinds, candidates) of those (kinds, capacity) that the kernel wrote.
    pub(super) fn scores_of(&self, written: &[f32], capacity: usize, candidates: usize) -> Vec<f32> {
        let of_kind = |kind: usize| written[kind * capacity..][..candidates].iter();
        (0..self.kinds.len()).flat_map(of_kind).copied().collect()
    }
}
