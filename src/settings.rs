//! Settings of one run against those of another.

use serde::Serialize;

/// Names the settings in which two values differ.
pub fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let object = |value: &T| serde_json::to_value(value).ok().and_then(|v| v.as_object().cloned()).unwrap_or_default();
    let (old, new) = (object(old), object(new));
    let differing = old.iter().filter(|(key, value)| new.get(*key) != Some(value));
    let listed = differing.map(|(key, value)| format!("{key} was {value} and is now {}", new[key]));
    listed.collect::<Vec<_>>().join(", ")
}
