//! Whatever the text or the arguments: errors, never a panic.

mod support;

use cusim::exec::order::Random;
use cusim::lower::Options;
use cusim::mem::Memory;
use cusim::module::Image;

/// Changes a text at a few places: drops, doubles, swaps and replaces lines, words and characters.
fn mutate(text: &str, random: &mut Random) -> String {
    const WORDS: [&str; 24] = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ";",
        ",",
        "%r1",
        "%rd999999",
        "0x",
        "-1",
        "18446744073709551615",
        ".b8",
        ".f64",
        "<",
        ">",
        "@",
        "|",
        "!",
        ".v4",
        "999999999",
        "ret",
        "bra",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for _ in 0..=random.below(4) {
        let at = random.below(lines.len() as u64) as usize;
        let other = random.below(lines.len() as u64) as usize;
        match random.below(6) {
            0 => {
                lines.remove(at);
            }
            1 => {
                let line = lines[at].clone();
                lines.insert(other, line);
            }
            2 => lines.swap(at, other),
            _ => {
                let mut words: Vec<String> = lines[at].split(' ').map(str::to_string).collect();
                let word = random.below(words.len() as u64) as usize;
                words[word] = match random.below(3) {
                    0 => WORDS[random.below(WORDS.len() as u64) as usize].to_string(),
                    1 => words[word].chars().skip(1).collect(),
                    _ => words[word].replacen(['.', '%', '0'], WORDS[random.below(24) as usize], 1),
                };
                lines[at] = words.join(" ");
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

#[test]
fn mutated_ptx_is_loaded_or_refused() {
    let corpus: Vec<String> = ["suite", "speed", "driver"]
        .iter()
        .flat_map(|file| [support::compile(file, &[]), support::compile(file, &["-Xcicc", "-O0"])])
        .collect();
    let mut memory = Memory::new().unwrap();
    let mut random = Random::new(1);
    let (mut loaded, mut refused) = (0, 0);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::time::Instant::now() < until {
        let text = mutate(&corpus[random.below(corpus.len() as u64) as usize], &mut random);
        let Ok(mut image) = Image::load(&text, &mut memory, 0) else {
            refused += 1;
            continue;
        };
        let names: Vec<String> = image.kernels().map(str::to_string).collect();
        for name in names {
            match image.kernel(&name, Options { keep_moves: random.below(2) == 0, observe: random.below(2) == 0 }) {
                Ok(_) => loaded += 1,
                Err(error) => {
                    refused += 1;
                    assert!(!error.problems.is_empty());
                }
            }
        }
        image.unload(&mut memory);
    }
    println!("{loaded} kernels loaded, {refused} refused");
    assert!(loaded > 100 && refused > 100);
}

on_cusim! {
    fn random_calls_give_codes("CUSIM_CHECK" = "all") {
        use cudarc::driver::sys;
        let mut random = Random::new(2);
        let mut handles = vec![0u64, 1, 2, 0x5100_0000_0000_0010, u64::MAX, 0x1000];
        let ptx = std::ffi::CString::new(support::compile("driver", &[])).unwrap();
        let name = c"double_all";
        // SAFETY: pointers are valid for what the calls read and write; handles may be anything.
        unsafe {
            sys::cuInit(0).result().unwrap();
            let mut context = std::ptr::null_mut();
            sys::cuDevicePrimaryCtxRetain(&mut context, 0).result().unwrap();
            sys::cuCtxSetCurrent(context).result().unwrap();
            let mut faults = 0;
            for _ in 0..20_000 {
                let a = handles[random.below(handles.len() as u64) as usize];
                let b = handles[random.below(handles.len() as u64) as usize];
                let mut out = 0u64;
                let size = random.below(1 << 16) as usize;
                let mut value = 0i32;
                let made = match random.below(28) {
                    0 => sys::cuStreamCreate((&mut out as *mut u64).cast(), random.below(3) as u32),
                    1 => sys::cuStreamDestroy_v2(a as _),
                    2 => sys::cuStreamSynchronize(a as _),
                    3 => sys::cuEventCreate((&mut out as *mut u64).cast(), random.below(9) as u32),
                    4 => sys::cuEventRecord(a as _, b as _),
                    5 => sys::cuEventDestroy_v2(a as _),
                    6 => sys::cuStreamWaitEvent(a as _, b as _, 0),
                    7 => sys::cuEventElapsedTime((&mut value as *mut i32).cast(), a as _, b as _),
                    8 => sys::cuMemAlloc_v2(&mut out, size),
                    9 => sys::cuMemAllocAsync(&mut out, size, a as _),
                    10 => sys::cuMemFree_v2(a),
                    11 => sys::cuMemFreeAsync(a, b as _),
                    12 => sys::cuMemcpyDtoDAsync_v2(a, b, size, std::ptr::null_mut()),
                    13 => sys::cuMemsetD8Async(a, 1, size, b as _),
                    14 => sys::cuModuleLoadData((&mut out as *mut u64).cast(), ptx.as_ptr().cast()),
                    15 => sys::cuModuleUnload(a as _),
                    16 => sys::cuModuleGetFunction((&mut out as *mut u64).cast(), a as _, name.as_ptr()),
                    17 => sys::cuLaunchKernel(
                        a as _, random.below(3) as u32, 1, 1, random.below(2000) as u32, 1, 1, size as u32, b as _,
                        [(&a as *const u64 as *mut std::ffi::c_void), (&value as *const i32 as *mut _)].as_mut_ptr(),
                        std::ptr::null_mut(),
                    ),
                    18 => sys::cuStreamBeginCapture_v2(
                        a as _, sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                    ),
                    19 => sys::cuStreamEndCapture(a as _, (&mut out as *mut u64).cast()),
                    20 => sys::cuGraphInstantiateWithFlags((&mut out as *mut u64).cast(), a as _, 0),
                    21 => sys::cuGraphLaunch(a as _, b as _),
                    22 => sys::cuGraphDestroy(a as _),
                    23 => sys::cuGraphExecDestroy(a as _),
                    25 => {
                        let mut info = std::mem::zeroed();
                        sys::cuGraphExecUpdate_v2(a as _, b as _, &mut info)
                    }
                    26 => {
                        let mut mode = match random.below(2) {
                            0 => sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_GLOBAL,
                            _ => sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED,
                        };
                        sys::cuThreadExchangeStreamCaptureMode(&mut mode)
                    }
                    24 => sys::cuMemPoolTrimTo(a as _, size),
                    _ => sys::cuEventQuery(a as _),
                };
                let code = made as u32;
                assert_ne!(code, 999, "an internal error");
                if matches!(code, 700 | 716 | 719) {
                    // The context is of no use any more: a new one.
                    faults += 1;
                    sys::cuDevicePrimaryCtxReset_v2(0).result().unwrap();
                    sys::cuDevicePrimaryCtxRetain(&mut context, 0).result().unwrap();
                    sys::cuCtxSetCurrent(context).result().unwrap();
                    continue;
                }
                if code == 0 && out != 0 {
                    handles.push(out);
                    if handles.len() > 60 {
                        handles.remove(6);
                    }
                }
            }
            println!("{faults} faults");
        }
    }
}
