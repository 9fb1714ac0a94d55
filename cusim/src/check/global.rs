//! Who accessed device and host memory last, and whether it was written.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_blendv_epi8, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_or_si128, _mm_set1_epi32,
    _mm_storeu_si128, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8, _mm256_castsi256_si128,
    _mm256_cmpeq_epi64, _mm256_cmpgt_epi64, _mm256_cvtepu32_epi64, _mm256_loadu_si256, _mm256_or_si256,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi64x, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_testc_si256, _mm256_xor_si256,
};

use super::Checks;
use super::part::Part;
use super::race::{Cell, Cells, Conflict, Other, Touch};
use super::stamp::{Clock, ID, SAME_WARP, Stamp, Who};
use super::watch::Watch;
use crate::machine::{LANES, Mask};
use crate::mem::{RaceArenas, Shadow};

/// Cells in arenas of their own, which take memory only where kernels touch.
pub(super) struct GlobalCells<'a> {
    shadow: &'a Shadow,
    races: RaceArenas,
}

/// Stands for the writer of a word of which parts were accessed in this launch: no access has this stamp.
fn split_mark(clock: &Clock) -> Stamp {
    let launch = clock.key >> 20;
    Stamp(launch << 52 | ((1 << 52) - 1))
}

impl<'a> GlobalCells<'a> {
    pub(super) fn new(shadow: &'a Shadow) -> Self {
        Self { shadow, races: shadow.races() }
    }

    /// The word at an address: the last write and its instruction, reads and theirs.
    fn word(&self, address: u64) -> (*mut Stamp, *mut u32, *mut Stamp, *mut u32) {
        let index = self.shadow.offset(address) / 4;
        let races = self.races;
        let stamp = |arena: u64| (arena + 8 * index) as *mut Stamp;
        let origin = |arena: u64| (arena + 4 * index) as *mut u32;
        (stamp(races.writes), origin(races.write_origins), stamp(races.reads), origin(races.read_origins))
    }

    /// The others that the stamps of the word at an address stand for: of the write, and of the reads.
    fn others(&self, address: u64) -> (*mut Other, *mut Other) {
        let index = self.shadow.offset(address) / 4;
        let other = |arena: u64| (arena + 4 * index) as *mut Other;
        (other(self.races.write_others), other(self.races.read_others))
    }

    fn byte_cell(&mut self, address: u64) -> &mut Cell {
        let index = self.shadow.offset(address);
        // SAFETY: the access was found inside an allocation, for which the arena has cells; one thread at a time notes
        // accesses to device memory.
        unsafe { &mut *(self.races.bytes as *mut Cell).add(index as usize) }
    }

    /// What is known of the word at an address.
    pub(super) fn cell(&self, address: u64) -> Cell {
        let (write, write_origin, read, read_origin) = self.word(address);
        let (write_other, read_other) = self.others(address);
        // SAFETY: as above.
        unsafe {
            Cell {
                write: *write,
                read: *read,
                write_origin: *write_origin,
                read_origin: *read_origin,
                write_other: *write_other,
                read_other: *read_other,
            }
        }
    }
}

/// What the stamps of four words are compared with.
struct Four {
    ids: __m256i,
    key: __m256i,
    launch: __m256i,
    phase: __m256i,
    warp: __m256i,
}

impl Four {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(clock: &Clock, threads: [u32; 4]) -> Self {
        let all = |value: u64| _mm256_set1_epi64x(value as i64);
        Self {
            // SAFETY: the array has 16 bytes.
            ids: _mm256_cvtepu32_epi64(unsafe { _mm_loadu_si128(threads.as_ptr().cast()) }),
            key: all(clock.key << 32),
            launch: all(clock.key >> 20 << 52),
            phase: all(clock.phase_bound().0),
            warp: all(clock.warp_bound(threads[0] / 32).0),
        }
    }

    /// Which words' earlier access is by this block alone.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn same_block(&self, before: __m256i) -> __m256i {
        let grid = _mm256_set1_epi64x((Who::Grid as i64) << 10);
        let key = _mm256_and_si256(before, _mm256_set1_epi64x(!0xffff_ffff));
        let by_grid = _mm256_cmpeq_epi64(_mm256_and_si256(before, grid), grid);
        _mm256_andnot_si256(by_grid, _mm256_cmpeq_epi64(key, self.key))
    }

    /// Which words' earlier access is by a thread of the same warp, and by no other, given that it is by this block.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn same_warp(&self, before: __m256i) -> __m256i {
        let other = _mm256_and_si256(_mm256_xor_si256(before, self.ids), _mm256_set1_epi64x(i64::from(SAME_WARP)));
        _mm256_cmpeq_epi64(other, _mm256_setzero_si256())
    }

    /// In which words an earlier access happened before what these threads do now, as far as that is quick to tell.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn ordered(&self, before: __m256i) -> __m256i {
        let earlier = |bound: __m256i| _mm256_cmpgt_epi64(bound, before);
        let id = _mm256_and_si256(before, _mm256_set1_epi64x(i64::from(ID)));
        let same_thread = _mm256_cmpeq_epi64(id, self.ids);
        let in_warp = _mm256_and_si256(earlier(self.warp), self.same_warp(before));
        let in_block = _mm256_or_si256(earlier(self.phase), _mm256_or_si256(same_thread, in_warp));
        _mm256_or_si256(earlier(self.launch), _mm256_and_si256(in_block, self.same_block(before)))
    }
}

impl Four {
    /// Where readers of words are several: notes the thread beside these, or who read before.
    ///
    /// # Safety
    /// There must be four words of others at the pointer.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn note_others(&self, others: *mut __m128i, (read, seen): (__m256i, __m256i), also: Option<u32>, key: u64) {
        let narrow = |wide: __m256i| {
            _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(wide, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)))
        };
        let blocks = _mm256_and_si256(_mm256_srli_epi64::<22>(read), _mm256_set1_epi64x(0xf_ffff << 10));
        let before = narrow(_mm256_or_si256(blocks, _mm256_and_si256(read, _mm256_set1_epi64x(0x3ff))));
        let mine = _mm_or_si128(narrow(self.ids), _mm_set1_epi32(((key & 0xf_ffff) << 10) as i32));
        // SAFETY: as for this function.
        unsafe {
            let known = _mm_loadu_si128(others);
            let own = also.map_or(known, |distance| _mm_add_epi32(mine, _mm_set1_epi32(distance as i32)));
            let same = _mm_or_si128(narrow(seen), _mm_cmpeq_epi32(before, mine));
            _mm_storeu_si128(others, _mm_blendv_epi8(before, own, same));
        }
    }
}

/// Whether all bits are set.
#[inline]
#[target_feature(enable = "avx2")]
fn all(mask: __m256i) -> bool {
    _mm256_testc_si256(mask, _mm256_set1_epi64x(-1)) != 0
}

impl Cells for GlobalCells<'_> {
    fn touch_word(
        &mut self,
        at: u64,
        clock: &Clock,
        thread: u32,
        also: Option<u32>,
        touch: Touch,
    ) -> Option<(u64, Conflict)> {
        let mut cell = self.cell(at);
        if cell.write == split_mark(clock) {
            let mut found = None;
            for byte in at..at + 4 {
                let conflict = self.byte_cell(byte).touch(clock, thread, also, touch);
                found = found.or(conflict.map(|conflict| (byte, conflict)));
            }
            return found;
        }
        let conflict = cell.touch(clock, thread, also, touch);
        let (write, write_origin, read, read_origin) = self.word(at);
        let (write_other, read_other) = self.others(at);
        // SAFETY: as for `byte_cell`.
        unsafe {
            // Most words have one writer and one reader, and nothing is known of others.
            if *write_other != cell.write_other {
                *write_other = cell.write_other;
            }
            if *read_other != cell.read_other {
                *read_other = cell.read_other;
            }
            *write = cell.write;
            *write_origin = cell.write_origin;
            *read = cell.read;
            *read_origin = cell.read_origin;
        }
        conflict.map(|conflict| (at, conflict))
    }

    fn byte(&mut self, address: u64, clock: &Clock) -> &mut Cell {
        let word = address & !3;
        let whole = self.cell(word);
        if whole.write != split_mark(clock) {
            for byte in word..word + 4 {
                *self.byte_cell(byte) = whole;
            }
            // SAFETY: as for `byte_cell`.
            unsafe { *self.word(word).0 = split_mark(clock) };
        }
        self.byte_cell(address)
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
        let who = if also.is_some() { Who::Warp } else { Who::Thread };
        let four = Four::new(clock, threads);
        let now = Stamp::new(clock.key, clock.time, 0, false).0;
        let alone = _mm256_or_si256(four.ids, _mm256_set1_epi64x(now as i64));
        let by = |who: Who| _mm256_or_si256(alone, _mm256_set1_epi64x((who as i64) << 10));
        let (writes, write_origins, reads, read_origins) = self.word(at);
        // SAFETY: the caller says that there are four words; one thread at a time notes accesses to device memory.
        unsafe {
            let (write, read) = (_mm256_loadu_si256(writes.cast()), _mm256_loadu_si256(reads.cast()));
            let (written, seen) = (four.ordered(write), four.ordered(read));
            if touch.write {
                if !all(_mm256_and_si256(written, seen)) {
                    return false;
                }
                _mm256_storeu_si256(writes.cast(), alone);
                write_origins.cast::<[u32; 4]>().write_unaligned([touch.origin; 4]);
            } else {
                if !all(written) {
                    return false;
                }
                let in_block = _mm256_blendv_epi8(by(Who::Block), by(Who::Warp), four.same_warp(read));
                let merged = _mm256_blendv_epi8(by(Who::Grid), in_block, four.same_block(read));
                _mm256_storeu_si256(reads.cast(), _mm256_blendv_epi8(merged, by(who), seen));
                if also.is_some() || !all(seen) {
                    four.note_others(self.others(at).1.cast(), (read, seen), also, clock.key);
                }
                read_origins.cast::<[u32; 4]>().write_unaligned([touch.origin; 4]);
            }
        }
        true
    }
}

/// Looks at what a block does to device memory.
pub struct GlobalChecks<'a> {
    /// The launch.
    pub watch: &'a Watch<'a>,
    /// What to look for.
    pub checks: Checks,
    /// The block.
    pub block: u64,
}

impl GlobalChecks<'_> {
    /// An access was made, or its turn to be looked at has come.
    pub fn accessed(&self, clock: &mut Clock, part: &Part, stored: Option<&[u32; LANES]>) {
        let watch = self.watch;
        let known = if watch.memory.has_registered() { self.remembered(part) } else { part.mask };
        let touch = part.touch();
        // Lanes that read what a neighbour reads too add nothing but that they are several.
        let (part, several) =
            if touch.write || touch.strong { (part.with(known), 0) } else { part.with(known).distinct() };
        let part = &part;
        if self.checks.init {
            self.initialised(part);
        }
        if !self.checks.race || !clock.is_running() {
            return;
        }
        if touch.strong {
            self.meet(clock, part);
        }
        let mut cells = GlobalCells::new(watch.memory.shadow());
        for conflict in part.note(&mut cells, clock, several, stored) {
            if let Some(finding) = part.race(watch, self.block, conflict, "global") {
                watch.sink.found(finding);
            }
        }
    }

    /// Lanes whose places are not the host program's own memory.
    fn remembered(&self, part: &Part) -> Mask {
        let shadow = self.watch.memory.shadow();
        part.lanes().filter(|(_, address)| shadow.covers(*address)).fold(0, |lanes, (lane, _)| lanes | 1 << lane)
    }

    fn initialised(&self, part: &Part) {
        let bytes = u64::from(part.seen.bytes);
        // Lanes whose places follow each other are looked at together: they, and where they begin and end.
        let mut run = (0, 0, 0);
        for (lane, address) in part.lanes() {
            if run.0 != 0 && address != run.2 {
                self.run_initialised(part, run);
                run.0 = 0;
            }
            let start = if run.0 == 0 { address } else { run.1 };
            run = (run.0 | 1 << lane, start, address + bytes);
        }
        self.run_initialised(part, run);
    }

    fn run_initialised(&self, part: &Part, (lanes, start, end): (Mask, u64, u64)) {
        let Some(written) = self.watch.memory.shadow().written(start) else {
            return;
        };
        // SAFETY: the accesses were found inside an allocation, for which there is shadow. Where blocks write the same byte at
        // once, both write 1.
        let written = unsafe { std::slice::from_raw_parts_mut(written, (end - start) as usize) };
        if part.reads() && has_unwritten(written) {
            let part = part.with(lanes);
            for ((lane, _), written) in part.lanes().zip(written.chunks(part.seen.bytes as usize)) {
                if has_unwritten(written)
                    && let Some(finding) = part.uninitialised(self.watch, self.block, lane)
                {
                    self.watch.sink.found(finding);
                }
            }
        }
        if part.touch().write {
            written.fill(1);
        }
    }

    /// Blocks meet through atomics: what one did before happens before what the other does afterwards.
    fn meet(&self, clock: &mut Clock, part: &Part) {
        let writes = part.touch().write;
        let mut last = None;
        for (_, address) in part.lanes().filter(|(_, address)| last.replace(*address) != Some(*address)) {
            clock.meet(&self.watch.meetings, address, writes);
        }
    }
}

/// Whether some byte was not written, given a 1 for each that was.
#[inline]
pub fn has_unwritten(written: &[u8]) -> bool {
    const ALL: u64 = 0x0101_0101_0101_0101;
    let (eights, rest) = written.as_chunks::<8>();
    let eights = eights.iter().fold(ALL, |all, eight| all & u64::from_ne_bytes(*eight));
    eights != ALL || rest.iter().fold(1, |all, byte| all & byte) == 0
}
