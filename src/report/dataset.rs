//! What a dataset holds, for people.

use super::table;
use crate::data::Split;
use crate::data::audit::{Findings, GoldPosition, Shared, SplitStatistics, Statistics};
use crate::data::import::Published;
use crate::printable::printable;

/// A table of a dataset's counts, a column per split, beside the paper's Table 1 where that has the dataset.
pub fn statistics_table(statistics: &Statistics, published: Option<&Published>) -> String {
    let splits = &statistics.splits;
    let names: Vec<String> = splits.iter().map(|s| s.name.clone()).collect();
    let header: Vec<&str> = [""].into_iter().chain(names.iter().map(String::as_str)).collect();
    let row = |what: &str, value: &dyn Fn(&SplitStatistics) -> String| {
        [what.to_string()].into_iter().chain(splits.iter().map(value)).collect::<Vec<_>>()
    };
    let count = |what: &str, value: &dyn Fn(&SplitStatistics) -> usize| row(what, &|s| value(s).to_string());
    let lengths = |s: &SplitStatistics| match s.candidates {
        None => "none".to_string(),
        Some(l) if l.least == l.most => l.most.to_string(),
        Some(l) => format!("{}..{}, mean {:.1}", l.least, l.most, l.mean),
    };
    let mut rows = vec![count("mentions", &|s| s.mentions)];
    let paper = |what: &str, value: &dyn Fn(Option<usize>, &Published) -> String| {
        published.map(|published| {
            row(&format!("  {what} in the paper's Table 1"), &|s| {
                let place = Split::ALL.iter().position(|split| split.to_string() == s.name);
                value(place, published)
            })
        })
    };
    let mentions = |place: Option<usize>, published: &Published| {
        place.map_or(published.mentions.iter().sum(), |at| published.mentions[at]).to_string()
    };
    rows.extend(paper("mentions", &mentions));
    rows.push(count("distinct sentences", &|s| s.sentences));
    rows.push(count("distinct gold entities", &|s| s.gold_entities));
    rows.push(row("candidates of a mention", &lengths));
    rows.extend(paper("candidates", &|_, published| published.candidates.to_string()));
    rows.push(count("gold entity in the list", &|s| s.gold_in_list));
    rows.push(count("without candidates", &|s| s.without_candidates));
    rows.push(count("without gold entity", &|s| s.without_gold));
    rows.push(count("without image", &|s| s.without_image));
    rows.push(count("image file missing", &|s| s.missing_images));
    rows.push(count("image file unreadable", &|s| s.unreadable_images));
    rows.push(count("image to be turned (EXIF)", &|s| s.turned_images));
    rows.push(count("mention not in its sentence", &|s| s.not_in_sentence));
    rows.push(row("mean words of a mention", &|s| format!("{:.2}", s.mention_words)));
    rows.push(row("mean words of its sentence", &|s| format!("{:.2}", s.sentence_words)));
    let overall = |place: Option<usize>, published: &Published| match place {
        None => format!("{:.2}", published.words),
        Some(_) => String::new(),
    };
    rows.extend(paper("length", &overall));
    let e = &statistics.entities;
    format!(
        "{}\n{} entities: {} without description (the others have {:.1} words in the mean), {} without image, {} image \
         files missing, {} unreadable, {} to be turned (EXIF)",
        table(&header, rows),
        e.entities,
        e.without_description,
        e.description_words,
        e.without_image,
        e.missing_images,
        e.unreadable_images,
        e.turned_images
    )
}

/// What an audit found, a line for each thing; those that spoil a measurement are marked.
pub fn findings_text(findings: &Findings) -> String {
    let mut lines = Vec::new();
    let mut say = |bad: bool, text: String| lines.push(format!("{} {text}", if bad { "!" } else { " " }));
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    say(findings.bad_records > 0, format!("{} records cannot be used", findings.bad_records));
    for Shared { what, split, with, mentions, of } in &findings.shared {
        say(*mentions > 0, format!("{mentions} of {of} mentions of {split} share their {what} with {with}"));
    }
    for position in &findings.gold_positions {
        let GoldPosition { split, position: at, share, last, lists, first, chance } = position;
        let text = format!(
            "{split}: the gold entity stands at place {at} in {} of {lists} lists, last in {}",
            percent(*share),
            percent(*last)
        );
        say(position.fixed(), text);
        let (first, chance) = (percent(*first), percent(*chance));
        say(
            position.first_above_chance(),
            format!("{split}: the lists' own order has the gold entity first in {first}, chance has it in {chance}"),
        );
    }
    for recall in &findings.recall {
        let at = recall.at.iter().map(|at| format!("{} at {}", percent(at.recall), at.rank)).collect::<Vec<_>>();
        say(false, format!("{}: recall of the lists {}", recall.split, at.join(", ")));
    }
    let lists = findings.lists;
    say(lists.repeated > 0, format!("{} lists hold a candidate twice", lists.repeated));
    say(lists.unknown > 0, format!("{} lists hold a candidate that is no entity", lists.unknown));
    say(lists.unknown_gold > 0, format!("{} mentions have a gold entity that is none", lists.unknown_gold));
    let given = findings.given_away;
    say(given.entity_texts > 0, format!("{} entities' texts hold their own identifier", given.entity_texts));
    say(given.sentences > 0, format!("{} sentences hold their gold entity's identifier", given.sentences));
    say(given.mention_ids > 0, format!("{} mentions' identifiers hold their gold entity's", given.mention_ids));
    let same = findings.indistinguishable;
    say(same > 0, format!("{same} entities have the name and the description of another one"));
    for record in &findings.first_bad_records {
        lines.push(format!("  {}", printable(&record.to_string())));
    }
    lines.join("\n")
}
