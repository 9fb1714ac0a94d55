//! What the parts of each command are joined to.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, ensure};
use fissfuse::candidates::{Made, replace_splits};
use fissfuse::data::{Dataset, Skipped, Split, Tolerance, join_stores};
use fissfuse::eval::Metrics;
use fissfuse::files::names::RUN;
use fissfuse::files::{self, FolderLock};
use fissfuse::kar::{Fate, Report, Spent};
use fissfuse::provenance::Provenance;
use fissfuse::shard::Parts;
use serde_json::{Value, json};

use crate::cli::paths::{self, Holds};
use crate::cli::{candidates, eval, link, rerank};

/// One feature store.
pub fn encode(parts: &Parts, out: &Path) -> anyhow::Result<()> {
    let folders: Vec<_> = parts.all().iter().map(|part| part.folder.clone()).collect();
    let joined = join_stores(&folders, out)?;
    let (texts, images) = (joined.texts, joined.images);
    println!(
        "wrote {}: {texts} texts and {images} images (with what stands in for missing ones) of {} parts",
        out.display(),
        folders.len()
    );
    Ok(())
}

/// One file of answers.
pub fn link(parts: &Parts, out: &Path) -> anyhow::Result<()> {
    let pieces: Vec<link::Piece> = parts.results()?;
    let sum = |of: &dyn Fn(&link::Piece) -> usize| pieces.iter().map(of).sum();
    let all = link::Piece { answered: sum(&|piece| piece.answered), bad: sum(&|piece| piece.bad) };
    link::report_bad(&all, Path::new("the input"))?;
    files::expect_file_at(out)?;
    concatenate(parts, link::ANSWERS, out)?;
    println!("wrote {}: {} lines of {} parts", out.display(), all.answered + all.bad, pieces.len());
    Ok(())
}

/// The metrics of all mentions, and one run file.
pub fn eval(parts: &Parts, out: &Path) -> anyhow::Result<()> {
    paths::no_other_kind("--out", out, &[Holds::Run])?;
    files::expect_folder_at(out)?;
    let mut pieces: Vec<eval::Piece> = parts.results()?;
    let devices: Vec<String> =
        pieces.iter_mut().filter_map(|piece| take_text(&mut piece.metrics["provenance"]["device"])).collect();
    let mut metrics = pieces[0].metrics.clone();
    for (piece, part) in pieces.iter().zip(parts.all()) {
        let same = piece.metrics == metrics && piece.kinds == pieces[0].kinds;
        ensure!(same, "{}: is of another run: what it says beside its ranks differs", part.folder.display());
    }
    metrics["provenance"]["device"] = json!(distinct(&devices));
    let read = |name: &str| serde_json::from_value::<Metrics>(metrics["baselines"][name].clone()).ok();
    let named = [("the lists' order", read("list_order")), ("chance", read("chance"))];
    let without_model: Vec<(&str, &Metrics)> =
        named.iter().filter_map(|(name, metrics)| Some((*name, metrics.as_ref()?))).collect();
    let kinds: Vec<&str> = pieces[0].kinds.iter().map(String::as_str).collect();
    let ranks: Vec<_> = pieces.iter().flat_map(|piece| piece.ranks.iter().cloned()).collect();
    ensure!(ranks.iter().all(|ranks| ranks.by_score.len() == kinds.len()), "a part's ranks are not by its scores");
    let said = eval::complete(&mut metrics, &kinds, &ranks, &without_model)?;
    eval::write_both(out, &metrics, |run| concatenate(parts, RUN, run), &said)
}

/// One run file, and the report of all mentions.
pub fn rerank(parts: &Parts, out: &Path, report: Option<&Path>) -> anyhow::Result<()> {
    let pieces: Vec<rerank::Piece> = parts.results()?;
    let first = &pieces[0];
    for (piece, part) in pieces.iter().zip(parts.all()) {
        let Some(difference) = difference(&first.report, &piece.report) else { continue };
        anyhow::bail!(
            "{}: {difference} as in {}: the model's answers to the same questions differ from task to task",
            part.folder.display(),
            parts.first().folder.display()
        );
    }
    let fates: Vec<Fate> = pieces.iter().flat_map(|piece| piece.fates.iter().cloned()).collect();
    let spent = Spent::sum(pieces.iter().map(|piece| &piece.report.spent));
    let Report { model, settings, letter_prior, debias_sample, fusion, .. } = first.report.clone();
    let of_all = Report::of((model, &settings), &fates, first.split, spent);
    let of_all = Report { letter_prior, debias_sample, fusion, ..of_all };
    let devices: Vec<String> = pieces.iter().map(|piece| piece.provenance.device.clone()).collect();
    let provenance = Provenance { device: distinct(&devices), ..first.provenance.clone() };
    files::expect_file_at(out)?;
    report.map_or(Ok(()), files::expect_file_at)?;
    concatenate(parts, RUN, out)?;
    report.map_or(Ok(()), |path| rerank::write_report(path, &of_all, &provenance))?;
    rerank::print_report(&of_all);
    let reported = report.map(|path| format!(" and {}", path.display())).unwrap_or_default();
    println!("wrote {}{reported}", out.display());
    Ok(())
}

/// In what two reports of parts differ that has to be the same: what was found out before the mentions were asked about.
fn difference(one: &Report, other: &Report) -> Option<&'static str> {
    let fusion = |report: &Report| {
        report.fusion.clone().map(|mut fusion| {
            fusion.spent = Spent::default();
            json!(fusion)
        })
    };
    let said = [
        (one.settings == other.settings && fusion(one) == fusion(other), "its weights (--fuse) are not those"),
        (one.letter_prior == other.letter_prior, "its letters' prior (--debias) is not"),
        (one.debias_sample == other.debias_sample, "what its sample says (--debias) is not"),
        (one.model == other.model, "its model is not"),
    ];
    said.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
}

/// The lists of all mentions, in the dataset.
pub fn candidates(parts: &Parts, out: &Path) -> anyhow::Result<()> {
    let _lock = FolderLock::take(out)?;
    let dataset = Dataset::open(out, Tolerance::Skip, &mut Skipped::default())?;
    let checksum = dataset.checksum()?;
    ensure!(
        *parts.run("dataset") == json!(checksum),
        "{}: is not the dataset that the parts' lists are of, or has changed since, as it does when they are joined; if they are not in it \
         yet, make the parts anew",
        out.display()
    );
    let pieces: Vec<candidates::Piece> = parts.results()?;
    let replace = pieces[0].replace;
    let mut all: Vec<Made> = Vec::new();
    for (piece, part) in pieces.into_iter().zip(parts.all()) {
        for mut made in piece.made {
            made.text = files::read_text(&part.folder.join(made.split.file()))?;
            match all.iter_mut().find(|of| of.split == made.split) {
                Some(of) => of.append(made),
                None => all.push(made),
            }
        }
    }
    ensure!(
        Split::ALL.iter().all(|&split| dataset.has(split) == all.iter().any(|made| made.split == split)),
        "{}: has other files of mentions than the parts",
        out.display()
    );
    let mentions: usize = all.iter().map(|made| made.mentions).sum();
    candidates::print_reports(&replace_splits(out, all, replace)?);
    println!("{mentions} mentions against {} entities", dataset.entities().len());
    Ok(())
}

/// The parts' files of this name, one behind the other.
fn concatenate(parts: &Parts, name: &str, out: &Path) -> anyhow::Result<()> {
    let files = parts.files(name);
    let written =
        files::write_whole(out, |to| files.iter().try_for_each(|path| io::copy(&mut File::open(path)?, to).map(drop)));
    written.with_context(|| format!("{}: cannot join the parts' {name}", out.display()))
}

/// Takes a text out of a value.
fn take_text(value: &mut Value) -> Option<String> {
    value.take().as_str().map(str::to_string)
}

/// Different texts, one behind the other.
fn distinct(texts: &[String]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for text in texts {
        if !all.contains(&text.as_str()) {
            all.push(text);
        }
    }
    all.join("; ")
}
