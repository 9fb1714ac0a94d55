//! FissFuse's operations, forward and backward, and its optimizer against the CPU.

use std::ops::Range;

use half::f16;

use super::{Check, Findings, bits};
use crate::autograd::{Tape, Var};
use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::error::Result;
use crate::ops::cases::{self, Case};
use crate::ops::{Activation, AdamW, Features, Gold, Hinge, Linear, Mlp, Moments, Pairing, clip_norm};
use crate::tensor::{Element, Tensor};

/// Errors are relative to a tensor's largest element, and at least to this share of the largest of all gradients: a sum
/// whose terms cancel carries the rounding of its terms.
const FLOOR: f32 = 0.1;

/// The largest relative error that rounding explains.
fn tolerance(arithmetic: Arithmetic) -> f32 {
    match arithmetic {
        // f32 sums in another order: some hundreds of roundings of 6e-8 each.
        Arithmetic::F32 => 2e-5,
        // Products of values rounded to 8 bits (bf16) or 11 (f16, tf32), through several layers forward and back.
        Arithmetic::Mixed => 3e-2,
        // All of them to 8 bits. A sum near 0 may fall on the other side of a ReLU, whose bias then has another of its some dozens
        // of terms.
        Arithmetic::Bf16 => 6e-2,
    }
}

/// The table of operations, and projections of as many rows as it takes for tall blocks on the device.
pub fn checks(gpu: &Gpu) -> Result<Vec<Check>> {
    let multiprocessors = gpu.multiprocessors();
    let mut cases = cases::small()?;
    cases.extend(cases::kinks()?);
    cases.extend(cases::together()?);
    let mixed = gpu.arithmetic() == Arithmetic::Mixed;
    if mixed {
        cases.push(cases::tall(multiprocessors)?);
    }
    let against_cpu = |case: Case| Check::new(case.name.clone(), move |gpu, found| compare(&case, gpu, found));
    let mut checks: Vec<Check> = cases.into_iter().map(against_cpu).collect();
    checks.push(features());
    checks.push(of_many_rows());
    if mixed {
        checks.push(Check::new("project, tall blocks beside others", move |gpu, found| {
            let [all, first, rest] = cases::tall_and_parts(multiprocessors)?;
            let [all, first, rest] = [output(&all, gpu)?, output(&first, gpu)?, output(&rest, gpu)?];
            found.equal("bits", bits(all.data()), &[bits(first.data()), bits(rest.data())].concat());
            Ok(())
        }));
    }
    Ok(checks)
}

/// Rows of features as a tensor, which has no gradient.
fn features() -> Check {
    Check::new("features", |gpu, found| {
        for rows in cases::feature_rows()? {
            let on = |gpu: Option<&Gpu>| {
                let features = Features { rows: rows.clone(), gpu: gpu.cloned() };
                Tape::inference().apply(features, &[])?.into_tensor().to(None)
            };
            found.equal("bits", bits(on(Some(gpu))?.data()), bits(on(None)?.data()));
        }
        Ok(())
    })
}

fn output(case: &Case, gpu: &Gpu) -> Result<Tensor> {
    let tape = Tape::inference();
    let leaves: Vec<Var> =
        case.inputs.iter().map(|tensor| Ok(tape.leaf(tensor.to(Some(gpu))?))).collect::<Result<_>>()?;
    case.apply(&tape, &leaves.iter().collect::<Vec<_>>())?.into_tensor().to(None)
}

/// Output and gradients of a case on a device or, with `None`, the host.
fn run(case: &Case, gpu: Option<&Gpu>) -> Result<(Tensor, Vec<Tensor>)> {
    let tape = Tape::recording();
    let leaves: Vec<Var> = case.inputs.iter().map(|tensor| Ok(tape.leaf(tensor.to(gpu)?))).collect::<Result<_>>()?;
    let out = case.apply(&tape, &leaves.iter().collect::<Vec<_>>())?;
    // Gradients that differ from element to element and sum to no round number.
    let seed: Vec<f32> = (0..out.tensor().len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let seed = Tensor::new(out.tensor().shape(), seed)?.to(gpu)?;
    let mut grads = tape.backward(&out, seed)?;
    let grads = leaves.iter().filter_map(|leaf| grads.take(leaf)).map(|g| g.to(None)).collect::<Result<_>>()?;
    Ok((out.into_tensor().to(None)?, grads))
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.data().iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Compares output and gradients with the CPU's.
fn compare(case: &Case, gpu: &Gpu, found: &mut Findings) -> Result<()> {
    let bound = tolerance(gpu.arithmetic());
    let (want, want_grads) = run(case, None)?;
    let (got, grads) = run(case, Some(gpu))?;
    found.near("output", got.data(), want.data(), bound);
    let floor = FLOOR * want_grads.iter().map(largest).fold(0.0, f32::max);
    found.equal("number of gradients", &[grads.len()], &[want_grads.len()]);
    for (i, (got, want)) in grads.iter().zip(&want_grads).enumerate() {
        found.near_to(format!("gradient of input {i}"), got.data(), want.data(), (floor, bound));
    }
    Ok(())
}

/// Two layers in one launch of more tiles than the device has multiprocessors, so that blocks take several: against the CPU, and
/// against the first and the last rows alone.
fn of_many_rows() -> Check {
    let run = |gpu: Option<&Gpu>, rows: Range<usize>| -> Result<Tensor> {
        let tensor = |shape: [usize; 2], from: usize| {
            let value = |i: usize| ((from + i) * 31 % 97) as f32 / 48.0 - 1.0;
            Tensor::new(shape, (0..shape[0] * shape[1]).map(value).collect::<Vec<_>>())
        };
        let bias = |from| Tensor::new([4], tensor([1, 4], from)?.data().to_vec());
        let inputs =
            [tensor([4, 8], 1)?, bias(2)?, tensor([4, 4], 3)?, bias(4)?, tensor([rows.len(), 8], 8 * rows.start)?];
        let vars = inputs.iter().map(|input| Ok(Var::constant(input.to(gpu)?))).collect::<Result<Vec<_>>>()?;
        let out = Tape::inference().apply(Mlp { textbook_rows: rows.len() }, &vars.iter().collect::<Vec<_>>())?;
        out.into_tensor().to(None)
    };
    Check::new("two layers of many rows", move |gpu, found| {
        let (rows, part) = (128 * gpu.multiprocessors() + 200, 300);
        let [all, first, last] = [0..rows, 0..part, rows - part..rows].map(|rows| run(Some(gpu), rows));
        let (all, ends) = (all?, [first?, last?].map(|end| bits(end.data()).to_vec()).concat());
        let values = bits(all.data());
        found.equal("bits", &[&values[..4 * part], &values[4 * (rows - part)..]].concat(), &ends);
        found.near("outputs", all.data(), run(None, 0..rows)?.data(), tolerance(gpu.arithmetic()));
        Ok(())
    })
}

/// What is not a number stays so through ReLU, wherever it is, and in a loss: rows that hold none stay whole.
pub fn not_a_number() -> Check {
    let tensor = |shape: &[usize], row: Option<usize>| {
        let mut tensor = Tensor::zeros(shape);
        let width = shape.last().copied().unwrap_or(1);
        for (i, x) in tensor.data_mut().iter_mut().enumerate() {
            *x = if row == Some(i / width) { f32::NAN } else { ((i * 31) % 23) as f32 / 11.0 - 1.0 };
        }
        tensor
    };
    let run = move |gpu: Option<&Gpu>| -> Result<Vec<(&'static str, Tensor)>> {
        let tape = Tape::inference();
        let var = |shape: &[usize], row| Ok(Var::constant(tensor(shape, row).to(gpu)?));
        let mut results = Vec::new();
        let mut note = |what, out: Var| out.into_tensor().to(None).map(|out| results.push((what, out)));
        note("activation", tape.apply(Activation::Relu, &[&var(&[5, 8], Some(2))?])?)?;
        // Of a width that two layers of one launch have, and of one that they do not.
        for (what, d) in [("mlp, d 8", 8), ("mlp, d 6", 6)] {
            let inputs = [var(&[d, d], None)?, var(&[d], None)?, var(&[d, d], None)?, var(&[d], None)?];
            let row = var(&[5, d], Some(2))?;
            let inputs: Vec<&Var> = inputs.iter().chain([&row]).collect();
            note(what, tape.apply(Mlp { textbook_rows: 5 }, &inputs)?)?;
        }
        let linear = Linear { activation: Some(Activation::Relu), bias: true, textbook_rows: 5 };
        let inputs = [var(&[8, 8], None)?, var(&[8], None)?, var(&[5, 8], Some(2))?];
        note("linear", tape.apply(linear, &inputs.iter().collect::<Vec<_>>())?)?;
        let pairs = Pairing::new(vec![0, 0, 0], 1, vec![0, 1, 2], 3)?;
        let gold = Gold::new(&pairs, vec![1]);
        note("hinge", tape.apply(Hinge { pairs, gold, margin: 0.5 }, &[&var(&[2, 3], Some(1))?])?)?;
        Ok(results)
    };
    Check::new("what is not a number stays so", move |gpu, found| {
        for ((what, got), (_, want)) in run(Some(gpu))?.iter().zip(&run(None)?) {
            let nan = |tensor: &Tensor| tensor.data().iter().map(|x| u32::from(x.is_nan())).collect::<Vec<_>>();
            let row = got.len() / got.shape()[0];
            let wanted: Vec<u32> =
                (0..got.len()).map(|i| u32::from(i / row == if got.shape()[0] == 2 { 1 } else { 2 })).collect();
            found.equal(format!("{what} on the device"), &nan(got), &wanted);
            found.equal(format!("{what} on the host"), &nan(want), &wanted);
        }
        Ok(())
    })
}

/// Two steps of the optimizer on more parameters than a launch takes, some of which have a copy in f16 beside them.
pub fn adamw() -> Check {
    let tensor = |i: usize, scale: f32| {
        let values: Vec<f32> = (0..1 + 7 * i % 300).map(|j| scale * ((i * 31 + j * 17) % 23) as f32 - 1.0).collect();
        Tensor::new([values.len()], values)
    };
    let placed = move |i: usize, gpu: Option<&Gpu>| -> Result<Tensor> {
        let (on_host, Some(gpu)) = (tensor(i, 0.1)?, gpu) else { return tensor(i, 0.1) };
        let placed = on_host.to(Some(gpu))?;
        match i.is_multiple_of(3) {
            true => Ok(placed.beside(Tensor::upload(gpu, "f16 weights", on_host.data(), on_host.len(), Element::F16)?)),
            false => Ok(placed),
        }
    };
    let stepped = move |gpu: Option<&Gpu>| -> Result<Vec<Tensor>> {
        let mut parameters = (0..200).map(|i| placed(i, gpu)).collect::<Result<Vec<_>>>()?;
        let grads = (0..200).map(|i| tensor(i, 0.2)?.to(gpu)).collect::<Result<Vec<_>>>()?;
        let zeros = parameters.iter().map(|p| Moments::zeros(p.shape()).to(gpu));
        let mut moments: Vec<Moments> = zeros.collect::<Result<_>>()?;
        for step in 1..=2 {
            AdamW::default().step(step, &mut parameters, &grads, &mut moments)?;
        }
        Ok(parameters)
    };
    Check::new("adamw, 200 parameters", move |gpu, found| {
        for (i, (got, want)) in stepped(Some(gpu))?.iter().zip(&stepped(None)?).enumerate() {
            let values = got.to(None)?;
            found.near(format!("parameter {i}"), values.data(), want.data(), 1e-6);
            if i.is_multiple_of(3) {
                let rounded: Vec<f32> = values.data().iter().map(|&x| f16::from_f32(x).to_f32()).collect();
                found.equal(format!("parameter {i} in f16"), got.operand(Element::F16)?.to(None)?.data(), &rounded);
            }
        }
        Ok(())
    })
}

/// Gradients that are too long, and that are not, more of them than a launch takes.
pub fn clipping() -> Check {
    let clipped = |gpu: Option<&Gpu>, most: f32| -> Result<(f64, Vec<Tensor>)> {
        let gradient = |i: usize| {
            let values: Vec<f32> =
                (0..1 + 97 * i % 700).map(|j| ((i * 31 + j * 17) % 23) as f32 / 11.0 - 1.0).collect();
            Tensor::new([values.len()], values)?.to(gpu)
        };
        let mut grads = (0..200).map(gradient).collect::<Result<Vec<_>>>()?;
        let length = clip_norm(&mut grads, most)?;
        Ok((length, grads.iter().map(|grad| grad.to(None)).collect::<Result<_>>()?))
    };
    Check::new("clip_norm, 200 gradients", move |gpu, found| {
        for most in [1.0, 1e6] {
            let ((length, grads), (want_length, want)) = (clipped(Some(gpu), most)?, clipped(None, most)?);
            found.near("length", &[length as f32], &[want_length as f32], 1e-6);
            for (i, (got, want)) in grads.iter().zip(&want).enumerate() {
                found.near(format!("gradient {i}"), got.data(), want.data(), 1e-6);
            }
        }
        Ok(())
    })
}
