//! What an operation costs, in arithmetic and in memory traffic.

use derive_more::{Add, AddAssign, Mul, Sub, Sum};

/// Floating-point operations (a multiply-add counts two) and bytes that must move at least once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Add, AddAssign, Mul, Sub, Sum)]
pub struct Cost {
    /// FLOPs of forward as executed.
    pub forward: u64,
    /// FLOPs of backward as executed.
    pub backward: u64,
    /// What forward's kernels spend on a device of mixed arithmetic; nothing for operations that do not train.
    pub kernels_forward: KernelWork,
    /// The same of backward.
    pub kernels_backward: KernelWork,
    /// FLOPs of forward as a textbook implementation spends them: sequences padded, keys and values formed,
    /// every candidate of every mention computed anew.
    pub textbook_forward: u64,
    /// FLOPs of the textbook's backward.
    pub textbook_backward: u64,
    /// Bytes forward reads and writes at least: every operand once.
    pub forward_bytes: u64,
    /// Bytes backward reads and writes at least.
    pub backward_bytes: u64,
}

/// FLOPs that kernels spend on a device of mixed arithmetic, as cusim counts them (docs/flops.md says how).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Add, AddAssign, Mul, Sub, Sum)]
pub struct KernelWork {
    /// Of products on tensor cores, without padding: part of what is executed.
    pub products: u64,
    /// Of products on tensor cores, where d is filled up to whole columns of a tile.
    pub columns: u64,
    /// Of products on tensor cores, all padding included: what tensor cores count.
    pub tiles: u64,
    /// Of everything else, the lanes that hold no value of a row included: what the other units count.
    pub vector: u64,
}

/// FLOPs of a step by where they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Add)]
pub struct Account {
    /// On values that there are: ragged sequences, d columns.
    pub executed: u64,
    /// Where d is filled up: to columns of tiles and to lanes of a warp, or where all lanes compute the same.
    pub padding_d: u64,
    /// Where rows and inner sizes are filled up to tiles of tensor cores.
    pub padding_tiles: u64,
    /// Of all these, on tensor cores.
    pub tensor: u64,
}

impl Account {
    /// What a device counts.
    pub fn all(&self) -> u64 {
        self.executed + self.padding_d + self.padding_tiles
    }
}

impl KernelWork {
    /// Of kernels without padding.
    pub fn vector(flops: u64) -> KernelWork {
        KernelWork { vector: flops, ..KernelWork::default() }
    }

    fn account(&self, executed: u64) -> Account {
        let KernelWork { products, columns, tiles, vector } = *self;
        // Of an operation for inference, whose kernels are not counted here, all is executed.
        let lanes = vector.saturating_sub(executed.saturating_sub(products));
        let padding_tiles = tiles.saturating_sub(products + columns);
        Account { executed, padding_d: columns + lanes, padding_tiles, tensor: tiles }
    }
}

impl Cost {
    /// Of an operation for inference, which computes what a textbook would.
    pub fn inference(flops: usize, bytes: usize) -> Cost {
        let (forward, forward_bytes) = (flops as u64, bytes as u64);
        Cost { forward, textbook_forward: forward, forward_bytes, ..Cost::default() }
    }

    /// The same of an operation none of whose inputs needs a gradient: backward does not run.
    pub fn forward_alone(self) -> Cost {
        Cost { backward: 0, kernels_backward: KernelWork::default(), textbook_backward: 0, backward_bytes: 0, ..self }
    }

    /// FLOPs of forward and backward as executed.
    pub fn flops(&self) -> u64 {
        self.forward + self.backward
    }

    /// FLOPs of forward's and backward's products on tensor cores, with padding.
    pub fn tiles(&self) -> u64 {
        self.kernels_forward.tiles + self.kernels_backward.tiles
    }

    /// Forward and backward by where their FLOPs go on a device.
    pub fn account(&self) -> Account {
        self.kernels_forward.account(self.forward) + self.kernels_backward.account(self.backward)
    }

    /// FLOPs of a textbook's forward and backward.
    pub fn textbook(&self) -> u64 {
        self.textbook_forward + self.textbook_backward
    }
}
