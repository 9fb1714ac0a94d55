//! A small dataset, its encoder and its features, and the program to run on them.

pub mod child;
pub mod gguf;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, has_driver};
use fissfuse::encoder::clip::{RandomClip, write_random};
use fissfuse::profile::counts::Counts;
use fissfuse::profile::proof;
use fissfuse::trace::{listen, name_ranges};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the tests find what they need, if they were moved from where they were built: a folder with `tests/fixtures` and
/// with the programs in `bin`, such as scripts/gpu-bundle.sh packs.
const ROOT: &str = "FISSFUSE_TEST_ROOT";

fn moved_to() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

/// What stands under this name in tests/fixtures.
pub fn fixture(name: &str) -> PathBuf {
    let root = moved_to().unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let path = root.join("tests/fixtures").join(name);
    assert!(path.exists(), "{}: no such fixture; {ROOT} says where tests/fixtures is", path.display());
    path
}

fn program(name: &str, built: &str) -> Command {
    Command::new(moved_to().map_or_else(|| PathBuf::from(built), |root| root.join("bin").join(name)))
}

/// The program under test.
pub fn fissfuse(args: &[&str]) -> Command {
    let mut command = program("fissfuse", env!("CARGO_BIN_EXE_fissfuse"));
    command.args(args);
    command
}

/// The program that measures.
pub fn fissfuse_bench() -> Command {
    program("fissfuse-bench", env!("CARGO_BIN_EXE_fissfuse-bench"))
}

/// The largest of the values without their signs.
pub fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Each value is within so much of what it should be.
pub fn near(what: &str, got: &[f32], want: &[f32], bound: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= bound, "{what}[{i}] is {got}, want {want} within {bound}");
    }
}

/// Runs the program and wants success; gives what it printed.
pub fn succeed(args: &[&str]) -> String {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fissfuse {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program.
pub fn run(args: &[&str]) -> Output {
    fissfuse(args).output().unwrap()
}

/// Wants a failure with exit code 1 and an error on stderr that says all of these, not a panic.
pub fn refuse(args: &[&str], says: &[&str]) {
    refused(&run(args), says);
}

/// As [`refuse`], of what ran already.
pub fn refused(output: &Output, says: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.lines().any(|line| line.starts_with("error: ")), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    for says in says {
        assert!(errors.contains(says), "{errors:?} lacks {says:?}");
    }
}

/// The arguments with another value of this flag.
pub fn replace(mut args: Vec<&'static str>, flag: &str, value: &'static str) -> Vec<&'static str> {
    let at = args.iter().position(|a| *a == flag).unwrap();
    args[at + 1] = value;
    args
}

/// A folder with a dataset, an encoder, and perhaps features and a model.
pub struct World {
    folder: TempDir,
}

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 20, 20]),
    ("green", [20, 200, 20]),
    ("blue", [20, 20, 220]),
    ("yellow", [230, 220, 30]),
    ("black", [10, 10, 10]),
    ("pink", [240, 120, 200]),
];

/// Entities: every colour, as a ball and as a box.
pub const ENTITIES: usize = 2 * COLOURS.len();

/// Mentions of train.jsonl.
pub const TRAIN: usize = 40;

impl World {
    /// Dataset and encoder.
    pub fn new() -> World {
        let world = World { folder: tempfile::tempdir().unwrap() };
        let images = world.path("data/images");
        fs::create_dir_all(&images).unwrap();
        let mut entities = Vec::new();
        for (i, (name, colour)) in COLOURS.iter().enumerate() {
            for (k, thing) in ["ball", "box"].into_iter().enumerate() {
                let image = format!("images/{name}-{thing}.png");
                let picture =
                    RgbImage::from_fn(40, 32, |x, _| if k == 0 || x < 20 { Rgb(*colour) } else { Rgb([255; 3]) });
                picture.save(world.path("data").join(&image)).unwrap();
                let (qid, name) = (format!("Q{}", 2 * i + k), format!("{name} {thing}"));
                entities.push(json!({"qid": qid, "name": name, "description": format!("a {thing}"), "image": image}));
            }
        }
        world.write_lines("data/entities.jsonl", &entities);
        for (split, count) in [("train", TRAIN), ("valid", 10), ("test", 10)] {
            let mentions: Vec<Value> = (0..count).map(|i| World::mention(split, i)).collect();
            world.write_lines(&format!("data/{split}.jsonl"), &mentions);
        }
        world.write_encoder("encoder", 0);
        world
    }

    /// One of a split's mentions, whose candidates are all entities of its shape.
    pub fn mention(split: &str, i: usize) -> Value {
        let (k, colour) = (i % 2, (i * 7 + split.len()) % COLOURS.len());
        let thing = ["ball", "box"][k];
        let candidates: Vec<String> = (0..COLOURS.len()).map(|c| format!("Q{}", 2 * c + k)).collect();
        json!({
            "mention_id": format!("{split}-{i}"),
            "mention": thing,
            "sentence": format!("A {thing} number {i} that looks {}.", COLOURS[colour].0),
            "image": format!("images/{}-{thing}.png", COLOURS[colour].0),
            "candidates": candidates,
            "gold": format!("Q{}", 2 * colour + k),
        })
    }

    /// A small random CLIP.
    pub fn write_encoder(&self, name: &str, seed: u64) {
        let (text_width, vision_width, projection, layers) = (32, 32, 32, 1);
        let (image_size, patch_size, vocabulary) = (16, 8, 200);
        let clip =
            RandomClip { text_width, vision_width, projection, layers, image_size, patch_size, vocabulary, seed };
        let texts = COLOURS.iter().map(|(name, _)| *name).chain(["a ball and a box", "number looks that"]);
        write_random(&self.path(name), clip, texts).unwrap();
    }

    /// Dataset, encoder and features.
    pub fn encoded() -> World {
        let world = World::new();
        succeed(&world.encode());
        world
    }

    /// All, with a model of two epochs. Shared: do not change it.
    pub fn trained() -> &'static World {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| {
            let world = World::encoded();
            succeed(&[&world.train()[..], &["--epochs", "2"]].concat());
            world
        })
    }

    /// Another folder with all that is in this one.
    pub fn copy(&self) -> World {
        let copy = World { folder: tempfile::tempdir().unwrap() };
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            fs::create_dir_all(copy.folder.path().join(&folder)).unwrap();
            for entry in fs::read_dir(self.folder.path().join(&folder)).unwrap().map(|entry| entry.unwrap()) {
                let name = folder.join(entry.file_name());
                match entry.path().is_dir() {
                    true => folders.push(name),
                    false => drop(fs::copy(entry.path(), copy.folder.path().join(name)).unwrap()),
                }
            }
        }
        copy
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as an argument; it lives as long as the test.
    pub fn arg(&self, name: &str) -> &'static str {
        self.path(name).to_str().unwrap().to_string().leak()
    }

    /// `fissfuse encode` with its arguments.
    pub fn encode(&self) -> Vec<&'static str> {
        vec!["encode", "--data", self.arg("data"), "--encoder", self.arg("encoder"), "--out", self.arg("features")]
    }

    /// `fissfuse train` with its arguments.
    pub fn train(&self) -> Vec<&'static str> {
        let sizes = ["--d", "16", "--batch-size", "16", "--learning-rate", "1e-3"];
        let paths = ["--data", self.arg("data"), "--features", self.arg("features"), "--out", self.arg("model")];
        [&["train"][..], &paths, &sizes].concat()
    }

    /// `fissfuse eval` with its arguments.
    pub fn eval(&self, out: &str) -> Vec<&'static str> {
        [&["eval", "--data", self.arg("data"), "--out", self.arg(out)][..], &self.model()].concat()
    }

    /// `fissfuse link` with its arguments.
    pub fn link(&self) -> Vec<&'static str> {
        let link = ["link", "--data", self.arg("data"), "--encoder", self.arg("encoder")];
        [&link[..], &self.model()].concat()
    }

    fn model(&self) -> [&'static str; 4] {
        ["--features", self.arg("features"), "--model", self.arg("model")]
    }

    /// Writes a file of one value per line.
    pub fn write_lines(&self, name: &str, values: &[Value]) {
        let lines: Vec<String> = values.iter().map(|v| format!("{v}\n")).collect();
        fs::write(self.path(name), lines.concat()).unwrap();
    }

    /// Reads a file of one value per line.
    pub fn read_lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Changes one line of a file of the dataset.
    pub fn change_line(&self, name: &str, line: usize, change: impl FnOnce(&mut Value)) {
        let mut lines = self.read_lines(name);
        change(&mut lines[line - 1]);
        self.write_lines(name, &lines);
    }
}

/// Names of everything in a folder and below that looks like a file being written.
pub fn half_written(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "tmp") {
                found.push(entry);
            }
        }
    }
    found
}

/// A folder with cusim under the names by which programs load the CUDA driver and NVTX.
pub fn cusim() -> TempDir {
    let executable = std::env::current_exe().unwrap();
    let deps = executable.parent().unwrap();
    let library = [deps, deps.parent().unwrap()].map(|folder| folder.join("libcusim.so"));
    let library = library.iter().find(|path| path.exists()).expect("cusim is built with the tests");
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libnvToolsExt.so.1"] {
        std::os::unix::fs::symlink(library, folder.path().join(name)).unwrap();
    }
    folder
}

/// The program on cusim, as the environment says.
pub fn fissfuse_on_cusim(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = cusim();
    let mut command = fissfuse(args);
    command.env("LD_LIBRARY_PATH", folder.path()).envs(environment.iter().copied());
    command.output().unwrap()
}

/// Kernels that the program launches on cusim.
pub fn launches_on_cusim(args: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts.json");
    let output = fissfuse_on_cusim(args, &[("CUSIM_COUNT", path.to_str().unwrap())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Counts::read(&path).unwrap().kernels.iter().map(|kernel| kernel.launches).sum()
}

/// The folder of the nvcc that the kernels were compiled with, as build.rs looks for it.
pub fn toolchain() -> Option<PathBuf> {
    let executable = std::env::current_exe().unwrap();
    let fetched = executable.ancestors().nth(3)?.join("cuda-toolchain/bin");
    let named = std::env::var_os("FISSFUSE_NVCC").and_then(|nvcc| Some(PathBuf::from(nvcc).parent()?.to_path_buf()));
    let in_home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = named.into_iter().chain(in_home).chain(std::env::split_paths(&path)).chain([fetched]);
    candidates.into_iter().find(|folder| folder.join("nvcc").exists())
}

/// Set in the process that tests on a device run in.
const INSIDE: &str = "FISSFUSE_TEST_ON_DEVICE";

/// Runs the checks of the doctor's table whose names begin with one of these, of each of which there must be some; all must
/// hold, and with `again` have the same bits when repeated. Gives the kernels that they launched.
pub fn prove(gpu: &Gpu, beginnings: &[&str], again: bool) -> BTreeSet<&'static str> {
    let mut checks = proof::checks(gpu).unwrap();
    for beginning in beginnings {
        assert!(checks.iter().any(|check| check.name.starts_with(beginning)), "no check of {beginning}");
    }
    checks.retain(|check| beginnings.iter().any(|beginning| check.name.starts_with(beginning)));
    let mut launched = BTreeSet::new();
    for check in checks {
        let proof = check.run(gpu, again).unwrap();
        let (arithmetic, repeats) = (gpu.arithmetic(), proof.repeats);
        assert!(proof.holds(), "{gpu:?}, {arithmetic:?}, {}: repeats: {repeats:?}, {:?}", proof.name, proof.worst());
        launched.extend(proof.kernels);
    }
    launched
}

/// Settings of cusim for a test.
type Environment<'a> = &'a [(&'a str, &'a str)];

/// A device of the oldest driver that works, and without memory pools: what newer ones add is done in the plain way.
pub const OLDEST: [(&str, &str); 2] = [("CUSIM_DRIVER", "470"), ("CUSIM_POOLS", "off")];

/// Runs the body of the test with this path where it finds a device: here if there is a driver, else in a process of its
/// own on cusim with all its checks, where each array has memory of its own, so that they see what belongs to it.
pub fn on_device(test: &str, body: impl FnOnce()) {
    on_devices(test, &[&[("CUSIM_CHECK", "all"), ("FISSFUSE_MEMORY_CACHE", "off")]], body);
}

/// The same on a device of the oldest driver that works, without memory pools.
pub fn on_oldest_device(test: &str, body: impl FnOnce()) {
    on_devices(test, &[&[("CUSIM_CHECK", "all"), OLDEST[0], OLDEST[1]]], body);
}

/// The same on devices that differ in their number of multiprocessors, and so in the kernels that they choose (an H100 has as
/// many as an H200), without cusim's checks: other tests have these.
pub fn on_every_model(test: &str, body: impl FnOnce()) {
    on_devices(
        test,
        &["rtx3090", "a100", "h200"].map(|model| [("CUSIM_DEVICE", model)]).each_ref().map(|e| &e[..]),
        body,
    );
}

/// What cusim counts of the body of the test with this path, in a process of its own; nothing within that process, where the body
/// runs.
pub fn counted_on_cusim(test: &str, body: impl FnOnce(&Gpu)) -> Option<Counts> {
    if std::env::var_os(INSIDE).is_some() {
        listen();
        name_ranges().unwrap();
        body(&Gpu::open(0, Arithmetic::Mixed).unwrap());
        return None;
    }
    let (library, folder) = (cusim(), tempfile::tempdir().unwrap());
    let counts = folder.path().join("counts.json");
    run_on_cusim(test, library.path(), &[("CUSIM_COUNT", counts.to_str().unwrap())]);
    Some(Counts::read(&counts).unwrap())
}

/// The same on devices of cusim with these settings, one after the other.
pub fn on_devices(test: &str, environments: &[Environment], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() || has_driver() {
        return body();
    }
    let folder = cusim();
    for environment in environments {
        let order = [("CUSIM_ASYNC", "late"), ("CUSIM_ORDER", "reverse")];
        run_on_cusim(test, folder.path(), &[&order, *environment].concat());
    }
}

/// Runs the test with this path in a process of its own, whose driver is cusim.
fn run_on_cusim(test: &str, library: &Path, environment: Environment) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("LD_LIBRARY_PATH", library)
        .env(INSIDE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("1 passed"), "{environment:?}: {printed}\n{errors}");
    assert!(!errors.contains("cusim: ["), "{environment:?}: {errors}");
}
