//! Every operation's backward against finite differences of its forward.

use fissfuse::autograd::{Tape, Var};
use fissfuse::ops::cases::{self, Case};
use fissfuse::tensor::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Step of the difference quotient. Outputs carry about 1e-7 of rounding noise, which the quotient multiplies by
/// 1 / STEP; the quotient's own error is of the order of STEP².
const STEP: f32 = 4e-3;
/// Bound on the error of a derivative along a unit direction, relative to the gradient's length: rounding noise of
/// 1e-7 · √outputs / STEP, doubled for the curvature of softmax and normalization.
const TOLERANCE: f64 = 4e-3;

fn direction(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    let raw: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.iter().map(|x| x / length).collect()
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| x as f64 * y as f64).sum()
}

fn output(case: &Case, inputs: &[Tensor]) -> Tensor {
    let vars: Vec<Var> = inputs.iter().cloned().map(Var::constant).collect();
    case.apply(&Tape::inference(), &vars.iter().collect::<Vec<_>>()).unwrap().into_tensor()
}

fn moved(tensor: &Tensor, by: f32, along: &[f32]) -> Tensor {
    let mut copy = tensor.clone();
    copy.data_mut().iter_mut().zip(along).for_each(|(x, v)| *x += by * v);
    copy
}

fn check(case: &Case) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let tape = Tape::recording();
    let leaves: Vec<Var> = case.inputs.iter().map(|t| tape.leaf(t.clone())).collect();
    let out = case.apply(&tape, &leaves.iter().collect::<Vec<_>>()).unwrap();
    let seed = direction(&mut rng, out.tensor().len());
    let mut grads = tape.backward(&out, Tensor::new(out.tensor().shape(), seed.clone()).unwrap()).unwrap();
    for (i, leaf) in leaves.iter().enumerate() {
        let grad = grads.take(leaf).unwrap();
        let length = dot(grad.data(), grad.data()).sqrt();
        let bound = TOLERANCE * length.max(0.05);
        let quotient = |along: &[f32], step: f32| {
            let end = |by| {
                let mut inputs = case.inputs.clone();
                inputs[i] = moved(&inputs[i], by, along);
                dot(output(case, &inputs).data(), &seed)
            };
            (end(step) - end(-step)) / (2.0 * step as f64)
        };
        // ReLU and maximum have kinks; where two steps disagree, one lies between them and says nothing.
        let directions: Vec<Vec<f32>> = (0..24).map(|_| direction(&mut rng, grad.len())).collect();
        let smooth = directions.iter().filter_map(|along| {
            let (near, far) = (quotient(along, STEP / 2.0), quotient(along, STEP));
            ((near - far).abs() <= bound).then_some((along, far))
        });
        let mut checked = 0;
        for (along, want) in smooth.take(4) {
            let got = dot(grad.data(), along);
            assert!((got - want).abs() <= 2.0 * bound, "{}, input {i}: {got}, differences say {want}", case.name);
            checked += 1;
        }
        assert_eq!(checked, 4, "{}, input {i}: too few smooth directions", case.name);
    }
}

#[test]
fn backward_agrees_with_finite_differences() {
    cases::small().unwrap().iter().for_each(check);
}

#[test]
fn every_gradient_adds_to_what_is_there() {
    // Each input used twice: its gradient must be twice as large, not overwritten.
    for case in cases::small().unwrap() {
        let seed_of = |out: &Var| Tensor::new(out.tensor().shape(), vec![1.0; out.tensor().len()]).unwrap();
        let once = Tape::recording();
        let leaves: Vec<Var> = case.inputs.iter().map(|t| once.leaf(t.clone())).collect();
        let out = case.apply(&once, &leaves.iter().collect::<Vec<_>>()).unwrap();
        let mut once = once.backward(&out, seed_of(&out)).unwrap();

        let tape = Tape::recording();
        let again: Vec<Var> = case.inputs.iter().map(|t| tape.leaf(t.clone())).collect();
        let inputs: Vec<&Var> = again.iter().collect();
        let (a, b) = (case.apply(&tape, &inputs).unwrap(), case.apply(&tape, &inputs).unwrap());
        let both = tape.apply(Sum, &[&a, &b]).unwrap();
        let mut twice = tape.backward(&both, seed_of(&both)).unwrap();
        for (one, two) in leaves.iter().zip(&again) {
            let (one, two) = (once.take(one).unwrap(), twice.take(two).unwrap());
            let largest = one.data().iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (one, two) in one.data().iter().zip(two.data()) {
                assert!((2.0 * one - two).abs() <= 1e-5 * largest, "{}: {two}, want twice {one}", case.name);
            }
        }
    }
}

/// a + b
struct Sum;

impl fissfuse::autograd::Op for Sum {
    type Saved = ();

    fn name(&self) -> &'static str {
        "sum"
    }

    fn input_name(&self, _: usize) -> &'static str {
        "term"
    }

    fn cost(&self, _: &[&[usize]]) -> fissfuse::autograd::Cost {
        Default::default()
    }

    fn forward(&self, inputs: &[&Tensor]) -> fissfuse::Result<(Tensor, ())> {
        Ok((moved(inputs[0], 1.0, inputs[1].data()), ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut fissfuse::autograd::InputGrads) -> fissfuse::Result<()> {
        for i in 0..2 {
            if let Some(to) = grads.get(i) {
                to.iter_mut().zip(grad.data()).for_each(|(to, g)| *to += g);
            }
        }
        Ok(())
    }
}
