//! `fissfuse import`

use std::path::PathBuf;

use fissfuse::data::audit::ImageCheck;
use fissfuse::data::import::{Description, Format, Imported, Settings, SplitUnit, import};
use fissfuse::data::{Protocol, Skipped, Tolerance};
use fissfuse::printable::{command_line, printable};
use fissfuse::report::statistics_table;

use super::common::list_skipped;

/// Read a dataset as the field publishes it into the layout of this program.
///
/// Images are hard-linked where the file system can, else copied, and never changed. DST is written whole or not at all.
/// docs/importing.md has a section for each format.
#[derive(clap::Args)]
pub struct Args {
    /// What SRC holds.
    format: Format,

    /// Folder of the published dataset.
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Folder to write; must not exist, or be empty.
    #[arg(value_name = "DST")]
    destination: PathBuf,

    /// What becomes of lists that lack their gold entity.
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,

    /// Which text describes an entity, where a format has several.
    #[arg(long, value_enum, default_value_t)]
    description: Description,

    /// Of a format without splits: what the split 7:1:2 keeps together.
    #[arg(long, value_enum, value_name = "UNIT", default_value_t)]
    split_by: SplitUnit,

    /// Of a format without splits: draws the split [default: the file's order].
    #[arg(long, value_name = "N")]
    split_seed: Option<u64>,

    /// Of a folder with several datasets (kgmel): which [default: the only one].
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,

    /// Folder of the mentions' images [default: where the format has it].
    #[arg(long, value_name = "DIR")]
    mention_images: Option<PathBuf>,

    /// Folder of the entities' images [default: where the format has it].
    #[arg(long, value_name = "DIR")]
    entity_images: Option<PathBuf>,

    /// Copy images even where they could be hard-linked.
    #[arg(long)]
    copy: bool,

    /// Take files from outside SRC too, where its files name them or its links lead there: only for sources to be trusted.
    #[arg(long)]
    allow_outside: bool,

    /// How closely images are looked at.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    check_images: ImageCheck,

    /// Leave out bad records, count and list them, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = Settings {
        protocol: args.protocol,
        description: args.description,
        unit: args.split_by,
        seed: args.split_seed,
        dataset: args.dataset,
        mention_images: args.mention_images,
        entity_images: args.entity_images,
        copy: args.copy,
        check: args.check_images,
        allow_outside: args.allow_outside,
    };
    let tolerance = if args.skip_bad { Tolerance::Skip } else { Tolerance::Strict };
    let mut skipped = Skipped::default();
    let done = import(args.format, &args.source, &args.destination, &settings, tolerance, &mut skipped)?;
    list_skipped(&skipped);
    let Imported { statistics, notes, published, default_image } = done;
    println!("{}", statistics_table(&statistics, published.as_ref()));
    for note in notes {
        let examples =
            if note.examples.is_empty() { String::new() } else { format!(" ({})", note.examples.join(", ")) };
        println!("{}: {}{}", note.what, note.count, printable(&examples));
    }
    if let Some(file) = default_image {
        let file = toml::Value::String(args.destination.join(file).display().to_string());
        println!("the format's stand-in for bad images: missing_image = {{ file = {file} }}");
    }
    println!("wrote {}", args.destination.display());
    if statistics.splits.iter().all(|split| split.candidates.is_none()) {
        let destination = args.destination.display().to_string();
        println!("next: {}", command_line(["fissfuse", "candidates", "--data", &destination]));
    }
    Ok(())
}
