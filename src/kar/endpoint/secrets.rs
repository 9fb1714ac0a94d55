//! What must not be seen: the key and the headers' values, should a server repeat them.

/// Shortest beginning of a secret that gives it away.
const TELLING: usize = 8;

/// Stands where a secret was.
const HIDDEN: &str = "***";

/// Texts that are kept and printed nowhere.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Of a key and the values of headers.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Secrets {
        // A value such as `Bearer KEY` hides what stands behind its scheme.
        let of = |value: &'a str| value.rsplit(' ').next().filter(|value| !value.is_empty()).map(String::from);
        Secrets(values.filter_map(of).collect())
    }

    /// The text without the secrets and without their beginnings.
    pub fn redacted(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| redacted(&text, secret))
    }
}

fn redacted(text: &str, secret: &str) -> String {
    let least = secret.char_indices().nth(TELLING).map_or(secret.len(), |(at, _)| at);
    let (start, mut rest, mut out) = (&secret[..least], text, String::with_capacity(text.len()));
    while let Some(at) = rest.find(start) {
        let same = rest[at..].chars().zip(secret.chars()).take_while(|(a, b)| a == b);
        let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
        out += &rest[..at];
        out += HIDDEN;
        rest = &rest[at + length..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_its_beginnings_are_hidden() {
        let secrets = Secrets::new(["sk-precious-key", "Bearer token-of-mine", "short", ""].into_iter());
        let hidden = |text: &str| secrets.redacted(text.into());
        assert_eq!(hidden("key sk-precious-key, again sk-preci... and sk-pre"), "key ***, again ***... and sk-pre");
        assert_eq!(hidden("token-of-mine, short, shor"), "***, ***, shor");
        assert_eq!(hidden("sk-precisk-precious-key"), "******");
        assert_eq!(hidden("nothing"), "nothing");
    }
}
