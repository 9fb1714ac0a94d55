//! JSON files of many records, read so that each record's errors carry its own line.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::data::records::{CUT_SHORT, parse_value, record_error};
use crate::error::{Error, Result};
use crate::files;

/// A JSON file in memory.
pub struct Document {
    path: PathBuf,
    text: String,
}

/// A record of a document with the line it starts in.
pub struct Record<T> {
    /// Its key, if the document is an object.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// What it says, or what is wrong with it.
    pub value: Result<T>,
}

impl Document {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Document> {
        Ok(Document { path: path.to_path_buf(), text: files::read_text(path)? })
    }

    /// The elements of an array.
    pub fn list<T: DeserializeOwned>(&self) -> Result<Vec<Record<T>>> {
        let raw = self.whole::<Vec<&RawValue>>("an array of records", serde_json::from_str)?;
        Ok(self.records(raw.into_iter().map(|raw| (String::new(), raw))))
    }

    /// The entries of an object, in the order of the file.
    pub fn object<T: DeserializeOwned>(&self) -> Result<Vec<Record<T>>> {
        let raw = self.whole("an object of records", |text| {
            let mut parser = serde_json::Deserializer::from_str(text);
            let entries = parser.deserialize_map(Entries(PhantomData))?;
            parser.end().map(|()| entries)
        })?;
        Ok(self.records(raw.into_iter()))
    }

    /// The entries of an object; the first that is wrong is an error.
    pub fn dictionary<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>> {
        self.object::<T>()?.into_iter().map(|record| Ok((record.key, record.value?))).collect()
    }

    fn whole<'a, T>(&'a self, what: &str, parse: impl FnOnce(&'a str) -> serde_json::Result<T>) -> Result<T> {
        parse(&self.text).map_err(|e| {
            let nan = ["NaN", "Infinity"].iter().any(|word| self.text.contains(&format!(": {word}")));
            let hint = match e.is_eof() {
                true => CUT_SHORT,
                false if nan => "; NaN and Infinity are no JSON: write the file again without them",
                false => "",
            };
            record_error(&self.path, e.line().max(1), format!("is no JSON with {what}: {e}{hint}"))
        })
    }

    fn records<'a, T: DeserializeOwned>(&'a self, raw: impl Iterator<Item = (String, &'a RawValue)>) -> Vec<Record<T>> {
        let (mut line, mut at) = (1, 0);
        raw.map(|(key, raw)| {
            // A raw value borrows from the text, and the records come in the text's order.
            let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
            line += self.text.as_bytes()[at..start].iter().filter(|&&byte| byte == b'\n').count();
            at = start;
            Record { key, line, value: parse_value(&self.path, line, raw.get()) }
        })
        .collect()
    }

    /// An error about a record.
    pub fn error(&self, line: usize, reason: impl Into<String>) -> Error {
        record_error(&self.path, line, reason)
    }
}

/// Keeps an object's entries in order, with repeated keys.
struct Entries<'a>(PhantomData<&'a ()>);

impl<'de> Visitor<'de> for Entries<'de> {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bytes: &[u8]) -> Result<Document> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, bytes).unwrap();
        Document::open(&path)
    }

    #[test]
    fn each_record_knows_its_line() {
        let doc = document("\u{feff}{\n \"b\": 1,\n\n \"a\": \"two\", \"b\":\n 3}".as_bytes()).unwrap();
        let records = doc.object::<u32>().unwrap();
        let places: Vec<_> = records.iter().map(|r| (r.key.as_str(), r.line)).collect();
        assert_eq!(places, [("b", 2), ("a", 4), ("b", 5)]);
        assert!(records[1].value.as_ref().unwrap_err().to_string().contains("x.json:4: "));
        let doc = document(b"[1,\n2]").unwrap();
        assert_eq!(doc.list::<u32>().unwrap().iter().map(|r| r.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_is_no_json_is_named() {
        for (text, says) in
            [("{\"a\": 1,", "cut short"), ("{\n\"a\": NaN}", "NaN and Infinity"), ("[]", "expected an object")]
        {
            let error = document(text.as_bytes()).unwrap().object::<u32>().err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
