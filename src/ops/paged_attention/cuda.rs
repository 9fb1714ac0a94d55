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
    /// Zeros for [`Heads::counts`] of rows attended by themselves.
    pub counts: Ptr,
    /// How their rows are attended.
    pub queries: Queries,
}

/// How rows of queries are attended.
#[derive(Clone, Copy, Debug)]
pub enum Queries {
    /// The tiles of all rows and their number, for the prefill kernel.
    Tiles(Ptr, usize),
    /// Each row by itself, any number of each sequence; in f32.
    Single,
    /// Each row by itself, one of each sequence: turned and stored by the kernel that attends.
    Step,
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
    rope: Rope,
    positions: Ptr,
    sequences: Ptr,
    pages: Ptr,
    partial: Ptr,
    peaks: Ptr,
    ended: Ptr,
    out: Ptr,
    page_stride: i32,
    splits: i32,
    scale: f32,
    padding: i32,
}

impl Rope {
    /// The same of the rows behind so many.
    fn behind(self, heads: &Heads, row: usize) -> Rope {
        let bytes = heads.element.size();
        Rope {
            qkv: self.qkv.offset::<u8>(row * heads.width() * bytes),
            angles: self.angles.offset::<[f32; 2]>(row * heads.size / 2),
            slots: self.slots.offset::<Ptr>(row),
            queries: match self.queries {
                Ptr::NULL => Ptr::NULL,
                queries => queries.offset::<u8>(row * heads.queries * heads.d() * bytes),
            },
            ..self
        }
    }
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
        // A step's kernel turns them where it needs them.
        let queries = match sequences.queries {
            Queries::Step => None,
            _ => Some(Tensor::chunked(gpu, self.element, [n, self.queries * d])?),
        };
        let rope = Rope {
            qkv: qkv.address(),
            bias: bias.map_or(Ptr::NULL, Tensor::ptr),
            angles: sequences.angles,
            slots: sequences.slots,
            queries: queries.as_ref().map_or(Ptr::NULL, Tensor::address),
            layer: layer.0 as i64,
            values: layer.1 as i64,
            heads: self.queries as i32,
            kv_heads: self.kv as i32,
            size: self.size as i32,
            d: d as i32,
        };
        if queries.is_some() {
            let kernel = self.element.choose([
                "paged_attention_rope_f32",
                "paged_attention_rope_bf16",
                "paged_attention_rope_f16",
            ]);
            let blocks = [n, self.queries + 2 * self.kv, 1];
            gpu.launch(kernel, Grid { blocks, threads: d as u32 / 2, shared: 0 }, &rope)?;
        }
        let out = Tensor::chunked(gpu, self.element, [n, self.queries * self.size])?;
        match sequences.queries {
            Queries::Tiles(tiles, count) => self.prefill(sequences, &rope, (tiles, count), &out)?,
            Queries::Single | Queries::Step => {
                for first in (0..n).step_by(AT_ONCE) {
                    self.decode(sequences, &rope, &out, (first, AT_ONCE.min(n - first)))?;
                }
            }
        }
        Ok(out)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    fn prefill(&self, sequences: &Sequences, rope: &Rope, (tiles, count): (Ptr, usize), out: &Tensor) -> Result<()> {
        let kernel = match (self.element, self.d()) {
            (Element::Bf16, 64) => "paged_attention_prefill_bf16_64",
            (Element::Bf16, _) => "paged_attention_prefill_bf16_128",
            (Element::F16, 64) => "paged_attention_prefill_f16_64",
            (Element::F16, _) => "paged_attention_prefill_f16_128",
            (Element::F32, _) => return Err(Error::shape("attend", "tensor cores for f32")),
        };
        let args = Prefill {
            queries: rope.queries,
            tiles,
            pages: sequences.pages,
            out: out.address(),
            layer: rope.layer,
            values: rope.values,
            page_stride: sequences.page_stride as i32,
            heads: self.queries as i32,
            kv_heads: self.kv as i32,
            size: self.size as i32,
            scale: self.scale(),
            padding: 0,
        };
        let blocks = [self.queries, count, 1];
        out.device("attend")?.launch(kernel, Grid { blocks, threads: 128, shared: 0 }, &args)
    }

    /// Query heads that a block of the decoding kernels takes, and how many blocks the heads of a row are.
    fn groups(&self) -> (usize, usize) {
        let group = self.queries / self.kv;
        let at_once = match group {
            1 => 1,
            2..=4 => 4,
            _ => 8,
        };
        (at_once, self.kv * group.div_ceil(at_once))
    }

    /// Numbers that a launch of the decoding kernels counts with, whatever its rows; zeros before and behind it.
    pub fn counts(&self) -> usize {
        AT_ONCE * self.groups().1
    }

    /// Rows from `first` on, `count` of them.
    fn decode(&self, sequences: &Sequences, rope: &Rope, out: &Tensor, (first, count): (usize, usize)) -> Result<()> {
        let (gpu, d, splits) = (out.device("attend")?, self.d(), sequences.page_stride / SPLIT);
        let (at_once, groups) = self.groups();
        macro_rules! kernels {
            ($name:literal) => {
                [
                    concat!("paged_attention_", $name, "_1"),
                    concat!("paged_attention_", $name, "_4"),
                    concat!("paged_attention_", $name, "_8"),
                ]
            };
        }
        let kernels = match (sequences.queries, self.element) {
            (Queries::Step, element) => {
                element.choose([kernels!("step_f32"), kernels!("step_bf16"), kernels!("step_f16")])
            }
            (_, Element::F32) => kernels!("decode_f32"),
            (_, element) => {
                return Err(Error::shape("attend", format!("rows of {element:?} one by one, several of a sequence")));
            }
        };
        let kernel = match at_once {
            1 => kernels[0],
            4 => kernels[1],
            _ => kernels[2],
        };
        let parts = count * self.queries * splits;
        let (partial, peaks) = (gpu.alloc::<f32>("attention", parts * d)?, gpu.alloc::<f32>("attention", parts * 2)?);
        let args = Decode {
            rope: rope.behind(self, first),
            positions: sequences.positions.offset::<u32>(first),
            sequences: sequences.numbers.offset::<u32>(first),
            pages: sequences.pages,
            partial: partial.ptr(),
            peaks: peaks.ptr(),
            ended: sequences.counts,
            out: out.address().offset::<u8>(first * self.queries * self.size * self.element.size()),
            page_stride: sequences.page_stride as i32,
            splits: splits as i32,
            scale: self.scale(),
            padding: 0,
        };
        gpu.launch(kernel, Grid { blocks: [splits, groups, count], threads: 128, shared: 0 }, &args)
    }
}
