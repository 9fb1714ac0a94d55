//! Settings of one run against those of another.

use serde::Serialize;
use serde_json::{Map, Value};

/// Names the settings in which two values differ.
pub fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let object = |value: &T| serde_json::to_value(value).ok().and_then(|v| v.as_object().cloned()).unwrap_or_default();
    let (old, new) = (object(old), object(new));
    // What is left out where it has its default is in one of them alone.
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    let of = |object: &Map<String, Value>, key: &str| object.get(key).map_or("the default".into(), Value::to_string);
    let differing = keys.filter(|key| old.get(*key) != new.get(*key));
    let listed = differing.map(|key| format!("{key} was {} and is now {}", of(&old, key), of(&new, key)));
    listed.collect::<Vec<_>>().join(", ")
}
