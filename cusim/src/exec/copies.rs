//! Asynchronous copies from global to shared memory, `cp.async`.

use crate::machine::access::Copy;
use crate::machine::{LANES, Mask};

/// When the bytes of an asynchronous copy arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Landing {
    /// At once.
    #[default]
    Eager,
    /// When the thread waits for them; never, if it does not.
    Late,
}

/// Copies under way of a warp.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Copy>,
    committed: [u32; LANES],
}

impl Copies {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.committed = [0; LANES];
    }

    /// Notes a copy.
    pub fn start(&mut self, copy: Copy) {
        self.pending.push(copy);
    }

    /// Closes the lanes' current groups.
    pub fn commit(&mut self, lanes: Mask) {
        let mut split = vec![];
        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
            self.committed[lane] += 1;
        }
        for copy in self.pending.iter_mut().filter(|copy| copy.group == 0 && copy.lanes & lanes != 0) {
            let rest = copy.lanes & !lanes;
            if rest != 0 {
                split.push(Copy { lanes: rest, ..copy.clone() });
                copy.lanes &= lanes;
            }
            copy.group = self.committed[copy.lanes.trailing_zeros() as usize];
        }
        self.pending.extend(split);
    }

    /// Takes the copies that lanes wait for: all groups but the latest `allowed`; with `None`, all copies.
    pub fn wait(&mut self, lanes: Mask, allowed: Option<u32>) -> Vec<Copy> {
        let mut done = vec![];
        let committed = &self.committed;
        self.pending.retain_mut(|copy| {
            let mut landing = 0;
            for lane in (0..LANES).filter(|lane| (copy.lanes & lanes) >> lane & 1 != 0) {
                let finished = match allowed {
                    None => true,
                    Some(allowed) => copy.group != 0 && copy.group + allowed <= committed[lane],
                };
                landing |= Mask::from(finished) << lane;
            }
            if landing != 0 {
                done.push(Copy { lanes: landing, ..copy.clone() });
                copy.lanes &= !landing;
            }
            copy.lanes != 0
        });
        done
    }

    /// Drops what ended lanes left under way.
    pub fn abandon(&mut self, lanes: Mask) {
        for copy in &mut self.pending {
            copy.lanes &= !lanes;
        }
        self.pending.retain(|copy| copy.lanes != 0);
    }
}

impl Copy {
    /// Moves the bytes.
    ///
    /// # Safety
    /// Sources must still be valid, and `shared` the memory that the targets were checked against.
    pub unsafe fn land(&self, shared: *mut u8) {
        for lane in (0..LANES).filter(|lane| self.lanes >> lane & 1 != 0) {
            let read = self.read[lane].min(self.bytes) as usize;
            // SAFETY: checked when the copy was started.
            unsafe {
                let target = shared.add(self.target[lane] as usize);
                std::ptr::copy_nonoverlapping(self.source[lane] as *const u8, target, read);
                target.add(read).write_bytes(0, self.bytes as usize - read);
            }
        }
    }
}
