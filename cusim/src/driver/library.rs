//! Libraries: modules that belong to no context. They are loaded into a context when something of them is asked for there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;

use super::code::*;
use super::context::current;
use super::handles::Kind;
use super::kernel::Refused;
use super::{Driver, say};
use crate::ptx;

/// A library.
pub struct Library {
    text: Box<str>,
    /// Its module in each context that it was loaded into.
    modules: HashMap<u64, u64>,
    /// Its kernels by name.
    kernels: BTreeMap<String, u64>,
}

impl Kind for Library {
    const TAG: u64 = 0x5a;
}

/// A kernel of a library.
pub struct Kernel {
    /// The library.
    pub library: u64,
    /// Its name.
    pub name: CString,
}

impl Kind for Kernel {
    const TAG: u64 = 0x5b;
}

impl Driver {
    /// Takes a library in. Its text must be PTX; the rest shows when it is loaded into a context.
    pub fn load_library(&mut self, text: &str) -> Result<u64, Refused> {
        let module = ptx::parse(text).map_err(|error| Refused { code: INVALID_PTX, log: error.to_string() })?;
        let names: Vec<&str> = module.functions.iter().filter(|f| f.is_kernel).map(|f| f.name).collect();
        let library =
            self.libraries.add(Library { text: text.into(), modules: HashMap::new(), kernels: BTreeMap::new() });
        for name in names {
            let c_name = CString::new(name).map_err(|_| INVALID_PTX)?;
            let kernel = self.kernels.add(Kernel { library, name: c_name });
            self.libraries.get_mut(library)?.kernels.insert(name.to_string(), kernel);
        }
        Ok(library)
    }

    /// Ends a library, its modules and kernels.
    pub fn unload_library(&mut self, library: u64) -> Result<(), Code> {
        let Library { modules, kernels, .. } = self.libraries.remove(library)?;
        for kernel in kernels.values() {
            self.kernels.remove(*kernel)?;
        }
        // Contexts that ended took their modules with them.
        let left = modules.values().filter(|module| self.modules.get(**module).is_ok()).copied().collect::<Vec<_>>();
        super::all(left.into_iter().map(|module| self.unload_module(module)))
    }

    /// A library's kernel of this name.
    pub fn library_kernel(&self, library: u64, name: &str) -> Result<u64, Code> {
        let kernels = &self.libraries.get(library)?.kernels;
        kernels.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = kernels.keys().take(20).map(String::as_str).collect();
            say(&format!("cuLibraryGetKernel: no kernel {name}; the library has {}", known.join(", ")));
            NOT_FOUND
        })
    }

    /// All kernels of a library.
    pub fn library_kernels(&self, library: u64) -> Result<Vec<u64>, Code> {
        Ok(self.libraries.get(library)?.kernels.values().copied().collect())
    }

    /// A library's module in the current context.
    pub fn library_module(&mut self, library: u64) -> Result<u64, Code> {
        self.context()?;
        let found = self.libraries.get(library)?;
        let known = found.modules.get(&current()).copied();
        if let Some(module) = known.filter(|module| self.modules.get(*module).is_ok()) {
            return Ok(module);
        }
        let text = found.text.clone();
        let module = self.load_anywhere(&text).map_err(|Refused { code, log }| {
            if !log.is_empty() {
                say(&format!("a library cannot be loaded here: {log}"));
            }
            code
        })?;
        self.libraries.get_mut(library)?.modules.insert(current(), module);
        Ok(module)
    }

    /// What a handle launches in the current context: itself, or the function of a library's kernel.
    pub fn launchable(&mut self, handle: u64) -> Result<u64, Code> {
        let Ok(kernel) = self.kernels.get(handle) else {
            return Ok(handle);
        };
        let (library, name) = (kernel.library, kernel.name.clone());
        let module = self.library_module(library)?;
        self.function(module, &name.to_string_lossy())
    }
}
