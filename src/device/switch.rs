//! Settings of the environment that are on or off.

use crate::error::{Error, Result};

/// Whether a variable says `on`, as where it is not set or empty, or `off`. Fails if it says something else.
pub fn is_on(variable: &str) -> Result<bool> {
    match std::env::var_os(variable) {
        None => Ok(true),
        Some(value) if value.is_empty() || value == "on" => Ok(true),
        Some(value) if value == "off" => Ok(false),
        Some(value) => {
            Err(Error::invalid(format!("{variable} is {value:?}; it is on, as where it is not set, or off")))
        }
    }
}
