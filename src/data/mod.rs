//! Datasets and features on disk, and the batches made of them.

pub mod audit;
mod batching;
mod dataset;
pub mod demo;
mod encoding;
pub mod import;
mod records;
mod store;

pub use batching::{Batcher, Counts, GoldMissing, Item, Sample};
pub use dataset::{Dataset, Entity, Mention, MentionRecord, Skipped, Split, Tolerance};
pub use encoding::{EncodeReport, EncodeSettings, encode};
pub use records::{parse_record, read_records, record_error};
pub use store::{FeatureStore, Kind, Manifest, MissingImage, StoreWriter, image_key, text_key};
