//! Each opcode against a definition of its own.

mod exact;

use cusim::sandbox::{Arg, Sandbox};
use exact::{BF16, F16, F32, F64, Format, Mode};

/// Runs single instructions on many operands.
struct Bench(Sandbox);

/// How an operand is declared, loaded and stored: register type and memory type.
fn types(name: &str) -> (&'static str, &'static str, usize) {
    match name {
        "u8" => ("b16", "u8", 1),
        "s8" => ("b16", "s8", 1),
        "pred" => ("pred", "u32", 4),
        "f32" => ("f32", "f32", 4),
        "f64" => ("f64", "f64", 8),
        "u16" | "s16" | "b16" | "f16" | "bf16" => ("b16", "b16", 2),
        "u64" | "s64" | "b64" => ("b64", "b64", 8),
        _ => ("b32", "b32", 4),
    }
}

impl Bench {
    fn new() -> Self {
        Self(Sandbox::new(1))
    }

    /// `opcode d, sources...` for each set of operands; results as bits.
    fn run(&mut self, opcode: &str, dst: &str, srcs: &[&str], operands: &[Vec<u64>]) -> Vec<u64> {
        let mut ptx = String::from(".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out");
        for index in 0..srcs.len() {
            ptx += &format!(", .param .u64 in{index}");
        }
        ptx += ", .param .u32 n) {\n.reg .b64 %p, %i, %o;\n.reg .b32 %t, %u, %v, %w, %pv;\n.reg .pred %g;\n";
        ptx += "mov.u32 %t, %tid.x;\nmov.u32 %u, %ctaid.x;\nmad.lo.u32 %t, %u, 128, %t;\nld.param.u32 %v, [n];\n";
        ptx += "setp.ge.u32 %g, %t, %v;\n@%g ret;\n";
        for (index, src) in srcs.iter().enumerate() {
            let (register, memory, bytes) = types(src);
            ptx += &format!(".reg .{register} %s{index};\nmul.wide.u32 %o, %t, {bytes};\n");
            ptx += &format!("ld.param.u64 %p, [in{index}];\nadd.u64 %i, %p, %o;\n");
            if *src == "pred" {
                ptx += &format!("ld.global.u32 %w, [%i];\nsetp.ne.u32 %s{index}, %w, 0;\n");
            } else {
                ptx += &format!("ld.global.{memory} %s{index}, [%i];\n");
            }
        }
        let (register, memory, bytes) = types(dst);
        let sources: String = (0..srcs.len()).map(|index| format!(", %s{index}")).collect();
        ptx += &format!(".reg .{register} %d;\n{opcode} %d{sources};\nmul.wide.u32 %o, %t, {bytes};\n");
        ptx += "ld.param.u64 %p, [out];\nadd.u64 %i, %p, %o;\n";
        if dst == "pred" {
            ptx += "selp.u32 %pv, 1, 0, %d;\nst.global.u32 [%i], %pv;\n";
        } else {
            ptx += &format!("st.global.{memory} [%i], %d;\n");
        }
        ptx += "ret;\n}\n";
        let image = self.0.load(&ptx).unwrap_or_else(|error| panic!("{opcode}: {error}\n{ptx}"));
        let program = self.0.kernel(&image, "k").unwrap_or_else(|error| panic!("{opcode}: {error}"));
        let n = operands.len();
        let out = self.0.upload(&vec![0u8; n * bytes]);
        let mut args = vec![Arg::U64(out)];
        for (index, src) in srcs.iter().enumerate() {
            let (_, _, size) = types(src);
            let column: Vec<u8> = operands.iter().flat_map(|row| row[index].to_le_bytes()[..size].to_vec()).collect();
            args.push(Arg::U64(self.0.upload(&column)));
        }
        args.push(Arg::U32(n as u32));
        let blocks = n.div_ceil(128) as u32;
        self.0
            .launch(&program, [blocks, 1, 1], [128, 1, 1], 0, &args)
            .unwrap_or_else(|fault| panic!("{opcode}: {fault:?}"));
        let raw: Vec<u8> = self.0.download(out, n * bytes);
        let value = |chunk: &[u8]| chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        raw.chunks(bytes).map(value).collect()
    }

    /// Compares with a definition; `None` means any NaN.
    fn check(
        &mut self,
        opcode: &str,
        dst: &str,
        srcs: &[&str],
        operands: &[Vec<u64>],
        expected: impl Fn(&[u64]) -> Option<u64>,
    ) {
        let results = self.run(opcode, dst, srcs, operands);
        for (operands, result) in operands.iter().zip(results) {
            let right = match expected(operands) {
                Some(expected) => result == expected,
                None => match dst {
                    // NaN results are canonical, except in f64.
                    "f64" => F64.is_nan(result),
                    "f32" => result == 0x7fff_ffff,
                    _ => result == 0x7fff,
                },
            };
            assert!(right, "{opcode} {operands:x?} gave {result:x}, not {:x?}", expected(operands));
        }
    }
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (state ^ state >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 29
    }
}

/// Patterns that are easy to get wrong, and random ones.
fn patterns(bits: u32, count: usize) -> Vec<u64> {
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let top = 1u64 << (bits - 1);
    let mut values = vec![0, 1, 2, 3, 7, 31, 32, 33, top, top - 1, top + 1, mask, mask - 1, 0x5555_5555_5555_5555];
    let mut next = random(u64::from(bits));
    values.extend((0..count).map(|_| next()));
    values.extend((0..count / 4).map(|_| next() & 0xff));
    values.iter().map(|value| value & mask).collect()
}

fn floats(format: Format, count: usize) -> Vec<u64> {
    let (infinity, sign) = (format.infinity(), format.sign());
    let one = (infinity >> 1) & infinity & !((1 << format.fraction) - 1);
    let magnitudes = [
        0,
        1,
        2,
        (1 << format.fraction) - 1,
        1 << format.fraction,
        one - 1,
        one,
        one + 1,
        one + (1 << format.fraction),
        infinity - 1,
        infinity,
        infinity + 1,
        infinity | 1 << (format.fraction - 1),
    ];
    let mut values: Vec<u64> = magnitudes.iter().flat_map(|value| [*value, value | sign]).collect();
    let mut next = random(u64::from(format.fraction));
    values.extend((0..count).map(|_| next() & (sign << 1).wrapping_sub(1)));
    // Of similar size, where sums cancel and ties happen.
    values.extend((0..count).map(|_| {
        let near = one.wrapping_add((next() % 5) << format.fraction).wrapping_sub(2 << format.fraction);
        near & infinity | next() & 7 << (format.fraction - 2) | (next() % 3) | next() & sign
    }));
    values
}

fn pairs(a: &[u64], b: &[u64]) -> Vec<Vec<u64>> {
    a.iter().flat_map(|a| b.iter().map(|b| vec![*a, *b])).collect()
}

fn singles(a: &[u64]) -> Vec<Vec<u64>> {
    a.iter().map(|a| vec![*a]).collect()
}

fn triples(a: &[u64], count: usize) -> Vec<Vec<u64>> {
    let mut next = random(3);
    (0..count).map(|_| (0..3).map(|_| a[next() as usize % a.len()]).collect()).collect()
}

fn signed(value: u64, bits: u32) -> i128 {
    i128::from((value << (64 - bits)) as i64 >> (64 - bits))
}

fn cut(value: i128, bits: u32) -> u64 {
    (value as u64) & (u64::MAX >> (64 - bits))
}

#[test]
fn integer_arithmetic() {
    let mut bench = Bench::new();
    for bits in [16u32, 32, 64] {
        let operands = pairs(&patterns(bits, 16), &patterns(bits, 16));
        let three = triples(&patterns(bits, 30), 600);
        for (kind, is_signed) in [("u", false), ("s", true)] {
            let ty = format!("{kind}{bits}");
            let value = move |x: u64| {
                if is_signed { signed(x, bits) } else { i128::from(x) }
            };
            let mut two = |name: &str, f: &dyn Fn(i128, i128) -> i128| {
                bench.check(&format!("{name}.{ty}"), &ty, &[&ty, &ty], &operands, |x| {
                    Some(cut(f(value(x[0]), value(x[1])), bits))
                });
            };
            two("add", &|a, b| a + b);
            two("sub", &|a, b| a - b);
            two("mul.lo", &|a, b| a.wrapping_mul(b));
            two("min", &|a, b| a.min(b));
            two("max", &|a, b| a.max(b));
            two("div", &|a, b| if b == 0 { -1 } else { a / b });
            two("rem", &|a, b| if b == 0 { a } else { a % b });
            if bits < 64 {
                two("mul.hi", &|a, b| (a * b) >> bits);
                let wide = format!("{kind}{}", bits * 2);
                bench.check(&format!("mul.wide.{ty}"), &wide, &[&ty, &ty], &operands, |x| {
                    Some(cut(value(x[0]) * value(x[1]), bits * 2))
                });
                bench.check(&format!("mad.hi.{ty}"), &ty, &[&ty, &ty, &ty], &three, |x| {
                    Some(cut(((value(x[0]) * value(x[1])) >> bits) + value(x[2]), bits))
                });
            }
            bench.check(&format!("mad.lo.{ty}"), &ty, &[&ty, &ty, &ty], &three, |x| {
                Some(cut(value(x[0]).wrapping_mul(value(x[1])).wrapping_add(value(x[2])), bits))
            });
            bench.check(&format!("sad.{ty}"), &ty, &[&ty, &ty, &ty], &three, |x| {
                Some(cut((value(x[0]) - value(x[1])).abs() + value(x[2]), bits))
            });
            for (name, f) in [
                ("lt", (|a, b| a < b) as fn(i128, i128) -> bool),
                ("le", |a, b| a <= b),
                ("gt", |a, b| a > b),
                ("ge", |a, b| a >= b),
                ("eq", |a, b| a == b),
                ("ne", |a, b| a != b),
            ] {
                bench.check(&format!("setp.{name}.{ty}"), "pred", &[&ty, &ty], &operands, |x| {
                    Some(u64::from(f(value(x[0]), value(x[1]))))
                });
            }
        }
        let ty = format!("s{bits}");
        let ones = singles(&patterns(bits, 40));
        bench.check(&format!("abs.{ty}"), &ty, &[&ty], &ones, |x| Some(cut(signed(x[0], bits).abs(), bits)));
        bench.check(&format!("neg.{ty}"), &ty, &[&ty], &ones, |x| Some(cut(-signed(x[0], bits), bits)));
    }
    let operands = pairs(&patterns(32, 16), &patterns(32, 16));
    let clamp = |value: i128| cut(value.clamp(i128::from(i32::MIN), i128::from(i32::MAX)), 32);
    bench.check("add.sat.s32", "s32", &["s32", "s32"], &operands, |x| Some(clamp(signed(x[0], 32) + signed(x[1], 32))));
    bench.check("sub.sat.s32", "s32", &["s32", "s32"], &operands, |x| Some(clamp(signed(x[0], 32) - signed(x[1], 32))));
    bench.check("mul24.lo.s32", "s32", &["s32", "s32"], &operands, |x| {
        Some(cut(signed(x[0] & 0xff_ffff, 24) * signed(x[1] & 0xff_ffff, 24), 32))
    });
    bench.check("mul24.hi.u32", "u32", &["u32", "u32"], &operands, |x| {
        Some(cut((i128::from(x[0] & 0xff_ffff) * i128::from(x[1] & 0xff_ffff)) >> 16, 32))
    });
    let three = triples(&patterns(32, 40), 500);
    let byte = |x: u64, i: usize, s: bool| {
        if s { signed(x >> (8 * i) & 0xff, 8) } else { i128::from(x >> (8 * i) & 0xff) }
    };
    for (name, a, b) in [("dp4a.s32.u32", true, false), ("dp4a.u32.u32", false, false), ("dp4a.s32.s32", true, true)] {
        bench.check(name, "b32", &["b32", "b32", "b32"], &three, |x| {
            Some(cut((0..4).map(|i| byte(x[0], i, a) * byte(x[1], i, b)).sum::<i128>() + i128::from(x[2]), 32))
        });
    }
    bench.check("dp2a.hi.s32.u32", "b32", &["b32", "b32", "b32"], &three, |x| {
        let word = |i: usize| signed(x[0] >> (16 * i) & 0xffff, 16);
        Some(cut((0..2).map(|i| word(i) * byte(x[1], i + 2, false)).sum::<i128>() + i128::from(x[2]), 32))
    });
}

#[test]
fn bits_and_shifts() {
    let mut bench = Bench::new();
    for bits in [16u32, 32, 64] {
        let ty = format!("b{bits}");
        let operands = pairs(&patterns(bits, 16), &patterns(bits, 16));
        for (name, f) in [("and", (|a, b| a & b) as fn(u64, u64) -> u64), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)] {
            bench.check(&format!("{name}.{ty}"), &ty, &[&ty, &ty], &operands, |x| Some(f(x[0], x[1])));
        }
        let shifts = pairs(&patterns(bits, 16), &[0, 1, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 1 << 31]);
        let wide = move |x: u64, n: u64| {
            if n >= u64::from(bits) { 0 } else { x << n & (u64::MAX >> (64 - bits)) }
        };
        bench.check(&format!("shl.{ty}"), &ty, &[&ty, "b32"], &shifts, |x| Some(wide(x[0], x[1])));
        bench.check(&format!("shr.u{bits}"), &ty, &[&ty, "b32"], &shifts, |x| {
            Some(if x[1] >= u64::from(bits) { 0 } else { x[0] >> x[1] })
        });
        bench.check(&format!("shr.s{bits}"), &ty, &[&ty, "b32"], &shifts, |x| {
            Some(cut(signed(x[0], bits) >> x[1].min(127), bits))
        });
        let ones = singles(&patterns(bits, 60));
        bench.check(&format!("not.{ty}"), &ty, &[&ty], &ones, |x| Some(!x[0] & (u64::MAX >> (64 - bits))));
        bench.check(&format!("cnot.{ty}"), &ty, &[&ty], &ones, |x| Some(u64::from(x[0] == 0)));
    }
    for bits in [32u32, 64] {
        let ty = format!("b{bits}");
        let ones = singles(&patterns(bits, 60));
        let lead = |x: u64| i128::from(x.leading_zeros()) - i128::from(64 - bits);
        bench.check(&format!("popc.{ty}"), "b32", &[&ty], &ones, |x| Some((0..bits).map(|i| x[0] >> i & 1).sum()));
        bench.check(&format!("clz.{ty}"), "b32", &[&ty], &ones, |x| Some(lead(x[0]) as u64));
        bench.check(&format!("brev.{ty}"), &ty, &[&ty], &ones, |x| {
            Some((0..bits).fold(0, |r, i| r | (x[0] >> i & 1) << (bits - 1 - i)))
        });
        bench.check(&format!("bfind.u{bits}"), "b32", &[&ty], &ones, |x| {
            Some((0..bits).rev().find(|i| x[0] >> i & 1 != 0).map_or(0xffff_ffff, u64::from))
        });
        bench.check(&format!("bfind.s{bits}"), "b32", &[&ty], &ones, |x| {
            let sign = x[0] >> (bits - 1) & 1;
            Some((0..bits).rev().find(|i| x[0] >> i & 1 != sign).map_or(0xffff_ffff, u64::from))
        });
        let mut next = random(9);
        let fields: Vec<Vec<u64>> = patterns(bits, 30)
            .iter()
            .flat_map(|x| (0..20).map(|_| vec![*x, next() % 80, next() % 80]).collect::<Vec<_>>())
            .collect();
        // The manual's definition, bit by bit.
        let extract = |x: &[u64], is_signed: bool| {
            let (a, pos, len) = (x[0], x[1] & 0xff, x[2] & 0xff);
            let msb = u64::from(bits - 1);
            let sign_position = (pos + len).saturating_sub(1).min(msb);
            let fill = if !is_signed || len == 0 { 0 } else { a >> sign_position & 1 };
            (0..=msb).fold(0, |d, i| {
                let bit = if i < len && pos + i <= msb { a >> (pos + i) & 1 } else { fill };
                d | bit << i
            })
        };
        bench.check(&format!("bfe.u{bits}"), &ty, &[&ty, "b32", "b32"], &fields, |x| Some(extract(x, false)));
        bench.check(&format!("bfe.s{bits}"), &ty, &[&ty, "b32", "b32"], &fields, |x| Some(extract(x, true)));
        let inserts: Vec<Vec<u64>> =
            fields.iter().map(|x| vec![x[0], next() & (u64::MAX >> (64 - bits)), x[1], x[2]]).collect();
        bench.check(&format!("bfi.{ty}"), &ty, &[&ty, &ty, "b32", "b32"], &inserts, |x| {
            let (pos, len) = (x[2] & 0xff, x[3] & 0xff);
            Some((0..u64::from(bits)).fold(0, |d, i| {
                let bit = if i >= pos && i < pos + len { x[0] >> (i - pos) & 1 } else { x[1] >> i & 1 };
                d | bit << i
            }))
        });
    }
    let three = triples(&patterns(32, 40), 400);
    let mut tables = Vec::new();
    for table in [0x96, 0xe8, 0x00, 0xff, 0x1b] {
        tables.extend(three.iter().map(|x| vec![x[0], x[1], x[2], table]));
    }
    bench.check("lop3.b32", "b32", &["b32", "b32", "b32", "b32"], &tables, |x| {
        Some((0..32).fold(0, |d, i| {
            let row = (x[0] >> i & 1) << 2 | (x[1] >> i & 1) << 1 | x[2] >> i & 1;
            d | (x[3] >> row & 1) << i
        }))
    });
    let funnel: Vec<Vec<u64>> = three.iter().map(|x| vec![x[0], x[1], x[2] % 70]).collect();
    for (name, left, clamp) in
        [("l.clamp", true, true), ("l.wrap", true, false), ("r.clamp", false, true), ("r.wrap", false, false)]
    {
        bench.check(&format!("shf.{name}.b32"), "b32", &["b32", "b32", "b32"], &funnel, |x| {
            let n = if clamp { x[2].min(32) } else { x[2] & 31 };
            let both = u128::from(x[1] << 32 | x[0]);
            Some(if left { (both << n >> 32) as u64 & 0xffff_ffff } else { (both >> n) as u64 & 0xffff_ffff })
        });
    }
    bench.check("prmt.b32", "b32", &["b32", "b32", "b32"], &three, |x| {
        Some((0..4).fold(0, |d, i| {
            let selector = x[2] >> (4 * i) & 15;
            let byte = (x[1] << 32 | x[0]) >> (8 * (selector & 7)) & 0xff;
            d | (if selector & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte }) << (8 * i)
        }))
    });
    for (name, bytes) in [("f4e", [0, 1, 2, 3]), ("b4e", [0, 7, 6, 5]), ("rc8", [0, 0, 0, 0]), ("rc16", [0, 1, 0, 1])] {
        let zero: Vec<Vec<u64>> = three.iter().map(|x| vec![x[0], x[1], 0]).collect();
        bench.check(&format!("prmt.{name}.b32"), "b32", &["b32", "b32", "b32"], &zero, |x| {
            Some(bytes.iter().enumerate().fold(0, |d, (i, b)| d | ((x[1] << 32 | x[0]) >> (8 * b) & 0xff) << (8 * i)))
        });
    }
}

/// Subnormals to zero.
fn flushed(format: Format, bits: u64, ftz: bool) -> u64 {
    if ftz && format.is_subnormal(bits) { bits & format.sign() } else { bits }
}

#[test]
fn float_arithmetic_in_every_rounding_mode() {
    let mut bench = Bench::new();
    for (format, ty, count) in [(F32, "f32", 12), (F64, "f64", 6)] {
        let values = floats(format, count);
        let two = pairs(&values, &values);
        let three = triples(&values, 1500);
        for (mode, name) in Mode::ALL {
            for ftz in [false, true] {
                if ftz && format == F64 {
                    continue;
                }
                let suffix = if ftz { ".ftz" } else { "" };
                let flush = |x: u64| flushed(format, x, ftz);
                let done = |x: Option<u64>| x.map(flush);
                bench.check(&format!("add.{name}{suffix}.{ty}"), ty, &[ty, ty], &two, |x| {
                    done(format.fma(flush(x[0]), None, Some(flush(x[1])), mode))
                });
                bench.check(&format!("sub.{name}{suffix}.{ty}"), ty, &[ty, ty], &two, |x| {
                    done(format.fma(flush(x[0]), None, Some(flush(x[1]) ^ format.sign()), mode))
                });
                bench.check(&format!("mul.{name}{suffix}.{ty}"), ty, &[ty, ty], &two, |x| {
                    done(format.fma(flush(x[0]), Some(flush(x[1])), None, mode))
                });
                bench.check(&format!("fma.{name}{suffix}.{ty}"), ty, &[ty, ty, ty], &three, |x| {
                    done(format.fma(flush(x[0]), Some(flush(x[1])), Some(flush(x[2])), mode))
                });
            }
            let normal: Vec<u64> = values
                .iter()
                .copied()
                .filter(|x| !format.is_nan(*x) && !format.is_infinite(*x) && !format.is_negative(*x))
                .filter(|x| {
                    let exponent = (x >> format.fraction) as i64 - ((1 << (format.exponent - 1)) - 1);
                    exponent.abs() < 40
                })
                .collect();
            let operands = pairs(&normal, &normal);
            let quotients = bench.run(&format!("div.{name}.{ty}"), ty, &[ty, ty], &operands);
            for (x, quotient) in operands.iter().zip(quotients) {
                assert!(format.is_quotient(x[0], x[1], quotient, mode), "div.{name}.{ty} {x:x?} gave {quotient:x}");
            }
            let operands = singles(&normal);
            let roots = bench.run(&format!("sqrt.{name}.{ty}"), ty, &[ty], &operands);
            for (x, root) in operands.iter().zip(roots) {
                // The root of x is x divided by it.
                let square = |r: u64| format.fma(r, Some(r), Some(x[0] ^ format.sign()), Mode::Nearest).unwrap();
                let (low, high) =
                    (format.is_negative(square(root)) || square(root) == 0, !format.is_negative(square(root)));
                match mode {
                    Mode::Zero | Mode::Down => assert!(low && !format.is_negative(square(root + 1)), "{x:x?} {root:x}"),
                    Mode::Up => assert!(high && format.is_negative(square(root - 1)), "{x:x?} {root:x}"),
                    Mode::Nearest => assert!(
                        format.is_negative(square(root - 1)) && !format.is_negative(square(root + 1)),
                        "{x:x?} {root:x}"
                    ),
                }
            }
        }
    }
    let sat = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
    let values = floats(F32, 20);
    bench.check("add.sat.f32", "f32", &["f32", "f32"], &pairs(&values, &values), |x| {
        let sum = sat(f32::from_bits(x[0] as u32) + f32::from_bits(x[1] as u32));
        Some(u64::from(if sum == 0.0 { 0 } else { sum.to_bits() }))
    });
}

#[test]
fn minimum_maximum_and_comparisons() {
    let mut bench = Bench::new();
    let values = floats(F32, 12);
    let two = pairs(&values, &values);
    let float = |x: u64| f32::from_bits(x as u32);
    let order = |x: f32| {
        let bits = x.to_bits() as i32;
        if bits < 0 { i32::MIN - bits } else { bits }
    };
    let pick = |x: &[u64], min: bool, nan: bool| {
        let (a, b) = (float(x[0]), float(x[1]));
        if a.is_nan() && b.is_nan() || nan && (a.is_nan() || b.is_nan()) {
            return None;
        }
        if a.is_nan() || b.is_nan() {
            return Some(if a.is_nan() { x[1] } else { x[0] });
        }
        // -0 comes before +0.
        let key = |v: f32| (order(v), v.is_sign_positive());
        Some(if (key(a) <= key(b)) == min { x[0] } else { x[1] })
    };
    bench.check("min.f32", "f32", &["f32", "f32"], &two, |x| pick(x, true, false));
    bench.check("max.f32", "f32", &["f32", "f32"], &two, |x| pick(x, false, false));
    bench.check("min.NaN.f32", "f32", &["f32", "f32"], &two, |x| pick(x, true, true));
    bench.check("max.NaN.f32", "f32", &["f32", "f32"], &two, |x| pick(x, false, true));
    for (name, f) in [
        ("eq", (|a, b| a == b) as fn(f32, f32) -> bool),
        ("ne", |a, b| !a.is_nan() && !b.is_nan() && a != b),
        ("lt", |a, b| a < b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a < b || a.is_nan() || b.is_nan()),
        ("geu", |a, b| a >= b || a.is_nan() || b.is_nan()),
        ("gtu", |a, b| a > b || a.is_nan() || b.is_nan()),
        ("leu", |a, b| a <= b || a.is_nan() || b.is_nan()),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ] {
        bench.check(&format!("setp.{name}.f32"), "pred", &["f32", "f32"], &two, |x| {
            Some(u64::from(f(float(x[0]), float(x[1]))))
        });
        bench.check(&format!("setp.{name}.ftz.f32"), "pred", &["f32", "f32"], &two, |x| {
            Some(u64::from(f(float(flushed(F32, x[0], true)), float(flushed(F32, x[1], true)))))
        });
    }
}

#[test]
fn half_precision_arithmetic() {
    let mut bench = Bench::new();
    for (format, ty) in [(F16, "f16"), (BF16, "bf16")] {
        let values = floats(format, 12);
        let two = pairs(&values, &values);
        bench.check(&format!("add.{ty}"), ty, &[ty, ty], &two, |x| format.fma(x[0], None, Some(x[1]), Mode::Nearest));
        bench.check(&format!("mul.{ty}"), ty, &[ty, ty], &two, |x| format.fma(x[0], Some(x[1]), None, Mode::Nearest));
        bench.check(&format!("fma.rn.{ty}"), ty, &[ty, ty, ty], &triples(&values, 3000), |x| {
            format.fma(x[0], Some(x[1]), Some(x[2]), Mode::Nearest)
        });
    }
    let values = floats(F16, 12);
    bench.check("add.ftz.f16", "f16", &["f16", "f16"], &pairs(&values, &values), |x| {
        let flush = |x| flushed(F16, x, true);
        F16.fma(flush(x[0]), None, Some(flush(x[1])), Mode::Nearest).map(flush)
    });
    let packed: Vec<Vec<u64>> =
        triples(&values, 500).iter().map(|x| vec![x[0] | x[1] << 16, x[2] | x[0] << 16]).collect();
    let results = bench.run("mul.f16x2", "b32", &["b32", "b32"], &packed);
    for (x, result) in packed.iter().zip(results) {
        for shift in [0, 16] {
            let half = |x: u64| x >> shift & 0xffff;
            let expected = F16.fma(half(x[0]), Some(half(x[1])), None, Mode::Nearest).unwrap_or(0x7fff);
            assert_eq!(half(result), expected, "{x:x?}");
        }
    }
}

#[test]
fn conversions_between_floats() {
    let mut bench = Bench::new();
    let formats = [(F16, "f16"), (BF16, "bf16"), (F32, "f32"), (F64, "f64")];
    for (from, from_name) in formats {
        let mut values = floats(from, 60);
        if from == F16 {
            values = (0..65536).collect();
        }
        // Values between the neighbours of the narrower formats.
        if from == F32 {
            values.extend(floats(F16, 40).into_iter().filter(|x| !F16.is_nan(*x) && !F16.is_infinite(*x)).flat_map(
                |x| {
                    let exact = F32.convert(F16, x, Mode::Nearest);
                    [
                        exact,
                        exact + 1,
                        exact.wrapping_sub(1) & 0xffff_ffff,
                        exact + 0x1000,
                        exact + 0x0fff,
                        exact + 0x1001,
                    ]
                },
            ));
        }
        for (to, to_name) in formats {
            let narrower = to.fraction < from.fraction;
            if from == to || from.fraction < 23 && to.fraction < 23 {
                continue;
            }
            for (mode, mode_name) in Mode::ALL {
                if !narrower && mode != Mode::Nearest {
                    continue;
                }
                let opcode = if narrower {
                    format!("cvt.{mode_name}.{to_name}.{from_name}")
                } else {
                    format!("cvt.{to_name}.{from_name}")
                };
                bench.check(&opcode, to_name, &[from_name], &singles(&values), |x| {
                    (!from.is_nan(x[0])).then(|| to.convert(from, x[0], mode))
                });
            }
        }
    }
}

#[test]
fn conversions_with_integers() {
    let mut bench = Bench::new();
    for (format, ty) in [(F32, "f32"), (F64, "f64"), (F16, "f16")] {
        for bits in [8u32, 16, 32, 64] {
            for (kind, is_signed) in [("u", false), ("s", true)] {
                let name = format!("{kind}{bits}");
                let ints = singles(&patterns(bits, 60));
                for (mode, mode_name) in Mode::ALL {
                    bench.check(&format!("cvt.{mode_name}.{ty}.{name}"), ty, &[&name], &ints, |x| {
                        let value = if is_signed { signed(x[0], bits) } else { i128::from(x[0]) };
                        let exact = exact::Exact::new(value < 0, value.unsigned_abs(), 0);
                        Some(if value == 0 { 0 } else { format.round(&exact, mode) })
                    });
                }
                let mut values = floats(format, 60);
                values.extend(patterns(bits, 20).iter().map(|x| {
                    let value = if is_signed { signed(*x, bits) } else { i128::from(*x) };
                    format.round(&exact::Exact::new(value < 0, value.unsigned_abs() * 2 + 1, -1), Mode::Nearest)
                }));
                let (low, high) = if is_signed {
                    (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
                } else {
                    (0, (1i128 << bits) - 1)
                };
                for (mode, mode_name) in [("rni", 0), ("rzi", 1), ("rmi", 2), ("rpi", 3)].map(|(n, i)| (i, n)) {
                    bench.check(&format!("cvt.{mode_name}.{name}.{ty}"), &name, &[ty], &singles(&values), |x| {
                        if format.is_nan(x[0]) {
                            let top = format == F64 || bits == 64 && format == F32 || bits == 64 && format == F16;
                            return Some(if top { 1 << (bits - 1) } else { 0 });
                        }
                        let wide = F64.convert(format, x[0], Mode::Nearest);
                        let value = f64::from_bits(wide);
                        let whole = match mode {
                            0 => value.round_ties_even(),
                            1 => value.trunc(),
                            2 => value.floor(),
                            _ => value.ceil(),
                        };
                        Some(cut((whole as i128).clamp(low, high), bits))
                    });
                }
            }
        }
    }
    for (from, to) in [
        ("s8", "s32"),
        ("u8", "s32"),
        ("s16", "s64"),
        ("u16", "u64"),
        ("s32", "s64"),
        ("u32", "u64"),
        ("s64", "s32"),
        ("u32", "u8"),
    ] {
        let bits = |ty: &str| ty[1..].parse::<u32>().unwrap();
        bench.check(&format!("cvt.{to}.{from}"), to, &[from], &singles(&patterns(bits(from), 60)), |x| {
            let value = if from.starts_with('s') { signed(x[0], bits(from)) } else { i128::from(x[0]) };
            Some(cut(value, bits(to)))
        });
    }
    bench.check("cvt.sat.s8.s32", "s8", &["s32"], &singles(&patterns(32, 60)), |x| {
        Some(cut(signed(x[0], 32).clamp(-128, 127), 8))
    });
    bench.check("cvt.sat.u8.s32", "u8", &["s32"], &singles(&patterns(32, 60)), |x| {
        Some(cut(signed(x[0], 32).clamp(0, 255), 8))
    });
}

#[test]
fn approximate_functions_stay_within_their_errors() {
    let mut bench = Bench::new();
    let inputs: Vec<u64> =
        (0..4000u32).map(|i| u64::from((i as f32 / 100.0 - 20.0).to_bits())).chain(floats(F32, 200)).collect();
    type Function = (&'static str, fn(f64) -> f64, f64, f64);
    // Name, function, relative and absolute error.
    let functions: [Function; 7] = [
        ("ex2.approx.f32", f64::exp2, 2.0 * 2f64.powi(-23), 2f64.powi(-149)),
        ("lg2.approx.f32", f64::log2, 2f64.powi(-22), 2f64.powi(-22)),
        ("rcp.approx.f32", |x| 1.0 / x, 2f64.powi(-23), 2f64.powi(-149)),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), 2f64.powf(-22.9), 0.0),
        ("sqrt.approx.f32", f64::sqrt, 2f64.powi(-23), 0.0),
        ("tanh.approx.f32", f64::tanh, 2f64.powi(-11), 0.0),
        ("sin.approx.f32", f64::sin, 0.0, 2f64.powf(-20.5)),
    ];
    for (name, function, relative, absolute) in functions {
        let results = bench.run(name, "f32", &["f32"], &singles(&inputs));
        for (input, result) in inputs.iter().zip(results) {
            let (x, got) = (f64::from(f32::from_bits(*input as u32)), f32::from_bits(result as u32));
            let want = function(x);
            if name.starts_with("sin") && x.abs() > std::f64::consts::PI {
                continue;
            }
            let right = if want.is_nan() {
                result == 0x7fff_ffff
            } else if want.abs() > f64::from(f32::MAX) {
                got.is_infinite() && (got > 0.0) == (want > 0.0) || f64::from(got.abs()) >= f64::from(f32::MAX)
            } else {
                (f64::from(got) - want).abs() <= relative * want.abs() + absolute + 2f64.powi(-149)
            };
            assert!(right, "{name} of {x:e} gave {got:e}, not {want:e}");
        }
    }
}
