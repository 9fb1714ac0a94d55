//! What reports say: in whose words, of which lines, and of which threads.

mod support;

use cudarc::driver::sys::{self, CUresult as Code};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg, result};
use cusim::check::Checks;
use cusim::sandbox::{Arg, Sandbox};

/// Sandboxes with checks reserve much address space: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

/// Runs a kernel that takes an array of zeros and a number: its reports.
fn reports(kernel: &str, blocks: u32, threads: u32, number: u32) -> Vec<String> {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(1);
    sandbox.check(Checks { race: true, ..Checks::default() });
    let image = sandbox.load(&support::compile("messages", &[])).unwrap();
    let program = sandbox.kernel(&image, kernel).unwrap();
    let args = [Arg::U64(sandbox.upload(&[0i32; 1024])), Arg::U32(number)];
    sandbox.launch(&program, [blocks, 1, 1], [threads, 1, 1], 0, &args).unwrap();
    sandbox.sink.reports().iter().map(|report| report.to_string()).collect()
}

/// Who raced with whom, as a report says it.
fn racers(report: &str) -> (String, String) {
    let thread = |line: &str| {
        let from = line.find("block (").unwrap_or_else(|| panic!("no thread in {line:?}"));
        let end = from + line[from..].match_indices(')').nth(1).unwrap().0;
        line[from..=end].to_string()
    };
    let line = |words: &str| report.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{report}"));
    (thread(line("in kernel")), thread(line(" by block")))
}

#[test]
fn a_race_names_two_threads() {
    let cases: [(&str, u32, u32, &[u32]); 3] = [
        ("one_of_all_writes", 1, 96, &[0, 1, 31, 32, 95]),
        ("reader_of_all_blocks_writes", 4, 32, &[0, 1, 3]),
        ("reads_pairs", 1, 32, &[0, 15, 16, 31]),
    ];
    for (kernel, blocks, threads, writers) in cases {
        for writer in writers {
            let reports = reports(kernel, blocks, threads, *writer);
            assert!(!reports.is_empty(), "{kernel} {writer}");
            for report in reports {
                let (one, other) = racers(&report);
                assert_ne!(one, other, "{kernel} {writer}:\n{report}");
            }
        }
    }
    // Who reads a pair's place is one of the two.
    let report = reports("reads_pairs", 1, 32, 20).remove(0);
    assert_eq!(
        racers(&report),
        ("block (0, 0, 0) thread (20, 0, 0)".into(), "block (0, 0, 0) thread (4, 0, 0)".into())
    );
}

/// A kernel's name in the PTX.
fn symbol(ptx: &str, part: &str) -> String {
    let names = ptx.lines().filter_map(|line| line.split_once(".entry ")).map(|(_, name)| name.trim_end_matches('('));
    names.into_iter().find(|name| name.contains(part)).unwrap().to_string()
}

/// Launches a kernel of two arrays in one block of 64 threads; the code, and what the second array holds then.
fn launch(ctx: &std::sync::Arc<CudaContext>, part: &str) -> (Code, Option<Vec<f32>>) {
    let ptx = support::compile("messages", &[]);
    let stream = ctx.default_stream();
    let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(&ptx)).unwrap();
    let f = module.load_function(&symbol(&ptx, part)).unwrap();
    let (x, mut y) = (stream.clone_htod(&[1f32; 64]).unwrap(), stream.clone_htod(&[0f32; 64]).unwrap());
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel takes two arrays; its mistakes are what is tested.
    let code = unsafe { stream.launch_builder(&f).arg(&x).arg(&mut y).launch(config) }
        .map_or_else(|e| e.0, |_| Code::CUDA_SUCCESS);
    let after = stream.clone_dtoh(&y).ok();
    std::mem::forget((x, y));
    (code, after)
}

on_cusim! {
    fn reads_past_the_end_in_a_header() {
        let ctx = CudaContext::new(0).unwrap();
        assert_eq!(launch(&ctx, "third").0, Code::CUDA_ERROR_ILLEGAL_ADDRESS);
        // SAFETY: the context is not used any more.
        assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }, Code::CUDA_SUCCESS);
    }

    fn races_and_fails("CUSIM_CHECK" = "race") {
        let (code, after) = launch(&CudaContext::new(0).unwrap(), "race");
        assert_eq!((code, after), (Code::CUDA_ERROR_LAUNCH_FAILED, None));
    }

    fn races_and_goes_on("CUSIM_CHECK" = "race", "CUSIM_FINDINGS" = "report") {
        let (code, after) = launch(&CudaContext::new(0).unwrap(), "race");
        assert_eq!((code, after.map(|values| values.len())), (Code::CUDA_SUCCESS, Some(64)));
    }

    fn copies_what_nothing_wrote("CUSIM_CHECK" = "init", "CUSIM_FINDINGS" = "report") {
        let stream = CudaContext::new(0).unwrap().default_stream();
        // SAFETY: both have 20 bytes, the copies are done when they are looked at.
        unsafe {
            let (device, other) = (result::malloc_sync(20).unwrap(), result::malloc_sync(20).unwrap());
            result::memset_d8_sync(device, 1, 16).unwrap();
            let mut values = [7u8; 16];
            result::memcpy_dtoh_sync(&mut values, device).unwrap();
            assert_eq!(values, [1; 16]);
            // Between devices' arrays what was written goes along, and what was not.
            result::memcpy_dtod_async(other, device, 20, stream.cu_stream()).unwrap();
            let mut all = [7u8; 20];
            result::memcpy_dtoh_async(&mut all, other, stream.cu_stream()).unwrap();
            assert_eq!(all[..16], [1; 16]);
            let pinned = result::malloc_host(20, 0).unwrap();
            assert_eq!(sys::cuMemcpy(pinned as u64, device, 20), Code::CUDA_SUCCESS);
            result::free_host(pinned).unwrap();
            result::free_sync(device).unwrap();
            result::free_sync(other).unwrap();
        }
    }

    fn copies_what_nothing_wrote_and_fails("CUSIM_CHECK" = "init") {
        let ctx = CudaContext::new(0).unwrap();
        ctx.bind_to_thread().unwrap();
        // SAFETY: it has 4 bytes.
        let copied = unsafe { result::memcpy_dtoh_sync(&mut [0u8; 4], result::malloc_sync(4).unwrap()) };
        assert_eq!(copied.unwrap_err().0, Code::CUDA_ERROR_LAUNCH_FAILED);
    }
}

/// What a program of this file says.
fn said(program: &str, env: &[(&str, &str)]) -> String {
    let output = support::run_child(program, env);
    let said = support::text(&output);
    assert!(output.status.success(), "{said}");
    said
}

/// A line of the kernels' source, by what it says.
fn line(words: &str) -> String {
    let text = include_str!("kernels/messages.cu");
    let line = text.lines().position(|line| line.contains(words)).unwrap() + 1;
    format!("messages.cu:{line} (inlined: ")
}

#[test]
fn functions_of_headers_are_traced_to_the_kernel() {
    if support::is_child() {
        return;
    }
    let fault = said("reads_past_the_end_in_a_header", &[]);
    assert_says(&fault, &["in kernel names::third<float>, block", &line("reads past the end"), "intrinsics.hpp:"]);
    assert!(!fault.contains("[leak]"), "a program cannot free what it has behind a failure:\n{fault}");
}

#[test]
fn what_nothing_wrote_is_not_for_the_host() {
    if support::is_child() {
        return;
    }
    let said_of_all = said("copies_what_nothing_wrote", &[("CUSIM_CHECK", "init"), ("CUSIM_FINDINGS", "report")]);
    let words = [
        "cusim: [init] cuMemcpyDtoHAsync reads 20 bytes",
        "of which nothing wrote byte 16",
        "16 bytes inside allocation #2",
    ];
    assert_says(&said_of_all, &words);
    assert_says(&said_of_all, &["cusim: [init] cuMemcpy reads 20 bytes", "16 bytes inside allocation #1"]);
    assert_eq!(said_of_all.matches("cusim: [").count(), 2, "{said_of_all}");
    said("copies_what_nothing_wrote_and_fails", &[("CUSIM_CHECK", "init")]);
}

#[test]
fn findings_fail_the_launch_or_are_only_reported() {
    if support::is_child() {
        return;
    }
    let words = [
        "[race]",
        "in kernel names::race<float>, block",
        "names::race<float>(float const*, float*)::part (256 bytes)",
        &line("// races"),
    ];
    let fails = said("races_and_fails", &[("CUSIM_CHECK", "race")]);
    assert_says(&fails, &words);
    assert!(!fails.contains("[leak]"), "{fails}");
    let goes_on = said("races_and_goes_on", &[("CUSIM_CHECK", "race"), ("CUSIM_FINDINGS", "report")]);
    assert_says(&goes_on, &words);
    assert_says(&goes_on, &["[leak] 2 allocations"]);
}
