//! By which certificates a server is believed, and what it means when it is not.

use std::path::Path;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::error::{Error, Result};
use crate::files;

/// The certificates of a file.
pub fn authorities(path: &Path) -> Result<RootCerts> {
    let bytes = files::read_or_stream(path)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(Error::file(path, format!("is no file of certificates in PEM: {e}"))),
        }
    }
    if certificates.is_empty() {
        return Err(Error::file(path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// What to do about a server's certificate that is refused in these words, where a file of authorities was read or not.
pub fn advice(refusal: &str, authorities: Option<&Path>) -> String {
    if refusal.contains("CaUsedAsEndEntity") {
        return "the server shows an authority's certificate (CA:TRUE) as its own, which no --ca-file helps against; give \
                the server one of its own (CA:FALSE), signed by that authority, and the authority's to --ca-file"
            .into();
    }
    if ["Expired", "expired", "NotValidYet", "not valid yet"].iter().any(|word| refusal.contains(word)) {
        return "let the server have a new one, or set this computer's clock".into();
    }
    if refusal.contains("NotValidForName") || refusal.contains("not valid for name") {
        return "it is another host's: name the host as the certificate does".into();
    }
    match authorities {
        Some(path) => format!("is its authority's certificate in {}?", path.display()),
        None => "if it is your organisation's own, give its authority's certificate by --ca-file FILE or SSL_CERT_FILE"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_what_is_wrong_with_a_certificate() {
        let file = Some(Path::new("ca.pem"));
        for (refusal, authorities, says) in [
            ("Other(OtherError(CaUsedAsEndEntity))", file, "CA:FALSE"),
            ("certificate expired: verification time 2", None, "clock"),
            ("certificate not valid for name \"x\"; certificate is only valid for y", file, "name the host"),
            ("UnknownIssuer", file, "in ca.pem?"),
            ("UnknownIssuer", None, "by --ca-file FILE"),
        ] {
            let advice = advice(refusal, authorities);
            assert!(advice.contains(says), "{refusal}: {advice}");
        }
    }
}
