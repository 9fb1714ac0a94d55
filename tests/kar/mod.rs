//! KAR through the binary, by a random Llama and by a server; and the endpoint by itself.

mod endpoint;
mod files;
mod fuse;
mod parts;
mod rerank;
pub mod server;
