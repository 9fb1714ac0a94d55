//! Runs the warps of a block until all have ended.

mod barriers;
mod deadlock;

use super::block::BlockState;
use super::calls::{copy_results, enter_functions, surroundings};
use super::core::Core;
use super::event::Event;
use super::frame::{Scope, fill};
use super::launch::Launch;
use super::tally::Tally;
use super::warp::{Frame, Group, Wait, Warp};
use crate::machine::address::{FIRST_OFFSET, Site};
use crate::machine::fault::{Fault, FaultKind};
use crate::machine::listing::Executed;
use crate::machine::{LANES, Mask};

/// Jumps back after which a group gives others a turn.
const TURN: u32 = 2000;

/// Passes over all warps in which some only used up their turns, after which other blocks get one.
const PATIENCE: u32 = 4;

/// Looks at mbarriers that were not ready, one after the other with nothing else between, after which nobody comes any more.
const MAX_FRUITLESS: u32 = 1 << 20;

/// How a run of a block ended.
pub enum Outcome {
    /// All threads have ended.
    Done,
    /// Its warps seem to wait for another block.
    Waiting,
}

/// A block with everything that it needs to run, kept for the next block.
pub struct Block {
    /// What operations see.
    pub state: Box<BlockState>,
    warps: Vec<Warp>,
    core: Core,
}

// SAFETY: the raw pointers in `core` refer to the block's own memory and are set anew by every run.
unsafe impl Send for Block {}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

impl Block {
    /// An empty block.
    pub fn new() -> Self {
        Self { state: Box::default(), warps: vec![], core: Core::idle() }
    }

    /// Prepares for the block of a launch whose turn it is.
    pub fn start(&mut self, launch: &Launch, turn: u64) {
        self.state.reset(launch, launch.order.nth(turn, launch.grid.blocks()), turn);
        let threads = launch.grid.threads();
        let count = threads.div_ceil(32);
        if self.warps.len() < count as usize {
            self.warps.resize_with(count as usize, Warp::new);
        }
        let program = launch.program;
        for (index, warp) in self.warps.iter_mut().take(count as usize).enumerate() {
            let index = index as u32;
            let lanes = (threads - index * 32).min(32);
            let mask = if lanes == 32 { Mask::MAX } else { (1 << lanes) - 1 };
            warp.registers.reserve(program.register_bytes as usize);
            warp.local.reserve((program.listing.local_bytes as usize) * LANES);
            warp.alive = mask;
            warp.groups.clear();
            let kernel = &program.functions[0];
            let around = surroundings(launch, &self.state, index, FIRST_OFFSET);
            let scope = if warp.filled_for == (launch.grid.id, index) { Scope::Block } else { Scope::All };
            warp.filled_for = (launch.grid.id, index);
            // SAFETY: the register file has room for the kernel's frame, which comes first.
            unsafe { fill(warp.registers.as_ptr(), kernel, &around, Mask::MAX, scope) };
            let frame = Frame { local: FIRST_OFFSET, ..Frame::default() };
            warp.groups.push(Group { pc: kernel.entry, mask, frame, callers: vec![], wait: Wait::Ready, turns: 0 });
        }
    }

    /// Runs until all threads have ended, or wait for other blocks.
    pub fn run(
        &mut self,
        launch: &Launch,
        sites: &mut [Site],
        executed: Option<&mut [Executed]>,
    ) -> Result<Outcome, Box<Fault>> {
        let number = self.state.number;
        self.run_warps(launch, sites, executed).map_err(|mut fault| {
            fault.block = number;
            fault
        })
    }

    fn run_warps(
        &mut self,
        launch: &Launch,
        sites: &mut [Site],
        executed: Option<&mut [Executed]>,
    ) -> Result<Outcome, Box<Fault>> {
        let count = launch.grid.warps();
        let order = launch.order.permutation(count as u64, self.state.number);
        let mut patience = PATIENCE;
        let counting = executed.is_some();
        let tally = Tally(executed.map_or(std::ptr::null_mut(), |executed| executed.as_mut_ptr()));
        self.core.sites = sites.as_mut_ptr();
        self.core.shared = self.state.shared.as_ptr();
        self.core.block = &mut *self.state;
        loop {
            let mut ran = false;
            let mut preempted = false;
            for index in &order {
                let index = *index as usize;
                if !self.warps[index].is_ready() {
                    continue;
                }
                ran = true;
                preempted |= if counting {
                    self.run_warp::<true>(launch, index, tally)?
                } else {
                    self.run_warp::<false>(launch, index, tally)?
                };
                self.count_arrivals(launch, index);
                self.release();
            }
            if self.state.alive == 0 {
                return Ok(Outcome::Done);
            }
            let stuck = self.state.fruitless > MAX_FRUITLESS && !launch.program.may_wait;
            if stuck || !ran && !self.warps.iter_mut().take(count).any(|warp| warp.retry(false)) {
                return Err(Box::new(self.deadlock(launch)));
            }
            if preempted && launch.program.may_wait {
                patience -= 1;
                if patience == 0 {
                    return Ok(Outcome::Waiting);
                }
            }
        }
    }

    /// Runs a warp until none of its groups can; whether it gave up its turn.
    fn run_warp<const COUNT: bool>(&mut self, launch: &Launch, index: usize, tally: Tally) -> Result<bool, Box<Fault>> {
        let code = launch.program.code.as_ptr();
        let warp = &mut self.warps[index];
        let core = &mut self.core;
        core.warp = index as u32;
        core.local = warp.local.as_ptr();
        core.local_stride = launch.program.listing.local_bytes as usize;
        let mut turn = TURN;
        while let Some(mut group) = warp.take_next() {
            if group.mask & warp.alive == 0 {
                continue;
            }
            core.mask = group.mask;
            core.alive = warp.alive;
            core.enter(&group.frame, launch, warp.registers.as_ptr());
            let mut pc = group.pc;
            let mut begun = pc;
            let join = warp.join(&group);
            loop {
                // SAFETY: every path through the code ends with an exit, return or jump inside it.
                let inst = unsafe { &*code.add(pc as usize) };
                if COUNT && inst.guard != super::op::NO_GUARD {
                    // SAFETY: guards are predicate registers, and the instruction is one of the program.
                    unsafe { tally.left_out(pc, core.mask & !core.guard(inst)) };
                }
                // SAFETY: lowering gave the instruction operands that fit its operation and the current frame.
                if !unsafe { (inst.run)(core, inst) } {
                    pc += 1;
                    if pc == join {
                        // SAFETY: what ran is a part of the program.
                        unsafe { tally.ran::<COUNT>(begun..pc, group.mask) };
                        group.pc = pc;
                        warp.push(group);
                        break;
                    }
                    continue;
                }
                // Lanes that wait for others to join them come back to this instruction.
                let ran = if matches!(core.event, Event::Converge) { pc } else { pc + 1 };
                // SAFETY: as above.
                unsafe { tally.ran::<COUNT>(begun..ran, group.mask) };
                if COUNT && ran == pc && inst.guard != super::op::NO_GUARD {
                    // SAFETY: as above.
                    unsafe { tally.put_back(pc, group.mask & !core.mask) };
                }
                match std::mem::replace(&mut core.event, Event::None) {
                    Event::Jump => {
                        core.mask = group.mask;
                        if core.target <= pc {
                            turn -= 1;
                            if turn == 0 {
                                group.turns += 1;
                                group.pc = core.target;
                                self.state.fruitless = 0;
                                warp.push(group);
                                if warp.ready() == 1 {
                                    return Ok(true);
                                }
                                turn = TURN;
                                break;
                            }
                        }
                        pc = core.target;
                        begun = pc;
                        if pc >= join {
                            group.pc = pc;
                            warp.push(group);
                            break;
                        }
                    }
                    Event::Branch(taken) => {
                        let mut away = group.clone();
                        away.mask = taken;
                        away.pc = core.target;
                        group.mask &= !taken;
                        group.pc = pc + 1;
                        // Jumping back counts against the lanes that do, and only them.
                        if core.target <= pc {
                            turn -= 1;
                            if turn == 0 {
                                away.turns += 1;
                                turn = TURN;
                            }
                        }
                        warp.push(away);
                        warp.push(group);
                        break;
                    }
                    Event::Scatter(targets) => {
                        for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0) {
                            warp.push(Group { pc: targets[lane], mask: 1 << lane, ..group.clone() });
                        }
                        leave_rest(warp, &group, core.mask, pc);
                        break;
                    }
                    Event::Apart => {
                        let lanes = core.mask;
                        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
                            core.mask = 1 << lane;
                            let operation = if inst.guard == super::op::NO_GUARD { inst.run } else { inst.inner };
                            // SAFETY: as above, for one lane.
                            if unsafe { operation(core, inst) } {
                                return Err(take_fault(core, pc, launch));
                            }
                        }
                        core.mask = group.mask;
                        pc += 1;
                        begun = pc;
                        if pc == join {
                            group.pc = pc;
                            warp.push(group);
                            break;
                        }
                    }
                    Event::Exit => {
                        leave_rest(warp, &group, core.mask, pc);
                        end_lanes(&mut self.state, warp, index, core.mask);
                        break;
                    }
                    Event::Return => {
                        leave_rest(warp, &group, core.mask, pc);
                        let Some(caller) = group.callers.last().copied() else {
                            end_lanes(&mut self.state, warp, index, core.mask);
                            break;
                        };
                        let callee = group.frame;
                        copy_results(core, launch, &mut self.state, &callee, &caller);
                        group.callers.pop();
                        warp.push(Group { pc: callee.return_to, mask: core.mask, frame: caller, ..group });
                        break;
                    }
                    Event::Call(call) => {
                        leave_rest(warp, &group, core.mask, pc);
                        enter_functions(core, launch, &mut self.state, warp, &group, &call, pc)
                            .map_err(|fault| Box::new(at(fault, inst.origin)))?;
                        break;
                    }
                    Event::Barrier(arrival) => {
                        leave_rest(warp, &group, core.mask, pc);
                        if arrival.waits {
                            warp.park(Group { pc, mask: core.mask, wait: Wait::Barrier(arrival, false), ..group });
                        } else {
                            let whole = core.mask == warp.alive;
                            let again = self.state.arrive(&arrival, index, core.mask, whole, inst.origin);
                            if let Some(checks) = &mut self.state.checks {
                                if again {
                                    let thread = index as u32 * 32 + core.mask.trailing_zeros();
                                    checks.came_again(&launch.watch, inst.origin, thread);
                                }
                                checks.announced(index);
                            }
                            warp.push(Group { pc: pc + 1, mask: core.mask, ..group });
                        }
                        break;
                    }
                    Event::Converge => {
                        leave_rest(warp, &group, core.mask, pc);
                        let retried = core.mask == warp.alive;
                        warp.park(Group { pc, mask: core.mask, wait: Wait::Converge(retried), ..group });
                        break;
                    }
                    Event::Yield => {
                        leave_rest(warp, &group, core.mask, pc);
                        group.turns += 1;
                        warp.push(Group { pc: pc + 1, mask: core.mask, ..group });
                        if warp.ready() == 1 {
                            return Ok(true);
                        }
                        break;
                    }
                    event @ (Event::Fault(_) | Event::None) => {
                        core.event = event;
                        return Err(take_fault(core, pc, launch));
                    }
                }
            }
        }
        self.state.fruitless = 0;
        Ok(false)
    }
}

/// Lanes of a group that an instruction's guard left out go on.
fn leave_rest(warp: &mut Warp, group: &Group, acting: Mask, pc: u32) {
    let rest = group.mask & !acting;
    if rest != 0 {
        warp.push(Group { pc: pc + 1, mask: rest, ..group.clone() });
    }
}

fn end_lanes(state: &mut BlockState, warp: &mut Warp, index: usize, lanes: Mask) {
    warp.alive &= !lanes;
    state.alive -= lanes.count_ones();
    state.copies[index].abandon(lanes);
    warp.retry(true);
}

fn at(mut fault: Fault, origin: u32) -> Fault {
    fault.origin = origin;
    fault
}

fn take_fault(core: &mut Core, pc: u32, launch: &Launch) -> Box<Fault> {
    match std::mem::replace(&mut core.event, Event::None) {
        Event::Fault(mut fault) => {
            fault.lane += core.warp * 32;
            fault
        }
        _ => Box::new(Fault {
            kind: FaultKind::BadOperand,
            origin: launch.program.code[pc as usize].origin,
            lane: core.warp * 32,
            block: 0,
            access: None,
            detail: "the instruction cannot run here".into(),
        }),
    }
}

impl Core {
    /// A core that runs nothing.
    fn idle() -> Self {
        Self {
            regs: std::ptr::null_mut(),
            mask: 0,
            target: 0,
            event: Event::None,
            sites: std::ptr::null_mut(),
            shared: std::ptr::null_mut(),
            local: std::ptr::null_mut(),
            local_stride: 0,
            local_base: FIRST_OFFSET,
            local_size: 0,
            warp: 0,
            alive: 0,
            block: std::ptr::null_mut(),
        }
    }

    /// Makes a frame the current one.
    fn enter(&mut self, frame: &Frame, launch: &Launch, registers: *mut u8) {
        let function = &launch.program.functions[frame.function as usize];
        // SAFETY: frames lie inside the register file.
        self.regs = unsafe { registers.add(frame.registers as usize) };
        self.local_base = frame.local;
        self.local_size = function.local_bytes;
    }
}
