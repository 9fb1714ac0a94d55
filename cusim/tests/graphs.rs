//! What graphs may become by an update, and what captures forbid to whom.

mod support;

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphExecUpdateResult as Outcome, CUresult as Code, CUstreamCaptureMode as Mode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use cudarc::nvrtc::Ptx;

const RELAXED: Mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
const THREAD_LOCAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const GLOBAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_GLOBAL;

/// A context whose memory carries no events, a stream, and a kernel that doubles values.
struct Bench {
    ctx: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    double: CudaFunction,
}

impl Bench {
    fn new() -> Bench {
        let ctx = CudaContext::new(0).unwrap();
        // SAFETY: the tests order their streams themselves.
        unsafe { ctx.disable_event_tracking() };
        let module = ctx.load_module(Ptx::from_src(support::compile("driver", &[]))).unwrap();
        Bench { stream: ctx.new_stream().unwrap(), double: module.load_function("double_all").unwrap(), ctx }
    }

    fn ones(&self, n: usize) -> CudaSlice<f32> {
        self.stream.clone_htod(&vec![1.0f32; n]).unwrap()
    }

    fn double(&self, stream: &Arc<CudaStream>, values: &CudaSlice<f32>, blocks: u32) {
        let n = values.len() as i32;
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
        unsafe { stream.launch_builder(&self.double).arg(values).arg(&n).launch(config) }.unwrap();
    }

    /// Records what `work` queues, whatever it waits for.
    fn record(&self, work: impl FnOnce()) -> sys::CUgraph {
        self.stream.begin_capture(RELAXED).unwrap();
        work();
        unsafe { result::stream::end_capture(self.stream.cu_stream()) }.unwrap()
    }

    fn ready(&self, graph: sys::CUgraph) -> sys::CUgraphExec {
        unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) }.unwrap()
    }

    fn launch(&self, exec: sys::CUgraphExec) {
        unsafe { result::graph::launch(exec, self.stream.cu_stream()) }.unwrap();
    }

    fn read(&self, values: &CudaSlice<f32>) -> Vec<f32> {
        self.stream.clone_dtoh(values).unwrap()
    }
}

/// The call's code, what happened, and whether a node and an edge are to blame.
fn update(exec: sys::CUgraphExec, graph: sys::CUgraph) -> (Code, Outcome, bool, bool) {
    let mut info: sys::CUgraphExecUpdateResultInfo = unsafe { std::mem::zeroed() };
    let code = unsafe { sys::cuGraphExecUpdate_v2(exec, graph, &mut info) };
    (code, info.result, !info.errorNode.is_null(), !info.errorFromNode.is_null())
}

const UPDATED: (Code, Outcome, bool, bool) = (Code::CUDA_SUCCESS, Outcome::CU_GRAPH_EXEC_UPDATE_SUCCESS, false, false);

fn refused(outcome: Outcome, node: bool, edge: bool) -> (Code, Outcome, bool, bool) {
    (Code::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, outcome, node, edge)
}

fn code<T>(result: Result<T, DriverError>) -> Code {
    result.map(|_| ()).unwrap_err().0
}

/// Arguments, grid and sizes change; what was launched before the update runs as it was.
fn updates_change_parameters() {
    let bench = Bench::new();
    let (small, large) = (bench.ones(64), bench.ones(1000));
    let mut cleared = bench.ones(100);
    let exec = bench.ready(bench.record(|| {
        bench.double(&bench.stream, &small, 1);
        bench.stream.memset_zeros(&mut cleared.slice_mut(..10)).unwrap();
    }));
    bench.launch(exec);
    let other = bench.record(|| {
        bench.double(&bench.stream, &large, 16);
        bench.stream.memset_zeros(&mut cleared.slice_mut(50..)).unwrap();
    });
    assert_eq!(update(exec, other), UPDATED);
    // The graph that the parameters came from is not needed any more.
    unsafe { result::graph::destroy(other) }.unwrap();
    bench.launch(exec);
    bench.launch(exec);
    assert_eq!((bench.read(&small), bench.read(&large)), (vec![2.0; 64], vec![4.0; 1000]));
    let want: Vec<f32> = (0..100).map(|i| if (10..50).contains(&i) { 1.0 } else { 0.0 }).collect();
    assert_eq!(bench.read(&cleared), want);
}

/// Memory that a graph allocates stays as long as the graph or an instance of it, and what was launched.
fn memory_of_graphs_stays_with_their_instances() {
    let bench = Bench::new();
    let mut values = bench.ones(64);
    bench.stream.synchronize().unwrap();
    let before = bench.ctx.mem_get_info().unwrap();
    let graph = bench.record(|| {
        let zeros = bench.stream.alloc_zeros::<f32>(64).unwrap();
        bench.double(&bench.stream, &zeros, 1);
        bench.stream.memcpy_dtod(&zeros, &mut values).unwrap();
    });
    let (first, second) = (bench.ready(graph), bench.ready(graph));
    unsafe { result::graph::destroy(graph) }.unwrap();
    bench.launch(first);
    assert_eq!(bench.read(&values), vec![0.0; 64]);
    unsafe { result::graph::exec_destroy(first) }.unwrap();
    bench.stream.memcpy_htod(&[1.0f32; 64], &mut values).unwrap();
    bench.launch(second);
    unsafe { result::graph::exec_destroy(second) }.unwrap();
    assert_eq!(bench.read(&values), vec![0.0; 64], "what was launched is done");
    assert_eq!(bench.ctx.mem_get_info().unwrap(), before, "nothing is left of it");
}

on_cusim! {
    fn memory_of_graphs_outlives_them() {
        memory_of_graphs_stays_with_their_instances();
    }

    fn memory_of_graphs_outlives_them_late("CUSIM_ASYNC" = "late") {
        memory_of_graphs_stays_with_their_instances();
    }

    fn a_graph_that_allocates_becomes_no_part_of_another() {
        let bench = Bench::new();
        let allocating = bench.ready(bench.record(|| drop(bench.stream.alloc_zeros::<f32>(64).unwrap())));
        bench.stream.begin_capture(RELAXED).unwrap();
        let nested = unsafe { result::graph::launch(allocating, bench.stream.cu_stream()) };
        assert_eq!(code(nested), Code::CUDA_ERROR_NOT_SUPPORTED);
        let ended = unsafe { result::stream::end_capture(bench.stream.cu_stream()) };
        assert_eq!(code(ended), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    }

    fn an_update_changes_parameters_at_once() {
        updates_change_parameters();
    }

    fn an_update_leaves_earlier_launches_alone("CUSIM_ASYNC" = "late", "CUSIM_CHECK" = "all") {
        updates_change_parameters();
    }

    fn another_topology_is_refused_and_changes_nothing() {
        let bench = Bench::new();
        let values = bench.ones(64);
        let twice = || {
            bench.double(&bench.stream, &values, 1);
            bench.double(&bench.stream, &values, 1);
        };
        let exec = bench.ready(bench.record(twice));
        let changed = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        let once = bench.record(|| bench.double(&bench.stream, &values, 1));
        assert_eq!(update(exec, once), refused(changed, false, false));
        // As many nodes, but side by side.
        let fork = bench.ctx.new_stream().unwrap();
        let apart = bench.record(|| {
            fork.wait(&bench.stream.record_event(None).unwrap()).unwrap();
            bench.double(&bench.stream, &values, 1);
            bench.double(&fork, &values, 1);
            bench.stream.join(&fork).unwrap();
        });
        assert_eq!(update(exec, apart), refused(changed, true, false));
        bench.launch(exec);
        assert_eq!(bench.read(&values), vec![4.0; 64]);
    }

    fn an_edge_from_another_node_is_refused() {
        let bench = Bench::new();
        let (values, fork) = (bench.ones(64), bench.ctx.new_stream().unwrap());
        // Two nodes side by side, and one after the first or the second of them.
        let record = |first: bool| bench.record(|| {
            fork.wait(&bench.stream.record_event(None).unwrap()).unwrap();
            bench.double(&bench.stream, &values, 1);
            bench.double(&fork, &values, 1);
            bench.double(if first { &bench.stream } else { &fork }, &values, 1);
            bench.stream.join(&fork).unwrap();
        });
        let exec = bench.ready(record(true));
        assert_eq!(update(exec, record(true)), UPDATED);
        let changed = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        assert_eq!(update(exec, record(false)), refused(changed, true, true));
    }

    fn other_kinds_of_nodes_are_refused() {
        let bench = Bench::new();
        let (values, other) = (bench.ones(64), bench.ones(64));
        let (at, from) = (values.device_ptr(&bench.stream).0, other.device_ptr(&bench.stream).0);
        let pinned = unsafe { bench.ctx.alloc_pinned::<f32>(64) }.unwrap();
        let stream = bench.stream.cu_stream();
        let kernel = bench.record(|| bench.double(&bench.stream, &values, 1));
        let bytes = bench.record(|| unsafe { sys::cuMemsetD8Async(at, 1, 16, stream) }.result().unwrap());
        let words = bench.record(|| unsafe { sys::cuMemsetD32Async(at, 1, 4, stream) }.result().unwrap());
        let copy = |to, from| bench.record(|| unsafe { sys::cuMemcpyAsync(to, from, 256, stream) }.result().unwrap());
        let (within, down) = (copy(at, from), copy(pinned.as_ptr().unwrap() as u64, at));
        let kind = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
        let parameters = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
        for (old, new, outcome) in [
            (kernel, bytes, kind),
            (bytes, within, kind),
            (bytes, words, parameters),
            (within, down, parameters),
        ] {
            assert_eq!(update(bench.ready(old), new), refused(outcome, true, false));
        }
    }

    fn cooperative_nodes_stay_cooperative() {
        let bench = Bench::new();
        let values = bench.stream.clone_htod(&vec![1i32; 8 * 64]).unwrap();
        let module = bench.ctx.load_module(Ptx::from_src(support::compile("driver", &[]))).unwrap();
        let sum = module.load_function("grid_sum").unwrap();
        let config = LaunchConfig { grid_dim: (8, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
        let together = bench.record(|| {
            let mut builder = bench.stream.launch_builder(&sum);
            builder.arg(&values);
            unsafe { builder.launch_cooperative(config) }.unwrap();
        });
        let floats = bench.ones(64);
        let alone = bench.record(|| bench.double(&bench.stream, &floats, 1));
        let attributes = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED;
        assert_eq!(update(bench.ready(alone), together), refused(attributes, true, false));
    }

    fn graphs_that_allocate_are_not_updated() {
        let bench = Bench::new();
        let allocating = || bench.record(|| drop(unsafe { bench.stream.alloc::<f32>(64) }.unwrap()));
        let exec = bench.ready(allocating());
        let unsupported = Outcome::CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED;
        assert_eq!(update(exec, allocating()), refused(unsupported, false, false));
    }

    fn handles_of_nothing_are_invalid() {
        let bench = Bench::new();
        let graph = bench.record(|| {});
        let invalid = (Code::CUDA_ERROR_INVALID_VALUE, Outcome::CU_GRAPH_EXEC_UPDATE_ERROR, false, false);
        assert_eq!(update(std::ptr::null_mut(), graph), invalid);
        assert_eq!(update(bench.ready(graph), std::ptr::null_mut()), invalid);
        let null = unsafe { sys::cuGraphExecUpdate_v2(bench.ready(graph), graph, std::ptr::null_mut()) };
        assert_eq!(null, Code::CUDA_ERROR_INVALID_VALUE);
    }

    fn memory_of_others_is_not_freed_in_a_capture() {
        let bench = Bench::new();
        let values = bench.ones(64);
        let at = values.leak();
        bench.stream.begin_capture(RELAXED).unwrap();
        let freed = unsafe { result::free_async(at, bench.stream.cu_stream()) };
        assert_eq!(code(freed), Code::CUDA_ERROR_INVALID_VALUE);
        let ended = unsafe { result::stream::end_capture(bench.stream.cu_stream()) };
        assert_eq!(code(ended), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        unsafe { result::free_async(at, bench.stream.cu_stream()) }.unwrap();
    }

    fn modes_say_who_may_make_unsafe_calls() {
        let bench = Bench::new();
        let (ctx, stream) = (&bench.ctx, &bench.stream);
        // An allocation that is not ordered by a stream.
        let allocate = || -> Result<(), DriverError> {
            ctx.bind_to_thread()?;
            unsafe { result::free_sync(result::malloc_sync(64)?) }
        };
        let elsewhere = || std::thread::scope(|scope| scope.spawn(allocate).join().unwrap());
        let forbidden = Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        for (mode, here_may, others_may) in
            [(RELAXED, true, true), (THREAD_LOCAL, false, true), (GLOBAL, false, false)]
        {
            for (may, attempt) in [(here_may, &allocate as &dyn Fn() -> _), (others_may, &elsewhere)] {
                stream.begin_capture(mode).unwrap();
                let attempted = attempt();
                let ended = unsafe { result::stream::end_capture(stream.cu_stream()) };
                match may {
                    true => {
                        attempted.unwrap();
                        ended.unwrap();
                    }
                    false => {
                        assert_eq!(code(attempted), forbidden);
                        assert_eq!(code(ended), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
                    }
                }
            }
        }
        // A thread that calls itself relaxed may.
        stream.begin_capture(GLOBAL).unwrap();
        let mut mode = RELAXED;
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result().unwrap();
        assert_eq!(mode, GLOBAL, "what threads begin with");
        allocate().unwrap();
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result().unwrap();
        assert_eq!(mode, RELAXED);
        assert_eq!(code(allocate()), forbidden);
        unsafe { result::stream::end_capture(stream.cu_stream()) }.unwrap_err();
    }

    fn waiting_for_what_is_captured_is_refused_in_every_mode() {
        let bench = Bench::new();
        for mode in [RELAXED, THREAD_LOCAL, GLOBAL] {
            let waits: [&dyn Fn() -> Result<(), DriverError>; 2] =
                [&|| bench.stream.synchronize(), &|| bench.ctx.synchronize()];
            for wait in waits {
                bench.stream.begin_capture(mode).unwrap();
                assert_eq!(code(wait()), Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
                let ended = unsafe { result::stream::end_capture(bench.stream.cu_stream()) };
                assert_eq!(code(ended), Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            }
        }
    }

    fn other_streams_and_their_events_may_be_asked_in_a_relaxed_capture() {
        let bench = Bench::new();
        let other = bench.ctx.new_stream().unwrap();
        let event = other.record_event(None).unwrap();
        for (mode, may) in [(RELAXED, true), (THREAD_LOCAL, false)] {
            bench.stream.begin_capture(mode).unwrap();
            assert_eq!((event.synchronize().is_ok(), event.is_complete()), (may, may));
            assert_eq!(other.synchronize().is_ok(), may);
            let ended = unsafe { result::stream::end_capture(bench.stream.cu_stream()) };
            assert_eq!(ended.is_ok(), may);
        }
    }
}
