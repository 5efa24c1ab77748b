//! What every tracked file keeps: no path of somebody's machine, no registry's host, clean ends, a modest size.

use super::source::{File, finding};

/// The largest file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Files that are larger, and why.
const LARGE: &[(&str, &str)] = &[];
/// Lock files name registries: that is what they are for.
const LOCKS: &[&str] = &["Cargo.lock", "package-lock.json"];
/// Folders that exist on one machine only.
const MACHINE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Where packages come from is the machine's to say.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("py", "pi.org"),
    concat!("pythonhosted", ".org"),
    concat!("registry", ".npm"),
    concat!("npmjs", ".org"),
    concat!("deb.", "debian"),
];

/// What is not as it should be.
pub(super) fn untidy(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let mut say = |line: usize, text: &str| findings.push(finding(&file.path, line, text));
        let known = LARGE.iter().any(|(path, _)| *path == file.path);
        if file.bytes.len() > FILE_BYTES_MAX && !known {
            say(1, "larger than 1 MiB: make it smaller, or list it with a reason");
        }
        let Ok(text) = std::str::from_utf8(&file.bytes) else { continue };
        if text.contains('\0') {
            continue;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            say(text.lines().count(), "the last line has no end");
        }
        let is_lock = LOCKS.iter().any(|lock| file.path.ends_with(lock));
        for (line, text) in text.split('\n').enumerate().map(|(at, text)| (at + 1, text)) {
            if text.ends_with([' ', '\t', '\r']) {
                say(line, "white space at the end of the line");
            }
            if MACHINE.iter().any(|path| is_absolute(text, path)) {
                say(line, "a path of one machine: make it relative or an argument");
            }
            if !is_lock && REGISTRIES.iter().any(|host| text.contains(host)) {
                say(line, "a package registry's host: the machine's settings name it");
            }
        }
    }
    findings
}

/// Modules that the tree of `docs/architecture.md` does not name: `paths` are all files in Rust. What the client's programs
/// are made of, and tests, need not be there.
pub(super) fn not_in_tree<'a>(paths: impl IntoIterator<Item = &'a str>, prose: &str) -> Vec<String> {
    let tree = prose.split_once("## The tree").map_or("", |(_, rest)| rest);
    let tree = tree.split_once("\n## ").map_or(tree, |(tree, _)| tree);
    let words: Vec<&str> = tree.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let is_apart = |path: &str| path.starts_with("src/client/") || path.contains("/tests");
    let modules = paths.into_iter().filter(|path| path.starts_with("src/") && !is_apart(path));
    let stem =
        |path: &str| path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).map(str::to_owned);
    let unknown = modules.filter(|path| stem(path).is_some_and(|name| !words.contains(&name.as_str())));
    unknown
        .map(|path| finding(path, 1, "not in the tree of docs/architecture.md: say there what it is"))
        .collect()
}

/// Whether `path` stands in `text` as the beginning of a path.
fn is_absolute(text: &str, path: &str) -> bool {
    text.match_indices(path)
        .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~*})$".contains(c)))
}

#[test]
fn what_is_untidy_is_found() {
    let check =
        |path: &str, text: &str| untidy(&[File { path: path.into(), bytes: text.as_bytes().to_vec() }]).len();
    let (machine, registry) = (MACHINE[0], REGISTRIES[0]);
    for good in
        ["", "a\n", "a\n\nb\n", &format!("net{machine}x\n"), &format!("../shared{machine}\n"), "\0 \n"]
    {
        assert_eq!(check("a.md", good), 0, "{good:?}");
    }
    for bad in ["a", "a \n", "a\t\nb\n", "a\r\n", &format!("cd {machine}x\n"), &format!("{registry}\n")] {
        assert_eq!(check("a.md", bad), 1, "{bad:?}");
    }
    assert_eq!(check("Cargo.lock", &format!("{registry}\n")), 0);
    assert_eq!(check("a.md", &"a\n".repeat(FILE_BYTES_MAX / 2 + 1)), 1);
}

#[test]
fn a_module_that_is_in_no_tree_is_found() {
    let prose = "# House\n\nspare\n\n## The tree\n\n    src/\n      base.rs  words\n        limits, reason  bounds\n\n## Way\n\nother\n";
    let found = |paths: &[&str]| not_in_tree(paths.iter().copied(), prose).len();
    assert_eq!(
        found(&[
            "src/base.rs",
            "src/base/reason.rs",
            "src/client/x.rs",
            "src/base/tests.rs",
            "feeds/src/y.rs"
        ]),
        0
    );
    assert_eq!(found(&["src/spare.rs", "src/base/other.rs", "src/base/limit.rs"]), 3);
}
