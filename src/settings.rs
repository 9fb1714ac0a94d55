//! Settings of one run against those of another.

use serde::Serialize;
use serde_json::{Map, Value};

/// Names the settings in which two values differ.
pub fn difference<T: Serialize>(old: &T, new: &T) -> String {
    let object = |value: &T| serde_json::to_value(value).ok().and_then(|v| v.as_object().cloned()).unwrap_or_default();
    let (old, new) = (object(old), object(new));
    // What is left out where it has its default is in one of them alone.
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    let of = |object: &Map<String, Value>, key: &str| object.get(key).map_or("the default".into(), shown);
    let differing = keys.filter(|key| old.get(*key) != new.get(*key));
    let listed = differing.map(|key| format!("{key} was {} and is now {}", of(&old, key), of(&new, key)));
    listed.collect::<Vec<_>>().join(", ")
}

/// A value as it was set: what is a float of 32 bits with as many digits as those need.
fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(wide) if value.is_f64() && f64::from(wide as f32) == wide => (wide as f32).to_string(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_one_of_them_alone_differs_too() {
        assert_eq!(difference(&json!({"k": 4, "seed": 1}), &json!({"k": 4, "seed": 1})), "");
        let said = difference(&json!({"k": 4, "order": "x"}), &json!({"k": 3, "gate": 0.5}));
        let parts =
            ["k was 4 and is now 3", "order was \"x\" and is now the default", "gate was the default and is now 0.5"];
        assert_eq!(said, parts.join(", "));
        let said = difference(&json!({"rate": 1e-4f32, "wide": 0.1}), &json!({"rate": 0.2f32, "wide": 0.3}));
        assert_eq!(said, "rate was 0.0001 and is now 0.2, wide was 0.1 and is now 0.3");
    }
}
