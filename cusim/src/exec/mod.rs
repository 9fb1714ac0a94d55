//! Running programs: operations over the lanes of a warp, warps of a block, blocks of a grid.

pub mod alu;
pub mod asynchronous;
pub mod atomics;
pub mod block;
pub mod buffer;
pub mod control;
pub mod copies;
pub mod core;
pub mod event;
pub mod fault;
pub mod frame;
pub mod launch;
pub mod memory;
pub mod observe;
pub mod op;
pub mod opcode;
pub mod order;
pub mod program;
pub mod scheduler;
pub mod site;
pub mod sync;
pub mod system;
pub mod tensor;
pub mod warp;
pub mod wmma;
