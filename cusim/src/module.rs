//! A loaded PTX module: its text, its variables in device memory, its kernels on demand.

use crate::exec::program::Program;
use crate::lower::{self, Globals, LowerError, Options};
use crate::machine::names::readable;
use crate::mem::{AllocationKind, Memory};
use crate::ptx::{self, InitItem, Module, PtxError, Space, Variable};

/// Why a module cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// It is not PTX.
    NotPtx(&'static str),
    /// It cannot be read.
    Syntax(PtxError),
    /// Its variables cannot be made.
    Variables(String),
    /// There is no memory for its variables.
    OutOfMemory,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPtx(what) => write!(f, "{what}: cusim runs PTX only; compile with nvcc -ptx and load that"),
            Self::Syntax(error) => error.fmt(f),
            Self::Variables(message) => f.write_str(message),
            Self::OutOfMemory => f.write_str("no device memory left for the module's variables"),
        }
    }
}

/// A module in device memory.
pub struct Image {
    // The tree refers to the text, which is never moved or changed, and is dropped before it.
    tree: Module<'static>,
    _text: Box<str>,
    globals: Globals,
    sizes: std::collections::HashMap<String, u64>,
}

/// What a binary image is, if it is one.
pub fn binary_kind(image: &[u8]) -> Option<&'static str> {
    match image {
        [0x7f, b'E', b'L', b'F', ..] => Some("the image is a cubin (machine code for a GPU)"),
        _ => None,
    }
}

impl Image {
    /// Reads PTX and makes its variables.
    pub fn load(text: &str, memory: &mut Memory, device: u32) -> Result<Self, LoadError> {
        if let Some(kind) = binary_kind(text.as_bytes()) {
            return Err(LoadError::NotPtx(kind));
        }
        let text: Box<str> = text.into();
        // SAFETY: the text lives on the heap as long as the image does; `tree` is private and handed out only with the
        // image's own lifetime.
        let forever: &'static str = unsafe { &*std::ptr::from_ref::<str>(&text) };
        let tree = ptx::parse(forever).map_err(LoadError::Syntax)?;
        let mut image = Self { tree, _text: text, globals: Globals::new(), sizes: Default::default() };
        let made = image.make_variables(memory, device);
        if made.is_err() {
            image.unload(memory);
        }
        made.map(|()| image)
    }

    fn make_variables(&mut self, memory: &mut Memory, device: u32) -> Result<(), LoadError> {
        let in_memory =
            |variable: &&Variable| matches!(variable.space, Space::Global | Space::Const) && !variable.is_texture();
        let variables: Vec<&Variable> = self.tree.variables.iter().filter(in_memory).collect();
        for variable in &variables {
            if variable.is_extern {
                let message = format!("variable {} is extern: cusim links nothing", variable.name);
                return Err(LoadError::Variables(message));
            }
            let origin = format!(" {}", readable(variable.name));
            let start = memory
                .allocate(variable.size(), AllocationKind::Module, device, origin)
                .ok_or(LoadError::OutOfMemory)?;
            if self.globals.insert(variable.name.to_string(), start).is_some() {
                return Err(LoadError::Variables(format!("variable {} is defined twice", variable.name)));
            }
            self.sizes.insert(variable.name.to_string(), variable.size());
        }
        for variable in variables {
            let bytes = self.initial_bytes(variable).map_err(LoadError::Variables)?;
            memory.write(self.globals[variable.name], &bytes);
            memory.mark_written(self.globals[variable.name], bytes.len() as u64);
        }
        Ok(())
    }

    /// What a variable holds at first.
    fn initial_bytes(&self, variable: &Variable) -> Result<Vec<u8>, String> {
        let size = variable.ty.bytes() as usize;
        let mut bytes = vec![0; variable.size() as usize];
        for (index, item) in variable.init.iter().enumerate() {
            let value = match item {
                InitItem::Value(value) => *value,
                InitItem::Address { name, offset, byte_shift, .. } => {
                    let address = self
                        .globals
                        .get(*name)
                        .copied()
                        .or_else(|| lower::function_address(&self.tree, name))
                        .ok_or_else(|| format!("variable {} refers to unknown {name}", variable.name))?;
                    address.wrapping_add(*offset as u64) >> byte_shift.unwrap_or(0)
                }
            };
            bytes[index * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        Ok(bytes)
    }

    /// Frees the variables.
    pub fn unload(&mut self, memory: &mut Memory) {
        for (_, start) in self.globals.drain() {
            // Each was allocated by `load` and is freed here once.
            let _ = memory.free(start);
        }
    }

    /// Lowers a kernel.
    pub fn kernel(&self, name: &str, options: Options) -> Result<Program, LowerError> {
        lower::lower(&self.tree, name, &self.globals, options)
    }

    /// Whether there is a kernel of this name.
    pub fn has_kernel(&self, name: &str) -> bool {
        self.tree.functions.iter().any(|function| function.is_kernel && function.name == name)
    }

    /// Names of the kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.tree.functions.iter().filter(|function| function.is_kernel).map(|function| function.name)
    }

    /// Address and size of a variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        Some((*self.globals.get(name)?, *self.sizes.get(name)?))
    }

    /// The number of the target.
    pub fn target(&self) -> u32 {
        lower::target_number(self.tree.target)
    }
}
