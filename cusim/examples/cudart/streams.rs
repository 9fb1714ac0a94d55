//! Streams, events and graphs.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use cudarc::driver::sys;

use crate::{INVALID_VALUE, api, check};

api! {
    /// A stream.
    fn cudaStreamCreate(stream: *mut sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamCreate(stream, 0) })
    }

    /// A stream.
    fn cudaStreamCreateWithFlags(stream: *mut sys::CUstream, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamCreate(stream, flags) })
    }

    /// A stream with a priority.
    fn cudaStreamCreateWithPriority(stream: *mut sys::CUstream, flags: c_uint, priority: c_int) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamCreateWithPriority(stream, flags, priority) })
    }

    /// Ends a stream.
    fn cudaStreamDestroy(stream: sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamDestroy_v2(stream) })
    }

    /// Waits for a stream.
    fn cudaStreamSynchronize(stream: sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamSynchronize(stream) })
    }

    /// Whether a stream has nothing left to do.
    fn cudaStreamQuery(stream: sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamQuery(stream) })
    }

    /// Makes a stream wait for an event.
    fn cudaStreamWaitEvent(stream: sys::CUstream, event: sys::CUevent, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamWaitEvent(stream, event, flags) })
    }

    /// Calls a function of the host in stream order.
    fn cudaLaunchHostFunc(stream: sys::CUstream, function: sys::CUhostFn, data: *mut c_void) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuLaunchHostFunc(stream, function, data) })
    }

    /// Begins to record a stream.
    fn cudaStreamBeginCapture(stream: sys::CUstream, mode: c_uint) {
        let mode = match mode {
            0 => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            1 => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            2 => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
            _ => return Err(INVALID_VALUE),
        };
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })
    }

    /// Ends recording.
    fn cudaStreamEndCapture(stream: sys::CUstream, graph: *mut sys::CUgraph) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuStreamEndCapture(stream, graph) })
    }

    /// Makes a graph ready to run.
    fn cudaGraphInstantiate(exec: *mut sys::CUgraphExec, graph: sys::CUgraph, flags: c_ulonglong) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuGraphInstantiateWithFlags(exec, graph, flags) })
    }

    /// Runs a graph in a stream.
    fn cudaGraphLaunch(exec: sys::CUgraphExec, stream: sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuGraphLaunch(exec, stream) })
    }

    /// Ends a graph.
    fn cudaGraphDestroy(graph: sys::CUgraph) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuGraphDestroy(graph) })
    }

    /// Ends an instance of a graph.
    fn cudaGraphExecDestroy(exec: sys::CUgraphExec) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuGraphExecDestroy(exec) })
    }

    /// An event.
    fn cudaEventCreate(event: *mut sys::CUevent) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventCreate(event, 0) })
    }

    /// An event.
    fn cudaEventCreateWithFlags(event: *mut sys::CUevent, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventCreate(event, flags) })
    }

    /// Records an event in a stream.
    fn cudaEventRecord(event: sys::CUevent, stream: sys::CUstream) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventRecord(event, stream) })
    }

    /// Waits for an event.
    fn cudaEventSynchronize(event: sys::CUevent) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventSynchronize(event) })
    }

    /// Whether an event has come.
    fn cudaEventQuery(event: sys::CUevent) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventQuery(event) })
    }

    /// Milliseconds between two events.
    fn cudaEventElapsedTime(milliseconds: *mut f32, start: sys::CUevent, end: sys::CUevent) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventElapsedTime(milliseconds, start, end) })
    }

    /// Ends an event.
    fn cudaEventDestroy(event: sys::CUevent) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuEventDestroy_v2(event) })
    }
}
