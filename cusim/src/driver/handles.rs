//! Objects behind opaque handles. A handle that was never given out, or no longer is valid, is an error, not a crash.

use std::collections::HashMap;
use std::marker::PhantomData;

use super::code::{Code, INVALID_HANDLE};

/// A kind of object, with the number that its handles carry.
pub trait Kind {
    /// Upper bits of its handles: no address of memory has them.
    const TAG: u64;
}

/// Objects of one kind by handle.
pub struct Handles<T> {
    objects: HashMap<u64, T>,
    next: u64,
    kind: PhantomData<T>,
}

impl<T: Kind> Default for Handles<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), next: 1, kind: PhantomData }
    }
}

impl<T: Kind> Handles<T> {
    /// Adds an object.
    pub fn add(&mut self, object: T) -> u64 {
        let handle = T::TAG << 56 | self.next << 4;
        self.next += 1;
        self.objects.insert(handle, object);
        handle
    }

    /// The object behind a handle.
    pub fn get(&self, handle: u64) -> Result<&T, Code> {
        self.objects.get(&handle).ok_or(INVALID_HANDLE)
    }

    /// The object behind a handle.
    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T, Code> {
        self.objects.get_mut(&handle).ok_or(INVALID_HANDLE)
    }

    /// Removes an object.
    pub fn remove(&mut self, handle: u64) -> Result<T, Code> {
        self.objects.remove(&handle).ok_or(INVALID_HANDLE)
    }

    /// All handles, in the order in which they were made.
    pub fn handles(&self) -> Vec<u64> {
        let mut handles: Vec<u64> = self.objects.keys().copied().collect();
        handles.sort_unstable();
        handles
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&u64, &T)> {
        self.objects.iter()
    }

    /// All objects.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut T)> {
        self.objects.iter_mut()
    }
}
