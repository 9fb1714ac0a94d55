//! Files of one folder that change together.
//!
//! All are written under other names first; then a list of what is to be renamed is put beside them, and then each takes its
//! place. A run that is killed in between leaves the list, and whoever opens the folder next does the rest.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::destination::Destination;
use super::leftovers::temporary;
use super::write::{flush_folder, folder_of, write_whole};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Name of the list.
pub(super) const LIST: &str = ".replacing.json";

/// New names, whose files are whole, and the names that they shall have; none of them with a folder.
#[derive(Serialize, Deserialize)]
struct Renames(Vec<(String, String)>);

/// Replaces files of one folder: all of them or, whatever goes wrong, none.
pub fn write_together(files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    let Some(folder) = files.first().map(|(path, _)| folder_of(path)) else { return Ok(()) };
    complete(&folder)?;
    let mut staged = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        let target = match Destination::of(&path)? {
            Destination::File(target) => target,
            Destination::Stream(_) => return Err(Error::file(path, "is no regular file, and cannot be replaced")),
        };
        // A link may lead to another folder, where the new file must be to take the old one's place.
        let beside = folder_of(&target);
        let temp = temporary(&beside, 0o666, |builder, beside| builder.tempfile_in(beside));
        let mut temp = temp.map_err(Error::io(&path, "create"))?;
        temp.write_all(&bytes).and_then(|()| temp.as_file().sync_all()).map_err(Error::io(&path, "write"))?;
        staged.push((temp.into_temp_path(), target));
    }
    // From here on the new files stay, whatever happens: the list names them.
    let names = |path: &Path| path.to_string_lossy().into_owned();
    let renames = Renames(staged.iter().map(|(temp, target)| (names(temp), names(target))).collect());
    let text = serde_json::to_vec(&renames).map_err(|e| Error::file(folder.join(LIST), e.to_string()))?;
    write_whole(&folder.join(LIST), |out| out.write_all(&text))?;
    for (temp, target) in staged {
        temp.keep().map_err(|e| Error::io(&target, "write")(e.error))?;
    }
    complete(&folder)
}

/// Does the rest of what [`write_together`] began in a folder, if it was killed.
pub fn complete(folder: &Path) -> Result<()> {
    let list = folder.join(LIST);
    let text = match fs::read(&list) {
        Ok(text) => text,
        // What is no folder is named by whoever reads it.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(Error::io(&list, "read")(error)),
    };
    let damaged = |_| Error::file(&list, "is no list of files to be renamed; remove it, and write the dataset anew");
    let Renames(renames) = serde_json::from_slice(&text).map_err(damaged)?;
    for (from, to) in renames {
        let (from, to) = (PathBuf::from(from), PathBuf::from(to));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            // Done before the run was killed.
            Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => {}
            Err(error) => return Err(Error::io(&to, "write")(error)),
        }
    }
    flush_folder(folder)?;
    fs::remove_file(&list).map_err(Error::io(&list, "remove"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_belong_together_change_together() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&a, "old").unwrap();
        fs::create_dir(folder.path().join("c")).unwrap();
        let new = |name: &str, bytes: &[u8]| (folder.path().join(name), bytes.to_vec());
        assert!(write_together(vec![new("a", b"new"), new("c", b"")]).is_err());
        assert_eq!(std::fs::read(&a).unwrap(), b"old");
        fs::remove_dir(folder.path().join("c")).unwrap();
        write_together(vec![new("a", b"new"), new("b", b"b")]).unwrap();
        assert_eq!((std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap()), (b"new".to_vec(), b"b".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_was_begun_is_done_by_whoever_comes_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("a", "old"), ("b", "new already"), (".writing-4194999-x.tmp", "new")] {
            fs::write(path(name), text).unwrap();
        }
        let name = |name: &str| path(name).to_string_lossy().into_owned();
        let renames = [(name(".writing-4194999-x.tmp"), name("a")), (name(".writing-4194999-y.tmp"), name("b"))];
        fs::write(path(LIST), serde_json::to_vec(&renames).unwrap()).unwrap();
        complete(folder.path()).unwrap();
        assert_eq!(
            (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()),
            (b"new".to_vec(), b"new already".to_vec())
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::write(path(LIST), "[").unwrap();
        assert!(complete(folder.path()).unwrap_err().to_string().contains(LIST));
    }
}
