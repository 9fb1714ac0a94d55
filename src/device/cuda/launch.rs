//! The one place that launches kernels.

use bytemuck::{Pod, Zeroable, bytes_of};
use cudarc::driver::{CudaStream, result, sys};

use super::Gpu;
use super::early::launch_early;
use super::kernel_times::DELAY_KERNEL;
use super::modules::Kernel;
use crate::error::{Error, Result};

/// Bytes of shared memory that a block has at most on every device, its kernel's own among them.
pub const MOST_SHARED: usize = 99 << 10;

/// Of which a launch has to ask for more than these.
const UNASKED_SHARED: usize = 48 << 10;

/// A place in a device's memory, as kernels take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ptr(pub(super) u64);

impl Ptr {
    /// No place: an argument that is left out.
    pub const NULL: Ptr = Ptr(0);

    /// The place `count` values of `T` further on.
    pub fn offset<T>(self, count: usize) -> Ptr {
        Ptr(self.0 + (count * size_of::<T>()) as u64)
    }

    /// Whether its address is a multiple of so many bytes.
    pub fn is_aligned_to(self, bytes: u64) -> bool {
        self.0.is_multiple_of(bytes)
    }
}

/// Where a kernel puts a sum: added to what is there, or as the first, in memory that holds nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The place.
    pub at: Ptr,
    /// Whether something is there.
    pub adds: bool,
}

impl Target {
    /// A sum that nobody wants.
    pub const NULL: Target = Target { at: Ptr::NULL, adds: false };

    /// Whether nobody wants it.
    pub fn is_null(self) -> bool {
        self.at == Ptr::NULL
    }
}

/// Blocks, threads of a block, and dynamic shared memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub blocks: [usize; 3],
    pub threads: u32,
    pub shared: u32,
}

impl Grid {
    /// `blocks` blocks in a row.
    pub fn line(blocks: usize, threads: u32) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// Enough blocks of `threads` for `count` values, one per thread.
    pub fn values(count: usize, threads: u32) -> Grid {
        Grid::line(count.div_ceil(threads as usize), threads)
    }

    /// Blocks and threads as the driver takes them.
    pub(super) fn extents(self) -> [(u32, u32, u32); 2] {
        let [x, y, z] = self.blocks.map(|extent| extent as u32);
        [(x, y, z), (self.threads, 1, 1)]
    }

    /// Enough blocks of four warps for `count` pieces of work, one per warp.
    pub fn warps(count: usize) -> Grid {
        Grid::line(count.div_ceil(4), 128)
    }
}

impl Gpu {
    /// Queues a kernel. `args` is the struct that the kernel takes, field by field; buffers that it points to stay
    /// allocated until it is done, since memory is given back in the stream's order.
    pub fn launch<A: Pod>(&self, kernel: &'static str, grid: Grid, args: &A) -> Result<()> {
        self.launch_bytes(kernel, grid, bytes_of(args))
    }

    /// The same with the bytes of the struct.
    pub(super) fn launch_bytes(&self, kernel: &'static str, grid: Grid, args: &[u8]) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let Some(Kernel { function, early, .. }) = self.ready(kernel, grid, args)? else { return Ok(()) };
        let measured = kernel != DELAY_KERNEL && self.0.timed.is_wanted();
        // A time is that of one kernel alone.
        let early = *early && !measured;
        let launch = || {
            let mut params = [args.as_ptr().cast_mut().cast()];
            let [blocks, threads] = grid.extents();
            let stream = self.turn();
            // SAFETY: every kernel takes one struct by value, which has as many bytes and whose layout they mirror (Pod: no
            // hidden padding); the driver copies it before the call returns and only reads it. That the kernel stays within
            // the buffers it is given is what the tests under cusim check, and that one which begins early waits.
            unsafe {
                match early {
                    true => launch_early(function, grid, &stream, &mut params),
                    false => {
                        let (stream, function) = (stream.cu_stream(), function.cu_function());
                        result::launch_kernel(function, blocks, threads, grid.shared, stream, &mut params)
                    }
                }
            }
            .map_err(|e| self.launch_failed(kernel, grid, super::explain(e)))
        };
        match measured {
            true => self.time_launch(kernel, grid, function, launch),
            false => launch(),
        }
    }

    /// Queues a kernel whose blocks wait for each other, on another stream than all others. Fails if the device has no room for
    /// all of them at once.
    pub(super) fn launch_together(
        &self,
        stream: &CudaStream,
        kernel: &'static str,
        grid: Grid,
        args: &[u8],
    ) -> Result<()> {
        let Some(Kernel { function, .. }) = self.ready(kernel, grid, args)? else { return Ok(()) };
        let mut params = [args.as_ptr().cast_mut().cast()];
        let [blocks, threads] = grid.extents();
        // SAFETY: as above; what it works on outlives it, as whoever waits for the stream sees to.
        let launched = unsafe {
            let (stream, function) = (stream.cu_stream(), function.cu_function());
            result::launch_cooperative_kernel(function, blocks, threads, grid.shared, stream, &mut params)
        };
        launched.map_err(|e| self.launch_failed(kernel, grid, super::explain(e)))
    }

    /// A kernel that may be launched so. `None` while this thread records and it is not loaded.
    fn ready(&self, kernel: &'static str, grid: Grid, args: &[u8]) -> Result<Option<&Kernel>> {
        let failed = |reason: String| self.launch_failed(kernel, grid, reason);
        let Some(found) = self.function(kernel)? else { return Ok(None) };
        let Kernel { function, argument_bytes, shared, .. } = found;
        if args.len() != *argument_bytes {
            let bytes = args.len();
            return Err(failed(format!("its argument has {bytes} bytes, the kernel takes {argument_bytes}")));
        }
        let [x, y, z] = grid.blocks;
        if x > i32::MAX as usize || y > 65_535 || z > 65_535 {
            return Err(failed("the grid is too large; take a smaller batch".into()));
        }
        if grid.shared > 0 && shared + grid.shared as usize > UNASKED_SHARED {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // Always the same, so that no launch takes from a graph what it was recorded with.
            let most = (MOST_SHARED - shared).max(grid.shared as usize);
            function.set_attribute(attribute, most as i32).map_err(|e| failed(super::explain(e)))?;
        }
        self.0.launched.note(kernel);
        self.bind()?;
        Ok(Some(found))
    }

    fn launch_failed(&self, kernel: &'static str, grid: Grid, reason: String) -> Error {
        let Grid { blocks, threads, shared } = grid;
        let what = format!("launching {kernel} ({blocks:?} blocks of {threads} threads, {shared} bytes shared)");
        Error::device(format!("{self:?}"), what, reason)
    }
}
