//! f32 and f64 arithmetic.

use super::Rule;
use crate::exec::op::{map, with_flag, with_rounding};
use crate::exec::opcode::Opcode;
use crate::math::approx;
use crate::math::float::{self, NEAREST, finish, flush};
use crate::ptx::{Kind, ScalarType};

/// `sin`, `cos`, `lg2`, `rcp`, `sqrt`, `rsqrt`: f32 and f64 only.
pub(super) fn lookup(opcode: &mut Opcode) -> Option<Rule> {
    let ty = opcode.ty()?;
    lookup_typed(opcode, ty)
}

pub(super) fn lookup_typed(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    match (ty.kind, ty.bits) {
        (Kind::Float, 32) => single(opcode, ty),
        (Kind::Float, 64) => double(opcode, ty),
        _ => None,
    }
}

fn single(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let approx = opcode.flag("approx");
    let ftz = opcode.flag("ftz");
    if approx {
        return approximate(opcode, ty, ftz);
    }
    let rule = |run, sources| Some(Rule::uniform(run, ty, sources));
    match opcode.base {
        "add" | "sub" | "mul" => {
            let mode = opcode.rounding().unwrap_or(NEAREST);
            let sat = opcode.flag("sat");
            let base = opcode.base;
            let run = with_rounding!(mode, M => with_flag!(ftz, FTZ => with_flag!(sat, SAT => match base {
                "add" => map!(|a: f32, b: f32| -> f32 {
                    finish::<FTZ, SAT>(float::add::<M>(flush::<FTZ>(a), flush::<FTZ>(b)))
                }),
                "sub" => map!(|a: f32, b: f32| -> f32 {
                    finish::<FTZ, SAT>(float::add::<M>(flush::<FTZ>(a), -flush::<FTZ>(b)))
                }),
                _ => map!(|a: f32, b: f32| -> f32 {
                    finish::<FTZ, SAT>(float::mul::<M>(flush::<FTZ>(a), flush::<FTZ>(b)))
                }),
            })));
            rule(run, 2)
        }
        "fma" | "mad" => {
            let mode = opcode.rounding()?;
            let sat = opcode.flag("sat");
            let run = with_rounding!(mode, M => with_flag!(ftz, FTZ => with_flag!(sat, SAT => {
                map!(|a: f32, b: f32, c: f32| -> f32 {
                    finish::<FTZ, SAT>(float::fma::<M>(flush::<FTZ>(a), flush::<FTZ>(b), flush::<FTZ>(c)))
                })
            })));
            rule(run, 3)
        }
        "div" => {
            // div.full scales its operands and is allowed 2 ulp: the exact quotient is within that.
            let mode = if opcode.flag("full") { NEAREST } else { opcode.rounding()? };
            let run = with_rounding!(mode, M => with_flag!(ftz, FTZ => map!(|a: f32, b: f32| -> f32 {
                finish::<FTZ, false>(float::div::<M>(flush::<FTZ>(a), flush::<FTZ>(b)))
            })));
            rule(run, 2)
        }
        "rcp" => {
            let mode = opcode.rounding()?;
            let run = with_rounding!(mode, M => with_flag!(ftz, FTZ => map!(|a: f32| -> f32 {
                finish::<FTZ, false>(float::div::<M>(1.0, flush::<FTZ>(a)))
            })));
            rule(run, 1)
        }
        "sqrt" => {
            let mode = opcode.rounding()?;
            let run = with_rounding!(mode, M => with_flag!(ftz, FTZ => map!(|a: f32| -> f32 {
                finish::<FTZ, false>(float::sqrt::<M>(flush::<FTZ>(a)))
            })));
            rule(run, 1)
        }
        // Only the sign changes; .ftz flushes, and a NaN's payload is not kept by flushing forms.
        "neg" => rule(with_flag!(ftz, FTZ => map!(|a: f32| -> f32 { -flush::<FTZ>(a) })), 1),
        "abs" => rule(with_flag!(ftz, FTZ => map!(|a: f32| -> f32 { flush::<FTZ>(a).abs() })), 1),
        "min" | "max" => {
            let nan = opcode.flag("NaN");
            let xor_sign = opcode.flag("xorsign") && opcode.flag("abs");
            let min = opcode.base == "min";
            let run = with_flag!(ftz, FTZ => with_flag!(nan, NAN => with_flag!(min, MIN => {
                #[inline(always)]
                fn pick(a: f32, b: f32) -> f32 {
                    if MIN { float::min::<NAN>(a, b) } else { float::max::<NAN>(a, b) }
                }
                if xor_sign {
                    map!(|a: f32, b: f32| -> f32 {
                        let (a, b) = (flush::<FTZ>(a), flush::<FTZ>(b));
                        float::xor_sign(pick(a.abs(), b.abs()), a, b)
                    })
                } else {
                    map!(|a: f32, b: f32| -> f32 { pick(flush::<FTZ>(a), flush::<FTZ>(b)) })
                }
            })));
            rule(run, 2)
        }
        _ => None,
    }
}

fn approximate(opcode: &mut Opcode, ty: ScalarType, ftz: bool) -> Option<Rule> {
    let base = opcode.base;
    if base == "div" {
        let run = with_flag!(ftz, FTZ => map!(|a: f32, b: f32| -> f32 { approx::div::<FTZ>(a, b) }));
        return Some(Rule::uniform(run, ty, 2));
    }
    let run = with_flag!(ftz, FTZ => match base {
        "ex2" => map!(|a: f32| -> f32 { approx::ex2::<FTZ>(a) }),
        "lg2" => map!(|a: f32| -> f32 { approx::lg2::<FTZ>(a) }),
        "sin" => map!(|a: f32| -> f32 { approx::sin::<FTZ>(a) }),
        "cos" => map!(|a: f32| -> f32 { approx::cos::<FTZ>(a) }),
        "rcp" => map!(|a: f32| -> f32 { approx::rcp::<FTZ>(a) }),
        "sqrt" => map!(|a: f32| -> f32 { approx::sqrt::<FTZ>(a) }),
        "rsqrt" => map!(|a: f32| -> f32 { approx::rsqrt::<FTZ>(a) }),
        "tanh" if !FTZ => map!(|a: f32| -> f32 { approx::tanh(a) }),
        _ => return None,
    });
    Some(Rule::uniform(run, ty, 1))
}

fn double(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let rule = |run, sources| Some(Rule::uniform(run, ty, sources));
    if opcode.flag("approx") {
        let ftz = opcode.flag("ftz");
        return match opcode.base {
            "rcp" if ftz => rule(map!(|a: f64| -> f64 { approx::rcp_f64(a) }), 1),
            "rsqrt" => rule(with_flag!(ftz, FTZ => map!(|a: f64| -> f64 { approx::rsqrt_f64::<FTZ>(a) })), 1),
            _ => None,
        };
    }
    let base = opcode.base;
    match base {
        "add" | "sub" | "mul" | "div" => {
            let mode = match opcode.rounding() {
                None if base == "div" => return None,
                mode => mode.unwrap_or(NEAREST),
            };
            let run = if mode == NEAREST {
                match base {
                    "add" => map!(|a: f64, b: f64| -> f64 { a + b }),
                    "sub" => map!(|a: f64, b: f64| -> f64 { a - b }),
                    "mul" => map!(|a: f64, b: f64| -> f64 { a * b }),
                    _ => map!(|a: f64, b: f64| -> f64 { a / b }),
                }
            } else {
                with_rounding!(mode, M => match base {
                    "add" => map!(|a: f64, b: f64| -> f64 { float::add_f64::<M>(a, b) }),
                    "sub" => map!(|a: f64, b: f64| -> f64 { float::add_f64::<M>(a, -b) }),
                    "mul" => map!(|a: f64, b: f64| -> f64 { float::mul_f64::<M>(a, b) }),
                    _ => map!(|a: f64, b: f64| -> f64 { float::div_f64::<M>(a, b) }),
                })
            };
            rule(run, 2)
        }
        "fma" | "mad" => {
            let run = match opcode.rounding()? {
                NEAREST => map!(|a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }),
                mode => with_rounding!(mode, M => {
                    map!(|a: f64, b: f64, c: f64| -> f64 { float::fma_f64::<M>(a, b, c) })
                }),
            };
            rule(run, 3)
        }
        "rcp" => {
            let run = match opcode.rounding()? {
                NEAREST => map!(|a: f64| -> f64 { 1.0 / a }),
                mode => {
                    with_rounding!(mode, M => map!(|a: f64| -> f64 { float::div_f64::<M>(1.0, a) }))
                }
            };
            rule(run, 1)
        }
        "sqrt" => {
            let run = match opcode.rounding()? {
                NEAREST => map!(|a: f64| -> f64 { a.sqrt() }),
                mode => {
                    with_rounding!(mode, M => map!(|a: f64| -> f64 { float::sqrt_f64::<M>(a) }))
                }
            };
            rule(run, 1)
        }
        "neg" => rule(map!(|a: f64| -> f64 { -a }), 1),
        "abs" => rule(map!(|a: f64| -> f64 { a.abs() }), 1),
        "min" => rule(map!(|a: f64, b: f64| -> f64 { float::min_f64(a, b) }), 2),
        "max" => rule(map!(|a: f64, b: f64| -> f64 { float::max_f64(a, b) }), 2),
        _ => None,
    }
}
