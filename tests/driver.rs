//! What the program says of a driver that it cannot use: one that is none, is too old, or has no device to show.

use std::path::Path;
use std::process::Command;

use fissfuse::device::cuda::{has_driver, kernels};
use tempfile::TempDir;

use crate::support::{fissfuse, refused};

/// A folder with a libcuda.so.1 of these C functions.
fn library(source: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cuda.cpp");
    std::fs::write(&file, format!("extern \"C\" {{ {source} }}")).unwrap();
    let compiler = std::env::var("NVCC_CCBIN").unwrap_or_else(|_| "g++".into());
    let output = |name: &str| folder.path().join(name);
    let made = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(output("libcuda.so.1")).arg(&file).status();
    assert!(made.expect("a C++ compiler, as nvcc needs one").success());
    std::os::unix::fs::symlink("libcuda.so.1", output("libcuda.so")).unwrap();
    folder
}

/// C functions of every name that the engine asks for, that answer zero; but for those that `but` defines.
fn all_functions(but: &str) -> String {
    let text = include_str!("../src/device/cuda/driver.rs");
    let names =
        text.split('"').filter(|name| name.starts_with("cu") && name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    let mut names: Vec<&str> = names.filter(|name| *name != "cuda" && !but.contains(&format!("{name}("))).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 35);
    names.iter().map(|name| format!("int {name}(void) {{ return 0; }} ")).chain([but.to_string()]).collect()
}

/// Runs the program with this library as its driver: `--device cuda` is refused, and `doctor` too, with these words.
fn both_refuse(folder: &Path, says: &[&str]) {
    let model = tempfile::tempdir().unwrap();
    let model = model.path().join("llama");
    let model = model.to_str().unwrap();
    assert!(fissfuse(&["llm", "random", "--out", model, "--preset", "tiny"]).output().unwrap().status.success());
    let ask = ["llm", "--model", model, "--prompt", "a", "--max-new-tokens", "1", "--device"];
    let on = |args: &[&str]| fissfuse(args).env("LD_LIBRARY_PATH", folder).output().unwrap();
    refused(&on(&[&ask[..], &["cuda"]].concat()), says);
    refused(&on(&["doctor"]), says);
    let auto = on(&[&ask[..], &["auto"]].concat());
    let errors = String::from_utf8_lossy(&auto.stderr);
    assert!(auto.status.success(), "{errors}");
    assert!(errors.contains("computing on the CPU") || kernels::EMBEDDED.is_empty(), "{errors}");
}

#[test]
fn a_library_that_is_no_driver_is_named() {
    if has_driver() {
        return;
    }
    both_refuse(library("int unrelated(void) { return 0; }").path(), &["lacks cuInit and", "--device cpu"]);
    let lacks_one = all_functions("").replace("cuGraphLaunch", "cuGraphLaunched");
    both_refuse(library(&lacks_one).path(), &["lacks cuGraphLaunch:", "release 470"]);
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    if has_driver() {
        return;
    }
    let version = |version: u32| format!("int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}");
    let says = "int cuGetErrorName(int e, const char **s) { *s = \"?\"; return 0; } \
                int cuGetErrorString(int e, const char **s) { return 1; }";
    let strange = all_functions(&format!("int cuInit(unsigned f) {{ return 12345; }} {} {says}", version(12040)));
    both_refuse(library(&strange).path(), &["12345", "--device cpu"]);
    let old = all_functions(&version(11030));
    both_refuse(library(&old).path(), &["supports CUDA 11.3; 11.4 or newer is needed"]);
    let no_device = all_functions(&format!("int cuInit(unsigned f) {{ return 100; }} {} {says}", version(12040)));
    let folder = library(&no_device);
    let run = |visible: &str| {
        fissfuse(&["doctor"])
            .env("LD_LIBRARY_PATH", folder.path())
            .env("CUDA_VISIBLE_DEVICES", visible)
            .output()
            .unwrap()
    };
    refused(&run(""), &["CUDA_VISIBLE_DEVICES=\"\" leaves none", "--device cpu"]);
    refused(&run("GPU-wrong"), &["CUDA_VISIBLE_DEVICES=\"GPU-wrong\" leaves none"]);
}
