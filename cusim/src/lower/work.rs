//! What an instruction counts as.

use crate::machine::listing::{Work, WorkKind};

/// Classifies an opcode.
pub fn classify(opcode: &str) -> Work {
    let words: Vec<&str> = opcode.split('.').collect();
    let has = |word: &str| words.contains(&word);
    let last = words.last().copied().unwrap_or("");
    let base = words[0];
    if matches!(base, "mma" | "wmma") {
        return tensor(&words);
    }
    let work = |kind, amount| Work { kind, amount };
    match base {
        "ex2" | "lg2" | "sin" | "cos" | "rcp" | "sqrt" | "rsqrt" | "tanh" | "div" => match last {
            "f32" => work(WorkKind::Special32, 1),
            "f64" => work(WorkKind::Float64, 1),
            "f16" | "bf16" => work(WorkKind::Half, 1),
            "f16x2" | "bf16x2" => work(WorkKind::Half, 2),
            _ => work(WorkKind::Integer, 1),
        },
        "add" | "sub" | "mul" | "fma" | "mad" | "min" | "max" | "neg" | "abs" => {
            let fused = if matches!(base, "fma" | "mad") { 2 } else { 1 };
            match last {
                "f32" => match base {
                    "add" | "sub" => work(WorkKind::Add32, 1),
                    "mul" => work(WorkKind::Mul32, 1),
                    "fma" | "mad" => work(WorkKind::Fma32, 2),
                    _ => Work::default(),
                },
                "f64" if !matches!(base, "min" | "max" | "neg" | "abs") => work(WorkKind::Float64, fused),
                "f16" | "bf16" if !matches!(base, "min" | "max" | "neg" | "abs") => work(WorkKind::Half, fused),
                "f16x2" | "bf16x2" if !matches!(base, "min" | "max" | "neg" | "abs") => work(WorkKind::Half, 2 * fused),
                "f64" | "f16" | "bf16" | "f16x2" | "bf16x2" => Work::default(),
                _ => work(WorkKind::Integer, fused),
            }
        }
        "and" | "or" | "xor" | "not" | "shl" | "shr" | "shf" | "lop3" | "prmt" | "bfe" | "bfi" | "bfind" | "brev"
        | "clz" | "popc" | "rem" | "sad" | "mul24" | "addc" | "subc" => work(WorkKind::Integer, 1),
        "mad24" | "madc" => work(WorkKind::Integer, 2),
        "dp4a" => work(WorkKind::Integer, 8),
        "dp2a" => work(WorkKind::Integer, 4),
        "setp" if !has("f32") && !has("f64") => work(WorkKind::Integer, 1),
        _ => Work::default(),
    }
}

/// `mma.sync.aligned.m16n8k16...`: two operations per product, for the whole warp.
fn tensor(words: &[&str]) -> Work {
    let shape = words.iter().find_map(|word| shape(word));
    let Some((m, n, k)) = shape.filter(|_| words.contains(&"mma")) else {
        return Work::default();
    };
    let has = |name: &str| words.contains(&name);
    let kind = if has("bf16") {
        WorkKind::TensorBf16
    } else if has("tf32") {
        WorkKind::TensorTf32
    } else if words.iter().any(|word| matches!(*word, "s8" | "u8" | "s4" | "u4" | "b1")) {
        WorkKind::TensorInt
    } else if has("f64") {
        WorkKind::TensorF64
    } else {
        WorkKind::TensorF16
    };
    // `wmma.load` and `wmma.store` name a shape too, but compute nothing.
    let computes = !words.iter().any(|word| matches!(*word, "load" | "store"));
    if computes { Work { kind, amount: 2 * m * n * k } } else { Work::default() }
}

/// Reads `m16n8k16`.
pub fn shape(word: &str) -> Option<(u32, u32, u32)> {
    let rest = word.strip_prefix('m')?;
    let (m, rest) = rest.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}
