//! Graphs: what was recorded, made ready to run, and brought up to date.

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::thread::ThreadId;

use super::code::*;
use super::handles::Kind;
use super::work::{End, Node, Place, Work};
use super::{Driver, say};
use crate::mem::AllocationKind;

/// A graph.
#[derive(Default)]
pub struct Graph {
    /// Its nodes in the order in which they were recorded, which respects all dependencies.
    pub nodes: Vec<Node>,
    /// Memory that its allocation nodes own, together with its instances.
    pub memory: Arc<Vec<u64>>,
    /// The capture that it is being filled by.
    pub recording: Option<Recording>,
}

impl Kind for Graph {
    const TAG: u64 = 0x54;
}

/// A capture under way.
pub struct Recording {
    /// Which threads it keeps from unsafe calls: all, this one, none.
    pub(super) mode: u32,
    /// The thread that began it.
    pub(super) thread: ThreadId,
    /// Steps recorded per stream.
    pub(super) counts: HashMap<u64, usize>,
    /// Whether it was spoiled.
    pub(super) broken: bool,
}

/// A graph ready to run.
pub struct GraphExec {
    /// Its nodes.
    pub nodes: Arc<Vec<Node>>,
    /// Memory that their allocation nodes own.
    memory: Arc<Vec<u64>>,
}

impl Kind for GraphExec {
    const TAG: u64 = 0x55;
}

/// Upper bits of the handles of nodes, which serve to tell nodes apart and nothing else.
const NODE_TAG: u64 = 0x59;

/// `CUgraphExecUpdateResult`.
mod result {
    pub const ERROR: u32 = 1;
    pub const TOPOLOGY_CHANGED: u32 = 2;
    pub const NODE_TYPE_CHANGED: u32 = 3;
    pub const PARAMETERS_CHANGED: u32 = 5;
    pub const NOT_SUPPORTED: u32 = 6;
    pub const UNSUPPORTED_FUNCTION_CHANGE: u32 = 7;
    pub const ATTRIBUTES_CHANGED: u32 = 8;
}

/// Why a graph cannot take another's place: `CUgraphExecUpdateResultInfo`, and the code that the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the call returns.
    pub code: Code,
    /// What kind of change it was.
    pub result: u32,
    /// The new graph's node that does not fit, 0 if none is to blame.
    pub node: u64,
    /// Where the edge that does not fit comes from, 0 if no edge is to blame.
    pub from: u64,
}

/// A change that an update cannot make, at a node and perhaps an edge of the new graph.
struct Change {
    result: u32,
    node: Option<usize>,
    from: Option<usize>,
}

impl Change {
    fn at(result: u32, node: usize) -> Self {
        Self { result, node: Some(node), from: None }
    }
}

/// Fails where the nodes differ in what an update cannot change. They are paired in the order of their recording.
fn compare(old: &[Node], new: &[Node]) -> Result<(), Change> {
    if old.len() != new.len() {
        return Err(Change { result: result::TOPOLOGY_CHANGED, node: None, from: None });
    }
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        if old.after.len() != new.after.len() {
            return Err(Change::at(result::TOPOLOGY_CHANGED, index));
        }
        if let Some((_, from)) = old.after.iter().zip(&new.after).find(|(old, new)| old != new) {
            return Err(Change { from: Some(*from), ..Change::at(result::TOPOLOGY_CHANGED, index) });
        }
        if discriminant(&old.work) != discriminant(&new.work) {
            return Err(Change::at(result::NODE_TYPE_CHANGED, index));
        }
        let change = match (&old.work, &new.work) {
            (Work::Launch(old), Work::Launch(new)) if old.device != new.device => result::UNSUPPORTED_FUNCTION_CHANGE,
            (Work::Launch(old), Work::Launch(new)) if old.how != new.how => result::ATTRIBUTES_CHANGED,
            (Work::Fill { width: old, .. }, Work::Fill { width: new, .. }) if old != new => result::PARAMETERS_CHANGED,
            (Work::Graph(old), Work::Graph(new)) => match compare(old, new) {
                Ok(()) => continue,
                Err(change) => change.result,
            },
            _ if old.ends != new.ends => result::PARAMETERS_CHANGED,
            _ => continue,
        };
        return Err(Change::at(change, index));
    }
    Ok(())
}

/// The handle of a node.
fn handle(graph: u64, node: Option<usize>) -> u64 {
    node.map_or(0, |index| NODE_TAG << 56 | (graph & 0xffff_ffff) << 24 | (index as u64 + 1))
}

impl Driver {
    /// Adds a node to a graph; gives its number.
    pub fn add_node(&mut self, graph: u64, work: Work, after: Vec<usize>) -> Result<usize, Code> {
        let ends = match &work {
            Work::Copy { to, from, .. } => vec![self.end(*to), self.end(*from)],
            Work::CopyRows(copy) => vec![self.end(copy.to.start), self.end(copy.from.start)],
            Work::Fill { to, .. } => vec![self.end(Place::Device(*to))],
            _ => vec![],
        };
        let nodes = &mut self.graphs.get_mut(graph)?.nodes;
        nodes.push(Node { work, after, ends });
        Ok(nodes.len() - 1)
    }

    fn end(&self, place: Place) -> End {
        let allocation = match place {
            Place::Device(address) => self.memory.find(address),
            Place::Host(_) => None,
        };
        match allocation.map(|allocation| (allocation.kind, allocation.device)) {
            None | Some((AllocationKind::Pinned | AllocationKind::Registered, _)) => End::Host,
            Some((AllocationKind::Managed, device)) => End::Managed(device),
            Some((_, device)) => End::Device(device),
        }
    }

    fn ready(&self, graph: u64) -> Result<GraphExec, Code> {
        let graph = self.graphs.get(graph)?;
        if graph.recording.is_some() {
            return Err(INVALID_VALUE);
        }
        Ok(GraphExec { nodes: Arc::new(graph.nodes.clone()), memory: graph.memory.clone() })
    }

    /// Makes a graph ready to run.
    pub fn instantiate(&mut self, graph: u64) -> Result<u64, Code> {
        let exec = self.ready(graph)?;
        Ok(self.execs.add(exec))
    }

    /// Gives a graph that is ready to run the parameters of another of the same topology. Launches that were queued
    /// before run as they were. Nothing changes if it is refused.
    pub fn update_exec(&mut self, exec: u64, graph: u64) -> Result<(), Refusal> {
        let invalid = |_| Refusal { code: INVALID_VALUE, result: result::ERROR, node: 0, from: 0 };
        let new = self.ready(graph).map_err(invalid)?;
        let old = self.execs.get_mut(exec).map_err(invalid)?;
        let compared = match !old.memory.is_empty() || !new.memory.is_empty() {
            true => Err(Change { result: result::NOT_SUPPORTED, node: None, from: None }),
            false => compare(&old.nodes, &new.nodes),
        };
        compared.map_err(|Change { result, node, from }| Refusal {
            code: GRAPH_EXEC_UPDATE_FAILURE,
            result,
            node: handle(graph, node),
            from: handle(graph, from),
        })?;
        *old = new;
        Ok(())
    }

    /// Runs a graph in a stream.
    pub fn launch_graph(&mut self, exec: u64, stream: u64) -> Result<(), Code> {
        let exec = self.execs.get(exec)?;
        let nodes = exec.nodes.clone();
        let captured = self.streams.get(stream)?.capture.as_ref().map(|capture| capture.graph);
        if let Some(graph) = captured.filter(|_| !exec.memory.is_empty()) {
            say("cuGraphLaunch: a graph that allocates memory cannot become part of another");
            self.spoil(graph);
            return Err(NOT_SUPPORTED);
        }
        self.submit(stream, Work::Graph(nodes))
    }

    /// Ends a graph.
    pub fn destroy_graph(&mut self, graph: u64) -> Result<(), Code> {
        let graph = self.graphs.remove(graph)?;
        self.release(graph.memory)
    }

    /// Ends an instance of a graph.
    pub fn destroy_exec(&mut self, exec: u64) -> Result<(), Code> {
        let exec = self.execs.remove(exec)?;
        self.release(exec.memory)
    }

    /// Frees what allocation nodes own once neither their graph nor an instance of it is left.
    fn release(&mut self, memory: Arc<Vec<u64>>) -> Result<(), Code> {
        let Some(memory) = Arc::into_inner(memory).filter(|memory| !memory.is_empty()) else {
            return Ok(());
        };
        // Launches that are still queued use it.
        let drained = self.drain_all();
        let freed = super::all(memory.into_iter().map(|start| {
            // The program may have freed it after a launch.
            let is_left = self.memory.find(start).is_some_and(|allocation| !allocation.freed);
            if is_left { self.free_now(start) } else { Ok(()) }
        }));
        drained.and(freed)
    }
}
