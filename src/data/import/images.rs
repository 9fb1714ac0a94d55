//! Finding an item's image among the files of a format, and bringing it into the dataset.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use crate::data::audit::ImageCheck;
use crate::encoder::image_size;
use crate::error::{Error, Result};

/// Endings in the order in which DRIN tries them.
const SUFFIXES: [&str; 11] = ["", ".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".tif", ".TIF", ".tiff", ".TIFF"];

/// Where an image may lie.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageSource {
    /// The item has none.
    None,
    /// The first of these files that can be used.
    Files(Vec<PathBuf>),
    /// A path without its ending; the first that exists counts, usable or not.
    Stem(PathBuf),
}

/// What became of an item's image.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// The item has none.
    None,
    /// This file.
    File(PathBuf),
    /// No file is there.
    Missing,
    /// A file is there, but cannot be read.
    Unreadable,
    /// A side is shorter than the format allows.
    Small,
    /// This file lies where the import may take none from.
    Outside(PathBuf),
}

impl ImageSource {
    /// Looks for the file and at it.
    pub fn resolve(&self, check: ImageCheck, smallest_side: u32, bounds: &Bounds) -> Resolved {
        let judge = |path: PathBuf| match bounds.hold(&path) {
            true => judge(path, check, smallest_side),
            false => Resolved::Outside(path),
        };
        match self {
            ImageSource::None => Resolved::None,
            ImageSource::Stem(stem) => {
                let with = |suffix: &&str| PathBuf::from(format!("{}{suffix}", stem.display()));
                let found = SUFFIXES.iter().map(with).find(|path| path.is_file());
                found.map_or(Resolved::Missing, judge)
            }
            ImageSource::Files(paths) => {
                let present = paths.iter().filter(|path| path.is_file());
                let judged = present.map(|path| judge(path.clone()));
                let mut first = None;
                // The first usable file; else what is wrong with the first that is there.
                for one in judged {
                    if matches!(one, Resolved::File(_) | Resolved::Outside(_)) {
                        return one;
                    }
                    first.get_or_insert(one);
                }
                first.unwrap_or(if paths.is_empty() { Resolved::None } else { Resolved::Missing })
            }
        }
    }
}

fn judge(path: PathBuf, check: ImageCheck, smallest_side: u32) -> Resolved {
    match image_size(&path) {
        Ok((width, height)) if width.min(height) < smallest_side => Resolved::Small,
        Ok(_) if check == ImageCheck::Decode && crate::encoder::read_image(&path).is_err() => Resolved::Unreadable,
        Ok(_) => Resolved::File(path),
        Err(_) => Resolved::Unreadable,
    }
}

/// Puts files into a dataset's folder of images, each once.
pub struct Shelf {
    folder: PathBuf,
    name: &'static str,
    copy: bool,
    placed: HashMap<PathBuf, String>,
    taken: HashSet<String>,
}

impl Shelf {
    /// Files go to `root/images/name`.
    pub fn new(root: &Path, name: &'static str, copy: bool) -> Shelf {
        let folder = root.join("images").join(name);
        Shelf { folder, name, copy, placed: HashMap::new(), taken: HashSet::new() }
    }

    /// Brings a file in; gives its path in the dataset.
    pub fn place(&mut self, file: &Path) -> Result<String> {
        if let Some(there) = self.placed.get(file) {
            return Ok(there.clone());
        }
        let base = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbered = (1..).map(|n| format!("{n}-{base}"));
        let names = std::iter::once(base.clone()).chain(numbered);
        let name = names.into_iter().find(|name| !self.taken.contains(name)).unwrap_or_default();
        if self.taken.is_empty() {
            crate::files::create_folder(&self.folder)?;
        }
        bring(file, &self.folder.join(&name), self.copy)?;
        self.taken.insert(name.clone());
        let path = format!("images/{}/{name}", self.name);
        self.placed.insert(file.to_path_buf(), path.clone());
        Ok(path)
    }
}

/// Hard-links a file, or copies it where that is asked for or links are not possible. Never changes its content.
pub fn bring(from: &Path, to: &Path, copy: bool) -> Result<()> {
    // A link to a symbolic link would break when that is moved.
    let from = from.canonicalize().map_err(Error::io(from, "read"))?;
    if !copy && std::fs::hard_link(&from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(&from, to).map_err(Error::io(to, "write")).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_tried_in_order_and_the_first_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let picture = image::RgbImage::new(60, 60);
        picture.save(at("Q1.png")).unwrap();
        let stem = ImageSource::Stem(at("Q1"));
        let bounds = Bounds::new([folder.path()], None, false);
        let resolve = |source: &ImageSource| source.resolve(ImageCheck::Header, 50, &bounds);
        assert_eq!(resolve(&stem), Resolved::File(at("Q1.png")));
        picture.save(at("Q1.jpeg")).unwrap();
        assert_eq!(resolve(&stem), Resolved::File(at("Q1.jpeg")));
        std::fs::write(at("Q1.JPG"), "no image").unwrap();
        assert_eq!(resolve(&stem), Resolved::Unreadable);
        image::RgbImage::new(49, 300).save_with_format(at("Q1"), image::ImageFormat::Png).unwrap();
        assert_eq!(resolve(&stem), Resolved::Small);
        assert_eq!(resolve(&ImageSource::Stem(at("Q2"))), Resolved::Missing);
        let list = ["none", "Q1.JPG", "Q1", "Q1.png"].map(at);
        assert_eq!(resolve(&ImageSource::Files(list.to_vec())), Resolved::File(at("Q1.png")));
        assert_eq!(resolve(&ImageSource::Files(list[..3].to_vec())), Resolved::Unreadable);
        assert_eq!(resolve(&ImageSource::Files(list[..1].to_vec())), Resolved::Missing);
        // A header alone is not a picture.
        image::RgbImage::from_fn(60, 60, |x, y| image::Rgb([x, y, x * y].map(|v| (v * 37) as u8)))
            .save(at("Q3.png"))
            .unwrap();
        let whole = std::fs::read(at("Q3.png")).unwrap();
        std::fs::write(at("Q3.png"), &whole[..whole.len() / 2]).unwrap();
        let cut = ImageSource::Stem(at("Q3"));
        assert_eq!(resolve(&cut), Resolved::File(at("Q3.png")));
        assert_eq!(cut.resolve(ImageCheck::Decode, 1, &bounds), Resolved::Unreadable);
    }

    #[test]
    fn a_file_is_brought_once_and_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name).join("x.jpg"));
        for (path, text) in [(&a, "1"), (&b, "2")] {
            crate::files::write_new(path, text.as_bytes()).unwrap();
        }
        let mut shelf = Shelf::new(folder.path(), "mentions", false);
        let placed = [&a, &b, &a].map(|path| shelf.place(path).unwrap());
        assert_eq!(placed, ["images/mentions/x.jpg", "images/mentions/1-x.jpg", "images/mentions/x.jpg"]);
        assert_eq!(std::fs::read(folder.path().join(&placed[1])).unwrap(), b"2");
    }
}
