//! All integration tests, in one binary: one link instead of many.

mod bad_input;
mod bench;
mod bundle;
mod candidates;
mod cuda;
mod cuda_graph;
mod documents;
mod driver;
mod encoder;
mod encoder_layers;
mod encoding;
mod fuzz;
mod gradients;
mod images;
mod import;
mod kar;
mod llama;
mod llama_cuda;
mod llama_kernels;
mod modalities;
mod replay;
mod streams;
mod support;
mod torture;
mod training;
mod workflow;
