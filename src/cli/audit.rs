//! `fissfuse audit`

use std::path::PathBuf;

use fissfuse::data::audit::{ImageCheck, audit};
use fissfuse::report::{findings_text, statistics_table};

use super::common::write_json;
use super::paths;

/// Count what is in a dataset, and find what may mislead whoever measures on it.
///
/// Lines marked with `!` name leaks between splits, answers that their place or a text gives away, and faults of lists
/// and records.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the dataset (entities.jsonl, {train,valid,test}.jsonl, images/).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// How closely images are looked at.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    check_images: ImageCheck,

    /// Also write all of it here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let json: Vec<_> = args.json.iter().map(|path| ("--json", path.as_path())).collect();
    paths::keep_apart(&[("--data", &args.data)], &json)?;
    let audit = audit(&args.data, args.check_images)?;
    println!("{}\n", statistics_table(&audit.statistics, None));
    println!("{}", findings_text(&audit.findings));
    match &args.json {
        Some(path) => write_json(path, &audit),
        None => Ok(()),
    }
}
