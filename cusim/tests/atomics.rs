//! Atomics on every type, and instructions that opcodes.rs has no place for.

use cusim::sandbox::{Arg, Sandbox};

const HEADER: &str = ".version 8.0\n.target sm_90\n.address_size 64\n";

/// Runs a body on 32 lanes. `%p0` is the lane's address in the first array, `%p1` in the second, and so on; element
/// sizes are given with the arrays' contents.
fn run(body: &str, arrays: &[(usize, Vec<u8>)]) -> Vec<Vec<u8>> {
    let params: Vec<String> = (0..arrays.len()).map(|index| format!(".param .u64 q{index}")).collect();
    let mut ptx = format!("{HEADER}.visible .entry k({}) {{\n.reg .b32 %t; .reg .b64 %o, %p<8>;\n", params.join(", "));
    ptx += ".shared .align 16 .b8 shared[1024];\nmov.u32 %t, %tid.x;\n";
    for (index, (size, _)) in arrays.iter().enumerate() {
        ptx += &format!(
            "ld.param.u64 %p{index}, [q{index}]; mul.wide.u32 %o, %t, {size}; add.u64 %p{index}, %p{index}, %o;\n"
        );
    }
    ptx += body;
    ptx += "\nret;\n}\n";
    let mut sandbox = Sandbox::new(1);
    let image = sandbox.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let program = sandbox.kernel(&image, "k").unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let addresses: Vec<u64> = arrays.iter().map(|(_, bytes)| sandbox.upload(bytes)).collect();
    let args: Vec<Arg> = addresses.iter().map(|address| Arg::U64(*address)).collect();
    sandbox.launch(&program, [1, 1, 1], [32, 1, 1], 0, &args).unwrap_or_else(|fault| panic!("{fault:?}\n{ptx}"));
    addresses.iter().zip(arrays).map(|(address, (_, bytes))| sandbox.download(*address, bytes.len())).collect()
}

fn bytes_of(values: &[u64], size: usize) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect()
}

fn values_of(bytes: &[u8], size: usize) -> Vec<u64> {
    bytes.chunks(size).map(|chunk| chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))).collect()
}

/// Values of 32 lanes that are easy to get wrong.
fn values(bits: u32, seed: u64) -> Vec<u64> {
    let mask = u64::MAX >> (64 - bits);
    (0..32u64)
        .map(|lane| match lane % 8 {
            0 => 0,
            1 => mask,
            2 => 1 << (bits - 1),
            3 => (1 << (bits - 1)) - 1,
            4 => seed,
            _ => (lane + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        } & mask)
        .collect()
}

/// Checks `atom` and `red` in global, shared and generic memory: the old value, and what is left in memory.
fn check(name: &str, ty: &str, bits: u32, old: &[u64], b: &[u64], c: &[u64], expected: impl Fn(u64, u64, u64) -> u64) {
    let size = bits as usize / 8;
    let third = if name == "cas" { ", %c" } else { "" };
    let move_type = format!("b{bits}");
    let load = |register: &str, pointer: usize| {
        format!(".reg .b{bits} %{register};\nld.global.{move_type} %{register}, [%p{pointer}];\n")
    };
    let mut operands = load("b", 1);
    operands += &load("c", 2);
    operands += &format!(".reg .b{bits} %old;\n");
    let arrays = || {
        vec![
            (size, bytes_of(old, size)),
            (size, bytes_of(b, size)),
            (size, bytes_of(c, size)),
            (size, vec![0; size * 32]),
        ]
    };
    let noftz = if ty.contains("f16") { ".noftz" } else { "" };
    let new: Vec<u64> = (0..32).map(|lane| expected(old[lane], b[lane], c[lane])).collect();
    for space in [".global", "", ".shared"] {
        let (before, place, after) = if space == ".shared" {
            (
                format!(
                    ".reg .b32 %s, %m; mov.u32 %s, shared; mul.lo.u32 %m, %t, {size}; add.u32 %s, %s, %m; .reg .b{bits} %i; ld.global.{move_type} %i, [%p0]; st.shared.{move_type} [%s], %i;\n"
                ),
                "%s",
                format!("ld.shared.{move_type} %i, [%s]; st.global.{move_type} [%p0], %i;\n"),
            )
        } else {
            (String::new(), "%p0", String::new())
        };
        let atom =
            format!("atom{space}.{name}{noftz}.{ty} %old, [{place}], %b{third};\nst.global.{move_type} [%p3], %old;\n");
        let out = run(&format!("{operands}{before}{atom}{after}"), &arrays());
        assert_eq!(values_of(&out[3], size), old, "atom{space}.{name}.{ty} returns the old value");
        assert_eq!(values_of(&out[0], size), new, "atom{space}.{name}.{ty}");
        if !matches!(name, "cas" | "exch") {
            let red = format!("red{space}.{name}{noftz}.{ty} [{place}], %b;\n");
            let out = run(&format!("{operands}{before}{red}{after}"), &arrays());
            assert_eq!(values_of(&out[0], size), new, "red{space}.{name}.{ty}");
        }
    }
}

#[test]
fn integers() {
    for bits in [32u32, 64] {
        let (old, b, c) = (values(bits, 5), values(bits, 77), values(bits, 9));
        let mask = u64::MAX >> (64 - bits);
        let signed = |value: u64| (value << (64 - bits)) as i64 >> (64 - bits);
        let unsigned_type = format!("u{bits}");
        let signed_type = format!("s{bits}");
        let bits_type = format!("b{bits}");
        check("add", &unsigned_type, bits, &old, &b, &c, |a, b, _| a.wrapping_add(b) & mask);
        check("min", &unsigned_type, bits, &old, &b, &c, |a, b, _| a.min(b));
        check("max", &unsigned_type, bits, &old, &b, &c, |a, b, _| a.max(b));
        check("min", &signed_type, bits, &old, &b, &c, |a, b, _| signed(a).min(signed(b)) as u64 & mask);
        check("max", &signed_type, bits, &old, &b, &c, |a, b, _| signed(a).max(signed(b)) as u64 & mask);
        check("and", &bits_type, bits, &old, &b, &c, |a, b, _| a & b);
        check("or", &bits_type, bits, &old, &b, &c, |a, b, _| a | b);
        check("xor", &bits_type, bits, &old, &b, &c, |a, b, _| a ^ b);
        check("exch", &bits_type, bits, &old, &b, &c, |_, b, _| b);
        check("cas", &bits_type, bits, &old, &b, &c, |a, b, c| if a == b { c } else { a });
        check("cas", &bits_type, bits, &old, &old, &c, |_, _, c| c);
    }
    let (old, b) = (values(32, 5), values(32, 6));
    check("inc", "u32", 32, &old, &b, &b, |a, b, _| if a >= b { 0 } else { a + 1 });
    check("dec", "u32", 32, &old, &b, &b, |a, b, _| if a == 0 || a > b { b } else { a - 1 });
    check("cas", "b16", 16, &values(16, 3), &values(16, 3), &values(16, 4), |_, _, c| c);
}

#[test]
fn floats() {
    let float = |lane: u64| f64::from(lane as i32 * 7 % 23 - 11) / 8.0;
    let (a, b): (Vec<f64>, Vec<f64>) = ((0..32).map(float).collect(), (32..64).map(float).collect());
    let f32s = |values: &[f64]| values.iter().map(|v| u64::from((*v as f32).to_bits())).collect::<Vec<_>>();
    let f64s = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    check("add", "f32", 32, &f32s(&a), &f32s(&b), &f32s(&b), |a, b, _| {
        u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits())
    });
    check("add", "f64", 64, &f64s(&a), &f64s(&b), &f64s(&b), |a, b, _| {
        (f64::from_bits(a) + f64::from_bits(b)).to_bits()
    });
    use cusim::math::half::{BF16, F16, Half, narrow};
    fn sum<H: Half>(a: u64, b: u64) -> u64 {
        u64::from(narrow::<H>(H::widen(a as u16) + H::widen(b as u16)))
    }
    let halves = |values: &[f64]| values.iter().map(|v| u64::from(narrow::<F16>(*v as f32))).collect::<Vec<_>>();
    let brains = |values: &[f64]| values.iter().map(|v| u64::from(narrow::<BF16>(*v as f32))).collect::<Vec<_>>();
    let pairs = |values: Vec<u64>| values.iter().map(|v| v | v << 16 ^ 0x8000_0000).collect::<Vec<_>>();
    check("add", "f16", 16, &halves(&a), &halves(&b), &halves(&b), |a, b, _| sum::<F16>(a, b));
    check("add", "bf16", 16, &brains(&a), &brains(&b), &brains(&b), |a, b, _| sum::<BF16>(a, b));
    let (x, y) = (pairs(halves(&a)), pairs(halves(&b)));
    check("add", "f16x2", 32, &x, &y, &y, |a, b, _| {
        sum::<F16>(a & 0xffff, b & 0xffff) | sum::<F16>(a >> 16, b >> 16) << 16
    });
    let (x, y) = (pairs(brains(&a)), pairs(brains(&b)));
    check("add", "bf16x2", 32, &x, &y, &y, |a, b, _| {
        sum::<BF16>(a & 0xffff, b & 0xffff) | sum::<BF16>(a >> 16, b >> 16) << 16
    });
}

#[test]
fn lanes_on_one_word_take_turns() {
    let body = ".reg .b32 %r, %z, %o32; mov.u32 %z, 0; sub.u64 %p0, %p0, %o; atom.global.add.u32 %r, [%p0], %t; st.global.u32 [%p1], %r;";
    let out = run(body, &[(4, vec![0; 128]), (4, vec![0; 128])]);
    assert_eq!(values_of(&out[0], 4)[0], 496);
    let expected: Vec<u64> = (0..32).map(|lane| (0..lane).sum()).collect();
    assert_eq!(values_of(&out[1], 4), expected);
}

#[test]
fn carries() {
    let (a, b) = (values(64, 11), values(64, 12));
    let (low, high) = (|v: u64| v & 0xffff_ffff, |v: u64| v >> 32);
    let columns = [
        a.iter().map(|v| low(*v)).collect::<Vec<_>>(),
        a.iter().map(|v| high(*v)).collect(),
        b.iter().map(|v| low(*v)).collect(),
        b.iter().map(|v| high(*v)).collect(),
    ];
    let mut arrays: Vec<(usize, Vec<u8>)> = columns.iter().map(|column| (4, bytes_of(column, 4))).collect();
    arrays.push((4, vec![0; 128]));
    arrays.push((4, vec![0; 128]));
    let loads = ".reg .u32 %a<2>, %b<2>, %r<2>;
        ld.global.u32 %a0, [%p0]; ld.global.u32 %a1, [%p1]; ld.global.u32 %b0, [%p2]; ld.global.u32 %b1, [%p3];\n";
    let stores = "st.global.u32 [%p4], %r0; st.global.u32 [%p5], %r1;";
    for (code, expected) in [
        ("add.cc.u32 %r0, %a0, %b0; addc.u32 %r1, %a1, %b1;", (|a, b| a + b) as fn(u128, u128) -> u128),
        ("sub.cc.u32 %r0, %a0, %b0; subc.cc.u32 %r1, %a1, %b1;", |a, b| a.wrapping_sub(b)),
        ("mad.lo.cc.u32 %r0, %a0, %b0, %a1; madc.hi.u32 %r1, %a0, %b0, 0;", |a, b| {
            (a & 0xffff_ffff) * (b & 0xffff_ffff) + (a >> 32 & 0xffff_ffff)
        }),
    ] {
        let out = run(&format!("{loads}{code}{stores}"), &arrays);
        let (r0, r1) = (values_of(&out[4], 4), values_of(&out[5], 4));
        for lane in 0..32 {
            let expected = expected(u128::from(a[lane]), u128::from(b[lane])) as u64;
            assert_eq!(r0[lane] | r1[lane] << 32, expected, "{code} {:x} {:x}", a[lane], b[lane]);
        }
    }
}

#[test]
fn mbarriers_count_phases() {
    // Lane 0 makes an object that waits for 32 arrivals; everybody arrives and then waits for the phase to end.
    let body = ".reg .b32 %s; .reg .b64 %state; .reg .pred %q, %d; .reg .b32 %r;
        mov.u32 %s, shared; setp.eq.u32 %q, %t, 0;
        @%q mbarrier.init.shared.b64 [%s], 32;
        bar.warp.sync -1;
        mbarrier.test_wait.parity.shared.b64 %d, [%s], 0;
        selp.u32 %r, 1, 0, %d; st.global.u32 [%p0], %r;
        bar.warp.sync -1;
        mbarrier.arrive.shared.b64 %state, [%s];
        WAIT: mbarrier.try_wait.shared.b64 %d, [%s], %state; @!%d bra WAIT;
        mbarrier.test_wait.parity.shared.b64 %d, [%s], 0;
        selp.u32 %r, 1, 0, %d; st.global.u32 [%p1], %r;
        mbarrier.test_wait.parity.shared.b64 %d, [%s], 1;
        selp.u32 %r, 1, 0, %d; st.global.u32 [%p2], %r;";
    let out = run(body, &[(4, vec![9; 128]), (4, vec![9; 128]), (4, vec![9; 128])]);
    assert_eq!(values_of(&out[0], 4), [0; 32], "phase 0 has not ended");
    assert_eq!(values_of(&out[1], 4), [1; 32], "phase 0 has ended");
    assert_eq!(values_of(&out[2], 4), [0; 32], "phase 1 has not");
}

#[test]
fn predicates_selections_and_sets() {
    let body = ".reg .f32 %f<2>; .reg .b32 %r, %x; .reg .pred %q<3>;
        cvt.rn.f32.u32 %f0, %t; mov.f32 %f1, 0f41200000;
        setp.lt.and.f32 %q0|%q1, %f0, %f1, 1; selp.u32 %r, 1, 0, %q0; selp.u32 %x, 2, 0, %q1; or.b32 %r, %r, %x;
        set.gt.u32.f32 %x, %f0, %f1; and.b32 %x, %x, 4; or.b32 %r, %r, %x;
        set.gt.xor.f32.u32 %f0, %t, 20, %q0; mov.b32 %x, %f0; shr.u32 %x, %x, 20; shl.b32 %x, %x, 8; or.b32 %r, %r, %x;
        sub.s32 %x, %t, 16; slct.u32.s32 %x, 8, 16, %x; or.b32 %r, %r, %x;
        st.global.u32 [%p0], %r;";
    let out = run(body, &[(4, vec![0; 128])]);
    for (lane, value) in values_of(&out[0], 4).into_iter().enumerate() {
        let below = lane < 10;
        let first = if below { 1 } else { 2 };
        let second = if lane > 10 { 4 } else { 0 };
        let third = if (lane > 20) ^ below { 0x3f8 << 8 } else { 0 };
        let fourth = if lane >= 16 { 8 } else { 16 };
        assert_eq!(value, first | second | third | fourth, "lane {lane}");
    }
}
