//! Flags of subcommands that search vectors in an index or a vector database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use fissfuse::data::Dataset;
use fissfuse::search::{self, Access, Location, Seal, Source};

use super::common::at_least_one;
use super::shard;

/// Seconds that a database has for an answer where it is not said.
const TIMEOUT: u64 = 30;

/// How an index or a vector database is reached.
#[derive(clap::Args)]
pub struct DatabaseArgs {
    /// Environment variable that holds the database's key, if it wants one [default: QDRANT_API_KEY or MILVUS_TOKEN].
    #[arg(long, value_name = "VARIABLE")]
    database_key_env: Option<String>,

    /// Seconds that the database may take for an answer [default: 30].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    database_timeout: Option<u64>,

    /// Certificates (PEM) of the authorities by which the database is believed [default: SSL_CERT_FILE, else Mozilla's].
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Vectors that a search of an index looks at on its way, at least: more find more, and take longer [default: four times
    /// the length of the list].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    search_breadth: Option<usize>,
}

impl DatabaseArgs {
    /// What is in this place: opened, if it holds vectors, which have to have this seal.
    pub fn source(&self, location: &Location, seal: impl FnOnce() -> anyhow::Result<Seal>) -> anyhow::Result<Source> {
        self.expect_meaning(location)?;
        Ok(match location {
            Location::Scan => Source::Scan,
            Location::ScanInt8 => Source::ScanInt8,
            held => Source::Held(search::open(held, &seal()?, &self.access(held))?),
        })
    }

    /// Fails if a flag says something that this place has no use for: what it was meant for would be done otherwise.
    pub fn expect_meaning(&self, location: &Location) -> anyhow::Result<()> {
        let collection = match location {
            Location::Qdrant(collection) | Location::Milvus(collection) => Some(collection),
            Location::Scan | Location::ScanInt8 | Location::Usearch(_) => None,
        };
        if self.search_breadth.is_some() && matches!(location, Location::Scan | Location::ScanInt8) {
            bail!("--search-breadth: {location} looks at every vector; leave it out");
        }
        let given = [
            ("--database-key-env", self.database_key_env.is_some()),
            ("--database-timeout", self.database_timeout.is_some()),
            ("--ca-file", self.ca_file.is_some()),
        ];
        if let (None, Some((flag, _))) = (collection, given.iter().find(|(_, given)| *given)) {
            bail!("{flag}: {location} is no server; leave it out");
        }
        if self.ca_file.is_some() && collection.is_some_and(|collection| !collection.secure) {
            bail!("--ca-file: {location} is reached without certificates; leave it out, or take the location with TLS");
        }
        Ok(())
    }

    /// How widely an index is searched, if that was said.
    pub fn breadth(&self) -> Option<usize> {
        self.search_breadth
    }

    /// How this one is reached.
    pub fn access(&self, location: &Location) -> Access {
        let (variable, secure) = match location {
            Location::Qdrant(collection) => ("QDRANT_API_KEY", collection.secure),
            Location::Milvus(collection) => ("MILVUS_TOKEN", collection.secure),
            _ => ("", false),
        };
        let variable = self.database_key_env.as_deref().unwrap_or(variable);
        let key =
            Some(variable).filter(|variable| !variable.is_empty()).and_then(|variable| std::env::var(variable).ok());
        let authorities =
            || std::env::var_os("SSL_CERT_FILE").filter(|path| secure && !path.is_empty()).map(PathBuf::from);
        Access {
            key: key.map(|key| key.trim().to_string()).filter(|key| !key.is_empty()),
            authorities: self.ca_file.clone().or_else(authorities),
            timeout: Duration::from_secs(self.database_timeout.unwrap_or(TIMEOUT)),
            breadth: self.search_breadth,
        }
    }
}

/// Parses where vectors are searched.
pub fn location(text: &str) -> Result<Location, String> {
    text.parse()
}

/// What an index of this model and this knowledge base is sealed with, for vectors of this width.
pub fn seal(dataset: &Dataset, features: &Path, model: &Path, width: usize) -> anyhow::Result<Seal> {
    let text = |value: serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let (model, features) = (text(shard::model(model)?), text(shard::features(features)?));
    Ok(Seal::new(model, features, dataset.entities_checksum(), dataset.entities().len(), width))
}
