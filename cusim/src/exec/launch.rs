//! A grid: its blocks on the host's threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::copies::Landing;
use super::order::Order;
use super::program::Program;
use super::scheduler::{Block, Outcome};
use crate::check::watch::Watch;
use crate::machine::address::Site;
use crate::machine::fault::Fault;
use crate::machine::grid::Grid;
use crate::machine::listing::Executed;
use crate::mem::{Heap, Memory};

/// Work below this is not worth waking another thread for.
const WORTH_SHARING: Duration = Duration::from_micros(40);

/// Blocks that one thread keeps in flight while they wait for each other.
const MAX_RESIDENT: usize = 4096;

/// Rounds in which no resident block got further, after which the launch is given up.
const MAX_IDLE_ROUNDS: u32 = 20_000;

/// Bytes of the memory that the blocks of a grid meet in.
pub const WORKSPACE: usize = 256;

/// A launch of a kernel.
pub struct Launch<'a> {
    /// What to run.
    pub program: &'a Program,
    /// How many blocks of how many threads.
    pub grid: &'a Grid<'a>,
    /// The kernel's parameters, laid out as it reads them.
    pub params: Vec<u8>,
    /// Device memory.
    pub memory: &'a Memory,
    /// Multiprocessors of the device.
    pub multiprocessors: u32,
    /// In which order blocks and warps run.
    pub order: Order,
    /// When asynchronous copies land.
    pub landing: Landing,
    /// The sanitizer and the counters.
    pub watch: Watch<'a>,
    /// Host threads.
    pub threads: usize,
    /// Memory that the blocks of a cooperative grid meet in; 0 for other grids.
    pub workspace: u64,
    /// Where kernels allocate.
    pub heap: Option<&'a Heap>,
}

/// What threads that run a launch share.
struct Progress {
    next: AtomicU64,
    stop: AtomicBool,
    /// The first in the order of blocks, and which block that is.
    fault: Mutex<Option<(u64, Box<Fault>)>>,
}

/// What a host thread keeps between launches.
#[derive(Default)]
pub struct Worker {
    sites: Vec<Site>,
    blocks: Vec<Block>,
    executed: Vec<Executed>,
}

/// Threads that run blocks, and what they keep.
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
    kept: Mutex<Vec<Worker>>,
    threads: usize,
}

impl Workers {
    /// As many as the host has processors, or as told.
    pub fn new(threads: Option<usize>) -> Self {
        let threads =
            threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).max(1);
        // Without the pool everything runs on the caller's thread.
        let pool = if threads > 1 {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|index| format!("cusim-{index}"))
                .build()
                .ok()
        } else {
            None
        };
        Self { pool, kept: Mutex::new(vec![]), threads }
    }

    /// Runs a launch to its end.
    pub fn run(&self, launch: &Launch) -> Result<(), Box<Fault>> {
        let progress = Progress { next: AtomicU64::new(0), stop: AtomicBool::new(false), fault: Mutex::new(None) };
        let checks = launch.watch.checks();
        let ordered = checks.race || checks.init;
        // What earlier launches left is looked at before this one's blocks write over it.
        let early = !launch.grid.unfinished.is_empty();
        let threads = if launch.program.order_sensitive || checks.race && (launch.program.blocks_meet() || early) {
            1
        } else {
            launch.threads.min(self.threads)
        };
        match &self.pool {
            Some(pool) if threads > 1 && launch.grid.blocks() > 1 => {
                if ordered && !launch.program.blocks_meet() {
                    launch.watch.turns.run_in_parallel();
                }
                // The caller begins alone; others join if the first blocks show that there is enough to do.
                let begun = Instant::now();
                let more = self.with_worker(|worker| {
                    run_blocks(launch, &progress, worker, |done| {
                        let left = launch.grid.blocks() - done.min(launch.grid.blocks());
                        let rate = begun.elapsed().as_secs_f64() / done as f64;
                        left > 0 && rate * left as f64 > WORTH_SHARING.as_secs_f64()
                    })
                });
                if more {
                    pool.in_place_scope(|scope| {
                        for _ in 1..threads {
                            scope.spawn(|_| {
                                self.with_worker(|worker| run_blocks(launch, &progress, worker, |_| false));
                            });
                        }
                        self.with_worker(|worker| run_blocks(launch, &progress, worker, |_| false));
                    });
                }
            }
            _ => {
                self.with_worker(|worker| run_blocks(launch, &progress, worker, |_| false));
            }
        }
        launch.watch.ended();
        let fault = progress.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        fault.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    fn with_worker<T>(&self, f: impl FnOnce(&mut Worker) -> T) -> T {
        let kept = || self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut worker = kept().pop().unwrap_or_default();
        let result = f(&mut worker);
        kept().push(worker);
        result
    }
}

/// Runs blocks until none is left or `leave` says so (asked with the number of blocks done here); whether it left
/// early.
fn run_blocks(launch: &Launch, progress: &Progress, worker: &mut Worker, leave: impl Fn(u64) -> bool) -> bool {
    worker.sites.clear();
    worker.sites.resize(launch.program.listing.sites.len() + 1, Site::EMPTY);
    let counting = launch.watch.counts();
    if counting {
        worker.executed.clear();
        worker.executed.resize(launch.program.code.len() + 1, Executed::default());
    }
    let total = launch.grid.blocks();
    let mut resident: Vec<Block> = vec![];
    let mut done = 0;
    let mut idle = 0;
    let mut left_early = false;
    loop {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        // A new block if there is one; else another turn for those that wait.
        let number = if resident.len() < MAX_RESIDENT { progress.next.fetch_add(1, Ordering::Relaxed) } else { total };
        let mut block = if number < total {
            let mut block = worker.blocks.pop().unwrap_or_default();
            block.start(launch, number);
            block
        } else if resident.is_empty() {
            break;
        } else {
            idle += 1;
            resident.remove(0)
        };
        let executed = counting.then_some(&mut worker.executed[..]);
        match block.run(launch, &mut worker.sites, executed) {
            Ok(Outcome::Done) => {
                idle = 0;
                done += 1;
                block.state.finish();
                worker.blocks.push(block);
                if resident.is_empty() && leave(done) {
                    left_early = true;
                    break;
                }
            }
            Ok(Outcome::Waiting) if idle > MAX_IDLE_ROUNDS * (resident.len() as u32 + 1) => {
                stop(progress, number, block.stuck(launch));
                break;
            }
            Ok(Outcome::Waiting) => resident.push(block),
            Err(fault) => {
                stop(progress, number, fault);
                block.state.give_up();
                break;
            }
        }
    }
    launch.watch.executed(launch.program.code.iter().map(|inst| inst.origin), &worker.executed);
    left_early
}

fn stop(progress: &Progress, turn: u64, fault: Box<Fault>) {
    progress.stop.store(true, Ordering::Relaxed);
    let mut first = progress.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if first.as_ref().is_none_or(|(earlier, _)| turn < *earlier) {
        *first = Some((turn, fault));
    }
}
