//! Where the vectors of entities are searched.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What finds candidates, as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A scan of all vectors in f32, in memory.
    Scan,
    /// A scan of all vectors in int8, in memory.
    ScanInt8,
    /// An index of usearch in a file.
    Usearch(PathBuf),
    /// A collection of a Qdrant server.
    Qdrant(Collection),
    /// A collection of a Milvus server.
    Milvus(Collection),
}

/// A collection of a vector database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Whether it is reached by TLS.
    pub secure: bool,
    /// Host and port.
    pub host: String,
    /// Its name.
    pub name: String,
}

impl Collection {
    /// The base of its server's URLs.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.host)
    }
}

/// The kinds that there are, for messages.
const KINDS: &str = "scan, scan:int8, usearch:FILE, qdrant://HOST:PORT/COLLECTION or milvus://HOST:PORT/COLLECTION (qdrant+https:// \
                     and milvus+https:// go by TLS)";

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Location, String> {
        match text {
            "scan" => return Ok(Location::Scan),
            "scan:int8" => return Ok(Location::ScanInt8),
            _ => {}
        }
        if let Some(file) = text.strip_prefix("usearch:") {
            return match file {
                "" => Err("usearch: needs a file, such as usearch:entities.usearch".into()),
                file => Ok(Location::Usearch(file.into())),
            };
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(format!("is none of {KINDS}")) };
        let (kind, secure) = match scheme.strip_suffix("+https") {
            Some(kind) => (kind, true),
            None => (scheme, false),
        };
        match kind {
            "qdrant" => Ok(Location::Qdrant(collection(rest, secure, 6333, |c| matches!(c, '-' | '_' | '.'))?)),
            "milvus" => {
                let collection = collection(rest, secure, 19530, |c| c == '_')?;
                match collection.name.starts_with(|c: char| c.is_ascii_digit()) {
                    true => Err("a collection of Milvus begins with a letter or an underscore".into()),
                    false => Ok(Location::Milvus(collection)),
                }
            }
            _ => Err(format!("is none of {KINDS}")),
        }
    }
}

/// `host[:port]/name`.
fn collection(text: &str, secure: bool, port: u16, joins: fn(char) -> bool) -> Result<Collection, String> {
    let (host, name) = text.split_once('/').ok_or("names no collection: it ends like localhost:6333/COLLECTION")?;
    if host.contains('@') {
        return Err("holds a name or a password; give a key by an environment variable instead".into());
    }
    let named = |c: char| c.is_ascii_alphanumeric() || joins(c);
    // Dots alone would be another path of the server.
    let dots = name.chars().all(|c| c == '.');
    if !(1..=128).contains(&name.len()) || !name.chars().all(named) || dots {
        return Err("names no collection of letters, digits and _, up to 128 (Qdrant's may have - and . too)".into());
    }
    let (bare, given) = match host.rfind(':').filter(|at| !host[*at..].contains(']')) {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    if bare.is_empty() || !bare.chars().all(fits) || bare.contains(':') != bare.starts_with('[') {
        return Err("names no host, such as localhost or [::1]".into());
    }
    let port = match given.map(str::parse::<u16>) {
        None => port,
        Some(Ok(port @ 1..)) => port,
        Some(_) => return Err("has a port that is no number from 1 to 65535".into()),
    };
    Ok(Collection { secure, host: format!("{bare}:{port}"), name: name.into() })
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let database = |out: &mut fmt::Formatter, kind: &str, of: &Collection| {
            write!(out, "{kind}{}://{}/{}", if of.secure { "+https" } else { "" }, of.host, of.name)
        };
        match self {
            Location::Scan => out.write_str("scan"),
            Location::ScanInt8 => out.write_str("scan:int8"),
            Location::Usearch(path) => write!(out, "usearch:{}", path.display()),
            Location::Qdrant(collection) => database(out, "qdrant", collection),
            Location::Milvus(collection) => database(out, "milvus", collection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_they_are_written_or_refused() {
        for (text, shown) in [
            ("scan", "scan"),
            ("scan:int8", "scan:int8"),
            ("usearch:a/b", "usearch:a/b"),
            ("qdrant://localhost/kb-1", "qdrant://localhost:6333/kb-1"),
            ("qdrant+https://[::1]:1/kb", "qdrant+https://[::1]:1/kb"),
            ("qdrant://[::1]/kb", "qdrant://[::1]:6333/kb"),
            ("milvus://10.0.0.1:19531/_kb", "milvus://10.0.0.1:19531/_kb"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), shown);
        }
        for (text, says) in [
            ("flat", "none of"),
            ("redis://x/y", "none of"),
            ("usearch:", "needs a file"),
            ("qdrant://localhost:6333", "no collection"),
            ("qdrant://localhost/", "no collection"),
            ("qdrant://localhost/a/b", "no collection"),
            ("qdrant://localhost/..", "no collection"),
            ("milvus://localhost/a-b", "no collection"),
            ("milvus://localhost/1a", "begins with a letter"),
            ("qdrant://me:pw@x/kb", "password"),
            ("qdrant:///kb", "no host"),
            ("qdrant://a b/kb", "no host"),
            ("qdrant://::1/kb", "no host"),
            ("qdrant://x:0/kb", "65535"),
            ("qdrant://x:99999/kb", "65535"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.contains(says) && !error.contains("pw@"), "{text}: {error}");
        }
    }
}
