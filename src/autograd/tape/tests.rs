//! Tests of the tape itself, on operations made for them.

use std::rc::Rc;

use super::*;
use crate::autograd::{Cost, InputGrads};

/// y = a + b, with a backward as lazy as told.
struct Lazy {
    answers: &'static [usize],
}

impl Op for Lazy {
    type Saved = ();

    fn name(&self) -> &'static str {
        "lazy"
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["a", "b"][i]
    }

    fn cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Tensor, ())> {
        let sum: Vec<f32> = x[0].data().iter().zip(x[1].data()).map(|(a, b)| a + b).collect();
        Ok((Tensor::new(x[0].shape(), sum)?, ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        for &i in self.answers {
            if let Some(to) = grads.get(i) {
                to.iter_mut().zip(grad.data()).for_each(|(to, g)| *to += g);
            }
        }
        Ok(())
    }
}

/// An operation nobody wrote a backward for.
struct Blind;

impl Op for Blind {
    type Saved = ();

    fn name(&self) -> &'static str {
        "blind"
    }

    fn input_name(&self, _: usize) -> &'static str {
        "x"
    }

    fn cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Tensor, ())> {
        Ok((x[0].clone(), ()))
    }
}

fn ones(n: usize) -> Tensor {
    Tensor::new([n], vec![1.0; n]).unwrap()
}

#[test]
fn gradients_of_a_shared_input_add_up() {
    let tape = Tape::recording();
    let a = tape.leaf(ones(3));
    let twice = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &a]).unwrap();
    let thrice = tape.apply(Lazy { answers: &[0, 1] }, &[&twice, &a]).unwrap();
    let mut grads = tape.backward(&thrice, ones(3)).unwrap();
    assert_eq!(grads.take(&a).unwrap().data(), [3.0; 3]);
}

#[test]
fn gradients_that_the_first_operation_adds_nothing_to_are_there_before_its_backward() {
    let tape = Tape::recording();
    let [a, b, c] = [(); 3].map(|()| tape.leaf(ones(3)));
    let first = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &b]).unwrap();
    let second = tape.apply(Lazy { answers: &[0, 1] }, &[&first, &c]).unwrap();
    let third = tape.apply(Lazy { answers: &[0, 1] }, &[&second, &b]).unwrap();
    let mut seen = None;
    let early = |early: Early| {
        seen = Some([&a, &b, &c].map(|leaf| early.get(leaf).map(|grad| grad.data().to_vec())));
        Ok(())
    };
    let mut grads = tape.backward_in_two(&third, ones(3), early).unwrap();
    assert_eq!(seen, Some([None, None, Some(vec![1.0; 3])]));
    assert_eq!(grads.take(&b).unwrap().data(), [2.0; 3]);
}

#[test]
fn several_outputs_pass_their_gradients_on_together() {
    let tape = Tape::recording();
    let a = tape.leaf(ones(3));
    let twice = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &a]).unwrap();
    let thrice = tape.apply(Lazy { answers: &[0, 1] }, &[&twice, &a]).unwrap();
    let mut grads = tape.backward_of(vec![(&twice, ones(3)), (&thrice, ones(3))]).unwrap();
    assert_eq!(grads.take(&a).unwrap().data(), [5.0; 3]);
}

#[test]
fn a_dropped_gradient_is_an_error() {
    let tape = Tape::recording();
    let (a, b) = (tape.leaf(ones(2)), tape.leaf(ones(2)));
    let sum = tape.apply(Lazy { answers: &[0] }, &[&a, &b]).unwrap();
    let error = tape.backward(&sum, ones(2)).err().unwrap();
    assert!(matches!(error, Error::DroppedGradient { op: "lazy", input: "b" }));
}

#[test]
fn a_dropped_gradient_of_a_constant_is_fine() {
    let tape = Tape::recording();
    let a = tape.leaf(ones(2));
    let sum = tape.apply(Lazy { answers: &[0] }, &[&a, &Var::constant(ones(2))]).unwrap();
    assert!(tape.backward(&sum, ones(2)).is_ok());
}

#[test]
fn a_missing_backward_is_an_error() {
    let tape = Tape::recording();
    let out = tape.apply(Blind, &[&tape.leaf(ones(2))]).unwrap();
    assert!(matches!(tape.backward(&out, ones(2)).err().unwrap(), Error::NoBackward { op: "blind" }));
}

#[test]
fn every_operation_is_noted_once_forward_and_once_backward_if_a_gradient_flows_to_it() {
    let profile = Profile::new(Clock::Host);
    let tape = Tape::recording().timed(&profile);
    let (a, b) = (tape.leaf(ones(2)), Var::constant(ones(2)));
    let constant = tape.apply(Lazy { answers: &[] }, &[&b, &b]).unwrap();
    let twice = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &a]).unwrap();
    let unused = tape.apply(Lazy { answers: &[0, 1] }, &[&twice, &a]).unwrap();
    let out = tape.apply(Lazy { answers: &[0] }, &[&twice, &constant]).unwrap();
    assert_eq!((tape.samples().len(), unused.tensor().len()), (4, 2));
    tape.backward(&out, ones(2)).unwrap();
    let timed = profile.timed().unwrap();
    assert_eq!(timed.iter().map(|op| op.backward.is_some()).collect::<Vec<_>>(), [false, true, false, true]);
    assert!(timed.iter().all(|op| op.sample.op == "lazy" && op.forward >= 0.0));
}

#[test]
fn instances_that_no_gradient_flows_to_are_left_out() {
    let profile = Profile::new(Clock::Host);
    let tape = Tape::recording().timed(&profile);
    let (a, b) = (tape.leaf(ones(2)), Var::constant(ones(2)));
    let op = |answers| Lazy { answers };
    let instances = vec![op(&[0, 1][..]), op(&[]), op(&[]), op(&[0])];
    let inputs = [vec![&a, &a], vec![&a, &b], vec![&b, &b], vec![&a, &b]];
    let outputs = tape.apply_all(instances, &inputs).unwrap();
    assert!(outputs.iter().all(|output| output.tensor().data() == [2.0; 2]) && outputs[2].node.is_none());
    let out = tape.apply(op(&[0, 1]), &[&outputs[3], &outputs[0]]).unwrap();
    assert_eq!(tape.samples().len(), 2);
    let mut grads = tape.backward(&out, ones(2)).unwrap();
    assert_eq!(grads.take(&a).unwrap().data(), [3.0; 2]);
    // A gradient that an instance drops is noticed.
    let tape = Tape::recording();
    let a = tape.leaf(ones(2));
    let outputs = tape.apply_all(vec![op(&[0, 1]), op(&[0])], &[vec![&a, &a], vec![&a, &a]]).unwrap();
    let error = tape.backward(&outputs[1], ones(2)).err().unwrap();
    assert!(matches!(error, Error::DroppedGradient { op: "lazy", input: "b" }));
}

#[test]
fn an_inference_tape_keeps_nothing() {
    let tape = Tape::inference();
    let a = tape.leaf(ones(2));
    let sum = tape.apply(Lazy { answers: &[] }, &[&a, &a]).unwrap();
    assert!(tape.nodes.borrow().is_empty() && tape.backward(&sum, ones(2)).is_err());
}

/// y = a * b, which keeps both.
struct Product;

impl Op for Product {
    type Saved = [Tensor; 2];

    fn name(&self) -> &'static str {
        "product"
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["a", "b"][i]
    }

    fn cost(&self, _: &[&[usize]]) -> Cost {
        Cost { forward: 1, backward: 2, ..Cost::default() }
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Tensor, Self::Saved)> {
        let product: Vec<f32> = x[0].data().iter().zip(x[1].data()).map(|(a, b)| a * b).collect();
        Ok((Tensor::new(x[0].shape(), product)?, [x[0].clone(), x[1].clone()]))
    }

    fn backward(&self, saved: Self::Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        for i in 0..2 {
            if let Some(to) = grads.get(i) {
                let other = saved[1 - i].data().iter().zip(grad.data());
                to.iter_mut().zip(other).for_each(|(to, (x, g))| *to += x * g);
            }
        }
        Ok(())
    }
}

fn three(values: [f32; 3]) -> Tensor {
    Tensor::new([3], values.to_vec()).unwrap()
}

/// Value and gradients of leaves through two parts, of which the second reads one leaf twice, and what was noted.
fn through_parts(checkpoints: bool) -> (Vec<f32>, Vec<Option<Vec<f32>>>, Profile) {
    let profile = Profile::new(Clock::Host);
    let tape = Tape::recording().timed(&profile).with_checkpoints(checkpoints);
    let [a, b, unread] = [[0.1, 0.7, -1.3], [1.9, -0.3, 0.2], [5.0; 3]].map(|x| tape.leaf(three(x)));
    let cube = |tape: &Tape, x: &[Var]| {
        let square = tape.apply(Product, &[&x[0], &x[1]])?;
        tape.apply(Product, &[&square, &x[0]])
    };
    let first = tape.checkpointed(&[&a, &b, &unread], cube).unwrap();
    let constant = Var::constant(three([0.5, 0.25, 3.0]));
    let second = tape.checkpointed(&[&first, &a, &a, &constant], |tape, x| {
        let sum = tape.apply(Product, &[&tape.apply(Product, &[&x[0], &x[1]])?, &x[2]])?;
        tape.apply(Product, &[&sum, &x[3]])
    });
    // Here, too, the first leaf is read, before backward comes to the parts.
    let out = tape.apply(Product, &[&second.unwrap(), &a]).unwrap();
    let value = out.tensor().data().to_vec();
    let mut grads = tape.backward(&out, ones(3)).unwrap();
    let of = [&a, &b, &unread].map(|leaf| grads.take(leaf).map(|grad| grad.data().to_vec()));
    (value, of.to_vec(), profile)
}

#[test]
fn what_is_computed_again_has_the_same_gradients_and_is_noted_as_often_as_it_runs() {
    let (want, grads, once) = through_parts(false);
    let (got, again, twice) = through_parts(true);
    assert_eq!((&got, &again), (&want, &grads));
    assert!(grads[0].is_some() && grads[1].is_some() && grads[2].is_none());
    let costs = |profile: &Profile| -> Cost { profile.timed().unwrap().iter().map(|timed| timed.sample.cost()).sum() };
    let (once, twice) = (costs(&once), costs(&twice));
    assert_eq!((once.forward, once.backward), (6, 12));
    assert_eq!((twice.forward, twice.backward), (6 + 5, 12));
}

#[test]
fn a_tape_with_checkpoints_keeps_inputs_alone() {
    for (checkpoints, nodes) in [(false, 3), (true, 2)] {
        let tape = Tape::recording().with_checkpoints(checkpoints);
        let a = tape.leaf(ones(3));
        let within = Rc::new(RefCell::new(Vec::new()));
        let seen = within.clone();
        let out = tape.checkpointed(&[&a], move |tape, x| {
            let square = tape.apply(Product, &[&x[0], &x[0]])?;
            let fourth = tape.apply(Product, &[&square, &square])?;
            seen.borrow_mut().push((square.is_tracked(), fourth.is_tracked()));
            Ok(fourth)
        });
        assert_eq!(tape.nodes.borrow().len(), nodes);
        let mut grads = tape.backward(&out.unwrap(), ones(3)).unwrap();
        assert_eq!(grads.take(&a).unwrap().data(), [4.0; 3]);
        let tracked = (true, true);
        assert_eq!(*within.borrow(), if checkpoints { vec![(false, false), tracked] } else { vec![tracked] });
    }
}
