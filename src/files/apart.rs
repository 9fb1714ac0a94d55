//! What a command writes is nothing that it, or a sister command, reads: looked at before anything starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::names;
use crate::error::{Error, Result};

/// A setting and the path that it has.
pub type Named<'a> = (&'static str, &'a Path);

/// Refuses to write over what is read or written: the same file or folder by whatever name, or a file that a folder which is
/// read or written is made of.
pub fn keep_apart(reads: &[Named], writes: &[Named]) -> Result<()> {
    for (output, written) in writes {
        let refused = |reason: String| Err(Error::file(written, reason));
        for (input, read) in reads {
            if same(read, written) {
                return refused(format!(
                    "{output} is what {input} reads, and would be written over; choose another {output}"
                ));
            }
            if is_part_of(written, read) {
                return refused(format!("{output} is a file of {input}, which is read; choose another {output}"));
            }
        }
        for (other, also) in writes.iter().filter(|(other, _)| other != output) {
            if same(also, written) {
                return refused(format!("{output} and {other} are one file; choose another name"));
            }
            if is_part_of(written, also) {
                return refused(format!("{output} is a file of {other}, which is written; choose another {output}"));
            }
        }
    }
    Ok(())
}

/// Files that folders of this program's are made of.
const PARTS: [&str; 14] = [
    "entities.jsonl",
    names::TRAIN_LOG,
    "valid.jsonl",
    "test.jsonl",
    "manifest.json",
    "config.json",
    "open_clip_config.json",
    "tokenizer.json",
    names::BEST,
    names::LAST,
    names::TRAINING,
    names::METRICS,
    "summary.json",
    "written.json",
];

/// Whether a path names a file that a folder is made of, whether or not it is there yet: one of the known names, a shard, or a
/// run file; of what is there, also an image of a dataset, or any file of a model, whose weights may have any name.
fn is_part_of(written: &Path, folder: &Path) -> bool {
    let (written, folder) = (resolved(written), resolved(folder));
    let Ok(within) = written.strip_prefix(&folder) else { return false };
    let name = within.to_str().unwrap_or_default();
    let run = name.starts_with("run") && name.ends_with(".jsonl");
    let own = !name.contains('/')
        && (PARTS.contains(&name) || [".safetensors", ".gguf", ".bin"].iter().any(|end| name.ends_with(end)) || run);
    let of_a_model = ["config.json", "open_clip_config.json"].iter().any(|name| folder.join(name).is_file());
    own || written.is_file() && (of_a_model || within.starts_with("images"))
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
    fn what_a_folder_is_made_of_is_no_other_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // None of them is there yet.
        for name in ["best.safetensors", "shard-3.safetensors", "train.json", "manifest.json", "run-2.jsonl"] {
            let (out, trace) = (path("m"), path("m").join(name));
            let error = keep_apart(&[], &[("--out", &out), ("--trace", &trace)]).unwrap_err().to_string();
            assert!(error.contains("--trace is a file of --out, which is written"), "{error}");
            assert!(keep_apart(&[("--features", &out)], &[("--trace", &trace)]).is_err(), "{name}");
        }
        let (out, trace, deeper) = (path("m"), path("m/trace.json"), path("m/other/metrics.json"));
        keep_apart(&[], &[("--out", &out), ("--trace", &trace)]).unwrap();
        keep_apart(&[("RUN", &out)], &[("--out", &deeper)]).unwrap();
    }
}
