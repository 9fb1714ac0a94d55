//! Counters.

use crate::exec::program::Program;
use crate::exec::scheduler::Executed;

#[derive(Default)]
pub struct Counters {}

impl Counters {
    pub fn to_json(&self) -> String {
        String::new()
    }

    pub fn add_executed(&mut self, _program: &Program, _executed: &[Executed]) {}
}
