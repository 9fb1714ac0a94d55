//! Reports of the sanitizer: printed once, kept for the JSON file.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::Checks;
use crate::json::Json;
use crate::machine::fault::Fault;
use crate::machine::grid::Grid;
use crate::machine::names::readable;
use crate::mem::{AllocationKind, Memory};

/// A place in a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Index of the PTX instruction.
    pub origin: u32,
    /// Number of the block.
    pub block: u64,
    /// Number of the thread in it.
    pub thread: u32,
}

/// Something that a correct program does not do.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The check that found it.
    pub check: &'static str,
    /// What was found, in a few words.
    pub title: String,
    /// The kernel; empty for calls of the host.
    pub kernel: String,
    /// Its name in the PTX.
    pub symbol: String,
    /// Block and thread, as coordinates.
    pub place: String,
    /// PTX line and source line.
    pub line: String,
    /// Address, allocation, other access.
    pub details: Vec<String>,
}

/// Where reports go.
#[derive(Default)]
pub struct Sink {
    checks: Checks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reports: Vec<Report>,
    seen: HashSet<Key>,
}

/// Check, kernel, instruction and other instruction.
type Key = (&'static str, String, u32, u32);

/// What a check found, before it is known whether that was reported already.
pub struct Finding {
    key: Key,
    report: Report,
}

impl Finding {
    /// Whether both would be reported as one.
    pub fn repeats(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Sink {
    /// With these checks on.
    pub fn new(checks: Checks) -> Self {
        Self { checks, state: Mutex::default() }
    }

    /// The checks that are on.
    pub fn checks(&self) -> Checks {
        self.checks
    }

    /// Whether memory accesses have to be shown.
    pub fn watches(&self) -> bool {
        self.checks.any()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many reports there are.
    pub fn count(&self) -> usize {
        self.state().reports.len()
    }

    /// A copy of the reports.
    pub fn reports(&self) -> Vec<Report> {
        self.state().reports.clone()
    }

    /// Forgets all reports.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    fn add(&self, report: Report) {
        eprint!("{report}");
        self.state().reports.push(report);
    }

    /// A misuse of the API by the host.
    pub fn host(&self, call: &str, message: &str) {
        self.add(Report { check: "mem", title: message.to_string(), place: call.to_string(), ..Report::default() });
    }

    /// A copy for the host of what nothing wrote.
    pub fn unwritten(&self, call: &str, title: &str, inside: String) {
        let (title, place) = (title.to_string(), call.to_string());
        self.add(Report { check: "init", title, place, details: vec![inside], ..Report::default() });
    }

    /// A fault that ended a launch.
    pub fn fault(&self, grid: &Grid, fault: &Fault) {
        let title = match &fault.access {
            Some(access) => format!(
                "{:?}: {} {} bytes at {:#x} in {} memory",
                fault.kind,
                if access.write { "writes" } else { "reads" },
                access.bytes,
                access.address,
                access.space
            ),
            None => format!("{:?}", fault.kind),
        };
        let spot = Spot { origin: fault.origin, block: fault.block, thread: fault.lane };
        let mut report = describe(grid, fault.kind.check(), title, &spot);
        report.details.push(fault.detail.clone());
        self.add(report);
    }

    /// Whether something was reported already.
    fn knows(&self, key: &Key) -> bool {
        self.state().seen.contains(key)
    }

    /// Describes what was found, unless it was reported already.
    pub fn finding(
        &self,
        grid: &Grid,
        check: &'static str,
        title: impl FnOnce() -> String,
        spot: &Spot,
        other: Option<(&Spot, &str)>,
        details: impl FnOnce() -> Vec<String>,
    ) -> Option<Finding> {
        let key = (check, grid.listing.name.clone(), spot.origin, other.map_or(u32::MAX, |other| other.0.origin));
        if self.knows(&key) {
            return None;
        }
        let mut report = describe(grid, check, title(), spot);
        if let Some((other, what)) = other {
            let there = describe(grid, check, String::new(), other);
            report.details.push(format!("{what} {}, {}", there.place, there.line));
        }
        report.details.extend(details());
        Some(Finding { key, report })
    }

    /// Something that a check found, once per instruction (and other instruction).
    pub fn found(&self, finding: Finding) {
        if self.state().seen.insert(finding.key) {
            self.add(finding.report);
        }
    }

    /// Memory that was never freed.
    pub fn leaks(&self, memory: &Memory) {
        let counts = |kind| !matches!(kind, AllocationKind::Module | AllocationKind::Registered);
        let leaked: Vec<_> = memory.live().filter(|allocation| counts(allocation.kind)).collect();
        let bytes: u64 = leaked.iter().map(|allocation| allocation.bytes).sum();
        if leaked.is_empty() {
            return;
        }
        let details = leaked.iter().take(10).map(|allocation| allocation.describe()).collect();
        self.add(Report {
            check: "leak",
            title: format!("{} allocations of {bytes} bytes were never freed", leaked.len()),
            place: "at exit".into(),
            details,
            ..Report::default()
        });
    }

    /// All reports as JSON.
    pub fn to_json(&self) -> String {
        let reports = self.state().reports.iter().map(Report::to_json).collect();
        Json::object([("reports", Json::Array(reports))]).to_string()
    }
}

/// Fills in kernel, thread and line.
fn describe(grid: &Grid, check: &'static str, title: String, spot: &Spot) -> Report {
    let listing = grid.listing;
    let [tx, ty, _] = grid.block;
    let block: (u64, u64, u64) = grid.place(spot.block).into();
    let thread = (spot.thread % tx, spot.thread / tx % ty, spot.thread / tx / ty);
    let (line, text) =
        listing.origins.get(spot.origin as usize).map_or((0, "?"), |origin| (origin.ptx_line, origin.text.as_str()));
    let source = listing.source_of(spot.origin).map_or(String::new(), |source| format!(", {source}"));
    Report {
        check,
        title,
        kernel: readable(&listing.name),
        symbol: listing.name.clone(),
        place: format!("block {block:?} thread {thread:?}"),
        line: format!("PTX line {line} ({text}){source}"),
        details: vec![],
    }
}

impl Report {
    fn to_json(&self) -> Json {
        let text = |text: &str| Json::String(text.to_string());
        Json::object([
            ("check", text(self.check)),
            ("title", text(&self.title)),
            ("kernel", text(&self.kernel)),
            ("symbol", text(&self.symbol)),
            ("place", text(&self.place)),
            ("line", text(&self.line)),
            ("details", Json::Array(self.details.iter().map(|detail| text(detail)).collect())),
        ])
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "cusim: [{}] {}", self.check, self.title)?;
        if self.kernel.is_empty() {
            writeln!(f, "    in {}", self.place)?;
        } else {
            writeln!(f, "    in kernel {}, {}", self.kernel, self.place)?;
            writeln!(f, "    at {}", self.line)?;
        }
        self.details.iter().try_for_each(|detail| writeln!(f, "    {detail}"))
    }
}
