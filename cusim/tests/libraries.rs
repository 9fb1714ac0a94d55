//! Libraries, whose kernels belong to no context.

mod support;

use std::ffi::{CStr, CString, c_void};
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUresult as Code};
use cudarc::driver::{CudaContext, result};

/// Takes PTX in; the code and the library.
fn load(text: &str) -> (Code, sys::CUlibrary) {
    load_image(CString::new(text).unwrap().as_bytes_with_nul())
}

/// Takes an image in; the code and the library.
fn load_image(image: &[u8]) -> (Code, sys::CUlibrary) {
    let mut library = null_mut();
    // SAFETY: the image ends with a zero or says how long it is, and there are no options.
    let code = unsafe {
        sys::cuLibraryLoadData(
            &mut library,
            image.as_ptr().cast::<c_void>(),
            null_mut(),
            null_mut(),
            0,
            null_mut(),
            null_mut(),
            0,
        )
    };
    (code, library)
}

fn kernel(library: sys::CUlibrary, name: &CStr) -> Result<sys::CUkernel, Code> {
    let mut kernel = null_mut();
    // SAFETY: the pointers are valid.
    match unsafe { sys::cuLibraryGetKernel(&mut kernel, library, name.as_ptr()) } {
        Code::CUDA_SUCCESS => Ok(kernel),
        code => Err(code),
    }
}

/// Doubles 64 floats with a kernel of a library, in the current context.
fn double(kernel: sys::CUkernel) {
    // SAFETY: the kernel takes a pointer and a count; the memory is there until the end.
    unsafe {
        let mut address = result::malloc_sync(256).unwrap();
        result::memcpy_htod_sync(address, &[1.5f32; 64]).unwrap();
        let mut n = 64i32;
        let mut arguments: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut n).cast()];
        // A kernel stands for its function of the context.
        let function: sys::CUfunction = kernel.cast();
        let launched =
            sys::cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, null_mut(), arguments.as_mut_ptr(), null_mut());
        assert_eq!(launched, Code::CUDA_SUCCESS);
        let mut values = [0f32; 64];
        result::memcpy_dtoh_sync(&mut values, address).unwrap();
        assert_eq!(values, [3.0; 64]);
        result::free_sync(address).unwrap();
    }
}

on_cusim! {
    fn kernels_run_in_every_context("CUSIM_DEVICES" = "2") {
        let (first, second) = (CudaContext::new(0).unwrap(), CudaContext::new(1).unwrap());
        let (code, library) = load(&support::compile("driver", &[]));
        assert_eq!(code, Code::CUDA_SUCCESS);
        let double_all = kernel(library, c"double_all").unwrap();
        assert_eq!(kernel(library, c"nothing"), Err(Code::CUDA_ERROR_NOT_FOUND));
        for ctx in [&first, &second, &first] {
            ctx.bind_to_thread().unwrap();
            double(double_all);
        }
        // SAFETY: the pointers are valid.
        unsafe {
            let (mut function, mut same, mut count) = (null_mut(), null_mut(), 0);
            assert_eq!(sys::cuKernelGetFunction(&mut function, double_all), Code::CUDA_SUCCESS);
            assert_eq!(sys::cuKernelGetFunction(&mut same, double_all), Code::CUDA_SUCCESS);
            assert_eq!(function, same);
            let mut name = std::ptr::null();
            assert_eq!(sys::cuFuncGetName(&mut name, function), Code::CUDA_SUCCESS);
            assert_eq!(CStr::from_ptr(name), c"double_all");
            assert_eq!(sys::cuKernelGetName(&mut name, double_all), Code::CUDA_SUCCESS);
            assert_eq!(CStr::from_ptr(name), c"double_all");
            let (mut offset, mut size) = (0, 0);
            assert_eq!(sys::cuKernelGetParamInfo(double_all, 1, &mut offset, &mut size), Code::CUDA_SUCCESS);
            assert_eq!((offset, size), (8, 4));
            let third = sys::cuFuncGetParamInfo(function, 2, &mut offset, &mut size);
            assert_eq!(third, Code::CUDA_ERROR_INVALID_VALUE);
            let mut most = 0;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
            let bounded = kernel(library, c"bounded").unwrap();
            assert_eq!(sys::cuKernelGetAttribute(&mut most, attribute, bounded, 0), Code::CUDA_SUCCESS);
            assert_eq!(most, 64);
            assert_eq!(sys::cuLibraryGetKernelCount(&mut count, library), Code::CUDA_SUCCESS);
            let mut kernels = vec![null_mut(); count as usize];
            assert_eq!(sys::cuLibraryEnumerateKernels(kernels.as_mut_ptr(), count, library), Code::CUDA_SUCCESS);
            assert!(kernels.contains(&double_all) && kernels.contains(&bounded));
            let (mut table, mut bytes) = (0, 0);
            let name = c"table".as_ptr();
            assert_eq!(sys::cuLibraryGetGlobal(&mut table, &mut bytes, library, name), Code::CUDA_SUCCESS);
            let mut values = [0f32; 4];
            result::memcpy_dtoh_sync(&mut values, table).unwrap();
            assert_eq!((bytes, values), (16, [1.0, 2.0, 3.0, 4.0]));
            let mut module = null_mut();
            assert_eq!(sys::cuLibraryGetModule(&mut module, library), Code::CUDA_SUCCESS);
            let mut functions = 0;
            assert_eq!(sys::cuModuleGetFunctionCount(&mut functions, module), Code::CUDA_SUCCESS);
            assert_eq!(functions, count);
            assert_eq!(sys::cuLibraryUnload(library), Code::CUDA_SUCCESS);
            assert_eq!(sys::cuLibraryUnload(library), Code::CUDA_ERROR_INVALID_HANDLE);
            let gone = sys::cuKernelGetFunction(&mut function, double_all);
            assert_eq!(gone, Code::CUDA_ERROR_INVALID_HANDLE);
        }
    }

    fn a_first_launch_can_be_captured() {
        let ctx = CudaContext::new(0).unwrap();
        let (_, library) = load(&support::compile("driver", &[]));
        let double_all = kernel(library, c"double_all").unwrap();
        let stream = ctx.new_stream().unwrap();
        // SAFETY: the kernel takes a pointer and a count; the memory is there until the end.
        unsafe {
            let mut address = result::malloc_sync(256).unwrap();
            result::memcpy_htod_sync(address, &[1.5f32; 64]).unwrap();
            let mut n = 64i32;
            let mut arguments: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut n).cast()];
            let (function, on) = (double_all.cast(), stream.cu_stream());
            stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
            let launched = sys::cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, on, arguments.as_mut_ptr(), null_mut());
            assert_eq!(launched, Code::CUDA_SUCCESS);
            let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
            graph.launch().unwrap();
            graph.launch().unwrap();
            stream.synchronize().unwrap();
            let mut values = [0f32; 64];
            result::memcpy_dtoh_sync(&mut values, address).unwrap();
            assert_eq!(values, [6.0; 64]);
            result::free_sync(address).unwrap();
        }
    }

    fn fat_binaries_are_unpacked() {
        let _ctx = CudaContext::new(0).unwrap();
        let of = |flags: &[&str]| support::fat_binary("driver", flags);
        let both = ["--no-compress", "-gencode", "arch=compute_80,code=[sm_80,compute_80]"];
        let (code, library) = load_image(&of(&both));
        assert_eq!(code, Code::CUDA_SUCCESS);
        double(kernel(library, c"double_all").unwrap());
        let (refused, _) = load_image(&of(&["--no-compress", "-gencode", "arch=compute_90,code=compute_90"]));
        assert_eq!(refused, Code::CUDA_ERROR_NO_BINARY_FOR_GPU, "the device is older");
        let (refused, _) = load_image(&of(&["-gencode", "arch=compute_80,code=compute_80"]));
        assert_eq!(refused, Code::CUDA_ERROR_NO_BINARY_FOR_GPU, "compressed");
    }

    fn what_is_no_ptx_is_no_library() {
        let _ctx = CudaContext::new(0).unwrap();
        assert_eq!(load("this is no PTX").0, Code::CUDA_ERROR_INVALID_PTX);
        assert_eq!(load("\x7fELF\x02\x01\x01").0, Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
        // That it is for another architecture shows where it is to run.
        let (code, library) = load(".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k() { ret; }");
        assert_eq!(code, Code::CUDA_SUCCESS);
        let k = kernel(library, c"k").unwrap();
        let mut function = null_mut();
        // SAFETY: the pointer is valid.
        let refused = unsafe { sys::cuKernelGetFunction(&mut function, k) };
        assert_eq!(refused, Code::CUDA_ERROR_NO_BINARY_FOR_GPU);
    }
}
