//! `cp.async` and `mbarrier`.

use super::copies::Landing;
use super::core::Core;
use super::event::Event;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::access::Copy;
use crate::machine::address::space;
use crate::machine::{LANES, Mask};

/// `cp.async` of `BYTES` bytes: `ops` are destination, source and, if `PARTIAL`, how many bytes to read. The low half
/// of the immediate is the destination's offset, the high half the source's; the source has the next site.
struct Start<const BYTES: u64, const PARTIAL: bool>;

impl<const BYTES: u64, const PARTIAL: bool> Op for Start<BYTES, PARTIAL> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let source_inst = Inst { aux: inst.aux + 1, ..*inst };
        // SAFETY: lowering gave the instruction registers of these widths and two sites; the block outlives the run of
        // its warps.
        unsafe {
            let target = core.addresses::<{ space::SHARED }>(inst.ops[0], inst.imm & 0xffff_ffff);
            if core.locate::<{ space::SHARED }>(inst, &target, BYTES, true).is_none() {
                return true;
            }
            let offset = (inst.imm as i64 >> 32) as u64;
            let block = &mut *core.block;
            let eager = block.launch().landing == Landing::Eager;
            let followed = block.checks.as_ref().is_some_and(|checks| checks.follows_copies());
            if !PARTIAL && eager && !followed {
                // Nobody will ask about this copy again.
                let source = core.addresses::<{ space::GLOBAL }>(inst.ops[1], offset);
                let Some(at) = core.locate::<{ space::GLOBAL }>(&source_inst, &source, BYTES, false) else {
                    return true;
                };
                for lane in 0..LANES {
                    // Lanes that do not run repeat the copy of one that does.
                    let from = at.base.wrapping_add(source[lane]) as *const u8;
                    from.copy_to_nonoverlapping(core.shared.add(target[lane] as usize), BYTES as usize);
                }
                return false;
            }
            let mut read = [BYTES as u32; LANES];
            if PARTIAL {
                read = core.get::<u32>(inst.ops[2]).map(|bytes| bytes.min(BYTES as u32));
            }
            // Lanes that read nothing may have any source address; those that read a part are checked for that part.
            let all = core.mask;
            let mut source = [0; LANES];
            let parts = if PARTIAL { &[BYTES, BYTES / 2, BYTES / 4, 1][..] } else { &[BYTES][..] };
            for &bytes in parts {
                let mut lanes: Mask = 0;
                for lane in 0..LANES {
                    let mine = u64::from(read[lane]);
                    let whole_part = [BYTES, BYTES / 2, BYTES / 4].contains(&mine);
                    let fits = if bytes == 1 { mine != 0 && !whole_part } else { mine == bytes };
                    lanes |= Mask::from(fits) << lane;
                }
                core.mask = all & lanes;
                if core.mask == 0 {
                    continue;
                }
                let addresses = core.addresses::<{ space::GLOBAL }>(inst.ops[1], offset);
                let located = if bytes == 1 {
                    // Odd sizes: the first and the last byte.
                    let last = std::array::from_fn(|lane| addresses[lane] + u64::from(read[lane].max(1)) - 1);
                    core.locate::<{ space::GLOBAL }>(&source_inst, &addresses, 1, false)
                        .and_then(|_| core.locate::<{ space::GLOBAL }>(&source_inst, &last, 1, false))
                } else {
                    core.locate::<{ space::GLOBAL }>(&source_inst, &addresses, bytes, false)
                };
                let lanes = core.mask;
                core.mask = all;
                let Some(at) = located else { return true };
                for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
                    source[lane] = at.base.wrapping_add(addresses[lane]);
                }
            }
            core.mask = all;
            let mut offsets = [0; LANES];
            for lane in 0..LANES {
                offsets[lane] = target[lane] as u32;
            }
            let copy =
                Copy { lanes: all, source, target: offsets, bytes: BYTES as u32, read, group: 0, origin: inst.origin };
            if eager {
                copy.land(core.shared);
            }
            if followed && let Some(mut checks) = block.checks.take() {
                checks.copy_started(&block.launch().watch, core.warp, &copy);
                block.checks = Some(checks);
            }
            if !eager || followed {
                block.copies[core.warp as usize].start(copy);
            }
        }
        false
    }
}

/// `cp.async.commit_group`.
struct Commit;

impl Op for Commit {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        // SAFETY: the block outlives the run of its warps.
        unsafe { (&mut (*core.block).copies)[core.warp as usize].commit(core.mask) };
        false
    }
}

impl Core {
    /// Lands copies that the running lanes wait for.
    fn land(&mut self, allowed: Option<u32>) {
        // SAFETY: the block outlives the run of its warps; sources were checked, and allocations stay while a kernel
        // runs.
        unsafe {
            let block = &mut *self.block;
            let late = block.launch().landing == Landing::Late;
            for copy in block.copies[self.warp as usize].wait(self.mask, allowed) {
                if late {
                    copy.land(self.shared);
                }
                if let Some(mut checks) = block.checks.take() {
                    checks.copy_landed(&block.launch().watch, self.warp, &copy);
                    block.checks = Some(checks);
                }
            }
        }
    }
}

/// `cp.async.wait_group`: all but the latest `imm` groups.
struct WaitGroup;

impl Op for WaitGroup {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        core.land(Some(inst.imm as u32));
        false
    }
}

/// `cp.async.wait_all`.
struct WaitAll;

impl Op for WaitAll {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        core.land(None);
        false
    }
}

/// The 64 bits of an mbarrier object, whose layout is this implementation's own: arrivals still missing (20 bits), arrivals per
/// phase (20), bytes that are expected and have not come (22, signed), and the phase.
pub(super) mod word {
    const COUNT: u64 = (1 << 20) - 1;
    const BYTES: u64 = ((1 << 22) - 1) << 40;
    /// The bit that says which phase it is.
    pub const PHASE: u64 = 1 << 63;

    pub fn new(count: u64) -> u64 {
        count & COUNT | (count & COUNT) << 20
    }

    /// The next phase, if everybody has arrived and everything has come.
    fn settle(word: u64) -> u64 {
        if word & (COUNT | BYTES) == 0 { new(word >> 20 & COUNT) | (word & PHASE ^ PHASE) } else { word }
    }

    /// After `count` arrivals; those that drop out lower the number of arrivals per phase.
    pub fn arrive(word: u64, count: u64, drop: bool) -> u64 {
        let expected = (word >> 20 & COUNT).saturating_sub(if drop { count } else { 0 });
        let missing = (word & COUNT).saturating_sub(count);
        settle(missing | expected << 20 | word & (BYTES | PHASE))
    }

    /// So many more bytes are expected than before.
    pub fn expect(word: u64, bytes: i64) -> u64 {
        let sum = (word & BYTES).wrapping_add((bytes as u64) << 40) & BYTES;
        word & !BYTES | sum
    }

    /// So many more bytes are expected than before, which may end the phase.
    pub fn transfer(word: u64, bytes: i64) -> u64 {
        settle(expect(word, bytes))
    }
}

/// What an mbarrier instruction does.
mod action {
    pub const INIT: u8 = 0;
    pub const INVALIDATE: u8 = 1;
    pub const ARRIVE: u8 = 2;
    pub const DROP: u8 = 3;
    pub const TEST: u8 = 4;
    pub const TEST_PARITY: u8 = 5;
    pub const COPIES_ARRIVE: u8 = 6;
    pub const PENDING: u8 = 7;
    pub const EXPECT: u8 = 8;
    pub const ARRIVE_EXPECT: u8 = 9;
}

/// Instructions on an mbarrier object: `ops` are the result, the address and an operand.
struct Barrier<const ACTION: u8>;

impl<const ACTION: u8> Op for Barrier<ACTION> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction registers of these widths and a site; `locate` checks the object.
        unsafe {
            let addresses = core.addresses::<{ space::SHARED }>(inst.ops[1], inst.imm);
            let Some(at) = core.locate::<{ space::SHARED }>(inst, &addresses, 8, true) else {
                return true;
            };
            if ACTION == action::COPIES_ARRIVE {
                core.land(None);
            }
            let narrow: [u32; LANES] = match ACTION {
                action::INIT
                | action::ARRIVE
                | action::DROP
                | action::TEST_PARITY
                | action::COPIES_ARRIVE
                | action::EXPECT
                | action::ARRIVE_EXPECT => core.get(inst.ops[2]),
                _ => [0; LANES],
            };
            let state: [u64; LANES] = if ACTION == action::TEST { core.get(inst.ops[2]) } else { [0; LANES] };
            let mut tokens = [0u64; LANES];
            let mut done = 0;
            for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0) {
                let object = at.base.wrapping_add(addresses[lane]) as *mut u64;
                let old = object.read();
                tokens[lane] = old;
                let new = match ACTION {
                    action::INIT => word::new(u64::from(narrow[lane])),
                    action::INVALIDATE => 0,
                    action::ARRIVE | action::COPIES_ARRIVE => word::arrive(old, u64::from(narrow[lane]), false),
                    action::DROP => word::arrive(old, u64::from(narrow[lane]), true),
                    action::EXPECT => word::expect(old, i64::from(narrow[lane])),
                    action::ARRIVE_EXPECT => word::arrive(word::expect(old, i64::from(narrow[lane])), 1, false),
                    _ => old,
                };
                if new != old {
                    object.write(new);
                }
                let waited_for = match ACTION {
                    action::TEST_PARITY => u64::from(narrow[lane] & 1) << 63,
                    _ => state[lane] & word::PHASE,
                };
                done |= Mask::from(old & word::PHASE != waited_for) << lane;
            }
            if let Some(checks) = &mut (*core.block).checks {
                // Who arrives releases, and who finds the phase over acquires.
                let places =
                    |lanes: Mask| (0..LANES).filter(move |lane| lanes >> lane & 1 != 0).map(|lane| addresses[lane]);
                match ACTION {
                    action::ARRIVE | action::DROP | action::COPIES_ARRIVE | action::ARRIVE_EXPECT => {
                        checks.release(core.warp, places(core.mask));
                    }
                    action::TEST | action::TEST_PARITY => checks.acquire(core.warp, places(core.mask & done)),
                    _ => {}
                }
            }
            match ACTION {
                action::ARRIVE | action::DROP | action::PENDING | action::ARRIVE_EXPECT => {
                    core.put(inst.ops[0], tokens)
                }
                action::TEST | action::TEST_PARITY => {
                    core.set_predicate(inst.ops[0], done);
                    // Those who wait let others run.
                    if done & core.mask != core.mask {
                        (*core.block).fruitless += 1;
                        return core.raise(Event::Yield);
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// `cp.async` of this many bytes.
pub fn start(bytes: u32, partial: bool) -> Option<OpFn> {
    Some(match (bytes, partial) {
        (4, false) => op::<Start<4, false>>(),
        (8, false) => op::<Start<8, false>>(),
        (16, false) => op::<Start<16, false>>(),
        (4, true) => op::<Start<4, true>>(),
        (8, true) => op::<Start<8, true>>(),
        (16, true) => op::<Start<16, true>>(),
        _ => return None,
    })
}

/// The instructions on groups and mbarriers.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $op:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name() -> OpFn {
            op::<$op>()
        }
    )*};
}

operations! {
    /// Closes a group.
    commit = Commit;
    /// Waits for groups.
    wait_group = WaitGroup;
    /// Waits for all copies.
    wait_all = WaitAll;
    /// Makes an mbarrier.
    init = Barrier<{ action::INIT }>;
    /// Ends an mbarrier.
    invalidate = Barrier<{ action::INVALIDATE }>;
    /// Arrives.
    arrive = Barrier<{ action::ARRIVE }>;
    /// Arrives for the last time.
    arrive_drop = Barrier<{ action::DROP }>;
    /// Tests by token.
    test = Barrier<{ action::TEST }>;
    /// Tests by parity.
    test_parity = Barrier<{ action::TEST_PARITY }>;
    /// Arrives when earlier copies have landed.
    copies_arrive = Barrier<{ action::COPIES_ARRIVE }>;
    /// Expects bytes.
    expect = Barrier<{ action::EXPECT }>;
    /// Expects bytes, and arrives.
    arrive_expect = Barrier<{ action::ARRIVE_EXPECT }>;
    /// Reads the object.
    pending = Barrier<{ action::PENDING }>;
}
