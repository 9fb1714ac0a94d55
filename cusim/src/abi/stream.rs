//! Streams and events.

use std::ffi::{c_int, c_uint, c_void};

use super::{api, put};
use crate::driver::callback::HostFunction;
use crate::driver::code::{Code, INVALID_VALUE};
use crate::driver::context::current;
use crate::driver::with;
use crate::driver::work::Work;

fn create(stream: *mut u64, flags: c_uint, priority: c_int) -> Result<(), Code> {
    if flags > 1 {
        return Err(INVALID_VALUE);
    }
    let made = with(|d| {
        d.context()?;
        Ok(d.make_stream(current(), flags & 1 != 0, priority.clamp(-5, 0)))
    })?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(stream, made) }
}

fn elapsed(milliseconds: *mut f32, start: u64, end: u64) -> Result<(), Code> {
    let time = with(|d| d.elapsed(start, end))?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(milliseconds, time) }
}

api! {
    /// Makes a stream.
    fn cuStreamCreate(stream: *mut u64, flags: c_uint) {
        create(stream, flags, 0)
    }

    /// Makes a stream.
    fn cuStreamCreateWithPriority(stream: *mut u64, flags: c_uint, priority: c_int) {
        create(stream, flags, priority)
    }

    /// Ends a stream once its work is done.
    fn cuStreamDestroy_v2(stream: u64) {
        with(|d| {
            d.streams.get(stream)?;
            let drained = d.drain(stream);
            d.streams.remove(stream)?;
            drained
        })
    }

    /// Waits for a stream.
    fn cuStreamSynchronize(stream: u64) {
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.synchronise_stream(stream)
        })
    }

    /// Whether a stream's work is done.
    fn cuStreamQuery(stream: u64) {
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.query_stream(stream)
        })
    }

    /// Makes a stream wait for an event.
    fn cuStreamWaitEvent(stream: u64, event: u64, flags: c_uint) {
        let _ = flags;
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.wait_event(stream, event)
        })
    }

    /// A stream's priority.
    fn cuStreamGetPriority(stream: u64, priority: *mut c_int) {
        let found = with(|d| {
            let stream = d.resolve_stream(stream)?;
            Ok(d.streams.get(stream)?.priority)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(priority, found) }
    }

    /// A stream's flags.
    fn cuStreamGetFlags(stream: u64, flags: *mut c_uint) {
        let found = with(|d| {
            let stream = d.resolve_stream(stream)?;
            Ok(d.streams.get(stream)?.non_blocking)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(flags, c_uint::from(found)) }
    }

    /// A stream's context.
    fn cuStreamGetCtx(stream: u64, context: *mut u64) {
        let found = with(|d| {
            let stream = d.resolve_stream(stream)?;
            Ok(d.streams.get(stream)?.context)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(context, found) }
    }

    /// Calls the host in stream order.
    fn cuLaunchHostFunc(stream: u64, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        let call = function.ok_or(INVALID_VALUE)?;
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.submit(stream, Work::Host(HostFunction::Plain(call, data as usize)))
        })
    }

    /// Calls the host in stream order, and tells it the stream.
    fn cuStreamAddCallback(
        stream: u64, function: Option<unsafe extern "C" fn(u64, c_uint, *mut c_void)>, data: *mut c_void, flags: c_uint,
    ) {
        let call = function.filter(|_| flags == 0).ok_or(INVALID_VALUE)?;
        with(|d| {
            let resolved = d.resolve_stream(stream)?;
            // No graph has such a node.
            d.refuse_in_capture(resolved)?;
            d.submit(resolved, Work::Host(HostFunction::Callback(call, stream, data as usize)))
        })
    }

    /// Makes an event.
    fn cuEventCreate(event: *mut u64, flags: c_uint) {
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        let made = with(|d| {
            d.context()?;
            Ok(d.create_event(flags))
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(event, made) }
    }

    /// Records an event.
    fn cuEventRecord(event: u64, stream: u64) {
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.record_event(event, stream)
        })
    }

    /// Records an event.
    fn cuEventRecordWithFlags(event: u64, stream: u64, flags: c_uint) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.record_event(event, stream)
        })
    }

    /// Whether an event's last recording is done.
    fn cuEventQuery(event: u64) {
        with(|d| d.query_event(event))
    }

    /// Waits for an event's last recording.
    fn cuEventSynchronize(event: u64) {
        with(|d| d.synchronise_event(event))
    }

    /// Ends an event.
    fn cuEventDestroy_v2(event: u64) {
        with(|d| {
            // Whoever waits for it must not wait for ever.
            let (stream, pending) = {
                let event = d.events.get(event)?;
                (event.stream, event.done < event.recorded)
            };
            if pending && d.streams.get(stream).is_ok() {
                d.drain(stream)?;
            }
            d.events.remove(event).map(|_| ())
        })
    }

    /// Milliseconds between two events.
    fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) {
        elapsed(milliseconds, start, end)
    }

    /// Milliseconds between two events.
    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: u64, end: u64) {
        elapsed(milliseconds, start, end)
    }
}
