//! Branches, calls and guards.

use std::time::{SystemTime, UNIX_EPOCH};

use super::core::Core;
use super::event::{Call, Event};
use super::op::{Inst, Op, OpFn, op};
use crate::machine::Mask;
use crate::machine::fault::{Fault, FaultKind};

/// Runs the instruction in the lanes that its guard lets through.
struct Guarded;

impl Op for Guarded {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let all = core.mask;
        // SAFETY: the instruction has a guard and an inner operation.
        unsafe {
            core.mask = all & core.guard(inst);
            let left = core.mask != 0 && (inst.inner)(core, inst);
            // The scheduler restores the mask where the inner operation left the straight path.
            if !left {
                core.mask = all;
            }
            left
        }
    }
}

/// Goes on at `aux`.
struct Jump;

impl Op for Jump {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        core.target = inst.aux;
        core.raise(Event::Jump)
    }
}

/// Goes on at `aux` in the lanes that the guard lets through.
struct Branch;

impl Op for Branch {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: conditional branches have a guard.
        let taken = core.mask & unsafe { core.guard(inst) };
        if taken == 0 {
            return false;
        }
        core.target = inst.aux;
        if taken == core.mask { core.raise(Event::Jump) } else { core.raise(Event::Branch(taken)) }
    }
}

/// Goes on at an entry of table `aux`, chosen per lane by a register.
struct Indexed;

impl Op for Indexed {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: the operand is a 32-bit register; the block outlives the run of its warps.
        let (index, block): ([u32; 32], _) = unsafe { (core.get(inst.ops[0]), &*core.block) };
        let table = &block.launch().program.tables[inst.aux as usize];
        let mut targets = Box::new([0; 32]);
        for lane in (0..32).filter(|lane| core.mask >> lane & 1 != 0) {
            match table.get(index[lane] as usize) {
                Some(target) => targets[lane] = *target,
                None => {
                    let detail = format!("branch index {} of {} targets", index[lane], table.len());
                    return core.fault(inst, FaultKind::BadOperand, lane as u32, detail);
                }
            }
        }
        core.raise(Event::Scatter(targets))
    }
}

/// Ends the running lanes.
struct Exit;

impl Op for Exit {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        core.raise(Event::Exit)
    }
}

/// Returns from a function.
struct Return;

impl Op for Return {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        core.raise(Event::Return)
    }
}

/// Calls function `imm`; `aux` is the call site.
struct Direct;

impl Op for Direct {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        core.raise(Event::Call(Box::new(Call { targets: [inst.imm as u32; 32], site: inst.aux })))
    }
}

/// Calls the function whose address a register holds.
struct Indirect;

impl Op for Indirect {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: the operand is a 64-bit register; the block outlives the run of its warps.
        let (address, block): ([u64; 32], _) = unsafe { (core.get(inst.ops[0]), &*core.block) };
        let known = &block.launch().program.function_addresses;
        let mut targets = [0; 32];
        for lane in (0..32).filter(|lane| core.mask >> lane & 1 != 0) {
            match known.iter().find(|(at, _)| *at == address[lane]) {
                Some((_, function)) => targets[lane] = *function,
                None => {
                    let detail = format!("{:#x} is not the address of a device function", address[lane]);
                    return core.fault(inst, FaultKind::BadCall, lane as u32, detail);
                }
            }
        }
        core.raise(Event::Call(Box::new(Call { targets, site: inst.aux })))
    }
}

/// `trap`, and `brkpt`.
struct Trap;

impl Op for Trap {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let lane = core.mask.trailing_zeros();
        core.fault(inst, FaultKind::Trap, lane, "the kernel executed trap".into())
    }
}

/// Lets other warps run.
struct Sleep;

impl Op for Sleep {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        core.raise(Event::Yield)
    }
}

/// Does nothing: `membar`, `fence`, prefetches.
struct Nothing;

impl Op for Nothing {
    #[inline(always)]
    unsafe fn run(_core: &mut Core, _inst: &Inst) -> bool {
        false
    }
}

/// Waits for the launches before this one, which have ended here; only the checks need know.
struct LaunchWait;

impl Op for LaunchWait {
    #[inline(always)]
    unsafe fn run(core: &mut Core, _inst: &Inst) -> bool {
        // SAFETY: the block outlives the run of its warps.
        if let Some(checks) = unsafe { &mut (*core.block).checks } {
            checks.waited_for_launches(core.warp);
        }
        false
    }
}

/// Lanes that run, `activemask`.
struct ActiveMask;

impl Op for ActiveMask {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let mask: Mask = core.mask;
        // SAFETY: the destination is a 32-bit register.
        unsafe { core.put(inst.ops[0], [mask; 32]) };
        false
    }
}

/// `clock`: a count of steps, not of cycles, which grows with every instruction of the warp that asks.
struct Clock;

impl Op for Clock {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: the block outlives the run of its warps; the destination is a 64-bit register.
        unsafe {
            let ticks = (*core.block).tick();
            core.put(inst.ops[0], [ticks; 32]);
        }
        false
    }
}

/// `globaltimer`: nanoseconds of the host's clock since 1970, as a device's timer counts them. A kernel that waits by it waits as
/// long as it says.
struct Timer;

impl Op for Timer {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        // SAFETY: the destination is a 64-bit register.
        unsafe { core.put(inst.ops[0], [now; 32]) };
        false
    }
}

/// The control operations by name.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name() -> OpFn {
            op::<$op>()
        }
    )*};
}

operations! {
    /// Applies the guard, then runs the inner operation.
    guarded = Guarded;
    /// Unconditional branch.
    jump = Jump;
    /// Branch by guard.
    branch = Branch;
    /// Branch by table.
    indexed = Indexed;
    /// End of the thread.
    exit = Exit;
    /// Return from a function.
    ret = Return;
    /// Call of a known function.
    call = Direct;
    /// Call by address.
    call_indirect = Indirect;
    /// Error stop.
    trap = Trap;
    /// Yields to other warps.
    sleep = Sleep;
    /// `griddepcontrol.wait`.
    launch_wait = LaunchWait;
    /// No operation.
    nothing = Nothing;
    /// Mask of running lanes.
    active_mask = ActiveMask;
    /// Step counter.
    clock = Clock;
    /// Time of day.
    timer = Timer;
}

impl Core {
    /// Ends the launch.
    #[cold]
    pub fn fault(&mut self, inst: &Inst, kind: FaultKind, lane: u32, detail: String) -> bool {
        let fault = Fault { kind, origin: inst.origin, lane, block: 0, access: None, detail };
        self.raise(Event::Fault(Box::new(fault)))
    }
}
