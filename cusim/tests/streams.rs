//! Work that streams do late: after failures, and functions of the host that a program waits for by itself.

mod support;

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{self, CUresult as Code};
use cudarc::driver::{CudaContext, CudaFunction, DevicePtr, LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::Ptx;

fn double(ctx: &Arc<CudaContext>) -> CudaFunction {
    let module = ctx.load_module(Ptx::from_src(support::compile("driver", &[]))).unwrap();
    module.load_function("double_all").unwrap()
}

fn config(threads: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

/// A copy into memory of the host fails because of what was queued before it; afterwards that memory is the host's again.
fn a_failed_copy_is_over() {
    let ctx = CudaContext::new(0).unwrap();
    unsafe { ctx.disable_event_tracking() };
    let stream = ctx.new_stream().unwrap();
    let double = double(&ctx);
    let mut values = stream.alloc_zeros::<f32>(64).unwrap();
    let address = values.device_ptr(&stream).0;
    let mut host = vec![7.0f32; 64];

    // What was queued before is wrong, but the context lives on.
    let held = stream.alloc_zeros::<u8>(64).unwrap();
    let start = held.device_ptr(&stream).0;
    stream.synchronize().unwrap();
    // SAFETY: freeing twice is what is tested; `held` is not used any more.
    unsafe {
        result::free_async(start, stream.cu_stream()).unwrap();
        let twice = sys::cuMemFreeAsync(start, stream.cu_stream());
        let copied = sys::cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), address, 256, stream.cu_stream());
        let failed = [twice, copied].into_iter().filter(|code| *code == Code::CUDA_ERROR_INVALID_VALUE).count();
        assert_eq!(failed, 1, "{twice:?} {copied:?}");
    }
    std::mem::forget(held);
    host.fill(7.0);
    stream.synchronize().unwrap();
    assert_eq!(host, [7.0; 64]);

    // A kernel makes the context useless. Ending the context does not carry out what failed.
    let n = 1i32 << 20;
    // In the stream that copies without one wait for.
    let legacy = ctx.default_stream();
    let launched = unsafe { legacy.launch_builder(&double).arg(&mut values).arg(&n).launch(config(1024)) };
    // SAFETY: the host's memory is as large as what is copied.
    let copied = unsafe { sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), address, 256) };
    let illegal = Code::CUDA_ERROR_ILLEGAL_ADDRESS;
    assert!(launched.is_ok() || launched.is_err_and(|error| error.0 == illegal));
    assert_eq!(copied, illegal);
    std::mem::forget(values);
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, Code::CUDA_SUCCESS);
    assert_eq!(host, [7.0; 64]);
}

/// What the functions below saw.
static CALLED: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn reads_the_copy(data: *mut c_void) {
    // SAFETY: the data is pinned memory that an earlier copy wrote.
    SEEN.store(u64::from(unsafe { *data.cast::<u8>() }), Ordering::Relaxed);
    CALLED.fetch_add(1, Ordering::Release);
}

unsafe extern "C" fn is_told_the_stream(stream: sys::CUstream, status: Code, data: *mut c_void) {
    assert_eq!((status, data as usize), (Code::CUDA_SUCCESS, 5));
    SEEN.store(stream as u64, Ordering::Relaxed);
    CALLED.fetch_add(1, Ordering::Release);
}

unsafe extern "C" fn calls_the_driver(_: *mut c_void) {
    let mut count = 0;
    // SAFETY: the pointer is valid; that the driver refuses is what is tested.
    SEEN.store(unsafe { sys::cuDeviceGetCount(&mut count) } as u64, Ordering::Relaxed);
    CALLED.fetch_add(1, Ordering::Release);
}

/// Waits, without a call of the driver, until functions were called so often; what the last one saw.
fn seen_after(calls: u32) -> u64 {
    let start = Instant::now();
    while CALLED.load(Ordering::Acquire) < calls {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody calls the function");
        std::thread::sleep(Duration::from_millis(1));
    }
    SEEN.load(Ordering::Relaxed)
}

/// A program that waits for its own functions gets on, whenever streams do their work.
fn functions_are_called_though_no_call_waits() {
    let ctx = CudaContext::new(0).unwrap();
    let stream = ctx.new_stream().unwrap();
    let (values, raw) = (stream.clone_htod(&[9u8; 16]).unwrap(), stream.cu_stream());
    // SAFETY: the functions get what they expect, and it lives until they were called.
    unsafe {
        let pinned = result::malloc_host(16, 0).unwrap().cast::<u8>();
        pinned.write_bytes(1, 16);
        let target = std::slice::from_raw_parts_mut(pinned, 16);
        result::memcpy_dtoh_async(target, values.device_ptr(&stream).0, raw).unwrap();
        sys::cuLaunchHostFunc(raw, Some(reads_the_copy), pinned.cast()).result().unwrap();
        assert_eq!(seen_after(1), 9, "after the copy before it");
        sys::cuStreamAddCallback(raw, Some(is_told_the_stream), 5 as *mut c_void, 0).result().unwrap();
        assert_eq!(seen_after(2), raw as u64);
        sys::cuLaunchHostFunc(raw, Some(calls_the_driver), std::ptr::null_mut()).result().unwrap();
        assert_eq!(seen_after(3), Code::CUDA_ERROR_NOT_PERMITTED as u64);
        stream.synchronize().unwrap();
        result::free_host(pinned.cast()).unwrap();
    }
}

on_cusim! {
    fn a_failed_copy_is_over_at_once() {
        a_failed_copy_is_over();
    }

    fn a_failed_copy_is_over_late("CUSIM_ASYNC" = "late") {
        a_failed_copy_is_over();
    }

    fn a_failed_copy_is_over_at_random("CUSIM_ASYNC" = "seed:1") {
        a_failed_copy_is_over();
    }

    fn functions_are_called_at_once() {
        functions_are_called_though_no_call_waits();
    }

    fn functions_are_called_late("CUSIM_ASYNC" = "late") {
        functions_are_called_though_no_call_waits();
    }

    fn functions_are_called_at_random("CUSIM_ASYNC" = "seed:5") {
        functions_are_called_though_no_call_waits();
    }

    fn kernels_know_their_architectures("CUSIM_DEVICE" = "h100") {
        let ctx = CudaContext::new(0).unwrap();
        let double = double(&ctx);
        let attribute = |name| double.get_attribute(name).unwrap();
        assert_eq!(attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION), 80, "what it was written for");
        assert_eq!(attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_BINARY_VERSION), 90, "what it runs on");
    }
}
