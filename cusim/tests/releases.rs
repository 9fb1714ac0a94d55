//! Older drivers, and devices without memory pools.

mod support;

use std::ffi::{CString, c_void};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult as Code, CUstreamCaptureMode as Mode};
use cudarc::driver::{CudaContext, result};

/// A kernel in PTX of some version.
fn ptx(version: &str) -> CString {
    let text = format!(
        "// A comment.\n.version {version}\n.target sm_80\n.address_size 64\n.visible .entry nothing() {{\nret;\n}}\n"
    );
    CString::new(text).unwrap()
}

/// Loads PTX of some version; the code, and what the compiler's log says in `room` bytes.
fn load(version: &str, room: usize) -> (Code, String) {
    let image = ptx(version);
    let mut log = vec![b'?'; room];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), room as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: two options with a value each; the image ends with a zero.
    let code = unsafe {
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, image.as_ptr().cast(), 2, options, values)
    };
    let said = log
        .iter()
        .position(|byte| *byte == 0)
        .map_or(String::new(), |end| String::from_utf8(log[..end].to_vec()).unwrap());
    (code, said)
}

/// Whether the driver has a function, for those who look it up in the library.
fn exists(name: &str) -> bool {
    let name = CString::new(name).unwrap();
    // SAFETY: loading cusim runs no code of ours, and the names end with a zero.
    unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null());
        !libc::dlsym(library, name.as_ptr()).is_null()
    }
}

fn driver_version() -> i32 {
    let mut version = 0;
    // SAFETY: the pointer is valid.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().unwrap();
    version
}

/// What the driver answers to someone who asks it for a function of CUDA `version`: the code, whether there is one, and the
/// outcome.
fn look_up(name: &str, version: i32) -> (Code, bool, u32) {
    let name = CString::new(name).unwrap();
    let mut function = std::ptr::null_mut();
    let mut outcome = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS;
    // SAFETY: all pointers are valid.
    let code = unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut function, version, 0, &mut outcome) };
    (code, !function.is_null(), outcome as u32)
}

on_cusim! {
    fn the_oldest_driver_lacks_what_came_after_it("CUSIM_DRIVER" = "470") {
        assert_eq!(driver_version(), 11040, "before cuInit too");
        for old in ["cuInit", "cuLaunchKernel", "cuGraphInstantiateWithFlags", "cuMemAllocAsync", "cuGetProcAddress"] {
            assert!(exists(old), "{old}");
        }
        for new in [
            "cuModuleGetLoadingMode", "cuLaunchKernelEx", "cuGetProcAddress_v2", "cuGraphExecUpdate_v2",
            "cuGraphInstantiateWithParams", "cuLibraryLoadData", "cuMulticastCreate", "cuMemPrefetchAsync_v2",
            "cuStreamGetCaptureInfo_v3", "cuCtxCreate_v4", "cuEventElapsedTime_v2", "cuMemGetMemPool",
        ] {
            assert!(!exists(new), "{new}");
        }
        // What is left works: memory, a module, a launch.
        let ctx = CudaContext::new(0).unwrap();
        assert_eq!(ctx.default_stream().clone_dtoh(&ctx.default_stream().clone_htod(&[7u8]).unwrap()).unwrap(), [7]);
        assert_eq!(load("7.4", 100).0, Code::CUDA_SUCCESS);
        // Attributes that the driver does not know yet are errors, as the one for clusters.
        let clusters = ctx.attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH);
        assert_eq!(clusters.unwrap_err().0, Code::CUDA_ERROR_INVALID_VALUE);
    }

    fn a_driver_has_what_its_cuda_version_has("CUSIM_DRIVER" = "535") {
        assert_eq!(driver_version(), 12020);
        for (name, since) in [("cuGraphExecUpdate_v2", true), ("cuMemAdvise_v2", true), ("cuCtxCreate_v4", false)] {
            assert_eq!(exists(name), since, "{name}");
        }
    }

    fn a_driver_of_cuda_12_4("CUSIM_DRIVER" = "550") {
        assert_eq!(driver_version(), 12040);
        for (name, since) in [("cuFuncLoad", true), ("cuCtxCreate_v4", false), ("cuEventElapsedTime_v2", false)] {
            assert_eq!(exists(name), since, "{name}");
        }
    }

    fn functions_are_found_by_name_and_version("CUSIM_DRIVER" = "535") {
        let (found, not_found, newer) = (0, 1, 2);
        assert_eq!(look_up("cuMemAlloc", 12020), (Code::CUDA_SUCCESS, true, found));
        assert_eq!(look_up("cuLaunchKernelEx", 12000), (Code::CUDA_SUCCESS, true, found));
        assert_eq!(look_up("cuLaunchKernelEx", 11040), (Code::CUDA_SUCCESS, false, newer));
        assert_eq!(look_up("cuCtxRecordEvent", 12020), (Code::CUDA_SUCCESS, false, not_found));
        assert_eq!(look_up("cuNoSuchThing", 12020), (Code::CUDA_SUCCESS, false, not_found));
        assert_eq!(look_up("cuMemAlloc", 12040).0, Code::CUDA_ERROR_INVALID_VALUE, "newer than the driver");
    }

    fn ptx_newer_than_the_driver_is_refused_in_the_words_of_ptxas("CUSIM_DRIVER" = "470") {
        let _ctx = CudaContext::new(0).unwrap();
        let words = "ptxas application ptx input, line 2; fatal   : Unsupported .version 9.0; current version is '7.4'";
        assert_eq!(load("9.0", 200), (Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, words.to_string()));
        assert_eq!(load("7.5", 13), (Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, words[..12].to_string()));
        assert_eq!(load("7.4", 200).0, Code::CUDA_SUCCESS);
        // Without a log, and from text that cannot be read to its end.
        let image = CString::new(".version 8.0\n.target sm_80\n}{").unwrap();
        let mut module = std::ptr::null_mut();
        // SAFETY: the image ends with a zero.
        let code = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        assert_eq!(code, Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    }

    fn the_newest_ptx_of_each_driver_is_read("CUSIM_DRIVER" = "550") {
        let _ctx = CudaContext::new(0).unwrap();
        assert_eq!(load("8.4", 200).0, Code::CUDA_SUCCESS);
        assert_eq!(load("8.5", 200).0, Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    }

    fn without_a_setting_the_driver_is_the_newest() {
        assert_eq!(driver_version(), 13000);
        let _ctx = CudaContext::new(0).unwrap();
        assert_eq!(load("9.0", 200).0, Code::CUDA_SUCCESS);
        assert_eq!(load("9.1", 200).0, Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    }

    fn without_pools_nothing_allocates_in_stream_order("CUSIM_POOLS" = "off") {
        let ctx = CudaContext::new(0).unwrap();
        let supported = Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
        assert_eq!(ctx.attribute(supported).unwrap(), 0);
        let stream = ctx.new_stream().unwrap();
        let (mut address, mut pool, raw) = (0, std::ptr::null_mut(), stream.cu_stream());
        // SAFETY: all pointers are valid.
        let answers = unsafe {[
            sys::cuMemAllocAsync(&mut address, 64, raw),
            sys::cuMemAllocFromPoolAsync(&mut address, 64, pool, raw),
            sys::cuMemFreeAsync(0, raw),
            sys::cuDeviceGetDefaultMemPool(&mut pool, 0),
            sys::cuDeviceGetMemPool(&mut pool, 0),
            sys::cuDeviceSetMemPool(0, pool),
            sys::cuMemPoolTrimTo(pool, 0),
            sys::cuMemPoolDestroy(pool),
        ]};
        assert_eq!(answers, [Code::CUDA_ERROR_NOT_SUPPORTED; 8]);
        // cudarc asks for the attribute, and allocates plainly.
        let held = stream.clone_htod(&[1.0f32, 2.0]).unwrap();
        assert_eq!(stream.clone_dtoh(&held).unwrap(), [1.0, 2.0]);
    }

    /// What programs for devices with pools do in a capture, allocating and freeing in stream order, is an error without.
    fn without_pools_memory_can_be_had_in_no_capture("CUSIM_POOLS" = "off") {
        let ctx = CudaContext::new(0).unwrap();
        unsafe { ctx.disable_event_tracking() };
        let stream = ctx.new_stream().unwrap();
        let held = stream.clone_htod(&[1u8; 64]).unwrap();
        for mode in [Mode::CU_STREAM_CAPTURE_MODE_GLOBAL, Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL] {
            let unsupported = Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
            let invalidated = Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
            stream.begin_capture(mode).unwrap();
            assert_eq!(unsafe { stream.alloc::<u8>(64) }.map(|_| ()).unwrap_err().0, unsupported);
            assert_eq!(stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(|_| ()).unwrap_err().0, invalidated);
            stream.begin_capture(mode).unwrap();
            let freed = unsafe { result::free_sync(0x1000) };
            assert_eq!(freed.unwrap_err().0, unsupported);
            assert_eq!(stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(|_| ()).unwrap_err().0, invalidated);
            stream.begin_capture(mode).unwrap();
            assert_eq!(stream.synchronize().unwrap_err().0, unsupported);
            assert_eq!(stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(|_| ()).unwrap_err().0, invalidated);
        }
        drop(held);
    }
}

/// Values that make no sense, and a device that the driver is too old for, stop `cuInit` with what is valid.
#[test]
fn settings_of_drivers_and_pools_that_make_no_sense_stop_the_driver() {
    let name = "settings_of_drivers_and_pools_that_make_no_sense_stop_the_driver";
    if support::is_child() {
        assert!(CudaContext::new(0).is_err());
        return;
    }
    for (settings, said) in [
        (&[("CUSIM_DRIVER", "390")][..], "CUSIM_DRIVER=390 is not understood; valid: 470, 535, 550, 580"),
        (&[("CUSIM_POOLS", "no")], "CUSIM_POOLS=no is not understood; valid: on, off"),
        (
            &[("CUSIM_DRIVER", "470"), ("CUSIM_DEVICE", "h200")],
            "CUSIM_DEVICE=h200 with CUSIM_DRIVER=470 does not work: driver 470 is older than the device; valid: rtx3090, a100",
        ),
    ] {
        let output = support::run_child(name, settings);
        let text = support::text(&output);
        assert!(output.status.success() && text.contains(said), "{text}");
    }
}
