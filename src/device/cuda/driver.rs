//! The driver's library: whether there is one, whether it is NVIDIA's, and what it lacks.
//!
//! cudarc looks each function up when it is first called and panics where there is none; and it takes what a function returns
//! for one of the codes that it knows. So the library is examined by hand before cudarc calls anything of it.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fs;
use std::sync::OnceLock;

use cudarc::driver::sys;

use crate::error::{Error, Result};

/// CUDA's version of the oldest driver that works, release 470 of 2021.
const OLDEST: (u32, u32) = (11, 4);

/// What this program calls of every driver.
const NEEDED: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuLaunchCooperativeKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemGetInfo_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuMemsetD32Async",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
];

/// Brings a graph up to date instead of making it anew: of CUDA 12.0, release 525.
const GRAPH_UPDATE: &str = "cuGraphExecUpdate_v2";

/// Launches a kernel with attributes: of CUDA 11.8.
const ATTRIBUTES: &str = "cuLaunchKernelEx";

/// A driver that was found and works.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The newest CUDA version that it supports, as (major, minor).
    pub version: (u32, u32),
    /// Its release, such as "535.161.07", where the system says.
    pub release: Option<String>,
    /// Whether it launches kernels with attributes.
    pub(super) takes_attributes: bool,
    /// Whether graphs can take new parameters.
    pub updates_graphs: bool,
}

impl Driver {
    /// What it lacks that newer ones have, and what is done instead.
    pub fn lacks(&self) -> Vec<&'static str> {
        match self.updates_graphs {
            true => Vec::new(),
            false => vec!["cuGraphExecUpdate_v2 (CUDA 12.0): with --graph each step's graph is made anew"],
        }
    }
}

/// Whether a library of the driver's name is installed.
pub fn has_driver() -> bool {
    // SAFETY: loads the driver's library and looks no further; its initialisers are the vendor's.
    unsafe { sys::is_culib_present() }
}

/// The driver, once it has been examined and started. The same answer each time.
pub fn driver() -> Result<&'static Driver> {
    static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
    let driver = DRIVER.get_or_init(examine).as_ref();
    driver.map_err(|reason| Error::device("cuda", "starting the driver", reason.clone()))
}

fn has(function: &str) -> bool {
    // SAFETY: the library is there; the symbol is only looked for, never called as this type.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(function.as_bytes()) }.is_ok()
}

/// A function of the driver that gives its code as a number: one that cudarc does not know must not become its enum.
type Fill<T> = unsafe extern "C" fn(T) -> c_uint;

fn examine() -> Result<Driver, String> {
    if !has_driver() {
        return Err("no CUDA driver (libcuda.so.1) was found; install NVIDIA's driver, or use --device cpu".into());
    }
    let missing: Vec<&str> = NEEDED.iter().copied().filter(|function| !has(function)).collect();
    if let Some(first) = missing.first() {
        let others = match missing.len() {
            1 => String::new(),
            count => format!(" and {} other functions", count - 1),
        };
        return Err(format!(
            "the library libcuda.so that was found lacks {first}{others}: it is not NVIDIA's driver, or older than release \
             470; install that, take the folder of the other library out of LD_LIBRARY_PATH, or use --device cpu"
        ));
    }
    // SAFETY: the functions are there, and CUDA's interface says what they take.
    let (started, version) = unsafe {
        let library = sys::culib();
        let init = library.get::<Fill<c_uint>>(b"cuInit").map_err(|e| e.to_string())?;
        let get_version = library.get::<Fill<*mut c_int>>(b"cuDriverGetVersion").map_err(|e| e.to_string())?;
        let mut version = 0;
        let told = get_version(&mut version);
        (if told == 0 { init(0) } else { told }, version as u32)
    };
    let version = (version / 1000, version % 1000 / 10);
    if started != 0 {
        return Err(refusal(started));
    }
    if version < OLDEST {
        let ((major, minor), (needs, point)) = (version, OLDEST);
        return Err(format!(
            "the driver supports CUDA {major}.{minor}; {needs}.{point} or newer is needed, release 470 of 2021; install a \
             newer driver, or use --device cpu"
        ));
    }
    Ok(Driver { version, release: release(), takes_attributes: has(ATTRIBUTES), updates_graphs: has(GRAPH_UPDATE) })
}

/// Why the driver did not start.
fn refusal(code: c_uint) -> String {
    type Say = unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint;
    let said = |function: &[u8]| {
        let mut text = std::ptr::null();
        // SAFETY: the function takes a code and gives a text that lives as long as the library, or none.
        unsafe {
            let say = sys::culib().get::<Say>(function).ok()?;
            (say(code, &mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let name = said(b"cuGetErrorName").unwrap_or_else(|| "a code that is not CUDA's".into());
    let words = said(b"cuGetErrorString").unwrap_or_else(|| "no reason given".into());
    const NO_DEVICE: c_uint = 100;
    let advice = match (code, std::env::var("CUDA_VISIBLE_DEVICES")) {
        (NO_DEVICE, Ok(visible)) => {
            format!("CUDA_VISIBLE_DEVICES={visible:?} leaves none; unset it, or use --device cpu")
        }
        _ => "use --device cpu, or see whether `nvidia-smi` works".into(),
    };
    format!("the driver says {words} ({name}, {code}); {advice}")
}

/// The driver's release, from where Linux's kernel module tells it.
fn release() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    text.split_whitespace()
        .find(|word| word.split('.').count() >= 2 && word.starts_with(|c: char| c.is_ascii_digit()))
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_the_advice_is_the_cpu() {
        if !has_driver() {
            let error = driver().unwrap_err().to_string();
            assert!(error.contains("no CUDA driver") && error.contains("--device cpu"), "{error}");
        }
    }

    #[test]
    fn needed_functions_are_named_once() {
        let mut names = NEEDED.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NEEDED.len());
    }
}
