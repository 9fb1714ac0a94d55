//! Kernels that call `malloc` and `free`.

mod support;

use cusim::check::Checks;
use cusim::machine::fault::{Fault, FaultKind};
use cusim::sandbox::{Arg, HEAP, Sandbox};

/// Sandboxes with checks reserve much address space: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs kernels one after the other, all with the same place for an address first; what the last one met, and the reports.
fn run(kernels: &[(&str, &[Arg])]) -> (Result<(), Box<Fault>>, Vec<String>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(2);
    sandbox.check(Checks::ALL);
    let image = sandbox.load(&support::compile("heap", &[])).unwrap();
    let kept = sandbox.upload(&[0u64]);
    let mut last = Ok(());
    for (kernel, more) in kernels {
        let program = sandbox.kernel(&image, kernel).unwrap();
        let mut args = vec![Arg::U64(kept)];
        if program.params.len() > 1 + more.len() {
            args.push(Arg::U64(sandbox.upload(&[0i32])));
        }
        args.extend_from_slice(more);
        assert!(last.is_ok(), "before {kernel}: {last:?}");
        last = sandbox.launch(&program, [1, 1, 1], [1, 1, 1], 0, &args);
    }
    (last, sandbox.sink.reports().iter().map(|report| report.to_string()).collect())
}

/// The fault that the last of these kernels meets.
fn fault(kernels: &[(&str, &[Arg])]) -> Box<Fault> {
    let (result, reports) = run(kernels);
    assert!(reports.is_empty(), "{reports:?}");
    result.unwrap_err()
}

#[test]
fn lists_that_go_from_thread_to_thread() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for threads in [1, 2] {
        let mut sandbox = Sandbox::new(threads);
        sandbox.check(Checks::ALL);
        let image = sandbox.load(&support::compile("heap", &[])).unwrap();
        let program = sandbox.kernel(&image, "lists").unwrap();
        let sums = sandbox.reserve(8 * 64 * 5);
        sandbox.launch(&program, [5, 1, 1], [64, 1, 1], 0, &[Arg::U64(sums), Arg::U32(30)]).unwrap();
        assert_eq!(sandbox.sink.count(), 0, "{:?}", sandbox.sink.reports());
        let expected: Vec<i64> = (0..320).map(|at| (63 - at % 64) * 1000 * 30 + 29 * 30 / 2).collect();
        assert_eq!(sandbox.download::<i64>(sums, 320), expected);
    }
}

#[test]
fn memory_stays_until_a_later_launch_frees_it() {
    let (result, reports) = run(&[("keeps", &[]), ("uses", &[Arg::U32(3)])]);
    assert!(result.is_ok() && reports.is_empty(), "{result:?} {reports:?}");
}

#[test]
fn mistakes_with_a_kernel_s_own_memory() {
    let past = fault(&[("keeps", &[]), ("uses", &[Arg::U32(4)])]);
    assert_eq!(past.kind, FaultKind::OutOfBounds);
    assert!(past.detail.contains("4 bytes past the end of allocation #1 of 16 bytes (malloc in a kernel)"), "{past:?}");
    let late = fault(&[("keeps", &[]), ("uses_after_free", &[])]);
    assert_eq!(late.kind, FaultKind::UseAfterFree, "although the instruction has just read there");
    assert!(late.detail.contains("12 bytes inside allocation #1 of 16 bytes (malloc in a kernel, freed)"), "{late:?}");
    let twice = fault(&[("keeps", &[]), ("frees_twice", &[])]);
    assert!(twice.kind == FaultKind::BadFree && twice.detail.contains("double free"), "{twice:?}");
    let inside = fault(&[("keeps", &[]), ("frees_inside", &[])]);
    assert!(
        inside.kind == FaultKind::BadFree && inside.detail.contains("no memory that a kernel allocated"),
        "{inside:?}"
    );
    let (result, reports) = run(&[("reads_what_nothing_wrote", &[])]);
    assert!(result.is_ok() && reports.len() == 1, "{result:?} {reports:?}");
    assert!(reports[0].contains("[init]") && reports[0].contains("malloc in a kernel"), "{}", reports[0]);
}

#[test]
fn a_heap_runs_out() {
    let mut sandbox = Sandbox::new(1);
    let image = sandbox.load(&support::compile("heap", &[])).unwrap();
    let program = sandbox.kernel(&image, "fills").unwrap();
    let count = sandbox.upload(&[0i32]);
    for already in [0, 8] {
        sandbox.launch(&program, [1, 1, 1], [1, 1, 1], 0, &[Arg::U64(count), Arg::U32((HEAP / 8) as u32)]).unwrap();
        assert_eq!(sandbox.download::<i32>(count, 1), [8], "{already} were there before");
    }
}

on_cusim! {
    fn a_heap_has_the_size_that_was_set() {
        use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg, sys};
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.default_stream();
        let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(support::compile("heap", &[]))).unwrap();
        let (fills, keeps) = (module.load_function("fills").unwrap(), module.load_function("keeps").unwrap());
        let limit = sys::CUlimit::CU_LIMIT_MALLOC_HEAP_SIZE;
        // SAFETY: the context is current.
        assert_eq!(unsafe { sys::cuCtxSetLimit(limit, 3 << 20) }, sys::CUresult::CUDA_SUCCESS);
        let mut count = stream.clone_htod(&[0i32]).unwrap();
        let mut kept = stream.clone_htod(&[0u64]).unwrap();
        let one = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        unsafe { stream.launch_builder(&keeps).arg(&mut kept).launch(one) }.unwrap();
        let bytes = 1u32 << 19;
        unsafe { stream.launch_builder(&fills).arg(&mut count).arg(&bytes).launch(one) }.unwrap();
        assert_eq!(stream.clone_dtoh(&count).unwrap(), [5], "a little is in use already");
        // SAFETY: as above; the copy goes nowhere, as the host must not read such memory.
        unsafe {
            assert_eq!(sys::cuCtxSetLimit(limit, 8 << 20), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
            let (address, mut into) = (stream.clone_dtoh(&kept).unwrap()[0], [0i32; 4]);
            assert_ne!(address, 0);
            let read = sys::cuMemcpyDtoH_v2(into.as_mut_ptr().cast(), address, 16);
            assert_eq!(read, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
            let read = sys::cuMemcpy(into.as_mut_ptr() as u64, address, 16);
            assert_eq!(read, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        }
    }
}
