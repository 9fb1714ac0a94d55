//! What a forward pass of a decoder reads beside weights: on a device most of it in one array.

use bytemuck::{Pod, cast_slice};

use super::{Cache, Heads, Page, Queries, Sequences, Span, Tile};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Pinned, Ptr};
use crate::error::{Error, Result};
use crate::ops::linear::stored::Tokens;
use crate::ops::sample::{self, Draw};
use crate::tensor::Tensor;

/// Tokens of a forward pass, where they stand in their sequences, and where these keep their keys and values.
pub enum Batch {
    Host {
        tokens: Vec<u32>,
        spans: Vec<Span>,
        /// Cosines and sines of each row's angles (n, size of a head / 2).
        turns: Vec<[f32; 2]>,
    },
    Device(Box<Inputs>),
}

impl Batch {
    /// On the host. `spans` cover the tokens in order.
    pub fn new(tokens: &[u32], spans: &[Span], frequencies: &[f32]) -> Batch {
        Batch::Host { tokens: tokens.to_vec(), spans: spans.to_vec(), turns: turns(spans, frequencies) }
    }

    /// What is on a device. Fails if the batch is on the host.
    pub fn inputs(&self) -> Result<&Inputs> {
        match self {
            Batch::Device(inputs) => Ok(inputs),
            Batch::Host { .. } => Err(Error::shape("batch", "lies on the host, needs a device")),
        }
    }

    /// The same for writing.
    pub fn inputs_mut(&mut self) -> Result<&mut Inputs> {
        match self {
            Batch::Device(inputs) => Ok(inputs),
            Batch::Host { .. } => Err(Error::shape("batch", "lies on the host, needs a device")),
        }
    }

    /// Its sizes, if it is on a device.
    pub fn shape(&self) -> Option<Shape> {
        self.inputs().ok().map(|inputs| inputs.shape)
    }

    /// The tokens.
    pub fn tokens(&self) -> Tokens<'_> {
        match self {
            Batch::Host { tokens, .. } => Tokens::Host(tokens),
            Batch::Device(inputs) => Tokens::Device { at: inputs.at(Part::Tokens), count: inputs.shape.rows },
        }
    }
}

/// Positions of all rows in their sequences.
fn positions(spans: &[Span]) -> impl Iterator<Item = usize> {
    spans.iter().flat_map(|span| span.position..span.position + span.rows)
}

/// Cosine and sine of each position times each frequency; the product is rounded to f32, as transformers rounds it.
fn turns(spans: &[Span], frequencies: &[f32]) -> Vec<[f32; 2]> {
    let turn = |p: usize| frequencies.iter().map(move |f| [(p as f32 * f).cos(), (p as f32 * f).sin()]);
    positions(spans).flat_map(turn).collect()
}

/// Sizes of the inputs: passes of the same shape run the same kernels with the same arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of all sequences.
    pub rows: usize,
    sequences: usize,
    /// Pages that the table has of each sequence: a power of two, which a growing sequence seldom outgrows.
    stride: usize,
    /// Tiles for the prefill kernel, if it is to run.
    tiles: usize,
}

/// The inputs of a forward pass on a device.
pub struct Inputs {
    /// The parts, one after the other.
    bytes: DeviceBuffer<u8>,
    exchange: Option<Exchange>,
    /// Zeros that the attention of single rows counts with.
    counts: DeviceBuffer<u32>,
    shape: Shape,
    /// Angles of a row.
    angles: usize,
}

/// Page-locked memory of the host's: a step that is recorded finds its inputs there, and leaves there what it chooses.
struct Exchange {
    inputs: Pinned<u8>,
    chosen: Pinned<u32>,
}

impl Shape {
    /// For these spans; `single` if each row is to be attended by itself.
    pub fn of(spans: &[Span], caches: &[&mut Cache], single: bool) -> Shape {
        let pages = caches.iter().map(|cache| cache.pages().len()).max().unwrap_or(0);
        Shape {
            rows: spans.iter().map(|span| span.rows).sum(),
            sequences: spans.len(),
            stride: pages.next_power_of_two().max(2),
            tiles: if single { 0 } else { tiles(spans).count() },
        }
    }

    /// Whether each sequence has one row, attended by itself.
    pub fn is_step(&self) -> bool {
        self.tiles == 0 && self.rows == self.sequences
    }

    /// Bytes of each part; what is aligned to more stands first.
    fn sizes(&self, angles: usize) -> [usize; 8] {
        let Shape { rows, sequences, stride, tiles } = *self;
        let (pages, tiles) = (sequences * stride * size_of::<Page>(), tiles * size_of::<Tile>());
        let draws = if self.is_step() { rows * size_of::<Draw>() } else { 0 };
        [pages, tiles, draws, rows * 8, rows * angles * 8, rows * 4, rows * 4, rows * 4]
    }

    fn place(&self, angles: usize, part: Part) -> usize {
        self.sizes(angles)[..part as usize].iter().sum()
    }
}

/// In the order in which they lie.
#[derive(Clone, Copy)]
enum Part {
    Pages,
    Tiles,
    /// How each row's next token is chosen.
    Draws,
    Slots,
    Angles,
    Positions,
    Numbers,
    Tokens,
}

fn tiles(spans: &[Span]) -> impl Iterator<Item = Tile> {
    let of = |(number, span): (usize, &Span)| Tile::of(number, span.start, span.rows, span.position);
    spans.iter().enumerate().flat_map(of)
}

impl Inputs {
    /// Memory for those of passes of this shape, with these heads.
    pub fn alloc(gpu: &Gpu, shape: Shape, heads: &Heads) -> Result<Inputs> {
        let angles = heads.size / 2;
        let bytes = gpu.alloc("positions and pages", shape.sizes(angles).iter().sum())?;
        let counts = gpu.zeros("attention", heads.counts())?;
        Ok(Inputs { bytes, exchange: None, counts, shape, angles })
    }

    /// The same for steps that are recorded: what is written reaches the device by [`Inputs::send`].
    pub fn exchanging(self) -> Result<Inputs> {
        let gpu = self.bytes.gpu();
        let exchange = Exchange { inputs: gpu.pinned(self.bytes.len())?, chosen: gpu.pinned(self.shape.rows)? };
        Ok(Inputs { exchange: Some(exchange), ..self })
    }

    /// Whether a step can be recorded that works on them.
    pub fn are_exchanged(&self) -> bool {
        self.exchange.is_some()
    }

    /// Writes those of a pass, of the same shape as before.
    pub fn write(&mut self, tokens: &[u32], spans: &[Span], caches: &[&mut Cache], frequencies: &[f32]) -> Result<()> {
        if !caches.iter().all(|cache| cache.on_device()) {
            return Err(Error::shape("attention", "keys and values lie on the host"));
        }
        let mut all = Vec::with_capacity(self.bytes.len());
        for cache in caches {
            let mut pages = cache.pages();
            pages.resize(self.shape.stride, Page::NONE);
            put(&mut all, &pages);
        }
        if self.shape.tiles > 0 {
            put(&mut all, &tiles(spans).collect::<Vec<_>>());
        }
        let own = |(span, cache): (&Span, &&mut Cache)| -> Vec<Ptr> {
            (span.position..span.position + span.rows).map(|position| cache.slot(position)).collect()
        };
        if self.shape.is_step() {
            put(&mut all, &vec![Draw::LIKELIEST; self.shape.rows]);
        }
        put(&mut all, &spans.iter().zip(caches).flat_map(own).collect::<Vec<Ptr>>());
        put(&mut all, &turns(spans, frequencies));
        put(&mut all, &positions(spans).map(|position| position as u32).collect::<Vec<_>>());
        let number = |(number, span): (usize, &Span)| std::iter::repeat_n(number as u32, span.rows);
        put(&mut all, &spans.iter().enumerate().flat_map(number).collect::<Vec<u32>>());
        put(&mut all, tokens);
        match &self.exchange {
            Some(exchange) => exchange.inputs.with(|inputs| inputs.copy_from_slice(&all)),
            None => self.bytes.write(0, &all),
        }
    }

    /// Writes how each row's next token is chosen, after all else: until then it is the likeliest.
    pub fn set_draws(&self, draws: &[Draw]) -> Result<()> {
        if draws.iter().all(|draw| *draw == Draw::LIKELIEST) {
            return Ok(());
        }
        let place = self.shape.place(self.angles, Part::Draws);
        let values: &[u8] = cast_slice(draws);
        self.exchange()?.inputs.with(|inputs| inputs[place..place + values.len()].copy_from_slice(values))
    }

    /// Queues the copy of what was written, where it is not on the device already.
    pub fn send(&self) -> Result<()> {
        self.exchange.as_ref().map_or(Ok(()), |exchange| exchange.inputs.copy_to(&self.bytes))
    }

    /// Queues the choice of each row's next token.
    pub fn choose(&self, logits: &Tensor) -> Result<()> {
        sample::choose_there(logits, self.at(Part::Draws), self.exchange()?.chosen.ptr(), self.shape.rows)
    }

    /// The tokens that were chosen, once they are.
    pub fn chosen(&self) -> Result<Vec<u32>> {
        self.exchange()?.chosen.with(|tokens| tokens.to_vec())
    }

    fn exchange(&self) -> Result<&Exchange> {
        self.exchange.as_ref().ok_or_else(|| Error::shape("batch", "tokens of a pass that is not recorded"))
    }

    fn at(&self, part: Part) -> Ptr {
        self.bytes.ptr().offset::<u8>(self.shape.place(self.angles, part))
    }

    /// What attention reads.
    pub(super) fn sequences(&self) -> Sequences {
        Sequences {
            angles: self.at(Part::Angles),
            positions: self.at(Part::Positions),
            numbers: self.at(Part::Numbers),
            slots: self.at(Part::Slots),
            pages: self.at(Part::Pages),
            page_stride: self.shape.stride,
            counts: self.counts.ptr(),
            queries: match self.shape.tiles {
                0 if self.shape.is_step() => Queries::Step,
                0 => Queries::Single,
                tiles => Queries::Tiles(self.at(Part::Tiles), tiles),
            },
        }
    }
}

fn put<T: Pod>(all: &mut Vec<u8>, values: &[T]) {
    all.extend_from_slice(cast_slice(values));
}
