//! Parsers of bytes from elsewhere, with inputs that are nearly right: none panics, aborts, hangs, or takes more memory than
//! its input justifies. `FISSFUSE_FUZZ` sets the number of inputs for each.

mod mutate;
mod targets;

use std::process::Command;
use std::time::{Duration, Instant};

use mutate::Mutator;
use peak_alloc::PeakAlloc;

/// Counts what the tests allocate.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs for each parser, if the environment does not say.
const INPUTS: usize = 100_000;

/// The longest time for one input.
const LONGEST: Duration = Duration::from_secs(5);

/// Set in the process that one target runs in: others would allocate beside it.
const INSIDE: &str = "FISSFUSE_FUZZ_INSIDE";

/// A parser.
struct Target {
    /// Name of its test.
    test: &'static str,
    /// Valid inputs.
    seeds: Vec<Vec<u8>>,
    /// One in so many of the inputs, where one takes long.
    stride: usize,
    /// Bytes that it may take at once, for an input of this length.
    memory: fn(usize) -> usize,
}

/// Four times the input, and room for messages, tables and buffers of the library.
fn four_times(input: usize) -> usize {
    4 * input + (1 << 20)
}

/// Runs a parser on its inputs, in a process of its own.
fn fuzz(target: Target, mut parse: impl FnMut(&[u8])) {
    let path = format!("fuzz::targets::{}", target.test);
    if std::env::var_os(INSIDE).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([&path, "--exact", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .unwrap();
        let [printed, errors] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let tail: String = errors.chars().rev().take(6000).collect::<Vec<_>>().into_iter().rev().collect();
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}\n{tail}");
        return;
    }
    // What is made once and kept, such as the patterns of a reader of text, is no input's.
    target.seeds.iter().for_each(|seed| parse(seed));
    let inputs = std::env::var("FISSFUSE_FUZZ").ok().map_or(INPUTS, |count| count.parse().expect("a number"));
    let mut mutator = Mutator::new(7, target.seeds);
    for number in 0..inputs.div_ceil(target.stride) {
        let input = mutator.draw();
        let (before, start) = (MEMORY.current_usage(), Instant::now());
        MEMORY.reset_peak_usage();
        // Seen only if the parser ends the process: what was given to it last.
        let shown = Shown(number, &input);
        parse(&input);
        std::mem::forget(shown);
        let (taken, time) = (MEMORY.peak_usage().saturating_sub(before), start.elapsed());
        let limit = (target.memory)(input.len());
        assert!(taken <= limit, "input {number} of {} bytes took {taken} bytes: {:?}", input.len(), text(&input));
        assert!(time <= LONGEST, "input {number} took {time:?}: {:?}", text(&input));
    }
}

/// Prints its input if the parser panics.
struct Shown<'a>(usize, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("input {}: {:?}", self.0, text(self.1));
    }
}

/// The beginning of an input.
fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(&input[..input.len().min(3000)]).into_owned()
}
