//! Paths that come from others: requests and published files.

use std::path::{Component, Path};

/// A path that a request names, which must stay in the folder that it is relative to; says what is wrong with it.
pub fn relative(name: &str) -> Result<&Path, String> {
    let path = Path::new(name);
    match path.components().find(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        None => Ok(path),
        Some(Component::ParentDir) => Err(format!("path `{name}` has `..` in it")),
        Some(_) => Err(format!("path `{name}` is absolute")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_its_folder() {
        for good in ["a.png", "./a/b.png", "a/..b/...png", "a//b"] {
            assert_eq!(relative(good), Ok(Path::new(good)));
        }
        for (bad, says) in
            [("..", "`..`"), ("a/../../b", "`..`"), ("a/..", "`..`"), ("/etc/passwd", "absolute"), ("//a", "absolute")]
        {
            assert!(relative(bad).unwrap_err().contains(says), "{bad}");
        }
    }
}
