//! Launches and occupancy.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::{api, put};
use crate::driver::code::{Code, INVALID_VALUE, NOT_SUPPORTED};
use crate::driver::release::loaded;
use crate::driver::work::{How, Work};
use crate::driver::{say, with};
use crate::exec::program::Program;

/// Reads a kernel's arguments.
///
/// # Safety
/// `arguments` must hold a pointer to each argument.
unsafe fn read_arguments(program: &Program, arguments: *const *const u8) -> Result<Vec<u8>, Code> {
    let mut params = vec![0; program.param_bytes as usize];
    if program.params.is_empty() {
        return Ok(params);
    }
    if arguments.is_null() {
        say(&format!("launch of {}: {} arguments are missing", program.readable_name(), program.params.len()));
        return Err(INVALID_VALUE);
    }
    for (index, slot) in program.params.iter().enumerate() {
        // SAFETY: the caller promises a pointer per argument.
        let argument = unsafe { *arguments.add(index) };
        if argument.is_null() {
            say(&format!("launch of {}: argument {index} is a null pointer", program.readable_name()));
            return Err(INVALID_VALUE);
        }
        let target = &mut params[slot.offset as usize..][..slot.bytes as usize];
        // SAFETY: the argument has the size of its parameter.
        unsafe { argument.copy_to_nonoverlapping(target.as_mut_ptr(), target.len()) };
    }
    Ok(params)
}

/// Checks a launch and puts it into a stream.
#[allow(clippy::too_many_arguments, reason = "these are the arguments of cuLaunchKernel")]
unsafe fn launch(
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: u64,
    arguments: *const *const u8,
    extra: *const c_void,
    how: How,
) -> Result<(), Code> {
    if !extra.is_null() {
        say("cuLaunchKernel: arguments in `extra` are not supported; pass kernelParams");
        return Err(NOT_SUPPORTED);
    }
    with(|d| {
        d.healthy()?;
        let stream = d.resolve_stream(stream)?;
        if how.early && !loaded().has(PROGRAMMATIC_EDGES) && d.streams.get(stream)?.capture.is_some() {
            say("cuLaunchKernelEx: graphs have programmatic dependences since CUDA 12.3");
            return Err(NOT_SUPPORTED);
        }
        let function = d.launchable(function)?;
        // SAFETY: as for this function.
        let shot =
            d.shot(function, grid, block, shared, how, |program| unsafe { read_arguments(program, arguments) })?;
        d.submit(stream, Work::Launch(Arc::new(shot)))
    })
}

/// Asks something about a kernel on the current device.
fn occupancy<T>(
    function: u64,
    f: impl FnOnce(&crate::driver::kernel::Function, &crate::driver::device::Model) -> T,
) -> Result<T, Code> {
    with(|d| {
        let device = d.current_device()?;
        let model = d.devices[device as usize].model;
        let function = d.launchable(function)?;
        Ok(f(d.functions.get(function)?, model))
    })
}

fn blocks_per_sm(blocks: *mut c_int, function: u64, threads: c_int, shared: usize) -> Result<(), Code> {
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(INVALID_VALUE)?;
    let found = occupancy(function, |f, model| f.blocks_per_sm(model, threads, shared as u64))?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(blocks, found as c_int) }
}

/// The block size at which most threads run at once.
fn best_block_size(
    grid: *mut c_int,
    block: *mut c_int,
    function: u64,
    shared_of: Option<unsafe extern "C" fn(c_int) -> usize>,
    shared: usize,
    limit: c_int,
) -> Result<(), Code> {
    let (size, blocks) = occupancy(function, |f, model| {
        let most = if limit > 0 { f.max_threads().min(limit as u32) } else { f.max_threads() };
        let mut best = (0, 0);
        for size in (1..=most / 32).rev().map(|warps| warps * 32).chain((most < 32).then_some(most)) {
            // SAFETY: the caller gives a function that maps block sizes to bytes.
            let shared = shared_of.map_or(shared, |f| unsafe { f(size as c_int) });
            let blocks = f.blocks_per_sm(model, size, shared as u64);
            if blocks * size > best.0 * best.1 {
                best = (size, blocks);
            }
        }
        (best.0, best.1 * model.multiprocessors as u32)
    })?;
    if size == 0 {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller gives valid pointers.
    unsafe {
        put(grid, blocks as c_int)?;
        put(block, size as c_int)
    }
}

/// The beginning of `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: u64,
    attributes: *const LaunchAttribute,
    count: c_uint,
}

/// `CUlaunchAttribute`.
#[repr(C, align(8))]
pub struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [u8; 64],
}

/// The CUDA version that brought graphs kernels which begin before those before them have ended.
const PROGRAMMATIC_EDGES: u32 = 12030;
const COOPERATIVE: u32 = 2;
const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;
/// Attributes that change nothing that can be seen here: access policy, priority, memory domain, carve-out.
const HINTS: [u32; 5] = [0, 1, 8, 9, 13];

api! {
    /// Runs a kernel.
    fn cuLaunchKernel(
        function: u64,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: u64,
        arguments: *const *const u8, extra: *const c_void,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        // SAFETY: as for this function.
        unsafe { launch(function, grid, block, shared, stream, arguments, extra, How::default()) }
    }

    /// Runs a kernel whose blocks wait for each other.
    fn cuLaunchCooperativeKernel(
        function: u64,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: u64,
        arguments: *const *const u8,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let how = How { cooperative: true, ..How::default() };
        // SAFETY: as for this function.
        unsafe { launch(function, grid, block, shared, stream, arguments, std::ptr::null(), how) }
    }

    /// Runs a kernel with attributes.
    fn cuLaunchKernelEx(config: *const LaunchConfig, function: u64, arguments: *const *const u8, extra: *const c_void) {
        if config.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a valid configuration and as many attributes as it says.
        let (config, attributes) = unsafe {
            let config = &*config;
            let attributes = match config.attributes.is_null() {
                true => &[][..],
                false => std::slice::from_raw_parts(config.attributes, config.count as usize),
            };
            (config, attributes)
        };
        let mut how = How::default();
        for attribute in attributes {
            match attribute.id {
                COOPERATIVE => how.cooperative = attribute.value[0] != 0,
                PROGRAMMATIC_STREAM_SERIALIZATION => how.early = attribute.value[0] != 0,
                id if HINTS.contains(&id) => {}
                id => {
                    say(&format!("cuLaunchKernelEx: launch attribute {id} is not supported"));
                    return Err(NOT_SUPPORTED);
                }
            }
        }
        // SAFETY: as for this function.
        unsafe {
            launch(function, config.grid, config.block, config.shared, config.stream, arguments, extra, how)
        }
    }

    /// Blocks of a kernel that fit a multiprocessor at once.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: u64, threads: c_int, shared: usize) {
        blocks_per_sm(blocks, function, threads, shared)
    }

    /// Blocks of a kernel that fit a multiprocessor at once.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut c_int, function: u64, threads: c_int, shared: usize, flags: c_uint) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        blocks_per_sm(blocks, function, threads, shared)
    }

    /// Dynamic shared memory with which this many blocks fit a multiprocessor.
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, function: u64, blocks: c_int, threads: c_int) {
        let (blocks, threads) = match (u32::try_from(blocks), u32::try_from(threads)) {
            (Ok(blocks @ 1..), Ok(threads @ 1..)) => (blocks, threads),
            _ => return Err(INVALID_VALUE),
        };
        let found = occupancy(function, |f, model| {
            let mut most = model.shared_optin as u64;
            while most > 0 && f.blocks_per_sm(model, threads, most) < blocks {
                most = most.saturating_sub(128);
            }
            most
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(bytes, found as usize) }
    }

    /// The block size at which most threads run at once.
    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int, block: *mut c_int, function: u64,
        shared_of: Option<unsafe extern "C" fn(c_int) -> usize>, shared: usize, limit: c_int,
    ) {
        best_block_size(grid, block, function, shared_of, shared, limit)
    }

    /// The block size at which most threads run at once.
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int, block: *mut c_int, function: u64,
        shared_of: Option<unsafe extern "C" fn(c_int) -> usize>, shared: usize, limit: c_int, flags: c_uint,
    ) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        best_block_size(grid, block, function, shared_of, shared, limit)
    }

    /// Without clusters a cluster is one block.
    fn cuOccupancyMaxPotentialClusterSize(size: *mut c_int, function: u64, config: *const LaunchConfig) {
        let _ = config;
        occupancy(function, |_, _| ())?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(size, 1) }
    }

    /// Without clusters these are the blocks that run at once.
    fn cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: u64, config: *const LaunchConfig) {
        if config.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a valid configuration.
        let (threads, shared) = unsafe { ((*config).block.iter().product::<u32>(), (*config).shared) };
        let found = occupancy(function, |f, model| {
            f.blocks_per_sm(model, threads, u64::from(shared)) * model.multiprocessors as u32
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(clusters, found as c_int) }
    }
}
