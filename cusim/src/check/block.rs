//! Checks of one block.

use crate::exec::copies::Copy;
use crate::exec::event::Arrival;
use crate::exec::launch::Launch;
use crate::exec::observe::Seen;
use crate::exec::op::Mask;

pub struct BlockChecks {}

impl BlockChecks {
    pub fn new(_launch: &Launch, _number: u64) -> Self {
        Self {}
    }
    pub fn accessed(&mut self, _launch: &Launch, _seen: &Seen, _stored: Option<&[u32; 32]>) {}
    pub fn inactive_source(&mut self, _launch: &Launch, _origin: u32, _thread: u32, _lanes: Mask) {}
    pub fn at_barrier(
        &mut self,
        _launch: &Launch,
        _origin: u32,
        _thread: u32,
        _arrival: &Arrival,
        _whole: bool,
        _alive: u32,
    ) {
    }
    pub fn barrier_completed(&mut self, _all: bool) {}
    pub fn warp_synchronised(&mut self, _warp: u32, _mask: Mask) {}
    pub fn fence(&mut self, _warp: u32, _mask: Mask) {}
    pub fn copy_started(&mut self, _warp: u32, _copy: &Copy) {}
    pub fn copy_landed(&mut self, _warp: u32, _copy: &Copy) {}
    pub fn block_ended(&mut self, _launch: &Launch) {}
}
