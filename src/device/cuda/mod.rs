//! CUDA devices through the driver alone: our own kernels, one stream for them and one for copies, memory ordered by them.

mod cache;
mod ceiling;
mod counting;
mod driver;
mod early;
mod fill;
mod gate;
mod graph;
mod kernel_times;
pub mod kernels;
mod launch;
mod launched;
mod launches;
mod mark;
mod memory;
mod modules;
mod nccl;
mod peer;
mod pinned;
#[cfg(test)]
mod ptx_version;
mod repeating;
mod resident;
mod rows;
mod staging;
mod stamp;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaStream, sys};

use cache::{Block, Cache};
pub use ceiling::MMA_OPERANDS;
use counting::Counting;
pub use driver::{Driver, driver, has_driver};
use gate::Gate;
pub use graph::Graph;
pub use kernel_times::KernelTime;
pub use launch::{Grid, MOST_SHARED, Ptr, Target};
pub use launches::Launches;
pub use mark::Mark;
pub use memory::DeviceBuffer;
use memory::{Ledger, Memory};
use modules::Modules;
pub use nccl::{Communicator, Nccl, NcclId};
pub use peer::Exposed;
pub use pinned::Pinned;
pub use repeating::{Recorded, Repeating};
pub use resident::{Resident, ResidentArgs, Staying, Stays, parse_idle};
pub use rows::Runs;
pub use staging::Returning;
use staging::Staging;
pub use stamp::Stamps;

use crate::error::{Error, Result};
use kernels::{EMBEDDED, Ptx};

/// What products are computed in. Sums, normalizations and everything else are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Arithmetic {
    /// Tensor cores: features in f16 forward and bf16 backward, where nearly all of the arithmetic is; the small layers behind
    /// them in f16 forward and tf32 backward.
    #[default]
    Mixed,
    /// Tensor cores: bf16 for all layers that train, of which they multiply twice as many a cycle as of tf32. Weights stay f32.
    Bf16,
    /// f32 operands: slow, for comparison.
    F32,
}

impl Arithmetic {
    /// What a run calls it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Mixed => "mixed",
            Arithmetic::Bf16 => "bf16",
            Arithmetic::F32 => "f32",
        }
    }
}

/// Percent of the free memory that one table of features may take to stay on the device.
const RESIDENT: usize = 60;

/// Which context a thread has made its own, as far as is known: what is, need not be made so again for each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// None yet.
    Nothing,
    /// One, by its handle, and never another.
    One(usize),
    /// One after the other: cudarc's own calls change it, too.
    Several,
}

thread_local! {
    static BOUND: Cell<Bound> = const { Cell::new(Bound::Nothing) };
}

/// A CUDA device and our kernels. Cloning shares it.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    gate: Gate,
    modules: Modules,
    arithmetic: Arithmetic,
    ledger: Ledger,
    cache: Arc<Cache>,
    /// What was given back while a thread records.
    kept: Mutex<Vec<Memory>>,
    /// The blocks of a recording that it does not use at the moment.
    spare: Mutex<Vec<Block>>,
    staging: Staging,
    counting: Counting,
    launched: launched::Launched,
    timed: kernel_times::Timed,
    multiprocessors: usize,
    /// Percent of the free memory that one table of features may take to stay.
    resident: AtomicUsize,
    /// Whether the device may read the host's pageable memory in place, and later than the call that names it.
    reads_pageable: bool,
    name: String,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Kernels may still use what is about to be given back; a device that failed uses nothing any more.
        let _ = self.stream.synchronize();
        // The context may end with it.
        BOUND.set(match BOUND.get() {
            Bound::One(bound) if bound == self.context.cu_ctx() as usize => Bound::Nothing,
            Bound::One(_) => Bound::Several,
            other => other,
        });
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal(), self.0.name)
    }
}

/// Number of CUDA devices. Fails if there is no driver, or none that works.
pub fn count() -> Result<usize> {
    driver()?;
    let failed = |error: DriverError| Error::device("cuda", "asking for devices", explain(error));
    CudaContext::device_count().map(|n| n as usize).map_err(failed)
}

impl Gpu {
    /// Opens a device. Kernels are loaded when they are first launched; one is now, which shows whether the driver takes them.
    pub fn open(ordinal: usize, arithmetic: Arithmetic) -> Result<Gpu> {
        let device = format!("cuda:{ordinal}");
        let refuse = |reason: String| Err(Error::device(&device, "opening", reason));
        let found = count()?;
        if ordinal >= found {
            return refuse(format!("there is no such device, the driver has {found}"));
        }
        if EMBEDDED.is_empty() {
            return refuse(
                "this program was built without CUDA kernels; run scripts/cuda-toolchain.sh, which fetches nvcc, and \
                 build again"
                    .into(),
            );
        }
        let failed = |doing: &'static str| {
            let device = device.clone();
            move |error: DriverError| Error::device(&device, doing, explain(error))
        };
        let keeps = cache::keeps_blocks()?;
        let context = CudaContext::new(ordinal).map_err(failed("opening"))?;
        // SAFETY: one stream does all work, so that no buffer is used by two at a time.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(failed("opening"))?;
        let capability = (10 * major + minor) as u32;
        let early = early::begins_early(capability)?;
        let ptx = Ptx::for_capability(capability);
        if ptx.is_empty() {
            return refuse(format!("its compute capability is {major}.{minor}; the kernels need 8.0 or newer"));
        }
        let stream = context.new_stream().map_err(failed("making a stream"))?;
        let name = context.name().map_err(failed("opening"))?;
        let staging = Staging::new(&context, keeps).map_err(failed("making a stream"))?;
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(count).map_err(failed("opening"))? as usize;
        let pageable = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS;
        let reads_pageable = context.attribute(pageable).map_err(failed("opening"))? != 0;
        let gpu = Gpu(Arc::new(Inner {
            cache: Cache::new(&context, keeps),
            modules: Modules::new(&context, capability, ptx, early),
            context,
            stream,
            gate: Gate::default(),
            arithmetic,
            ledger: Ledger::default(),
            kept: Mutex::default(),
            spare: Mutex::default(),
            staging,
            counting: Counting::default(),
            launched: launched::Launched::default(),
            timed: kernel_times::Timed::default(),
            multiprocessors,
            resident: RESIDENT.into(),
            reads_pageable,
            name,
        }));
        gpu.notice();
        gpu.load("fill")?;
        Ok(gpu)
    }

    /// Whether both are one opened device, so that one's memory is the other's in the right order.
    pub fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Number of the device.
    pub fn ordinal(&self) -> usize {
        self.0.context.ordinal()
    }

    /// What its driver calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What products are computed in.
    pub fn arithmetic(&self) -> Arithmetic {
        self.0.arithmetic
    }

    /// The percentage of the free memory that one table of features may take to stay on the device.
    pub fn resident_percent(&self) -> usize {
        self.0.resident.load(Ordering::Relaxed)
    }

    /// Sets [`Gpu::resident_percent`], 60 at first; with 0 each batch's features are copied when it is put together.
    pub fn set_resident_percent(&self, percent: usize) {
        self.0.resident.store(percent, Ordering::Relaxed);
    }

    /// Free bytes and all bytes of its memory.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.notice();
        self.0.context.mem_get_info().map_err(|e| self.error("asking for memory", e))
    }

    /// The most bytes that were allocated at once.
    pub fn peak(&self) -> usize {
        self.0.ledger.peak()
    }

    /// Compute capability, 86 for 8.6.
    pub fn capability(&self) -> Result<u32> {
        let (major, minor) = self.0.context.compute_capability().map_err(|e| self.error("asking", e))?;
        Ok((10 * major + minor) as u32)
    }

    /// Number of its multiprocessors.
    pub fn multiprocessors(&self) -> usize {
        self.0.multiprocessors
    }

    /// Whether kernels of a decoding step begin before those before them have ended (kernels/early.cuh).
    pub fn begins_early(&self) -> bool {
        self.0.modules.begins_early()
    }

    /// The highest clock of its multiprocessors, in MHz.
    pub fn clock_mhz(&self) -> Result<u32> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE;
        let khz = self.0.context.attribute(attribute).map_err(|e| self.error("asking", e))?;
        Ok(khz as u32 / 1000)
    }

    /// Waits until everything that was asked for is done.
    pub fn synchronize(&self) -> Result<()> {
        self.turn().synchronize().map_err(|e| self.error("running kernels", e))
    }

    fn handle(&self) -> usize {
        self.0.context.cu_ctx() as usize
    }

    /// Makes the device's context the calling thread's, unless it is for sure.
    fn bind(&self) -> Result<()> {
        let own = Bound::One(self.handle());
        if BOUND.get() == own {
            return Ok(());
        }
        self.0.context.bind_to_thread().map_err(|e| self.error("binding", e))?;
        BOUND.set(if BOUND.get() == Bound::Nothing { own } else { Bound::Several });
        Ok(())
    }

    /// What comes next may make the device's context the calling thread's: cudarc does in many of its calls.
    fn notice(&self) {
        if let Bound::One(bound) = BOUND.get()
            && bound != self.handle()
        {
            BOUND.set(Bound::Several);
        }
    }

    fn error(&self, doing: impl Into<String>, error: DriverError) -> Error {
        Error::device(format!("{self:?}"), doing, explain(error))
    }
}

/// What the driver says, and what to do about it.
fn explain(error: DriverError) -> String {
    use sys::CUresult as Code;
    let said = error.error_string().map(|s| s.to_string_lossy().into_owned());
    let said = said.unwrap_or_else(|_| format!("{:?}", error.0));
    let advice = match error.0 {
        Code::CUDA_ERROR_NO_DEVICE => "; use --device cpu",
        Code::CUDA_ERROR_ILLEGAL_ADDRESS | Code::CUDA_ERROR_MISALIGNED_ADDRESS | Code::CUDA_ERROR_LAUNCH_FAILED => {
            "; a kernel is wrong: run `fissfuse doctor` and report what it says"
        }
        Code::CUDA_ERROR_ECC_UNCORRECTABLE => "; the device's memory is failing: restart it, then go on with --resume",
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE => "; another process has it to itself",
        _ => "",
    };
    format!("{said} ({:?}){advice}", error.0)
}
