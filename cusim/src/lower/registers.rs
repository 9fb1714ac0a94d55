//! Gives virtual registers places in the frame, so that registers that are never needed at once share one.
//!
//! A frame of a few kilobytes stays in the processor's first cache; one place per PTX register would not.

use super::draft::{Draft, Flow, Reg, RegInfo};

/// Where registers are.
pub struct Assignment {
    /// Offset of each register.
    pub slots: Vec<u32>,
    /// Whether a register is used at all.
    pub used: Vec<bool>,
    /// Size of the frame.
    pub bytes: u32,
    /// The most 32-bit registers needed at once.
    pub pressure: u32,
    /// Registers that are read before they are written on some path.
    pub undefined: Vec<Reg>,
}

/// Bytes of a register.
fn size(bits: u32) -> u32 {
    match bits {
        1 => 4,
        bits => bits * 4,
    }
}

/// A straight run of drafts.
struct Stretch {
    start: usize,
    end: usize,
    next: Vec<usize>,
}

/// Registers as a bit set.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn insert(&mut self, reg: Reg) {
        self.0[reg as usize / 64] |= 1 << (reg % 64);
    }

    fn remove(&mut self, reg: Reg) {
        self.0[reg as usize / 64] &= !(1 << (reg % 64));
    }

    fn iter(&self) -> impl Iterator<Item = Reg> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(word as u32 * 64 + bit)
            })
        })
    }
}

/// Assigns places. `labels` are draft indices.
pub fn assign(drafts: &[Draft], regs: &[RegInfo], labels: &[usize]) -> Assignment {
    let stretches = stretches(drafts, labels);
    let live_in = liveness(drafts, regs, &stretches);
    let mut range: Vec<Option<(usize, usize)>> = vec![None; regs.len()];
    let mut extend = |reg: Reg, at: usize| {
        let range = &mut range[reg as usize];
        *range = Some(range.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
    };
    for (index, stretch) in stretches.iter().enumerate() {
        // Positions are doubled: uses at even ones, definitions at the odd ones that follow.
        live_in[index].iter().for_each(|reg| extend(reg, 2 * stretch.start));
        for next in &stretch.next {
            live_in[*next].iter().for_each(|reg| extend(reg, 2 * stretch.end));
        }
        for at in stretch.start..stretch.end {
            let draft = &drafts[at];
            draft.uses.iter().for_each(|reg| extend(*reg, 2 * at));
            draft.defs.iter().for_each(|reg| extend(*reg, 2 * at + 1));
            if let Some((guard, _)) = draft.guard {
                extend(guard, 2 * at + 1);
            }
        }
    }
    let is_variable = |reg: &Reg| regs[*reg as usize].constant.is_none();
    let undefined = live_in.first().map_or(vec![], |set| set.iter().filter(is_variable).collect());
    let mut assignment = allocate(regs, &range);
    assignment.undefined = undefined;
    assignment
}

fn stretches(drafts: &[Draft], labels: &[usize]) -> Vec<Stretch> {
    let mut starts: Vec<usize> = labels.iter().copied().filter(|at| *at < drafts.len()).chain([0]).collect();
    let after_jumps = drafts.iter().enumerate().filter(|(_, draft)| draft.flow != Flow::Next).map(|(at, _)| at + 1);
    starts.extend(after_jumps.filter(|at| *at < drafts.len()));
    starts.sort_unstable();
    starts.dedup();
    let find = |at: usize| starts.binary_search(&at).ok();
    let mut stretches = vec![];
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(drafts.len());
        let label = |label: &u32| find(labels[*label as usize]);
        let fall = find(end);
        let next = match drafts.get(end.wrapping_sub(1)).map(|draft| &draft.flow) {
            Some(Flow::Jump(to)) => label(to).into_iter().collect(),
            Some(Flow::Branch(to)) => label(to).into_iter().chain(fall).collect(),
            Some(Flow::Table(to)) => to.iter().filter_map(label).collect(),
            Some(Flow::End) => vec![],
            _ => fall.into_iter().collect(),
        };
        stretches.push(Stretch { start: *start, end, next });
    }
    stretches
}

/// Registers needed at the start of each stretch.
fn liveness(drafts: &[Draft], regs: &[RegInfo], stretches: &[Stretch]) -> Vec<Set> {
    let mut live_in = vec![Set::new(regs.len()); stretches.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for index in (0..stretches.len()).rev() {
            let stretch = &stretches[index];
            let mut live = Set::new(regs.len());
            for next in &stretch.next {
                live.0.iter_mut().zip(&live_in[*next].0).for_each(|(word, more)| *word |= more);
            }
            for draft in drafts[stretch.start..stretch.end].iter().rev() {
                for def in &draft.defs {
                    // A guarded write keeps the other lanes' values, except of a temporary, which has none.
                    if draft.guard.is_none() || regs[*def as usize].temporary {
                        live.remove(*def);
                    }
                }
                draft.uses.iter().for_each(|reg| live.insert(*reg));
                if let Some((guard, _)) = draft.guard {
                    live.insert(guard);
                }
            }
            if live != live_in[index] {
                live_in[index] = live;
                changed = true;
            }
        }
    }
    live_in
}

/// Linear scan over live ranges; constants come first and keep their places.
fn allocate(regs: &[RegInfo], range: &[Option<(usize, usize)>]) -> Assignment {
    let mut slots = vec![0; regs.len()];
    let mut end = 0u32;
    let mut predicates = 0;
    let used = |reg: usize| range[reg].is_some();
    // Predicates are small: they stay together, at the start of the frame.
    for reg in (0..regs.len()).filter(|reg| regs[*reg].bits == 1 && used(*reg)) {
        slots[reg] = predicates;
        predicates += size(1);
    }
    end += predicates.next_multiple_of(64);
    for reg in (0..regs.len()).filter(|reg| regs[*reg].constant.is_some() && regs[*reg].bits > 1 && used(*reg)) {
        slots[reg] = end;
        end += size(regs[reg].bits);
    }
    let mut order: Vec<usize> =
        (0..regs.len()).filter(|reg| used(*reg) && regs[*reg].bits > 1 && regs[*reg].constant.is_none()).collect();
    order.sort_by_key(|reg| range[*reg]);
    let mut active: Vec<(usize, usize)> = vec![];
    let mut free: [Vec<u32>; 3] = Default::default();
    let class = |bits: u32| match bits {
        16 => 0,
        32 => 1,
        _ => 2,
    };
    let (mut current, mut pressure) = (0, 0);
    for reg in order {
        let Some((first, last)) = range[reg] else {
            continue;
        };
        active.retain(|(over, old)| {
            let ended = *over < first;
            if ended {
                free[class(regs[*old].bits)].push(slots[*old]);
                current -= regs[*old].bits.div_ceil(32);
            }
            !ended
        });
        slots[reg] = free[class(regs[reg].bits)].pop().unwrap_or_else(|| {
            let slot = end;
            end += size(regs[reg].bits);
            slot
        });
        active.push((last, reg));
        current += regs[reg].bits.div_ceil(32);
        pressure = pressure.max(current);
    }
    let used = range.iter().map(Option::is_some).collect();
    Assignment { slots, used, bytes: end.next_multiple_of(64).max(64), pressure, undefined: vec![] }
}
