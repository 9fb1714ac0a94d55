//! The lines that are asked.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use anyhow::Context;
use fissfuse::data::{Line, next_line};
use fissfuse::shard::checksum_of;

/// Most bytes of a line; a list of candidates of a million identifiers is shorter.
pub const LONGEST: usize = 16_000_000;

/// Whether nothing is asked in a line.
pub fn is_blank(line: &Line) -> bool {
    matches!(line, Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace))
}

/// Lines that can be read again.
pub struct Lines {
    pub file: File,
    /// How many are not blank.
    pub count: usize,
    pub checksum: String,
}

impl Lines {
    /// Counts the lines that are not blank. What is no regular file is kept in a temporary one.
    pub fn of(input: Option<File>, name: &Path) -> anyhow::Result<Lines> {
        let cannot = || format!("{}: cannot read", name.display());
        let regular = input.as_ref().map(|file| file.metadata()).transpose().with_context(cannot)?;
        let mut file = match (input, regular.is_some_and(|there| there.is_file())) {
            (Some(file), true) => file,
            (input, _) => {
                let mut kept = tempfile::tempfile().context("cannot keep the input in a temporary file")?;
                match input {
                    Some(mut pipe) => std::io::copy(&mut pipe, &mut kept),
                    None => std::io::copy(&mut std::io::stdin().lock(), &mut kept),
                }
                .with_context(cannot)?;
                kept
            }
        };
        file.rewind().with_context(cannot)?;
        let checksum = checksum_of(&mut file).with_context(cannot)?;
        file.rewind().with_context(cannot)?;
        let (mut reader, mut count): (Box<dyn BufRead>, usize) = (Box::new(BufReader::new(&file)), 0);
        while let Some(line) = next_line(&mut reader, LONGEST).with_context(cannot)? {
            count += usize::from(!is_blank(&line));
        }
        drop(reader);
        file.rewind().with_context(cannot)?;
        Ok(Lines { file, count, checksum })
    }
}
