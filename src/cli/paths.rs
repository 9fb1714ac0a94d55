//! What folders hold: one of another kind is no place for what a command writes.

use std::path::Path;

use anyhow::ensure;
use fissfuse::files::{FolderLock, names};
pub use fissfuse::files::{Named, keep_apart};

/// What a folder may be, and a file that tells it.
const KINDS: [(&str, &[&str]); 4] = [
    ("a dataset", &["entities.jsonl"]),
    ("a feature store", &["manifest.json"]),
    ("an encoder or a language model", &["config.json", "tokenizer.json", "open_clip_config.json"]),
    ("a training run", &[names::BEST, names::LAST]),
];

/// Kinds of folders, by what tells them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Features,
    Run,
}

/// Refuses an output folder that is one of another kind: its files would be mixed with, or replaced by, those of this command.
pub fn no_other_kind(name: &str, folder: &Path, holds: &[Holds]) -> anyhow::Result<()> {
    let allowed = |kind: &str| match kind {
        "a feature store" => holds.contains(&Holds::Features),
        "a training run" => holds.contains(&Holds::Run),
        _ => false,
    };
    for (kind, files) in KINDS.iter().filter(|(kind, _)| !allowed(kind)) {
        let found = files.iter().find(|file| folder.join(file).exists());
        ensure!(
            found.is_none(),
            "{}: {name} is {kind} ({} is there); choose another folder",
            folder.display(),
            found.unwrap_or(&"")
        );
    }
    Ok(())
}

/// Fails if another process writes into a folder: what it has written so far is no run to go on with.
pub fn expect_idle(folder: &Path) -> fissfuse::Result<()> {
    if folder.is_dir() {
        FolderLock::take(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_of_another_kind_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("manifest.json"), "{}").unwrap();
        no_other_kind("--out", folder.path(), &[Holds::Features]).unwrap();
        let error = no_other_kind("--out", folder.path(), &[Holds::Run]).unwrap_err().to_string();
        assert!(error.contains("a feature store (manifest.json is there)"), "{error}");
        no_other_kind("--out", &folder.path().join("new"), &[]).unwrap();
    }
}
