//! A Hugging Face model directory: what it holds, its files and their fingerprint.

use std::io::ErrorKind;
use std::iter;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::portion::Portion;
use super::trainables::instead_of;
use super::{Compute, ImageEncoder, Precision, TextEncoder, bert, clip, resnet, siglip};
use crate::device::MappedFile;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::files;
use crate::tensor::Shards;
use crate::tokenizer::Tokenizer;

/// Tells one encoder's files from another's: a hash of their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Hashes the given files of a folder, in order; those that do not exist count as empty.
    pub fn of(folder: &Path, names: &[&str]) -> Result<Fingerprint> {
        Fingerprint::of_files(&names.iter().map(|name| folder.join(name)).collect::<Vec<_>>())
    }

    /// The same of files wherever they lie.
    pub fn of_files(paths: &[PathBuf]) -> Result<Fingerprint> {
        let mut hash = Xxh3::new();
        for path in paths {
            let len = match MappedFile::open(path) {
                Ok(file) => {
                    hash.update(&file);
                    file.len()
                }
                Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
            hash.update(&(len as u64).to_le_bytes());
        }
        Ok(Fingerprint(format!("{:032x}", hash.digest128())))
    }

    /// As hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A model that the directory may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Clip,
    Bert,
    ResNet,
    Siglip,
}

/// An opened directory.
pub(super) struct Directory {
    folder: PathBuf,
    kind: Kind,
    /// The file that says what it holds.
    config: &'static str,
    shards: Shards,
}

impl Directory {
    /// Opens a directory; its `config.json` says what it holds.
    pub fn open(folder: &Path) -> Result<Directory> {
        if clip::is_open_clip(folder) {
            let (shards, config) = (Shards::open(folder)?, clip::OPEN_CLIP_CONFIG);
            return Ok(Directory { folder: folder.to_path_buf(), kind: Kind::Clip, config, shards });
        }
        let path = files::config_of(folder, &instead_of(folder, "give the directory of a Hugging Face model"))?;
        let config = Fields::read(&path)?;
        let kind = match config.text("model_type")? {
            Some("clip") => Kind::Clip,
            Some("bert" | "distilbert") => Kind::Bert,
            Some("resnet") => Kind::ResNet,
            Some("siglip") => Kind::Siglip,
            other => {
                let found = other.map_or("no model_type".into(), |m| format!("model_type `{}`", m.escape_debug()));
                return Err(Error::file(
                    &path,
                    format!("has {found}; this version reads `clip`, `siglip`, `bert`, `distilbert`, `resnet`"),
                ));
            }
        };
        Ok(Directory { folder: folder.to_path_buf(), kind, config: "config.json", shards: Shards::open(folder)? })
    }

    /// Its text encoder.
    pub fn text(&self, compute: &Compute) -> Result<TextEncoder> {
        let tried = |encoder: &TextEncoder| encoder.encode_texts(&[""], usize::MAX).map(drop);
        self.opened(compute, |compute| self.read_text(compute), tried)
    }

    /// Its image encoder.
    pub fn image(&self, compute: &Compute) -> Result<ImageEncoder> {
        let tried = |encoder: &ImageEncoder| {
            let size = encoder.processor().size();
            encoder.encode_images(&[vec![0.0; 3 * size * size]]).map(drop)
        };
        self.opened(compute, |compute| self.read_image(compute), tried)
    }

    /// Opens an encoder and, if it computes on a device, tries it out: what the kernels cannot compute is known at once, as an
    /// error of the device, which says whether they could in f32.
    fn opened<E>(
        &self,
        compute: &Compute,
        open: impl Fn(&Compute) -> Result<E>,
        try_out: impl Fn(&E) -> Result<()>,
    ) -> Result<E> {
        let Some(gpu) = &compute.gpu else { return open(compute) };
        let opened = |compute: &Compute| open(compute).and_then(|encoder| try_out(&encoder).map(|()| encoder));
        opened(compute).map_err(|error| match error {
            Error::Shape { .. } => {
                let doing = format!("encoding with {} in {}", self.folder.display(), compute.precision);
                let exact = Compute { precision: Precision::F32, ..compute.clone() };
                let instead = match compute.precision == Precision::Bf16 && opened(&exact).is_ok() {
                    true => "encode with --precision f32, or use --device cpu",
                    false => "use --device cpu",
                };
                Error::device(format!("{gpu:?}"), doing, format!("{error}; {instead}"))
            }
            error => error,
        })
    }

    fn read_text(&self, compute: &Compute) -> Result<TextEncoder> {
        let tokenizer = || Tokenizer::open(&self.folder);
        let (name, model) = match self.kind {
            Kind::Siglip => ("siglip-text", siglip::open_text(&self.folder, &self.shards, &tokenizer()?, compute)?),
            Kind::Clip => ("clip-text", clip::open_text(&self.folder, &self.shards, compute)?),
            Kind::Bert => ("bert", bert::open(&self.folder, &self.shards, compute)?),
            Kind::ResNet => {
                let reason = "holds a ResNet, which encodes images; give a CLIP, a SigLIP or a BERT for the texts";
                return Err(Error::file(&self.folder, reason));
            }
        };
        // How a SigLIP reads a text is said beside its tokenizer.
        let reading: &[&str] = match self.kind {
            Kind::Siglip => &["tokenizer.json", "tokenizer_config.json"],
            _ => &["tokenizer.json"],
        };
        let (identity, tokens) = (self.identity(name, reading)?, Portion::tokens(compute));
        Ok(TextEncoder { identity, tokenizer: tokenizer()?, model, tokens })
    }

    fn read_image(&self, compute: &Compute) -> Result<ImageEncoder> {
        let (name, (processor, model)) = match self.kind {
            Kind::Siglip => ("siglip-image", siglip::open_vision(&self.folder, &self.shards, compute)?),
            Kind::Clip => ("clip-image", clip::open_vision(&self.folder, &self.shards, compute)?),
            Kind::ResNet => ("resnet", resnet::open(&self.folder, &self.shards, compute)?),
            Kind::Bert => {
                let reason = "holds a BERT, which encodes texts; give a CLIP, a SigLIP or a ResNet for the images";
                return Err(Error::file(&self.folder, reason));
            }
        };
        let preparation = processor.file().file_name().unwrap_or_default().to_string_lossy();
        let identity = self.identity(name, &[&preparation])?;
        Ok(ImageEncoder { identity, processor, model, images: Portion::images(compute) })
    }

    /// Kind and fingerprint of all files that determine what one side computes.
    fn identity(&self, name: &str, preparation: &[&str]) -> Result<String> {
        let files: Vec<&str> =
            iter::once(self.config).chain(preparation.iter().copied()).chain(self.shards.files()).collect();
        Ok(format!("{name}:{}", Fingerprint::of(&self.folder, &files)?.as_str()))
    }
}
