//! What every file owes its reader: a first line, no giving up, no silence without a reason.

use super::source::{Kind, Source, finding};

/// The `expect`s of the program: each states an invariant that no input can break.
pub(super) const INVARIANTS: &[(&str, &str)] =
    &[("src/base/histogram.rs", "\"the bounds are valid constants\"")];

/// Files that do not open with `//!`.
pub(super) fn without_header(sources: &[Source]) -> Vec<String> {
    let silent = sources.iter().filter(|source| {
        let first = source.text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|text| text.trim().is_empty())
    });
    silent
        .map(|source| finding(&source.path, 1, "open with `//!`: what the file owns, which bound it keeps"))
        .collect()
}

/// Outside of tests: what ends the process instead of saying what is wrong.
pub(super) fn giving_up(sources: &[Source], invariants: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut used = vec![false; invariants.len()];
    for source in sources {
        // A parser may have an `expect` of its own.
        let own_expect =
            (0..source.tokens.len()).any(|at| source.peek(at, 0) == "fn" && source.peek(at, 1) == "expect");
        for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.test) {
            let called = source.before(at) == "." && source.peek(at, 1) == "(";
            let invoked = source.peek(at, 1) == "!";
            let fix = match token.text.as_str() {
                _ if token.kind != Kind::Word => continue,
                "unwrap" | "unwrap_err" | "expect_err" | "unwrap_unchecked" if called => {
                    "handle it, or `expect` with the invariant that makes it impossible"
                }
                "todo" | "unimplemented" | "dbg" | "panic" | "unreachable" if invoked => {
                    "return an error; a gateway does not fall over"
                }
                "expect" if called && !own_expect => {
                    let message = source.peek(at, 2);
                    match invariants.iter().position(|known| *known == (source.path.as_str(), message)) {
                        Some(known) => {
                            used[known] = true;
                            continue;
                        }
                        None => "list its message in tests/tidy/manners.rs, if it states an invariant",
                    }
                }
                _ => continue,
            };
            findings.push(finding(&source.path, token.line, &format!("`{}`: {fix}", token.text)));
        }
    }
    for ((file, message), _) in invariants.iter().zip(used).filter(|(_, used)| !used) {
        findings.push(finding(
            file,
            1,
            &format!("does not expect {message} any more: remove it from the list"),
        ));
    }
    findings
}

/// Tests that do not run, and lints silenced without a reason.
pub(super) fn silenced(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for (at, token) in source.tokens.iter().enumerate() {
            let begins =
                source.before(at) == "#" || (source.before(at) == "!" && source.before(at - 1) == "#");
            if token.text != "[" || !begins {
                continue;
            }
            let attribute = &source.tokens[at..token.mate.min(source.tokens.len())];
            let has =
                |word: &str| attribute.iter().any(|token| token.kind == Kind::Word && token.text == word);
            let mut say = |text: &str| findings.push(finding(&source.path, token.line, text));
            if has("ignore") {
                say("a test that is ignored tests nothing: run it or delete it");
            }
            if (has("allow") || has("expect")) && !has("reason") {
                say("a lint is silenced: say why with `reason = \"..\"`");
            }
        }
    }
    findings
}

#[test]
fn bad_manners_are_found() {
    let source = |text: &str| [Source::new("src/a.rs", text)];
    for (text, count) in
        [("//! Owns x.\nfn f() {}", 0), ("// x\n", 1), ("fn f() {}", 1), ("\n//! x", 1), ("//! ", 1)]
    {
        assert_eq!(without_header(&source(text)).len(), count, "{text:?}");
    }
    let invariants = [("src/a.rs", "\"a constant\"")];
    for (text, count) in [
        ("fn f() { a.expect(\"a constant\"); }", 0),
        (
            "fn f() { a.expect(\"a constant\"); } #[cfg(test)] mod tests { fn f() { a.unwrap(); panic!() } }",
            0,
        ),
        ("fn f() { a.expect(\"a constant\"); a.unwrap_or_default(); \"panic!\"; resume_unwind(panic) }", 0),
        ("fn f() {}", 1),
        ("fn f() { a.expect(\"a constant\"); a.expect(\"hope\"); }", 1),
        ("fn f() { a.expect(\"a constant\"); a.unwrap(); }", 1),
        ("fn f() { a.expect(\"a constant\"); say!(a.unwrap()); todo!(); std::panic!(\"x\"); dbg!(a) }", 4),
        ("fn g() { a.expect(\"a constant\"); } #[cfg(test)] const A: u8 = 1; fn f() { unimplemented!() }", 1),
    ] {
        assert_eq!(giving_up(&source(text), &invariants).len(), count, "{text}");
    }
    assert_eq!(giving_up(&source("impl S { fn expect(&self) { self.expect(b\"x\") } }"), &[]).len(), 0);
    for (text, count) in [
        ("#[allow(dead_code, reason = \"x\")] fn f() {}", 0),
        ("#[test] fn ignore() { a.expect(\"x\"); vec![allow]; }", 0),
        ("#[allow(dead_code)] fn f() {}", 1),
        ("#![expect(dead_code)]", 1),
        ("#[cfg_attr(test, allow(dead_code))] fn f() {}", 1),
        ("#[cfg(test)] mod tests { #[test] #[ignore] fn f() {} }", 1),
        ("#[test] #[ignore = \"slow\"] fn f() {}", 1),
    ] {
        assert_eq!(silenced(&source(text)).len(), count, "{text}");
    }
}
