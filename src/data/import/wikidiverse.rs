//! WikiDiverse: mentions with ten candidates, as DRIN reads it, or passages, as it was published.

use std::collections::HashMap;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::Published;
use super::document::Document;
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::each;
use super::source::Source;
use crate::data::Split;
use crate::error::Result;
use crate::files;

/// `[sentence, image, mention, type, left, right, gold, candidates, topic, start, end]`
type Mention = (
    String,
    Option<String>,
    String,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
    Option<String>,
    Vec<String>,
    IgnoredAny,
    usize,
    usize,
);

/// `[sentence, image, topic, [[mention, type, start, end, gold], ...]]`
type Passage = (String, Option<String>, IgnoredAny, Vec<(String, IgnoredAny, usize, usize, Option<String>)>);

/// Reads mentions with candidates (`{split}_w_10cands.json`), in the folder or in `wikidiverse` in it.
pub fn read_with_candidates(source: &mut Source) -> Result<Draft> {
    let outer = source.folder.clone();
    source.enter("wikidiverse");
    let places = [Some(source.folder.as_path()), Some(outer.as_path()), outer.parent()];
    let default_image = places.into_iter().flatten().map(|folder| folder.join("default.jpg")).find(|p| p.is_file());
    let folder = if source.folder.join("candidates").is_dir() { "candidates/" } else { "" };
    let splits = source.splits("valid", |split| format!("{folder}{split}_w_10cands.json"))?;
    let about = About { list_length: 10, default_image, smallest_side: 50, ..About::default() };
    let mut reader = Reader::new(source, about)?;
    for (split, path) in splits {
        let document = Document::open(&path)?;
        let mut place = 0;
        each(source, &document, document.list::<Value>()?, |_, record| {
            place += 1;
            const PASSAGE: &str = "is a passage of the original WikiDiverse: `fissfuse import wikidiverse`";
            let (sentence, image, mention, _, _, _, gold, list, _, start, end): Mention = fields(record, 4, PASSAGE)?;
            let found =
                Found { sentence: &sentence, image: image.as_deref(), mention: &mention, at: (start, end), gold };
            reader.mention(split, format!("{split}-{place}"), found, &list)
        })?;
    }
    Ok(reader.draft)
}

/// Reads passages (`{split}.json`); they have no candidates.
pub fn read_passages(source: &mut Source) -> Result<Draft> {
    let folder = if source.folder.join("mentions").is_dir() { "mentions/" } else { "" };
    let splits = source.splits("valid", |split| format!("{folder}{split}.json"))?;
    let mut reader = Reader::new(source, About::default())?;
    for (split, path) in splits {
        let document = Document::open(&path)?;
        let mut place = 0;
        each(source, &document, document.list::<Value>()?, |_, record| {
            place += 1;
            const LISTED: &str = "is a mention with candidates: `fissfuse import drin-wikidiverse`";
            let (sentence, image, _, mentions): Passage = fields(record, 11, LISTED)?;
            // One bad mention does not take the passage's others with it.
            let add = |(i, (mention, _, start, end, gold)): (usize, (String, _, usize, usize, _))| {
                let image = image.as_deref();
                let found = Found { sentence: &sentence, image, mention: &mention, at: (start, end), gold };
                reader.mention(split, format!("{split}-{place}-{i}"), found, &[])
            };
            let added: Vec<Result<(), String>> = mentions.into_iter().enumerate().map(add).collect();
            added.into_iter().collect()
        })?;
    }
    Ok(reader.draft)
}

/// The fields of a record; one of `other` fields belongs to another format.
fn fields<T: DeserializeOwned>(record: Value, other: usize, instead: &str) -> Result<T, String> {
    match record.as_array().map(Vec::len) {
        Some(n) if n == other => Err(instead.to_string()),
        _ => serde_json::from_value(record).map_err(|e| format!("is no valid record: {e}")),
    }
}

/// What a record says about a mention.
struct Found<'a> {
    sentence: &'a str,
    image: Option<&'a str>,
    mention: &'a str,
    at: (usize, usize),
    gold: Option<String>,
}

/// What is known about entities besides their titles, and the dataset so far.
struct Reader {
    draft: Draft,
    descriptions: HashMap<String, String>,
    image_urls: HashMap<String, Vec<String>>,
    mention_images: Option<PathBuf>,
    entity_images: Option<PathBuf>,
}

impl Reader {
    fn new(source: &Source, about: About) -> Result<Reader> {
        let draft = Draft::new(About { published: Some(Published::WIKIDIVERSE), ..about });
        let mut descriptions = HashMap::new();
        for split in Split::ALL {
            let file = format!("entity2brief_{split}.json");
            let Some(path) = source.find(&[&format!("entities/{file}"), &file])? else { continue };
            for (name, text) in Document::open(&path)?.dictionary::<Option<String>>()? {
                descriptions.entry(title(&name)).or_insert(text.unwrap_or_default());
            }
        }
        for (name, text) in table(source, "wikipedia_entity2desc_filtered.tsv")? {
            descriptions.entry(name).or_insert(text);
        }
        let urls = |text: String| text.split("[AND]").map(|url| url.trim().to_string()).collect();
        let image_urls = table(source, "wikipedia_entity2imgs.tsv")?.into_iter().map(|(name, text)| (name, urls(text)));
        let image_urls = image_urls.collect();
        let settings = source.settings;
        Ok(Reader {
            draft,
            descriptions,
            image_urls,
            mention_images: source.images(&settings.mention_images, &["images", "wikinewsImgs"])?,
            entity_images: source.images(&settings.entity_images, &["images", "wikipediaImgs"])?,
        })
    }

    fn mention(&mut self, split: Split, id: String, found: Found, candidates: &[String]) -> Result<(), String> {
        let gold = title(found.gold.as_deref().unwrap_or_default());
        if is_nil(&gold) {
            self.draft.count("mentions of entities outside the knowledge base (NIL) left out");
            return Ok(());
        }
        let (start, end) = found.at;
        let text: String = found.sentence.chars().skip(start).take(end.saturating_sub(start)).collect();
        if text.trim().is_empty() || text.chars().count() != end - start {
            let length = found.sentence.chars().count();
            return Err(format!("mention `{}` lies at {start}..{end} of {length} characters", found.mention));
        }
        if text != found.mention {
            self.draft.count("mentions whose text differs from that at their offsets, which count");
        }
        let candidates: Vec<String> = candidates.iter().map(|url| title(url)).filter(|t| !is_nil(t)).collect();
        candidates.iter().chain([&gold]).try_for_each(|title| self.entity(title))?;
        let image = found.image.and_then(image_file).zip(self.mention_images.as_ref());
        let image = image.map_or(ImageSource::None, |(name, folder)| ImageSource::Files(vec![folder.join(name)]));
        let sentence = found.sentence.to_string();
        self.draft.mention(split, DraftMention { id, mention: text, sentence, image, candidates, gold })
    }

    /// Adds an entity that was not seen yet.
    fn entity(&mut self, title: &str) -> Result<(), String> {
        if self.draft.has(title) {
            return Ok(());
        }
        // DRIN's files know `AC/DC` as `DC`.
        let cut = title.rsplit('/').next().unwrap_or(title);
        let description = self.descriptions.get(title).or_else(|| self.descriptions.get(cut));
        let urls = self.image_urls.get(title).or_else(|| self.image_urls.get(cut));
        let files = urls.zip(self.entity_images.as_ref()).map(|(urls, folder)| {
            ImageSource::Files(urls.iter().filter_map(|url| image_file(url)).map(|name| folder.join(name)).collect())
        });
        self.draft.entity(DraftEntity {
            qid: title.to_string(),
            name: title.replace('_', " "),
            description: description.cloned().unwrap_or_default(),
            image: files.unwrap_or(ImageSource::None),
        })
    }
}

/// Titles and texts of a file of `title@@@@text` lines, if there is one; the first line may be a header, which names no entity.
fn table(source: &Source, name: &str) -> Result<Vec<(String, String)>> {
    let Some(path) = source.find(&[&format!("entities/{name}"), name])? else {
        return Ok(Vec::new());
    };
    let text = files::read_text(&path)?;
    let rows = text.lines().filter_map(|line| line.split_once("@@@@"));
    Ok(rows.map(|(name, rest)| (title(name), rest.trim().to_string())).collect())
}

/// The title of a Wikipedia page: what follows `/wiki/` in its address, whatever stands in front (`nhttps`, `]https`),
/// decoded. A title without an address is taken as it is.
fn title(url: &str) -> String {
    let url = url.trim().trim_matches(['[', ']', '"']);
    let tail = url.split_once("/wiki/").map_or(url, |(_, tail)| tail);
    percent_decode_str(tail).decode_utf8_lossy().trim().replace(' ', "_")
}

fn is_nil(title: &str) -> bool {
    title.is_empty() || ["nil", "__nil__"].iter().any(|nil| title.eq_ignore_ascii_case(nil))
}

/// The file that the downloads store an image's address as: the MD5 of its last segment, still encoded, and its ending.
/// An ending that the original script does not know leaves the whole segment behind the hash.
fn image_file(url: &str) -> Option<String> {
    let segment = url.trim().rsplit('/').next().filter(|segment| !segment.is_empty())?;
    let mut ending = segment;
    // The script removes as much as it can in front of a known ending, first of one kind, then of the other.
    for known in [&["jpg", "JPG", "png", "PNG", "svg", "SVG"][..], &["jpeg", "JPEG"]] {
        let last = known.iter().filter_map(|known| ending.rfind(&format!(".{known}"))).max();
        ending = last.filter(|&at| at > 0).map_or(ending, |at| &ending[at..]);
    }
    let name = format!("{:x}{ending}", md5::compute(segment));
    Some(name.replace(".svg", ".png").replace(".SVG", ".png"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that DRIN's regular expression gives.
    #[test]
    fn images_have_the_names_that_the_download_gave_them() {
        for (segment, file) in [
            ("DetroitLionsRunningPlay-2007.jpg", "062ce5e341a566a4208d801e53557538.jpg"),
            ("Simpsons_new_title_sequence_screenshot.png", "cac8fb8bc5f16bec6813f58801cdd7a6.png"),
            ("Ugaritic-alphabet-chart.svg", "dd5af8788695e95bba3e27bf56b768f7.png"),
            ("Foo%20bar.JPEG", "6365991e14c6a9cd186353e756b8fca6.JPEG"),
            ("Anim.gif", "7392e2c97bda83a49ba3059daa9d784aAnim.gif"),
        ] {
            assert_eq!(image_file(&format!("https://upload.wikimedia.org/a/ab/{segment}")).as_deref(), Some(file));
        }
        assert_eq!(image_file("https://example.org/"), None);
    }

    #[test]
    fn titles_are_decoded_whole() {
        for (url, want) in [
            ("https://en.wikipedia.org/wiki/High-definition_television", "High-definition_television"),
            ("nhttps://en.wikipedia.org/wiki/AC/DC", "AC/DC"),
            ("]https://en.wikipedia.org/wiki/Bj%C3%B6rk", "Björk"),
            ("ttps://en.wikipedia.org/wiki/%22Heroes%22_(song)", "\"Heroes\"_(song)"),
            ("100%_Pure", "100%_Pure"),
            ("Detroit Lions", "Detroit_Lions"),
        ] {
            assert_eq!(title(url), want);
        }
        assert!(["", "NIL", "__nil__", "nil"].iter().all(|nil| is_nil(&title(nil))));
    }
}
