//! In which order blocks and warps run.

/// An order of things that a correct program must not depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First to last.
    #[default]
    Forward,
    /// Last to first.
    Reverse,
    /// Shuffled by this seed.
    Seed(u64),
}

/// A small generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the sequence.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }
}

impl Order {
    /// The numbers below `count` in this order; `salt` makes each caller's shuffle its own.
    pub fn permutation(self, count: u64, salt: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..count).collect();
        match self {
            Self::Forward => {}
            Self::Reverse => order.reverse(),
            Self::Seed(seed) => {
                let mut random = Random::new(seed ^ salt.wrapping_mul(0xd134_2543_de82_ef95));
                for last in (1..order.len()).rev() {
                    order.swap(last, random.below(last as u64 + 1) as usize);
                }
            }
        }
        order
    }

    /// The `index`-th of `count` things in this order, without listing them.
    pub fn nth(self, index: u64, count: u64) -> u64 {
        match self {
            Self::Forward => index,
            Self::Reverse => count - 1 - index,
            // A bijection on the next power of four, repeated until it lands inside.
            Self::Seed(seed) => {
                let bits = (64 - (count.max(2) - 1).leading_zeros()).next_multiple_of(2);
                let half = bits / 2;
                let mask = (1 << half) - 1;
                let mut value = index;
                loop {
                    for round in 0..4u64 {
                        let (high, low) = (value >> half, value & mask);
                        let mixed = Random::new(seed ^ low << 8 ^ round).draw() & mask;
                        value = low << half | (high ^ mixed);
                    }
                    if value < count {
                        return value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_visits_everything_once() {
        for order in [Order::Forward, Order::Reverse, Order::Seed(1), Order::Seed(99)] {
            for count in [1, 2, 3, 31, 64, 1000] {
                let mut seen: Vec<u64> = (0..count).map(|index| order.nth(index, count)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{order:?}");
                let mut listed = order.permutation(count, 7);
                listed.sort_unstable();
                assert_eq!(listed, seen);
            }
        }
    }
}
