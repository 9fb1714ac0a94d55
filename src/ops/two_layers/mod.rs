//! Two linear layers in one launch, with the layer normalization that may follow them (kernels/two_layers.cu): the layers of
//! [`Mlp`](super::Mlp) and of [`CrossAttention`](super::CrossAttention) on devices, where these are small enough for both weights
//! to stay in a multiprocessor's shared memory, and operands are rounded. Where not, they are products and a normalization of their own.

mod cuda;

pub use cuda::{Ending, Layer, TwoLayers};

use crate::autograd::KernelWork;
use crate::device::cuda::MOST_SHARED;

/// The most parts that inputs consist of.
const PARTS: usize = 3;

/// The widest h and d.
const WIDEST: usize = 128;

/// Rows and columns of what tensor cores multiply at a time. Nothing more is filled up with zeros.
const FRAGMENT: [usize; 2] = [16, 8];

/// Widths of the inputs' parts, of what lies between both layers, and of the outputs.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub widths: Vec<usize>,
    pub h: usize,
    pub d: usize,
}

impl Sizes {
    /// Of inputs, hidden values and outputs that have the same width.
    pub fn square(d: usize) -> Sizes {
        Sizes { widths: vec![d], h: d, d }
    }

    /// Whether the kernel takes layers of these sizes.
    pub fn fit(&self) -> bool {
        let Sizes { widths, h, d } = self;
        let by_fours = widths.iter().chain([h, d]).all(|width| *width > 0 && width.is_multiple_of(4));
        by_fours && widths.len() <= PARTS && *h.max(d) <= WIDEST && self.shared() <= MOST_SHARED
    }

    /// Bytes of both weights in shared memory, where a row is 16 bytes more than a multiple of 32 long.
    fn shared(&self) -> usize {
        let columns = |width: usize| width.next_multiple_of(FRAGMENT[1]);
        let row = |columns: usize| ((columns / 8) | 1) * 16;
        let inputs = self.widths.iter().map(|&width| columns(width)).sum();
        columns(self.h) * row(inputs) + columns(self.d) * row(columns(self.h))
    }

    /// FLOPs of `n` rows, as cusim counts them.
    pub fn work(&self, n: usize, normalized: bool) -> KernelWork {
        let Sizes { widths, h, d } = self;
        let [rows, columns] = FRAGMENT;
        let filled = |width: usize| width.next_multiple_of(columns);
        let inputs: usize = widths.iter().map(|&width| filled(width)).sum();
        let (rows, width) = (n.next_multiple_of(rows), widths.iter().sum::<usize>());
        // Lanes with two neighbours compute with as many that are not there.
        let values = d + if matches!(d % 16, 4 | 8) { d % 16 } else { 0 };
        // Scaled, a bias added (fma). Normalization: the residual, two sums (the second of squares, fma) with the mean taken away
        // between them, each over the four lanes of a row, which divide by d twice, add epsilon and take the root; and at last
        // scaled, then scaled and shifted (fma).
        let of_row = |lanes: usize| 3 * values + 2 * d + lanes * (2 * 2 + 4);
        let normalization = if normalized { rows * of_row(4) + n * 3 * values } else { 0 };
        KernelWork {
            products: (2 * n * (h * width + d * h)) as u64,
            columns: 0,
            tiles: (2 * rows * (filled(*h) * inputs + filled(*d) * filled(*h))) as u64,
            vector: (2 * rows * values + normalization) as u64,
        }
    }
}
