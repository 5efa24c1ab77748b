//! How a feed is named in one line of text: `kind:path?key=value&key=value`.
//!
//! Bound kept here: a spec is at most [`SPEC_BYTES_MAX`] long, and every key in it is either known or refused by name.

use std::fmt::Display;
use std::str::FromStr;

/// The longest spec that is read, in bytes.
pub const SPEC_BYTES_MAX: usize = 4096;

/// A feed spec, split but not yet understood: the feed of that kind asks for its options by name.
///
/// The path may hold anything but `?`; keys and values anything but `&`, and a key no `=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What comes before the first colon: `capture`, `synthetic`, ...
    pub kind: String,
    /// What stands between the colon and the question mark; may be empty.
    pub path: String,
    /// Keys and values in the order in which they were written; no key stands twice.
    pub options: Vec<(String, String)>,
}

impl Spec {
    /// Splits `text`; the error says what is wrong with it and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SPEC_BYTES_MAX {
            return Err(format!("a feed spec of {} bytes; at most {SPEC_BYTES_MAX} are read", text.len()));
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!("feed spec {text:?} has no colon; expected kind:path?key=value&key=value"));
        };
        if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err(format!(
                "feed kind {kind:?} in {text:?}: expected lower-case letters, digits and dashes"
            ));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() => (key, value),
                _ => return Err(format!("option {pair:?} in feed spec {text:?}: expected key=value")),
            };
            if options.iter().any(|(known, _)| known == key) {
                return Err(format!("option {key:?} stands twice in feed spec {text:?}"));
            }
            options.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self { kind: kind.to_owned(), path: path.to_owned(), options })
    }

    /// Refuses every key that is not among `known`, and says which known one was probably meant.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        let Some((key, _)) = self.options.iter().find(|(key, _)| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let kind = &self.kind;
        if known.is_empty() {
            return Err(format!("unknown option {key:?} of {kind}: it takes none"));
        }
        let meant = nearest(key, known).map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
        Err(format!("unknown option {key:?} of {kind}: {meant}known are {}", known.join(", ")))
    }

    /// The path, where the kind cannot do without one; `what` names it ("the file to replay").
    pub fn path_of(&self, what: &str) -> Result<&str, String> {
        if self.path.is_empty() {
            return Err(format!("{kind}: has no path; expected {kind}:PATH with {what}", kind = self.kind));
        }
        Ok(&self.path)
    }

    /// The value of `key` as it was written.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The value of `key` read by `read`, or `default`; `expected` is what the error says it should have been.
    pub fn read<T>(
        &self,
        key: &str,
        default: T,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, String> {
        let Some(value) = self.text(key) else { return Ok(default) };
        read(value).ok_or_else(|| format!("option {key}={value:?} of {}: expected {expected}", self.kind))
    }

    /// A number from `min` to `max`, or `default`. Limits of a float also keep out infinity and NaN.
    pub fn number<T>(&self, key: &str, default: T, min: T, max: T) -> Result<T, String>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let expected = format!("a number from {min} to {max}");
        self.read(key, default, &expected, |value| value.parse().ok().filter(|n| min <= *n && *n <= max))
    }

    /// `true` or `false`, or `default`.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        self.read(key, default, "true or false", |value| value.parse().ok())
    }

    /// One of the named choices, or `default`.
    pub fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> Result<T, String> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.read(key, default, &format!("one of {}", names.join(", ")), |value| {
            choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice)
        })
    }
}

/// The known word that takes the fewest edits to reach, if that is few enough to be a slip of the hand.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (edits, near) =
        known.iter().map(|near| (edits(word, near), *near)).min_by_key(|(edits, _)| *edits)?;
    (edits <= near.chars().count().div_ceil(3).max(1)).then_some(near)
}

/// How many insertions, deletions and replacements of a character make `b` out of `a` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        Spec::parse(text).expect(text)
    }

    #[test]
    fn a_spec_is_kind_path_and_options() {
        let got = spec("capture:/a b/c:d=e&f.gz?venue=binance&prefix=");
        assert_eq!((got.kind.as_str(), got.path.as_str()), ("capture", "/a b/c:d=e&f.gz"));
        assert_eq!(got.text("venue"), Some("binance"));
        assert_eq!(got.text("prefix"), Some(""));
        assert_eq!(got.text("speed"), None);
        let bare = spec("synthetic:");
        assert_eq!((bare.path.as_str(), bare.options.len()), ("", 0));
        assert_eq!(
            bare.path_of("a file").unwrap_err(),
            "synthetic: has no path; expected synthetic:PATH with a file"
        );
    }

    #[test]
    fn what_is_no_spec_is_named() {
        let wrong = |text: &str| Spec::parse(text).unwrap_err();
        assert!(wrong("capture").contains("has no colon; expected kind:path"));
        assert!(wrong("").contains("has no colon"));
        assert!(wrong(":x").contains("feed kind \"\""));
        assert!(wrong("C:\\x").contains("feed kind \"C\""));
        assert!(wrong("a:b?c").contains("option \"c\""));
        assert!(wrong("a:b?=c").contains("expected key=value"));
        assert!(wrong("a:b?c=1&c=2").contains("option \"c\" stands twice"));
        assert!(wrong(&"a".repeat(SPEC_BYTES_MAX + 1)).contains("at most 4096"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let known = ["venue", "speed", "loop", "prefix"];
        assert_eq!(spec("capture:x?loop=true").only(&known), Ok(()));
        let slip = spec("capture:x?sped=1").only(&known).unwrap_err();
        assert!(slip.contains("unknown option \"sped\" of capture: did you mean \"speed\"?"), "{slip}");
        let other = spec("capture:x?color=1").only(&known).unwrap_err();
        assert!(
            !other.contains("did you mean") && other.contains("known are venue, speed, loop, prefix"),
            "{other}"
        );
        assert!(spec("a:?b=1").only(&[]).unwrap_err().contains("takes none"));
    }

    #[test]
    fn a_bad_value_is_named_with_what_was_expected() {
        let got = spec("synthetic:?n=70000&f=NaN&loop=yes&venue=bnb&ok=7&half=0.5");
        assert_eq!(got.number("ok", 1u16, 0, 9), Ok(7));
        assert_eq!(got.number("none", 3u16, 0, 9), Ok(3));
        assert_eq!(got.number("half", 1.0, 0.01, 1000.0), Ok(0.5));
        let wrong = got.number("n", 1u16, 1, 60_000).unwrap_err();
        assert_eq!(wrong, "option n=\"70000\" of synthetic: expected a number from 1 to 60000");
        assert!(got.number("f", 1.0, 0.0, 2.0).is_err());
        assert!(
            got.flag("loop", false)
                .unwrap_err()
                .contains("loop=\"yes\" of synthetic: expected true or false")
        );
        assert_eq!(got.flag("other", true), Ok(true));
        let venue = got.choice("venue", 0, &[("binance", 1), ("binance-usdm", 2)]).unwrap_err();
        assert!(venue.contains("expected one of binance, binance-usdm"), "{venue}");
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
    }
}
