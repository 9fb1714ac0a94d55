//! One store of several, whose entries lie in it one behind the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::f16;

use super::writer::Pending;
use super::{Kind, Manifest, Seal};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::safetensors::Reader;

/// What a joined store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Texts.
    pub texts: usize,
    /// Images, among them what stands in for missing ones.
    pub images: usize,
}

/// Writes the store that one run would have written which had encoded what these stores hold, in their order: the same shards,
/// to the byte. Of an entry that several have, the first store's counts, and of one that a store has twice, the last, as when it is
/// read. Stores are mapped, so memory is bounded by a shard.
///
/// Fails if they were made otherwise than each other, or if `out` is there and not empty.
pub fn join(stores: &[PathBuf], out: &Path) -> Result<Joined> {
    let Some(first) = stores.first() else { return Err(Error::invalid("there are no stores to join")) };
    let manifest = Manifest::read(first)?;
    for other in stores {
        if let Some(difference) = manifest.difference(&Manifest::read(other)?, ["in the first store", "in this one"]) {
            return Err(Error::file(other, format!("holds features made otherwise: {difference}")));
        }
    }
    files::write_folder_whole(out, |folder| {
        manifest.write(folder)?;
        let [texts, images] = [Kind::Text, Kind::Image].map(|kind| {
            let mut pending = Pending::default();
            let joined = stores.iter().try_for_each(|store| append(store, kind, (folder, &manifest), &mut pending));
            joined.and_then(|()| pending.write(folder, kind, &manifest)).map(|()| pending.items())
        });
        Ok(Joined { texts: texts?, images: images? })
    })
}

fn append(store: &Path, kind: Kind, (out, manifest): (&Path, &Manifest), pending: &mut Pending) -> Result<()> {
    let (width, global_width) = kind.widths(manifest.widths);
    let shards = kind.shards(store)?;
    let mut last = HashMap::new();
    for (shard, (_, path)) in shards.iter().enumerate() {
        last.extend(kind.keys(&Reader::open(path)?)?.into_iter().enumerate().map(|(i, key)| (key, (shard, i))));
    }
    for (shard, (_, path)) in shards.into_iter().enumerate() {
        let reader = Reader::open(&path)?;
        if let Some(difference) =
            reader.metadata::<Seal>()?.manifest.difference(manifest, ["in the file", "in the store"])
        {
            return Err(Error::file(&path, format!("was made otherwise than its store: {difference}")));
        }
        let (keys, offsets) = (kind.keys(&reader)?, reader.values::<u64>(&kind.tensor("offsets"))?);
        let stamps = reader.values::<u64>(&kind.tensor("stamps"))?;
        let (tokens, global) = (reader.mapped::<f16>(kind.tokens())?, reader.mapped::<f16>(&kind.tensor("global"))?);
        let rising = offsets.len() == keys.len() + 1 && offsets.first() == Some(&0) && offsets.is_sorted();
        let rows = offsets.last().map_or(0, |&rows| rows as usize);
        let whole = stamps.len() == 2 * keys.len() && global.len() == keys.len() * global_width;
        if !rising || !whole || tokens.len() != rows * width {
            return Err(reader.error(kind.tokens(), "does not match its offsets and keys; make the part anew"));
        }
        for (i, &key) in keys.iter().enumerate().filter(|&(i, key)| last.get(key) == Some(&(shard, i))) {
            let rows = offsets[i] as usize * width..offsets[i + 1] as usize * width;
            let (tokens, global) = (&tokens[rows], &global[i * global_width..][..global_width]);
            pending.push_stored(key, (tokens, width), global, [stamps[2 * i], stamps[2 * i + 1]]);
            pending.write_if_full(out, kind, manifest)?;
        }
    }
    Ok(())
}
