//! What becomes of bad records.

use crate::error::{Error, Result};

/// What to do with a bad record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Stop at the first.
    Strict,
    /// Leave it out and list it.
    Skip,
}

impl Tolerance {
    /// An error about an image file, with whose it is and what to do.
    pub fn of_image(self, owner: &str, error: Error) -> Error {
        let whose = format!("it is the image of {owner}");
        error.about_file(&match self {
            Tolerance::Strict => {
                format!("{whose}, and --skip-bad lets what stands in for missing images take its place")
            }
            Tolerance::Skip => whose,
        })
    }
}

/// Bad records that were left out.
#[derive(Debug, Default)]
pub struct Skipped(pub Vec<Error>);

impl Skipped {
    /// Notes an error about the input, or fails with it.
    pub fn take(&mut self, tolerance: Tolerance, error: Error) -> Result<()> {
        match tolerance {
            Tolerance::Skip if error.concerns_input() => {
                self.0.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_is_no_bad_record() {
        let mut skipped = Skipped::default();
        let lost = Error::device("GPU 0", "launching a kernel", "is lost");
        assert!(skipped.take(Tolerance::Skip, lost).is_err() && skipped.0.is_empty());
        skipped.take(Tolerance::Skip, Error::file("a.png", "is no image")).unwrap();
        assert_eq!(skipped.0.len(), 1);
    }
}
