//! Reads the repository: its files, their tokens with lines, and every path that the tokens name.
//!
//! It works on tokens, not on a syntax tree: so it also sees what stands inside of macros.

use std::path::Path;
use std::process::Command;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// A file as it is stored.
pub(super) struct File {
    /// Relative to the repository, with `/`.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

/// A Rust file.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Mark,
    Literal,
    Open,
    Close,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// `::` is one mark; every other mark is one character.
    pub(super) text: String,
    pub(super) line: usize,
    /// Only compiled for tests.
    pub(super) test: bool,
    /// Of an opening bracket: where the closing one is.
    pub(super) mate: usize,
}

/// A path as it is named somewhere: in a `use` (each leaf by itself) or in the middle of code.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) test: bool,
    /// The modules written out in this file around it, such as `tests`.
    pub(super) inside: Vec<String>,
    /// In a `use`; and in a `pub use`.
    pub(super) imported: bool,
    pub(super) exported: bool,
}

/// A finding: where it is, and what to do.
pub(super) fn finding(path: &str, line: usize, text: &str) -> String {
    format!("{path}:{line}: {text}")
}

/// All files that are in the repository or are about to be.
pub(super) fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listing = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git lists the files of the repository");
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let listing = String::from_utf8(listing.stdout).expect("paths are UTF-8");
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    // A file that is deleted but still in the index has nothing to say.
    let files = paths
        .filter_map(|path| Some(File { path: path.into(), bytes: std::fs::read(root.join(path)).ok()? }));
    files.collect()
}

/// All Rust files of the repository.
pub(super) fn rust_files() -> Vec<Source> {
    let mut files = repository();
    files.retain(|file| file.path.ends_with(".rs"));
    let text = |file: &File| String::from_utf8(file.bytes.clone()).expect("Rust is UTF-8");
    files.iter().map(|file| Source::new(&file.path, &text(file))).collect()
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut tokens = Vec::new();
        let test = !is_program(path) || path.contains("/tests/") || path.ends_with("/tests.rs");
        flatten(stream, test, &mut tokens);
        Self { path: path.into(), text: text.into(), tokens }
    }

    /// The token `ahead` of the one at `at`; an empty text past the end.
    pub(super) fn peek(&self, at: usize, ahead: usize) -> &str {
        self.tokens.get(at + ahead).map_or("", |token| token.text.as_str())
    }

    /// The token before the one at `at`.
    pub(super) fn before(&self, at: usize) -> &str {
        at.checked_sub(1).map_or("", |before| self.tokens[before].text.as_str())
    }

    /// Every path that is named, of two segments or more; and everything imported.
    pub(super) fn paths(&self) -> Vec<Named> {
        let (mut found, mut inside) = (Vec::new(), Vec::<(String, usize)>::new());
        let mut at = 0;
        while at < self.tokens.len() {
            inside.retain(|(_, end)| at < *end);
            let token = &self.tokens[at];
            if token.text == "mod" && self.peek(at, 2) == "{" {
                inside.push((self.peek(at, 1).into(), self.tokens[at + 2].mate));
                at += 3;
                continue;
            }
            let imported = token.text == "use" && token.kind == Kind::Word && self.peek(at, 1) != "<";
            let exported = imported && (self.before(at) == "pub" || self.exported_within(at));
            let begin = at + usize::from(imported) + usize::from(imported && self.peek(at, 1) == "::");
            at += 1;
            if !imported && (token.kind != Kind::Word || self.goes_on(begin)) {
                continue;
            }
            let mut leaves = Vec::new();
            at = self.tree(begin, &mut Vec::new(), &mut leaves).max(at);
            leaves.retain(|(path, _)| imported || path.len() > 1);
            let around: Vec<String> = inside.iter().map(|(name, _)| name.clone()).collect();
            found.extend(leaves.into_iter().map(|(path, line)| Named {
                path,
                line,
                test: token.test,
                inside: around.clone(),
                imported,
                exported,
            }));
        }
        found
    }

    /// Whether the word at `at` continues a path or an expression, so that none begins here.
    fn goes_on(&self, at: usize) -> bool {
        match self.before(at) {
            "." => true,
            "::" => at > 1 && (self.tokens[at - 2].kind == Kind::Word || self.tokens[at - 2].text == ">"),
            _ => false,
        }
    }

    /// Whether a `use` is preceded by `pub(..)`.
    fn exported_within(&self, at: usize) -> bool {
        let close = at.wrapping_sub(1);
        let open = self.tokens[..at].iter().rposition(|token| token.mate == close && token.text == "(");
        self.before(at) == ")" && open.is_some_and(|open| self.before(open) == "pub")
    }

    /// The leaves of the tree of paths at `at`; returns where it ends.
    fn tree(&self, mut at: usize, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, usize)>) -> usize {
        while let Some(token) = self.tokens.get(at) {
            let line = token.line;
            match (token.kind, token.text.as_str()) {
                (Kind::Word, "self") if !path.is_empty() && self.peek(at, 1) != "::" => {
                    leaves.push((path.clone(), line));
                    return self.skip_alias(at + 1);
                }
                (Kind::Word, word) => {
                    path.push(word.into());
                    at += 1;
                    if self.peek(at, 0) == "::" {
                        at += 1;
                        continue;
                    }
                    leaves.push((path.clone(), line));
                    return self.skip_alias(at);
                }
                (Kind::Open, "{") => {
                    let end = token.mate;
                    at += 1;
                    while at < end {
                        let comma = self.peek(at, 0) == ",";
                        at =
                            if comma { at + 1 } else { self.tree(at, &mut path.clone(), leaves).max(at + 1) };
                    }
                    return end + 1;
                }
                (Kind::Mark, "*") => {
                    path.push("*".into());
                    leaves.push((path.clone(), line));
                    return at + 1;
                }
                // Type arguments: `Vec::<u8>::new` has said enough with `Vec`.
                _ => {
                    if path.len() > 1 {
                        leaves.push((path.clone(), line));
                    }
                    return at;
                }
            }
        }
        at
    }

    fn skip_alias(&self, at: usize) -> usize {
        if self.peek(at, 0) == "as" && self.tokens.get(at + 1).is_some_and(|t| t.kind == Kind::Word) {
            at + 2
        } else {
            at
        }
    }
}

/// What is built for users, as opposed to tests and benchmarks.
pub(super) fn is_program(path: &str) -> bool {
    path.starts_with("src/") || path.starts_with("feeds/src/")
}

fn flatten(stream: TokenStream, test: bool, out: &mut Vec<Token>) {
    let push = |out: &mut Vec<Token>, kind, text: String, line, test| {
        out.push(Token { kind, text, line, test, mate: usize::MAX });
    };
    let mut item_is_test = false;
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let only_test = test || item_is_test;
        match tree {
            TokenTree::Ident(word) => push(out, Kind::Word, word.to_string(), line, only_test),
            TokenTree::Literal(literal) => push(out, Kind::Literal, literal.to_string(), line, only_test),
            TokenTree::Punct(mark) => {
                let double = mark.as_char() == ':'
                    && mark.spacing() == Spacing::Joint
                    && matches!(trees.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                if double {
                    trees.next();
                }
                let text = if double { "::".into() } else { mark.as_char().to_string() };
                push(out, Kind::Mark, text, line, only_test);
                if mark.as_char() == '#'
                    && let Some(TokenTree::Group(attribute)) = trees.peek()
                {
                    let attribute = attribute.stream().to_string().replace(' ', "");
                    item_is_test |= attribute == "cfg(test)" || attribute.starts_with("cfg(all(test,");
                }
                // An item ends with its semicolon or its braces.
                item_is_test &= mark.as_char() != ';';
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                let begin = out.len();
                push(out, Kind::Open, open.into(), group.span_open().start().line, only_test);
                flatten(group.stream(), only_test, out);
                out[begin].mate = out.len();
                push(out, Kind::Close, close.into(), group.span_close().start().line, only_test);
                item_is_test &= group.delimiter() != Delimiter::Brace;
            }
        }
    }
}

#[test]
fn paths_are_seen_in_imports_macros_and_code() {
    let source = Source::new(
        "src/a.rs",
        "pub(crate) use a::{self, b::{C as D, e::*}};
         mod inner { fn f() { say!(crate::x::y(1), super::z); Vec::<u8>::new(); value.method(); } }
         #[cfg(test)] mod tests { use super::*; }
         fn g() -> impl Iterator + use<> { ::std::iter::empty() }",
    );
    let paths = source.paths();
    let seen: Vec<String> = paths.iter().map(|named| named.path.join("::")).collect();
    let expected = ["a", "a::b::C", "a::b::e::*", "crate::x::y", "super::z", "super::*", "std::iter::empty"];
    assert_eq!(seen, expected);
    assert!(paths[0].exported && paths[3].inside == ["inner"] && !paths[3].imported);
    assert!(paths[5].test && paths[5].inside == ["tests"] && !paths[6].test);
}
