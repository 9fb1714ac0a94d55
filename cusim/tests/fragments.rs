//! Matrix fragments of every type and shape as nvcc compiles them, pipelines and clocks.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use cusim::check::Checks;
use cusim::math::half::{BF16, F16, Half, narrow};
use cusim::sandbox::{Arg, Sandbox};

/// A type of elements: its bytes for a small integer, and back.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    signed: bool,
    element: fn(i32) -> Vec<u8>,
    sum: fn(i32) -> Vec<u8>,
}

fn half<H: Half>(value: i32) -> Vec<u8> {
    narrow::<H>(value as f32).to_le_bytes().to_vec()
}

fn float(value: i32) -> Vec<u8> {
    (value as f32).to_le_bytes().to_vec()
}

fn double(value: i32) -> Vec<u8> {
    f64::from(value).to_le_bytes().to_vec()
}

fn int(value: i32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn byte(value: i32) -> Vec<u8> {
    vec![value as u8]
}

const KINDS: [Kind; 5] = [
    Kind { name: "half", signed: true, element: half::<F16>, sum: float },
    Kind { name: "halves", signed: true, element: half::<F16>, sum: half::<F16> },
    Kind { name: "bfloat", signed: true, element: half::<BF16>, sum: float },
    Kind { name: "bytes", signed: true, element: byte, sum: int },
    Kind { name: "unsigned_bytes", signed: false, element: byte, sum: int },
];

/// Small integers, whose products and sums are exact in every type.
fn small(at: usize, salt: usize, signed: bool) -> i32 {
    let value = (at * 37 + salt * 101 + at / 7) % 15;
    value as i32 - if signed { 7 } else { 0 }
}

/// Runs a kernel with all checks; what it leaves in its last argument.
fn run(kernel: &str, inputs: &[Vec<u8>], bytes: usize, threads: u32) -> Vec<u8> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(1);
    sandbox.check(Checks::ALL);
    let image = sandbox.load(&support::compile("fragments", &[])).unwrap();
    let program = sandbox.kernel(&image, kernel).unwrap_or_else(|error| panic!("{kernel}: {error}"));
    let mut args: Vec<Arg> = inputs.iter().map(|input| Arg::U64(sandbox.upload(input))).collect();
    let out = sandbox.reserve(bytes as u64);
    args.push(Arg::U64(out));
    sandbox.launch(&program, [1, 1, 1], [threads, 1, 1], 0, &args).unwrap();
    assert_eq!(sandbox.sink.count(), 0, "{kernel}: {:?}", sandbox.sink.reports());
    sandbox.download(out, bytes)
}

fn check(kind: Kind, [m, n, k]: [usize; 3]) {
    let values = |count: usize, salt: usize| (0..count).map(|at| small(at, salt, kind.signed)).collect::<Vec<_>>();
    let (a, b, c) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
    let bytes =
        |values: &[i32], to: fn(i32) -> Vec<u8>| values.iter().flat_map(|value| to(*value)).collect::<Vec<u8>>();
    let expected: Vec<i32> =
        (0..m * n).map(|at| c[at] + (0..k).map(|i| a[at / n * k + i] * b[at % n * k + i]).sum::<i32>()).collect();
    let expected = bytes(&expected, kind.sum);
    let kernel = format!("{}_{m}x{n}x{k}", kind.name);
    let inputs = [bytes(&a, kind.element), bytes(&b, kind.element), bytes(&c, kind.sum)];
    assert!(run(&kernel, &inputs, expected.len(), 32) == expected, "{kernel}");
}

#[test]
fn products_of_every_type_and_shape() {
    for kind in KINDS {
        for shape in [[16, 16, 16], [32, 8, 16], [8, 32, 16]] {
            check(kind, shape);
        }
    }
    check(Kind { name: "tf32", signed: true, element: float, sum: float }, [16, 16, 8]);
    check(Kind { name: "doubles", signed: true, element: double, sum: double }, [8, 8, 4]);
}

#[test]
fn products_of_nibbles() {
    let nibble = |at: usize, salt: usize| small(at, salt, true);
    let pack =
        |salt: usize| (0..128).map(|at| (nibble(2 * at, salt) & 15 | nibble(2 * at + 1, salt) << 4) as u8).collect();
    let c: Vec<i32> = (0..64).map(|at| small(at, 3, true)).collect();
    let bytes = |values: &[i32]| values.iter().flat_map(|value| int(*value)).collect::<Vec<u8>>();
    let expected: Vec<i32> = (0..64)
        .map(|at| c[at] + (0..32).map(|i| nibble(at / 8 * 32 + i, 1) * nibble(at % 8 * 32 + i, 2)).sum::<i32>())
        .collect();
    assert_eq!(run("nibbles", &[pack(1), pack(2), bytes(&c)], 256, 32), bytes(&expected));
}

#[test]
fn sums_that_clamp() {
    let c: Vec<u8> = (0..256).flat_map(|at| int(if at % 2 == 0 { i32::MAX - 5 } else { at })).collect();
    let expected: Vec<u8> = (0..256).flat_map(|at| int(if at % 2 == 0 { i32::MAX } else { at + 16 })).collect();
    assert_eq!(run("clamped", &[vec![1; 256], vec![1; 256], c], 1024, 32), expected);
}

#[test]
fn pipelines_and_clocks() {
    let x: Vec<u8> = (0..128).flat_map(int).collect();
    let reversed: Vec<u8> = (0..128).rev().flat_map(int).collect();
    assert_eq!(run("pipeline", &[x], 512, 128), reversed);
    let ones: Vec<u8> = (0..64).flat_map(|_| int(1)).collect();
    assert_eq!(run("clocks", &[], 256, 64), ones);
}

#[test]
fn the_timer_is_the_hosts_clock() {
    let since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let before = since_1970();
    let times = run("timer", &[], 16, 1);
    let [begun, ended] = [0, 8].map(|at| u64::from_le_bytes(times[at..at + 8].try_into().unwrap()));
    assert!(before <= begun && begun + 3_000_000 <= ended && ended <= since_1970(), "{before} {begun} {ended}");
}
