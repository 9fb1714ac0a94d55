//! Settings of the environment that are on or off.

use crate::error::{Error, Result};

/// Whether a variable says `on` or `off`; where it is not set or empty it is `unset`. Fails if it says something else.
pub fn is_on(variable: &str, unset: bool) -> Result<bool> {
    match std::env::var_os(variable) {
        None => Ok(unset),
        Some(value) if value.is_empty() => Ok(unset),
        Some(value) if value == "on" => Ok(true),
        Some(value) if value == "off" => Ok(false),
        Some(value) => {
            let [usual, other] = if unset { ["on", "off"] } else { ["off", "on"] };
            Err(Error::invalid(format!("{variable} is {value:?}; it is {usual}, as where it is not set, or {other}")))
        }
    }
}
