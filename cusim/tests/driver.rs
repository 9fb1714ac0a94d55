//! Real cudarc code on cusim.

mod support;

use std::sync::Arc;

use cudarc::driver::sys::{self, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

fn module(ctx: &Arc<CudaContext>) -> Arc<CudaModule> {
    ctx.load_module(Ptx::from_src(support::compile("driver", &[]))).unwrap()
}

fn function(ctx: &Arc<CudaContext>, name: &str) -> CudaFunction {
    module(ctx).load_function(name).unwrap()
}

fn config(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

fn code(error: DriverError) -> sys::CUresult {
    error.0
}

/// Doubles values, through every step that a program takes.
fn double_on(ctx: &Arc<CudaContext>) {
    let stream = ctx.default_stream();
    let double = function(ctx, "double_all");
    let host: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let mut values = stream.clone_htod(&host).unwrap();
    let n = host.len() as i32;
    unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(4, 256)) }.unwrap();
    let result = stream.clone_dtoh(&values).unwrap();
    assert!(result.iter().zip(&host).all(|(doubled, value)| *doubled == 2.0 * value));
}

on_cusim! {
    fn a_kernel_runs() {
        double_on(&CudaContext::new(0).unwrap());
    }

    fn a_kernel_runs_late("CUSIM_ASYNC" = "late", "CUSIM_ORDER" = "reverse") {
        double_on(&CudaContext::new(0).unwrap());
    }

    fn a_kernel_runs_at_random_times("CUSIM_ASYNC" = "seed:3", "CUSIM_ORDER" = "seed:4", "CUSIM_CHECK" = "all") {
        double_on(&CudaContext::new(0).unwrap());
    }

    fn a_non_primary_context() {
        double_on(&CudaContext::new_non_primary(0, 0).unwrap());
    }

    fn device_queries("CUSIM_DEVICE" = "h100") {
        let ctx = CudaContext::new(0).unwrap();
        assert!(ctx.name().unwrap().contains("H100"));
        assert_eq!(ctx.compute_capability().unwrap(), (9, 0));
        let sms = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        assert_eq!(ctx.attribute(sms).unwrap(), 132);
        assert_eq!(CudaContext::device_count().unwrap(), 1);
        ctx.uuid().unwrap();
        let (free, total) = ctx.mem_get_info().unwrap();
        let stream = ctx.default_stream();
        let held = stream.alloc_zeros::<u8>(1 << 20).unwrap();
        assert_eq!(ctx.mem_get_info().unwrap(), (free - (1 << 20), total));
        drop(held);
        assert!(CudaContext::new(1).is_err());
    }

    fn streams_wait_for_events("CUSIM_ASYNC" = "late") {
        let ctx = CudaContext::new(0).unwrap();
        let (first, second) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        let double = function(&ctx, "double_all");
        let host = vec![1.0f32; 64];
        let mut values = first.clone_htod(&host).unwrap();
        let n = 64i32;
        unsafe { first.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) }.unwrap();
        let event = first.record_event(None).unwrap();
        second.wait(&event).unwrap();
        unsafe { second.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) }.unwrap();
        assert_eq!(second.clone_dtoh(&values).unwrap(), vec![4.0; 64]);
    }

    fn events_take_times() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(timed).unwrap();
        let double = function(&ctx, "double_all");
        let mut values = stream.alloc_zeros::<f32>(1 << 16).unwrap();
        let n = 1i32 << 16;
        unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(256, 256)) }.unwrap();
        let end = stream.record_event(timed).unwrap();
        end.synchronize().unwrap();
        assert!(start.elapsed_ms(&end).unwrap() > 0.0);
    }

    fn pinned_memory() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        let mut pinned = unsafe { ctx.alloc_pinned::<f32>(256) }.unwrap();
        pinned.as_mut_slice().unwrap().fill(3.0);
        let values = stream.clone_htod(&pinned).unwrap();
        assert_eq!(stream.clone_dtoh(&values).unwrap(), vec![3.0; 256]);
    }

    fn module_variables() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let module = module(&ctx);
        let mut table = module.get_global("table", &stream).unwrap();
        assert_eq!(table.len(), 16);
        assert_eq!(stream.clone_dtoh(&table).unwrap()[..4], 1.0f32.to_le_bytes());
        stream.memcpy_htod(&[0u8; 16], &mut table).unwrap();
        assert_eq!(stream.clone_dtoh(&table).unwrap(), vec![0; 16]);
        assert!(module.get_global("nothing", &stream).is_err());
    }

    fn dynamic_shared_memory_must_be_asked_for() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let reverse = function(&ctx, "reverse_dynamic");
        let n = 16384i32;
        let mut values = stream.clone_htod(&(0..n).collect::<Vec<_>>()).unwrap();
        let large = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 65536 };
        let refused = unsafe { stream.launch_builder(&reverse).arg(&mut values).arg(&n).launch(large) };
        assert_eq!(code(refused.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert!(reverse.set_attribute(attribute, 1 << 20).is_err());
        reverse.set_attribute(attribute, 65536).unwrap();
        unsafe { stream.launch_builder(&reverse).arg(&mut values).arg(&n).launch(large) }.unwrap();
        assert_eq!(stream.clone_dtoh(&values).unwrap(), (0..n).rev().collect::<Vec<_>>());
    }

    fn occupancy() {
        let ctx = CudaContext::new(0).unwrap();
        let double = function(&ctx, "double_all");
        assert_eq!(double.occupancy_max_active_blocks_per_multiprocessor(1024, 0, None).unwrap(), 1);
        assert_eq!(double.occupancy_max_active_blocks_per_multiprocessor(32, 0, None).unwrap(), 16);
        assert_eq!(double.occupancy_max_active_blocks_per_multiprocessor(128, 40960, None).unwrap(), 2);
        assert_eq!(double.max_threads_per_block().unwrap(), 1024);
        let bounded = function(&ctx, "bounded");
        assert_eq!(bounded.max_threads_per_block().unwrap(), 64);
    }

    fn launches_out_of_bounds_are_refused() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let (double, bounded) = (function(&ctx, "double_all"), function(&ctx, "bounded"));
        let mut values = stream.alloc_zeros::<f32>(16).unwrap();
        let n = 16i32;
        for (f, config) in [(&double, config(1, 2048)), (&double, config(0, 32)), (&bounded, config(1, 65))] {
            let result = unsafe { stream.launch_builder(f).arg(&mut values).arg(&n).launch(config) };
            assert_eq!(code(result.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        double_on(&ctx);
    }

    fn cooperative_grids() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let scan = function(&ctx, "grid_sum");
        let mut values = stream.clone_htod(&vec![1i32; 8 * 64]).unwrap();
        let mut builder = stream.launch_builder(&scan);
        builder.arg(&mut values);
        unsafe { builder.launch_cooperative(config(8, 64)) }.unwrap();
        assert_eq!(stream.clone_dtoh(&values).unwrap(), vec![8 * 64; 8 * 64]);
    }

    fn graphs_replay() {
        let ctx = CudaContext::new(0).unwrap();
        unsafe { ctx.disable_event_tracking() };
        let stream = ctx.new_stream().unwrap();
        let double = function(&ctx, "double_all");
        let mut values = stream.clone_htod(&vec![1.0f32; 64]).unwrap();
        let n = 64i32;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        for _ in 0..3 {
            unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) }.unwrap();
        }
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
        assert_eq!(stream.clone_dtoh(&values).unwrap(), vec![1.0; 64], "capturing runs nothing");
        graph.launch().unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&values).unwrap(), vec![64.0; 64]);
    }

    fn captures_refuse_what_waits() {
        let ctx = CudaContext::new(0).unwrap();
        unsafe { ctx.disable_event_tracking() };
        let stream = ctx.new_stream().unwrap();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        assert_eq!(
            code(stream.synchronize().unwrap_err()),
            sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        );
        let ended = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        assert_eq!(code(ended.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        stream.synchronize().unwrap();
    }

    fn captures_must_be_joined() {
        let ctx = CudaContext::new(0).unwrap();
        unsafe { ctx.disable_event_tracking() };
        let (origin, fork) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        let double = function(&ctx, "double_all");
        let mut values = origin.clone_htod(&vec![1.0f32; 64]).unwrap();
        let n = 64i32;
        for join in [false, true] {
            origin.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
            let event = origin.record_event(None).unwrap();
            fork.wait(&event).unwrap();
            unsafe { fork.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) }.unwrap();
            if join {
                origin.wait(&fork.record_event(None).unwrap()).unwrap();
            }
            let ended = origin.end_capture(sys::CUgraphInstantiate_flags(0)).map(|graph| graph.unwrap());
            match (join, ended) {
                (true, Ok(graph)) => graph.launch().unwrap(),
                (false, Err(error)) => {
                    assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED)
                }
                (_, result) => panic!("join {join}: {:?}", result.map(|_| ())),
            }
        }
        assert_eq!(origin.clone_dtoh(&values).unwrap(), vec![2.0; 64]);
    }

    fn two_devices("CUSIM_DEVICES" = "2") {
        let (first, second) = (CudaContext::new(0).unwrap(), CudaContext::new(1).unwrap());
        let (a, b) = (first.default_stream(), second.default_stream());
        let values = a.clone_htod(&[1u8, 2, 3]).unwrap();
        let mut copy = b.alloc_zeros::<u8>(3).unwrap();
        b.memcpy_dtod(&values, &mut copy).unwrap();
        assert_eq!(b.clone_dtoh(&copy).unwrap(), [1, 2, 3]);
        double_on(&second);
    }

    fn managed_memory() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let double = function(&ctx, "double_all");
        let mut values = unsafe { ctx.alloc_unified::<f32>(64, true) }.unwrap();
        values.as_mut_slice().unwrap().fill(1.5);
        let n = 64i32;
        unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(values.as_slice().unwrap(), [3.0; 64]);
    }

    fn illegal_addresses_are_sticky() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let double = function(&ctx, "double_all");
        let mut values = stream.alloc_zeros::<f32>(60).unwrap();
        let n = 64i32;
        let result = unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) };
        assert_eq!(code(result.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(code(stream.synchronize().unwrap_err()), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    }

    fn allocations_run_out_on_order("CUSIM_FAIL" = "alloc:2") {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let _first = stream.alloc_zeros::<u8>(16).unwrap();
        let second = stream.alloc_zeros::<u8>(16);
        assert_eq!(code(second.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        stream.alloc_zeros::<u8>(16).unwrap();
    }

    fn memory_is_as_small_as_ordered("CUSIM_FAIL" = "memory=1MiB") {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let result = stream.alloc_zeros::<u8>((1 << 20) + 1);
        assert_eq!(code(result.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        stream.alloc_zeros::<u8>(1 << 20).unwrap();
    }

    fn launches_fail_on_order("CUSIM_FAIL" = "ecc:1") {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let double = function(&ctx, "double_all");
        let mut values = stream.alloc_zeros::<f32>(64).unwrap();
        let n = 64i32;
        let result = unsafe { stream.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1, 64)) };
        assert_eq!(code(result.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_ECC_UNCORRECTABLE);
    }

    fn images_that_are_not_ptx_are_refused() {
        let ctx = CudaContext::new(0).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel.cubin");
        std::fs::write(&path, b"\x7fELF\x02\x01\x01").unwrap();
        let refused = ctx.load_module(Ptx::from_file(&path));
        assert_eq!(code(refused.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        // A fat binary of one entry, machine code for sm_86.
        let mut fat = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 0x54, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 0x50, 0, 0, 0, 4];
        fat.resize(16 + 0x54, 0);
        std::fs::write(&path, fat).unwrap();
        let refused = ctx.load_module(Ptx::from_file(&path));
        assert_eq!(code(refused.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        let refused = ctx.load_module(Ptx::from_src("this is no PTX"));
        assert_eq!(code(refused.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_INVALID_PTX);
        let newer = ".version 9.0\n.target sm_90\n.address_size 64\n";
        let refused = ctx.load_module(Ptx::from_src(newer));
        assert_eq!(code(refused.map(|_| ()).unwrap_err()), sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    }

    fn unknown_instructions_are_refused_when_the_function_is_loaded() {
        let ctx = CudaContext::new(0).unwrap();
        let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n.reg .b32 %r<3>;\nfrob.b32 %r1, %r2;\nret;\n}\n.visible .entry fine() {\nret;\n}";
        let module = ctx.load_module(Ptx::from_src(text)).unwrap();
        let refused = module.load_function("k").map(|_| ());
        assert_eq!(code(refused.unwrap_err()), sys::CUresult::CUDA_ERROR_NOT_SUPPORTED);
        module.load_function("fine").unwrap();
        assert!(module.load_function("missing").is_err());
    }
}

on_cusim! {
    /// `symbols.txt` lists the functions that cudarc 0.19.10 looks up, for any version of CUDA.
    fn every_function_that_cudarc_names_is_exported() {
        // SAFETY: loading cusim runs no code of ours, and the names end with a zero.
        let missing: Vec<&str> = unsafe {
            let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null());
            let is_missing = |name: &&str| {
                libc::dlsym(library, std::ffi::CString::new(*name).unwrap().as_ptr()).is_null()
            };
            include_str!("symbols.txt").lines().filter(is_missing).collect()
        };
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn settings_that_make_no_sense_stop_the_driver() {
    if support::is_child() {
        assert!(CudaContext::new(0).is_err());
        return;
    }
    let name = "settings_that_make_no_sense_stop_the_driver";
    let output = support::run_child(name, &[("CUSIM_ORDER", "sideways")]);
    let said = support::text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("CUSIM_ORDER=sideways is not understood; valid: forward, reverse, seed:N"), "{said}");
}
