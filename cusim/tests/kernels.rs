//! Correct kernels: right results at every optimisation level, in every order, and no report from any check; and
//! their mutants, each of which must give a report or a wrong result.

mod suite;
mod support;

use cusim::check::Checks;
use cusim::exec::copies::Landing;
use cusim::exec::order::Order;
use cusim::lower::LowerError;
use cusim::sandbox::{Arg, Sandbox};
use suite::{CASES, Case, agrees};

/// What a run showed.
#[derive(Debug)]
enum Shown {
    /// The right result and no report.
    Nothing,
    /// A wrong result.
    WrongResult,
    /// Reports, or a fault.
    Reports(#[allow(dead_code, reason = "printed where a test fails")] Vec<String>),
}

/// Runs a case's kernel from this PTX.
fn run(case: &Case, ptx: &str, order: Order, landing: Landing) -> Result<Shown, LowerError> {
    // One at a time: with all checks a sandbox reserves a large part of the address space.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Where blocks go backwards, they do so in parallel.
    let mut sandbox = Sandbox::new(if order == Order::Reverse { 2 } else { 1 });
    sandbox.check(Checks::ALL);
    (sandbox.order, sandbox.landing) = (order, landing);
    let image = sandbox.load(ptx).unwrap_or_else(|error| panic!("{}: {error}", case.kernel));
    let program = sandbox.kernel(&image, case.kernel)?;
    let mut fault = None;
    let results = (case.run)(&mut sandbox, &mut |sandbox, grid, block, args| {
        let result = sandbox.launch(&program, grid, block, 0, args);
        fault = result.err().map(|fault| format!("{fault:?}"));
        fault.is_none()
    });
    let reports = sandbox.sink.reports();
    let titles: Vec<String> = reports.iter().map(|report| format!("{report}")).chain(fault).collect();
    Ok(match results {
        _ if !titles.is_empty() => Shown::Reports(titles),
        Some((got, want)) if agrees(&got, &want) => Shown::Nothing,
        _ => Shown::WrongResult,
    })
}

const LEVELS: [&[&str]; 4] = [&[], &["-Xcicc", "-O0"], &["-Xcicc", "-O1"], &["-Xcicc", "-O2"]];

#[test]
fn correct_kernels_are_right_and_draw_no_report() {
    for level in LEVELS {
        for case in &CASES {
            let ptx = support::compile(case.file, level);
            for (order, landing) in
                [(Order::Forward, Landing::Eager), (Order::Reverse, Landing::Late), (Order::Seed(5), Landing::Late)]
            {
                let shown = run(case, &ptx, order, landing).unwrap();
                assert!(matches!(shown, Shown::Nothing), "{} {level:?} {order:?} {landing:?}: {shown:?}", case.kernel);
            }
        }
    }
}

/// A change to a kernel's PTX: which line, and what takes its place.
struct Mutation {
    what: &'static str,
    applies: fn(&str) -> bool,
    change: fn(&str) -> String,
}

const MUTATIONS: [Mutation; 8] = [
    Mutation {
        what: "barrier taken out",
        applies: |l| l.contains("bar.sync") || l.contains("barrier.sync"),
        change: |_| String::new(),
    },
    Mutation { what: "warp barrier taken out", applies: |l| l.contains("bar.warp.sync"), change: |_| String::new() },
    Mutation { what: "wait taken out", applies: |l| l.contains("cp.async.wait"), change: |_| String::new() },
    Mutation {
        what: "wait for too few groups",
        applies: |l| l.contains("cp.async.wait_group 1"),
        change: |l| l.replace("wait_group 1", "wait_group 2"),
    },
    Mutation { what: ".trans taken out", applies: |l| l.contains(".trans"), change: |l| l.replace(".trans", "") },
    Mutation {
        what: "shuffle flipped",
        applies: |l| l.contains("shfl.sync.down") || l.contains("shfl.sync.up"),
        change: |l| {
            if l.contains("down") {
                l.replace("down", "up").replace(", 31, ", ", 0, ")
            } else {
                l.replace("shfl.sync.up", "shfl.sync.down").replace(", 0, ", ", 31, ")
            }
        },
    },
    Mutation {
        what: "atomic made plain",
        applies: |l| l.contains("atom.") && l.contains(".add.") || l.contains("red.") && l.contains(".add."),
        change: atomic_to_store,
    },
    Mutation {
        what: "bound check taken out",
        applies: |l| l.trim_start().starts_with("setp.ge.s32") || l.trim_start().starts_with("setp.lt.s32"),
        change: always_inside,
    },
];

/// An atomic addition becomes a store of the addend.
fn atomic_to_store(line: &str) -> String {
    let space = if line.contains("shared") { "shared" } else { "global" };
    let from = line.find('[').unwrap();
    let to = line.find(']').unwrap();
    let addend = line[to + 1..].trim_matches(|c| c == ',' || c == ';' || c == ' ');
    format!("st.{space}.u32 {}, {addend};", &line[from..=to])
}

/// A comparison with a bound becomes the answer for indices inside.
fn always_inside(line: &str) -> String {
    let mut words = line.split_whitespace();
    let (opcode, predicate) = (words.next().unwrap(), words.next().unwrap());
    let inside = if opcode.contains(".ge.") { "setp.ne.s32" } else { "setp.eq.s32" };
    format!("{inside} {predicate} 0, 0;")
}

/// The PTX lines of a kernel.
fn body_of(ptx: &str, kernel: &str) -> std::ops::Range<usize> {
    let lines: Vec<&str> = ptx.lines().collect();
    let entry = format!(".entry {kernel}(");
    let start = lines.iter().position(|line| line.contains(&entry)).unwrap();
    let end = lines[start..].iter().position(|line| *line == "}").unwrap() + start;
    start..end
}

/// Whether a comparison always answers as its mutant does, so that taking it out changes nothing: the kernel with a
/// trap behind the comparison, for the other answer, runs as before.
fn is_equivalent(case: &Case, mutation: &Mutation, ptx: &str, at: usize) -> bool {
    if mutation.what != "bound check taken out" {
        return false;
    }
    let mut lines: Vec<String> = ptx.lines().map(str::to_string).collect();
    let mut words = lines[at].split_whitespace();
    let (opcode, predicate) = (words.next().unwrap(), words.next().unwrap().trim_matches(','));
    let outside = if opcode.contains(".ge.") { "@" } else { "@!" };
    let trap = format!("{outside}{predicate} trap;");
    lines.insert(at + 1, trap);
    matches!(run(case, &lines.join("\n"), Order::Reverse, Landing::Late), Ok(Shown::Nothing))
}

#[test]
fn every_mutant_is_caught() {
    let (mut caught, mut by_report, mut equivalent) = (0, 0, 0);
    let mut missed = vec![];
    for case in &CASES {
        let ptx = support::compile(case.file, &[]);
        for mutation in &MUTATIONS {
            for at in body_of(&ptx, case.kernel) {
                let mut lines: Vec<String> = ptx.lines().map(str::to_string).collect();
                if !(mutation.applies)(&lines[at]) {
                    continue;
                }
                lines[at] = (mutation.change)(&lines[at]);
                let changed = lines.join("\n");
                let place =
                    format!("{} line {}: {}: {}", case.kernel, at + 1, mutation.what, ptx.lines().nth(at).unwrap());
                match run(case, &changed, Order::Reverse, Landing::Late) {
                    Ok(Shown::Nothing) if is_equivalent(case, mutation, &ptx, at) => equivalent += 1,
                    Ok(Shown::Nothing) => missed.push(place),
                    Ok(Shown::WrongResult) => caught += 1,
                    Ok(Shown::Reports(_)) => {
                        caught += 1;
                        by_report += 1;
                    }
                    Err(error) => panic!("{place}: {error}"),
                }
            }
        }
    }
    println!("{caught} mutants caught, {by_report} of them by a report; {equivalent} change nothing");
    assert!(missed.is_empty(), "{caught} caught, missed:\n{}", missed.join("\n"));
    assert!(caught >= 40);
}

#[test]
fn sectors_count_once_a_launch_and_once_a_wave_beside_every_load() {
    const SIDE: usize = 128;
    let mut sandbox = Sandbox::new(2);
    sandbox.counters = Some(Default::default());
    sandbox.wave = 2;
    let image = sandbox.load(&support::compile("speed", &[])).unwrap();
    let program = sandbox.kernel(&image, "gemm_bf16").unwrap();
    let [a, b] = [0; 2].map(|_| sandbox.upload(&[0x3f80u16; SIDE * SIDE]));
    let c = sandbox.upload(&[0f32; SIDE * SIDE]);
    let args = [a, b, c].map(Arg::U64).into_iter().chain([0; 3].map(|_| Arg::U32(SIDE as u32))).collect::<Vec<_>>();
    for _ in 0..2 {
        sandbox.launch(&program, [2, 2, 1], [128, 1, 1], 0, &args).unwrap();
    }
    let counters = sandbox.counters.as_ref().unwrap().lock().unwrap();
    let counts = &counters.kernels().0["gemm_bf16"];
    let matrix = (2 * SIDE * SIDE) as u64;
    // Each operand is loaded by two rows or columns of blocks.
    assert_eq!(
        (counts.total().loads.global_bytes, counts.total().stores.global_bytes),
        (2 * 4 * matrix, 2 * 2 * matrix)
    );
    assert_eq!([counts.loaded_once, counts.stored_once], [2 * 2 * matrix; 2]);
    // The two blocks of a wave share one operand's half; the other operand is loaded by both waves.
    assert_eq!(counts.loaded_by_wave, 2 * 3 * matrix);
}
