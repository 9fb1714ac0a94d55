//! `cvt` to and from pairs of eight-bit floats.

use super::Rule;
use crate::exec::op::{map, with_flag};
use crate::exec::opcode::Opcode;
use crate::math::float::NEAREST;
use crate::math::fp8::{self, E4M3, E5M2};
use crate::math::half::{self, F16, Half};
use crate::ptx::{Kind, ScalarType};

const F32: ScalarType = ScalarType { kind: Kind::Float, bits: 32 };
const HALVES: ScalarType = ScalarType { kind: Kind::FloatPair, bits: 32 };

/// `cvt.rn.satfinite{.relu}.e4m3x2.f32 d, a, b` (a in the upper byte), the same of `.f16x2`, and back to `.f16x2`.
pub(super) fn convert(opcode: &mut Opcode, src: ScalarType, dst: ScalarType) -> Option<Rule> {
    let nearest = opcode.rounding() == Some(NEAREST);
    let relu = opcode.flag("relu");
    if !nearest {
        return None;
    }
    let clamps = opcode.flag("satfinite");
    macro_rules! conversions {
        ($format:ident) => {
            with_flag!(relu, RELU => match (src, dst) {
                (F32, _) if clamps => {
                    let run = map!(|a: f32, b: f32| -> u16 {
                        u16::from(fp8::narrow::<$format, RELU>(a)) << 8 | u16::from(fp8::narrow::<$format, RELU>(b))
                    });
                    Rule::new(run, dst, &[F32, F32])
                }
                (HALVES, _) if clamps => {
                    let run = map!(|a: u32| -> u16 {
                        let [low, high] = [a as u16, (a >> 16) as u16].map(F16::widen);
                        u16::from(fp8::narrow::<$format, RELU>(high)) << 8
                            | u16::from(fp8::narrow::<$format, RELU>(low))
                    });
                    Rule::new(run, dst, &[HALVES])
                }
                (_, HALVES) if !clamps => {
                    let run = map!(|a: u16| -> u32 {
                        let [low, high] = a.to_le_bytes().map(fp8::widen::<$format>);
                        let both = u32::from(high) << 16 | u32::from(low);
                        if RELU { half::pair1(half::relu::<F16>, both) } else { both }
                    });
                    Rule::new(run, dst, &[src])
                }
                _ => return None,
            })
        };
    }
    let short = if src == F32 || src == HALVES { dst } else { src };
    Some(if short.kind == Kind::E4M3Pair { conversions!(E4M3) } else { conversions!(E5M2) })
}
