//! What a command writes is nothing that it, or a sister command, reads: looked at before anything starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;

/// A setting and the path that it has.
pub type Named<'a> = (&'static str, &'a Path);

/// Refuses to write over what is read: the same file or folder by whatever name, or a file that lies in a folder that is read.
pub fn keep_apart(reads: &[Named], writes: &[Named]) -> anyhow::Result<()> {
    for (output, written) in writes {
        for (input, read) in reads {
            ensure!(
                !same(read, written),
                "{}: {output} is what {input} reads, and would be written over; choose another {output}",
                written.display()
            );
            ensure!(
                !is_read_of(written, read),
                "{}: {output} is a file of {input}, which is read; choose another {output}",
                written.display()
            );
        }
        for (other, also) in writes.iter().filter(|(other, _)| other != output) {
            ensure!(
                !same(also, written),
                "{}: {output} and {other} are one file; choose another name",
                written.display()
            );
        }
    }
    Ok(())
}

/// Files that folders of this program's are read by, beside those that tell their kinds.
const READ: [&str; 3] = ["train.jsonl", "valid.jsonl", "test.jsonl"];

/// Whether a path names a file of a folder that is read: one of the known names, an image of a dataset, or any file of a
/// model, whose weights may have any name.
fn is_read_of(written: &Path, read: &Path) -> bool {
    let (written, read) = (resolved(written), resolved(read));
    let Ok(within) = written.strip_prefix(&read) else { return false };
    let name = within.to_str().unwrap_or_default();
    let known = READ.contains(&name) || KINDS.iter().any(|(_, files)| files.contains(&name));
    let of_a_model = read.join("config.json").is_file() || name.ends_with(".gguf");
    written.is_file() && (known || of_a_model || within.starts_with("images"))
}

/// What a folder may be, and a file that tells it.
const KINDS: [(&str, &[&str]); 4] = [
    ("a dataset", &["entities.jsonl"]),
    ("a feature store", &["manifest.json"]),
    ("an encoder or a language model", &["config.json", "tokenizer.json"]),
    ("a training run", &["best.safetensors", "last.safetensors"]),
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

/// Whether both name one file or folder.
fn same(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|there| (there.dev(), there.ino()));
    match (identity(a), identity(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => resolved(a) == resolved(b),
        _ => false,
    }
}

/// The path without links and dots, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|ancestor| {
        let ancestor_path = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        Some((ancestor, fs::canonicalize(ancestor_path).ok()?))
    });
    match there {
        Some((ancestor, resolved)) => match path.strip_prefix(ancestor) {
            Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
            _ => resolved,
        },
        None => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_no_inputs_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("data")).unwrap();
        fs::write(path("data/test.jsonl"), "").unwrap();
        fs::write(path("data/audit.json"), "").unwrap();
        std::os::unix::fs::symlink("data", path("link")).unwrap();
        fs::hard_link(path("data/test.jsonl"), path("hard")).unwrap();
        let refuses = |read: &str, written: &str| {
            let (read, written) = (path(read), path(written));
            keep_apart(&[("--data", &read)], &[("--out", &written)]).is_err()
        };
        for written in ["data", "link", "link/.", "data/../data", "data/test.jsonl", "link/test.jsonl"] {
            assert!(refuses("data", written), "{written}");
        }
        assert!(refuses("data/test.jsonl", "hard") && refuses("new", "data/../new"));
        assert!(!refuses("data", "other") && !refuses("data", "data/audit.json") && !refuses("data", "data/new.jsonl"));
        let [a, b] = [path("x"), path("data/../x")];
        assert!(keep_apart(&[], &[("--out", &a), ("--report", &b)]).is_err());
    }

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
