//! Devices and contexts.

use std::cell::RefCell;
use std::collections::HashMap;

use super::code::*;
use super::device::Model;
use super::handles::Kind;
use super::memory::Pool;
use super::release::loaded;
use super::{Driver, say};

/// A device.
pub struct Device {
    /// What it is.
    pub model: &'static Model,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes in use.
    pub used: u64,
    /// The primary context, while it is retained.
    pub primary: Option<u64>,
    /// How often it is retained.
    pub retained: u32,
    /// Flags of the primary context.
    pub primary_flags: u32,
    /// The pool that it began with.
    pub default_pool: u64,
    /// The pool that allocations come from.
    pub current_pool: u64,
}

/// A context.
pub struct Context {
    /// Its device.
    pub device: u32,
    /// Its flags.
    pub flags: u32,
    /// Limits that were set.
    pub limits: HashMap<u32, usize>,
    /// Its cache configuration.
    pub cache_config: u32,
    /// The stream with handle 0.
    pub legacy: u64,
    /// The stream that handle 2 stands for.
    pub per_thread: u64,
    /// Devices whose memory it may reach.
    pub peers: Vec<u32>,
}

impl Kind for Context {
    const TAG: u64 = 0x51;
}

/// The device attribute that says whether there are memory pools.
const MEMORY_POOLS_SUPPORTED: u32 = 115;

thread_local! {
    /// Contexts of this thread, the current one last.
    static CURRENT: RefCell<Vec<u64>> = const { RefCell::new(vec![]) };
}

/// The thread's current context, 0 if none.
pub fn current() -> u64 {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// Replaces the thread's current context.
pub fn set_current(context: u64) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        if context != 0 {
            stack.push(context);
        }
    });
}

/// Makes a context current on top of the others.
pub fn push_current(context: u64) {
    CURRENT.with_borrow_mut(|stack| stack.push(context));
}

/// Takes the current context off.
pub fn pop_current() -> Option<u64> {
    CURRENT.with_borrow_mut(Vec::pop)
}

/// The limit of what kernels allocate.
pub const MALLOC_HEAP_SIZE: u32 = 2;

/// The limits of a context that cusim knows, and what they are at first.
fn default_limit(limit: u32) -> Option<usize> {
    match limit {
        0 => Some(1024),
        1 => Some(1 << 20),
        MALLOC_HEAP_SIZE => Some(8 << 20),
        3 => Some(2),
        4 => Some(2048),
        5 => Some(128),
        6 => Some(0),
        _ => None,
    }
}

impl Driver {
    pub(super) fn make_devices(&mut self) {
        let model = self.config.device.as_deref().and_then(Model::find).unwrap_or(Model::standard());
        let memory = self.config.failures.memory.unwrap_or(model.memory);
        for ordinal in 0..self.config.devices {
            let pool = self.pools.add(Pool::new(ordinal));
            self.devices.push(Device {
                model,
                memory,
                used: 0,
                primary: None,
                retained: 0,
                primary_flags: 0,
                default_pool: pool,
                current_pool: pool,
            });
        }
    }

    /// A device by ordinal.
    pub fn device(&mut self, ordinal: i32) -> Result<&mut Device, Code> {
        usize::try_from(ordinal).ok().and_then(|index| self.devices.get_mut(index)).ok_or(INVALID_DEVICE)
    }

    /// An attribute of a device, as driver and settings let it be.
    pub fn device_attribute(&mut self, ordinal: i32, attribute: u32) -> Result<i32, Code> {
        let pools = self.config.pools;
        let model = self.device(ordinal)?.model;
        if attribute > loaded().attributes {
            return Err(INVALID_VALUE);
        }
        match model.attribute(attribute, ordinal as u32).ok_or(INVALID_VALUE)? {
            _ if attribute == MEMORY_POOLS_SUPPORTED && !pools => Ok(0),
            value => Ok(value),
        }
    }

    /// The calling thread's context.
    pub fn context(&mut self) -> Result<&mut Context, Code> {
        match current() {
            0 => Err(INVALID_CONTEXT),
            handle => self.contexts.get_mut(handle).map_err(|_| CONTEXT_IS_DESTROYED),
        }
    }

    /// The calling thread's device.
    pub fn current_device(&mut self) -> Result<u32, Code> {
        Ok(self.context()?.device)
    }

    /// Makes a context.
    pub fn create_context(&mut self, ordinal: i32, flags: u32) -> Result<u64, Code> {
        self.device(ordinal)?;
        let context = self.contexts.add(Context {
            device: ordinal as u32,
            flags,
            limits: HashMap::new(),
            cache_config: 0,
            legacy: 0,
            per_thread: 0,
            peers: vec![],
        });
        let legacy = self.make_stream(context, false, 0);
        let per_thread = self.make_stream(context, false, 0);
        let made = self.contexts.get_mut(context)?;
        (made.legacy, made.per_thread) = (legacy, per_thread);
        Ok(context)
    }

    /// Ends a context and everything in it.
    pub fn destroy_context(&mut self, context: u64) -> Result<(), Code> {
        self.contexts.get(context).map_err(|_| INVALID_CONTEXT)?;
        let drained = self.drain_context(context);
        for stream in self.streams.handles() {
            if self.streams.get(stream)?.context == context {
                self.streams.remove(stream)?;
            }
        }
        for module in self.modules.handles() {
            if self.modules.get(module)?.context == context {
                self.unload_module(module)?;
            }
        }
        self.contexts.remove(context)?;
        drained
    }

    /// Retains a device's primary context.
    pub fn retain_primary(&mut self, ordinal: i32) -> Result<u64, Code> {
        let device = self.device(ordinal)?;
        device.retained += 1;
        let flags = device.primary_flags;
        if let Some(context) = device.primary {
            return Ok(context);
        }
        let context = self.create_context(ordinal, flags)?;
        self.device(ordinal)?.primary = Some(context);
        Ok(context)
    }

    /// Releases a device's primary context; the last release ends it.
    pub fn release_primary(&mut self, ordinal: i32) -> Result<(), Code> {
        let device = self.device(ordinal)?;
        if device.retained == 0 {
            return Err(INVALID_CONTEXT);
        }
        device.retained -= 1;
        if device.retained == 0
            && let Some(context) = device.primary.take()
        {
            return self.destroy_context(context);
        }
        Ok(())
    }

    /// A limit of the current context.
    pub fn limit(&mut self, limit: u32) -> Result<usize, Code> {
        let default = default_limit(limit).ok_or(INVALID_VALUE)?;
        Ok(self.context()?.limits.get(&limit).copied().unwrap_or(default))
    }

    /// Sets a limit of the current context.
    pub fn set_limit(&mut self, limit: u32, value: usize) -> Result<(), Code> {
        default_limit(limit).ok_or(INVALID_VALUE)?;
        let device = self.current_device()?;
        if limit == MALLOC_HEAP_SIZE && self.memory.heap(device).is_some() {
            say("cuCtxSetLimit: the heap has its size since the first launch of a kernel that allocates");
            return Err(INVALID_VALUE);
        }
        self.context()?.limits.insert(limit, value);
        Ok(())
    }
}
