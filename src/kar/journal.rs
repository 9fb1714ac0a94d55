//! What was answered so far: a file to which each answer is appended, so that a run that is killed goes on where it
//! stopped.
//!
//! Its first line holds the settings, each further one an answer. Lines are appended whole; if the last one is cut
//! short all the same, it is dropped and its question asked again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::instruction::{Budget, Strategy, Template};
use super::model::{LanguageModel, Question, Reply, Wanted};
use super::types::{LEAST_SHARE, Scoring, Settings};
use crate::data::{Dataset, RunFile, parse_record, record_error};
use crate::error::{Error, Result};
use crate::files;
use crate::settings::difference;

/// What an answer depends on, but for the question's own text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The model.
    pub model: String,
    /// What it is asked.
    pub strategy: Strategy,
    /// Candidates that it is asked about.
    pub k: usize,
    /// How it answers.
    pub scoring: Scoring,
    /// Share of the probability that letters must have; older journals do not say theirs.
    #[serde(default = "least_share")]
    pub least_share: f64,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Checksum of the template.
    pub template: String,
    /// Lengths of the instruction's parts.
    pub budget: Budget,
    /// Checksum of the dataset.
    pub dataset: String,
    /// Checksum of the run file.
    pub ranking: String,
}

fn least_share() -> f64 {
    LEAST_SHARE
}

impl Header {
    /// What answers of this model to questions about this run file depend on.
    pub fn new(
        model: &dyn LanguageModel,
        settings: &Settings,
        template: &Template,
        dataset: &Dataset,
        run: &RunFile,
    ) -> Result<Header> {
        let checksum = |bytes: &[u8]| format!("{:032x}", xxh3_128(bytes));
        Ok(Header {
            model: model.identity(),
            strategy: settings.strategy,
            k: settings.k,
            scoring: settings.scoring,
            least_share: settings.least_share,
            max_new_tokens: settings.max_new_tokens,
            template: checksum(template.text().as_bytes()),
            budget: settings.budget,
            dataset: dataset.checksum()?,
            ranking: run.checksum(),
        })
    }
}

/// An answer as its line has it.
#[derive(Serialize, Deserialize)]
struct Entry {
    mention_id: String,
    /// The prompt's key: the same question has the same answer.
    question: String,
    #[serde(flatten)]
    reply: Reply,
}

/// A journal that is open for writing. No other process can open it meanwhile.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Lines that it has.
    lines: usize,
    /// Answers by their questions' keys, each with its line.
    replies: HashMap<String, (usize, Reply)>,
}

impl Journal {
    /// The journal beside a run file: its whole name and `.journal.jsonl`, so that no two run files share one.
    pub fn beside(out: &Path) -> PathBuf {
        let mut name = out.as_os_str().to_os_string();
        name.push(".journal.jsonl");
        name.into()
    }

    /// Opens a journal, or begins one; one without answers begins anew.
    ///
    /// Fails if it belongs to other settings, if another process writes it, or if it is no journal.
    pub fn open(path: &Path, header: &Header) -> Result<Journal> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            files::create_folder(folder)?;
        }
        // A device or a pipe keeps nothing.
        if path.exists() {
            files::expect_regular(path)?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(Error::io(path, "open"))?;
        files::lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
        // What stands behind the last line end was cut short.
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let cut = bytes.get(whole..).unwrap_or_default();
        if whole == 0 && !cut.is_empty() && !cut.starts_with(b"{\"settings\"") {
            return Err(Error::file(path, "is no journal of answers; choose another --out or --journal"));
        }
        let other = |line: &[u8]| serde_json::from_slice::<First>(line).is_ok_and(|first| first.settings != *header);
        // Settings without answers bind nobody.
        let empty = bytes[..whole].iter().filter(|&&b| b == b'\n').count() == 1;
        let whole = if empty && other(&bytes[..whole]) { 0 } else { whole };
        bytes.truncate(whole);
        let text =
            String::from_utf8(bytes).map_err(|_| Error::file(path, "is no journal of answers: it is not UTF-8"))?;
        let mut journal =
            Journal { path: path.to_path_buf(), file, lines: text.lines().count(), replies: HashMap::new() };
        journal.file.set_len(whole as u64).map_err(Error::io(path, "write"))?;
        journal.file.seek(SeekFrom::End(0)).map_err(Error::io(path, "write"))?;
        match text.lines().next() {
            None => journal.line(&First { settings: header.clone() })?,
            Some(_) => journal.replies = read(path, &text, header)?,
        }
        Ok(journal)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers that it holds.
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// The answer to the question with this key. Fails if it is none that this question can have.
    pub fn answer(&self, key: &str, question: &Question, wanted: Wanted) -> Result<Option<&Reply>> {
        let Some((line, reply)) = self.replies.get(key) else { return Ok(None) };
        let misfit = |reason: String| {
            let reason = format!("mention `{}`: its answer {reason}; {ASK_AGAIN}", question.mention);
            record_error(&self.path, *line, reason)
        };
        reply.fits(question, wanted).map_err(misfit)?;
        Ok(Some(reply))
    }

    /// Appends an answer.
    pub fn append(&mut self, mention: &str, question: String, reply: Reply) -> Result<()> {
        let entry = Entry { mention_id: mention.to_string(), question, reply };
        self.line(&entry)?;
        self.replies.insert(entry.question, (self.lines, entry.reply));
        Ok(())
    }

    /// Hands a line to the system in one piece: a process that is killed leaves it whole.
    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| Error::file(&self.path, e.to_string()))?;
        self.lines += 1;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(Error::io(&self.path, "write"))
    }
}

#[derive(Serialize, Deserialize)]
struct First {
    settings: Header,
}

/// What to do about a line that is no answer.
const ASK_AGAIN: &str = "remove this line to ask its question again";

fn read(path: &Path, text: &str, header: &Header) -> Result<HashMap<String, (usize, Reply)>> {
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().unwrap_or_default();
    let First { settings } = parse_record(path, 1, first)?;
    if settings != *header {
        let reason = format!(
            "holds answers under other settings: {}; remove it to ask anew, or choose another --journal",
            difference(&settings, header)
        );
        return Err(Error::file(path, reason));
    }
    let mut replies = HashMap::new();
    for (i, line) in lines {
        let entry: Entry = parse_record(path, i + 1, line).map_err(|e| e.advising(ASK_AGAIN))?;
        replies.insert(entry.question, (i + 1, entry.reply));
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kar::instruction::Prompt;
    use crate::kar::model::Said;

    fn header() -> Header {
        let text = |t: &str| t.to_string();
        Header {
            model: text("m"),
            strategy: Strategy::SelectOne,
            k: 5,
            scoring: Scoring::Letters,
            least_share: LEAST_SHARE,
            max_new_tokens: 8,
            template: text("t"),
            budget: Budget::default(),
            dataset: text("d"),
            ranking: text("r"),
        }
    }

    fn reply(logits: &[f32]) -> Reply {
        Reply { said: Said::Letters(logits.to_vec()), prompt_tokens: 9, computed_tokens: 4, new_tokens: 0 }
    }

    /// What the journal answers to a question of two options.
    fn answer<'a>(journal: &'a Journal, key: &str) -> Option<&'a Reply> {
        let prompt = Prompt { system: String::new(), user: String::new(), reply: String::new() };
        let question = Question { mention: "one".into(), group: 0, prompt, options: 2, answered: false };
        journal.answer(key, &question, Wanted::Letters { least_share: LEAST_SHARE }).unwrap()
    }

    #[test]
    fn answers_come_back_and_a_torn_last_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/journal.jsonl");
        let text = Reply { said: Said::Text("B.\n\u{1F600}".into()), ..reply(&[]) };
        {
            let mut journal = Journal::open(&path, &header()).unwrap();
            journal.append("one", "k1".into(), reply(&[0.1, -3.5e-7])).unwrap();
            journal.append("two", "k2".into(), text.clone()).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        // However much of the last line is missing.
        let second = bytes[..bytes.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        for cut in second..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut journal = Journal::open(&path, &header()).unwrap();
            assert_eq!((journal.len(), answer(&journal, "k1")), (1, Some(&reply(&[0.1, -3.5e-7]))));
            journal.append("two", "k2".into(), text.clone()).unwrap();
            drop(journal);
            assert!(std::fs::read(&path).unwrap() == bytes);
        }
        assert_eq!(answer(&Journal::open(&path, &header()).unwrap(), "k2"), Some(&text));
        // Of a journal that does not say it, the share is the usual one.
        let older = String::from_utf8(bytes.clone()).unwrap().replace("\"least_share\":0.1,", "");
        assert!(older.len() < bytes.len());
        std::fs::write(&path, older).unwrap();
        assert_eq!(Journal::open(&path, &header()).unwrap().len(), 2);
        // Even of the first.
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert!(Journal::open(&path, &header()).unwrap().is_empty());
    }

    #[test]
    fn every_run_file_has_its_own_journal() {
        let names = ["run.json", "run.jsonl", "run"].map(|name| Journal::beside(Path::new(name)));
        assert_eq!(
            names,
            ["run.json.journal.jsonl", "run.jsonl.journal.jsonl", "run.journal.jsonl"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_journal_of_something_else_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let open = |header: Header| Journal::open(&path, &header);
        let held = open(header()).unwrap();
        assert!(open(header()).unwrap_err().to_string().contains("another process"));
        drop(held);
        // No answer depends on its settings yet.
        drop(open(Header { k: 3, ..header() }).unwrap());
        open(header()).unwrap().append("one", "k".into(), reply(&[0.5])).unwrap();
        let other = open(Header { k: 3, ..header() }).unwrap_err().to_string();
        assert!(other.contains("k was 5 and is now 3"), "{other}");
        for (content, says) in [("precious", "is no journal"), ("precious\nwords\n", ":1: is no valid record")] {
            std::fs::write(&path, content).unwrap();
            assert!(open(header()).unwrap_err().to_string().contains(says));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        drop(open(header()).unwrap());
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"mention_id\":7}\n");
        std::fs::write(&path, &text).unwrap();
        let error = open(header()).unwrap_err().to_string();
        assert!(error.contains("remove this line") && error.matches("journal.jsonl:2: ").count() == 1, "{error}");
        for (path, says) in [(Path::new("/dev/null"), "is a device"), (folder.path(), "is a folder")] {
            let error = Journal::open(path, &header()).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("no regular file"), "{error}");
        }
    }
}
