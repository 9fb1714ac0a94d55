//! Copies and fills of rows, in two and three dimensions.

use std::ffi::{c_uint, c_void};

use super::{api, put};
use crate::driver::code::{Code, INVALID_VALUE, NOT_SUPPORTED};
use crate::driver::rows::{Extent, RowCopy, Rows};
use crate::driver::work::Place;
use crate::driver::{Driver, say, with};
use crate::mem::{ALIGNMENT, AllocationKind};

/// One end of a `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct End2D {
    x: usize,
    y: usize,
    kind: c_uint,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy2D {
    from: End2D,
    to: End2D,
    width: usize,
    height: usize,
}

/// One end of a `CUDA_MEMCPY3D`, or of a `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct End3D {
    x: usize,
    y: usize,
    z: usize,
    level: usize,
    kind: c_uint,
    host: u64,
    device: u64,
    array: u64,
    context: u64,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D`, and `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy3D {
    from: End3D,
    to: End3D,
    width: usize,
    height: usize,
    depth: usize,
}

/// `CUmemorytype`.
mod kind {
    pub const HOST: u32 = 1;
    pub const DEVICE: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const UNIFIED: u32 = 4;
}

impl From<End2D> for End3D {
    fn from(end: End2D) -> Self {
        let End2D { x, y, kind, host, device, array, pitch } = end;
        Self { x, y, z: 0, level: 0, kind, host, device, array, context: 0, pitch, height: 0 }
    }
}

impl From<Copy2D> for Copy3D {
    fn from(copy: Copy2D) -> Self {
        let Copy2D { from, to, width, height } = copy;
        Self { from: from.into(), to: to.into(), width, height, depth: 1 }
    }
}

impl End3D {
    /// Where the rows lie.
    fn rows(&self, d: &Driver, extent: Extent, call: &str) -> Result<Rows, Code> {
        let place = |address| if d.is_known(address) { Place::Device(address) } else { Place::Host(address) };
        let start = match self.kind {
            kind::HOST => place(self.host),
            kind::DEVICE => Place::Device(self.device),
            kind::UNIFIED => place(self.device),
            kind::ARRAY => {
                say(&format!("{call}: arrays are not supported"));
                return Err(NOT_SUPPORTED);
            }
            _ => return Err(INVALID_VALUE),
        };
        let [x, y, z, pitch, height] = [self.x, self.y, self.z, self.pitch, self.height].map(|size| size as u64);
        let slice = pitch.saturating_mul(height);
        let too_narrow = (extent.height > 1 || y > 0) && pitch < x.saturating_add(extent.width);
        let too_low = (extent.depth > 1 || z > 0) && height < y.saturating_add(extent.height);
        if too_narrow || too_low {
            say(&format!("{call}: rows or slices overlap: pitch {pitch}, height {height}"));
            return Err(INVALID_VALUE);
        }
        let first = z.saturating_mul(slice).saturating_add(y.saturating_mul(pitch)).saturating_add(x);
        let address = start.address().wrapping_add(first);
        let start = match start {
            Place::Device(_) => Place::Device(address),
            Place::Host(_) => Place::Host(address),
        };
        Ok(Rows { start, pitch, slice })
    }
}

/// Copies rows: now, or in a stream.
fn copy(shape: Copy3D, stream: Option<u64>, call: &'static str) -> Result<(), Code> {
    with(|d| {
        d.healthy()?;
        let handle = d.resolve_stream(stream.unwrap_or(0))?;
        if stream.is_none() {
            d.refuse_unsafe()?;
        }
        let extent = Extent { width: shape.width as u64, height: shape.height as u64, depth: shape.depth as u64 };
        let (to, from) = (shape.to.rows(d, extent, call)?, shape.from.rows(d, extent, call)?);
        d.submit_rows(handle, RowCopy { to, from, extent, call, data: vec![] }, stream.is_none())
    })
}

/// Copies what a structure of the caller says.
///
/// # Safety
/// The pointer must be null or valid.
unsafe fn copy_at<T: Copy + Into<Copy3D>>(
    shape: *const T,
    stream: Option<u64>,
    call: &'static str,
) -> Result<(), Code> {
    if shape.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so valid by the caller's promise.
    copy(unsafe { *shape }.into(), stream, call)
}

/// The same between contexts, which must be there.
///
/// # Safety
/// The pointer must be null or valid.
unsafe fn copy_between(shape: *const Copy3D, stream: Option<u64>, call: &'static str) -> Result<(), Code> {
    if shape.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so valid by the caller's promise.
    let shape = unsafe { *shape };
    for end in [shape.from, shape.to] {
        if end.kind == kind::DEVICE {
            with(|d| d.contexts.get(end.context).map(|_| ()))?;
        }
    }
    copy(shape, stream, call)
}

/// Fills rows: now, or in a stream.
fn fill(
    to: u64,
    pitch: usize,
    value: u32,
    width: u64,
    [count, rows]: [usize; 2],
    stream: Option<u64>,
) -> Result<(), Code> {
    with(|d| {
        d.healthy()?;
        let handle = d.resolve_stream(stream.unwrap_or(0))?;
        if stream.is_none() {
            d.refuse_unsafe()?;
        }
        d.submit_fill(handle, to, pitch as u64, value, width, count as u64, rows as u64)
    })
}

api! {
    /// Allocates rows so that each begins at an aligned address.
    fn cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, element: c_uint) {
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 || address.is_null() || pitch.is_null() {
            return Err(INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(ALIGNMENT as usize).ok_or(INVALID_VALUE)?;
        let bytes = row.checked_mul(height).ok_or(INVALID_VALUE)?;
        let start = with(|d| {
            d.refuse_unsafe()?;
            d.allocate(bytes as u64, AllocationKind::Device, "cuMemAllocPitch")
        })?;
        // SAFETY: the caller gives valid pointers.
        unsafe {
            put(address, start)?;
            put(pitch, row)
        }
    }

    /// Copies rows.
    fn cuMemcpy2D_v2(shape: *const Copy2D) {
        // SAFETY: as for this function.
        unsafe { copy_at(shape, None, "cuMemcpy2D") }
    }

    /// Copies rows at any pitch.
    fn cuMemcpy2DUnaligned_v2(shape: *const Copy2D) {
        // SAFETY: as for this function.
        unsafe { copy_at(shape, None, "cuMemcpy2DUnaligned") }
    }

    /// Copies rows in stream order.
    fn cuMemcpy2DAsync_v2(shape: *const Copy2D, stream: u64) {
        // SAFETY: as for this function.
        unsafe { copy_at(shape, Some(stream), "cuMemcpy2DAsync") }
    }

    /// Copies slices of rows.
    fn cuMemcpy3D_v2(shape: *const Copy3D) {
        // SAFETY: as for this function.
        unsafe { copy_at(shape, None, "cuMemcpy3D") }
    }

    /// Copies slices of rows in stream order.
    fn cuMemcpy3DAsync_v2(shape: *const Copy3D, stream: u64) {
        // SAFETY: as for this function.
        unsafe { copy_at(shape, Some(stream), "cuMemcpy3DAsync") }
    }

    /// Copies slices of rows between contexts.
    fn cuMemcpy3DPeer(shape: *const Copy3D) {
        // SAFETY: as for this function.
        unsafe { copy_between(shape, None, "cuMemcpy3DPeer") }
    }

    /// Copies slices of rows between contexts in stream order.
    fn cuMemcpy3DPeerAsync(shape: *const Copy3D, stream: u64) {
        // SAFETY: as for this function.
        unsafe { copy_between(shape, Some(stream), "cuMemcpy3DPeerAsync") }
    }

    /// Fills rows with a byte.
    fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill(to, pitch, value.into(), 1, [width, height], None)
    }

    /// Fills rows with two bytes.
    fn cuMemsetD2D16_v2(to: u64, pitch: usize, value: u16, width: usize, height: usize) {
        fill(to, pitch, value.into(), 2, [width, height], None)
    }

    /// Fills rows with four bytes.
    fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: c_uint, width: usize, height: usize) {
        fill(to, pitch, value, 4, [width, height], None)
    }

    /// Fills rows with a byte in stream order.
    fn cuMemsetD2D8Async(to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64) {
        fill(to, pitch, value.into(), 1, [width, height], Some(stream))
    }

    /// Fills rows with two bytes in stream order.
    fn cuMemsetD2D16Async(to: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64) {
        fill(to, pitch, value.into(), 2, [width, height], Some(stream))
    }

    /// Fills rows with four bytes in stream order.
    fn cuMemsetD2D32Async(to: u64, pitch: usize, value: c_uint, width: usize, height: usize, stream: u64) {
        fill(to, pitch, value, 4, [width, height], Some(stream))
    }

    /// Lets kernels and copies reach memory of the host that the driver did not allocate.
    fn cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: c_uint) {
        if pointer.is_null() || bytes == 0 || flags > 15 {
            return Err(INVALID_VALUE);
        }
        with(|d| d.register_host(pointer as u64, bytes as u64, flags))
    }

    /// Ends what `cuMemHostRegister` began.
    fn cuMemHostUnregister(pointer: *mut c_void) {
        with(|d| d.unregister_host(pointer as u64))
    }

    /// The flags that pinned or registered memory was made with.
    fn cuMemHostGetFlags(flags: *mut c_uint, pointer: *mut c_void) {
        let found = with(|d| d.host_flags(pointer as u64))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(flags, found) }
    }
}
