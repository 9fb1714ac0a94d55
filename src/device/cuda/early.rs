//! Kernels that begin early (programmatic dependent launch): where a device and its driver can, a kernel that waits for those before
//! it (kernels/early.cuh) is launched before these have ended.

use std::ffi::c_void;

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaFunction, CudaStream, sys};

use super::Grid;
use super::driver::driver;
use crate::device::switch::is_on;
use crate::error::Result;

/// Whether kernels begin early where they can: `on`, as where it is not set, or `off`.
const VARIABLE: &str = "FISSFUSE_EARLY_LAUNCH";

/// Devices that have it, by the major number of their compute capability. Those of 12 have it too, but of them it was reported that
/// recording such launches fails.
const MAJORS: [u32; 2] = [9, 10];

/// CUDA's version from which recorded graphs keep it.
const IN_GRAPHS: (u32, u32) = (12, 3);

/// Whether kernels begin early on a device of this compute capability.
pub(super) fn begins_early(capability: u32) -> Result<bool> {
    let wanted = is_on(VARIABLE, true)?;
    let driver = driver()?;
    Ok(wanted && MAJORS.contains(&(capability / 10)) && driver.version >= IN_GRAPHS && driver.takes_attributes)
}

/// Queues a kernel that may begin when all blocks of the one before it have, and waits by itself until that has ended.
///
/// # Safety
/// As for any launch: `params` points to what the kernel takes. It must wait before it touches what earlier ones write.
pub(super) unsafe fn launch_early(
    function: &CudaFunction,
    grid: Grid,
    stream: &CudaStream,
    params: &mut [*mut c_void],
) -> Result<(), DriverError> {
    let mut attribute = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    };
    attribute.value.programmaticStreamSerializationAllowed = 1;
    let [blocks, threads] = grid.extents();
    let config = sys::CUlaunchConfig {
        gridDimX: blocks.0,
        gridDimY: blocks.1,
        gridDimZ: blocks.2,
        blockDimX: threads.0,
        blockDimY: threads.1,
        blockDimZ: threads.2,
        sharedMemBytes: grid.shared,
        hStream: stream.cu_stream(),
        attrs: &mut attribute,
        numAttrs: 1,
    };
    // SAFETY: as for this function; the driver reads configuration and attribute before the call returns.
    unsafe {
        sys::cuLaunchKernelEx(&config, function.cu_function(), params.as_mut_ptr(), std::ptr::null_mut()).result()
    }
}
