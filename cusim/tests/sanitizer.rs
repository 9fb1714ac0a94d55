//! Each kind of mistake is found, with the right words, by the check that is there for it, and by no other.

mod support;

use cusim::check::Checks;
use cusim::machine::fault::{Fault, FaultKind};
use cusim::sandbox::{Arg, Sandbox};

const NONE: Checks = Checks { init: false, race: false, sync: false };
const INIT: Checks = Checks { init: true, ..NONE };
const RACE: Checks = Checks { race: true, ..NONE };
const SYNC: Checks = Checks { sync: true, ..NONE };

/// Sandboxes with checks reserve much address space: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Runs a kernel on 4,096 bytes of zeros (twice, if it takes two pointers): its reports, and the fault it met. These
/// must not depend on the number of host threads.
fn run(kernel: &str, checks: Checks, shape: (u32, u32), more: &[Arg]) -> (Vec<String>, Option<Box<Fault>>) {
    let alone = run_on("wrong", 1, kernel, checks, shape, more);
    let together = run_on("wrong", 2, kernel, checks, shape, more);
    assert_eq!(format!("{alone:?}"), format!("{together:?}"), "{kernel}");
    alone
}

fn run_on(
    file: &str,
    threads: usize,
    kernel: &str,
    checks: Checks,
    shape: (u32, u32),
    more: &[Arg],
) -> (Vec<String>, Option<Box<Fault>>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(threads);
    if checks.any() {
        sandbox.check(checks);
    }
    let image = sandbox.load(&support::compile(file, &[])).unwrap();
    let program = sandbox.kernel(&image, kernel).unwrap();
    let mut args = vec![];
    while args.len() + more.len() < program.params.len() {
        let bytes = if kernel.contains("many_blocks") { 4 * shape.0 * shape.1 } else { 4096 };
        args.push(Arg::U64(sandbox.upload(&vec![0u8; bytes as usize])));
    }
    args.extend_from_slice(more);
    let shared = if kernel.starts_with("dynamic") { 256 } else { 0 };
    let fault = sandbox.launch(&program, [shape.0, 1, 1], [shape.1, 1, 1], shared, &args).err();
    (sandbox.sink.reports().iter().map(|report| report.to_string()).collect(), fault)
}

/// The fault that a kernel meets without any checks but the ones that are always on.
fn fault(kernel: &str, shape: (u32, u32), more: &[Arg]) -> Box<Fault> {
    let (reports, fault) = run(kernel, NONE, shape, more);
    assert!(reports.is_empty(), "{reports:?}");
    fault.unwrap_or_else(|| panic!("{kernel} met no fault"))
}

/// The reports of one check; without it there must be none.
fn reports(kernel: &str, checks: Checks, shape: (u32, u32), more: &[Arg]) -> String {
    let (without, _) = run(kernel, NONE, shape, more);
    assert!(without.is_empty(), "{without:?}");
    let (reports, fault) = run(kernel, checks, shape, more);
    assert!(fault.is_none(), "{kernel}: {fault:?}");
    assert!(!reports.is_empty(), "{kernel} drew no report");
    reports.join("\n")
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn accesses_out_of_bounds() {
    let past = fault("reads_past_end", (5, 256), &[Arg::U32(8)]);
    assert_eq!((past.kind, past.block, past.lane), (FaultKind::OutOfBounds, 4, 0));
    assert_says(&past.detail, &["4 bytes past the end of allocation", "4096 bytes"]);
    let before = fault("writes_before_start", (1, 32), &[]);
    assert_eq!((before.kind, before.lane), (FaultKind::OutOfBounds, 0));
    assert!(before.access.is_some_and(|access| access.write && access.bytes == 4));
    assert_says(&before.detail, &["4 bytes before allocation"]);
    assert_eq!(fault("misaligned", (1, 1), &[]).kind, FaultKind::Misaligned);
    assert_says(&fault("null_pointer", (1, 1), &[Arg::U64(0)]).detail, &["null pointer"]);
}

#[test]
fn shared_and_local_memory_out_of_bounds() {
    for n in [33, -1i32 as u32] {
        let shared = fault("shared_out_of_bounds", (1, 32), &[Arg::U32(n)]);
        assert_eq!(shared.kind, FaultKind::OutOfBounds, "one variable does not reach into its neighbour");
        assert_says(&shared.detail, &["shared memory of this kernel: 256 bytes static"]);
    }
    let dynamic = fault("dynamic_out_of_bounds", (1, 32), &[Arg::U32(40)]);
    assert_eq!((dynamic.kind, dynamic.lane), (FaultKind::OutOfBounds, 24));
    let local = fault("local_out_of_bounds", (1, 32), &[Arg::U32(3)]);
    assert_eq!(local.kind, FaultKind::OutOfBounds);
    assert_says(&local.detail, &["the thread's stack"]);
}

#[test]
fn traps_and_endless_waits() {
    assert_eq!(fault("shuffle_mask_of_exited", (1, 32), &[]).kind, FaultKind::Trap);
    let deadlock = fault("barrier_never_reached", (1, 64), &[]);
    assert_eq!(deadlock.kind, FaultKind::Deadlock);
    assert_says(&deadlock.detail, &["wait for others that never come", "warp 0"]);
}

#[test]
fn uninitialised_memory() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(1);
    sandbox.check(INIT);
    let image = sandbox.load(&support::compile("wrong", &[])).unwrap();
    let program = sandbox.kernel(&image, "global_uninitialised").unwrap();
    let (x, y) = (sandbox.reserve(256), sandbox.reserve(256));
    let args = [Arg::U64(x), Arg::U64(y)];
    sandbox.launch(&program, [1, 1, 1], [64, 1, 1], 0, &args).unwrap();
    let report = sandbox.sink.reports()[0].to_string();
    assert_says(&report, &["[init]", "reads 4 bytes", "global memory", "wrong.cu:", "0 bytes inside allocation"]);
    assert_eq!(sandbox.sink.count(), 1, "once per instruction");
    sandbox.sink.clear();
    let z = sandbox.reserve(256);
    sandbox.launch(&program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(y), Arg::U64(z)]).unwrap();
    assert_eq!(sandbox.sink.count(), 0, "what a kernel wrote is initialised");
}

#[test]
fn uninitialised_shared_and_local_memory() {
    let shared = reports("shared_uninitialised", INIT, (1, 64), &[]);
    assert_says(&shared, &["[init]", "shared memory", "thread (63, 0, 0)", "byte 252 of", "wrong.cu:"]);
    let local = reports("local_uninitialised", INIT, (1, 32), &[Arg::U32(8)]);
    assert_says(&local, &["[init]", "local memory", "thread (0, 0, 0)"]);
}

#[test]
fn races_in_shared_memory() {
    let report = reports("shared_race", RACE, (1, 64), &[]);
    assert_says(&report, &["[race]", "shared memory", "wrong.cu:", "written by block (0, 0, 0) thread", "st.shared"]);
    assert_says(&reports("warp_race", RACE, (1, 32), &[]), &["[race]", "shared memory"]);
    assert_says(&reports("barrier_of_others", RACE, (1, 128), &[]), &["[race]", "written by block (0, 0, 0) thread"]);
    assert_says(&reports("plain_read_of_atomic", RACE, (1, 64), &[]), &["[race]", "reads what another thread writes"]);
}

#[test]
fn races_in_global_memory() {
    assert_says(&reports("global_race_in_block", RACE, (1, 64), &[]), &["[race]", "global memory", "allocation #"]);
    let blocks = reports("global_race_between_blocks", RACE, (2, 32), &[]);
    assert_says(&blocks, &["[race]", "block (1, 0, 0)", "block (0, 0, 0)"]);
}

#[test]
fn correct_kernels_draw_no_report() {
    let kernels = [
        ("prints", 1),
        ("meets_at_an_mbarrier", 2),
        ("largest_by_exchange", 4),
        ("sum_by_exchange", 4),
        ("bf16_sum", 4),
        ("shared_sum_by_exchange", 1),
        ("counts_by_exchange", 4),
    ];
    for (kernel, blocks) in kernels {
        for threads in [1, 2] {
            let (reports, fault) = run_on("right", threads, kernel, Checks::ALL, (blocks, 64), &[]);
            assert!(reports.is_empty() && fault.is_none(), "{kernel}: {fault:?} {}", reports.join("\n"));
        }
    }
}

#[test]
fn a_read_that_no_exchange_checks_is_a_race() {
    let report = reports("plain_read_beside_exchange", RACE, (2, 64), &[]);
    assert_says(&report, &["[race]", "global memory", "reads what another thread writes"]);
}

#[test]
fn lanes_that_store_different_wide_values_to_one_place() {
    let report = reports("wide_race", RACE, (1, 32), &[Arg::U32(1)]);
    for store in ["st.shared.v4.u32", "st.shared.v2.u32", "st.shared.u8", "st.global.v4.u32", "st.global.f64"] {
        let race = format!("({store})");
        assert!(report.matches(&race).count() == 2, "{race} is missing in:\n{report}");
    }
    let (none, fault) = run("wide_race", RACE, (1, 32), &[Arg::U32(0)]);
    assert!(none.is_empty() && fault.is_none(), "equal values do not race: {none:?}");
}

#[test]
fn what_is_found_does_not_depend_on_chance() {
    let find = |threads| {
        let (reports, fault) = run_on("wrong", threads, "race_of_many_blocks", RACE, (1000, 64), &[]);
        assert!(fault.is_none());
        reports.join("\n")
    };
    let alone = find(1);
    assert_says(&alone, &["global memory", "shared memory", "block (30, 0, 0)", "block (96, 0, 0)"]);
    for _ in 0..5 {
        assert_eq!(find(4), alone);
    }
}

#[test]
fn asynchronous_copies_that_nobody_waits_for() {
    let report = reports("copy_not_awaited", RACE, (1, 32), &[]);
    assert_says(&report, &["[race]", "while an asynchronous copy to it is under way", "cp.async"]);
    assert_says(&reports("copy_without_barrier", RACE, (1, 32), &[]), &["[race]", "shared memory"]);
}

#[test]
fn asynchronous_copies_that_read_nothing_may_be_of_anywhere() {
    for checks in [INIT, RACE] {
        let (reports, fault) = run("copy_of_nothing", checks, (1, 32), &[]);
        assert!(reports.is_empty() && fault.is_none(), "{reports:?}");
    }
}

#[test]
fn misuse_of_barriers_and_shuffles() {
    let divergent = run("divergent_barrier", SYNC, (1, 32), &[]);
    assert!(divergent.1.is_none_or(|fault| fault.kind == FaultKind::Deadlock));
    assert_says(&divergent.0.join("\n"), &["[sync]", "divergent code", "wrong.cu:"]);
    let ended = reports("barrier_after_exit", SYNC, (1, 64), &[]);
    assert_says(&ended, &["[sync]", "32 threads of the block never reach"]);
    let inactive = reports("shuffle_from_inactive", SYNC, (1, 32), &[]);
    assert_says(&inactive, &["[sync]", "shuffle reads from lanes that take no part", "0x0000ff00"]);
}

on_cusim! {
    fn mistakes_of_the_host("CUSIM_ASYNC" = "late") {
        use cudarc::driver::{CudaContext, result, sys};
        let ctx = CudaContext::new(0).unwrap();
        ctx.bind_to_thread().unwrap();
        // SAFETY: the mistakes are what is tested; no memory of this process is touched out of bounds.
        unsafe {
            let a = result::malloc_sync(64).unwrap();
            let too_much = [0u8; 65];
            assert!(result::memcpy_htod_sync(a, &too_much).is_err(), "too many bytes");
            result::free_sync(a).unwrap();
            assert!(result::free_sync(a).is_err(), "freed twice");
            assert!(result::free_sync(a + 8).is_err(), "not the beginning");
            assert!(result::memset_d8_sync(a, 0, 1).is_err(), "freed before");
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
            let b = result::malloc_async(stream, 64).unwrap();
            result::free_async(b, stream).unwrap();
            result::memset_d8_async(b, 0, 64, stream).unwrap();
            assert_eq!(
                result::stream::synchronize(stream).unwrap_err().0,
                sys::CUresult::CUDA_ERROR_INVALID_VALUE,
                "used after it was freed in stream order"
            );
        }
    }

    fn leaks_and_reports_are_written("CUSIM_REPORT" = "report.json") {
        use cudarc::driver::{CudaContext, result};
        let ctx = CudaContext::new(0).unwrap();
        ctx.bind_to_thread().unwrap();
        // SAFETY: the leak is what is tested.
        unsafe { result::malloc_sync(77) }.unwrap();
    }

    fn late_streams_show_a_missing_wait("CUSIM_ASYNC" = "late") {
        use cudarc::driver::{CudaContext, result};
        let ctx = CudaContext::new(0).unwrap();
        let stream = ctx.new_stream().unwrap();
        let values = stream.clone_htod(&[7u8; 16]).unwrap();
        // SAFETY: the memory holds sixteen bytes; looking at it before the copy was waited for is what is tested.
        unsafe {
            let pinned = result::malloc_host(16, 0).unwrap().cast::<u8>();
            pinned.write_bytes(1, 16);
            let target = std::slice::from_raw_parts_mut(pinned, 16);
            let (address, _guard) = cudarc::driver::DevicePtr::device_ptr(&values, &stream);
            result::memcpy_dtoh_async(target, address, stream.cu_stream()).unwrap();
            assert_eq!(pinned.read(), 1, "nothing has arrived yet");
            stream.synchronize().unwrap();
            assert_eq!(pinned.read(), 7);
            result::free_host(pinned.cast()).unwrap();
        }
    }
}

#[test]
fn the_report_file() {
    if support::is_child() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let output = support::run_child("leaks_and_reports_are_written", &[("CUSIM_REPORT", path.to_str().unwrap())]);
    let said = support::text(&output);
    assert_says(&said, &["[leak] 1 allocations of 77 bytes were never freed", "cuMemAlloc"]);
    let json = std::fs::read_to_string(path).unwrap();
    assert_says(&json, &["{\"reports\": [{\"check\": \"leak\"", "77 bytes"]);
}
