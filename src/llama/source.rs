//! Where a model comes from: a Hugging Face directory, or a GGUF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chat::ChatTemplate;
use super::generation::GenerationConfig;
use super::{LlamaConfig, gguf};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::tensor::Shards;
use crate::tensor::gguf::{EXTENSION, Gguf};
use crate::tokenizer::{self, Tokenizer};

/// A model's files.
#[derive(Clone)]
pub enum Source {
    /// A directory with `config.json`, `tokenizer.json` and weights.
    Folder(PathBuf),
    /// A file that holds all of it; a `tokenizer.json` beside it counts more than its own tokenizer.
    Gguf(Arc<Gguf>),
}

impl Source {
    /// Opens a GGUF file, a directory that holds one model in that format, or a Hugging Face directory, of which nothing is
    /// read yet.
    pub fn open(path: &Path) -> Result<Source> {
        if path.is_file() {
            return Gguf::open(path).map(Arc::new).map(Source::Gguf);
        }
        let there = path.metadata().map_err(Error::io(path, "open"));
        there
            .map_err(|error| error.if_missing("a Llama is a GGUF file or a Hugging Face directory (docs/llama.md)"))?;
        if path.is_dir() && !Shards::are_in(path) {
            match &in_folder(path)?[..] {
                [] => {}
                [file] => return Gguf::open(file).map(Arc::new).map(Source::Gguf),
                [first, second, ..] => {
                    let names = [first, second].map(|file| file.file_name().unwrap_or_default().to_string_lossy());
                    let reason =
                        format!("holds several models ({}, {}, ...); give one of the files", names[0], names[1]);
                    return Err(Error::file(path, reason));
                }
            }
        }
        Ok(Source::Folder(path.to_path_buf()))
    }

    /// The directory, or the file.
    pub fn path(&self) -> &Path {
        match self {
            Source::Folder(folder) => folder,
            Source::Gguf(file) => file.path(),
        }
    }

    /// Sizes and constants.
    pub fn config(&self) -> Result<LlamaConfig> {
        match self {
            Source::Folder(folder) => LlamaConfig::read(folder),
            Source::Gguf(file) => gguf::config(file),
        }
    }

    /// Texts to token numbers and back.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match self {
            Source::Folder(folder) => Tokenizer::open(folder),
            Source::Gguf(file) => match file.path().parent() {
                Some(folder) if folder.join(tokenizer::FILE).is_file() => Tokenizer::open(folder),
                _ => Tokenizer::of(file.path(), gguf::tokenizer(file)?),
            },
        }
    }

    /// Where answers end.
    pub fn generation(&self) -> Result<GenerationConfig> {
        match self {
            Source::Folder(folder) => GenerationConfig::read(folder),
            Source::Gguf(file) => gguf::generation(file),
        }
    }

    /// How conversations are written; `None` if the model does not say.
    pub fn template(&self) -> Result<Option<ChatTemplate>> {
        match self {
            Source::Folder(folder) => ChatTemplate::open(folder),
            Source::Gguf(file) => ChatTemplate::of(&Fields::of(file.path(), gguf::tokenizer_settings(file)?)),
        }
    }

    /// All files that the model is read from, sorted.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = match self {
            Source::Folder(folder) => listed(folder, &["json", "jinja", "safetensors"])?,
            Source::Gguf(file) => {
                let mut files: Vec<PathBuf> = file.files().map(Path::to_path_buf).collect();
                let beside = file.path().with_file_name(tokenizer::FILE);
                files.extend(beside.is_file().then_some(beside));
                files
            }
        };
        files.sort_unstable();
        Ok(files)
    }
}

/// The first file of each model in a directory.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = listed(folder, &[EXTENSION])?;
    files.sort_unstable();
    let later = |file: &PathBuf| {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let part = name.rsplit_once("-of-").and_then(|(start, _)| start.rsplit_once('-')).map(|(_, part)| part);
        part.and_then(|part| part.parse::<u32>().ok()).is_some_and(|part| part > 1)
    };
    files.retain(|file| !later(file));
    Ok(files)
}

/// Files of a directory whose names end so.
fn listed(folder: &Path, ends: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let ends = |path: &PathBuf| path.extension().and_then(|e| e.to_str()).is_some_and(|e| ends.contains(&e));
    Ok(paths.filter(ends).collect())
}
