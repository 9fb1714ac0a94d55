//! `fissfuse audit`

use std::path::PathBuf;

use fissfuse::data::audit::{ImageCheck, audit};
use fissfuse::files;
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

    /// Also write all of it here; with "-" to standard output, and the tables to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let file = args.json.as_deref().filter(|_| !to_stdout);
    let json: Vec<_> = file.iter().map(|path| ("--json", *path)).collect();
    paths::keep_apart(&[("--data", &args.data)], &json)?;
    file.map_or(Ok(()), files::expect_file_at)?;
    let audit = audit(&args.data, args.check_images)?;
    let tables = format!("{}\n\n{}", statistics_table(&audit.statistics, None), findings_text(&audit.findings));
    if to_stdout {
        eprintln!("{tables}");
        println!("{}", serde_json::to_string_pretty(&audit)?);
    } else {
        println!("{tables}");
    }
    file.map_or(Ok(()), |path| write_json(path, &audit))
}
