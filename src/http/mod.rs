//! What clients of HTTP servers share: an agent, certificates, when to call again, and what must not be shown.

pub mod certificates;
pub mod retry;
mod secrets;

use std::path::Path;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::TlsConfig;

pub use secrets::Secrets;

use crate::error::Result;

/// What makes calls: none takes longer than this, and redirects are not followed, since they could carry a key elsewhere. Servers
/// are believed by the authorities of a file, or by Mozilla's. Proxies are those of the environment.
///
/// Fails if the file holds no certificates.
pub fn agent(timeout: Duration, authorities: Option<&Path>) -> Result<Agent> {
    let tls = match authorities {
        Some(path) => TlsConfig::builder().root_certs(certificates::authorities(path)?).build(),
        None => TlsConfig::default(),
    };
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build();
    Ok(config.into())
}

/// Where a redirect leads, without what may be a secret in it: query, fragment, name and password.
pub fn shown_target(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = path.split_once("//").filter(|(scheme, _)| scheme.is_empty() || scheme.ends_with(':'))
    else {
        return path.to_string();
    };
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}//{}", &rest[authority.rfind('@').map_or(0, |at| at + 1)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_redirect_is_shown_without_secrets() {
        for (location, shown) in [
            ("https://me:pw@x/v2?key=1#k", "https://x/v2"),
            ("//pw@x/v2", "//x/v2"),
            ("/v2/a@b?key=1", "/v2/a@b"),
            ("/v2//a@b", "/v2//a@b"),
            ("", ""),
        ] {
            assert_eq!(shown_target(location), shown);
        }
    }
}
