//! Initialisation, devices, contexts.

use std::ffi::{c_char, c_int, c_uint};

use super::{api, put};
use crate::driver::code::{
    Code, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, PEER_ACCESS_ALREADY_ENABLED, PEER_ACCESS_NOT_ENABLED,
};
use crate::driver::context::{current, pop_current, push_current, set_current};
use crate::driver::{initialise, with};

fn check_context(context: u64) -> Result<(), Code> {
    if context == 0 { Ok(()) } else { with(|d| d.contexts.get(context).map(|_| ()).map_err(|_| INVALID_CONTEXT)) }
}

fn copy_name(name: &str, to: *mut c_char, length: c_int) -> Result<(), Code> {
    if to.is_null() || length <= 0 {
        return Err(INVALID_VALUE);
    }
    let bytes = &name.as_bytes()[..name.len().min(length as usize - 1)];
    // SAFETY: the caller gives room for `length` bytes; the last one is the zero.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        to.add(bytes.len()).write(0);
    }
    Ok(())
}

fn uuid(to: *mut [u8; 16], device: c_int) -> Result<(), Code> {
    let capability = with(|d| Ok(d.device(device)?.model.target()))?;
    let mut id = *b"cusim device 0\0\0";
    id[13] += device as u8;
    id[15] = capability as u8;
    // SAFETY: the caller gives room for sixteen bytes.
    unsafe { put(to, id) }
}

fn create(context: *mut u64, flags: c_uint, device: c_int) -> Result<(), Code> {
    let made = with(|d| d.create_context(device, flags))?;
    push_current(made);
    // SAFETY: the caller gives room for a handle.
    unsafe { put(context, made) }
}

api! {
    /// Initialises the driver.
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        initialise()
    }

    /// The newest CUDA version that the driver claims to support.
    fn cuDriverGetVersion(version: *mut c_int) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(version, crate::driver::release::loaded().cuda as c_int) }
    }

    /// A device by ordinal.
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        with(|d| d.device(ordinal).map(|_| ()))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(device, ordinal) }
    }

    /// Number of devices.
    fn cuDeviceGetCount(count: *mut c_int) {
        let devices = with(|d| Ok(d.devices.len()))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(count, devices as c_int) }
    }

    /// A device's name.
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        let text = with(|d| Ok(d.device(device)?.model.name))?;
        copy_name(text, name, length)
    }

    /// A device's identifier.
    fn cuDeviceGetUuid(id: *mut [u8; 16], device: c_int) {
        uuid(id, device)
    }

    /// A device's identifier.
    fn cuDeviceGetUuid_v2(id: *mut [u8; 16], device: c_int) {
        uuid(id, device)
    }

    /// A device's memory.
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        let total = with(|d| Ok(d.device(device)?.memory))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(bytes, total as usize) }
    }

    /// An attribute of a device.
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) {
        let found = with(|d| d.device_attribute(device, attribute))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(value, found) }
    }

    /// Compute capability.
    fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: c_int) {
        let capability = with(|d| Ok(d.device(device)?.model.capability))?;
        // SAFETY: the caller gives valid pointers.
        unsafe {
            put(major, capability.0)?;
            put(minor, capability.1)
        }
    }

    /// Place of a device on the bus.
    fn cuDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) {
        with(|d| d.device(device).map(|_| ()))?;
        copy_name(&format!("0000:{:02x}:00.0", device + 1), name, length)
    }

    /// Whether a device can reach another's memory.
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        with(|d| d.device(device).map(|_| ()).and(d.device(peer).map(|_| ())))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(can, c_int::from(device != peer)) }
    }

    /// Lets the current context reach another device's memory.
    fn cuCtxEnablePeerAccess(peer: u64, flags: c_uint) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        with(|d| {
            let other = d.contexts.get(peer).map_err(|_| INVALID_CONTEXT)?.device;
            let own = d.context()?;
            if own.device == other {
                return Err(INVALID_DEVICE);
            }
            if own.peers.contains(&other) {
                return Err(PEER_ACCESS_ALREADY_ENABLED);
            }
            own.peers.push(other);
            Ok(())
        })
    }

    /// Ends what `cuCtxEnablePeerAccess` began.
    fn cuCtxDisablePeerAccess(peer: u64) {
        with(|d| {
            let other = d.contexts.get(peer).map_err(|_| INVALID_CONTEXT)?.device;
            let own = d.context()?;
            let before = own.peers.len();
            own.peers.retain(|device| *device != other);
            if own.peers.len() == before { Err(PEER_ACCESS_NOT_ENABLED) } else { Ok(()) }
        })
    }

    /// Retains a device's primary context.
    fn cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) {
        let retained = with(|d| d.retain_primary(device))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(context, retained) }
    }

    /// Releases a device's primary context.
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        with(|d| d.release_primary(device))
    }

    /// Sets the flags of a device's primary context.
    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) {
        with(|d| {
            d.device(device)?.primary_flags = flags;
            Ok(())
        })
    }

    /// Flags of a device's primary context, and whether it is active.
    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut c_uint, active: *mut c_int) {
        let (set, is_active) = with(|d| {
            let device = d.device(device)?;
            Ok((device.primary_flags, device.primary.is_some()))
        })?;
        // SAFETY: the caller gives valid pointers.
        unsafe {
            put(flags, set)?;
            put(active, c_int::from(is_active))
        }
    }

    /// Ends a device's primary context whoever retains it, and clears failures.
    fn cuDevicePrimaryCtxReset_v2(device: c_int) {
        with(|d| {
            d.sticky = None;
            match d.device(device)?.primary {
                Some(context) => {
                    let drained = d.destroy_context(context);
                    d.device(device)?.primary = None;
                    drained
                }
                None => Ok(()),
            }
        })
    }

    /// Makes a context and makes it current.
    fn cuCtxCreate_v2(context: *mut u64, flags: c_uint, device: c_int) {
        create(context, flags, device)
    }

    /// Makes a context and makes it current; execution affinity is not supported and must be absent.
    fn cuCtxCreate_v3(context: *mut u64, params: *const u8, count: c_int, flags: c_uint, device: c_int) {
        if !params.is_null() && count > 0 {
            crate::driver::say("cuCtxCreate_v3: execution affinity is not supported");
            return Err(crate::driver::code::NOT_SUPPORTED);
        }
        create(context, flags, device)
    }

    /// Makes a context and makes it current.
    fn cuCtxCreate_v4(context: *mut u64, params: *const u8, flags: c_uint, device: c_int) {
        let _ = params;
        create(context, flags, device)
    }

    /// Ends a context.
    fn cuCtxDestroy_v2(context: u64) {
        if current() == context {
            pop_current();
        }
        with(|d| d.destroy_context(context))
    }

    /// The thread's current context.
    fn cuCtxGetCurrent(context: *mut u64) {
        with(|_| Ok(()))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(context, current()) }
    }

    /// Replaces the thread's current context.
    fn cuCtxSetCurrent(context: u64) {
        check_context(context)?;
        set_current(context);
        Ok(())
    }

    /// Makes a context current on top of the others.
    fn cuCtxPushCurrent_v2(context: u64) {
        check_context(context)?;
        push_current(context);
        Ok(())
    }

    /// Takes the current context off.
    fn cuCtxPopCurrent_v2(context: *mut u64) {
        let popped = pop_current().ok_or(INVALID_CONTEXT)?;
        if context.is_null() {
            return Ok(());
        }
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(context, popped) }
    }

    /// The current context's device.
    fn cuCtxGetDevice(device: *mut c_int) {
        let ordinal = with(|d| d.current_device())?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(device, ordinal as c_int) }
    }

    /// Waits for everything in the current context.
    fn cuCtxSynchronize() {
        with(|d| d.synchronise_context())
    }

    /// The interface version of a context.
    fn cuCtxGetApiVersion(context: u64, version: *mut c_uint) {
        check_context(context)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(version, 3020) }
    }

    /// Flags of the current context.
    fn cuCtxGetFlags(flags: *mut c_uint) {
        let set = with(|d| Ok(d.context()?.flags))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(flags, set) }
    }

    /// Sets flags of the current context.
    fn cuCtxSetFlags(flags: c_uint) {
        with(|d| {
            d.context()?.flags = flags;
            Ok(())
        })
    }

    /// A limit of the current context.
    fn cuCtxGetLimit(value: *mut usize, limit: c_uint) {
        let found = with(|d| d.limit(limit))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(value, found) }
    }

    /// Sets a limit of the current context.
    fn cuCtxSetLimit(limit: c_uint, value: usize) {
        with(|d| d.set_limit(limit, value))
    }

    /// The preferred cache configuration.
    fn cuCtxGetCacheConfig(config: *mut c_uint) {
        let set = with(|d| Ok(d.context()?.cache_config))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(config, set) }
    }

    /// Sets the preferred cache configuration, which changes nothing here.
    fn cuCtxSetCacheConfig(config: c_uint) {
        if config > 3 {
            return Err(INVALID_VALUE);
        }
        with(|d| {
            d.context()?.cache_config = config;
            Ok(())
        })
    }

    /// The priorities that streams can have.
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        with(|d| d.context().map(|_| ()))?;
        // SAFETY: the caller gives null or valid pointers.
        unsafe {
            if !least.is_null() {
                put(least, 0)?;
            }
            if !greatest.is_null() {
                put(greatest, -5)?;
            }
        }
        Ok(())
    }
}
