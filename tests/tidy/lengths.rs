//! How long a file and a function may be.

use super::source::{File, Source, finding};

/// Lines of a file, without and with its own tests.
const FILE_LINES_MAX: usize = 800;
const FILE_WITH_TESTS_LINES_MAX: usize = 900;
/// Lines of a function, from `fn` to its last brace.
const FUNCTION_LINES_MAX: usize = 80;

/// The functions that are longer, with their lines. A number here may only shrink, and no function may join.
pub(super) const LONG: &[(&str, &str, usize)] = &[];

/// Files that are too long to be read in one go.
pub(super) fn long_files(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let all = source.text.lines().count();
        let mut tests: Vec<usize> = source.tokens.iter().filter(|t| t.test).map(|token| token.line).collect();
        tests.sort_unstable();
        let tests = tests.last().zip(tests.first()).map_or(0, |(last, first)| last - first + 1);
        let (is, may) = match all.saturating_sub(tests) {
            program if program > FILE_LINES_MAX => (program, FILE_LINES_MAX),
            _ if all > FILE_WITH_TESTS_LINES_MAX => (all, FILE_WITH_TESTS_LINES_MAX),
            _ => continue,
        };
        findings.push(finding(&source.path, 1, &format!("{is} lines, at most {may}: make a folder of it")));
    }
    findings
}

/// The same for what is not Rust.
pub(super) fn long_scripts(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let is_code =
            [".py", ".js", ".mjs", ".ts", ".css", ".sh"].iter().any(|ending| file.path.ends_with(ending));
        let lines = file.bytes.iter().filter(|byte| **byte == b'\n').count();
        if is_code && lines > FILE_WITH_TESTS_LINES_MAX {
            let text = format!("{lines} lines, at most {FILE_WITH_TESTS_LINES_MAX}: split it");
            findings.push(finding(&file.path, 1, &text));
        }
    }
    findings
}

/// Functions longer than they may be; and entries of the list that could be smaller.
pub(super) fn long_functions(sources: &[Source], known: &[(&str, &str, usize)]) -> Vec<String> {
    let (mut findings, mut used) = (Vec::new(), vec![false; known.len()]);
    for source in sources {
        for (name, line, lines) in functions(source) {
            let entry = known.iter().position(|(path, known, _)| *path == source.path && *known == name);
            let may = entry.map_or(FUNCTION_LINES_MAX, |entry| known[entry].2);
            let text = match entry {
                _ if lines > may => format!("`{name}` has {lines} lines, at most {may}: name its parts"),
                Some(_) if lines < may => format!("`{name}` has only {lines} lines: write that in the list"),
                _ => String::new(),
            };
            if let Some(entry) = entry {
                used[entry] = true;
            }
            if !text.is_empty() {
                findings.push(finding(&source.path, line, &text));
            }
        }
    }
    for ((path, name, _), _) in known.iter().zip(used).filter(|(_, used)| !used) {
        findings.push(finding(path, 1, &format!("there is no `{name}` any more: remove it from the list")));
    }
    findings
}

/// Name, line and lines of every function with a body.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.text != "fn" || source.peek(at, 2).is_empty() || source.peek(at, 1) == "(" {
            continue;
        }
        // The body is the first brace that is not inside of other brackets.
        let mut next = at + 2;
        while let Some(here) = source.tokens.get(next) {
            match here.text.as_str() {
                "{" => {
                    let end = source.tokens[here.mate].line;
                    found.push((source.peek(at, 1).into(), token.line, end - token.line + 1));
                    break;
                }
                ";" | "}" => break,
                "(" | "[" => next = here.mate + 1,
                _ => next += 1,
            }
        }
    }
    found
}

#[test]
fn what_is_too_long_is_found() {
    let source = |text: &str| [Source::new("src/a.rs", text)];
    let lines = |count: usize| "const A: u8 = 1;\n".repeat(count);
    for (program, tests, count) in [(800, 0, 0), (801, 0, 1), (700, 150, 0), (700, 250, 1)] {
        let text = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(program), lines(tests));
        assert_eq!(long_files(&source(&text)).len(), count, "{program} and {tests}");
    }
    let script = |path: &str| [File { path: path.into(), bytes: "\n".repeat(901).into() }];
    assert_eq!((long_scripts(&script("a.py")).len(), long_scripts(&script("a.json")).len()), (1, 0));
    let function = |lines: usize| {
        format!("trait T {{ fn a(&self) -> [u8; 3]; fn f(&self) {{{}}} }}", "\n".repeat(lines - 1))
    };
    for (lines, known, count) in
        [(80, None, 0), (81, None, 1), (90, Some(90), 0), (91, Some(90), 1), (89, Some(90), 1)]
    {
        let known: Vec<_> = known.map(|lines| ("src/a.rs", "f", lines)).into_iter().collect();
        assert_eq!(long_functions(&source(&function(lines)), &known).len(), count, "{lines}, {known:?}");
    }
    assert_eq!(long_functions(&source(""), &[("src/a.rs", "gone", 90)]).len(), 1);
}
