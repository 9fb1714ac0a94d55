//! A dataset's image files.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Loaded;
use crate::encoder::{image_header, read_image};
use crate::files;

/// How closely images are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ImageCheck {
    /// Not at all.
    None,
    /// The file must be there and begin as an image does.
    #[default]
    Header,
    /// The whole image is decoded.
    Decode,
}

/// What an image file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    Good,
    /// Good, but its EXIF entry says that it is to be turned or mirrored, which encoding does not do.
    Turned,
    Missing,
    Unreadable,
}

/// The state of each image that a dataset names.
pub fn states(loaded: &Loaded, check: ImageCheck) -> HashMap<&str, ImageState> {
    if check == ImageCheck::None {
        return HashMap::new();
    }
    let state = |name: &&str| {
        let path = loaded.root.join(name);
        let whole = || check != ImageCheck::Decode || read_image(&path).is_ok();
        match path.is_file().then(|| image_header(&path)) {
            None => ImageState::Missing,
            Some(Ok(header)) if whole() => {
                if header.turned {
                    ImageState::Turned
                } else {
                    ImageState::Good
                }
            }
            Some(_) => ImageState::Unreadable,
        }
    };
    let names = loaded.entities.iter().filter_map(|e| e.image.as_deref());
    let names = distinct(names.chain(loaded.mentions_of_all().filter_map(|m| m.image.as_deref())));
    let states: Vec<ImageState> = names.par_iter().map(state).collect();
    names.into_iter().zip(states).collect()
}

/// A number for each mention's image that is the same for files of the same content. Only files of the same size are
/// read.
pub fn contents(loaded: &Loaded) -> HashMap<&str, u64> {
    let names = distinct(loaded.mentions_of_all().filter_map(|m| m.image.as_deref()));
    let size = |name: &&str| files::expect_regular(&loaded.root.join(name)).map(|m| m.len()).ok();
    let sizes: Vec<Option<u64>> = names.par_iter().map(size).collect();
    let mut of_size: HashMap<u64, usize> = HashMap::new();
    sizes.iter().flatten().for_each(|&size| *of_size.entry(size).or_default() += 1);
    let content = |(name, size): (&&str, &Option<u64>)| match size {
        Some(size) if of_size[size] > 1 => files::read(&loaded.root.join(name)).map(|bytes| xxh3_64(&bytes)).ok(),
        _ => None,
    };
    let contents: Vec<Option<u64>> = names.par_iter().zip(&sizes).map(content).collect();
    names.into_iter().zip(contents).map(|(name, hash)| (name, hash.unwrap_or(xxh3_64(name.as_bytes())))).collect()
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}
