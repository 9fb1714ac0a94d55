//! Each operation and the whole training step at the paper's WikiDiverse size, on this machine.
//!
//!     cargo bench                                 everything
//!     cargo bench -- cross_attention --runs 50    one operation
//!
//! It is `fissfuse-bench ops` and `step`, whose options it takes: one runner and one form of results. What was measured lies in
//! target/tmp as `bench-ops.json` and `bench-step.json` besides, which `--compare` and `fissfuse report` read.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    // cargo tells every benchmark that it is one.
    let given: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let one_operation = given.first().is_some_and(|first| !first.starts_with('-'));
    for command in if one_operation { &["ops"][..] } else { &["ops", "step"] } {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{command}.json"));
        let mut bench = Command::new(env!("CARGO_BIN_EXE_fissfuse-bench"));
        bench.arg(command).args(&given).args(["--device", "cpu", "--save"]).arg(&file);
        let status = bench.status().expect("cargo built the program");
        if !status.success() {
            exit(status.code().unwrap_or(1));
        }
        println!("saved to {}\n", file.display());
    }
}
