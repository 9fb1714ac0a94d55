//! Lines and their answers.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use fissfuse::bytes::Bytes;
use fissfuse::data::{Dataset, Line, Mention, MentionRecord, next_line, parse_record, record_error, relative};
use fissfuse::eval::Linker;
use fissfuse::printable::printable_json;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::json;

use super::lines::{LONGEST, is_blank};
use super::{Args, Piece};
use crate::cli::common::progress;

/// What a line is.
const FORM: &str = r#"a line is {"mention_id", "mention", "sentence", "image"?, "candidates"?: [qid, ...]}"#;

/// What answers lines.
pub struct Answering<'a> {
    pub linker: Linker<'a>,
    pub dataset: &'a Dataset,
    pub args: &'a Args,
    /// Where the lines are from, for messages.
    pub name: &'a Path,
}

impl Answering<'_> {
    /// Answers all lines that are not blank, or those of a share, which is counted from 0.
    pub fn answer_all(
        &mut self,
        mut reader: Box<dyn BufRead + '_>,
        share: Option<Range<usize>>,
        mut write: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Piece> {
        let name = self.name;
        let (mut piece, mut lines) = (Piece { answered: 0, bad: 0 }, Vec::new());
        let (mut number, mut seen) = (0, 0);
        loop {
            let line = next_line(&mut reader, LONGEST).with_context(|| format!("{}: cannot read", name.display()))?;
            number += 1;
            let last = line.is_none();
            if let Some(line) = line.filter(|line| !is_blank(line)) {
                if share.as_ref().is_none_or(|share| share.contains(&seen)) {
                    lines.push((number, line));
                }
                seen += 1;
            }
            let end = last || share.as_ref().is_some_and(|share| seen >= share.end);
            if lines.len() < self.args.batch && !end {
                continue;
            }
            let answers = answers(&mut self.linker, self.dataset, self.args, name, &lines)?;
            for ((_, line), answer) in lines.iter().zip(answers) {
                let answer = match answer {
                    Ok(answer) => {
                        piece.answered += 1;
                        answer
                    }
                    Err(error) if self.args.data.skip_bad && error.concerns_input() => {
                        piece.bad += 1;
                        json!({"mention_id": mention_id(line), "error": error.to_string()}).to_string()
                    }
                    Err(error) => return Err(error.into()),
                };
                // A terminal would obey control characters that JSON need not escape.
                write(&printable_json(&answer))?;
            }
            lines.clear();
            if end {
                return Ok(piece);
            }
        }
    }
}

/// The identifier in a line that may hold anything.
fn mention_id(line: &Line) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        mention_id: String,
    }
    match line {
        Line::Whole(line) => serde_json::from_slice(line).ok().map(|named: Named| named.mention_id),
        Line::TooLong => None,
    }
}

/// The answers to some lines, in their order; an error that no other line could do better than is one of all.
fn answers(
    linker: &mut Linker,
    dataset: &Dataset,
    args: &Args,
    name: &Path,
    lines: &[(usize, Line)],
) -> fissfuse::Result<Vec<fissfuse::Result<String>>> {
    let mut asked = Vec::with_capacity(lines.len());
    let mut ask = |(number, line): &(usize, Line)| {
        asked.push(mention(dataset, args, (name, *number), line)?);
        Ok(())
    };
    let heard: Vec<fissfuse::Result<()>> = lines.iter().map(&mut ask).collect();
    let whole = asked.iter().any(|mention| mention.candidates.is_none());
    let bar = if whole { progress("entities prepared") } else { ProgressBar::hidden() };
    let linked = match linker.link_together(&asked, args.top, &bar) {
        Ok(linked) => linked.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) if !error.concerns_input() => return Err(error),
        Err(error) if asked.len() == 1 => vec![Err(error)],
        // Asked one by one, each has its own answer or error.
        Err(_) => asked.iter().map(|mention| linker.link(mention, args.top, &bar)).collect(),
    };
    bar.finish_and_clear();
    let mut linked = asked.iter().zip(linked);
    let answer = |((number, _), heard): (&(usize, Line), fissfuse::Result<()>)| {
        heard?;
        let (mention, linked) = linked.next().ok_or_else(|| record_error(name, *number, "has no answer"))?;
        let linked = linked.map_err(|error| match error.concerns_input() {
            true => record_error(name, *number, format!("mention `{}`: {error}", mention.id)),
            false => error,
        })?;
        serde_json::to_string(&linked).map_err(|e| record_error(name, *number, e.to_string()))
    };
    Ok(lines.iter().zip(heard).map(answer).collect())
}

/// The mention of a line.
fn mention(dataset: &Dataset, args: &Args, (name, number): (&Path, usize), line: &Line) -> fissfuse::Result<Mention> {
    let refuse = |reason: String| record_error(name, number, reason);
    let Line::Whole(line) = line else {
        return Err(refuse(format!("is longer than {}", Bytes::of(LONGEST))));
    };
    let text = std::str::from_utf8(line).map_err(|_| refuse("is not UTF-8".into()))?;
    let record: MentionRecord = parse_record(name, number, text).map_err(|error| error.advising(FORM))?;
    let mut mention: Mention = dataset.mention(record).map_err(refuse)?;
    let about = |reason: String| refuse(format!("mention `{}`: {reason}", mention.id));
    if let Some(image) = &mention.image {
        if !args.allow_any_path {
            relative(image).map_err(|reason| about(format!("image: {reason}; --allow-any-path takes it")))?;
        }
        if let Some(folder) = &args.images {
            let path = std::path::absolute(folder.join(image)).map_err(|e| about(format!("image `{image}`: {e}")))?;
            mention.image = Some(path.display().to_string());
        }
    }
    Ok(mention)
}
