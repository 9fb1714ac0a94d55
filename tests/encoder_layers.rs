//! The layers of encoders on devices against their definitions, and what they refuse.

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::ops::attention::{Heads, SelfAttention};
use fissfuse::ops::embedding::Embedding;
use fissfuse::ops::layer_norm::Norm;
use fissfuse::ops::linear::Linear;
use fissfuse::ops::linear::tiled::Gemm;
use fissfuse::tensor::{Compute, Element, Precision, Sequences, Tensor};

use crate::support;

/// Runs the body of a test of this file on a device, in both arithmetics.
fn on_device(test: &str, body: impl Fn(&Gpu)) {
    support::on_device(&format!("encoder_layers::{test}"), || {
        [Arithmetic::F32, Arithmetic::Mixed].iter().for_each(|&arithmetic| body(&Gpu::open(0, arithmetic).unwrap()));
    });
}

/// Zeros of what operands are under a device's arithmetic.
fn zeros(gpu: &Gpu, rows: usize, width: usize) -> Tensor {
    let element = if gpu.arithmetic() == Arithmetic::F32 { Element::F32 } else { Element::Bf16 };
    Tensor::upload(gpu, "test", &vec![0.0; rows * width], width, element).unwrap()
}

#[test]
fn layers_are_those_of_the_definition() {
    on_device("layers_are_those_of_the_definition", |gpu| {
        support::prove(gpu, &["encoder "], false);
    });
}

#[test]
fn products_that_the_kernels_cannot_compute_are_refused() {
    on_device("products_that_the_kernels_cannot_compute_are_refused", |gpu| {
        let matrix = |rows, width| zeros(gpu, rows, width);
        let refused = |a, w, c| {
            Gemm::new(&a, &w, &c).and_then(|gemm| gemm.launch(gpu)).is_err_and(|e| e.to_string().contains("linear"))
        };
        assert!(refused(matrix(3, 16), matrix(8, 24), matrix(3, 8)));
        assert!(refused(matrix(3, 16), matrix(8, 16), matrix(8, 3)));
        assert!(refused(matrix(3, 16), matrix(6, 16), matrix(3, 6)));
        let narrow = refused(matrix(3, 12), matrix(8, 12), matrix(3, 8));
        assert_eq!(narrow, gpu.arithmetic() == Arithmetic::Mixed);
    });
}

#[test]
fn layers_that_the_kernels_cannot_compute_are_refused() {
    on_device("layers_that_the_kernels_cannot_compute_are_refused", |gpu| {
        let compute = Compute { precision: Precision::F32, gpu: Some(gpu.clone()) };
        let wide = Tensor::zeros([2052]);
        assert!(Norm::new(&wide, &wide, 1e-5, &compute).is_err_and(|e| e.to_string().contains("2052")));
        assert!(zeros(gpu, 5, 16).select(&[5]).is_err());
        let refused = |rows: usize, head: usize| {
            let heads = Heads { count: 1, width: head, causal: false };
            let qkv = zeros(gpu, rows, 3 * head);
            SelfAttention::new(heads, qkv.element()).forward(&qkv, &Sequences::new(vec![3])).is_err()
        };
        assert!(refused(4, 16) && refused(3, 144));
        assert_eq!(refused(3, 12), gpu.arithmetic() == Arithmetic::Mixed);
        let embedding = Embedding::new(&Tensor::zeros([11, 36]), &Tensor::zeros([5, 36]), &compute).unwrap();
        assert!(embedding.forward(&[&[11]]).is_err() && embedding.forward(&[&[0; 6]]).is_err());
        assert!(Embedding::new(&Tensor::zeros([11, 38]), &Tensor::zeros([5, 38]), &compute).is_err());
    });
}

#[test]
fn the_copy_of_rows_in_bf16_holds_until_they_are_written_to() {
    support::on_device("encoder_layers::the_copy_of_rows_in_bf16_holds_until_they_are_written_to", || {
        let gpu = &Gpu::open(0, Arithmetic::Mixed).unwrap();
        let compute = Compute { precision: Precision::Bf16, gpu: Some(gpu.clone()) };
        let values: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Tensor::upload(gpu, "test", &values, 16, Element::F32).unwrap();
        let layer = Linear::new(&vec![0.25; 16 * 16], 16, None, &compute).unwrap();
        let norm = Norm::new(&Tensor::filled([16], 1.0, None).unwrap(), &Tensor::zeros([16]), 1e-5, &compute).unwrap();
        let mut rows = norm.wide().forward(&x).unwrap();
        layer.forward_onto(&x, &mut rows).unwrap();
        let anew = Tensor::upload(gpu, "test", &rows.read().unwrap(), 16, Element::F32).unwrap();
        let [got, want] = [&rows, &anew].map(|rows| layer.forward(rows).unwrap().into_host().unwrap());
        assert_eq!(got[..], want[..]);
    });
}
