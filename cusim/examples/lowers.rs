//! How many kernels of PTX files cusim can run, and why not the others: `cargo run --release -p cusim --example lowers -- *.ptx`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use cusim::lower::Options;
use cusim::mem::Memory;
use cusim::module::Image;

fn main() -> ExitCode {
    let Some(mut memory) = Memory::new() else {
        eprintln!("the host refuses to reserve address space");
        return ExitCode::FAILURE;
    };
    let (mut all, mut lowered) = (0, 0);
    // Opcodes and reasons, with how many kernels they refuse; the first of each kernel counts.
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for path in std::env::args().skip(1) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let mut image = match Image::load(&text, &mut memory, 0) {
            Ok(image) => image,
            Err(error) => {
                let kernels = text.matches(".entry ").count();
                all += kernels;
                *reasons.entry(format!("{path}: {error}")).or_default() += kernels;
                continue;
            }
        };
        for kernel in image.kernels() {
            all += 1;
            match image.kernel(kernel, Options::default()) {
                Ok(_) => lowered += 1,
                Err(error) => {
                    let first = error.problems.first().map_or("?", |(_, problem)| problem);
                    *reasons.entry(first.to_string()).or_default() += 1;
                }
            }
        }
        image.unload(&mut memory);
    }
    println!("{lowered} of {all} kernels ({:.1} %)", 100.0 * f64::from(lowered) / f64::max(all as f64, 1.0));
    for (reason, count) in reasons {
        println!("{count}: {reason}");
    }
    ExitCode::SUCCESS
}
