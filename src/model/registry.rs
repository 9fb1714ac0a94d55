//! All networks by name.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::baselines::{Bert, Blink, Clip, ClipProjected, Drin, Dzmned, Ghmfc, Jmel, MelHi, Mimic};
use super::fissfuse::FissFuse;
use super::network::Network;

/// All networks, in the order of the tables.
pub static NETWORKS: [&dyn Network; 11] =
    [&Bert, &Blink, &Clip, &ClipProjected, &Dzmned, &Jmel, &MelHi, &Ghmfc, &Drin, &Mimic, &FissFuse];

/// One of [`NETWORKS`]; in files its name.
#[derive(Clone, Copy)]
pub struct Architecture(&'static dyn Network);

impl Architecture {
    /// The network of that name.
    pub fn named(name: &str) -> Option<Architecture> {
        NETWORKS.iter().find(|network| network.name() == name).map(|&network| Architecture(network))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Architecture> {
        NETWORKS.iter().map(|&network| Architecture(network))
    }
}

impl std::ops::Deref for Architecture {
    type Target = dyn Network;

    fn deref(&self) -> &(dyn Network + 'static) {
        self.0
    }
}

impl Default for Architecture {
    /// FissFuse.
    fn default() -> Architecture {
        Architecture(&FissFuse)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Architecture) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Architecture {}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Architecture, String> {
        Architecture::named(name).ok_or_else(|| {
            let names: Vec<&str> = NETWORKS.iter().map(|network| network.name()).collect();
            format!("there is no model `{name}`; there are {}", names.join(", "))
        })
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Architecture, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
