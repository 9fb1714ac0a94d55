//! What the integration tests share: compiling kernels, and running a test in a process that loads cusim.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Set in the environment of a child that runs one test.
const CHILD: &str = "CUSIM_TEST_CHILD";

/// The directory that cargo builds into: `target`, or what CARGO_TARGET_DIR says.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    // target/<profile>/deps/<test>
    exe.ancestors().nth(3).unwrap().to_path_buf()
}

/// Finds nvcc as scripts/cuda-toolchain.sh does.
pub fn nvcc() -> PathBuf {
    let in_home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("nvcc")).find(|nvcc| nvcc.exists()));
    std::env::var_os("FISSFUSE_NVCC")
        .map(PathBuf::from)
        .or(in_home.filter(|nvcc| nvcc.exists()))
        .or(on_path)
        .or(Some(target_dir().join("cuda-toolchain/bin/nvcc")).filter(|nvcc| nvcc.exists()))
        .unwrap_or_else(|| panic!("no nvcc found; run scripts/cuda-toolchain.sh, which fetches one"))
}

/// PTX of `tests/kernels/<name>.cu`, compiled once per source and flags.
pub fn compile(name: &str, flags: &[&str]) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(format!("{name}.cu"));
    compile_file(&source, name, flags)
}

/// PTX of CUDA C++ text.
pub fn compile_text(text: &str, name: &str, flags: &[&str]) -> String {
    let dir = target_dir().join("cusim-ptx");
    std::fs::create_dir_all(&dir).unwrap();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let source = dir.join(format!("{name}-{:016x}.cu", hasher.finish()));
    std::fs::write(&source, text).unwrap();
    compile_file(&source, name, flags)
}

/// A fat binary of `tests/kernels/<name>.cu`.
pub fn fat_binary(name: &str, flags: &[&str]) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(format!("{name}.cu"));
    let image = tempfile::Builder::new().suffix(".fatbin").tempfile().unwrap();
    let mut command = Command::new(nvcc());
    command.args(["-fatbin", "-std=c++17"]).args(flags).arg("-o").arg(image.path()).arg(source);
    let output = command.output().unwrap();
    assert!(output.status.success(), "nvcc: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(image.path()).unwrap()
}

fn compile_file(source: &Path, name: &str, flags: &[&str]) -> String {
    let text = std::fs::read(source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let nvcc = nvcc();
    let mut hasher = DefaultHasher::new();
    (&text, flags, &nvcc).hash(&mut hasher);
    let dir = target_dir().join("cusim-ptx");
    std::fs::create_dir_all(&dir).unwrap();
    let cached = dir.join(format!("{name}-{:016x}.ptx", hasher.finish()));
    if let Ok(ptx) = std::fs::read_to_string(&cached) {
        return ptx;
    }
    let fresh = tempfile::Builder::new().suffix(".ptx").tempfile_in(&dir).unwrap();
    let mut command = Command::new(&nvcc);
    command.args(["-ptx", "-lineinfo", "-std=c++17"]).args(flags);
    if !flags.iter().any(|flag| flag.starts_with("-arch")) {
        command.arg("-arch=compute_80");
    }
    let output = command.arg("-o").arg(fresh.path()).arg(source).output().unwrap();
    assert!(output.status.success(), "nvcc: {}", String::from_utf8_lossy(&output.stderr));
    let ptx = std::fs::read_to_string(fresh.path()).unwrap();
    fresh.persist(&cached).unwrap();
    ptx
}

/// A temporary directory that holds this build's cusim as `libcuda.so.1`.
pub fn library_dir() -> TempDir {
    let exe = std::env::current_exe().unwrap();
    let deps = exe.parent().unwrap();
    let built = [deps.join("libcusim.so"), deps.parent().unwrap().join("libcusim.so")];
    let newest = built
        .iter()
        .filter_map(|path| Some((std::fs::metadata(path).ok()?.modified().ok()?, path)))
        .max()
        .unwrap_or_else(|| panic!("cargo built no libcusim.so beside {}", exe.display()));
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(newest.1, dir.path().join("libcuda.so.1")).unwrap();
    dir
}

/// Whether this process is a child that loads cusim.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the named test of this binary in a process of its own that loads cusim, and returns what came out.
pub fn run_child(test: &str, env: &[(&str, &str)]) -> Output {
    let dir = library_dir();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", dir.path())
        .current_dir(dir.path())
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// What a process said.
pub fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Defines tests whose bodies run in a process of their own with cusim as the CUDA driver.
#[macro_export]
macro_rules! on_cusim {
    ($($(#[$meta:meta])* fn $name:ident($($env:literal = $value:literal),*) $body:block)*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            if $crate::support::is_child() {
                $body
                return;
            }
            let output = $crate::support::run_child(stringify!($name), &[$(($env, $value)),*]);
            assert!(output.status.success(), "{}", $crate::support::text(&output));
        }
    )*};
}
