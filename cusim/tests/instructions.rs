//! Instructions that later architectures brought: what they do, and what a module may hold that cusim does not have.

mod support;

use cusim::check::Checks;
use cusim::lower::Options;
use cusim::machine::fault::{Fault, FaultKind};
use cusim::sandbox::{Arg, Sandbox};

/// Sandboxes with checks reserve much address space: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const HEADER: &str = ".version 8.4\n.target sm_90\n.address_size 64\n";

/// Runs a kernel of PTX text in one block with all checks, given its arguments; nothing may be reported.
fn run(body: &str, threads: u32, inputs: &[Vec<u8>], bytes: usize) -> Vec<u8> {
    let (out, reports, fault) = attempt(body, threads, inputs, bytes);
    assert!(reports.is_empty() && fault.is_none(), "{fault:?} {reports:?}");
    out
}

/// The same, whatever comes out: what was written, the reports, and the fault.
fn attempt(body: &str, threads: u32, inputs: &[Vec<u8>], bytes: usize) -> (Vec<u8>, Vec<String>, Option<Box<Fault>>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names: Vec<String> = (0..inputs.len()).map(|index| format!(", .param .u64 in{index}")).collect();
    let ptx = format!("{HEADER}.visible .entry k(.param .u64 out{}) {{\n{body}\nret;\n}}", names.join(""));
    let mut sandbox = Sandbox::new(1);
    sandbox.check(Checks::ALL);
    let image = sandbox.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let program = sandbox.kernel(&image, "k").unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let out = sandbox.reserve(bytes as u64);
    let inputs: Vec<u64> = inputs.iter().map(|input| sandbox.upload(input)).collect();
    let args: Vec<Arg> = [out].into_iter().chain(inputs).map(Arg::U64).collect();
    let fault = sandbox.launch(&program, [1, 1, 1], [threads, 1, 1], 0, &args).err();
    let reports = sandbox.sink.reports().iter().map(|report| report.to_string()).collect();
    (sandbox.download(out, bytes), reports, fault)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A thread's place in arrays of four bytes per thread: `%to` in `out`, `%from` in `in0`.
const PLACES: &str = ".reg .b64 %to, %from, %o; .reg .b32 %t; mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4;
    ld.param.u64 %to, [out]; add.u64 %to, %to, %o;";

#[test]
fn dependencies_between_grids_hold_already() {
    let body =
        format!("{PLACES} griddepcontrol.wait; st.global.u32 [%to], %t; griddepcontrol.launch_dependents; bar.sync 0;");
    assert_eq!(words(&run(&body, 64, &[], 256)), (0..64).collect::<Vec<_>>());
}

#[test]
fn a_kernel_that_begins_early_waits_for_what_others_write() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The first writes `out` and reads `in0`; of `in1` it knows nothing.
    let first =
        "ld.param.u64 %from, [in0]; add.u64 %from, %from, %o; ld.global.u32 %a, [%from]; st.global.u32 [%to], %a;";
    let other = |name: &str| format!("ld.param.u64 %from, [{name}]; add.u64 %from, %from, %o;");
    let (read_in1, write_in0) =
        (other("in1") + "ld.global.u32 %a, [%from];", other("in0") + "st.global.u32 [%from], %t;");
    let (wait, read_out) = ("griddepcontrol.wait;", "ld.global.u32 %a, [%to];");
    let one_waits = ".reg .pred %p; setp.ge.u32 %p, %t, 32; @%p bra ON; griddepcontrol.wait; ON:";
    let cases = [
        (format!("{read_in1} {wait} {read_out} {write_in0}"), None),
        (format!("{one_waits} bar.sync 0; {read_out}"), None),
        (format!("prefetch.global.L2 [%to]; {wait}"), None),
        (read_out.to_string(), Some("reads what an earlier launch writes")),
        (write_in0.clone(), Some("writes what an earlier launch reads")),
        (format!("{one_waits} {read_out}"), Some("thread (32, 0, 0)")),
    ];
    for (body, expected) in cases {
        let kernel = |name: &str, body: &str| {
            let params = ".param .u64 out, .param .u64 in0, .param .u64 in1";
            format!(".visible .entry {name}({params}) {{ .reg .b32 %a; {PLACES} {body} ret; }}\n")
        };
        let ptx = format!("{HEADER}{}{}", kernel("first", first), kernel("second", &body));
        let mut sandbox = Sandbox::new(2);
        sandbox.check(Checks::ALL);
        let image = sandbox.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let [first, second] = ["first", "second"].map(|name| sandbox.kernel(&image, name).unwrap());
        let args = [0, 0, 0].map(|_: u32| Arg::U64(sandbox.upload(&[7u32; 64])));
        sandbox.launch(&first, [1, 1, 1], [64, 1, 1], 0, &args).unwrap();
        // One after the other, whatever it does is right.
        sandbox.launch(&second, [1, 1, 1], [64, 1, 1], 0, &args).unwrap();
        assert!(sandbox.sink.reports().is_empty(), "{body}");
        sandbox.launch(&first, [1, 1, 1], [64, 1, 1], 0, &args).unwrap();
        sandbox.early = true;
        sandbox.launch(&second, [1, 1, 1], [64, 1, 1], 0, &args).unwrap();
        let reports: Vec<String> = sandbox.sink.reports().iter().map(|report| report.to_string()).collect();
        match expected {
            None => assert!(reports.is_empty(), "{body}: {reports:?}"),
            Some(text) => assert!(
                reports.iter().any(|report| {
                    report.contains("[race]") && report.contains(text) && report.contains("griddepcontrol.wait")
                }),
                "{body}: {reports:?}"
            ),
        }
    }
}

#[test]
fn a_matrix_is_transposed_between_registers() {
    let body = format!(
        "{PLACES} .reg .b32 %a, %d; ld.param.u64 %from, [in0]; add.u64 %from, %from, %o; ld.global.u32 %a, [%from];
        movmatrix.sync.aligned.m8n8.trans.b16 %d, %a; st.global.u32 [%to], %d;"
    );
    let elements: Vec<u16> = (0..64).map(|at| at * 257 + 5).collect();
    let input: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    let moved = run(&body, 32, &[input], 128);
    let got: Vec<u16> = moved.chunks(2).map(|element| u16::from_le_bytes([element[0], element[1]])).collect();
    let expected: Vec<u16> = (0..64).map(|at| elements[at % 8 * 8 + at / 8]).collect();
    assert_eq!(got, expected);
}

#[test]
fn reserved_shared_memory_is_apart_from_the_kernel_s() {
    let body = format!(
        "{PLACES} .shared .b32 own[64]; .reg .b32 %b, %e, %c, %f, %a, %v; .reg .pred %p;
        mov.u32 %b, %reserved_smem_offset_begin; mov.u32 %e, %reserved_smem_offset_end;
        mov.u32 %c, %reserved_smem_offset_cap; mov.u32 %f, %reserved_smem_offset_1;
        shl.b32 %a, %t, 2; add.u32 %b, %b, %a; st.shared.u32 [%b], %t;
        mov.u32 %v, own; add.u32 %v, %v, %a; st.shared.u32 [%v], %c; bar.sync 0;
        ld.shared.u32 %v, [%b]; sub.u32 %e, %e, %b; add.u32 %e, %e, %a; add.u32 %v, %v, %e;
        setp.ge.u32 %p, %f, %b; @!%p add.u32 %v, %v, 7; st.global.u32 [%to], %v;"
    );
    let expected: Vec<u32> = (0..64).map(|thread| thread + 1024).collect();
    assert_eq!(words(&run(&body, 64, &[], 256)), expected);
}

#[test]
fn tiles_of_two_warps_meet_in_reserved_shared_memory() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut sandbox = Sandbox::new(1);
    sandbox.check(Checks::ALL);
    let image = sandbox.load(&support::compile("tiles", &[])).unwrap();
    let program = sandbox.kernel(&image, "tile_sums").unwrap();
    let out = sandbox.reserve(4 * 256);
    sandbox.launch(&program, [1, 1, 1], [256, 1, 1], 0, &[Arg::U64(out)]).unwrap();
    assert_eq!(sandbox.sink.count(), 0, "{:?}", sandbox.sink.reports());
    let expected: Vec<u32> =
        (0..256u32).map(|thread| (thread / 64 * 64..).take(64).sum::<u32>() + thread / 64 * 64 + 63).collect();
    assert_eq!(sandbox.download::<u32>(out, 256), expected);
}

/// 256 threads each add 1 to a word that a copy in two pieces brings to shared memory, and another takes back.
fn bulk_copies(wait: &str, bytes: u32) -> (Vec<u8>, Vec<String>, Option<Box<Fault>>) {
    let body = format!(
        ".shared .align 16 .b8 tile[1024]; .shared .align 8 .b64 object; .reg .b32 %t, %tile, %m, %v;
        .reg .b64 %to, %from, %token; .reg .pred %first, %done;
        mov.u32 %t, %tid.x; mov.u32 %tile, tile; mov.u32 %m, object; setp.eq.u32 %first, %t, 0;
        @%first mbarrier.init.shared.b64 [%m], 1; @%first fence.mbarrier_init.release.cluster; bar.sync 0;
        @!%first bra $wait;
        ld.param.u64 %from, [in0]; mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %token, [%m], 1024;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%tile], [%from], {bytes}, [%m];
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%tile+512], [%from+512], 512, [%m];
        $wait: {wait}
        shl.b32 %t, %t, 2; add.u32 %t, %t, %tile; ld.shared.u32 %v, [%t]; add.u32 %v, %v, 1; st.shared.u32 [%t], %v;
        fence.proxy.async; bar.sync 0; @!%first ret;
        ld.param.u64 %to, [out]; cp.async.bulk.global.shared::cta.bulk_group [%to], [%tile], 1024;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;"
    );
    let input = (0..256u32).flat_map(|word| (word * 3).to_le_bytes()).collect();
    attempt(&body, 256, &[input], 1024)
}

const AWAIT: &str = "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %done, [%m], 0; @!%done bra $wait;";

#[test]
fn an_mbarrier_waits_for_the_bytes_of_bulk_copies() {
    let (out, reports, fault) = bulk_copies(AWAIT, 512);
    assert!(reports.is_empty() && fault.is_none(), "{fault:?} {reports:?}");
    assert_eq!(words(&out), (0..256).map(|word| word * 3 + 1).collect::<Vec<_>>());
    let (_, reports, _) = bulk_copies("", 512);
    assert!(reports.iter().any(|report| report.contains("[race]") && report.contains("cp.async.bulk")), "{reports:?}");
    // What is expected and never comes is waited for, for ever.
    let (_, _, fault) = bulk_copies(AWAIT, 256);
    assert_eq!(fault.unwrap().kind, FaultKind::Deadlock);
    let (_, _, fault) = bulk_copies(AWAIT, 500);
    assert_eq!(fault.unwrap().kind, FaultKind::BadOperand);
    let (_, _, fault) = bulk_copies(AWAIT, 2048);
    assert_eq!(fault.unwrap().kind, FaultKind::OutOfBounds);
}

#[test]
fn a_texture_refuses_only_the_kernels_that_use_it() {
    let ptx = format!(
        "{HEADER}.global .texref picture;
        .global .samplerref sampler = {{ addr_mode_0 = clamp_to_border, filter_mode = nearest }};
        .visible .entry object(.param .u64 t) {{
        .reg .f32 %f<5>; .reg .b64 %t; ld.param.u64 %t, [t]; mov.f32 %f0, 0f00000000;
        tex.2d.v4.f32.f32 {{%f1, %f2, %f3, %f4}}, [%t, {{%f0, %f0}}]; ret; }}
        .visible .entry reference() {{ .reg .f32 %f<5>; .reg .b64 %t; mov.f32 %f0, 0f00000000;
        tex.1d.v4.f32.f32 {{%f1, %f2, %f3, %f4}}, [picture, sampler, {{%f0}}]; ret; }}
        .visible .entry address() {{ .reg .b64 %t; mov.u64 %t, picture; ret; }}
        .visible .entry surface(.param .u64 s) {{ .reg .b32 %r<2>; .reg .b64 %s; ld.param.u64 %s, [s]; mov.u32 %r0, 0;
        sust.b.2d.b32.trap [%s, {{%r0, %r0}}], {{%r0}}; ret; }}
        .visible .entry plain() {{ ret; }}"
    );
    let mut sandbox = Sandbox::new(1);
    let image = sandbox.load(&ptx).unwrap();
    for kernel in ["object", "reference", "address", "surface"] {
        let refused = image.kernel(kernel, Options::default()).unwrap_err().to_string();
        assert!(refused.contains("texture"), "{kernel}: {refused}");
        assert!(refused.contains("PTX line"), "{kernel}: {refused}");
    }
    let plain = image.kernel("plain", Options::default()).unwrap();
    sandbox.launch(&plain, [1, 1, 1], [32, 1, 1], 0, &[]).unwrap();
}

/// The number that an eight-bit float stands for: `None` for a NaN, infinity where the format has one.
fn value(bits: u8, exponent_bits: u32) -> Option<f64> {
    let fraction_bits = 7 - exponent_bits;
    let (exponent, fraction) = (i32::from(bits & 0x7f) >> fraction_bits, i32::from(bits) & ((1 << fraction_bits) - 1));
    let bias = (1 << (exponent_bits - 1)) - 1;
    let whole = 1 << fraction_bits;
    let magnitude = match (exponent_bits, bits & 0x7f, exponent) {
        (4, 0x7f, _) => return None,
        (5, 0x7c, _) => f64::INFINITY,
        (5, 0x7d.., _) => return None,
        (_, _, 0) => f64::from(fraction) / f64::from(whole) * 2f64.powi(1 - bias),
        _ => f64::from(whole + fraction) / f64::from(whole) * 2f64.powi(exponent - bias),
    };
    Some(if bits & 0x80 != 0 { -magnitude } else { magnitude })
}

/// Rounds by looking for the nearest of all numbers of a format, the even one of two; `None` for a NaN.
fn nearest(x: f32, exponent_bits: u32) -> Option<u8> {
    if x.is_nan() {
        return None;
    }
    let magnitude = f64::from(x).abs();
    let finite = (0..0x80u8).filter(|bits| value(*bits, exponent_bits).is_some_and(f64::is_finite));
    let distance = |bits: u8| (value(bits, exponent_bits).unwrap() - magnitude).abs();
    let largest = finite.clone().max().unwrap();
    let best = if magnitude >= value(largest, exponent_bits).unwrap() {
        largest
    } else {
        finite.min_by(|a, b| distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)))).unwrap()
    };
    Some(best | if x.is_sign_negative() { 0x80 } else { 0 })
}

#[test]
fn eight_bit_floats_round_to_the_nearest_and_saturate() {
    for (format, exponent_bits) in [("e4m3x2", 4), ("e5m2x2", 5)] {
        // All numbers of the format, what lies between two of them, and just beside that; and what is beyond.
        let mut numbers = vec![f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-30, -1e-30, -0.0];
        let finite: Vec<f64> =
            (0..0x80).filter_map(|bits| value(bits, exponent_bits)).filter(|x| x.is_finite()).collect();
        let largest = *finite.last().unwrap();
        for pair in finite.windows(2).map(|pair| [pair[0], pair[1]]).chain([[largest, largest * 1.125]]) {
            let between = ((pair[0] + pair[1]) / 2.0) as f32;
            for x in [pair[0] as f32, between, between.next_up(), between.next_down()] {
                numbers.extend([x, -x]);
            }
        }
        numbers.resize(numbers.len().next_multiple_of(2), 1.0);
        let input: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let half = |x: f32| cusim::math::half::narrow::<cusim::math::half::F16>(x);
        let halves: Vec<u8> = numbers.iter().flat_map(|x| half(*x).to_le_bytes()).collect();
        let count = numbers.len() / 2;
        for relu in ["", ".relu"] {
            let body = |source: &str, load: &str, shift: u32| {
                format!(
                    ".reg .b64 %to, %from, %o; .reg .b32 %t, %h; .reg .f32 %a, %b; .reg .b16 %d; .reg .pred %p;
                    mov.u32 %t, %tid.x; setp.ge.u32 %p, %t, {count}; @%p ret; mul.wide.u32 %o, %t, 2;
                    ld.param.u64 %to, [out]; add.u64 %to, %to, %o; ld.param.u64 %from, [in0];
                    shl.b64 %o, %o, {shift}; add.u64 %from, %from, %o;
                    {load} cvt.rn.satfinite{relu}.{format}.{source}; st.global.b16 [%to], %d;"
                )
            };
            let threads = (count as u32).next_multiple_of(32);
            let pairs = body("f32 %d, %b, %a", "ld.global.v2.f32 {%a, %b}, [%from];", 2);
            let packed = body("f16x2 %d, %h", "ld.global.b32 %h, [%from];", 1);
            let from_floats = run(&pairs, threads, std::slice::from_ref(&input), 2 * count);
            let from_halves = run(&packed, threads, std::slice::from_ref(&halves), 2 * count);
            let expect = |x: f32| match nearest(x, exponent_bits) {
                None => 0x7f,
                Some(bits) if bits & 0x80 != 0 && !relu.is_empty() => 0,
                Some(bits) => bits,
            };
            for (at, x) in numbers.iter().enumerate() {
                assert_eq!(from_floats[at], expect(*x), "{format}{relu} of {x:e}");
                let short = <cusim::math::half::F16 as cusim::math::half::Half>::widen(half(*x));
                assert_eq!(from_halves[at], expect(short), "{format}{relu} of the half {short:e}");
            }
        }
    }
}

#[test]
fn eight_bit_floats_widen_exactly() {
    let body = |format: &str, relu: &str| {
        format!(
            "{PLACES} .reg .b16 %a; .reg .b32 %d; ld.param.u64 %from, [in0]; shr.u64 %o, %o, 1;
            add.u64 %from, %from, %o; ld.global.b16 %a, [%from]; cvt.rn{relu}.f16x2.{format} %d, %a;
            st.global.b32 [%to], %d;"
        )
    };
    let all: Vec<u8> = (0..=255).collect();
    for (format, exponent_bits) in [("e4m3x2", 4), ("e5m2x2", 5)] {
        for relu in ["", ".relu"] {
            let widened = run(&body(format, relu), 128, std::slice::from_ref(&all), 512);
            for (bits, half) in all.iter().zip(widened.chunks(2)) {
                let half = u16::from_le_bytes([half[0], half[1]]);
                match value(*bits, exponent_bits) {
                    None => assert_eq!(half, 0x7fff, "{format} {bits:#x}"),
                    Some(_) if bits & 0x80 != 0 && !relu.is_empty() => assert_eq!(half, 0, "{format} {bits:#x}"),
                    Some(value) => {
                        let got = <cusim::math::half::F16 as cusim::math::half::Half>::widen(half);
                        assert_eq!(f64::from(got), value, "{format} {bits:#x}");
                        assert_eq!(half >> 15, u16::from(bits >> 7), "{format} {bits:#x}");
                    }
                }
            }
        }
    }
}
