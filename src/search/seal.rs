//! Which model's vectors of which knowledge base an index holds.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The layout of what is stored; another one is not understood.
const FORMAT: u32 = 1;

/// Kept beside vectors wherever they are kept, so that nobody asks them about another model or another knowledge base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    format: u32,
    /// Checksum of the model's file.
    pub model: String,
    /// Checksum of the feature store.
    pub features: String,
    /// Checksum of the entities, in their order.
    pub entities: String,
    /// Number of vectors.
    pub count: usize,
    /// Numbers of a vector.
    pub width: usize,
}

/// What a database keeps of a seal, in one place of its collection.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Mark {
    pub seal: Seal,
    /// All vectors are there.
    pub whole: bool,
    /// Which run of the program fills it: two at a time would mix what they write.
    #[serde(default)]
    pub run: String,
}

/// What is said of a collection that is not there, empty, or not of this program.
pub(super) const ABSENT: &str = "is not there; `fissfuse index push` fills it";
pub(super) const EMPTY: &str = "is empty and has no mark: `fissfuse index push` was stopped before its first vectors, or somebody \
                                else made it";
pub(super) const FOREIGN: &str =
    "is none that FissFuse made: it has no mark of FissFuse; name another collection, or delete this one yourself";

impl Mark {
    /// Of a collection that this run begins to fill.
    pub fn begun(seal: &Seal) -> Mark {
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Mark { seal: seal.clone(), whole: false, run: format!("{:x}-{moment:x}", std::process::id()) }
    }

    /// Fails, with the reason, if what is marked is not what the seal says, or not all of it.
    pub fn expect(&self, seal: &Seal) -> Result<(), String> {
        match seal.difference(&self.seal) {
            Some(difference) => Err(format!(
                "holds an index {difference}; name that one's model, features and dataset, or fill it anew by `fissfuse index push \
                 --replace`"
            )),
            None if !self.whole => {
                Err("is half full: `fissfuse index push` was stopped, or is still at it; run it again".into())
            }
            None => Ok(()),
        }
    }

    /// Whether what is marked has to go before the seal's vectors can take its place; false if it has them already, all of them
    /// as far as the mark knows. Fails, with the reason, if it is of something else, which may not be replaced.
    pub fn is_in_the_way(&self, seal: &Seal, replace: bool) -> Result<bool, String> {
        match seal.difference(&self.seal) {
            None => Ok(!self.whole),
            Some(_) if replace => Ok(true),
            Some(difference) => Err(format!("holds an index {difference}; name another place, or give --replace")),
        }
    }
}

impl Seal {
    /// What is said of an index with another number of vectors than its seal says.
    pub(super) fn miscounted(&self, count: usize) -> String {
        format!("holds {count} vectors instead of {}; fill it anew by `fissfuse index push`", self.count)
    }

    /// Of a model, a feature store and entities, by their checksums, for `count` vectors of `width` numbers.
    pub fn new(model: String, features: String, entities: String, count: usize, width: usize) -> Seal {
        Seal { format: FORMAT, model, features, entities, count, width }
    }

    /// In what an index differs that is sealed otherwise; `None` if it is the same.
    pub fn difference(&self, found: &Seal) -> Option<String> {
        let text = |what: &str, found: &str, wanted: &str| {
            (found != wanted).then(|| format!("of another {what} (checksum {found}, not {wanted})"))
        };
        let number = |what: &str, found: usize, wanted: usize| {
            (found != wanted).then(|| format!("of {found} {what}, not {wanted}"))
        };
        (found.format != self.format)
            .then(|| format!("in layout {}, and this program knows {}", found.format, self.format))
            .or_else(|| text("model", &found.model, &self.model))
            .or_else(|| number("numbers a vector", found.width, self.width))
            .or_else(|| number("entities", found.count, self.count))
            .or_else(|| text("knowledge base", &found.entities, &self.entities))
            .or_else(|| text("feature store", &found.features, &self.features))
    }
}
