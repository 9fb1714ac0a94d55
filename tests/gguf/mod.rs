//! Llamas in GGUF files.

mod broken;
mod calibrating;
mod converting;
mod models;
mod reading;
