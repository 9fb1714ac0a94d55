//! A block: its shared memory, its barriers and its warps' turns.

use super::copies::Copies;
use super::launch::Launch;
use crate::check::block::BlockChecks;
use crate::machine::Mask;
use crate::machine::address::{Invalid, PARAM_WINDOW, Place, Site};
use crate::machine::barrier::{Arrival, Barrier, Completed, Reduction};
use crate::machine::fault::FaultKind;
use crate::machine::names::readable;

/// Number of barriers that a block has.
pub const BARRIERS: usize = 16;

/// What operations see of their block.
pub struct BlockState {
    launch: *const Launch<'static>,
    /// Its place in the grid.
    pub index: [u32; 3],
    /// Its number: the place as one number.
    pub number: u64,
    /// Its shared memory; addresses are offsets in here.
    pub shared: super::buffer::Buffer,
    /// The barriers.
    pub barriers: [Barrier; BARRIERS],
    /// Threads that have not ended.
    pub alive: u32,
    /// Asynchronous copies under way, per warp.
    pub copies: Vec<Copies>,
    /// Race, initialisation and other checks, where they are on.
    pub checks: Option<Box<BlockChecks>>,
    /// How often in a row all that threads did was to look at mbarriers that were not ready.
    pub fruitless: u32,
    ticks: u64,
}

impl BlockState {
    /// State for blocks of a launch.
    pub fn new() -> Self {
        Self {
            launch: std::ptr::null(),
            index: [0; 3],
            number: 0,
            shared: super::buffer::Buffer::new(0),
            barriers: [Barrier::default(); BARRIERS],
            alive: 0,
            copies: vec![],
            checks: None,
            fruitless: 0,
            ticks: 0,
        }
    }

    /// Prepares for a block of a launch, the `turn`-th in its order. The launch must outlive the block's run.
    pub fn reset(&mut self, launch: &Launch, number: u64, turn: u64) {
        self.launch = std::ptr::from_ref(launch).cast();
        self.number = number;
        self.index = launch.grid.place(number).map(|place| place as u32);
        self.barriers = [Barrier::default(); BARRIERS];
        self.alive = launch.grid.threads();
        self.fruitless = 0;
        self.ticks = 0;
        self.copies.resize_with(launch.grid.warps(), Copies::default);
        self.copies.iter_mut().for_each(Copies::clear);
        let bytes = launch.grid.shared_end() as usize;
        self.shared.reserve(bytes);
        // Nobody may rely on what shared memory holds at first: not zeros.
        self.shared.fill(bytes, 0xff);
        self.checks = launch.watch.is_needed().then(|| {
            let mut checks = self.checks.take().unwrap_or_else(|| Box::new(BlockChecks::new(&launch.watch)));
            checks.start(&launch.watch, number, turn);
            checks
        });
    }

    /// The launch it belongs to.
    pub fn launch(&self) -> &Launch<'_> {
        // SAFETY: `reset` set it, and the launch outlives the block's run.
        unsafe { &*self.launch.cast() }
    }

    /// Counts a reading of the clock.
    pub fn tick(&mut self) -> u64 {
        self.ticks += 16;
        self.ticks
    }

    /// The variable of shared memory around an offset.
    pub fn shared_bounds(&self, address: u64, bytes: u64, window: u64) -> Result<Site, Invalid> {
        let launch = self.launch();
        let layout = &launch.program.listing.shared;
        let offset = address.wrapping_sub(window);
        let dynamic = (layout.dynamic_start, layout.dynamic_start + launch.grid.dynamic_shared);
        let variables = layout.variables.iter().map(|variable| (variable.start, variable.end));
        for (start, end) in variables.clone().chain([dynamic]) {
            let (start, end) = (u64::from(start), u64::from(end));
            if offset >= start && offset < end && end - offset >= bytes {
                return Ok(Site { low: window + start, high: window + end, place: Place::Shared(window) });
            }
        }
        let near = layout
            .variables
            .iter()
            .filter(|variable| u64::from(variable.start) <= offset)
            .max_by_key(|variable| variable.start)
            .map(|variable| {
                format!(
                    "; it lies {} bytes past the end of {}",
                    offset.saturating_add(bytes).saturating_sub(u64::from(variable.end)),
                    readable(&variable.name)
                )
            })
            .unwrap_or_default();
        Err(Invalid {
            kind: FaultKind::OutOfBounds,
            detail: format!(
                "shared memory of this kernel: {} bytes static, {} dynamic (from offset {:#x}){near}",
                layout.static_bytes, launch.grid.dynamic_shared, layout.dynamic_start
            ),
        })
    }

    /// The kernel's parameters as memory.
    pub fn param_bounds(&self, address: u64, bytes: u64, write: bool) -> Result<Site, Invalid> {
        let params = &self.launch().params;
        let offset = address - PARAM_WINDOW;
        if write {
            return Err(Invalid { kind: FaultKind::ReadOnly, detail: "kernel parameters are read-only".into() });
        }
        if offset < params.len() as u64 && params.len() as u64 - offset >= bytes {
            return Ok(Site {
                low: PARAM_WINDOW,
                high: PARAM_WINDOW + params.len() as u64,
                place: Place::Fixed((params.as_ptr() as u64).wrapping_sub(PARAM_WINDOW)),
            });
        }
        Err(Invalid {
            kind: FaultKind::OutOfBounds,
            detail: format!("the kernel has {} bytes of parameters", params.len()),
        })
    }

    /// Counts an arrival of `lanes` threads of a warp at the instruction `origin`; `whole` if these are all threads of
    /// the warp. Tells whether some had arrived already and the barrier has not completed since.
    pub fn arrive(&mut self, arrival: &Arrival, warp: usize, lanes: Mask, whole: bool, origin: u32) -> bool {
        let barrier = &mut self.barriers[arrival.barrier as usize % BARRIERS];
        let again = barrier.lanes[warp] & lanes != 0;
        barrier.lanes[warp] |= lanes;
        barrier.origin = origin;
        barrier.warps |= 1 << warp;
        barrier.waiting |= u32::from(arrival.waits) << warp;
        // With an explicit count an aligned barrier counts warps, as if all their lanes were there.
        let threads = if arrival.threads.is_some() && arrival.aligned && whole { 32 } else { lanes.count_ones() };
        barrier.arrived += threads;
        barrier.expected = arrival.threads.or(barrier.expected);
        if let Some((_, bits, _)) = arrival.reduction {
            barrier.count += (bits & lanes).count_ones();
        }
        again
    }

    /// If everybody has come to a barrier, resets it.
    pub fn complete(&mut self, barrier: usize) -> Option<Completed> {
        let state = &mut self.barriers[barrier];
        if state.arrived == 0 || state.arrived < state.expected.unwrap_or(self.alive) {
            return None;
        }
        let Barrier { arrived, count, warps, waiting, .. } = std::mem::take(state);
        Some(Completed { count, threads: arrived, warps, waiting })
    }

    /// All threads have ended.
    pub fn finish(&mut self) {
        if let Some(mut checks) = self.checks.take() {
            for (number, barrier) in self.barriers.iter().enumerate().filter(|(_, barrier)| barrier.arrived > 0) {
                checks.barrier_left(&self.launch().watch, number, barrier);
            }
            checks.block_ended(&self.launch().watch, false);
            self.checks = Some(checks);
        }
    }

    /// A thread met a fault that ends the launch.
    pub fn give_up(&mut self) {
        if let Some(mut checks) = self.checks.take() {
            checks.block_ended(&self.launch().watch, true);
            self.checks = Some(checks);
        }
    }
}

impl Default for BlockState {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of a barrier's reduction.
pub fn reduce(reduction: Reduction, count: u32, threads: u32) -> u32 {
    match reduction {
        Reduction::Count => count,
        Reduction::All => u32::from(count == threads),
        Reduction::Any => u32::from(count > 0),
    }
}
