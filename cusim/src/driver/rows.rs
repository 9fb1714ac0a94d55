//! Copies and fills of rows with gaps between them, in two and three dimensions.

use std::sync::Arc;

use super::code::*;
use super::work::{Place, Work};
use super::{Driver, say};

/// Rows of memory: where the first one begins, and how far apart rows and slices of rows are.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The first row.
    pub start: Place,
    /// Bytes from one row to the next.
    pub pitch: u64,
    /// Bytes from one slice to the next.
    pub slice: u64,
}

/// How much is copied: bytes of a row, rows of a slice, slices.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Bytes of a row.
    pub width: u64,
    /// Rows of a slice.
    pub height: u64,
    /// Slices.
    pub depth: u64,
}

/// A copy of rows.
pub struct RowCopy {
    /// To here.
    pub to: Rows,
    /// From here.
    pub from: Rows,
    /// How much.
    pub extent: Extent,
    /// The call, for messages.
    pub call: &'static str,
    /// What `from` names, where that was taken from the host when the call was made.
    pub data: Vec<u8>,
}

impl Place {
    /// The address.
    pub fn address(self) -> u64 {
        match self {
            Self::Device(address) | Self::Host(address) => address,
        }
    }

    /// The place so many bytes on.
    fn after(self, bytes: u64) -> Self {
        match self {
            Self::Device(address) => Self::Device(address.wrapping_add(bytes)),
            Self::Host(address) => Self::Host(address.wrapping_add(bytes)),
        }
    }
}

impl Extent {
    /// Whether there is nothing to copy.
    pub fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Rows and their slices.
    fn rows(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.depth).flat_map(move |slice| (0..self.height).map(move |row| (row, slice)))
    }
}

impl Rows {
    fn row(self, row: u64, slice: u64) -> Place {
        self.start.after(row.wrapping_mul(self.pitch).wrapping_add(slice.wrapping_mul(self.slice)))
    }

    /// Bytes from the first to the last.
    fn span(self, extent: Extent) -> u64 {
        let slices = (extent.depth - 1).saturating_mul(self.slice);
        (extent.height - 1).saturating_mul(self.pitch).saturating_add(slices).saturating_add(extent.width)
    }
}

impl Driver {
    /// Fails where an end lies outside of its allocation, gaps included.
    fn check_rows(&mut self, rows: Rows, extent: Extent, call: &str, verb: &str) -> Result<(), Code> {
        match rows.start {
            Place::Device(address) => self.check_range(address, rows.span(extent), call, verb),
            Place::Host(0) => Err(INVALID_VALUE),
            Place::Host(_) => Ok(()),
        }
    }

    /// Copies rows in a stream. If `waits`, or into pageable memory, the call waits until that is done; pageable memory is read
    /// before the call returns, except that a graph reads it when it runs.
    pub fn submit_rows(&mut self, stream: u64, mut copy: RowCopy, waits: bool) -> Result<(), Code> {
        let (extent, call) = (copy.extent, copy.call);
        if extent.is_empty() {
            return Ok(());
        }
        self.check_rows(copy.from, extent, call, "reads")?;
        self.check_rows(copy.to, extent, call, "writes")?;
        let captured = self.streams.get(stream)?.capture.is_some();
        if !captured && !waits && matches!((copy.to.start, copy.from.start), (Place::Device(_), Place::Host(_))) {
            let from = copy.from;
            for (row, slice) in extent.rows() {
                let start = from.row(row, slice).address() as *const u8;
                // SAFETY: the caller promises that the source is valid.
                copy.data.extend_from_slice(unsafe { std::slice::from_raw_parts(start, extent.width as usize) });
            }
            let start = Place::Host(copy.data.as_ptr() as u64);
            copy.from = Rows { start, pitch: extent.width, slice: extent.width * extent.height };
        }
        let into_host = matches!(copy.to.start, Place::Host(_)) && !captured;
        let work = Work::CopyRows(Arc::new(copy));
        if waits || into_host { self.submit_and_finish(stream, work) } else { self.submit(stream, work) }
    }

    /// Copies rows.
    pub(super) fn copy_rows(&mut self, copy: &RowCopy) -> Result<(), Code> {
        self.check_rows(copy.from, copy.extent, copy.call, "reads")?;
        self.check_rows(copy.to, copy.extent, copy.call, "writes")?;
        let mut rows = copy.extent.rows();
        rows.try_for_each(|(row, slice)| {
            self.copy(copy.to.row(row, slice), copy.from.row(row, slice), copy.extent.width, copy.call)
        })
    }

    /// Fills `rows` rows of `count` elements of `width` bytes in a stream.
    #[allow(clippy::too_many_arguments, reason = "these are the arguments of cuMemsetD2D8Async")]
    pub fn submit_fill(
        &mut self,
        stream: u64,
        to: u64,
        pitch: u64,
        value: u32,
        width: u64,
        count: u64,
        rows: u64,
    ) -> Result<(), Code> {
        let bytes = width.saturating_mul(count);
        if !to.is_multiple_of(width) || !pitch.is_multiple_of(width) || rows > 1 && pitch < bytes {
            say(&format!("cuMemset: rows of {count} elements of {width} bytes at {to:#x}, {pitch} bytes apart"));
            return Err(INVALID_VALUE);
        }
        let extent = Extent { width: bytes, height: rows, depth: 1 };
        if !extent.is_empty() {
            let span = Rows { start: Place::Device(to), pitch, slice: 0 }.span(extent);
            self.check_range(to, span, "cuMemset", "writes")?;
        }
        self.submit(stream, Work::Fill { to, pitch, value, width, count, rows })
    }
}
