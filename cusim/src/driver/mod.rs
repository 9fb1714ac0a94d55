//! The driver's state and what its calls do, apart from the C interface.

pub mod absent;
pub mod callback;
pub mod calls;
pub mod capture;
pub mod code;
pub mod config;
pub mod context;
pub mod device;
pub mod graph;
pub mod handles;
pub mod kernel;
pub mod library;
pub mod memory;
pub mod occupancy;
pub mod release;
pub mod rows;
pub mod stream;
pub mod work;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::check::report::Sink;
use crate::count::Counters;
use crate::exec::launch::Workers;
use crate::exec::order::Random;
use crate::mem::Memory;
use code::{Code, NOT_INITIALIZED};
use config::Config;
use context::{Context, Device};
use graph::{Graph, GraphExec};
use handles::Handles;
use kernel::{Function, LoadedModule};
use library::{Kernel, Library};
use memory::Pool;
use stream::{Event, Stream};

/// Everything that the driver knows.
pub struct Driver {
    pub config: Config,
    pub devices: Vec<Device>,
    pub memory: Memory,
    pub workers: Workers,
    pub contexts: Handles<Context>,
    pub modules: Handles<LoadedModule>,
    pub functions: Handles<Function>,
    pub libraries: Handles<Library>,
    pub kernels: Handles<Kernel>,
    pub streams: Handles<Stream>,
    pub events: Handles<Event>,
    pub graphs: Handles<Graph>,
    pub execs: Handles<GraphExec>,
    pub pools: Handles<Pool>,
    /// Flags of pinned and registered memory.
    pub host_flags: HashMap<u64, u32>,
    pub sink: Sink,
    pub counters: Option<Mutex<Counters>>,
    /// A failure that made the context useless.
    pub sticky: Option<Code>,
    /// Whether the program met what it can hardly recover from, so that what it leaves allocated says nothing.
    pub hopeless: bool,
    pub launches: u64,
    /// Memory for cooperative grids, once there was one.
    pub workspace: u64,
    pub allocations: u64,
    /// Order of issue over all streams.
    pub issued: u64,
    pub random: Random,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// The driver's state, whoever else used it last.
fn lock() -> MutexGuard<'static, Option<Driver>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A function of the host that a stream calls must not call the driver.
fn refuse_inside() -> Result<(), Code> {
    if callback::is_inside() {
        say("a function that a stream calls must not call the driver");
        return Err(code::NOT_PERMITTED);
    }
    Ok(())
}

/// `cuInit`.
pub fn initialise() -> Result<(), Code> {
    refuse_inside()?;
    let mut driver = lock();
    if driver.is_none() {
        *driver = Some(Driver::new()?);
        // SAFETY: the function has C's calling convention and takes nothing.
        unsafe { libc::atexit(at_exit) };
    }
    Ok(())
}

/// Runs a call on the driver's state.
pub fn with<T>(f: impl FnOnce(&mut Driver) -> Result<T, Code>) -> Result<T, Code> {
    refuse_inside()?;
    match &mut *lock() {
        Some(driver) => f(driver),
        None => Err(NOT_INITIALIZED),
    }
}

/// How often, and how long each time, the end of the process waits for other threads.
const MAX_EXIT_WAITS: u32 = 100;
const EXIT_WAIT: Duration = Duration::from_millis(10);

/// At the end of the process: finishes what was not waited for, reports leaks, writes files.
extern "C" fn at_exit() {
    // Another thread may be inside a call, and that for good.
    for _ in 0..MAX_EXIT_WAITS {
        match DRIVER.try_lock() {
            Ok(mut driver) => return driver.as_mut().map_or((), Driver::finish),
            // A bug in cusim, which was said when it showed.
            Err(TryLockError::Poisoned(_)) => return,
            Err(TryLockError::WouldBlock) => std::thread::sleep(EXIT_WAIT),
        }
    }
    say(
        "the program ends while another thread is inside a call: leaks and files of reports and counts are not written",
    );
}

/// Says something to the user.
pub fn say(message: &str) {
    eprintln!("cusim: {message}");
}

impl Driver {
    fn new() -> Result<Self, Code> {
        if !crate::exec::op::has_avx2() {
            say("this processor lacks AVX2, FMA or F16C, which cusim needs");
            return Err(code::NO_DEVICE);
        }
        let config = Config::from_env().map_err(|message| {
            say(&message);
            code::INVALID_VALUE
        })?;
        absent::outcome().map_err(|message| {
            say(&format!("CUSIM_DRIVER={}: {message}", release::loaded().key));
            code::NOT_SUPPORTED
        })?;
        let Some(memory) = Memory::new() else {
            say("the host refuses to reserve address space (see ulimit -v and vm.overcommit_memory)");
            return Err(code::OUT_OF_MEMORY);
        };
        let mut driver = Self {
            devices: vec![],
            memory,
            workers: Workers::new(config.threads),
            contexts: Handles::default(),
            modules: Handles::default(),
            functions: Handles::default(),
            libraries: Handles::default(),
            kernels: Handles::default(),
            streams: Handles::default(),
            events: Handles::default(),
            graphs: Handles::default(),
            execs: Handles::default(),
            pools: Handles::default(),
            host_flags: HashMap::new(),
            sink: Sink::new(config.checks),
            counters: config.count.is_some().then(Mutex::default),
            sticky: None,
            hopeless: false,
            launches: 0,
            workspace: 0,
            allocations: 0,
            issued: 0,
            random: Random::new(match config.asynchrony {
                config::Asynchrony::Seed(seed) => seed,
                _ => 0,
            }),
            config,
        };
        if driver.config.count.is_some() {
            calls::begin();
        }
        let checks = driver.config.checks;
        if !driver.memory.enable_checks(checks.init, checks.race) {
            say("the host refuses to reserve address space for the checks (see ulimit -v)");
            return Err(code::OUT_OF_MEMORY);
        }
        driver.make_devices();
        Ok(driver)
    }

    /// What a call returns if an earlier failure made the context useless.
    pub fn healthy(&self) -> Result<(), Code> {
        self.sticky.map_or(Ok(()), Err)
    }

    /// Notes a failure that work met, and returns it. In a useless context nothing more is done: what the host gave for it may
    /// be gone.
    pub fn failed<T>(&mut self, code: Code) -> Result<T, Code> {
        if code::is_sticky(code) {
            self.sticky.get_or_insert(code);
            self.hopeless = true;
            self.streams.iter_mut().for_each(|(_, stream)| stream.queue.clear());
        }
        Err(code)
    }

    fn finish(&mut self) {
        let _ = self.drain_all();
        if !self.hopeless {
            self.sink.leaks(&self.memory);
        }
        if let Some(path) = &self.config.report
            && let Err(error) = std::fs::write(path, self.sink.to_json())
        {
            say(&format!("cannot write CUSIM_REPORT={}: {error}", path.display()));
        }
        if let (Some(path), Some(counters)) = (&self.config.count, &self.counters) {
            let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
            counters.calls = calls::all();
            if let Err(error) = std::fs::write(path, counters.to_json()) {
                say(&format!("cannot write CUSIM_COUNT={}: {error}", path.display()));
            }
        }
    }
}

/// Does all of it, whatever fails, and gives the first failure.
fn all(results: impl Iterator<Item = Result<(), Code>>) -> Result<(), Code> {
    let mut first = Ok(());
    for result in results {
        first = first.and(result);
    }
    first
}
