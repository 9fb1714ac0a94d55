//! Compiles kernels/*.cu to PTX and embeds them; tells the program which commit it was built from.
//!
//! nvcc is looked for in $FISSFUSE_NVCC, $CUDA_HOME/bin, $PATH and <target>/cuda-toolchain (scripts/cuda-toolchain.sh).
//! Without one the program is built without kernels, and says so where they are asked for.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest architecture that the kernels run on; newer devices run its PTX, too.
const BASE: &str = "80";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Where these files lie differs between clones and work trees; one that is not there would have all of this run each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    println!("cargo:rustc-env=FISSFUSE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    kernels();
}

/// What git answers, if there is one and this is its working tree.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn kernels() {
    println!("cargo:rerun-if-changed=kernels");
    for name in ["FISSFUSE_NVCC", "CUDA_HOME", "FISSFUSE_CUDA_ARCH", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut table = String::new();
    let release = match find_nvcc(&out) {
        Some(nvcc) => {
            let others = env::var("FISSFUSE_CUDA_ARCH").unwrap_or_default();
            let others = others.split(',').map(str::trim).filter(|arch| !arch.is_empty() && *arch != BASE);
            for arch in [BASE].into_iter().chain(others) {
                for source in sources("cu") {
                    compile(&nvcc, &source, arch, &out, &mut table);
                }
            }
            release(&nvcc)
        }
        None => {
            println!("cargo:warning=no nvcc found: built without CUDA kernels (scripts/cuda-toolchain.sh fetches one)");
            String::new()
        }
    };
    println!("cargo:rustc-env=FISSFUSE_NVCC_RELEASE={release}");
    fs::write(out.join("kernels.rs"), format!("&[\n{table}]\n")).expect("OUT_DIR can be written");
}

/// The files of kernels/ with this extension, in order.
fn sources(extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("kernels").expect("the folder kernels can be read").flatten();
    let mut sources: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    sources.sort();
    sources
}

/// An nvcc that runs, if there is one.
fn find_nvcc(out: &Path) -> Option<PathBuf> {
    // <target>/<profile>/build/<package>/out
    let fetched = out.ancestors().nth(4)?.join("cuda-toolchain/bin/nvcc");
    println!("cargo:rerun-if-changed={}", fetched.display());
    let in_home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let candidates = [env::var_os("FISSFUSE_NVCC").map(PathBuf::from), in_home, Some("nvcc".into()), Some(fetched)];
    let runs = |nvcc: &PathBuf| Command::new(nvcc).arg("--version").output().is_ok_and(|o| o.status.success());
    candidates.into_iter().flatten().find(runs)
}

/// "13.0" of an nvcc.
fn release(nvcc: &Path) -> String {
    let output = Command::new(nvcc).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("unknown").to_string()
}

fn compile(nvcc: &Path, source: &Path, arch: &str, out: &Path, table: &mut String) {
    let name = source.file_stem().and_then(|s| s.to_str()).expect("kernels have names");
    let ptx = out.join(format!("{name}-{arch}.ptx"));
    let flags = ["-ptx", "-O3", "-lineinfo", "--std=c++17"];
    let mut command = Command::new(nvcc);
    command.args(flags).arg(format!("-arch=compute_{arch}")).arg(source).arg("-o").arg(&ptx);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            panic!("{}: nvcc failed:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => panic!("{}: cannot run: {error}", nvcc.display()),
    }
    let mut hasher = DefaultHasher::new();
    fs::read(source).expect("a source that was compiled can be read").hash(&mut hasher);
    for header in sources("cuh") {
        fs::read(header).expect("a header that was compiled can be read").hash(&mut hasher);
    }
    let hash = hasher.finish();
    writeln!(table, "    Ptx {{ file: {name:?}, arch: {arch}, hash: {hash}, text: include_str!({ptx:?}) }},")
        .expect("a string takes what is written");
}
