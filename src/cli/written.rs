//! A folder that a command may write anew: nothing in it may be lost that is not its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::data::{Stamp, stamp_of};

use super::common::write_json;

/// The list of what the command wrote, in its folder.
const LIST: &str = "written.json";

/// Size and modification time of each file below a folder, but the list's.
type Files = BTreeMap<PathBuf, Stamp>;

/// Notes that all files that are in the folder now are the command's.
pub fn note(folder: &Path) -> anyhow::Result<()> {
    write_json(&folder.join(LIST), &files(folder)?)
}

/// Removes a folder in which every file is as the command wrote it; refuses if one is not.
pub fn clear(folder: &Path, command: &str) -> anyhow::Result<()> {
    let shown = folder.display();
    let there = files(folder)?;
    let list = folder.join(LIST);
    let written: Files = match list.exists() {
        true => serde_json::from_str(&fissfuse::files::read_text(&list)?)
            .with_context(|| format!("{}: is no list of files", list.display()))?,
        false if there.is_empty() => Files::new(),
        false => {
            anyhow::bail!(
                "{shown} exists and is no folder of a {command} that got through a step; remove it, or choose another --out"
            )
        }
    };
    for (file, state) in &there {
        let what = match written.get(file) {
            Some(noted) if noted == state => continue,
            Some(_) => format!("has changed since the {command} wrote it"),
            None => format!("is none of the {command}'s files"),
        };
        let file = folder.join(file);
        anyhow::bail!("{}: {what}, and would be lost; move it away or choose another --out", file.display());
    }
    std::fs::remove_dir_all(folder).with_context(|| format!("{shown}: cannot clear"))
}

fn files(folder: &Path) -> anyhow::Result<Files> {
    let (mut files, mut folders) = (Files::new(), vec![PathBuf::new()]);
    while let Some(inner) = folders.pop() {
        let path = folder.join(&inner);
        let cannot = || format!("{}: cannot read", path.display());
        for entry in std::fs::read_dir(&path).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let (name, metadata) = (inner.join(entry.file_name()), entry.metadata().with_context(cannot)?);
            if metadata.is_dir() {
                folders.push(name);
            } else if name != Path::new(LIST) {
                files.insert(name, stamp_of(&metadata).unwrap_or([metadata.len(), 0]));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_command_wrote_is_cleared_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("demo");
        let write = |name: &str, text: &str| fissfuse::files::write_new(&folder.join(name), text.as_bytes()).unwrap();
        let refused = |says: &str| {
            let error = clear(&folder, "demo").unwrap_err().to_string();
            assert!(error.contains(says) && folder.join("model/best").exists(), "{error}");
        };
        write("model/best", "weights");
        refused("is no folder of a demo");
        note(&folder).unwrap();
        write("model/mine", "precious");
        refused("model/mine: is none of the demo's files");
        fs::remove_file(folder.join("model/mine")).unwrap();
        write("model/best", "trained again");
        refused("model/best: has changed since");
        note(&folder).unwrap();
        clear(&folder, "demo").unwrap();
        assert!(!folder.exists());
        fs::create_dir(&folder).unwrap();
        clear(&folder, "demo").unwrap();
    }
}
