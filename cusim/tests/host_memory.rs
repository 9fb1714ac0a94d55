//! Memory of the host that is registered, and copies and fills of rows.

mod support;

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUmemorytype as Kind, CUresult as Code};
use cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, result};

fn double_all(ctx: &Arc<CudaContext>) -> CudaFunction {
    let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(support::compile("driver", &[]))).unwrap();
    module.load_function("double_all").unwrap()
}

/// Doubles `n` floats at an address.
fn double(ctx: &Arc<CudaContext>, f: &CudaFunction, address: u64, n: i32) -> Code {
    use cudarc::driver::PushKernelArg;
    let config = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
    let stream = ctx.default_stream();
    // SAFETY: what a wrong address does is what is tested.
    match unsafe { stream.launch_builder(f).arg(&address).arg(&n).launch(config) } {
        Ok(_) => Code::CUDA_SUCCESS,
        Err(error) => error.0,
    }
}

/// Rows of bytes on the host or the device: where, of which kind of memory, and how far apart.
#[derive(Clone, Copy)]
struct Rows {
    kind: Kind,
    address: u64,
    pitch: usize,
    /// Rows of a slice.
    height: usize,
    /// The first byte, row and slice.
    at: [usize; 3],
}

/// The structure for a copy of this many bytes, rows and slices.
fn shape(to: Rows, from: Rows, [width, height, depth]: [usize; 3]) -> sys::CUDA_MEMCPY3D {
    sys::CUDA_MEMCPY3D {
        srcXInBytes: from.at[0],
        srcY: from.at[1],
        srcZ: from.at[2],
        srcLOD: 0,
        srcMemoryType: from.kind,
        srcHost: from.address as *const c_void,
        srcDevice: from.address,
        srcArray: std::ptr::null_mut(),
        reserved0: std::ptr::null_mut(),
        srcPitch: from.pitch,
        srcHeight: from.height,
        dstXInBytes: to.at[0],
        dstY: to.at[1],
        dstZ: to.at[2],
        dstLOD: 0,
        dstMemoryType: to.kind,
        dstHost: to.address as *mut c_void,
        dstDevice: to.address,
        dstArray: std::ptr::null_mut(),
        reserved1: std::ptr::null_mut(),
        dstPitch: to.pitch,
        dstHeight: to.height,
        WidthInBytes: width,
        Height: height,
        Depth: depth,
    }
}

/// The same in two dimensions.
fn flat(copy: &sys::CUDA_MEMCPY3D) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: copy.srcXInBytes,
        srcY: copy.srcY,
        srcMemoryType: copy.srcMemoryType,
        srcHost: copy.srcHost,
        srcDevice: copy.srcDevice,
        srcArray: std::ptr::null_mut(),
        srcPitch: copy.srcPitch,
        dstXInBytes: copy.dstXInBytes,
        dstY: copy.dstY,
        dstMemoryType: copy.dstMemoryType,
        dstHost: copy.dstHost,
        dstDevice: copy.dstDevice,
        dstArray: std::ptr::null_mut(),
        dstPitch: copy.dstPitch,
        WidthInBytes: copy.WidthInBytes,
        Height: copy.Height,
    }
}

fn host(bytes: &[u8], pitch: usize, height: usize, at: [usize; 3]) -> Rows {
    Rows { kind: Kind::CU_MEMORYTYPE_HOST, address: bytes.as_ptr() as u64, pitch, height, at }
}

fn device(address: u64, pitch: usize, height: usize, at: [usize; 3]) -> Rows {
    Rows { kind: Kind::CU_MEMORYTYPE_DEVICE, address, pitch, height, at }
}

on_cusim! {
    fn registered_memory_is_reached_until_it_is_given_back("CUSIM_CHECK" = "all") {
        let ctx = CudaContext::new(0).unwrap();
        let f = double_all(&ctx);
        let mut values = vec![1.0f32; 200];
        let start = values.as_mut_ptr().cast::<c_void>();
        // SAFETY: the memory lives until the end; what must not work touches nothing.
        unsafe {
            assert_eq!(sys::cuMemHostRegister_v2(start, 800, 1), Code::CUDA_SUCCESS);
            let again = sys::cuMemHostRegister_v2(start.add(400), 4, 0);
            assert_eq!(again, Code::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
            let (mut address, mut flags) = (0, 0);
            assert_eq!(sys::cuMemHostGetDevicePointer_v2(&mut address, start, 0), Code::CUDA_SUCCESS);
            assert_eq!(sys::cuMemHostGetFlags(&mut flags, start.add(8)), Code::CUDA_SUCCESS);
            assert_eq!((address, flags), (start as u64, 1));
            assert_eq!(double(&ctx, &f, address, 200), Code::CUDA_SUCCESS);
            ctx.default_stream().synchronize().unwrap();
            assert_eq!(values, vec![2.0; 200]);
            let copy = result::malloc_sync(800).unwrap();
            assert_eq!(sys::cuMemcpy(copy, address, 800), Code::CUDA_SUCCESS);
            assert_eq!(sys::cuMemcpy(copy, address + 8, 800), Code::CUDA_ERROR_INVALID_VALUE, "beyond the end");
            assert_eq!(double(&ctx, &f, copy, 200), Code::CUDA_SUCCESS, "what was copied counts as written");
            assert_eq!(sys::cuMemFreeHost(start), Code::CUDA_ERROR_INVALID_VALUE, "the program's own");
            result::free_sync(copy).unwrap();
            assert_eq!(sys::cuMemHostUnregister(start.add(4)), Code::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
            assert_eq!(sys::cuMemHostUnregister(start), Code::CUDA_SUCCESS);
            assert_eq!(sys::cuMemHostUnregister(start), Code::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
            assert_eq!(double(&ctx, &f, address, 200), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
        }
        assert_eq!(values, vec![2.0; 200]);
    }

    fn a_kernel_that_leaves_registered_memory_is_stopped() {
        let ctx = CudaContext::new(0).unwrap();
        let f = double_all(&ctx);
        let mut values = vec![1.0f32; 200];
        // SAFETY: the memory lives until the end.
        let registered = unsafe { sys::cuMemHostRegister_v2(values.as_mut_ptr().cast(), 128 * 4, 0) };
        assert_eq!(registered, Code::CUDA_SUCCESS);
        assert_eq!(double(&ctx, &f, values.as_ptr() as u64, 129), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(values[128], 1.0);
    }

    fn rows_are_copied_in_two_dimensions("CUSIM_ASYNC" = "late", "CUSIM_CHECK" = "all") {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        let picture: Vec<u8> = (0..=255).collect();
        // SAFETY: the ranges are those of the arrays; what must not work touches nothing.
        unsafe {
            let (mut address, mut pitch) = (0, 0);
            assert_eq!(sys::cuMemAllocPitch_v2(&mut address, &mut pitch, 20, 8, 4), Code::CUDA_SUCCESS);
            assert!(pitch >= 20 && pitch % 512 == 0);
            assert_eq!(sys::cuMemAllocPitch_v2(&mut address, &mut pitch, 20, 8, 3), Code::CUDA_ERROR_INVALID_VALUE);
            let all = device(address, pitch, 0, [0; 3]);
            // A window of the picture, 16 bytes a row, to the second row's third byte on. It is read before the call returns.
            let mut changed = picture.clone();
            let window = host(&changed, 16, 0, [5, 3, 0]);
            let there = flat(&shape(Rows { at: [2, 1, 0], ..all }, window, [7, 6, 1]));
            assert_eq!(sys::cuMemcpy2DAsync_v2(&there, stream.cu_stream()), Code::CUDA_SUCCESS);
            changed.fill(0);
            stream.synchronize().unwrap();
            let back = [0u8; 60];
            let here = flat(&shape(host(&back, 10, 0, [3, 0, 0]), Rows { at: [2, 1, 0], ..all }, [7, 6, 1]));
            assert_eq!(sys::cuMemcpy2D_v2(&here), Code::CUDA_SUCCESS);
            for (row, line) in back.chunks(10).enumerate() {
                let first = (row + 3) * 16 + 5;
                assert_eq!(line[..3], [0; 3]);
                assert_eq!(line[3..], picture[first..first + 7]);
            }
            let outside = flat(&shape(Rows { at: [0, 3, 0], ..all }, window, [7, 6, 1]));
            assert_eq!(sys::cuMemcpy2D_v2(&outside), Code::CUDA_ERROR_INVALID_VALUE, "nine rows of eight");
            let narrow = flat(&shape(all, host(&picture, 6, 0, [0; 3]), [7, 6, 1]));
            assert_eq!(sys::cuMemcpy2DUnaligned_v2(&narrow), Code::CUDA_ERROR_INVALID_VALUE, "rows overlap");
            let array = Rows { kind: Kind::CU_MEMORYTYPE_ARRAY, ..all };
            let array = flat(&shape(array, window, [7, 6, 1]));
            assert_eq!(sys::cuMemcpy2D_v2(&array), Code::CUDA_ERROR_NOT_SUPPORTED);
            result::free_sync(address).unwrap();
        }
    }

    fn slices_are_copied_in_three_dimensions() {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        let volume: Vec<u8> = (0..4 * 5 * 6).collect();
        // SAFETY: the ranges are those of the arrays.
        unsafe {
            let address = result::malloc_sync(8 * 7 * 6).unwrap();
            result::memset_d8_sync(address, 0xee, 8 * 7 * 6).unwrap();
            // Four slices of five rows of six; of each of two slices three rows of four bytes.
            let there = shape(device(address, 8, 7, [1, 2, 3]), host(&volume, 6, 5, [2, 1, 2]), [4, 3, 2]);
            assert_eq!(sys::cuMemcpy3D_v2(&there), Code::CUDA_SUCCESS);
            let mut found = [0u8; 8 * 7 * 6];
            let all = shape(host(&found, 8, 7, [0; 3]), device(address, 8, 7, [0; 3]), [8, 7, 6]);
            assert_eq!(sys::cuMemcpy3DAsync_v2(&all, stream.cu_stream()), Code::CUDA_SUCCESS);
            for (at, value) in std::hint::black_box(&mut found).iter().enumerate() {
                let (x, y, z) = (at % 8, at / 8 % 7, at / 56);
                let inside = (1..5).contains(&x) && (2..5).contains(&y) && (3..5).contains(&z);
                let expected = if inside { volume[(z - 1) * 30 + (y - 1) * 6 + x + 1] } else { 0xee };
                assert_eq!(*value, expected, "{x} {y} {z}");
            }
            let low = shape(device(address, 8, 2, [0; 3]), host(&volume, 6, 5, [0; 3]), [4, 3, 2]);
            assert_eq!(sys::cuMemcpy3D_v2(&low), Code::CUDA_ERROR_INVALID_VALUE, "slices overlap");
            result::free_sync(address).unwrap();
        }
    }

    fn rows_are_filled_and_graphs_replay_that("CUSIM_CHECK" = "all") {
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        // SAFETY: the ranges are those of the arrays; what must not work touches nothing.
        unsafe {
            let address = result::malloc_sync(64).unwrap();
            result::memset_d8_sync(address, 0, 64).unwrap();
            assert_eq!(sys::cuMemsetD2D16_v2(address + 2, 16, 0x0201, 3, 4), Code::CUDA_SUCCESS);
            let mut found = [0u8; 64];
            result::memcpy_dtoh_sync(&mut found, address).unwrap();
            for row in found.chunks(16) {
                assert_eq!(row, [0, 0, 1, 2, 1, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            assert_eq!(sys::cuMemsetD2D32_v2(address, 16, 7, 5, 2), Code::CUDA_ERROR_INVALID_VALUE, "rows overlap");
            assert_eq!(sys::cuMemsetD2D8_v2(address + 1, 16, 7, 16, 4), Code::CUDA_ERROR_INVALID_VALUE, "a byte too many");
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            stream.begin_capture(mode).unwrap();
            assert_eq!(sys::cuMemsetD2D8Async(address, 16, 9, 2, 4, stream.cu_stream()), Code::CUDA_SUCCESS);
            let pinned = result::malloc_host(8, 0).unwrap().cast::<u8>();
            let to = Rows { kind: Kind::CU_MEMORYTYPE_UNIFIED, address: pinned as u64, pitch: 2, height: 0, at: [0; 3] };
            let copy = flat(&shape(to, device(address, 16, 0, [0; 3]), [2, 4, 1]));
            assert_eq!(sys::cuMemcpy2DAsync_v2(&copy, stream.cu_stream()), Code::CUDA_SUCCESS);
            let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
            pinned.write_bytes(0, 8);
            graph.launch().unwrap();
            stream.synchronize().unwrap();
            assert_eq!(std::slice::from_raw_parts(pinned, 8), [9; 8]);
            result::free_host(pinned.cast()).unwrap();
            result::free_sync(address).unwrap();
        }
    }
}
