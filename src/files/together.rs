//! Files of one folder that change together.
//!
//! All are written under other names first; then a list of what is to be renamed is put beside them, and then each takes its
//! place. A run that is killed in between leaves the list, and whoever opens the folder next does the rest.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::destination::Destination;
use super::leftovers::{is_temporary, temporary_file};
use super::read::read;
use super::write::{flush_folder, folder_of, write_whole};
use crate::error::{Error, Result};

/// Name of the list.
pub(super) const LIST: &str = ".replacing.json";

/// Temporary names, whose files are whole, and the names that they shall have: all in the list's own folder, wherever that
/// is by then. A dataset comes from elsewhere, and its list must move no other file.
#[derive(Serialize, Deserialize)]
struct Renames(Vec<(String, String)>);

/// Replaces files of one folder: all of them or, whatever goes wrong, none. Of those, files to which links lead out of the
/// folder are replaced after the others, one by one.
pub fn write_together(files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    let Some(folder) = files.first().map(|(path, _)| folder_of(path)) else { return Ok(()) };
    complete(&folder)?;
    let here = fs::canonicalize(&folder).map_err(Error::io(&folder, "look at"))?;
    let (mut staged, mut elsewhere) = (Vec::with_capacity(files.len()), Vec::new());
    for (path, bytes) in files {
        let target = match Destination::of(&path)? {
            Destination::File(target) => target,
            Destination::Stream(_) => return Err(Error::file(path, "is no regular file, and cannot be replaced")),
        };
        let near = fs::canonicalize(folder_of(&target)).is_ok_and(|beside| beside == here);
        let (true, Some(name)) = (near, target.file_name().and_then(|name| name.to_str())) else {
            elsewhere.push((path, bytes));
            continue;
        };
        let mut temp = temporary_file(&folder).map_err(Error::io(&path, "create"))?;
        temp.write_all(&bytes).and_then(|()| temp.as_file().sync_all()).map_err(Error::io(&path, "write"))?;
        staged.push((temp, name.to_string()));
    }
    // From here on the new files stay, whatever happens: the list names them.
    let renames = staged.iter().map(|(temp, target)| {
        let name = temp.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (name.to_string(), target.clone())
    });
    let text = serde_json::to_vec(&Renames(renames.collect()));
    let text = text.map_err(|e| Error::file(folder.join(LIST), e.to_string()))?;
    write_whole(&folder.join(LIST), |out| out.write_all(&text))?;
    // Held until they have their names, so that nobody takes them for what a killed run left.
    let kept = staged.into_iter().map(|(temp, _)| temp.keep().map_err(|e| Error::io(&folder, "write")(e.error)));
    let _held = kept.collect::<Result<Vec<_>>>()?;
    complete(&folder)?;
    elsewhere.iter().try_for_each(|(path, bytes)| write_whole(path, |out| out.write_all(bytes)))
}

/// Does the rest of what [`write_together`] began in a folder, if it was killed. Several processes may do so at once.
pub fn complete(folder: &Path) -> Result<()> {
    let list = folder.join(LIST);
    let text = match read(&list) {
        Ok(text) => text,
        // What is no folder is named by whoever reads it.
        Err(Error::Io { cause, .. }) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let damaged = || Error::file(&list, "is no list of files to be renamed; remove it, and write the dataset anew");
    let Renames(renames) = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
    if !renames.iter().all(|(from, to)| is_temporary(from) && plain(from) && plain(to)) {
        return Err(damaged());
    }
    for (from, to) in renames {
        let (from, to) = (folder.join(from), folder.join(to));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            // Done already.
            Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => {}
            Err(error) => return Err(Error::io(&to, "write")(error)),
        }
    }
    flush_folder(folder)?;
    match fs::remove_file(&list) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&list, "remove")(error)),
        _ => Ok(()),
    }
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
        let renames = [(".writing-4194999-x.tmp", "a"), (".writing-4194999-y.tmp", "b")];
        fs::write(path(LIST), serde_json::to_vec(&renames).unwrap()).unwrap();
        complete(folder.path()).unwrap();
        assert_eq!(
            (fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()),
            (b"new".to_vec(), b"new already".to_vec())
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        // A list is as foreign as the dataset that it lies in.
        fs::create_dir(path("within")).unwrap();
        for list in ["[", r#"[["a","b"]]"#, r#"[[".writing-1-x.tmp","../b"]]"#, r#"[["within/.writing-1-x.tmp","b"]]"#]
        {
            fs::write(path(LIST), list).unwrap();
            assert!(complete(folder.path()).unwrap_err().to_string().contains(LIST), "{list}");
        }
        assert_eq!(fs::read(path("a")).unwrap(), b"new");
    }
}
