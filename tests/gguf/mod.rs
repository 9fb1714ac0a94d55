//! Llamas in GGUF files.

mod broken;
mod converting;
mod models;
mod reading;
