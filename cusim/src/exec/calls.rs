//! Calls: frames, arguments and results.

use super::block::BlockState;
use super::core::Core;
use super::event::Call;
use super::frame::{Scope, Surroundings, fill};
use super::launch::Launch;
use super::program::Slot;
use super::warp::{Frame, Group, Wait, Warp};
use crate::machine::address::FIRST_OFFSET;
use crate::machine::fault::{Fault, FaultKind};
use crate::machine::names::readable;
use crate::machine::{LANES, Mask};

/// What a frame's constants are made from.
pub fn surroundings<'a>(launch: &'a Launch, state: &BlockState, warp: u32, local_base: u32) -> Surroundings<'a> {
    Surroundings {
        block_size: launch.grid.block,
        grid_size: launch.grid.extent,
        block_index: state.index,
        warp,
        params: &launch.params,
        dynamic_shared: launch.grid.dynamic_shared,
        total_shared: launch.program.listing.shared.static_bytes + launch.grid.dynamic_shared,
        grid_id: launch.grid.id,
        workspace: launch.workspace,
        multiprocessors: launch.multiprocessors,
        local_base,
    }
}

/// Copies argument or result bytes between frames, for the running lanes.
fn copy_slots(core: &Core, from: (u32, &[Slot]), to: (u32, &[Slot])) {
    for (source, target) in from.1.iter().zip(to.1) {
        let bytes = source.bytes.min(target.bytes) as usize;
        for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0) {
            // SAFETY: frames lie inside each lane's local memory, which calls check before they enter one.
            unsafe {
                let memory = core.local.add(lane * core.local_stride);
                let source = memory.add((from.0 - FIRST_OFFSET + source.offset) as usize);
                let target = memory.add((to.0 - FIRST_OFFSET + target.offset) as usize);
                std::ptr::copy(source, target, bytes);
            }
        }
    }
}

/// Tells the checks that frames' slots were written.
fn note_passed(core: &Core, launch: &Launch, state: &mut BlockState, local: u32, slots: &[Slot]) {
    let Some(checks) = &mut state.checks else {
        return;
    };
    for lane in (0..LANES as u32).filter(|lane| core.mask >> lane & 1 != 0) {
        for slot in slots {
            checks.local_passed(&launch.watch, core.warp * 32 + lane, local - FIRST_OFFSET + slot.offset, slot.bytes);
        }
    }
}

/// Hands a function's results to its caller.
pub fn copy_results(core: &Core, launch: &Launch, state: &mut BlockState, callee: &Frame, caller: &Frame) {
    let returns = &launch.program.functions[callee.function as usize].returns;
    let results = &launch.program.calls[callee.site as usize].results;
    copy_slots(core, (callee.local, returns), (caller.local, results));
    note_passed(core, launch, state, caller.local, results);
}

/// Makes a group for each function that the lanes of a call enter.
pub fn enter_functions(
    core: &mut Core,
    launch: &Launch,
    state: &mut BlockState,
    warp: &mut Warp,
    group: &Group,
    call: &Call,
    pc: u32,
) -> Result<(), Fault> {
    let program = launch.program;
    let caller = &program.functions[group.frame.function as usize];
    let site = &program.calls[call.site as usize];
    let acting = core.mask;
    let mut left = acting;
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let function = call.targets[first];
        let lanes = (0..LANES).filter(|lane| left >> lane & 1 != 0 && call.targets[*lane] == function);
        let mask = lanes.fold(0, |mask: Mask, lane| mask | 1 << lane);
        left &= !mask;
        let callee = &program.functions[function as usize];
        let failed = |kind, detail| Fault {
            kind,
            origin: 0,
            lane: core.warp * 32 + first as u32,
            block: 0,
            access: None,
            detail,
        };
        let sizes = |slots: &[Slot]| slots.iter().map(|slot| slot.bytes).collect::<Vec<_>>();
        if sizes(&callee.params) != sizes(&site.args) || sizes(&callee.returns) != sizes(&site.results) {
            let name = readable(&callee.name);
            let detail = format!("{name} takes other parameters than this call passes");
            return Err(failed(FaultKind::BadCall, detail));
        }
        let frame = Frame {
            function,
            registers: group.frame.registers + caller.register_bytes,
            local: group.frame.local + caller.local_bytes,
            site: call.site,
            return_to: pc + 1,
        };
        let fits = frame.registers + callee.register_bytes <= program.register_bytes
            && frame.local - FIRST_OFFSET + callee.local_bytes <= program.listing.local_bytes;
        if !fits {
            let detail = format!(
                "calling {} at depth {} needs more than the {} bytes of stack per thread",
                readable(&callee.name),
                group.callers.len() + 1,
                program.listing.local_bytes
            );
            return Err(failed(FaultKind::StackOverflow, detail));
        }
        core.mask = mask;
        copy_slots(core, (group.frame.local, &site.args), (frame.local, &callee.params));
        note_passed(core, launch, state, frame.local, &callee.params);
        let around = surroundings(launch, state, core.warp, frame.local);
        // SAFETY: the frame fits the register file.
        unsafe { fill(warp.registers.as_ptr().add(frame.registers as usize), callee, &around, mask, Scope::All) };
        let mut callers = group.callers.clone();
        callers.push(group.frame);
        warp.push(Group { pc: callee.entry, mask, frame, callers, wait: Wait::Ready, turns: group.turns });
    }
    core.mask = acting;
    Ok(())
}
