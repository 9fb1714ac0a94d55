//! Importers on small copies, made by hand, of what the field publishes, with every oddity that is known of it.

mod drin;
mod kgmel;
mod melbench;
mod mimic;

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::data::import::{Format, Imported, Settings, import};
use fissfuse::data::{Dataset, Mention, Skipped, Split, Tolerance};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{refuse, run, succeed};

/// A folder to put files of a format in.
struct Source(TempDir);

impl Source {
    fn new() -> Source {
        Source(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arg(&self, name: &str) -> &'static str {
        self.path(name).to_str().unwrap().to_string().leak()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Source {
        let path = self.path(&format!("src/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn json(&self, name: &str, value: Value) -> &Source {
        self.write(name, format!("{value:#}"))
    }

    fn picture(&self, name: &str, side: u32) -> &Source {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(side, side, image::Rgb([9, 99, 199]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        self.write(name, bytes.into_inner())
    }

    /// Imports into `name`, strictly.
    fn import(&self, format: Format, name: &str, settings: Settings) -> (Imported, Imports) {
        let (source, destination) = (self.path("src"), self.path(name));
        let done =
            import(format, &source, &destination, &settings, Tolerance::Strict, &mut Skipped::default()).unwrap();
        let dataset = Dataset::open(&destination, Tolerance::Strict, &mut Skipped::default()).unwrap();
        (done, Imports { folder: destination, dataset })
    }

    /// Wants an import to fail and to leave nothing behind.
    fn refuse(&self, format: &str, says: &[&str]) {
        refuse(&["import", format, self.arg("src"), self.arg("refused")], says);
        let left: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name == "refused" || name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    }
}

/// What was imported.
struct Imports {
    folder: PathBuf,
    dataset: Dataset,
}

impl Imports {
    fn mentions(&self, split: Split) -> Vec<Mention> {
        self.dataset.mentions(split, &mut Skipped::default()).unwrap()
    }

    fn qids(&self, entities: &[u32]) -> Vec<&str> {
        entities.iter().map(|&e| self.dataset.entities()[e as usize].qid.as_str()).collect()
    }

    fn entity(&self, qid: &str) -> &fissfuse::data::Entity {
        &self.dataset.entities()[self.dataset.entity(qid).unwrap() as usize]
    }

    fn file(&self, image: &Option<String>) -> Vec<u8> {
        fs::read(self.folder.join(image.as_deref().unwrap())).unwrap()
    }
}

fn note(done: &Imported, what: &str) -> usize {
    done.notes.iter().find(|note| note.what.contains(what)).map_or(0, |note| note.count)
}

#[test]
fn the_authors_lines_have_the_gold_entity_first() {
    let source = Source::new();
    let mention = |id: &str, extra: Value| {
        let mut record = json!({"mention_id": id, "mentions": "Noel", "sentence": "Noel sings.", "imgPath": "KVQAimgs/46351.jpg",
                                "candidates": ["Q2", "Q1"]});
        record.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        record.to_string()
    };
    source
        .write(
            "WIKIMEL_train.jsonl",
            format!("{}\n{}\n", mention("46351-0", json!({})), mention("46351-1", json!({"answer": "Q1"}))),
        )
        .write(
            "entities.jsonl",
            "{\"qid\":\"Q1\",\"id\":0,\"name\":\"One\",\"desc\":\"d\"}\n{\"qid\":\"Q2\",\"id\":1,\"name\":\"Two\"}\n",
        )
        .write("wikimel_image.h5", b"\x89HDF\r\n\x1a\n");
    source.refuse("fissfuse", &["wikimel_image.h5", "docs/importing.md"]);
    source.picture("mention_image/46351", 30).picture("entity_image/Q1", 30);
    let (done, imports) = source.import(Format::Fissfuse, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| imports.qids(&[m.gold.unwrap()])[0]).collect::<Vec<_>>(), ["Q2", "Q1"]);
    assert!(train[0].image.is_some() && imports.entity("Q1").image.is_some() && imports.entity("Q2").image.is_none());
    assert_eq!(note(&done, "entities: image is missing"), 1);
}

#[test]
fn what_is_no_folder_of_the_format_is_named() {
    let source = melbench::source();
    for format in ["mimic", "drin-wikimel", "drin-wikidiverse", "wikidiverse", "fissfuse"] {
        source.refuse(format, &["Wikidata-MEL.json is of another format", "`fissfuse import melbench"]);
    }
    let nested = Source::new();
    nested.json("unpacked/Wikidata-MEL.json", json!({}));
    nested.refuse("melbench", &["has no Wikidata-MEL.json", "give the folder", "unpacked"]);
    let other = Source::new();
    other.write("answer_train.npy", b"\x93NUMPY");
    other.refuse("drin-wikimel", &["answer_train.npy is a preprocessed feature of DRIN"]);
    for (name, says) in [("raw-data-1.mp4", "data_tools.py"), ("data.tar.gz", "unpack it")] {
        let source = Source::new();
        source.write(name, "x");
        source.refuse("mimic", &[name, says]);
        let file = source.arg(&format!("src/{name}"));
        refuse(&["import", "mimic", file, source.arg("dst")], &[name, says]);
    }
    refuse(&["import", "melbench", source.arg("nowhere"), source.arg("dst")], &["nowhere", "cannot read"]);
    assert_eq!(run(&["import", "unheard-of", "a", "b"]).status.code(), Some(2));
}

#[test]
fn a_destination_in_use_is_left_alone() {
    let source = melbench::source();
    let arguments = ["import", "melbench", source.arg("src"), source.arg("dst")];
    succeed(&arguments);
    let about: Value = serde_json::from_str(&fs::read_to_string(source.path("dst/import.json")).unwrap()).unwrap();
    assert_eq!((&about["format"], &about["settings"]["protocol"]), (&json!("melbench"), &json!("gold-in-list")));
    let before = fs::read(source.path("dst/train.jsonl")).unwrap();
    refuse(&arguments, &["dst", "exists already"]);
    assert_eq!(fs::read(source.path("dst/train.jsonl")).unwrap(), before);
    assert!(Path::new(source.arg("dst")).join("images/mentions/46351.jpg").is_file());
}
