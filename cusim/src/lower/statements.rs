//! The statements of a function, one after the other.

use std::sync::Arc;

use super::body::Body;
use super::draft::Flow;
use super::instruction;
use super::problem::Problem;
use crate::exec::control;
use crate::machine::listing::Origin;
use crate::ptx::{Instruction, SourceLine, Statement};

impl<'m> Body<'_, 'm> {
    /// Lowers all statements, collecting problems.
    pub fn lower(&mut self) {
        let function = self.function;
        self.declare_params();
        let body: &'m [Statement<'m>] = function.body.as_deref().unwrap_or(&[]);
        self.survey(body);
        let mut source = (SourceLine::default(), Arc::from([]));
        for (index, statement) in body.iter().enumerate() {
            match statement {
                Statement::Line { line, callers } => source = (*line, callers.clone()),
                Statement::Label(name) => {
                    if let Some(label) = self.label_names.get(name) {
                        self.labels[*label as usize] = self.drafts.len();
                    }
                }
                Statement::Instruction(instruction) => self.instruction(instruction, &source),
                statement => {
                    if let Err(problem) = self.declare(index, statement) {
                        self.problems.push((function.line, problem));
                    }
                }
            }
        }
        // Nothing may run past the end.
        self.push(control::ret(), vec![], vec![]);
        if let Some(last) = self.drafts.last_mut() {
            last.flow = Flow::End;
        }
    }

    /// Lowers one instruction, or notes why not.
    fn instruction(&mut self, instruction: &'m Instruction<'m>, (source, callers): &(SourceLine, Arc<[SourceLine]>)) {
        self.origin = self.program.listing.origins.len() as u32;
        let text = instruction.opcode.to_string();
        let work = super::work::classify(instruction.opcode);
        self.program.listing.origins.push(Origin {
            ptx_line: instruction.line,
            source: *source,
            callers: callers.clone(),
            text,
            work,
        });
        let start = self.drafts.len();
        let guard = match instruction.guard.map(|(negated, name)| Ok::<_, Problem>((self.register(name)?, negated))) {
            None => None,
            Some(Ok(guard)) => Some(guard),
            Some(Err(problem)) => {
                self.problems.push((instruction.line, problem));
                return;
            }
        };
        if let Err(problem) = instruction::lower(self, instruction, guard.is_some()) {
            self.problems.push((instruction.line, format!("{}: {problem}", instruction.opcode)));
            return;
        }
        if guard.is_some() {
            self.drafts[start..].iter_mut().for_each(|draft| draft.guard = guard);
        }
    }
}
