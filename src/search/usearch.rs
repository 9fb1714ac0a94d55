//! An index of usearch in one file, which is mapped and not read into memory.
//!
//! Vectors are kept as codes of 8 bits with one step for all, since usearch itself would bring each to the same length, and inner
//! products would be lost. Behind usearch's own bytes stand a [`Trailer`] in JSON, its length and [`MAGIC`].

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::usearch::{Index, IndexOptions, MetricKind, ScalarKind};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use xxhash_rust::xxh3::xxh3_128;

use super::engine::{Filling, Progress};
use super::{Access, Candidates, Found, Seal, rows_of};
use crate::device::MappedFile;
use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::files;

/// The last bytes of a file.
const MAGIC: &[u8; 8] = b"FISSUS01";

/// Neighbours of a vector in the graph, and those that are looked at when one is added.
const CONNECTIVITY: usize = 16;
const EXPANSION: usize = 200;

/// What an index is of, behind it in its file.
#[derive(Serialize, Deserialize)]
struct Trailer {
    seal: Seal,
    /// What one unit of a code is worth.
    step: f32,
    /// Checksum of usearch's own bytes.
    checksum: String,
}

fn options(width: usize) -> IndexOptions {
    IndexOptions {
        dimensions: width,
        metric: MetricKind::IP,
        quantization: ScalarKind::I8,
        connectivity: CONNECTIVITY,
        expansion_add: EXPANSION,
        ..IndexOptions::default()
    }
}

/// What is in a file: usearch's own bytes, and what they are of. `None` if there is no file.
fn look(path: &Path) -> Result<Option<(MappedFile, usize, Trailer)>> {
    let file = match MappedFile::open(path) {
        Ok(file) => file,
        Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let trailer = || {
        let rest = file.strip_suffix(MAGIC)?;
        let (rest, length) = rest.split_last_chunk::<8>()?;
        let end = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let trailer: Trailer = serde_json::from_slice(&rest[end..]).ok()?;
        Some((end, trailer))
    };
    match trailer() {
        Some((end, trailer)) => Ok(Some((file, end, trailer))),
        None => {
            Err(Error::file(path, "is no index that `fissfuse index push` wrote, or not all of it; name another file"))
        }
    }
}

/// As [`super::fill`].
pub fn fill(path: &Path, seal: &Seal, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    files::expect_file_at(path)?;
    if let Some((file, end, trailer)) = look(path)? {
        match seal.difference(&trailer.seal) {
            None if checksum(&file[..end]) == trailer.checksum => return Ok(None),
            // Not what was written: it is written anew.
            None => {}
            Some(difference) if !replace => {
                return Err(Error::file(
                    path,
                    format!("holds an index {difference}; name another file, or give --replace"),
                ));
            }
            Some(_) => {}
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let rows = files::temporary_file(folder).map_err(Error::io(folder, "create a temporary file in"))?;
    let out = BufWriter::new(rows.reopen().map_err(Error::io(rows.path(), "open"))?);
    let progress = Progress { seal: seal.clone(), added: 0 };
    Ok(Some(Box::new(UsearchFilling { path: path.into(), rows, out, progress, largest: 0.0 })))
}

/// As [`super::open`].
pub fn open(path: &Path, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    let refuse = |reason: String| Error::file(path, reason);
    let (file, end, trailer) =
        look(path)?.ok_or_else(|| refuse("is not there; `fissfuse index push` writes it".into()))?;
    if let Some(difference) = seal.difference(&trailer.seal) {
        return Err(refuse(format!(
            "holds an index {difference}; name that one's model, features and dataset, or write it anew by `fissfuse index push \
             --replace`"
        )));
    }
    if checksum(&file[..end]) != trailer.checksum {
        return Err(refuse(
            "is not what was written (its checksum differs); write it anew by `fissfuse index push`".into(),
        ));
    }
    drop(file);
    let index = Index::new(&options(seal.width)).map_err(|e| failed(path, "open", &e))?;
    // One search at a time for each thread; usearch itself thinks of the processor's, and fails where there are more.
    index.reserve_capacity_and_threads(0, rayon::current_num_threads()).map_err(|e| failed(path, "open", &e))?;
    index.view(name_of(path)?).map_err(|e| failed(path, "open", &e))?;
    if index.size() != seal.count {
        return Err(refuse(seal.miscounted(index.size())));
    }
    let (seal, step) = (seal.clone(), trailer.step);
    Ok(Arc::new(Usearch { path: path.into(), index, seal, step, access: access.clone() }))
}

/// What usearch says.
fn failed(path: &Path, doing: &str, error: &impl fmt::Display) -> Error {
    Error::file(path, format!("usearch cannot {doing} it: {error}"))
}

/// usearch takes paths as text.
fn name_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::file(path, "usearch takes only names that are UTF-8"))
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Codes of a vector, in steps; magnitudes of more than 127 of them are cut.
fn codes(vector: &[f32], step: f32) -> Vec<i8> {
    vector.iter().map(|x| (x / step).round_ties_even().clamp(-127.0, 127.0) as i8).collect()
}

/// Collects vectors in a temporary file beside the index: the step is known when all are there.
struct UsearchFilling {
    path: PathBuf,
    rows: NamedTempFile,
    out: BufWriter<File>,
    progress: Progress,
    largest: f32,
}

impl Filling for UsearchFilling {
    fn add(&mut self, vectors: &[f32]) -> Result<()> {
        self.progress.add(vectors)?;
        self.largest = vectors.iter().fold(self.largest, |largest, x| largest.max(x.abs()));
        self.out.write_all(bytemuck::cast_slice(vectors)).map_err(Error::io(self.rows.path(), "write"))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.progress.expect_all()?;
        self.out.flush().map_err(Error::io(self.rows.path(), "write"))?;
        let (path, seal) = (self.path.as_path(), &self.progress.seal);
        let step = if self.largest > 0.0 { self.largest / 127.0 } else { 1.0 };
        let index = Index::new(&options(seal.width)).map_err(|e| failed(path, "make", &e))?;
        let threads = rayon::current_num_threads();
        index.reserve_capacity_and_threads(seal.count, threads).map_err(|e| failed(path, "make", &e))?;
        let rows = MappedFile::open(self.rows.path())?;
        let rows = rows.par_chunks_exact(4 * seal.width).enumerate();
        rows.try_for_each(|(entity, row)| {
            let row: Vec<f32> = bytemuck::pod_collect_to_vec(row);
            index.add(entity as u64, &codes(&row, step)).map_err(|e| failed(path, "add a vector to", &e))
        })?;
        let mut unwritten = None;
        let written = files::write_whole_at(path, |temporary| {
            let write = || -> Result<()> {
                index.save(name_of(temporary)?).map_err(|e| failed(path, "write", &e))?;
                let trailer = Trailer { seal: seal.clone(), step, checksum: checksum(&MappedFile::open(temporary)?) };
                let mut trailer = serde_json::to_vec(&trailer).map_err(|e| failed(path, "describe", &e))?;
                trailer.extend((trailer.len() as u64).to_le_bytes());
                trailer.extend(MAGIC);
                let behind = OpenOptions::new().append(true).open(temporary);
                behind.and_then(|mut file| file.write_all(&trailer)).map_err(Error::io(path, "write"))
            };
            write().map_err(|error| {
                unwritten = Some(error);
                std::io::Error::other("it was not made")
            })
        });
        unwritten.map_or(written, Err)
    }
}

/// An opened index.
struct Usearch {
    path: PathBuf,
    index: Index,
    seal: Seal,
    step: f32,
    access: Access,
}

impl fmt::Debug for Usearch {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.name())
    }
}

impl Candidates for Usearch {
    fn name(&self) -> String {
        format!("index of usearch in {}", self.path.display())
    }

    fn width(&self) -> usize {
        self.seal.width
    }

    fn len(&self) -> usize {
        self.seal.count
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        rows_of(queries, self.seal.width)?;
        self.index.change_expansion_search(self.access.breadth_of(k));
        queries.par_chunks_exact(self.seal.width).map(|query| self.of_one(query, k)).collect()
    }
}

impl Usearch {
    fn of_one(&self, query: &[f32], k: usize) -> Result<Vec<Found>> {
        let mut codes = vec![0; query.len()];
        let (step, _) = simd!(vector::quantize(&mut codes, query));
        if !step.is_finite() {
            return Err(Error::overflow("a mention's vector is"));
        }
        let found = self.index.search(&codes, k).map_err(|e| failed(&self.path, "search", &e))?;
        // usearch's distance is 1 - the product of the codes.
        let product = |distance: f32| (1.0 - distance) * step * self.step;
        let found = found.keys.iter().zip(&found.distances).map(|(&key, &distance)| Found {
            number: u32::try_from(key).unwrap_or(u32::MAX),
            product: product(distance),
        });
        Found::checked(found.collect(), self.seal.count).map_err(|reason| Error::file(&self.path, reason))
    }
}
