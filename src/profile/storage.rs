//! Encoding at the size of a published dataset: throughput, memory, opening, and what a kill costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use super::simulation::{Simulation, simulate};
use super::{Timing, peak_memory};
use crate::data::{
    Dataset, EncodeReport, EncodeSettings, FeatureStore, Items, Skipped, Tolerance, check_store, encode,
};
use crate::encoder::clip::{RandomClip, write_random};
use crate::encoder::{Compute, Encoders};
use crate::error::{Error, Result};
use crate::interrupt;

/// A random CLIP with the output shapes of ViT-B/32 and as little work between as can be.
const ENCODER: RandomClip = RandomClip {
    text_width: 512,
    vision_width: 768,
    projection: 512,
    layers: 1,
    image_size: 224,
    patch_size: 32,
    vocabulary: 8000,
    seed: 0,
};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct StorageFigures {
    /// Texts and images that were in the store when the first run was killed.
    pub before_kill: usize,
    /// Texts and images encoded by the run after it.
    pub after_kill: usize,
    /// Texts and images that were encoded again: none, as only whole shards count as written.
    pub again: usize,
    /// Seconds of the run after the kill.
    pub seconds: f64,
    /// Seconds of one more run, which finds everything done.
    pub idle_seconds: f64,
    /// Seconds to open the store, the median of several times.
    pub open_seconds: f64,
    /// Seconds to compare the store with its checksums.
    pub check_seconds: f64,
    /// Shards and their bytes.
    pub shards: usize,
    pub bytes: usize,
    /// Most memory of this process.
    pub peak_memory: Option<u64>,
}

/// Writes a simulated dataset and an encoder into `folder`, and measures encoding it. `first_run` is a program that calls
/// [`encode_once`] on the folder; it is killed when a third of the images are stored.
pub fn measure(folder: &Path, of: Simulation, first_run: Command) -> Result<StorageFigures> {
    simulate(&folder.join("data"), of)?;
    let dataset = Dataset::open(&folder.join("data"), Tolerance::Strict, &mut Skipped::default())?;
    let texts = dataset.entities().iter().take(2000).map(|entity| entity.description.as_str());
    write_random(&folder.join("encoder"), ENCODER, texts)?;
    let third = 2 * (of.entities + of.mentions) * (50 * 768 + 512) / 3;
    go_on()?;
    kill_at(folder, third as u64, first_run)?;
    let (start, report) = (Instant::now(), encode_once(folder)?);
    let seconds = start.elapsed().as_secs_f64();
    let (start, idle) = (Instant::now(), encode_once(folder)?);
    let idle_seconds = start.elapsed().as_secs_f64();
    let features = folder.join("features");
    let open = Timing::of(1, 9, || FeatureStore::open(&features).map(drop))?;
    let (start, checked) = (Instant::now(), check_store(&features)?);
    let EncodeReport { texts, images, reused, .. } = report;
    Ok(StorageFigures {
        before_kill: reused,
        after_kill: texts + images,
        again: (reused + texts + images).saturating_sub(idle.reused),
        seconds,
        idle_seconds,
        open_seconds: open.p50(),
        check_seconds: start.elapsed().as_secs_f64(),
        shards: checked.shards,
        bytes: checked.bytes,
        peak_memory: peak_memory(),
    })
}

/// Encodes the dataset of such a folder, or what of it is not encoded yet.
pub fn encode_once(folder: &Path) -> Result<EncodeReport> {
    let mut skipped = Skipped::default();
    let dataset = Dataset::open(&folder.join("data"), Tolerance::Strict, &mut skipped)?;
    let encoders = Encoders::open(&folder.join("encoder").as_path().into(), Compute::fastest(None))?;
    let (settings, features, bar) = (EncodeSettings::default(), folder.join("features"), ProgressBar::hidden());
    let items = Items::of(&dataset, &mut skipped)?;
    encode(&items, &encoders, &settings, &features, Tolerance::Strict, &mut skipped, &bar)
}

/// Fails if a signal asked to stop.
fn go_on() -> Result<()> {
    interrupt::check(|| "nothing is kept".into())
}

/// Starts a program and kills it when it has stored so many bytes of features of images. Fails if a signal asked to stop.
fn kill_at(folder: &Path, bytes: u64, mut program: Command) -> Result<()> {
    let features: PathBuf = folder.join("features");
    let name = PathBuf::from(program.get_program());
    let mut child = program.stdout(Stdio::null()).spawn().map_err(Error::io(&name, "start"))?;
    let ended = loop {
        if let Some(ended) = child.try_wait().map_err(Error::io(&name, "watch"))? {
            break ended;
        }
        let shards = std::fs::read_dir(&features).into_iter().flatten().flatten();
        let images = shards.filter(|entry| entry.file_name().to_string_lossy().starts_with("image-"));
        let stored = images.filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum::<u64>();
        if stored >= bytes || interrupt::asked() {
            child.kill().and_then(|()| child.wait()).map_err(Error::io(&name, "kill"))?;
            return go_on();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Err(Error::invalid(match ended.success() {
        true => "the first run ended before it could be killed; take more entities",
        false => "the first run failed before it could be killed: it says above why",
    }))
}
