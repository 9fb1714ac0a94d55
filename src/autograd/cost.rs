//! What an operation costs, in arithmetic and in memory traffic.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

/// Floating-point operations (a multiply-add counts two) and bytes that must move at least once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// FLOPs of forward as executed.
    pub forward: u64,
    /// FLOPs of backward as executed.
    pub backward: u64,
    /// FLOPs of forward's products on a device's tensor cores, the padding of their tiles included, which is not in `forward`;
    /// 0 where there are no products, and for operations that do not train.
    pub tiles_forward: u64,
    /// The same of backward.
    pub tiles_backward: u64,
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

impl Cost {
    /// Of an operation for inference, which computes what a textbook would.
    pub fn inference(flops: usize, bytes: usize) -> Cost {
        let (forward, forward_bytes) = (flops as u64, bytes as u64);
        Cost { forward, textbook_forward: forward, forward_bytes, ..Cost::default() }
    }

    /// FLOPs of forward and backward as executed.
    pub fn flops(&self) -> u64 {
        self.forward + self.backward
    }

    /// FLOPs of forward's and backward's products on tensor cores, with padding.
    pub fn tiles(&self) -> u64 {
        self.tiles_forward + self.tiles_backward
    }

    /// FLOPs of a textbook's forward and backward.
    pub fn textbook(&self) -> u64 {
        self.textbook_forward + self.textbook_backward
    }
}

impl Mul<u64> for Cost {
    type Output = Cost;

    fn mul(self, times: u64) -> Cost {
        Cost {
            forward: self.forward * times,
            backward: self.backward * times,
            tiles_forward: self.tiles_forward * times,
            tiles_backward: self.tiles_backward * times,
            textbook_forward: self.textbook_forward * times,
            textbook_backward: self.textbook_backward * times,
            forward_bytes: self.forward_bytes * times,
            backward_bytes: self.backward_bytes * times,
        }
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
            tiles_forward: self.tiles_forward + other.tiles_forward,
            tiles_backward: self.tiles_backward + other.tiles_backward,
            textbook_forward: self.textbook_forward + other.textbook_forward,
            textbook_backward: self.textbook_backward + other.textbook_backward,
            forward_bytes: self.forward_bytes + other.forward_bytes,
            backward_bytes: self.backward_bytes + other.backward_bytes,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}
