//! `mma` in all shapes, `ldmatrix` and `stmatrix`, against matrices laid out as the PTX manual draws them.

use cusim::sandbox::{Arg, Sandbox};

const HEADER: &str = ".version 8.0\n.target sm_90\n.address_size 64\n";

/// Small integers, so that every product and sum is exact in every type.
fn small(at: usize, seed: usize, range: i32) -> i32 {
    (((at * 2654435761 + seed * 40503 + at / 3) >> 7) % range as usize) as i32 - range / 2
}

/// How an element type is packed into 32-bit registers.
#[derive(Clone, Copy)]
struct Packing {
    /// Elements per register.
    count: usize,
    /// The pattern of a small integer.
    encode: fn(i32) -> u64,
    /// Values are below half of this in size, and not negative for unsigned types.
    range: i32,
    signed: bool,
}

fn half(value: i32) -> u64 {
    u64::from(cusim::math::half::narrow::<cusim::math::half::F16>(value as f32))
}

const F16: Packing = Packing { count: 2, encode: half, range: 9, signed: true };
const BF16: Packing = Packing { count: 2, encode: |v| u64::from((v as f32).to_bits() >> 16), range: 9, signed: true };
// Bits below the tenth of the fraction are to be ignored.
const TF32: Packing =
    Packing { count: 1, encode: |v| u64::from((v as f32).to_bits() | 0x1abc), range: 9, signed: true };
const S8: Packing = Packing { count: 4, encode: |v| (v as u8).into(), range: 255, signed: true };
const U8: Packing = Packing { count: 4, encode: |v| (v as u8).into(), range: 255, signed: false };
const S4: Packing = Packing { count: 8, encode: |v| (v as u8 & 15).into(), range: 15, signed: true };
const U4: Packing = Packing { count: 8, encode: |v| (v as u8 & 15).into(), range: 15, signed: false };

impl Packing {
    fn value(self, at: usize, seed: usize) -> i32 {
        let value = small(at, seed, self.range);
        if self.signed { value } else { value + self.range / 2 }
    }
}

/// Patterns for one register: an element for each place that the manual gives for this lane and register.
fn pack(packing: Packing, element: impl Fn(usize) -> i32) -> u32 {
    let bits = 32 / packing.count;
    (0..packing.count).fold(0, |word, index| word | ((packing.encode)(element(index)) as u32) << (bits * index))
}

/// Runs `mma` on registers given lane by lane, and returns those of D.
fn run(opcode: &str, counts: [usize; 4], a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
    let mut ptx =
        format!("{HEADER}.visible .entry k(.param .u64 pd, .param .u64 pa, .param .u64 pb, .param .u64 pc) {{\n");
    ptx += ".reg .b32 %t; .reg .b64 %p, %o; mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 4;\n";
    let list = |name: &str, count: usize| (0..count).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", ");
    for (name, count) in ["d", "a", "b", "c"].into_iter().zip(counts) {
        ptx += &format!(".reg .b32 %{name}<{count}>;\nld.param.u64 %p, [p{name}];\nadd.u64 %p, %p, %o;\n");
        for index in 0..if name == "d" { 0 } else { count } {
            ptx += &format!("ld.global.b32 %{name}{index}, [%p+{}];\n", index * 128);
        }
    }
    ptx += &format!(
        "{opcode} {{{}}}, {{{}}}, {{{}}}, {{{}}};\n",
        list("d", counts[0]),
        list("a", counts[1]),
        list("b", counts[2]),
        list("c", counts[3])
    );
    ptx += "ld.param.u64 %p, [pd];\nadd.u64 %p, %p, %o;\n";
    for index in 0..counts[0] {
        ptx += &format!("st.global.b32 [%p+{}], %d{index};\n", index * 128);
    }
    ptx += "ret;\n}\n";
    let mut sandbox = Sandbox::new(1);
    let image = sandbox.load(&ptx).unwrap_or_else(|error| panic!("{opcode}: {error}"));
    let program = sandbox.kernel(&image, "k").unwrap_or_else(|error| panic!("{opcode}: {error}"));
    let d = sandbox.upload(&vec![0u32; counts[0] * 32]);
    let args = [d, sandbox.upload(a), sandbox.upload(b), sandbox.upload(c)].map(Arg::U64);
    sandbox.launch(&program, [1, 1, 1], [32, 1, 1], 0, &args).unwrap();
    sandbox.download(d, counts[0] * 32)
}

/// Checks `mma` with `m` rows, 8 columns and `k` products.
fn check(opcode: &str, (m, k): (usize, usize), a: Packing, b: Packing, half_sums: bool, float: bool) {
    let blocks = m / 8;
    let parts = k / (4 * a.count);
    let a_value = |row: usize, product: usize| a.value(row * k + product, 1);
    let b_value = |product: usize, column: usize| b.value(product * 8 + column, 2);
    let c_value = |row: usize, column: usize| small(row * 8 + column, 3, 99);
    let lanes = |count: usize, f: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
        (0..count * 32).map(|at| f(at / 32, at % 32)).collect()
    };
    // groupID and threadID_in_group of the manual.
    let a_registers = lanes(blocks * parts, &|register, lane| {
        let (row, part) = (lane / 4 + 8 * (register % blocks), register / blocks);
        pack(a, |index| a_value(row, part * 4 * a.count + lane % 4 * a.count + index))
    });
    let b_registers = lanes(parts, &|register, lane| {
        pack(b, |index| b_value(register * 4 * b.count + lane % 4 * b.count + index, lane / 4))
    });
    let encode = |value: i32| if float { (value as f32).to_bits() } else { value as u32 };
    let per_block = if half_sums { 1 } else { 2 };
    let sums = |value: &dyn Fn(usize, usize) -> i32| {
        lanes(blocks * per_block, &|register, lane| {
            let (row, column) = (lane / 4 + 8 * (register / per_block), lane % 4 * 2);
            if half_sums {
                (half(value(row, column)) | half(value(row, column + 1)) << 16) as u32
            } else {
                encode(value(row, column + register % 2))
            }
        })
    };
    let c_registers = sums(&c_value);
    let expected = sums(&|row, column| {
        (0..k).map(|product| a_value(row, product) * b_value(product, column)).sum::<i32>() + c_value(row, column)
    });
    let counts = [blocks * per_block, blocks * parts, parts, blocks * per_block];
    assert_eq!(run(opcode, counts, &a_registers, &b_registers, &c_registers), expected, "{opcode}");
}

#[test]
fn multiply_floats() {
    let mma = |shape: &str, types: &str| format!("mma.sync.aligned.{shape}.row.col.{types}");
    check(&mma("m16n8k16", "f32.f16.f16.f32"), (16, 16), F16, F16, false, true);
    check(&mma("m16n8k8", "f32.f16.f16.f32"), (16, 8), F16, F16, false, true);
    check(&mma("m16n8k16", "f16.f16.f16.f16"), (16, 16), F16, F16, true, true);
    check(&mma("m16n8k8", "f16.f16.f16.f16"), (16, 8), F16, F16, true, true);
    check(&mma("m16n8k16", "f32.bf16.bf16.f32"), (16, 16), BF16, BF16, false, true);
    check(&mma("m16n8k8", "f32.bf16.bf16.f32"), (16, 8), BF16, BF16, false, true);
    check(&mma("m16n8k8", "f32.tf32.tf32.f32"), (16, 8), TF32, TF32, false, true);
    check(&mma("m16n8k4", "f32.tf32.tf32.f32"), (16, 4), TF32, TF32, false, true);
}

#[test]
fn multiply_integers() {
    let mma = |shape: &str, a: &str, b: &str| format!("mma.sync.aligned.{shape}.row.col.s32.{a}.{b}.s32");
    for (a_name, a) in [("s8", S8), ("u8", U8)] {
        for (b_name, b) in [("s8", S8), ("u8", U8)] {
            check(&mma("m16n8k32", a_name, b_name), (16, 32), a, b, false, false);
            check(&mma("m16n8k16", a_name, b_name), (16, 16), a, b, false, false);
            check(&mma("m8n8k16", a_name, b_name), (8, 16), a, b, false, false);
        }
    }
    for (a_name, a) in [("s4", S4), ("u4", U4)] {
        for (b_name, b) in [("s4", S4), ("u4", U4)] {
            check(&mma("m16n8k64", a_name, b_name), (16, 64), a, b, false, false);
            check(&mma("m16n8k32", a_name, b_name), (16, 32), a, b, false, false);
            check(&mma("m8n8k32", a_name, b_name), (8, 32), a, b, false, false);
        }
    }
    // Sums beyond 32 bits wrap, or saturate if told to.
    let full = [0x7f7f_7f7f; 128];
    let most = [i32::MAX as u32; 128];
    let wrapped = run(&mma("m16n8k32", "s8", "s8"), [4, 4, 2, 4], &full, &full[..64], &most);
    assert_eq!(wrapped, [(i32::MAX).wrapping_add(32 * 127 * 127) as u32; 128]);
    let opcode = "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32";
    assert_eq!(run(opcode, [4, 4, 2, 4], &full, &full[..64], &most), most);
}

#[test]
fn multiply_doubles() {
    let ptx = format!(
        "{HEADER}.visible .entry k(.param .u64 d, .param .u64 a, .param .u64 b, .param .u64 c) {{
        .reg .b32 %t; .reg .b64 %p, %o; .reg .f64 %f<6>; mov.u32 %t, %tid.x; mul.wide.u32 %o, %t, 8;
        ld.param.u64 %p, [a]; add.u64 %p, %p, %o; ld.global.f64 %f0, [%p];
        ld.param.u64 %p, [b]; add.u64 %p, %p, %o; ld.global.f64 %f1, [%p];
        ld.param.u64 %p, [c]; add.u64 %p, %p, %o; ld.global.f64 %f2, [%p]; ld.global.f64 %f3, [%p+256];
        mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {{%f4, %f5}}, {{%f0}}, {{%f1}}, {{%f2, %f3}};
        ld.param.u64 %p, [d]; add.u64 %p, %p, %o; st.global.f64 [%p], %f4; st.global.f64 [%p+256], %f5; ret; }}"
    );
    let mut sandbox = Sandbox::new(1);
    let image = sandbox.load(&ptx).unwrap();
    let program = sandbox.kernel(&image, "k").unwrap();
    let a: Vec<f64> = (0..32).map(|lane| f64::from(small(lane, 4, 99))).collect();
    let b: Vec<f64> = (0..32).map(|lane| f64::from(small(lane, 5, 99))).collect();
    let c: Vec<f64> = (0..64).map(|lane| f64::from(small(lane, 6, 99))).collect();
    let d = sandbox.upload(&[0f64; 64]);
    let args = [d, sandbox.upload(&a), sandbox.upload(&b), sandbox.upload(&c)].map(Arg::U64);
    sandbox.launch(&program, [1, 1, 1], [32, 1, 1], 0, &args).unwrap();
    let d: Vec<f64> = sandbox.download(d, 64);
    for lane in 0..32 {
        for index in 0..2 {
            let (row, column) = (lane / 4, lane % 4 * 2 + index);
            let products = (0..4).map(|k| a[row * 4 + k] * b[column * 4 + k]).sum::<f64>();
            assert_eq!(d[index * 32 + lane], products + c[index * 32 + lane]);
        }
    }
}

/// Rows of 8x8 matrices lie in shared memory with gaps; what `ldmatrix` gives goes through `stmatrix` into others.
#[test]
fn matrices_move() {
    for (count, name) in [(1usize, "x1"), (2, "x2"), (4, "x4")] {
        for transposed in [false, true] {
            let trans = if transposed { ".trans" } else { "" };
            let list = (0..count).map(|i| format!("%r{i}")).collect::<Vec<_>>().join(", ");
            let ptx = format!(
                "{HEADER}.visible .entry k(.param .u64 in, .param .u64 loaded, .param .u64 stored) {{
                .shared .align 16 .b8 rows[2048]; .shared .align 16 .b8 copy[2048];
                .reg .b32 %t, %a, %s, %r<4>; .reg .b64 %p, %o; .reg .b16 %h; .reg .pred %q;
                mov.u32 %t, %tid.x; shl.b32 %s, %t, 6; mov.u32 %a, rows; add.u32 %a, %a, %s;
                ld.param.u64 %p, [in]; mul.wide.u32 %o, %t, 16; add.u64 %p, %p, %o;
                ld.global.v4.b32 {{%r0, %r1, %r2, %r3}}, [%p]; st.shared.v4.b32 [%a], {{%r0, %r1, %r2, %r3}};
                bar.warp.sync -1;
                ldmatrix.sync.aligned.m8n8.{name}{trans}.shared.b16 {{{list}}}, [%a];
                ld.param.u64 %p, [loaded]; mul.wide.u32 %o, %t, 4; add.u64 %p, %p, %o;
                {stores}
                mov.u32 %a, copy; add.u32 %a, %a, %s;
                stmatrix.sync.aligned.m8n8.{name}{trans}.shared.b16 [%a], {{{list}}};
                bar.warp.sync -1;
                setp.ge.u32 %q, %t, {rows}; @%q ret;
                ld.shared.v4.b32 {{%r0, %r1, %r2, %r3}}, [%a];
                ld.param.u64 %p, [stored]; mul.wide.u32 %o, %t, 16; add.u64 %p, %p, %o;
                st.global.v4.b32 [%p], {{%r0, %r1, %r2, %r3}}; ret; }}",
                rows = 8 * count,
                stores = (0..count).map(|i| format!("st.global.b32 [%p+{}], %r{i};\n", i * 128)).collect::<String>(),
            );
            let mut sandbox = Sandbox::new(1);
            let image = sandbox.load(&ptx).unwrap();
            let program = sandbox.kernel(&image, "k").unwrap();
            let elements: Vec<u16> = (0..256u16).map(|at| at * 257).collect();
            let (loaded, stored) = (sandbox.upload(&[0u32; 128]), sandbox.upload(&[0u16; 256]));
            let args = [sandbox.upload(&elements), loaded, stored].map(Arg::U64);
            sandbox.launch(&program, [1, 1, 1], [32, 1, 1], 0, &args).unwrap();
            let registers: Vec<u32> = sandbox.download(loaded, 32 * count);
            for (at, register) in registers.into_iter().enumerate() {
                let (matrix, lane) = (at / 32, at % 32);
                let element = |row: usize, column: usize| u32::from(elements[(matrix * 8 + row) * 8 + column]);
                let (major, minor) = (lane / 4, lane % 4 * 2);
                let expected = if transposed {
                    element(minor, major) | element(minor + 1, major) << 16
                } else {
                    element(major, minor) | element(major, minor + 1) << 16
                };
                assert_eq!(register, expected, "{name}{trans} lane {lane}");
            }
            assert_eq!(sandbox.download::<u16>(stored, 64 * count), elements[..64 * count], "{name}{trans}");
        }
    }
}
