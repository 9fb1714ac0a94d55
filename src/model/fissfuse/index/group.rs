//! Several mentions, laid out so that they are scored against the same entities by products of matrices.

use super::attention::Finish;
use super::prepared::{PreparedMention, PreparedModality};
use crate::device::cpu::Buffer;
use crate::device::cpu::vector::LANES;
use crate::error::Result;
use crate::model::ScoreKind;
use crate::ops::cross_attention::{Lanes, lanes_pay};
use crate::ops::matmul::{Mat, matmul};

/// Fewest mentions that are worth a lane each, of which some may be empty.
const FULL_ENOUGH: usize = LANES / 2;

/// Mentions that are scored together, [`LANES`] at most.
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
    /// The same side by side, a lane for each mention (heads, stride), if there are enough.
    pub lanes: Option<Vec<Lanes>>,
    /// The width d as [`attend_together`] wants it.
    ///
    /// [`attend_together`]: crate::ops::cross_attention::attend_together
    pub stride: usize,
    /// Eq. 6's layers of each row (rows, width), of each head: an entity's attended vector is a weighted sum of these.
    pub values: Vec<Buffer>,
    /// What is added to each mention's attended vectors (mentions, width).
    pub residuals: Buffer,
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
        let (heads, stride) = (finish.layers.folded.len(), d.next_multiple_of(LANES));
        let (mut starts, mut rows, mut of, mut queries) = (vec![0], Vec::new(), Vec::new(), Vec::new());
        for (modality, item) in mentions {
            of.extend_from_slice(&modality.logits.data()[item * heads * d..][..heads * d]);
            queries.extend_from_slice(&modality.queries.data()[item * d..][..d]);
            let range = modality.sequences.range(item);
            rows.extend_from_slice(&modality.tokens.data()[range.start * d..range.end * d]);
            starts.push(rows.len() / d);
        }
        let mut logits = Buffer::zeros(of.len() / d * stride);
        logits.chunks_exact_mut(stride).zip(of.chunks_exact(d)).for_each(|(to, from)| to[..d].copy_from_slice(from));
        let mentions = starts.len() - 1;
        let lanes = (mentions >= FULL_ENOUGH && lanes_pay()).then(|| {
            let value = |at: usize, mention: usize| logits.get(mention * heads * stride + at).copied().unwrap_or(0.0);
            (0..heads * stride).map(|at| std::array::from_fn(|mention| value(at, mention))).collect()
        });
        let count = rows.len() / d;
        let width = count.max(2);
        let mut columns = Buffer::zeros(d * width);
        let mat = Mat::new(&rows, count, d);
        for (j, column) in columns.chunks_exact_mut(width).enumerate() {
            column.iter_mut().take(count).enumerate().for_each(|(row, x)| *x = mat.at(row, j));
        }
        // Two rows at least, as above.
        rows.resize(width * d, 0.0);
        let values = finish.entity.weights.iter().map(|weights| {
            let outputs = finish.entity.width();
            let mut values = Buffer::scratch(width * outputs);
            matmul(&mut values, outputs, 0.0, 1.0, Mat::new(&rows, width, d), Mat::new(weights, d, outputs))?;
            Ok(values)
        });
        let values = values.collect::<Result<_>>()?;
        let residuals = finish.mention.residuals(&queries)?;
        Ok(GroupedModality { starts, columns, width, logits, lanes, stride, values, residuals })
    }

    /// Rows of a mention.
    pub fn rows(&self, mention: usize) -> std::ops::Range<usize> {
        self.starts[mention]..self.starts[mention + 1]
    }
}
