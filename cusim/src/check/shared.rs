//! Who accessed a block's shared memory last.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_and_si128, _mm_andnot_si128, _mm_blendv_epi8, _mm_cmpeq_epi32, _mm_loadu_si128,
    _mm_max_epu32, _mm_or_si128, _mm_set1_epi32, _mm_setzero_si128, _mm_storeu_si128, _mm_test_all_ones, _mm_xor_si128,
};

use super::race::{Cell, Cells, Conflict, Other, Touch};
use super::stamp::{Clock, ID, SAME_WARP, Stamp, Who};

/// Stands for the writer of a word that needs a closer look: an asynchronous copy is on its way there, or parts of it
/// were accessed. No access has this stamp: time ends before.
const MARK: u32 = u32::MAX;

/// A block's shared memory. Stamps lack launch and block.
#[derive(Default)]
pub struct SharedCells {
    writes: Vec<u32>,
    reads: Vec<u32>,
    write_origins: Vec<u32>,
    read_origins: Vec<u32>,
    /// Others that the stamps stand for.
    write_others: Vec<Other>,
    read_others: Vec<Other>,
    /// The writers of marked words.
    behind: Vec<u32>,
    /// Asynchronous copies on their way to each word.
    flying: Vec<u16>,
    /// Which instruction of which thread started the last of them.
    flying_origins: Vec<(u32, u32)>,
    /// Whether parts of a word were accessed, in which case its bytes' cells count.
    split: Vec<bool>,
    bytes: Vec<Cell>,
    /// Whether any word was marked.
    marked: bool,
}

/// What the stamps of four words are compared with.
struct Four {
    ids: __m128i,
    phase: __m128i,
    warp: __m128i,
}

impl Four {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(clock: &Clock, threads: [u32; 4]) -> Self {
        let bound = |stamp: Stamp| _mm_set1_epi32(stamp.0 as i32);
        Self {
            // SAFETY: the array has 16 bytes.
            ids: unsafe { _mm_loadu_si128(threads.as_ptr().cast()) },
            phase: bound(clock.phase_bound()),
            warp: bound(clock.warp_bound(threads[0] / 32)),
        }
    }

    /// Which words' earlier access is by a thread of the same warp, and by no other.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn same_warp(&self, before: __m128i) -> __m128i {
        let other = _mm_and_si128(_mm_xor_si128(before, self.ids), _mm_set1_epi32(SAME_WARP as i32));
        _mm_cmpeq_epi32(other, _mm_setzero_si128())
    }

    /// In which words an earlier access happened before what these threads do now, as far as that is quick to tell.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn ordered(&self, before: __m128i) -> __m128i {
        let not_earlier = |bound: __m128i| _mm_cmpeq_epi32(_mm_max_epu32(before, bound), before);
        let same_thread = _mm_cmpeq_epi32(_mm_and_si128(before, _mm_set1_epi32(ID as i32)), self.ids);
        let in_warp = _mm_andnot_si128(not_earlier(self.warp), self.same_warp(before));
        let late = _mm_andnot_si128(_mm_or_si128(same_thread, in_warp), not_earlier(self.phase));
        _mm_xor_si128(late, _mm_set1_epi32(-1))
    }
}

impl SharedCells {
    /// Begins a block with this many bytes.
    pub fn start(&mut self, bytes: usize) {
        let words = bytes.div_ceil(4);
        for stamps in [&mut self.writes, &mut self.reads] {
            stamps.clear();
            stamps.resize(words, 0);
        }
        if self.split.len() < words {
            for values in [&mut self.write_origins, &mut self.read_origins, &mut self.behind] {
                values.resize(words, 0);
            }
            for others in [&mut self.write_others, &mut self.read_others] {
                others.resize(words, Other::default());
            }
            self.flying_origins.resize(words, (0, 0));
            self.flying.resize(words, 0);
            self.split.resize(words, false);
        }
        if self.marked {
            self.flying.fill(0);
            self.split.fill(false);
            self.marked = false;
        }
    }

    fn stamp(clock: &Clock, low: u32) -> Stamp {
        if low == 0 { Stamp::default() } else { Stamp(clock.key << 32 | u64::from(low)) }
    }

    fn cell(&self, word: usize, clock: &Clock) -> Cell {
        let write = if self.writes[word] == MARK { self.behind[word] } else { self.writes[word] };
        Cell {
            write: Self::stamp(clock, write),
            read: Self::stamp(clock, self.reads[word]),
            write_origin: self.write_origins[word],
            read_origin: self.read_origins[word],
            write_other: self.write_others[word],
            read_other: self.read_others[word],
        }
    }

    fn mark(&mut self, word: usize) {
        if self.writes[word] != MARK {
            self.behind[word] = self.writes[word];
            self.writes[word] = MARK;
            self.marked = true;
        }
    }

    /// Whether some word needs a closer look.
    pub fn has_marks(&self) -> bool {
        self.marked
    }

    /// The instruction and the thread that started an asynchronous copy which is on its way to these bytes.
    pub fn copy_under_way(&self, address: u64, bytes: u32) -> Option<(u32, u32)> {
        let words = (address / 4) as usize..(address + u64::from(bytes)).div_ceil(4) as usize;
        words.rev().find(|word| self.flying[*word] > 0).map(|word| self.flying_origins[word])
    }

    /// An asynchronous copy to a range of words was started, or landed.
    pub fn copy_touches(
        &mut self,
        clock: &Clock,
        thread: u32,
        origin: u32,
        address: u64,
        bytes: u32,
        lands: bool,
    ) -> Option<(u64, Conflict)> {
        let touch = Touch { write: true, strong: false, origin };
        let first = (address / 4) as usize;
        // SAFETY: checks run only where the processor has AVX2.
        if bytes == 16 && unsafe { self.copy_four(clock, thread, origin, first, lands) } {
            return None;
        }
        let mut found = None;
        for word in first..first + bytes as usize / 4 {
            if lands {
                self.flying[word] = self.flying[word].saturating_sub(1);
                if self.flying[word] == 0 && !self.split[word] && self.writes[word] == MARK {
                    self.writes[word] = self.behind[word];
                }
            }
            found = found.or(self.touch_word(4 * word as u64, clock, thread, None, touch));
            if !lands {
                self.mark(word);
                self.flying[word] = self.flying[word].saturating_add(1);
                self.flying_origins[word] = (origin, thread);
            }
        }
        found
    }

    /// The same for four words at once, if none of them needs a closer look; else nothing changes.
    #[target_feature(enable = "avx2")]
    fn copy_four(&mut self, clock: &Clock, thread: u32, origin: u32, first: usize, lands: bool) -> bool {
        let words = first..first + 4;
        let (Some(writes), Some(behind), Some(reads), Some(flying), Some(split)) = (
            self.writes.get_mut(words.clone()),
            self.behind.get_mut(words.clone()),
            self.reads.get(words.clone()),
            self.flying.get_mut(words.clone()),
            self.split.get(words.clone()),
        ) else {
            return false;
        };
        let four = Four::new(clock, [thread; 4]);
        let now = Stamp::new(clock.key, clock.time, thread, false).0 as u32;
        if lands && (*flying != [1; 4] || *split != [false; 4]) {
            return false;
        }
        let before = if lands { &*behind } else { &*writes };
        // SAFETY: these slices have four words each.
        let both = unsafe {
            let (write, read) = (_mm_loadu_si128(before.as_ptr().cast()), _mm_loadu_si128(reads.as_ptr().cast()));
            _mm_and_si128(four.ordered(write), four.ordered(read))
        };
        if _mm_test_all_ones(both) == 0 {
            return false;
        }
        self.write_origins[words.clone()].fill(origin);
        if lands {
            writes.fill(now);
            flying.fill(0);
        } else {
            writes.fill(MARK);
            behind.fill(now);
            flying.fill(1);
            self.flying_origins[words].fill((origin, thread));
            self.marked = true;
        }
        true
    }
}

impl Cells for SharedCells {
    fn touch_word(
        &mut self,
        at: u64,
        clock: &Clock,
        thread: u32,
        also: Option<u32>,
        touch: Touch,
    ) -> Option<(u64, Conflict)> {
        let word = at as usize / 4;
        if self.split[word] {
            let mut found = None;
            for byte in at..at + 4 {
                let conflict = self.bytes[byte as usize].touch(clock, thread, also, touch);
                found = found.or(conflict.map(|conflict| (byte, conflict)));
            }
            return found;
        }
        let mut cell = self.cell(word, clock);
        let conflict = cell.touch(clock, thread, also, touch);
        let write = if self.writes[word] == MARK { &mut self.behind[word] } else { &mut self.writes[word] };
        *write = cell.write.0 as u32;
        self.reads[word] = cell.read.0 as u32;
        self.write_origins[word] = cell.write_origin;
        self.read_origins[word] = cell.read_origin;
        self.write_others[word] = cell.write_other;
        self.read_others[word] = cell.read_other;
        conflict.map(|conflict| (at, conflict))
    }

    fn byte(&mut self, address: u64, clock: &Clock) -> &mut Cell {
        let word = address as usize / 4;
        if !self.split[word] {
            let whole = self.cell(word, clock);
            self.mark(word);
            self.split[word] = true;
            self.bytes.resize(4 * self.split.len(), Cell::default());
            self.bytes[4 * word..4 * word + 4].fill(whole);
        }
        &mut self.bytes[address as usize]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn touch_four(
        &mut self,
        at: u64,
        clock: &Clock,
        threads: [u32; 4],
        also: Option<u32>,
        touch: Touch,
    ) -> bool {
        let words = at as usize / 4..at as usize / 4 + 4;
        let (Some(writes), Some(reads), Some(others)) = (
            self.writes.get_mut(words.clone()),
            self.reads.get_mut(words.clone()),
            self.read_others.get_mut(words.clone()),
        ) else {
            return false;
        };
        let who = if also.is_some() { Who::Warp } else { Who::Thread };
        let four = Four::new(clock, threads);
        let now = Stamp::new(clock.key, clock.time, 0, false).0 as u32;
        let alone = _mm_or_si128(four.ids, _mm_set1_epi32(now as i32));
        let by = |who: Who| _mm_or_si128(alone, _mm_set1_epi32((who as i32) << 10));
        // SAFETY: these slices have four words each.
        unsafe {
            let write = _mm_loadu_si128(writes.as_ptr().cast());
            let read = _mm_loadu_si128(reads.as_ptr().cast());
            let (written, seen) = (four.ordered(write), four.ordered(read));
            if touch.write {
                if _mm_test_all_ones(_mm_and_si128(written, seen)) == 0 {
                    return false;
                }
                _mm_storeu_si128(writes.as_mut_ptr().cast(), by(who));
                self.write_origins[words].fill(touch.origin);
            } else {
                if _mm_test_all_ones(written) == 0 {
                    return false;
                }
                let merged = _mm_blendv_epi8(by(Who::Block), by(Who::Warp), four.same_warp(read));
                let merged = _mm_blendv_epi8(merged, by(who), seen);
                _mm_storeu_si128(reads.as_mut_ptr().cast(), merged);
                if also.is_some() || _mm_test_all_ones(seen) == 0 {
                    // Where readers are several: the thread beside these, or who read before.
                    let block = _mm_set1_epi32(((clock.key & 0xf_ffff) << 10) as i32);
                    let mine = _mm_or_si128(block, four.ids);
                    let before = _mm_or_si128(block, _mm_and_si128(read, _mm_set1_epi32(0x3ff)));
                    let known = _mm_loadu_si128(others.as_ptr().cast());
                    let own = also.map_or(known, |distance| _mm_add_epi32(mine, _mm_set1_epi32(distance as i32)));
                    let apart = _mm_andnot_si128(_mm_or_si128(seen, _mm_cmpeq_epi32(before, mine)), _mm_set1_epi32(-1));
                    _mm_storeu_si128(others.as_mut_ptr().cast(), _mm_blendv_epi8(own, before, apart));
                }
                self.read_origins[words].fill(touch.origin);
            }
        }
        true
    }
}
