//! Programs of the CUDA runtime, as nvcc builds them, on `libcudart.so` over cusim.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The runtime that cargo built beside the tests.
fn runtime() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let built = exe.ancestors().nth(2).unwrap().join("examples/libcudart.so");
    assert!(built.exists(), "{} is missing; cargo build -p cusim --example cudart makes it", built.display());
    built
}

/// Builds a program in a directory that has the runtime.
fn build(dir: &Path, flags: &[&str]) -> PathBuf {
    let program = dir.join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/runtime.cu");
    let mut command = Command::new(support::nvcc());
    command
        .args(["-std=c++17", "-lineinfo", "-cudart", "shared", "-gencode", "arch=compute_80,code=compute_80"])
        .args(flags);
    let output = command.arg("-L").arg(dir).arg("-o").arg(&program).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", support::text(&output));
    program
}

/// What a program says that was built with these flags, and whether it ended well.
fn run(flags: &[&str], env: &[(&str, &str)]) -> (String, bool) {
    let dir = support::library_dir();
    std::os::unix::fs::symlink(runtime(), dir.path().join("libcudart.so")).unwrap();
    let program = build(dir.path(), flags);
    let output = Command::new(program).env("LD_LIBRARY_PATH", dir.path()).envs(env.iter().copied()).output().unwrap();
    (support::text(&output), output.status.success())
}

#[test]
fn a_program_of_the_runtime_runs() {
    let (said, well) = run(&["--no-compress"], &[("CUSIM_CHECK", "all"), ("CUSIM_ASYNC", "late")]);
    assert!(well && said.contains("done: an illegal memory access was encountered"), "{said}");
    assert!(said.contains("in kernel scaled<float>, block") && said.contains("runtime.cu"), "{said}");
    assert!(!said.contains("[leak]"), "{said}");
}

#[test]
fn compressed_fat_binaries_are_named() {
    let (said, well) = run(&[], &[]);
    assert!(!well && said.contains("compressed; compile with nvcc --no-compress"), "{said}");
    assert!(said.contains("no kernel image is available for execution on the device"), "{said}");
}
