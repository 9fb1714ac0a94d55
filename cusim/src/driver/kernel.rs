//! Modules, functions, launches.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use super::code::*;
use super::config::Asynchrony;
use super::context::{MALLOC_HEAP_SIZE, current};
use super::device::{DEFAULT_SHARED, MAX_THREADS, REGISTERS};
use super::handles::Kind;
use super::release::loaded;
use super::work::{How, Shot};
use super::{Driver, say};
use crate::check::watch::Watch;
use crate::count::Counting;
use crate::exec::copies::Landing;
use crate::exec::launch::{Launch, WORKSPACE};
use crate::exec::program::Program;
use crate::lower::Options;
use crate::machine::grid::Grid;
use crate::module::{Image, LoadError};
use crate::{nvtx, ptx};

/// A loaded module.
pub struct LoadedModule {
    /// Its context.
    pub context: u64,
    image: Image,
    functions: HashMap<String, u64>,
}

impl Kind for LoadedModule {
    const TAG: u64 = 0x56;
}

/// A kernel.
pub struct Function {
    /// Its module.
    pub module: u64,
    /// Its name.
    pub name: CString,
    /// Its code.
    pub program: Arc<Program>,
    /// The most dynamic shared memory that launches may ask for.
    pub max_dynamic_shared: u32,
    /// Preferred share of the cache, kept for those who ask.
    pub carveout: i32,
}

impl Kind for Function {
    const TAG: u64 = 0x57;
}

/// Why a module was not loaded.
pub struct Refused {
    /// What the call returns.
    pub code: Code,
    /// What the compiler's log says; empty if the compiler was not to blame.
    pub log: String,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self { code, log: String::new() }
    }
}

impl Driver {
    /// Loads a PTX module into the current context.
    pub fn load_module(&mut self, text: &str) -> Result<u64, Refused> {
        self.refuse_unsafe()?;
        self.load_anywhere(text)
    }

    /// The same, also while a stream is captured: as a driver loads a library's kernel at its first launch.
    pub fn load_anywhere(&mut self, text: &str) -> Result<u64, Refused> {
        let device = self.current_device()?;
        let model = self.devices[device as usize].model;
        // Newer PTX may hold what cannot be read, so its version is looked at first.
        let newest = loaded().ptx;
        if let Ok((version, line)) = ptx::version(text)
            && version > newest
        {
            let (asked, newest) = (format!("{}.{}", version.0, version.1), format!("{}.{}", newest.0, newest.1));
            // As ptxas says it: programs look for these words.
            let log = format!(
                "ptxas application ptx input, line {line}; fatal   : Unsupported .version {asked}; current version is '{newest}'"
            );
            return Err(Refused { code: UNSUPPORTED_PTX_VERSION, log });
        }
        let mut image = Image::load(text, &mut self.memory, device).map_err(|error| Refused {
            code: match error {
                LoadError::NotPtx(_) => NO_BINARY_FOR_GPU,
                LoadError::Syntax(_) | LoadError::Variables(_) => INVALID_PTX,
                LoadError::OutOfMemory => OUT_OF_MEMORY,
            },
            log: error.to_string(),
        })?;
        let target = image.target();
        if target > model.target() {
            image.unload(&mut self.memory);
            let log = format!("PTX for sm_{target} cannot run on {}, which is sm_{}", model.name, model.target());
            return Err(Refused { code: NO_BINARY_FOR_GPU, log });
        }
        Ok(self.modules.add(LoadedModule { context: current(), image, functions: HashMap::new() }))
    }

    /// Ends a module and its functions.
    pub fn unload_module(&mut self, module: u64) -> Result<(), Code> {
        self.refuse_unsafe()?;
        let context = self.modules.get(module)?.context;
        self.drain_context(context)?;
        let mut module = self.modules.remove(module)?;
        for function in module.functions.values() {
            self.functions.remove(*function)?;
        }
        module.image.unload(&mut self.memory);
        Ok(())
    }

    /// A kernel of a module.
    pub fn function(&mut self, module: u64, name: &str) -> Result<u64, Code> {
        let options =
            Options { keep_moves: self.counters.is_some(), observe: self.counters.is_some() || self.sink.watches() };
        let loaded = self.modules.get(module)?;
        if let Some(function) = loaded.functions.get(name) {
            return Ok(*function);
        }
        if !loaded.image.has_kernel(name) {
            let known: Vec<&str> = loaded.image.kernels().take(20).collect();
            say(&format!("cuModuleGetFunction: no kernel {name}; the module has {}", known.join(", ")));
            return Err(NOT_FOUND);
        }
        let program = loaded.image.kernel(name, options).map_err(|error| {
            say(&format!("cuModuleGetFunction: {error}"));
            self.hopeless = true;
            NOT_SUPPORTED
        })?;
        let max_dynamic_shared = DEFAULT_SHARED.saturating_sub(program.listing.shared.static_bytes);
        if program.listing.shared.static_bytes > DEFAULT_SHARED {
            let bytes = program.listing.shared.static_bytes;
            say(&format!(
                "cuModuleGetFunction: {name} has {bytes} bytes of static shared memory; {DEFAULT_SHARED} is the limit"
            ));
            return Err(INVALID_PTX);
        }
        let c_name = CString::new(name).map_err(|_| NOT_FOUND)?;
        let program = Arc::new(program);
        let function = self.functions.add(Function { module, name: c_name, program, max_dynamic_shared, carveout: -1 });
        self.modules.get_mut(module)?.functions.insert(name.to_string(), function);
        Ok(function)
    }

    /// Names of a module's kernels.
    pub fn kernel_names(&self, module: u64) -> Result<Vec<String>, Code> {
        Ok(self.modules.get(module)?.image.kernels().map(str::to_string).collect())
    }

    /// Address and size of a module's variable.
    pub fn variable(&mut self, module: u64, name: &str) -> Result<(u64, u64), Code> {
        self.modules.get(module)?.image.variable(name).ok_or(NOT_FOUND)
    }

    /// An attribute of a kernel.
    pub fn function_attribute(&mut self, function: u64, attribute: u32) -> Result<i32, Code> {
        let function = self.functions.get(function)?;
        let context = self.modules.get(function.module)?.context;
        let model = self.devices[self.contexts.get(context)?.device as usize].model;
        let program = &function.program;
        Ok(match attribute {
            0 => function.max_threads() as i32,
            1 => program.listing.shared.static_bytes as i32,
            2 => 0,
            3 => program.functions.first().map_or(0, |kernel| kernel.local_bytes as i32),
            4 => function.registers() as i32,
            // The architecture that the PTX is for, and the one that it was compiled to.
            5 => program.target as i32,
            6 => model.target() as i32,
            7 => 0,
            8 => function.max_dynamic_shared as i32,
            9 => function.carveout,
            10..=15 => 0,
            _ => return Err(INVALID_VALUE),
        })
    }

    /// Sets an attribute of a kernel.
    pub fn set_function_attribute(&mut self, function: u64, attribute: u32, value: i32) -> Result<(), Code> {
        let device = self.current_device()?;
        let model = self.devices[device as usize].model;
        let function = self.functions.get_mut(function)?;
        match attribute {
            8 => {
                let most = (model.shared_optin as u32).saturating_sub(function.program.listing.shared.static_bytes);
                match u32::try_from(value) {
                    Ok(bytes) if bytes <= most => function.max_dynamic_shared = bytes,
                    _ => {
                        let name = function.program.readable_name();
                        say(&format!(
                            "cuFuncSetAttribute: {name} cannot have {value} bytes of dynamic shared memory on {}; {most} is the limit",
                            model.name
                        ));
                        return Err(INVALID_VALUE);
                    }
                }
            }
            9 if (-1..=100).contains(&value) => function.carveout = value,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    }

    /// Checks a launch and makes it ready; parameters are read by `read`, given offset and size in the parameter
    /// buffer and the number of the parameter.
    #[allow(clippy::too_many_arguments, reason = "these are the arguments of cuLaunchKernel")]
    pub fn shot(
        &mut self,
        function: u64,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        how: How,
        read: impl FnOnce(&Program) -> Result<Vec<u8>, Code>,
    ) -> Result<Shot, Code> {
        let device = self.current_device()?;
        let model = self.devices[device as usize].model;
        let function = self.functions.get(function)?;
        let name = function.program.readable_name();
        let refuse = |code: Code, why: String| {
            say(&format!(
                "launch of {name}, grid {grid:?}, block {block:?}, {shared} bytes of dynamic shared memory: {why}"
            ));
            Err(code)
        };
        let threads = block.iter().try_fold(1u32, |product, extent| product.checked_mul(*extent)).unwrap_or(u32::MAX);
        if grid.contains(&0) || block.contains(&0) {
            return refuse(INVALID_VALUE, "no extent may be zero".into());
        }
        if grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
            return refuse(INVALID_VALUE, "the grid is too large (2147483647 x 65535 x 65535)".into());
        }
        if block[0] > 1024 || block[1] > 1024 || block[2] > 64 || threads > MAX_THREADS {
            return refuse(INVALID_VALUE, format!("a block has at most {MAX_THREADS} threads (1024 x 1024 x 64)"));
        }
        if threads > function.max_threads() {
            return refuse(
                INVALID_VALUE,
                format!("the kernel was compiled for at most {} threads", function.max_threads()),
            );
        }
        if let Some(required) = function.program.hints.required_threads
            && required != block
        {
            return refuse(INVALID_VALUE, format!("the kernel was compiled for blocks of exactly {required:?}"));
        }
        if shared > function.max_dynamic_shared {
            let most = function.max_dynamic_shared;
            return refuse(
                INVALID_VALUE,
                format!("at most {most} bytes of dynamic shared memory; cuFuncSetAttribute can raise this"),
            );
        }
        if let Some(registers) = function.program.hints.max_registers
            && registers.next_multiple_of(8) * threads.next_multiple_of(32) > REGISTERS
        {
            return refuse(LAUNCH_OUT_OF_RESOURCES, format!("{registers} registers for each of {threads} threads"));
        }
        let fit = function.blocks_per_sm(model, threads, u64::from(shared)) * model.multiprocessors as u32;
        // Older devices run an early launch as any other.
        let how = How { early: how.early && model.capability.0 >= 9, ..how };
        if how.cooperative {
            let blocks: u64 = grid.iter().map(|extent| u64::from(*extent)).product();
            if blocks > u64::from(fit) {
                let why = format!("{blocks} blocks cannot be resident at once; {fit} can");
                return refuse(COOPERATIVE_LAUNCH_TOO_LARGE, why);
            }
        }
        let program = function.program.clone();
        let params = read(&program)?;
        let wave = u64::from(fit);
        if program.uses_heap {
            let limit = self.limit(MALLOC_HEAP_SIZE)? as u64;
            if !self.memory.make_heap(device, limit) {
                say(&format!(
                    "launch of {}: no address space left for a heap of {limit} bytes",
                    program.readable_name()
                ));
                return Err(OUT_OF_MEMORY);
            }
        }
        let range = nvtx::innermost();
        Ok(Shot { program, grid, block, shared, params, device, how, wave, range })
    }

    /// Memory that the blocks of a cooperative grid meet in, all zero.
    fn clear_workspace(&mut self) -> Result<u64, Code> {
        if self.workspace == 0 {
            let origin = " for cooperative grids".to_string();
            let kind = crate::mem::AllocationKind::Module;
            self.workspace = self.memory.allocate(WORKSPACE as u64, kind, 0, origin).ok_or(OUT_OF_MEMORY)?;
        }
        self.memory.write(self.workspace, &[0; WORKSPACE]);
        self.memory.mark_written(self.workspace, WORKSPACE as u64);
        Ok(self.workspace)
    }

    /// Runs a kernel, which may overlap with these launches.
    pub fn run_shot(&mut self, shot: &Shot, unfinished: &[u64]) -> Result<(), Code> {
        self.launches += 1;
        let id = self.launches;
        let failures = self.config.failures;
        if failures.launch == Some(id) {
            say(&format!("launch {id} ({}) fails, as CUSIM_FAIL orders", shot.program.readable_name()));
            return Err(LAUNCH_FAILED);
        }
        if failures.ecc == Some(id) {
            say(&format!("launch {id} ({}) meets a memory error, as CUSIM_FAIL orders", shot.program.readable_name()));
            return Err(ECC_UNCORRECTABLE);
        }
        if id.is_multiple_of(crate::check::stamp::LAUNCHES) {
            self.memory.shadow().forget();
        }
        let workspace = if shot.how.cooperative { self.clear_workspace()? } else { 0 };
        let counting = self.counters.as_ref().map(|counters| Counting::new(counters, shot.range.clone()));
        if let Some(counting) = &counting {
            counting.change(|kernels| kernels.add_launch(shot.program.name()));
        }
        let landing = match self.config.asynchrony {
            Asynchrony::Eager => Landing::Eager,
            Asynchrony::Late => Landing::Late,
            Asynchrony::Seed(seed) if (seed ^ id) & 1 == 0 => Landing::Eager,
            Asynchrony::Seed(_) => Landing::Late,
        };
        let grid = Grid {
            listing: &shot.program.listing,
            extent: shot.grid,
            block: shot.block,
            dynamic_shared: shot.shared,
            id,
            unfinished,
        };
        let launch = Launch {
            program: &shot.program,
            grid: &grid,
            params: shot.params.clone(),
            memory: &self.memory,
            multiprocessors: self.devices[shot.device as usize].model.multiprocessors as u32,
            order: self.config.order,
            landing,
            watch: Watch::new(&grid, &self.memory, &self.sink, counting, shot.wave),
            threads: usize::MAX,
            workspace,
            heap: self.memory.heap(shot.device),
        };
        let reports = self.sink.count();
        let result = self.workers.run(&launch);
        if let Err(fault) = result {
            self.sink.fault(&grid, &fault);
            return Err(Code(fault.kind.code()));
        }
        // What checks beyond bounds find does not stop a kernel, but the launch has failed, unless it is only to be reported.
        if self.config.findings_fail && self.sink.count() > reports { Err(LAUNCH_FAILED) } else { Ok(()) }
    }
}
