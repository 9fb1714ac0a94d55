//! The kernels of an opened device: a file's module is loaded when its first kernel is launched, since the driver may have to
//! compile it, which takes seconds for some.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, DriverError, sys};
use cudarc::nvrtc;

use super::driver::driver;
use super::kernels::{Entry, Ptx};
use super::{Gpu, explain};
use crate::error::{Error, Result};

/// A loaded kernel.
pub(super) struct Kernel {
    pub function: CudaFunction,
    /// Of the struct that it takes.
    pub argument_bytes: usize,
    /// Bytes of shared memory that a block has beside what a launch asks for.
    pub shared: usize,
    /// Whether it is launched before the kernel before it has ended.
    pub early: bool,
}

type Functions = HashMap<&'static str, Kernel>;

/// Kernels by file, and files by kernel.
pub(super) struct Modules {
    context: Arc<CudaContext>,
    capability: u32,
    /// Whether kernels that wait for those before them are launched before these have ended.
    early: bool,
    files: Vec<(&'static Ptx, OnceLock<Functions>)>,
    file_of: HashMap<&'static str, usize>,
    /// Held while a module is loaded; the files that a recording found unloaded.
    missing: Mutex<Vec<usize>>,
    /// Whether the driver refused machine code, so that it need not be asked again.
    refuses_cubins: AtomicBool,
}

impl Modules {
    /// The files of `ptx`, none of them loaded.
    pub fn new(context: &Arc<CudaContext>, capability: u32, ptx: Vec<&'static Ptx>, early: bool) -> Modules {
        let entries = ptx.iter().enumerate().flat_map(|(file, ptx)| ptx.entries().map(move |entry| (entry, file)));
        Modules {
            context: context.clone(),
            capability,
            early,
            file_of: entries.collect(),
            files: ptx.into_iter().map(|ptx| (ptx, OnceLock::new())).collect(),
            missing: Mutex::default(),
            refuses_cubins: AtomicBool::new(false),
        }
    }

    /// Whether kernels that wait for those before them are launched before these have ended.
    pub fn begins_early(&self) -> bool {
        self.early
    }

    fn missing(&self) -> MutexGuard<'_, Vec<usize>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The functions of a file, which is loaded if it was not.
    fn load(&self, file: usize) -> Result<&Functions, (&'static Ptx, DriverError)> {
        let (ptx, functions) = &self.files[file];
        if let Some(functions) = functions.get() {
            return Ok(functions);
        }
        let _loading = self.missing();
        if let Some(functions) = functions.get() {
            return Ok(functions);
        }
        let failed = |error| (*ptx, error);
        let module = match ptx.cubin(self.capability).filter(|_| !self.refuses_cubins.load(Ordering::Relaxed)) {
            None => self.context.load_module(ptx.text.text().into()),
            Some(cubin) => self.context.load_module(nvrtc::Ptx::from_binary(cubin.image.bytes())).or_else(|error| {
                tracing::debug!("{}.cu: machine code for {} was refused ({error:?})", ptx.file, cubin.capability);
                self.refuses_cubins.store(true, Ordering::Relaxed);
                self.context.load_module(ptx.text.text().into())
            }),
        };
        let module = module.map_err(failed)?;
        let loaded = ptx.entries.iter().map(|&Entry { name, argument_bytes, waits }| {
            let function = module.load_function(name)?;
            let own = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            let shared = function.get_attribute(own)? as usize;
            Ok((name, Kernel { function, argument_bytes, shared, early: waits && self.early }))
        });
        let loaded = loaded.collect::<Result<Functions, _>>().map_err(failed)?;
        Ok(functions.get_or_init(|| loaded))
    }
}

impl Gpu {
    /// Loads the kernels of a file.
    pub(super) fn load(&self, file: &'static str) -> Result<()> {
        let modules = &self.0.modules;
        match modules.files.iter().position(|(ptx, _)| ptx.file == file) {
            Some(at) => self.loaded(at).map(drop),
            None => Err(Error::device(
                format!("{self:?}"),
                format!("loading {file}.cu"),
                "there is no such file of kernels",
            )),
        }
    }

    fn loaded(&self, file: usize) -> Result<&Functions> {
        self.0.modules.load(file).map_err(|(ptx, error)| {
            let reason = match (error.0, driver()) {
                (sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, Ok(driver)) => {
                    let (major, minor) = driver.version;
                    format!(
                        "the driver, of CUDA {major}.{minor}, does not take PTX {} for compute_{}; install a newer driver, or \
                         build without FISSFUSE_CUDA_ARCH",
                        ptx.version(),
                        ptx.arch
                    )
                }
                _ => explain(error),
            };
            Error::device(format!("{self:?}"), format!("loading {}.cu", ptx.file), reason)
        })
    }

    /// The kernel of this name, its file loaded. `None` while this thread records and the file is not loaded, which cannot be
    /// done meanwhile: it is noted, and the recording made again when it is loaded.
    pub(super) fn function(&self, kernel: &'static str) -> Result<Option<&Kernel>> {
        let modules = &self.0.modules;
        let unknown = || Error::device(format!("{self:?}"), format!("launching {kernel}"), "there is no such kernel");
        let file = *modules.file_of.get(kernel).ok_or_else(unknown)?;
        let functions = match (modules.files[file].1.get(), self.0.gate.recording()) {
            (Some(functions), _) => functions,
            (None, None) => self.loaded(file)?,
            (None, Some(_)) => {
                modules.missing().push(file);
                return Ok(None);
            }
        };
        Ok(functions.get(kernel))
    }

    /// The files that the recording under way lacks because they are not loaded. For whoever records, while no other can.
    pub(super) fn take_missing(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.modules.missing())
    }

    /// Loads files by their numbers.
    pub(super) fn load_files(&self, files: &[usize]) -> Result<()> {
        files.iter().try_for_each(|file| self.loaded(*file).map(drop))
    }
}
