//! Functions that an older driver does not have are truly absent: `dlsym` finds nothing.
//!
//! One library stands for every release, so it exports every function. The dynamic linker looks names up in a table that is
//! mapped with the library; when the library is loaded, before anyone can ask it for a function, the entries of functions
//! that are newer than the release lose their addresses there, in this process's copy of the page. Only a program that was
//! linked with the library has its addresses already; there such a function fails when it is called.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::release::{Release, loaded, since};

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();

extern "C" fn at_load() {
    if loaded() != Release::standard() {
        let _ = outcome();
    }
}

/// Whether all functions that the release lacks are absent; takes them away the first time.
pub fn outcome() -> Result<(), String> {
    let hide = || match own_object() {
        Some(object) => object.hide(|name| !loaded().has(since(name))),
        None => Err("cusim does not find itself among the loaded libraries".to_string()),
    };
    OUTCOME.get_or_init(hide).clone()
}

/// The library in memory.
#[derive(Clone, Copy)]
struct Object {
    base: u64,
    headers: &'static [libc::Elf64_Phdr],
}

/// The object that this code is part of.
fn own_object() -> Option<Object> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
        // SAFETY: the dynamic linker gives a valid description, whose headers stay as long as this library does;
        // `found` is what `own_object` passed.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Option<Object>>()) };
        // SAFETY: as above.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let object = Object { base: info.dlpi_addr, headers };
        let own = object.segment(at_load as *const () as u64).is_some();
        if own {
            *found = Some(object);
        }
        c_int::from(own)
    }
    let mut found = None;
    // SAFETY: the callback has the type that is asked for and gets a pointer to `found`.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

/// An entry of the dynamic section.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

/// Tags of the dynamic section.
mod tag {
    pub const END: i64 = 0;
    pub const STRINGS: i64 = 5;
    pub const SYMBOLS: i64 = 6;
    pub const GNU_HASH: i64 = 0x6fff_fef5;
}

impl Object {
    /// The loaded segment that holds an address.
    fn segment(&self, address: u64) -> Option<&libc::Elf64_Phdr> {
        self.headers.iter().find(|header| {
            header.p_type == libc::PT_LOAD
                && address.wrapping_sub(self.base.wrapping_add(header.p_vaddr)) < header.p_memsz
        })
    }

    /// Addresses of the symbols, of their names and of the hash table.
    fn tables(&self) -> Option<(u64, u64, u64)> {
        let header = self.headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let mut entry = self.base.wrapping_add(header.p_vaddr) as *const Dynamic;
        let (mut symbols, mut strings, mut hash) = (None, None, None);
        loop {
            // SAFETY: the section ends with an entry of the tag `END`.
            let Dynamic { tag, value } = unsafe { entry.read() };
            // Some dynamic linkers replace offsets by addresses.
            let address = if value < self.base { self.base.wrapping_add(value) } else { value };
            match tag {
                tag::END => break,
                tag::SYMBOLS => symbols = Some(address),
                tag::STRINGS => strings = Some(address),
                tag::GNU_HASH => hash = Some(address),
                _ => {}
            }
            // SAFETY: this was not the last entry.
            entry = unsafe { entry.add(1) };
        }
        Some((symbols?, strings?, hash?))
    }

    /// Takes the symbols away whose names are among these.
    fn hide(self, is_absent: impl Fn(&str) -> bool) -> Result<(), String> {
        let (symbols, strings, hash) = self.tables().ok_or("the library has no table of symbols with a GNU hash")?;
        let segment = self.segment(symbols).ok_or("the table of symbols is in no segment")?;
        let (first, after) = hashed(hash as *const u32);
        let entry = |index: u32| (symbols as *mut libc::Elf64_Sym).wrapping_add(index as usize);
        let named = |index: &u32| {
            // SAFETY: the table has all entries that the hash table refers to, each with a name that ends with a zero.
            let name = unsafe { CStr::from_ptr((strings as *const c_char).add((*entry(*index)).st_name as usize)) };
            name.to_str().is_ok_and(&is_absent)
        };
        let absent: Vec<u32> = (first..after).filter(named).collect();
        if absent.is_empty() {
            return Ok(());
        }
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        let start = symbols / page * page;
        let bytes = (entry(after) as u64 - start) as usize;
        let flag = |flag: u32, protection: c_int| if segment.p_flags & flag != 0 { protection } else { 0 };
        let protection = flag(4, libc::PROT_READ) | flag(2, libc::PROT_WRITE) | flag(1, libc::PROT_EXEC);
        let protect = |protection: c_int| {
            // SAFETY: these are pages of this library's own segment, and they stay as readable and executable as they were.
            match unsafe { libc::mprotect(start as *mut c_void, bytes, protection) } {
                0 => Ok(()),
                _ => Err(format!("its table of symbols cannot be changed: {}", std::io::Error::last_os_error())),
            }
        };
        protect(protection | libc::PROT_WRITE)?;
        for index in absent {
            // SAFETY: the entry is in the table, which was made writable; an entry without section and address is
            // undefined, which no look-up finds. Nobody else looks names up in a library that is being loaded.
            unsafe {
                (*entry(index)).st_shndx = 0;
                (*entry(index)).st_value = 0;
            }
        }
        protect(protection)
    }
}

/// The first symbol that a GNU hash table holds, and the one after the last.
fn hashed(table: *const u32) -> (u32, u32) {
    // SAFETY: the table begins with four numbers: buckets, first symbol, words of 64 bits of the filter, a shift. Then
    // come filter, buckets and chains, which end with an odd number.
    unsafe {
        let (buckets, first, words) = (*table, *table.add(1), *table.add(2));
        let bucket = table.add(4 + 2 * words as usize);
        let chain = bucket.add(buckets as usize);
        let mut last = (0..buckets).map(|index| *bucket.add(index as usize)).max().unwrap_or(0);
        if last < first {
            return (first, first);
        }
        while *chain.add((last - first) as usize) & 1 == 0 {
            last += 1;
        }
        (first, last + 1)
    }
}
