//! What C++ compiles to, at every optimisation level.

mod support;

use cusim::exec::order::Order;
use cusim::exec::program::Program;
use cusim::machine::fault::FaultKind;
use cusim::sandbox::{Arg, Sandbox};

const LEVELS: [&[&str]; 4] = [&[], &["-Xcicc", "-O0"], &["-Xcicc", "-O1"], &["-Xcicc", "-O2"]];

/// Runs a test at every level.
fn at_every_level(kernel: &str, test: impl Fn(&mut Sandbox, &Program)) {
    for level in LEVELS {
        let ptx = support::compile("language", level);
        let mut sandbox = Sandbox::new(1);
        sandbox.order = Order::Reverse;
        let image = sandbox.load(&ptx).unwrap();
        let program = sandbox.kernel(&image, kernel).unwrap_or_else(|error| panic!("{level:?}: {error}"));
        test(&mut sandbox, &program);
    }
}

#[test]
fn functions_recursion_and_pointers() {
    at_every_level("calls", |sandbox, program| {
        let out = sandbox.reserve(64 * 4);
        let mut record = vec![0u8; 24];
        record[..4].copy_from_slice(&10i32.to_le_bytes());
        record[8..16].copy_from_slice(&0.25f64.to_le_bytes());
        record[16..21].copy_from_slice(&[1, 2, 3, 4, 0xff]);
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(out), Arg::Bytes(record)]).unwrap();
        for (i, value) in sandbox.download::<f32>(out, 64).into_iter().enumerate() {
            let factorial: f32 = (1..=i % 7).product::<usize>() as f32;
            let called = if i % 2 == 0 { 1.5 * i as f32 + [1.0, 2.0, 3.0, 4.0][i & 3] } else { 1.5 - i as f32 };
            let c = [1.0, 2.0, 3.0, 4.0, -1.0][i % 5];
            assert_eq!(value, called + factorial + c + 0.25 + 10.0, "thread {i}");
        }
    });
}

#[test]
fn local_memory_and_constants() {
    at_every_level("locals", |sandbox, program| {
        let out = sandbox.reserve(256);
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(out), Arg::U32(9)]).unwrap();
        for (i, value) in sandbox.download::<i32>(out, 64).into_iter().enumerate() {
            let table = |k: usize| (k * 9) as i32 + [2, 3, 5, 7, 11, 13][k % 6];
            assert_eq!(value, (0..9).map(|k| table((i * 7 + k * k) & 15)).sum::<i32>());
        }
    });
}

#[test]
fn asserts_stop_the_launch() {
    at_every_level("asserts", |sandbox, program| {
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U32(64)]).unwrap();
        let fault = sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U32(40)]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Assert);
        assert_eq!(fault.lane, 40);
        assert!(fault.detail.contains("language.cu") && fault.detail.contains("limit"), "{}", fault.detail);
    });
}

#[test]
fn lanes_that_diverge() {
    at_every_level("diverges", |sandbox, program| {
        let out = sandbox.upload(&[-1000i32; 64]);
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(out)]).unwrap();
        for (i, value) in sandbox.download::<i32>(out, 64).into_iter().enumerate() {
            let (mut n, mut steps) = (i + 1, 0);
            while n != 1 && steps <= 60 {
                n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
                steps += 1;
            }
            let expected = match i % 5 {
                0 => steps + 100,
                1 => steps * 2 - 3,
                2 => steps - 3,
                3 if i > 16 => -1000,
                _ => -steps,
            };
            assert_eq!(value, expected, "thread {i}");
        }
    });
}

#[test]
fn a_lock_within_a_warp() {
    at_every_level("spins", |sandbox, program| {
        let (lock, count) = (sandbox.upload(&[0i32]), sandbox.upload(&[0i32]));
        sandbox.launch(program, [3, 1, 1], [64, 1, 1], 0, &[Arg::U64(lock), Arg::U64(count)]).unwrap();
        assert_eq!(sandbox.download::<i32>(count, 1), [192]);
    });
}

#[test]
fn the_math_library() {
    at_every_level("library", |sandbox, program| {
        let x: Vec<f32> = (0..400).map(|i| (i as f32 - 200.3) * 0.11).chain([1e5, -3e7, 1e-8, 88.0]).collect();
        let n = x.len();
        let (dx, dy) = (sandbox.upload(&x), sandbox.reserve((10 * n * 4) as u64));
        sandbox.launch(program, [4, 1, 1], [128, 1, 1], 0, &[Arg::U64(dx), Arg::U64(dy), Arg::U32(n as u32)]).unwrap();
        let y: Vec<f32> = sandbox.download(dy, 10 * n);
        for (i, x) in x.iter().map(|x| f64::from(*x)).enumerate() {
            let expected = [
                x.sin(),
                x.exp(),
                (f64::from((x as f32).abs() + 1e-3f32)).ln(),
                f64::NAN,
                x.abs().powf(f64::from(1.7f32)),
                x.abs().sqrt(),
                x.tanh(),
                1.0 / x,
                (x / 8.0).exp(),
                1.0 / f64::from(x.abs() as f32 + 0.1f32).sqrt(),
            ];
            for (function, expected) in expected.into_iter().enumerate() {
                let got = y[function * n + i];
                let want = expected as f32;
                if expected.is_nan() || want.is_infinite() && got == want {
                    continue;
                }
                // The library promises a few units in the last place.
                let error = (f64::from(got) - expected).abs();
                let unit = f64::from(want.abs().max(1e-38)) * 2f64.powi(-23);
                assert!(error <= 9.0 * unit, "function {function} of {x}: {got}, not {want}");
            }
            let erf = f64::from(y[3 * n + i]);
            assert!(erf.abs() <= 1.0 && (x.abs() < 0.01 || erf.signum() == x.signum()));
        }
    });
}

#[test]
fn warp_intrinsics() {
    at_every_level("warps", |sandbox, program| {
        let out = sandbox.reserve(12 * 64 * 4);
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(out)]).unwrap();
        let out: Vec<u32> = sandbox.download(out, 12 * 64);
        for thread in 0..64usize {
            let lane = (thread % 32) as u32;
            let got: Vec<u32> = (0..12).map(|row| out[row * 64 + thread]).collect();
            let first_set = if lane == 0 { 0 } else { lane.trailing_zeros() + 1 };
            let expected = [
                (0..32).filter(|lane| lane % 3 == 0).fold(0, |mask, lane| mask | 1 << lane),
                1,
                0xf << (lane / 4 * 4),
                496 + 31,
                (lane + 7) % 32 * 3,
                if lane % 8 >= 3 { lane - 3 } else { lane },
                if lane % 16 + 2 < 16 { lane + 2 } else { lane },
                lane ^ 9,
                10,
                2,
                32u32.wrapping_add(first_set).wrapping_add(lane.leading_zeros()).wrapping_add(lane.reverse_bits()),
                0,
            ];
            assert_eq!(got, expected, "thread {thread}");
        }
    });
}

#[test]
fn halves_of_a_warp() {
    at_every_level("halves", |sandbox, program| {
        let out = sandbox.reserve(128);
        sandbox.launch(program, [1, 1, 1], [32, 1, 1], 0, &[Arg::U64(out)]).unwrap();
        let expected: Vec<i32> = (0..32).map(|lane| lane ^ if lane < 16 { 1 } else { 2 }).collect();
        assert_eq!(sandbox.download::<i32>(out, 32), expected);
    });
}

#[test]
fn long_and_packed_arithmetic() {
    at_every_level("wide", |sandbox, program| {
        let a: Vec<u64> = (0..64u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i << 40).collect();
        let (da, out) = (sandbox.upload(&a), sandbox.reserve(64 * 32));
        sandbox.launch(program, [1, 1, 1], [64, 1, 1], 0, &[Arg::U64(da), Arg::U64(out)]).unwrap();
        let out: Vec<u64> = sandbox.download(out, 256);
        for i in 0..64 {
            let (x, y) = (a[i], a[(i + 1) % 64]);
            let product = u128::from(x) * u128::from(y);
            let byte = |v: u64, k: usize| i32::from((v >> (8 * k)) as i8);
            let dot = (0..4).map(|k| byte(x, k) * byte(y, k)).sum::<i32>() + 3;
            let half = |v: f32| u64::from(cusim::math::half::narrow::<cusim::math::half::F16>(v));
            let h = (i % 9) as f32;
            let packed = ((half(h * h + h) + 0x3fc0) as i64 + i64::from(dot)) as i32;
            let expected = [
                (product >> 64) as u64,
                (product + u128::from(x)) as u64,
                x / (y | 1) + x % (y | 1),
                packed as i64 as u64,
            ];
            assert_eq!(out[4 * i..4 * i + 4], expected, "thread {i}");
        }
    });
}

on_cusim! {
    fn prints_child() {
        use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
        let ctx = CudaContext::new(0).unwrap();
        let module = ctx.load_module(cudarc::nvrtc::Ptx::from_src(support::compile("language", &[]))).unwrap();
        let prints = module.load_function("prints").unwrap();
        let x = 2.5f32;
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };
        unsafe { ctx.default_stream().launch_builder(&prints).arg(&x).launch(config) }.unwrap();
    }
}

#[test]
fn printf() {
    if support::is_child() {
        return;
    }
    let said = support::text(&support::run_child("prints_child", &[]));
    assert!(said.contains("lane 5: 2.500 2.5e+00 ff %\n"), "{said}");
}
