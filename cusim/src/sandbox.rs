//! Runs kernels without the driver API, for tests and benchmarks.

use std::sync::Mutex;

use crate::check::Checks;
use crate::check::report::Sink;
use crate::check::watch::Watch;
use crate::count::{Counters, Counting};
use crate::exec::copies::Landing;
use crate::exec::launch::{Launch, WORKSPACE, Workers};
use crate::exec::order::Order;
use crate::exec::program::Program;
use crate::lower::{LowerError, Options};
use crate::machine::fault::Fault;
use crate::machine::grid::Grid;
use crate::mem::{AllocationKind, Memory};
use crate::module::{Image, LoadError};

/// Bytes that kernels may have allocated at a time, as on a real device where nobody set that.
pub const HEAP: u64 = 8 << 20;

/// Memory, threads and settings.
pub struct Sandbox {
    /// Device memory.
    pub memory: Memory,
    /// Order of blocks and warps.
    pub order: Order,
    /// When asynchronous copies land.
    pub landing: Landing,
    /// What to check.
    pub sink: Sink,
    /// Counts, if counting.
    pub counters: Option<Mutex<Counters>>,
    /// Blocks that run at a time, as far as counts go.
    pub wave: u64,
    workers: Workers,
    threads: usize,
    launches: u64,
    /// Whether a kernel may begin before those before it have ended.
    pub early: bool,
    /// Those that have not ended then.
    unfinished: Vec<u64>,
    workspace: u64,
}

/// A kernel argument.
#[derive(Clone, Debug)]
pub enum Arg {
    /// Address or 64-bit integer.
    U64(u64),
    /// 32-bit integer.
    U32(u32),
    /// f32.
    F32(f32),
    /// A structure passed by value.
    Bytes(Vec<u8>),
}

impl Sandbox {
    /// With this many threads.
    pub fn new(threads: usize) -> Self {
        let Some(mut memory) = Memory::new() else { panic!("the host refuses to reserve address space") };
        let workspace = memory.allocate(WORKSPACE as u64, AllocationKind::Module, 0, String::new()).unwrap_or(0);
        memory.mark_written(workspace, WORKSPACE as u64);
        Self {
            memory,
            workspace,
            order: Order::Forward,
            landing: Landing::Eager,
            sink: Sink::default(),
            counters: None,
            wave: u64::MAX,
            workers: Workers::new(Some(threads)),
            threads,
            launches: 0,
            early: false,
            unfinished: vec![],
        }
    }

    /// Turns checks on, before anything is allocated or lowered.
    pub fn check(&mut self, checks: Checks) {
        assert!(self.memory.enable_checks(checks.init, checks.race), "the host refuses to reserve address space");
        self.memory.mark_written(self.workspace, WORKSPACE as u64);
        self.sink = Sink::new(checks);
    }

    /// Loads a module.
    pub fn load(&mut self, ptx: &str) -> Result<Image, LoadError> {
        Image::load(ptx, &mut self.memory, 0)
    }

    /// Lowers a kernel as the settings require.
    pub fn kernel(&self, image: &Image, name: &str) -> Result<Program, LowerError> {
        image.kernel(name, Options { keep_moves: self.counters.is_some(), observe: self.watches() })
    }

    fn watches(&self) -> bool {
        self.counters.is_some() || self.sink.watches()
    }

    /// Device memory that holds these values.
    pub fn upload<T: Copy>(&mut self, values: &[T]) -> u64 {
        let address = self.reserve(size_of_val(values) as u64);
        // SAFETY: plain values as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.memory.write(address, bytes);
        self.memory.mark_written(address, bytes.len() as u64);
        address
    }

    /// Device memory that nothing was written to.
    pub fn reserve(&mut self, bytes: u64) -> u64 {
        match self.memory.allocate(bytes, AllocationKind::Device, 0, String::new()) {
            Some(address) => address,
            None => panic!("no address space left for {bytes} bytes"),
        }
    }

    /// Values in device memory.
    pub fn download<T: Copy + Default>(&self, address: u64, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        // SAFETY: plain values as bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), count * size_of::<T>()) };
        self.memory.read(address, bytes);
        values
    }

    /// Runs a kernel.
    pub fn launch(
        &mut self,
        program: &Program,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        args: &[Arg],
    ) -> Result<(), Box<Fault>> {
        let mut params = vec![0; program.param_bytes as usize];
        assert_eq!(args.len(), program.params.len(), "number of arguments of {}", program.name());
        for (arg, slot) in args.iter().zip(&program.params) {
            let bytes = match arg {
                Arg::U64(value) => value.to_le_bytes().to_vec(),
                Arg::U32(value) => value.to_le_bytes().to_vec(),
                Arg::F32(value) => value.to_le_bytes().to_vec(),
                Arg::Bytes(bytes) => bytes.clone(),
            };
            params[slot.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.launches += 1;
        let counting = self.counters.as_ref().map(|counters| Counting::new(counters, None));
        if let Some(counting) = &counting {
            counting.change(|kernels| kernels.add_launch(program.name()));
        }
        if program.uses_heap {
            assert!(self.memory.make_heap(0, HEAP), "no address space left for a heap");
        }
        let workspace = self.workspace;
        self.memory.write(workspace, &[0; WORKSPACE]);
        let (listing, id) = (&program.listing, self.launches);
        if !self.early {
            self.unfinished.clear();
        }
        let unfinished = std::mem::take(&mut self.unfinished);
        let grid = Grid { listing, extent: grid, block, dynamic_shared, id, unfinished: &unfinished };
        let launch = Launch {
            program,
            grid: &grid,
            params,
            memory: &self.memory,
            multiprocessors: 82,
            order: self.order,
            landing: self.landing,
            watch: Watch::new(&grid, &self.memory, &self.sink, counting, self.wave),
            threads: self.threads,
            workspace,
            heap: self.memory.heap(0),
        };
        let ran = self.workers.run(&launch);
        self.unfinished = unfinished;
        self.unfinished.push(id);
        ran
    }
}
