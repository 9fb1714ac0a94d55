//! Numbers that nobody changes any more, wherever they lie.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::device::MappedFile;
use crate::device::cpu::large_array;
use crate::error::{Error, Result};

/// An immutable slice that is owned or lies in a mapped file. Cloning shares it.
#[derive(Clone, Debug)]
pub struct SharedSlice<T>(Owner<T>);

#[derive(Clone, Debug)]
enum Owner<T> {
    Memory(Arc<Vec<T>>),
    File(Arc<MappedFile>, Range<usize>),
    /// Large pages, and how many of their bytes are the slice.
    Pages(Arc<memmap2::Mmap>, usize),
}

impl<T: bytemuck::Pod> SharedSlice<T> {
    /// The values in `bytes` of a mapped file. `None` if they are not aligned or not whole.
    pub fn mapped(file: Arc<MappedFile>, bytes: Range<usize>) -> Option<SharedSlice<T>> {
        bytemuck::try_cast_slice::<u8, T>(file.get(bytes.clone())?).ok()?;
        Some(SharedSlice(Owner::File(file, bytes)))
    }

    /// `len` values that `fill` writes over zeros, in large pages where the system gives them; beside them what it returns.
    pub fn in_large_pages<R>(len: usize, fill: impl FnOnce(&mut [T]) -> R) -> Result<(SharedSlice<T>, R)> {
        let bytes = len * size_of::<T>();
        let mut array = large_array(bytes)?;
        let result = fill(bytemuck::cast_slice_mut(&mut array[..bytes]));
        let array = array.make_read_only().map_err(|e| Error::device("cpu", "keeping an array", e.to_string()))?;
        Ok((SharedSlice(Owner::Pages(Arc::new(array), bytes)), result))
    }
}

impl<T> From<Vec<T>> for SharedSlice<T> {
    fn from(values: Vec<T>) -> SharedSlice<T> {
        SharedSlice(Owner::Memory(Arc::new(values)))
    }
}

impl<T: bytemuck::Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Owner::Memory(values) => values,
            Owner::File(file, bytes) => bytemuck::cast_slice(&file[bytes.clone()]),
            Owner::Pages(array, bytes) => bytemuck::cast_slice(&array[..*bytes]),
        }
    }
}
