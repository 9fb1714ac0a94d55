//! Device models: what they are called and what they can do.

use super::release::Release;

/// A device model.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// How `CUSIM_DEVICE` names it.
    pub key: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: i32,
    /// Bytes of memory.
    pub memory: u64,
    /// Threads per multiprocessor.
    pub threads_per_sm: i32,
    /// Blocks per multiprocessor.
    pub blocks_per_sm: i32,
    /// Shared memory of a multiprocessor.
    pub shared_per_sm: i32,
    /// Shared memory that a block can have if it asks.
    pub shared_optin: i32,
    /// Bytes of second-level cache.
    pub l2_bytes: i32,
    /// Kilohertz.
    pub clock: i32,
    /// Memory's kilohertz.
    pub memory_clock: i32,
    /// Bits of the memory bus.
    pub bus_width: i32,
}

const MODELS: [Model; 4] = [
    Model {
        key: "rtx3090",
        name: "NVIDIA GeForce RTX 3090 (cusim)",
        capability: (8, 6),
        multiprocessors: 82,
        memory: 24 << 30,
        threads_per_sm: 1536,
        blocks_per_sm: 16,
        shared_per_sm: 102_400,
        shared_optin: 101_376,
        l2_bytes: 6 << 20,
        clock: 1_695_000,
        memory_clock: 9_751_000,
        bus_width: 384,
    },
    Model {
        key: "a100",
        name: "NVIDIA A100-SXM4-80GB (cusim)",
        capability: (8, 0),
        multiprocessors: 108,
        memory: 80 << 30,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        shared_per_sm: 167_936,
        shared_optin: 166_912,
        l2_bytes: 40 << 20,
        clock: 1_410_000,
        memory_clock: 1_593_000,
        bus_width: 5120,
    },
    Model {
        key: "h100",
        name: "NVIDIA H100 80GB HBM3 (cusim)",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 80 << 30,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        shared_per_sm: 233_472,
        shared_optin: 232_448,
        l2_bytes: 50 << 20,
        clock: 1_980_000,
        memory_clock: 2_619_000,
        bus_width: 5120,
    },
    Model {
        key: "h200",
        name: "NVIDIA H200 (cusim)",
        capability: (9, 0),
        multiprocessors: 132,
        memory: 141 << 30,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        shared_per_sm: 233_472,
        shared_optin: 232_448,
        l2_bytes: 50 << 20,
        clock: 1_980_000,
        memory_clock: 3_201_000,
        bus_width: 6144,
    },
];

/// Registers of a multiprocessor, and the most a block can have.
pub const REGISTERS: u32 = 65536;
/// Threads that a block can have.
pub const MAX_THREADS: u32 = 1024;
/// Shared memory that a block gets without asking for more.
pub const DEFAULT_SHARED: u32 = 49152;
/// Shared memory that the system takes of each block.
pub const RESERVED_SHARED: u32 = 1024;

impl Model {
    /// The model of this name; the RTX 3090 if none is given.
    pub fn find(key: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.key == key)
    }

    /// All models.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        MODELS.iter()
    }

    /// Whether a driver release knows the device: Hopper came with CUDA 11.8.
    pub fn works_with(&self, release: &Release) -> bool {
        self.capability.0 < 9 || release.has(11080)
    }

    /// The model where none is named.
    pub fn standard() -> &'static Self {
        &MODELS[0]
    }

    /// All names.
    pub fn names() -> String {
        MODELS.map(|model| model.key).join(", ")
    }

    /// Compute capability as one number.
    pub fn target(&self) -> u32 {
        (self.capability.0 * 10 + self.capability.1) as u32
    }

    /// A device attribute by number; `None` if there is no such attribute.
    pub fn attribute(&self, attribute: u32, ordinal: u32) -> Option<i32> {
        let hopper = i32::from(self.capability.0 >= 9);
        let server = i32::from(self.key != "rtx3090");
        Some(match attribute {
            1 => MAX_THREADS as i32,
            2 | 3 => 1024,
            4 => 64,
            5 => i32::MAX,
            6 | 7 => 65535,
            8 => DEFAULT_SHARED as i32,
            9 => 65536,
            10 => 32,
            11 => i32::MAX,
            12 | 82 => REGISTERS as i32,
            13 => self.clock,
            14 => 512,
            15 | 31 | 19 | 35 | 41 => 1,
            16 => self.multiprocessors,
            17 | 18 | 20 => 0,
            32 => server,
            33 => 1 + ordinal as i32,
            34 | 50 => 0,
            36 => self.memory_clock,
            37 => self.bus_width,
            38 => self.l2_bytes,
            39 => self.threads_per_sm,
            40 => 3 - (1 - server),
            75 => self.capability.0,
            76 => self.capability.1,
            78..=80 | 83 => 1,
            81 => self.shared_per_sm,
            84 | 85 => 0,
            86 => i32::from(server == 1),
            87 => {
                if server == 1 {
                    2
                } else {
                    32
                }
            }
            88..=91 | 95 | 96 => 1,
            97 => self.shared_optin,
            99 | 101 | 115 => 1,
            106 => self.blocks_per_sm,
            108 => self.l2_bytes / 2,
            109 => 134_213_632,
            111 => RESERVED_SHARED as i32,
            120 => hopper,
            // Further attributes exist and are features that cusim does not have: textures, surfaces, interprocess
            // and external memory, virtual memory, multicast.
            21..=30 | 42..=74 | 77 | 92..=94 | 98 | 100 | 102..=105 | 107 | 110 | 112..=114 | 116..=119 | 121..=147 => {
                0
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_each_model() {
        for model in &MODELS {
            assert_eq!(model.attribute(16, 0), Some(model.multiprocessors));
            assert_eq!(model.attribute(75, 0), Some(model.capability.0));
            assert_eq!(model.attribute(115, 0), Some(1), "memory pools");
            assert_eq!(model.attribute(0, 0), None);
            assert!(model.shared_optin < model.shared_per_sm);
        }
    }
}
