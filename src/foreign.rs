//! Files that are something else than what was due: recognised by their first bytes, with what to do about it.

/// First bytes, what such a file is, and the way out.
const SIGNATURES: [(&[u8], &str); 8] = [
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file; of the published datasets, those in HDF5 hold images, which docs/importing.md says how to unpack",
    ),
    (
        b"\x93NUMPY",
        "is a NumPy file; DRIN's preprocessed features cannot be turned back into text: import the raw data \
         (`fissfuse import drin-wikimel` or `drin-wikidiverse`)",
    ),
    (b"PK\x03\x04", "is a zip archive; unpack it (`unzip`) and give the folder"),
    (b"\x1f\x8b", "is a gzip archive; unpack it (`tar xzf` or `gunzip`) and give the folder or the file"),
    (b"SQLite format 3", "is an SQLite database"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`"),
    (b"<!DOCTYPE", WEB_PAGE),
    (b"<!doctype", WEB_PAGE),
];

const WEB_PAGE: &str = "is a web page, not the file it was downloaded as; download the file itself";

/// The same of files that are no text, and that begin with a byte or two which other files may begin with as well.
const SHORT: [(&[u8], &str); 3] =
    [(b"\x80", "is a Python pickle; write it again with json.dump"), (b"\xff\xfe", UTF_16), (b"\xfe\xff", UTF_16)];

const UTF_16: &str = "is UTF-16; convert it to UTF-8 (`iconv -f UTF-16 -t UTF-8`)";

/// UTF-16 without a mark: one of its first two bytes is zero, as it is of no text in UTF-8.
const UNMARKED: &str = "holds zero bytes, as UTF-16 does; convert it to UTF-8 (`iconv -f UTF-16LE -t UTF-8`)";

/// What a file is, by its first bytes, that does not hold what was due.
pub fn foreign(bytes: &[u8]) -> Option<&'static str> {
    look_up(&SIGNATURES, bytes)
}

/// The same of a file that should hold text in UTF-8.
pub fn no_text(bytes: &[u8]) -> Option<&'static str> {
    let unmarked = || bytes.get(..2).filter(|start| start.contains(&0)).map(|_| UNMARKED);
    foreign(bytes).or_else(|| look_up(&SHORT, bytes)).or_else(unmarked)
}

fn look_up(signatures: &[(&[u8], &'static str)], bytes: &[u8]) -> Option<&'static str> {
    signatures.iter().find(|(signature, _)| bytes.starts_with(signature)).map(|(_, advice)| *advice)
}
