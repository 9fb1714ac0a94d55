//! The kernels that build.rs embedded: PTX, which any driver compiles for its device, and machine code for some devices.

use std::fmt;

/// An architecture that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    /// Compute capability, 80 for 8.0.
    pub capability: u32,
    /// Whether it runs on devices of just this capability (`90a`), not on newer ones.
    pub exact: bool,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.capability, if self.exact { "a" } else { "" })
    }
}

impl Arch {
    /// Whether a device of this compute capability runs PTX for the architecture.
    fn runs_on(self, capability: u32) -> bool {
        if self.exact { self.capability == capability } else { self.capability <= capability }
    }
}

/// A file that build.rs compressed.
#[derive(Clone, Copy, Debug)]
pub struct Packed(pub &'static [u8]);

impl Packed {
    /// Its bytes. What is compiled into the program is whole.
    pub fn bytes(self) -> Vec<u8> {
        zstd::decode_all(self.0).unwrap_or_default()
    }

    /// Its text.
    pub fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// Machine code of one file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Cubin {
    /// Compute capability that it was assembled for.
    pub capability: u32,
    /// The ELF image.
    pub image: Packed,
}

impl Cubin {
    /// Whether a device of this compute capability runs it: one of the same major number that is no older.
    fn runs_on(&self, capability: u32) -> bool {
        self.capability / 10 == capability / 10 && self.capability <= capability
    }
}

/// A kernel.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Bytes of the struct that it takes.
    pub argument_bytes: usize,
    /// Whether it waits for the kernels before it (kernels/early.cuh), so that it may be launched before they have ended.
    pub waits: bool,
}

/// One file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Ptx {
    /// Name of the file in `kernels/`, without extension.
    pub file: &'static str,
    /// Architecture that it was compiled for.
    pub arch: Arch,
    /// Hash of its source.
    pub hash: u64,
    /// The PTX.
    pub text: Packed,
    /// The kernels, in their order.
    pub entries: &'static [Entry],
    /// Machine code, in release builds.
    pub cubins: &'static [Cubin],
}

/// All files for all architectures; empty if the program was built without nvcc.
pub const EMBEDDED: &[Ptx] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Release of the nvcc that compiled them, such as "13.0".
pub const NVCC_RELEASE: &str = env!("FISSFUSE_NVCC_RELEASE");

impl Ptx {
    /// Of each file, the PTX for the newest architecture that a device of this compute capability runs.
    pub fn for_capability(capability: u32) -> Vec<&'static Ptx> {
        let mut chosen: Vec<&Ptx> = Vec::new();
        for ptx in EMBEDDED.iter().filter(|ptx| ptx.arch.runs_on(capability)) {
            match chosen.iter_mut().find(|other| other.file == ptx.file) {
                Some(other) if other.arch < ptx.arch => *other = ptx,
                Some(_) => {}
                None => chosen.push(ptx),
            }
        }
        chosen
    }

    /// The machine code that a device of this compute capability runs, if there is any.
    pub fn cubin(&self, capability: u32) -> Option<&Cubin> {
        self.cubins.iter().filter(|cubin| cubin.runs_on(capability)).max_by_key(|cubin| cubin.capability)
    }

    /// The version of its PTX, such as "7.4".
    pub fn version(&self) -> String {
        let text = self.text.text();
        text.lines().find_map(|line| line.strip_prefix(".version ")).unwrap_or("unknown").to_string()
    }

    /// Names of the kernels, in their order.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.entries.iter().map(|entry| entry.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_run_on_devices_that_know_them() {
        let arch = |capability, exact| Arch { capability, exact };
        let runs = [(80, false, 90, true), (90, false, 89, false), (90, true, 90, true), (90, true, 100, false)];
        for (compiled, exact, device, expected) in runs {
            assert_eq!(arch(compiled, exact).runs_on(device), expected, "{} on {device}", arch(compiled, exact));
        }
        let cubin = |capability| Cubin { capability, image: Packed(&[]) };
        assert!(cubin(86).runs_on(89) && !cubin(86).runs_on(80) && !cubin(86).runs_on(90));
        assert_eq!(arch(90, true).to_string(), "90a");
    }

    #[test]
    fn any_driver_since_2021_reads_the_ptx() {
        for ptx in EMBEDDED.iter().filter(|ptx| ptx.arch == Arch { capability: 80, exact: false }) {
            assert_eq!(ptx.version(), "7.4", "{}", ptx.file);
            let text = ptx.text.text();
            assert!(!ptx.entries.is_empty() && ptx.entries().all(|entry| text.contains(entry)));
        }
    }
}
