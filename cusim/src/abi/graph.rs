//! Graphs.

use std::ffi::{c_uint, c_ulonglong, c_void};

use super::{api, put};
use crate::driver::capture::exchange_mode;
use crate::driver::code::{Code, INVALID_VALUE};
use crate::driver::graph::{Graph, Refusal};
use crate::driver::with;

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
pub struct UpdateInfo {
    result: c_uint,
    node: u64,
    from: u64,
}

fn instantiate(exec: *mut u64, graph: u64) -> Result<(), Code> {
    let made = with(|d| d.instantiate(graph))?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(exec, made) }
}

api! {
    /// Begins to record a stream.
    fn cuStreamBeginCapture_v2(stream: u64, mode: c_uint) {
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.begin_capture(stream, mode)
        })
    }

    /// Ends recording; the graph is null if that failed.
    fn cuStreamEndCapture(stream: u64, graph: *mut u64) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(graph, 0)? };
        let made = with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.end_capture(stream)
        })?;
        // SAFETY: as above.
        unsafe { put(graph, made) }
    }

    /// Whether a stream is recorded.
    fn cuStreamIsCapturing(stream: u64, status: *mut c_uint) {
        let (found, _) = with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.capture_status(stream)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(status, found) }
    }

    /// Whether a stream is recorded, and into which graph.
    fn cuStreamGetCaptureInfo_v2(
        stream: u64, status: *mut c_uint, id: *mut u64, graph: *mut u64,
        dependencies: *mut *const c_void, count: *mut usize,
    ) {
        let _ = dependencies;
        let (found, recorded) = with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.capture_status(stream)
        })?;
        // SAFETY: the caller gives null or valid pointers.
        unsafe {
            put(status, found)?;
            for pointer in [id, graph] {
                if !pointer.is_null() {
                    put(pointer, recorded)?;
                }
            }
            if !count.is_null() {
                put(count, 0)?;
            }
        }
        Ok(())
    }

    /// Sets whose captures keep the calling thread from unsafe calls; gives what was set before.
    fn cuThreadExchangeStreamCaptureMode(mode: *mut c_uint) {
        if mode.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so valid by the caller's promise.
        let before = exchange_mode(unsafe { *mode })?;
        // SAFETY: as above.
        unsafe { put(mode, before) }
    }

    /// An empty graph.
    fn cuGraphCreate(graph: *mut u64, flags: c_uint) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let made = with(|d| Ok(d.graphs.add(Graph::default())))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(graph, made) }
    }

    /// Number of nodes; the nodes themselves cannot be had.
    fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize) {
        if !nodes.is_null() {
            crate::driver::say("cuGraphGetNodes: only the number of nodes can be had");
            return Err(crate::driver::code::NOT_SUPPORTED);
        }
        let nodes = with(|d| Ok(d.graphs.get(graph)?.nodes.len()))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(count, nodes) }
    }

    /// Makes a graph ready to run.
    fn cuGraphInstantiateWithFlags(exec: *mut u64, graph: u64, flags: c_ulonglong) {
        if flags > 15 {
            return Err(INVALID_VALUE);
        }
        instantiate(exec, graph)
    }

    /// Makes a graph ready to run.
    fn cuGraphInstantiate_v2(exec: *mut u64, graph: u64, node: *mut u64, log: *mut u8, bytes: usize) {
        let _ = (node, log, bytes);
        instantiate(exec, graph)
    }

    /// Gives a graph that is ready to run the parameters of another of the same topology.
    fn cuGraphExecUpdate_v2(exec: u64, graph: u64, info: *mut UpdateInfo) {
        if info.is_null() {
            return Err(INVALID_VALUE);
        }
        let updated = with(|d| Ok(d.update_exec(exec, graph)))?;
        let (outcome, answer) = match updated {
            Ok(()) => (UpdateInfo { result: 0, node: 0, from: 0 }, Ok(())),
            Err(Refusal { code, result, node, from }) => (UpdateInfo { result, node, from }, Err(code)),
        };
        // SAFETY: not null, so valid by the caller's promise.
        unsafe { put(info, outcome)? };
        answer
    }

    /// Runs a graph.
    fn cuGraphLaunch(exec: u64, stream: u64) {
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            d.launch_graph(exec, stream)
        })
    }

    /// Prepares a graph on the device, where it already is.
    fn cuGraphUpload(exec: u64, stream: u64) {
        with(|d| {
            d.resolve_stream(stream)?;
            d.execs.get(exec).map(|_| ())
        })
    }

    /// Ends an instance of a graph.
    fn cuGraphExecDestroy(exec: u64) {
        with(|d| d.destroy_exec(exec))
    }

    /// Ends a graph.
    fn cuGraphDestroy(graph: u64) {
        with(|d| d.destroy_graph(graph))
    }
}
