//! The decoder's kernels on devices against their definitions, and what they refuse.

use fissfuse::device::Gpu;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::ops::sample::gather;
use fissfuse::tensor::{Element, Tensor};

use crate::support;

/// Runs the body of a test of this file on a device.
fn on_device(test: &str, body: impl Fn(&Gpu)) {
    support::on_device(&format!("llama_kernels::{test}"), || body(&Gpu::open(0, Arithmetic::Mixed).unwrap()));
}

#[test]
fn products_are_those_of_the_definition() {
    on_device("products_are_those_of_the_definition", |gpu| {
        support::prove(gpu, &["decoder products", "decoder gates"], false);
    });
}

#[test]
fn norms_embeddings_and_chosen_tokens_are_those_of_the_definition() {
    on_device("norms_embeddings_and_chosen_tokens_are_those_of_the_definition", |gpu| {
        support::prove(gpu, &["decoder norms", "decoder embeddings", "decoder sampling", "decoder logits"], false);
    });
}

#[test]
fn attention_is_that_of_the_definition() {
    on_device("attention_is_that_of_the_definition", |gpu| {
        support::prove(gpu, &["decoder attention"], false);
    });
}

#[test]
fn logits_of_tokens_beyond_the_vocabulary_are_refused() {
    on_device("logits_of_tokens_beyond_the_vocabulary_are_refused", |gpu| {
        let rows = Tensor::upload(gpu, "activations", &[0.0; 3 * 301], 301, Element::F32).unwrap();
        assert!(gather(&rows, &[301]).is_err());
    });
}
