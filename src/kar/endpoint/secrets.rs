//! What must not be seen, should a server repeat it: the key, and what else is one by its name.

/// Shortest beginning of a secret that gives it away.
const TELLING: usize = 8;

/// Stands where a secret was.
const HIDDEN: &str = "***";

/// Texts that are kept and printed nowhere.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Of a key, and of headers' and query's names and values: those that may admit to something, and are too long to be
    /// words of an answer.
    pub fn new<'a>(key: Option<&'a str>, named: impl Iterator<Item = (&'a str, &'a str)>) -> Secrets {
        let admits = |name: &str| {
            let name = name.to_lowercase();
            ["auth", "key", "token", "secret", "cookie", "passw", "credential", "signature"]
                .iter()
                .any(|w| name.contains(w))
        };
        // A value such as `Bearer KEY` hides what stands behind its scheme.
        let value = |(_, value): (&str, &'a str)| value.rsplit(' ').next().unwrap_or_default();
        let named = named.filter(|(name, _)| admits(name)).map(value).filter(|value| value.chars().count() >= TELLING);
        Secrets(key.into_iter().filter(|key| !key.is_empty()).chain(named).map(String::from).collect())
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
        let named = [
            ("Authorization", "Bearer token-of-mine"),
            ("api-key", "in-the-query"),
            ("X-Team", "president-of-it"),
            ("X-Token", "B"),
            ("X-Auth", ""),
        ];
        let secrets = Secrets::new(Some("sk-precious-key"), named.into_iter());
        let hidden = |text: &str| secrets.redacted(text.into());
        assert_eq!(hidden("key sk-precious-key, again sk-preci... and sk-pre"), "key ***, again ***... and sk-pre");
        assert_eq!(hidden("token-of-mine, in-the-query"), "***, ***");
        // An answer is read as it was given.
        assert_eq!(hidden("B, the president-of-it"), "B, the president-of-it");
        assert_eq!(hidden("sk-precisk-precious-key"), "******");
        assert_eq!(hidden("nothing"), "nothing");
    }
}
