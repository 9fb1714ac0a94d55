//! Several mentions, laid out so that they are scored against the same entities by products of matrices.

use super::attention::Finish;
use super::prepared::{PreparedMention, PreparedModality};
use crate::device::cpu::Buffer;
use crate::device::cpu::vector::LANES;
use crate::error::Result;
use crate::model::ScoreKind;
use crate::ops::matmul::Mat;

/// Mentions that are scored together.
pub(super) struct Group<'a> {
    pub mentions: &'a [PreparedMention<'a>],
    pub modalities: Vec<GroupedModality>,
}

/// Rows of all mentions of a group, one mention's after the other's.
pub(super) struct GroupedModality {
    /// First row of each mention, then the number of rows.
    pub starts: Vec<usize>,
    /// The rows as columns (d, columns): what an entity's logit vector is multiplied with.
    pub columns: Buffer,
    /// As many as rows, but two at least: a product with a vector has other bits than one with a matrix.
    pub width: usize,
    /// Logit vectors (mentions, heads, stride), zeros behind the first d of each.
    pub logits: Buffer,
    /// The width d as [`attend_together`] wants it.
    ///
    /// [`attend_together`]: crate::ops::cross_attention::attend_together
    pub stride: usize,
    /// Value and output layer of each row (rows, d), of each head: an entity's attended vector is a weighted sum of these.
    pub values: Vec<Buffer>,
}

impl<'a> Group<'a> {
    /// Lays out mentions for the modalities that take part in Fission.
    pub fn new(mentions: &'a [PreparedMention], finish: &[(ScoreKind, Finish)], d: usize) -> Result<Group<'a>> {
        let modality = |(i, (_, finish)): (usize, &(ScoreKind, Finish))| {
            let of = |mention: &'a PreparedMention| (&mention.side.modalities[i], mention.item);
            GroupedModality::new(mentions.iter().map(of), finish, d)
        };
        let modalities = finish.iter().enumerate().map(modality).collect::<Result<_>>()?;
        Ok(Group { mentions, modalities })
    }
}

impl GroupedModality {
    fn new<'a>(
        mentions: impl Iterator<Item = (&'a PreparedModality, usize)>,
        finish: &Finish,
        d: usize,
    ) -> Result<GroupedModality> {
        let (heads, stride) = (finish.folded.len(), d.next_multiple_of(LANES));
        let (mut starts, mut rows, mut of) = (vec![0], Vec::new(), Vec::new());
        for (modality, item) in mentions {
            of.extend_from_slice(&modality.logits.data()[item * heads * d..][..heads * d]);
            let range = modality.sequences.range(item);
            rows.extend_from_slice(&modality.tokens.data()[range.start * d..range.end * d]);
            starts.push(rows.len() / d);
        }
        let mut logits = Buffer::zeros(of.len() / d * stride);
        logits.chunks_exact_mut(stride).zip(of.chunks_exact(d)).for_each(|(to, from)| to[..d].copy_from_slice(from));
        let count = rows.len() / d;
        let width = count.max(2);
        let mut columns = Buffer::zeros(d * width);
        let mat = Mat::new(&rows, count, d);
        for (j, column) in columns.chunks_exact_mut(width).enumerate() {
            column.iter_mut().take(count).enumerate().for_each(|(row, x)| *x = mat.at(row, j));
        }
        // Two rows at least, as above.
        rows.resize(width * d, 0.0);
        let values = finish.folded.iter().map(|folded| {
            let mut values = Buffer::scratch(width * d);
            folded.forward_into(&mut values, &rows)?;
            Ok(values)
        });
        let values = values.collect::<Result<_>>()?;
        Ok(GroupedModality { starts, columns, width, logits, stride, values })
    }

    /// Rows of a mention.
    pub fn rows(&self, mention: usize) -> std::ops::Range<usize> {
        self.starts[mention]..self.starts[mention + 1]
    }
}
