//! Rotary embedding and attention over cached keys and values (kernels/paged_attention_rope.cu, paged_attention_prefill.cu, paged_attention_decode.cu).

use bytemuck::{Pod, Zeroable};

use super::Heads;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Tokens of a page of keys and values.
pub const PAGE: usize = 64;

/// Pages that a block of the decoding kernel takes.
const SPLIT: usize = 2;

/// Queries of a [`Tile`].
const QUERIES: usize = 64;

/// Queries that the decoding kernel takes at a time, so that its partial results stay small.
const AT_ONCE: usize = 64;

/// Keys and values of up to [`PAGE`] tokens at positions `first` to `first + count - 1`; as in kernels/decoder.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Page {
    pub at: Ptr,
    pub first: i32,
    pub count: i32,
}

impl Page {
    /// What fills tables up: it begins beyond any position.
    pub const NONE: Page = Page { at: Ptr::NULL, first: i32::MAX, count: 0 };
}

/// Rows of one sequence that the prefill kernel takes together.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tile {
    sequence: i32,
    first: i32,
    rows: i32,
    position: i32,
}

impl Tile {
    /// The tiles of `rows` rows of a sequence from row `first` of the batch on, whose first has this position.
    pub fn of(sequence: usize, first: usize, rows: usize, position: usize) -> impl Iterator<Item = Tile> {
        (0..rows).step_by(QUERIES).map(move |at| Tile {
            sequence: sequence as i32,
            first: (first + at) as i32,
            rows: QUERIES.min(rows - at) as i32,
            position: (position + at) as i32,
        })
    }
}

/// The sequences of a batch, on the device.
#[derive(Clone, Copy, Debug)]
pub struct Sequences {
    /// Angles (rows, size / 2) as (cos, sin).
    pub angles: Ptr,
    /// Position of each row in its sequence, u32.
    pub positions: Ptr,
    /// Sequence of each row, u32.
    pub numbers: Ptr,
    /// Where each row's keys of the first layer go.
    pub slots: Ptr,
    /// Pages (sequences, stride) in the order of positions, filled up by [`Page::NONE`]; the stride is even.
    pub pages: Ptr,
    pub page_stride: usize,
    /// Tiles of all rows and their number, for the prefill kernel; without any, each row is attended by itself.
    pub tiles: (Ptr, usize),
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Rope {
    qkv: Ptr,
    bias: Ptr,
    angles: Ptr,
    slots: Ptr,
    queries: Ptr,
    layer: i64,
    values: i64,
    heads: i32,
    kv_heads: i32,
    size: i32,
    d: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Prefill {
    queries: Ptr,
    tiles: Ptr,
    pages: Ptr,
    out: Ptr,
    layer: i64,
    values: i64,
    page_stride: i32,
    heads: i32,
    kv_heads: i32,
    size: i32,
    scale: f32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Decode {
    queries: Ptr,
    positions: Ptr,
    sequences: Ptr,
    pages: Ptr,
    partial: Ptr,
    peaks: Ptr,
    out: Ptr,
    layer: i64,
    values: i64,
    page_stride: i32,
    heads: i32,
    kv_heads: i32,
    size: i32,
    d: i32,
    splits: i32,
    scale: f32,
    padding: i32,
}

impl Heads {
    /// Fails if the kernels do not take them.
    pub fn check(&self) -> Result<()> {
        if self.size <= 128 && self.size.is_multiple_of(2) {
            return Ok(());
        }
        let size = self.size;
        Err(Error::invalid(format!("heads of {size} values; the CUDA kernels take 128 at most; use --device cpu")))
    }

    /// Values of a head in queries and pages, those that fill it up included.
    fn d(&self) -> usize {
        if self.size <= 64 { 64 } else { 128 }
    }

    /// Bytes of a page of this many layers.
    pub fn page_bytes(&self, layers: usize) -> usize {
        2 * layers * self.half_page()
    }

    /// Bytes of the keys of one layer in a page, or of its values.
    fn half_page(&self) -> usize {
        self.kv * PAGE * self.d() * self.element.size()
    }

    /// Where a token's keys go in a page, `slot` tokens after its first.
    pub fn slot(&self, page: Ptr, slot: usize) -> Ptr {
        page.offset::<u8>(slot * self.d() * self.element.size())
    }

    /// Where the keys of this layer lie in each page, and how far behind them its values.
    fn layer(&self, number: usize) -> (usize, usize) {
        (2 * number * self.half_page(), self.half_page())
    }

    /// Adds a bias (width) of f32, rotates queries and keys, stores keys and values, and attends causally. `qkv` (n, (queries + 2 kv) · size) of the
    /// heads' element -> context (n, queries · size).
    pub fn attend_pages(
        &self,
        sequences: &Sequences,
        layer: usize,
        qkv: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let width = self.width();
        if qkv.width() != width || qkv.element() != self.element {
            let reason = format!("{:?} rows of {}, need {:?} of {width}", qkv.element(), qkv.width(), self.element);
            return Err(Error::shape("attend", reason));
        }
        let (gpu, n, d, layer) = (qkv.device("attend")?, qkv.count(), self.d(), self.layer(layer));
        let queries = Tensor::chunked(gpu, self.element, [n, self.queries * d])?;
        let args = Rope {
            qkv: qkv.address(),
            bias: bias.map_or(Ptr::NULL, Tensor::ptr),
            angles: sequences.angles,
            slots: sequences.slots,
            queries: queries.address(),
            layer: layer.0 as i64,
            values: layer.1 as i64,
            heads: self.queries as i32,
            kv_heads: self.kv as i32,
            size: self.size as i32,
            d: d as i32,
        };
        let kernel =
            self.element.choose(["paged_attention_rope_f32", "paged_attention_rope_bf16", "paged_attention_rope_f16"]);
        let blocks = [n, self.queries + 2 * self.kv, 1];
        gpu.launch(kernel, Grid { blocks, threads: d as u32 / 2, shared: 0 }, &args)?;
        let out = Tensor::chunked(gpu, self.element, [n, self.queries * self.size])?;
        if sequences.tiles.1 > 0 {
            self.prefill(sequences, layer, (&queries, &out))?;
        } else {
            for first in (0..n).step_by(AT_ONCE) {
                self.decode(sequences, layer, (&queries, &out), (first, AT_ONCE.min(n - first)))?;
            }
        }
        Ok(out)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    fn prefill(&self, sequences: &Sequences, layer: (usize, usize), (queries, out): (&Tensor, &Tensor)) -> Result<()> {
        let kernel = match (self.element, self.d()) {
            (Element::Bf16, 64) => "paged_attention_prefill_bf16_64",
            (Element::Bf16, _) => "paged_attention_prefill_bf16_128",
            (Element::F16, 64) => "paged_attention_prefill_f16_64",
            (Element::F16, _) => "paged_attention_prefill_f16_128",
            (Element::F32, _) => return Err(Error::shape("attend", "tensor cores for f32")),
        };
        let (tiles, count) = sequences.tiles;
        let args = Prefill {
            queries: queries.address(),
            tiles,
            pages: sequences.pages,
            out: out.address(),
            layer: layer.0 as i64,
            values: layer.1 as i64,
            page_stride: sequences.page_stride as i32,
            heads: self.queries as i32,
            kv_heads: self.kv as i32,
            size: self.size as i32,
            scale: self.scale(),
            padding: 0,
        };
        queries.device("attend")?.launch(
            kernel,
            Grid { blocks: [self.queries, count, 1], threads: 128, shared: 0 },
            &args,
        )
    }

    /// Rows from `first` on, `count` of them.
    fn decode(
        &self,
        sequences: &Sequences,
        layer: (usize, usize),
        (queries, out): (&Tensor, &Tensor),
        (first, count): (usize, usize),
    ) -> Result<()> {
        let (gpu, d, splits, group) =
            (queries.device("attend")?, self.d(), sequences.page_stride / SPLIT, self.queries / self.kv);
        let (at_once, kernels) = match group {
            1 => (1, ["paged_attention_decode_f32_1", "paged_attention_decode_bf16_1", "paged_attention_decode_f16_1"]),
            2..=4 => {
                (4, ["paged_attention_decode_f32_4", "paged_attention_decode_bf16_4", "paged_attention_decode_f16_4"])
            }
            _ => (8, ["paged_attention_decode_f32_8", "paged_attention_decode_bf16_8", "paged_attention_decode_f16_8"]),
        };
        let parts = count * self.queries * splits;
        let (partial, peaks) = (gpu.alloc::<f32>("attention", parts * d)?, gpu.alloc::<f32>("attention", parts * 2)?);
        let of_row = |ptr: Ptr, bytes: usize| ptr.offset::<u8>(first * bytes);
        let row = self.queries * self.element.size();
        let args = Decode {
            queries: of_row(queries.address(), row * d),
            positions: of_row(sequences.positions, 4),
            sequences: of_row(sequences.numbers, 4),
            pages: sequences.pages,
            partial: partial.ptr(),
            peaks: peaks.ptr(),
            out: of_row(out.address(), row * self.size),
            layer: layer.0 as i64,
            values: layer.1 as i64,
            page_stride: sequences.page_stride as i32,
            heads: self.queries as i32,
            kv_heads: self.kv as i32,
            size: self.size as i32,
            d: d as i32,
            splits: splits as i32,
            scale: self.scale(),
            padding: 0,
        };
        let blocks = [splits, self.kv * group.div_ceil(at_once), count];
        gpu.launch(self.element.choose(kernels), Grid { blocks, threads: 128, shared: 0 }, &args)?;
        let combine = ["paged_attention_combine_f32", "paged_attention_combine_bf16", "paged_attention_combine_f16"];
        let blocks = [self.queries, count, 1];
        gpu.launch(self.element.choose(combine), Grid { blocks, threads: d as u32 / 2, shared: 0 }, &args)
    }
}
