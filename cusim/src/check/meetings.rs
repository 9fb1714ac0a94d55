//! What blocks know of each other through atomics and the like: what one did before happens before what another does
//! afterwards.
//!
//! A block's atomic at a place makes an event, which comes after the block's event before and, if it was another block's, after
//! the last event at the place. So each atomic costs the same however many blocks there are. What a block knows is what comes
//! before its last event; that is looked up only where two blocks' accesses meet, from the latest events on, and never twice by
//! the same block.

use std::cell::RefCell;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many events are kept apart (16 bytes each); beyond that, a block's later ones count as its last, which favours the kernel.
const MAX_EVENTS: usize = 1 << 25;

/// Where there is no earlier event.
const NONE: u32 = u32::MAX;

/// All events of a launch.
#[derive(Default)]
pub struct Meetings(Mutex<State>);

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// The last event at each address.
    places: HashMap<u64, u32>,
}

struct Event {
    block: u32,
    /// The block's time.
    time: u32,
    /// Another block's event that it comes after.
    other: u32,
    /// The block's event before.
    own: u32,
}

/// What a block knows of others.
#[derive(Default)]
pub struct Known {
    meetings: Option<Arc<Meetings>>,
    /// Its last event.
    last: Option<u32>,
    /// The latest event of each other block that one of its own comes directly after.
    newest: HashMap<u32, u32>,
    search: RefCell<Search>,
}

/// How far a block has looked up what it knows.
#[derive(Default)]
struct Search {
    /// Events that are known, whose predecessors are not looked up yet.
    frontier: BinaryHeap<u32>,
    found: HashSet<u32>,
    /// The latest known time of each block.
    times: HashMap<u32, u32>,
}

impl Meetings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Search {
    fn add(&mut self, event: u32) {
        if event != NONE && self.found.insert(event) {
            self.frontier.push(event);
        }
    }
}

impl Known {
    /// The block accesses a place where blocks meet; if it writes, others learn there what it knows.
    pub fn meet(&mut self, meetings: &Arc<Meetings>, (block, time): (u32, u32), place: u64, writes: bool) {
        let all = &mut *meetings.state();
        let before = all.places.get(&place).map(|event| (*event, all.events[*event as usize].block));
        let other = before.filter(|(event, by)| *by != block && self.newest.get(by).is_none_or(|known| known < event));
        if let Some((event, by)) = other {
            self.newest.insert(by, event);
        } else if !writes {
            return;
        }
        let full = all.events.len() >= MAX_EVENTS;
        // The last event stands for this one too, if nothing has changed since.
        let same = self.last.filter(|last| full || other.is_none() && all.events[*last as usize].time == time);
        let event = same.unwrap_or_else(|| {
            let other = other.map_or(NONE, |(event, _)| event);
            all.events.push(Event { block, time, other, own: self.last.unwrap_or(NONE) });
            all.events.len() as u32 - 1
        });
        all.events[event as usize].time = time;
        self.last = Some(event);
        if writes {
            all.places.insert(place, event);
        }
        if self.meetings.is_none() {
            self.meetings = Some(meetings.clone());
        }
    }

    /// Whether it knows of any other block.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Whether what another block did until then happened before now.
    pub fn includes(&self, block: u32, time: u32) -> bool {
        let (Some(meetings), Some(last)) = (&self.meetings, self.last) else {
            return false;
        };
        let all = meetings.state();
        let search = &mut *self.search.borrow_mut();
        search.add(last);
        while search.times.get(&block).is_none_or(|known| *known < time) {
            let Some(next) = search.frontier.pop() else {
                return false;
            };
            let event = &all.events[next as usize];
            let known = search.times.entry(event.block).or_default();
            *known = event.time.max(*known);
            search.add(event.other);
            search.add(event.own);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks that meet at places.
    struct Blocks(Arc<Meetings>, Vec<Known>);

    impl Blocks {
        fn new(count: usize) -> Self {
            Self(Arc::default(), (0..count).map(|_| Known::default()).collect())
        }

        fn meet(&mut self, block: usize, time: u32, place: u64, writes: bool) {
            self.1[block].meet(&self.0, (block as u32, time), place, writes);
        }

        fn knows(&self, block: usize, other: u32, time: u32) -> bool {
            self.1[block].includes(other, time)
        }
    }

    #[test]
    fn knowledge_goes_on_and_does_not_go_back() {
        let mut blocks = Blocks::new(4);
        blocks.meet(0, 1, 100, true);
        blocks.meet(0, 5, 200, true);
        blocks.meet(1, 1, 100, true);
        assert!(blocks.knows(1, 0, 1) && !blocks.knows(1, 0, 2), "what came after the first release");
        assert!(!blocks.knows(0, 1, 1) && blocks.1[0].is_empty());
        blocks.meet(1, 2, 300, true);
        blocks.meet(2, 1, 300, false);
        assert!(blocks.knows(2, 1, 2) && blocks.knows(2, 0, 1) && !blocks.knows(2, 0, 2), "through block 1");
        blocks.meet(3, 1, 300, false);
        blocks.meet(2, 1, 400, true);
        blocks.meet(3, 1, 500, false);
        assert!(!blocks.knows(3, 2, 1), "at another place");
        blocks.meet(2, 7, 300, false);
        blocks.meet(3, 1, 300, false);
        assert!(!blocks.knows(3, 2, 1), "who only reads releases nothing");
        blocks.meet(2, 7, 200, false);
        assert!(blocks.knows(2, 0, 5) && !blocks.knows(2, 0, 6), "more of a block that it knew");
    }

    #[test]
    fn what_was_released_before_is_not_what_was_learnt_later() {
        let mut blocks = Blocks::new(3);
        blocks.meet(0, 1, 100, true);
        blocks.meet(1, 1, 200, true);
        blocks.meet(1, 1, 100, true);
        blocks.meet(2, 1, 200, true);
        assert!(blocks.knows(2, 1, 1) && !blocks.knows(2, 0, 1));
    }

    #[test]
    fn many_blocks_at_many_places_make_few_events() {
        let (count, places) = (500, 64);
        let mut blocks = Blocks::new(count);
        for block in 0..count {
            for round in 0..20 {
                for place in 0..places {
                    blocks.meet(block, 1, place * 7 % places + round % 2, true);
                }
            }
        }
        let events = blocks.0.state().events.len();
        assert!(events <= count * (places as usize + 1), "{events} events of {} atomics", count * 20 * places as usize);
        assert!((0..count as u32 - 1).all(|other| blocks.knows(count - 1, other, 1)));
    }
}
