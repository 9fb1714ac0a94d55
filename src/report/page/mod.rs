//! One page of HTML about runs, which holds all that it shows: nothing is fetched, and no script runs.
//!
//! A module reads one kind of file and makes a [`Section`] of it; `page.html` is the template of all of them, which
//! escapes whatever text a file brings.

mod block;
mod chart;
mod complexity;
mod cost;
mod epochs;
mod examples;
mod experiment;
mod glance;
mod input;
mod latency;
mod pretraining;
mod reranking;
mod results;
mod roofline;
mod steps;
mod thumbnail;
mod training;

use std::path::{Path, PathBuf};

use minijinja::{Environment, context};

use self::block::{Block, Section};
use self::examples::Known;
use self::input::{From, Inputs};
use crate::bytes::Bytes;
use crate::data::{Dataset, Skipped, Tolerance};
use crate::error::{Error, Result};
use crate::profile::measurement::Measurements;

/// Most bytes of a page.
const MOST_BYTES: usize = 3_000_000;

/// A page.
#[derive(Debug)]
pub struct Page {
    /// The file's text.
    pub html: String,
    /// Titles of its sections.
    pub sections: Vec<&'static str>,
    /// The files that it was made from.
    pub read: Vec<PathBuf>,
    /// Files of which it shows nothing, and why.
    pub unshown: Vec<(PathBuf, &'static str)>,
}

/// Why a file of measurements is in no section.
const NO_SECTION: &str = "no section shows it: it has neither times nor both FLOPs and bytes of a row";

/// The page of the runs in these folders and files. Examples have the images of `dataset`, a dataset's folder.
///
/// Fails at an input that holds nothing of ours, is empty, or is of a later version of this program, and if there is nothing
/// to show.
pub fn page(title: &str, runs: &[PathBuf], dataset: Option<&Path>) -> Result<Page> {
    let inputs = Inputs::read(runs)?;
    let dataset =
        dataset.map(|folder| Dataset::open(folder, Tolerance::Strict, &mut Skipped::default())).transpose()?;
    let known = match &dataset {
        Some(dataset) => Some(Known { dataset, checksum: dataset.checksum()? }),
        None => None,
    };
    let sections = [
        results::section(&inputs.evaluations)?,
        experiment::section(&inputs.experiments)?,
        complexity::section(&inputs.experiments)?,
        cost::section(&inputs.measurements)?,
        reranking::section(&inputs.rerankings, &inputs.experiments),
        training::section(&inputs.trainings)?,
        pretraining::section(&inputs.pretrainings)?,
        examples::section(&inputs, known.as_ref())?,
        steps::section(&inputs.measurements)?,
        latency::section(&inputs.measurements)?,
        roofline::section(&inputs.measurements)?,
    ];
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    let unshown = unshown(&inputs, &sections);
    if let (true, Some(path)) = (sections.is_empty(), inputs.files().first()) {
        return Err(Error::file(path, format!("{NO_SECTION}; the page would be empty")));
    }
    let html =
        rendered(title, &inputs, &sections).map_err(|e| Error::invalid(format!("the page cannot be written: {e}")))?;
    if html.len() > MOST_BYTES {
        let (size, most) = (Bytes::of(html.len()), Bytes::of(MOST_BYTES));
        return Err(Error::invalid(format!(
            "the page has {size}, and {most} at most are meant to be; name fewer runs"
        )));
    }
    let sections = sections.iter().map(|section| section.title).collect();
    Ok(Page { html, sections, read: inputs.files(), unshown })
}

/// Files of measurements that no section has a heading for. What else is taken has a section of its own.
fn unshown(inputs: &Inputs, sections: &[Section]) -> Vec<(PathBuf, &'static str)> {
    let heads = |file: &From<Measurements>| match file.heading() {
        Block::Heading { source: wanted, .. } => sections
            .iter()
            .flat_map(|section| &section.blocks)
            .any(|block| matches!(block, Block::Heading { source, .. } if *source == wanted)),
        _ => false,
    };
    // A roof may be that of another file.
    let roof = sections.iter().any(|section| section.id == "roofline");
    let used = |file: &From<Measurements>| heads(file) || roof && file.what.ceilings.is_some();
    let files = inputs.measurements.iter().filter(|file| !used(file));
    files.map(|file| (file.path.clone(), NO_SECTION)).collect()
}

fn rendered(title: &str, inputs: &Inputs, sections: &[Section]) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    // The name's ending says that texts are escaped.
    environment.add_template("page.html", include_str!("page.html"))?;
    let context = context! {
        title,
        about => glance::about(inputs),
        cards => glance::cards(inputs),
        sections,
        style => include_str!("page.css"),
        version => env!("CARGO_PKG_VERSION"),
    };
    environment.get_template("page.html")?.render(context)
}
