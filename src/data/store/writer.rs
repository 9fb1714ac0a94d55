//! Writing a feature store, shard after shard.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Kind, Manifest, Seal, checksum};
use crate::encoder::Encoded;
use crate::error::{Error, Result};
use crate::files::{self, FolderLock};
use crate::tensor::safetensors::{Reader, Writer};

/// Bytes of features gathered before a shard is written: what a kill loses at most.
const SHARD_BYTES: usize = 64_000_000;

/// Size and time of the file that an entry was made from; zeros for a text.
pub type Stamp = [u64; 2];

/// The stamp of a file; none where its system knows no time.
pub fn stamp_of(file: &Metadata) -> Option<Stamp> {
    let time = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some([file.len(), time.as_nanos() as u64])
}

/// Appends to a store. Holds a lock on it, which ends with the process.
pub struct StoreWriter {
    folder: PathBuf,
    manifest: Manifest,
    text: Pending,
    image: Pending,
    _lock: FolderLock,
}

/// What the store has of one kind, and what waits to be written as its next shard.
#[derive(Default)]
pub(super) struct Pending {
    known: HashMap<u128, Stamp>,
    next_shard: usize,
    tokens: Vec<f16>,
    global: Vec<f16>,
    offsets: Vec<u64>,
    keys: Vec<u64>,
    stamps: Vec<u64>,
}

impl Pending {
    fn open(folder: &Path, kind: Kind) -> Result<Pending> {
        let mut pending = Pending::default();
        for (number, path) in kind.shards(folder)? {
            let reader = Reader::open(&path)?;
            let stamps = reader.values::<u64>(&kind.tensor("stamps"))?;
            let stamps = stamps.chunks_exact(2).map(|s| [s[0], s[1]]);
            pending.known.extend(kind.keys(&reader)?.into_iter().zip(stamps));
            pending.next_shard = number + 1;
        }
        Ok(pending)
    }

    fn push(&mut self, key: u128, encoded: &Encoded, width: usize, stamp: Stamp) -> Result<()> {
        let before = (self.tokens.len(), self.global.len());
        for (values, rounded) in [(&encoded.tokens, &mut self.tokens), (&encoded.global, &mut self.global)] {
            let start = rounded.len();
            rounded.resize(start + values.len(), f16::ZERO);
            rounded[start..].convert_from_f32_slice(values);
        }
        let new = self.tokens[before.0..].iter().chain(&self.global[before.1..]);
        if !new.into_iter().all(|x| x.is_finite()) {
            return Err(Error::invalid(
                "its features hold a value that f16 cannot hold, NaN or infinity; are the encoder's weights whole?",
            ));
        }
        self.note(key, encoded.tokens.len() / width, stamp);
        Ok(())
    }

    /// The same of what another store holds, unless this one has it.
    pub fn push_stored(&mut self, key: u128, (tokens, width): (&[f16], usize), global: &[f16], stamp: Stamp) {
        if !self.known.contains_key(&key) {
            self.tokens.extend_from_slice(tokens);
            self.global.extend_from_slice(global);
            self.note(key, tokens.len() / width, stamp);
        }
    }

    fn note(&mut self, key: u128, rows: usize, stamp: Stamp) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0) + rows as u64);
        self.keys.extend([(key >> 64) as u64, key as u64]);
        self.stamps.extend(stamp);
        self.known.insert(key, stamp);
    }

    /// Number of all entries.
    pub fn items(&self) -> usize {
        self.known.len()
    }

    fn bytes(&self) -> usize {
        2 * (self.tokens.len() + self.global.len())
    }

    /// Writes a shard when enough waits.
    pub fn write_if_full(&mut self, folder: &Path, kind: Kind, manifest: &Manifest) -> Result<()> {
        if self.bytes() >= SHARD_BYTES { self.write(folder, kind, manifest) } else { Ok(()) }
    }

    /// Writes what waits, if anything does.
    pub fn write(&mut self, folder: &Path, kind: Kind, manifest: &Manifest) -> Result<()> {
        let n = self.offsets.len();
        if n == 0 {
            return Ok(());
        }
        self.offsets.insert(0, 0);
        let (width, global_width) = kind.widths(manifest.widths);
        let tokens_shape = match kind {
            Kind::Text => vec![self.offsets[n] as usize, width],
            Kind::Image => vec![n, manifest.patches, width],
        };
        let [tokens, global, offsets, keys, stamps] = kind.tensors();
        let mut writer = Writer::default();
        writer.add(tokens, &tokens_shape, &self.tokens).add(global, &[n, global_width], &self.global);
        writer.add(offsets, &[n + 1], &self.offsets).add(keys, &[n, 2], &self.keys).add(stamps, &[n, 2], &self.stamps);
        let [offsets, keys, stamps] = [&self.offsets, &self.keys, &self.stamps].map(|x| bytemuck::cast_slice(x));
        let checksum =
            checksum([bytemuck::cast_slice(&self.tokens), bytemuck::cast_slice(&self.global), offsets, keys, stamps]);
        writer.metadata(&Seal { manifest: manifest.clone(), checksum })?.write(&kind.shard(folder, self.next_shard))?;
        *self =
            Pending { known: std::mem::take(&mut self.known), next_shard: self.next_shard + 1, ..Pending::default() };
        Ok(())
    }
}

impl StoreWriter {
    /// Opens a store for appending, or starts one. A store that was made otherwise is refused.
    pub fn open(folder: &Path, manifest: Manifest) -> Result<StoreWriter> {
        files::create_folder(folder)?;
        let lock = FolderLock::take(folder)?;
        let (text, image) = (Pending::open(folder, Kind::Text)?, Pending::open(folder, Kind::Image)?);
        let there = Manifest::exists(folder).then(|| Manifest::read(folder)).transpose()?;
        match there.map(|there| there.difference(&manifest, ["in the store", "in this call"])) {
            Some(None) => {}
            Some(Some(difference)) if text.next_shard + image.next_shard > 0 => {
                let reason = format!("holds features made otherwise: {difference}; choose another folder for --out");
                return Err(Error::file(folder, reason));
            }
            // A run that failed before it stored anything binds nobody to its settings.
            _ => manifest.write(folder)?,
        }
        Ok(StoreWriter { folder: folder.to_path_buf(), manifest, text, image, _lock: lock })
    }

    /// Whether the store has this entry, made from a file of this size and time.
    pub fn has(&self, kind: Kind, key: u128, stamp: Stamp) -> bool {
        let pending = match kind {
            Kind::Text => &self.text,
            Kind::Image => &self.image,
        };
        pending.known.get(&key) == Some(&stamp)
    }

    /// Adds an entry; writes a shard when enough have gathered.
    pub fn add(&mut self, kind: Kind, key: u128, encoded: &Encoded, stamp: Stamp) -> Result<()> {
        let (width, global_width) = kind.widths(self.manifest.widths);
        let rows = encoded.tokens.len() / width;
        let whole = rows * width == encoded.tokens.len() && encoded.global.len() == global_width && rows > 0;
        if !whole || (kind == Kind::Image && rows != self.manifest.patches) {
            return Err(Error::invalid("the encoder gave features of other shapes than it announced"));
        }
        let pending = match kind {
            Kind::Text => &mut self.text,
            Kind::Image => &mut self.image,
        };
        pending.push(key, encoded, width, stamp)?;
        pending.write_if_full(&self.folder, kind, &self.manifest)
    }

    /// Writes what still waits.
    pub fn finish(mut self) -> Result<()> {
        self.text.write(&self.folder, Kind::Text, &self.manifest)?;
        self.image.write(&self.folder, Kind::Image, &self.manifest)
    }
}
