//! One page of HTML about runs, which holds all that it shows: nothing is fetched, and no script runs.
//!
//! A module reads one kind of file and makes a [`Section`] of it; `page.html` is the template of all of them, which
//! escapes whatever text a file brings.

mod block;
mod chart;
mod complexity;
mod examples;
mod experiment;
mod glance;
mod input;
mod latency;
mod reranking;
mod results;
mod roofline;
mod steps;
mod thumbnail;
mod training;

use std::path::{Path, PathBuf};

use minijinja::{Environment, context};

use self::block::Section;
use self::examples::Known;
use self::input::Inputs;
use crate::bytes::Bytes;
use crate::data::{Dataset, Skipped, Tolerance};
use crate::error::{Error, Result};

/// Most bytes of a page.
const MOST_BYTES: usize = 3_000_000;

/// A page.
#[derive(Debug)]
pub struct Page {
    /// The file's text.
    pub html: String,
    /// Titles of its sections.
    pub sections: Vec<&'static str>,
}

/// The page of the runs in these folders and files. Examples have the images of `dataset`, a dataset's folder.
///
/// Fails at an input that holds nothing of ours, is empty, or is of a later version of this program.
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
        reranking::section(&inputs.rerankings, &inputs.experiments),
        training::section(&inputs.trainings)?,
        examples::section(&inputs, known.as_ref())?,
        steps::section(&inputs.measurements)?,
        latency::section(&inputs.measurements)?,
        roofline::section(&inputs.measurements)?,
    ];
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    let html =
        rendered(title, &inputs, &sections).map_err(|e| Error::invalid(format!("the page cannot be written: {e}")))?;
    if html.len() > MOST_BYTES {
        let (size, most) = (Bytes::of(html.len()), Bytes::of(MOST_BYTES));
        return Err(Error::invalid(format!(
            "the page has {size}, and {most} at most are meant to be; name fewer runs"
        )));
    }
    Ok(Page { html, sections: sections.iter().map(|section| section.title).collect() })
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
