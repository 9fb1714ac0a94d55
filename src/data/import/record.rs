//! The record that DRIN, MIMIC and MELBench share, in the variations that occur.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::document::{Document, Record};
use super::source::Source;
use crate::error::{Error, Result};

/// An identifier that some files write as a number.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Id {
    Number(i64),
    Text(String),
}

impl Id {
    /// As text.
    pub fn text(&self) -> String {
        match self {
            Id::Number(n) => n.to_string(),
            Id::Text(text) => text.clone(),
        }
    }
}

/// One text, or those of several mentions.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Texts {
    One(String),
    Many(Vec<String>),
}

/// A sentence with the mention or mentions in it.
#[derive(Deserialize)]
pub struct Sentence {
    pub id: Id,
    pub sentence: String,
    #[serde(default, rename = "imgPath")]
    pub image: String,
    #[serde(alias = "mention")]
    pub mentions: Texts,
    #[serde(alias = "entity")]
    pub entities: Texts,
    pub answer: Texts,
}

/// One mention of a sentence.
pub struct Link {
    pub mention: String,
    pub entity: String,
    pub answer: String,
}

impl Sentence {
    /// Its mentions; says what is wrong if their names and answers do not go with them.
    pub fn links(&mut self) -> Result<Vec<Link>, String> {
        let take = |texts: &mut Texts| match std::mem::replace(texts, Texts::Many(Vec::new())) {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        };
        let [mentions, entities, answers] = [&mut self.mentions, &mut self.entities, &mut self.answer].map(take);
        let counts = [mentions.len(), entities.len(), answers.len()];
        if counts[0] == 0 || counts.iter().any(|&n| n != counts[0]) {
            let [m, e, a] = counts;
            return Err(format!("has {m} mentions, {e} entities and {a} answers, which do not go together"));
        }
        let names = mentions.into_iter().zip(entities).zip(answers);
        Ok(names.map(|((mention, entity), answer)| Link { mention, entity, answer }).collect())
    }

    /// The file of its image as MIMIC stores it: the name up to its first dot, as a JPEG.
    pub fn jpeg(&self) -> Option<String> {
        let name = self.image.rsplit('/').next()?.split('.').next()?;
        (!name.is_empty()).then(|| format!("{name}.jpg"))
    }

    /// The only mention of a sentence, in formats that have no others.
    pub fn only_link(&mut self, instead: &str) -> Result<Link, String> {
        let several = matches!(self.mentions, Texts::Many(_));
        match self.links()?.pop() {
            Some(link) if !several => Ok(link),
            _ => Err(format!("has a list of mentions; {instead}")),
        }
    }
}

/// A name that may be the percent-encoded title of a page.
pub fn title(encoded: &str) -> String {
    percent_decode_str(encoded).decode_utf8_lossy().replace('_', " ")
}

/// Takes each record that can be read to `add`; what either finds wrong is skipped or stops the import.
pub fn each<T>(
    source: &mut Source,
    document: &Document,
    records: Vec<Record<T>>,
    mut add: impl FnMut(&str, T) -> Result<(), String>,
) -> Result<()> {
    for Record { key, line, value } in records {
        let added = value.and_then(|value| add(&key, value).map_err(|reason| document.error(line, reason)));
        if let Err(error) = added {
            source.skip(error)?;
        }
    }
    Ok(())
}

/// An error if nothing was read.
pub fn not_empty(count: usize, source: &Source, what: &str) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(Error::file(&source.folder, format!("holds no {what}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_up_to_the_first_dot() {
        for (path, name) in [
            ("mention_54.jpg", Some("mention_54.jpg")),
            ("KVQAimgs/46351.JPG", Some("46351.jpg")),
            ("a/St._John.png", Some("St.jpg")),
            ("", None),
        ] {
            let record = format!(
                r#"{{"id": 1, "sentence": "", "imgPath": "{path}", "mentions": "", "entities": "", "answer": ""}}"#
            );
            assert_eq!(serde_json::from_str::<Sentence>(&record).unwrap().jpeg().as_deref(), name);
        }
    }

    #[test]
    fn names_are_decoded_titles() {
        for (encoded, name) in [("Bj%C3%B6rk_G", "Björk G"), ("AC%2FDC", "AC/DC"), ("100% Pure", "100% Pure")] {
            assert_eq!(title(encoded), name);
        }
    }
}
