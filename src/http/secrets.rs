//! What must not be seen, should a server repeat it: the key, and what else is one by its name.

use std::cmp::Reverse;

use percent_encoding::percent_decode_str;

/// Shortest beginning of a secret that gives it away, wherever it stands.
const TELLING: usize = 8;

/// Shortest secret that is hidden, where it stands as a word of its own. What is shorter is a letter or a number of an answer.
const WORD: usize = 4;

/// First words of `Authorization` that are no secret.
const SCHEMES: [&str; 5] = ["Bearer", "Basic", "Digest", "Token", "ApiKey"];

/// Stands where a secret was.
const HIDDEN: &str = "***";

/// Texts that are kept and printed nowhere.
#[derive(Clone)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Of a key, and of headers' and query's names and values: what a value of a telling name holds, as a whole and part by
    /// part, where it is too long to be a word of an answer.
    pub fn new<'a>(key: Option<&'a str>, named: impl Iterator<Item = (&'a str, &'a str)>) -> Secrets {
        let mut all: Vec<String> = key.into_iter().map(String::from).collect();
        for (_, value) in named.filter(|(name, _)| admits(name)) {
            // What stands in a query may come back decoded.
            let decoded = percent_decode_str(value).decode_utf8_lossy();
            all.extend([value, &decoded].into_iter().flat_map(parts));
        }
        all.retain(|secret| secret.chars().count() >= WORD);
        // A part must not be hidden before what it is a part of, of which the rest would stay.
        all.sort_by_key(|secret| Reverse(secret.len()));
        all.dedup();
        Secrets(all)
    }

    /// The text without the secrets and without their beginnings.
    pub fn redacted(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| redacted(&text, secret))
    }
}

/// Whether what has this name is a secret.
fn admits(name: &str) -> bool {
    let name = name.to_lowercase();
    ["auth", "key", "token", "secret", "cookie", "passw", "credential", "signature"].iter().any(|w| name.contains(w))
}

/// What of a value may be repeated: the whole behind a scheme such as `Bearer`, each of `name=value; name=value`, and the
/// values of these.
fn parts(value: &str) -> Vec<String> {
    let value = value.trim();
    let whole = match value.split_once(' ') {
        Some((scheme, rest)) if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest.trim(),
        _ => value,
    };
    let pairs = whole.split([' ', '\t', ';', ',']);
    let values = pairs.clone().filter_map(|pair| Some(pair.split_once('=')?.1));
    let bare = |part: &str| part.trim_matches(['"', '\'']).to_string();
    [whole].into_iter().chain(pairs).chain(values).map(bare).collect()
}

fn redacted(text: &str, secret: &str) -> String {
    let least = secret.char_indices().nth(TELLING).map_or(secret.len(), |(at, _)| at);
    let anywhere = secret.chars().count() >= TELLING;
    let (start, mut rest, mut out) = (&secret[..least], text, String::with_capacity(text.len()));
    while let Some(at) = rest.find(start) {
        let same = rest[at..].chars().zip(secret.chars()).take_while(|(a, b)| a == b);
        let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
        let (before, found) = rest.split_at(at);
        let (found, after) = found.split_at(length);
        let joined = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
        let within_a_word = joined(out.chars().chain(before.chars()).next_back()) || joined(after.chars().next());
        out += before;
        out += if within_a_word && !anywhere { found } else { HIDDEN };
        rest = after;
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
            ("X-Secret", "k1ng"),
            ("X-Session-Key", "abc"),
            ("X-Auth", ""),
            ("Cookie", "session=abcdefghij; other=\"klmnopqrst\", z=1"),
            ("X-Password", "correct horse battery staple"),
            ("sig-token", "to%2Bmorrow%3D"),
        ];
        let secrets = Secrets::new(Some("sk-precious-key"), named.into_iter());
        let hidden = |text: &str| secrets.redacted(text.into());
        assert_eq!(hidden("key sk-precious-key, again sk-preci... and sk-pre"), "key ***, again ***... and sk-pre");
        assert_eq!(hidden("token-of-mine, in-the-query"), "***, ***");
        assert_eq!(hidden("abcdefghij klmnopqrst, other=\"klmn, z=1"), "*** ***, ***, z=1");
        assert_eq!(hidden("correct horse battery staple, to+morrow="), "***, ***");
        // What is short is hidden as a word alone, and what is shorter not at all.
        assert_eq!(
            hidden("k1ng, \"k1ng\" (k1ng) k1ngdom, ak1ng, K1NG, k1ngk1ng k1ng"),
            "***, \"***\" (***) k1ngdom, ak1ng, K1NG, k1ngk1ng ***"
        );
        assert_eq!(hidden("abc, other=z, no Bearer"), "abc, other=z, no Bearer");
        let short = |key: &str, text: &str| Secrets::new(Some(key), [].into_iter()).redacted(text.into());
        assert_eq!(
            (short("x", "x: Alex"), short("EMPTY", "EMPTY, EMPTYING")),
            ("x: Alex".into(), "***, EMPTYING".into())
        );
        // An answer is read as it was given.
        assert_eq!(hidden("B, the president-of-it"), "B, the president-of-it");
        assert_eq!(hidden("sk-precisk-precious-key"), "******");
        assert_eq!(hidden("nothing"), "nothing");
    }
}
