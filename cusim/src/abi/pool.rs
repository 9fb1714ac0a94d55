//! Pools of memory.

use std::ffi::{c_int, c_uint, c_void};

use super::{api, put};
use crate::driver::code::{INVALID_VALUE, NOT_SUPPORTED};
use crate::driver::memory::Pool;
use crate::driver::with;

api! {
    /// The pool that a device began with.
    fn cuDeviceGetDefaultMemPool(pool: *mut u64, device: c_int) {
        let found = with(|d| {
            let pool = d.device(device)?.default_pool;
            d.need_pools().map(|()| pool)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(pool, found) }
    }

    /// The pool that a device's allocations come from.
    fn cuDeviceGetMemPool(pool: *mut u64, device: c_int) {
        let found = with(|d| {
            let pool = d.device(device)?.current_pool;
            d.need_pools().map(|()| pool)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(pool, found) }
    }

    /// Sets the pool that a device's allocations come from.
    fn cuDeviceSetMemPool(device: c_int, pool: u64) {
        with(|d| {
            d.need_pools()?;
            d.pools.get(pool)?;
            d.device(device)?.current_pool = pool;
            Ok(())
        })
    }

    /// Makes a pool on the device that its properties name.
    fn cuMemPoolCreate(pool: *mut u64, properties: *const [c_int; 4]) {
        if properties.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives properties: kind of allocation, kind of handles, kind of place, device.
        let [kind, handles, location, device] = unsafe { *properties };
        if kind != 1 || location != 1 {
            return Err(INVALID_VALUE);
        }
        if handles != 0 {
            crate::driver::say("cuMemPoolCreate: memory cannot be shared with other processes");
            return Err(NOT_SUPPORTED);
        }
        let made = with(|d| {
            d.device(device)?;
            d.need_pools()?;
            Ok(d.pools.add(Pool::new(device as u32)))
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(pool, made) }
    }

    /// Ends a pool.
    fn cuMemPoolDestroy(pool: u64) {
        with(|d| {
            d.need_pools()?;
            if d.devices.iter().any(|device| device.default_pool == pool) {
                return Err(INVALID_VALUE);
            }
            for device in &mut d.devices {
                if device.current_pool == pool {
                    device.current_pool = device.default_pool;
                }
            }
            d.pools.remove(pool).map(|_| ())
        })
    }

    /// Gives memory that a pool keeps back to the system; it keeps none.
    fn cuMemPoolTrimTo(pool: u64, keep: usize) {
        let _ = keep;
        with(|d| {
            d.need_pools()?;
            d.pools.get(pool).map(|_| ())
        })
    }

    /// A pool's attribute: four bytes for the switches, eight for amounts.
    fn cuMemPoolGetAttribute(pool: u64, attribute: c_uint, value: *mut c_void) {
        let (found, wide) = with(|d| d.pool_attribute(pool, attribute))?;
        // SAFETY: the caller gives a pointer to a value of the attribute's type.
        unsafe { if wide { put(value.cast::<u64>(), found) } else { put(value.cast::<c_int>(), found as c_int) } }
    }

    /// Sets a pool's attribute.
    fn cuMemPoolSetAttribute(pool: u64, attribute: c_uint, value: *const c_void) {
        if value.is_null() {
            return Err(INVALID_VALUE);
        }
        let (_, wide) = with(|d| d.pool_attribute(pool, attribute))?;
        // SAFETY: the caller gives a pointer to a value of the attribute's type.
        let value = unsafe { if wide { *value.cast::<u64>() } else { *value.cast::<c_uint>() as u64 } };
        with(|d| d.set_pool_attribute(pool, attribute, value))
    }
}
