//! A server's URL: what it must be, and what of it may be shown.

use ureq::http::Uri;

use crate::error::{Error, Result};

/// Of the chat completions, under a base URL.
const PATH: &str = "/chat/completions";

/// Where chat completions are asked for.
pub struct Address {
    /// The URL that is called.
    pub url: String,
    /// The URL without its query, which may hold a secret.
    pub shown: String,
    /// What stands behind the question mark, if there is one.
    pub query: String,
}

impl Address {
    /// Of a base URL, or of the chat completions themselves.
    ///
    /// Fails if it is none, or one that another place would be called by than the one it names.
    pub fn new(url: &str) -> Result<Address> {
        let refuse = |reason: &str| Err(Error::invalid(format!("--endpoint: {reason}")));
        let Ok(uri) = url.parse::<Uri>() else {
            return refuse("is no URL; give one like http://localhost:8000/v1");
        };
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refuse("needs a URL that begins with http:// or https://");
        };
        if authority.as_str().contains('@') {
            return refuse("holds a name or password; give the key by an environment variable instead");
        }
        if authority.host().is_empty() {
            return refuse("names no host; give a URL like http://localhost:8000/v1");
        }
        let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
        if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
            return refuse("has a port that is no number from 1 to 65535");
        }
        if url.contains('#') {
            return refuse("has a part behind `#`, which is sent to no server; leave it out");
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let base = base.trim_end_matches('/');
        let shown = if base.ends_with(PATH) { base.to_string() } else { format!("{base}{PATH}") };
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(Address { url: format!("{shown}{mark}{query}"), shown, query: query.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_called_as_they_are_meant_or_refused() {
        for (url, called, shown) in [
            ("http://x/v1/", "http://x/v1/chat/completions", "http://x/v1/chat/completions"),
            ("https://x:65535?key=1", "https://x:65535/chat/completions?key=1", "https://x:65535/chat/completions"),
            (
                "http://[::1]:80/chat/completions?",
                "http://[::1]:80/chat/completions",
                "http://[::1]:80/chat/completions",
            ),
        ] {
            let address = Address::new(url).unwrap();
            assert_eq!((&address.url[..], &address.shown[..]), (called, shown));
        }
        for (url, says) in [
            ("nowhere", "http://"),
            ("ftp://x/v1", "http://"),
            ("http://me:pw@x/v1", "password"),
            ("", "URL"),
            ("http://:80/v1", "host"),
            ("http://x:70000/v1", "65535"),
            ("http://x:0/v1", "65535"),
            ("http://x:/v1", "65535"),
            ("http://[::1]:65536", "65535"),
            ("http://x/v1#part", "`#`"),
        ] {
            let error = Address::new(url).err().expect(url).to_string();
            assert!(error.contains(says) && !error.contains("pw@"), "{url}: {error}");
        }
    }
}
