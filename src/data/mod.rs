//! Datasets and features on disk, and the batches made of them.

pub mod audit;
mod batching;
mod dataset;
pub mod demo;
mod encoding;
mod growth;
pub mod import;
mod inputs;
mod paths;
mod protocol;
mod records;
mod run;
mod store;
mod tolerance;

pub use batching::{Batcher, Counts, GoldMissing, Item, Sample};
pub use dataset::{Dataset, Entity, Mention, MentionRecord, Split};
pub use encoding::{Distinct, EncodeReport, EncodeSettings, Items, blank, encode};
pub use growth::add_entities;
pub use inputs::{Image, InputBatch, Inputs};
pub use paths::relative;
pub use protocol::Protocol;
pub use records::{Line, next_line, parse_record, parse_records, read_records, record_error};
pub use run::{Failed, Ranking, Run, RunFile};
pub use store::{
    Checked, FeatureStore, Joined, Kind, Manifest, MissingImage, Stamp, StoreWriter, image_key, stamp_of, text_key,
};
pub use store::{check as check_store, files as store_files, fingerprint as store_fingerprint, join as join_stores};
pub use tolerance::{Skipped, Tolerance};
