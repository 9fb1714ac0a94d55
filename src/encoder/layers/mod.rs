//! Layers of the encoders, for inference. A layer holds its weights where it computes, takes rows and gives rows; what
//! an encoder computes is the sequence of its layers, whatever the device and the precision.

mod attention;
mod convolution;
mod dense;
mod embedding;
mod loader;
mod norm;
mod pool;
mod rows;

pub use attention::Attention;
pub use convolution::{Convolution, Filters, Maps};
pub use dense::Dense;
pub use embedding::{ClassToken, Embedding};
pub use loader::Loader;
pub use norm::Norm;
pub use pool::{MaxPool, mean};
pub use rows::{Rows, Sequences};
