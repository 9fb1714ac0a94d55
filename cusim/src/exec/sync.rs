//! Instructions in which the lanes of a warp, or the warps of a block, meet.

use super::core::Core;
use super::event::Event;
use super::op::{Inst, Op, OpFn, op, with_flag};
use crate::machine::barrier::{Arrival, Reduction};
use crate::machine::fault::FaultKind;
use crate::machine::{LANES, Mask};

impl Core {
    /// Whether all lanes that the running lanes' member masks name are here; raises the event that waits for them if
    /// not.
    #[inline(always)]
    pub(super) fn gathered(&mut self, inst: &Inst, members: &[Mask; LANES]) -> bool {
        if self.mask == Mask::MAX && members.iter().fold(Mask::MAX, |all, mask| all & mask) == Mask::MAX {
            return true;
        }
        self.gathered_partly(inst, members)
    }

    /// [`Core::gathered`] where not all lanes run, or not all are named.
    #[inline(never)]
    fn gathered_partly(&mut self, inst: &Inst, members: &[Mask; LANES]) -> bool {
        let mut missing = 0;
        let mut absent = 0;
        for lane in 0..LANES {
            let running = self.mask >> lane & 1 != 0;
            missing |= if running { members[lane] & self.alive & !self.mask } else { 0 };
            absent |= if running { !members[lane] & 1 << lane } else { 0 };
        }
        if absent != 0 {
            let lane = absent.trailing_zeros();
            let detail = format!("lane {lane} is not in its own member mask {:#010x}", members[lane as usize]);
            self.fault(inst, FaultKind::Divergence, lane, detail);
            return false;
        }
        if missing != 0 {
            self.raise(Event::Converge);
            return false;
        }
        true
    }
}

/// What a vote finds out from the lanes of its mask.
trait Vote {
    fn decide(yes: Mask, members: Mask) -> bool;
}

struct All;
struct Any;
struct Uniform;

impl Vote for All {
    fn decide(yes: Mask, members: Mask) -> bool {
        yes & members == members
    }
}

impl Vote for Any {
    fn decide(yes: Mask, members: Mask) -> bool {
        yes & members != 0
    }
}

impl Vote for Uniform {
    fn decide(yes: Mask, members: Mask) -> bool {
        yes & members == members || yes & members == 0
    }
}

/// `vote.sync` with a predicate as the result: `ops` are result, predicate, mask.
struct VotePredicate<V>(std::marker::PhantomData<V>);

impl<V: Vote + 'static> Op for VotePredicate<V> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction predicates and a 32-bit mask.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[2]);
            if !core.gathered(inst, &members) {
                return true;
            }
            let yes = core.predicate(inst.ops[1]);
            let present = core.mask;
            core.put(inst.ops[0], members.map(|members| V::decide(yes, members & present)));
        }
        false
    }
}

/// `vote.sync.ballot`.
struct Ballot;

impl Op for Ballot {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction a 32-bit result, a predicate and a 32-bit mask.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[2]);
            if !core.gathered(inst, &members) {
                return true;
            }
            let yes = core.predicate(inst.ops[1]) & core.mask;
            core.put(inst.ops[0], members.map(|members| yes & members));
        }
        false
    }
}

/// The vote of this name.
pub fn vote(name: &str) -> Option<OpFn> {
    Some(match name {
        "all" => op::<VotePredicate<All>>(),
        "any" => op::<VotePredicate<Any>>(),
        "uni" => op::<VotePredicate<Uniform>>(),
        "ballot" => op::<Ballot>(),
        _ => return None,
    })
}

/// `match.any` and `match.all`: `ops` are the mask, the predicate (of `all`), then value and members.
struct Match<T, const ALL: bool>(std::marker::PhantomData<T>);

impl<T: super::core::Lane + PartialEq, const ALL: bool> Op for Match<T, ALL> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction registers of these widths.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[3]);
            if !core.gathered(inst, &members) {
                return true;
            }
            let value: [T; LANES] = core.get(inst.ops[2]);
            let present = core.mask;
            let mut out = [0; LANES];
            let mut all = 0;
            for lane in 0..LANES {
                let peers = members[lane] & present;
                let same = (0..LANES).filter(|other| value[*other] == value[lane]);
                let same = same.fold(0, |mask: Mask, other| mask | 1 << other) & peers;
                let whole = same == peers;
                all |= Mask::from(whole) << lane;
                out[lane] = if ALL && !whole { 0 } else { same };
            }
            core.put(inst.ops[0], out);
            if ALL {
                core.set_predicate(inst.ops[1], all);
            }
        }
        false
    }
}

/// `match` of this width.
pub fn matching(all: bool, bits: u32) -> Option<OpFn> {
    with_flag!(all, ALL => match bits {
        32 => Some(op::<Match<u32, ALL>>()),
        64 => Some(op::<Match<u64, ALL>>()),
        _ => None,
    })
}

/// `redux.sync`: `ops` are result, value, members.
macro_rules! redux {
    ($t:ty, |$a:ident, $b:ident| $e:expr) => {{
        struct Redux;
        impl Op for Redux {
            #[inline(always)]
            unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
                // SAFETY: lowering gave the instruction 32-bit registers.
                unsafe {
                    let members: [u32; LANES] = core.get(inst.ops[2]);
                    if !core.gathered(inst, &members) {
                        return true;
                    }
                    let value: [$t; LANES] = core.get(inst.ops[1]);
                    let present = core.mask;
                    let out: [$t; LANES] = std::array::from_fn(|lane| {
                        let peers = members[lane] & present;
                        let values = (0..LANES).filter(|other| peers >> other & 1 != 0).map(|other| value[other]);
                        values.reduce(|$a, $b| $e).unwrap_or(0)
                    });
                    core.put(inst.ops[0], out);
                }
                false
            }
        }
        Some(op::<Redux>())
    }};
}

/// The reduction over lanes of this name.
pub fn redux(name: &str, signed: bool) -> Option<OpFn> {
    match (name, signed) {
        ("add", _) => redux!(u32, |a, b| a.wrapping_add(b)),
        ("min", false) => redux!(u32, |a, b| a.min(b)),
        ("max", false) => redux!(u32, |a, b| a.max(b)),
        ("min", true) => redux!(i32, |a, b| a.min(b)),
        ("max", true) => redux!(i32, |a, b| a.max(b)),
        ("and", false) => redux!(u32, |a, b| a & b),
        ("or", false) => redux!(u32, |a, b| a | b),
        ("xor", false) => redux!(u32, |a, b| a ^ b),
        _ => None,
    }
}

/// `elect.sync`: the lowest lane; `ops` are its number, the predicate, then members.
struct Elect;

impl Op for Elect {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction a 32-bit and a predicate destination and a 32-bit mask.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[2]);
            if !core.gathered(inst, &members) {
                return true;
            }
            let present = core.mask;
            let leader = members.map(|members| (members & present).trailing_zeros());
            core.put(inst.ops[0], leader);
            core.put(inst.ops[1], std::array::from_fn(|lane| leader[lane] == lane as u32));
        }
        false
    }
}

/// `elect.sync`.
pub fn elect() -> OpFn {
    op::<Elect>()
}

/// `bar.warp.sync`: `ops` is the mask.
struct WarpBarrier;

impl Op for WarpBarrier {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction a 32-bit register; the block outlives the run of its warps.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[0]);
            if !core.gathered(inst, &members) {
                return true;
            }
            if let Some(checks) = &mut (*core.block).checks {
                checks.warp_synchronised(core.warp);
            }
        }
        false
    }
}

/// `bar.warp.sync`.
pub fn warp_barrier() -> OpFn {
    op::<WarpBarrier>()
}

/// Bits of a barrier instruction's immediate.
pub mod barrier {
    /// The lanes wait.
    pub const WAITS: u64 = 1;
    /// All lanes of the warp must come together.
    pub const ALIGNED: u64 = 2;
    /// There is a thread count, the second source.
    pub const COUNTED: u64 = 4;
    /// There is a predicate, the third source, and a result, in place of the fourth.
    pub const REDUCES: u64 = 8;
    /// Shift of the kind of reduction.
    pub const KIND: u64 = 4;
}

/// `bar` and `barrier`: `ops` are barrier, count, predicate, result, as far as the immediate says that they exist.
struct BlockBarrier;

impl Op for BlockBarrier {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let first = core.mask.trailing_zeros() as usize & 31;
        let has = |bit| inst.imm & bit != 0;
        // SAFETY: lowering gave the instruction the registers that its immediate tells of.
        let (id, threads, reduction) = unsafe {
            let id: [u32; LANES] = core.get(inst.ops[0]);
            let threads = has(barrier::COUNTED).then(|| core.get::<u32>(inst.ops[1])[first]);
            let reduction = has(barrier::REDUCES).then(|| {
                let kind = match inst.imm >> barrier::KIND & 3 {
                    0 => Reduction::Count,
                    1 => Reduction::All,
                    _ => Reduction::Any,
                };
                (kind, core.predicate(inst.ops[2]) & core.mask, inst.ops[3])
            });
            (id[first], threads, reduction)
        };
        if id >= 16 || threads.is_some_and(|threads| threads == 0 || threads % 32 != 0) {
            let detail = format!("barrier {id} for {threads:?} threads: 0 to 15 and multiples of 32 are allowed");
            return core.fault(inst, FaultKind::BadOperand, first as u32, detail);
        }
        core.raise(Event::Barrier(Arrival {
            barrier: id,
            threads,
            waits: has(barrier::WAITS),
            aligned: has(barrier::ALIGNED),
            reduction,
        }))
    }
}

/// `bar` and `barrier`.
pub fn block_barrier() -> OpFn {
    op::<BlockBarrier>()
}
