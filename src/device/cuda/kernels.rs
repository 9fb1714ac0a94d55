//! The PTX that build.rs embedded.

/// PTX of one file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Ptx {
    /// Name of the file in `kernels/`, without extension.
    pub file: &'static str,
    /// Architecture it was compiled for, 80 for compute_80.
    pub arch: u32,
    /// Hash of its source.
    pub hash: u64,
    /// The PTX.
    pub text: &'static str,
}

/// All files for all architectures; empty if the program was built without nvcc.
pub const EMBEDDED: &[Ptx] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Release of the nvcc that compiled them, such as "13.0".
pub const NVCC_RELEASE: &str = env!("FISSFUSE_NVCC_RELEASE");

impl Ptx {
    /// Of each file, the PTX for the newest architecture that a device of this compute capability runs.
    pub fn for_capability(capability: u32) -> Vec<&'static Ptx> {
        let mut chosen: Vec<&Ptx> = Vec::new();
        for ptx in EMBEDDED.iter().filter(|ptx| ptx.arch <= capability) {
            match chosen.iter_mut().find(|other| other.file == ptx.file) {
                Some(other) if other.arch < ptx.arch => *other = ptx,
                Some(_) => {}
                None => chosen.push(ptx),
            }
        }
        chosen
    }

    /// Names of the kernels, in their order.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> {
        let after = self.text.split(".entry ").skip(1);
        after.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest))
    }
}
