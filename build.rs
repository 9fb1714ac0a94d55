//! Compiles kernels/*.cu to PTX that any driver since 2021 takes, and in release builds to machine code, and embeds both; tells
//! the program which commit it was built from.
//!
//! nvcc is looked for in $FISSFUSE_NVCC, $CUDA_HOME/bin, $PATH and <target>/cuda-toolchain (scripts/cuda-toolchain.sh).
//! Without one the program is built without kernels, and says so where they are asked for.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

#[path = "src/device/cuda/ptx_version.rs"]
mod ptx_version;

/// The file above.
const VERSIONS: &str = "src/device/cuda/ptx_version.rs";

/// The oldest architecture that the kernels run on; newer devices run its PTX, too.
const BASE: &str = "80";

/// The first on which kernels may begin before those before them have ended; what waits for these is compiled for it, too.
const EARLY: &str = "90";

/// Capabilities that release builds hold machine code for, so that nothing is compiled at the first start: 8.6, which 8.9 runs
/// too, and 9.0.
const CUBINS: &str = "86,90";

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
    println!("cargo:rerun-if-changed={VERSIONS}");
    for name in ["FISSFUSE_NVCC", "CUDA_HOME", "FISSFUSE_CUDA_ARCH", "FISSFUSE_CUBINS", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut table = String::new();
    let release = match find_nvcc(&out) {
        Some(nvcc) => {
            let compiler = Compiler { cubins: cubins(&nvcc), release: release(&nvcc), nvcc, out: out.clone() };
            let jobs: Vec<_> =
                sources("cu").into_iter().flat_map(|s| archs(&s).into_iter().map(move |a| (s.clone(), a))).collect();
            compiler.all(&jobs).iter().for_each(|row| table.push_str(row));
            compiler.release
        }
        None => {
            println!("cargo:warning=no nvcc found: built without CUDA kernels (scripts/cuda-toolchain.sh fetches one)");
            String::new()
        }
    };
    println!("cargo:rustc-env=FISSFUSE_NVCC_RELEASE={release}");
    fs::write(out.join("kernels.rs"), format!("&[\n{table}]\n")).expect("OUT_DIR can be written");
}

/// The list in an environment variable, or `otherwise` where it is not set.
fn listed(name: &str, otherwise: &str) -> Vec<String> {
    let list = env::var(name).unwrap_or_else(|_| otherwise.into());
    list.split(',').map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect()
}

/// The capability of an architecture that is named as nvcc does: 90, or 90a for devices of just this one.
fn capability(name: &str, of: &str) -> u32 {
    let digits = name.strip_suffix('a').unwrap_or(name);
    digits.parse().ok().filter(|capability| (80..1000).contains(capability)).unwrap_or_else(|| {
        panic!("{of}: {name:?} is no architecture; name them as 86 or 90a, separated by commas, from {BASE} on")
    })
}

/// The architectures that a file's kernels are compiled for.
fn archs(source: &Path) -> Vec<String> {
    let mut archs = vec![BASE.to_string()];
    if fs::read_to_string(source).is_ok_and(|text| text.contains("await_earlier()")) {
        archs.push(EARLY.into());
    }
    for arch in listed("FISSFUSE_CUDA_ARCH", "") {
        capability(&arch, "FISSFUSE_CUDA_ARCH");
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    archs
}

/// The capabilities that machine code is assembled for, beside the PTX: none in builds for development, which run on cusim and
/// are made often, and none where nvcc comes without ptxas.
fn cubins(nvcc: &Path) -> Vec<u32> {
    let otherwise = if env::var("PROFILE").as_deref() == Ok("release") { CUBINS } else { "" };
    let wanted = listed("FISSFUSE_CUBINS", otherwise).into_iter().filter(|name| name != "none");
    let wanted: Vec<u32> = wanted.map(|name| capability(&name, "FISSFUSE_CUBINS")).collect();
    match ptxas(nvcc).is_some() {
        true => wanted,
        false => Vec::new(),
    }
}

/// The assembler beside an nvcc.
fn ptxas(nvcc: &Path) -> Option<PathBuf> {
    let beside = nvcc.with_file_name("ptxas");
    let runs = |ptxas: &PathBuf| Command::new(ptxas).arg("--version").output().is_ok_and(|o| o.status.success());
    Some(beside).filter(runs)
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

/// How hard what the program holds is compressed: 35 MB of PTX become 3 in two seconds.
const LEVEL: i32 = 12;

/// A file of OUT_DIR as the program holds it: compressed, since PTX is long and repeats itself. It is named relative to there, so
/// that a row holds wherever the folder is moved to.
fn packed(path: &Path) -> String {
    let packed = PathBuf::from(format!("{}.zst", path.display()));
    let bytes = fs::read(path).expect("what a compiler wrote can be read");
    let written = zstd::encode_all(&bytes[..], LEVEL).expect("memory can be written");
    fs::write(&packed, written).expect("OUT_DIR can be written");
    let name = packed.file_name().and_then(|name| name.to_str()).expect("kernels have names");
    format!("Packed(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}\")))")
}

/// What compiles kernels.
struct Compiler {
    nvcc: PathBuf,
    /// Its release.
    release: String,
    /// Capabilities that machine code is assembled for.
    cubins: Vec<u32>,
    out: PathBuf,
}

impl Compiler {
    /// The rows of the table of kernels for these files and architectures, in their order; compiled on all processors.
    fn all(&self, jobs: &[(PathBuf, String)]) -> Vec<String> {
        let next = AtomicUsize::new(0);
        let rows = Mutex::new(vec![String::new(); jobs.len()]);
        let work = || {
            while let Some((i, (source, arch))) = Some(next.fetch_add(1, Relaxed)).and_then(|i| Some((i, jobs.get(i)?)))
            {
                let row = self.row(source, arch);
                rows.lock().expect("no other thread panicked")[i] = row;
            }
        };
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        rows.into_inner().expect("no thread panicked")
    }

    /// The row of one file, as it was made before if nothing that it is made of has changed: a new commit alone has nothing
    /// compiled.
    fn row(&self, source: &Path, arch: &str) -> String {
        let read = |path: &Path| fs::read(path).expect("a file that this is made of can be read");
        let mut hasher = DefaultHasher::new();
        read(source).hash(&mut hasher);
        sources("cuh").iter().for_each(|header| read(header).hash(&mut hasher));
        let hash = hasher.finish();
        ["build.rs", VERSIONS].iter().for_each(|path| read(Path::new(path)).hash(&mut hasher));
        let cubins = self.cubins_of(source, arch);
        (&self.release, &cubins).hash(&mut hasher);
        let key = format!("{:x}", hasher.finish());
        let name = source.file_stem().and_then(|s| s.to_str()).expect("kernels have names");
        let kept = self.out.join(format!("{name}-{arch}.row"));
        if let Some((before, row)) = fs::read_to_string(&kept).ok().as_deref().and_then(|kept| kept.split_once('\n'))
            && before == key
        {
            return row.into();
        }
        let row = self.compile(source, (name, arch), &cubins, hash);
        fs::write(&kept, format!("{key}\n{row}")).expect("OUT_DIR can be written");
        row
    }

    /// The capabilities whose machine code is assembled from this architecture's PTX of a file: it is the newest that runs there.
    fn cubins_of(&self, source: &Path, arch: &str) -> Vec<u32> {
        let named = |arch: &str| (capability(arch, "arch"), arch.ends_with('a'));
        let archs: Vec<(u32, bool)> = archs(source).iter().map(|arch| named(arch)).collect();
        let runs = |of: u32, (arch, exact): (u32, bool)| if exact { arch == of } else { arch <= of };
        let newest = |of: u32| archs.iter().copied().filter(|arch| runs(of, *arch)).max();
        self.cubins.iter().copied().filter(|of| newest(*of) == Some(named(arch))).collect()
    }

    /// One row: the PTX of a file, at the lowest version that holds for it, and its machine code.
    fn compile(&self, source: &Path, (name, arch): (&str, &str), cubins: &[u32], hash: u64) -> String {
        let ptx = self.out.join(format!("{name}-{arch}.ptx"));
        let flags = ["-ptx", "-O3", "-lineinfo", "--std=c++17"];
        let mut nvcc = Command::new(&self.nvcc);
        run(nvcc.args(flags).arg(format!("-arch=compute_{arch}")).arg(source).arg("-o").arg(&ptx), source);
        let text = fs::read_to_string(&ptx).expect("what nvcc wrote can be read");
        // Files are named from here on: a program that is given away says nothing of the machine that built it.
        let here = format!("{}/", env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
        let limit = if arch == BASE { ptx_version::OLDEST } else { ptx_version::Version(u32::MAX, 0) };
        let text = ptx_version::lowered(&text.replace(&here, ""), limit)
            .unwrap_or_else(|reason| panic!("{}: drivers since 2021 must take it: {reason}", source.display()));
        fs::write(&ptx, &text).expect("OUT_DIR can be written");
        let entries: Vec<String> = text.split(".entry ").skip(1).map(entry).collect();
        let cubins: Vec<String> = cubins
            .iter()
            .map(|capability| {
                let image = packed(&self.assemble(&text, name, *capability));
                format!("Cubin {{ capability: {capability}, image: {image} }}")
            })
            .collect();
        let (cubins, ptx) = (cubins.join(", "), packed(&ptx));
        let arch = format!("Arch {{ capability: {}, exact: {} }}", capability(arch, "arch"), arch.ends_with('a'));
        format!(
            "    Ptx {{ file: {name:?}, arch: {arch}, hash: {hash}, text: {ptx}, entries: &[{}], cubins: &[{cubins}] }},\n",
            entries.join(", ")
        )
    }

    /// Machine code of PTX, without its line numbers, which are most of its size.
    fn assemble(&self, text: &str, name: &str, capability: u32) -> PathBuf {
        let bare = self.out.join(format!("{name}-{capability}.bare.ptx"));
        let of_debuggers = |line: &&str| matches!(line.split_whitespace().next(), Some(".loc" | ".file"));
        let mut lines: Vec<&str> = text.lines().filter(|line| !of_debuggers(line)).collect();
        // What follows the kernels are sections for debuggers.
        let code = lines.iter().position(|line| line.trim_start().starts_with(".section")).unwrap_or(lines.len());
        lines.truncate(code);
        fs::write(&bare, lines.join("\n")).expect("OUT_DIR can be written");
        let cubin = self.out.join(format!("{name}-{capability}.cubin"));
        let mut ptxas = Command::new(self.nvcc.with_file_name("ptxas"));
        run(ptxas.args(["-O3", "-arch"]).arg(format!("sm_{capability}")).arg("-o").arg(&cubin).arg(&bare), &bare);
        cubin
    }
}

/// The row of the kernel whose declaration and code follow `.entry`: its name, the bytes of the one struct that it takes, and
/// whether it waits for the kernels before it.
fn entry(rest: &str) -> String {
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest);
    let parameters = rest.split(')').next().unwrap_or(rest);
    let bytes = match &parameters.split(".param").skip(1).collect::<Vec<_>>()[..] {
        [one] => one.split_once(&format!("{name}_param_0[")).and_then(|(_, size)| size.split(']').next()?.parse().ok()),
        _ => None,
    };
    let bytes: usize = bytes.unwrap_or_else(|| panic!("{name}: kernels take one struct by value"));
    format!("Entry {{ name: {name:?}, argument_bytes: {bytes}, waits: {} }}", rest.contains("griddepcontrol.wait"))
}

/// Runs a compiler on a file.
fn run(command: &mut Command, source: &Path) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{}: {:?} failed:\n{}",
            source.display(),
            command.get_program(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{:?}: cannot run: {error}", command.get_program()),
    }
}
