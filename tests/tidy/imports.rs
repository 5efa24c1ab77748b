//! Who may name whom. The `mod` lines of a file list its folder in the order of the data; a module may name those above
//! it, its own children, and the items of the files that it lies within.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Kind, Named, Source, finding};

type Module = Vec<String>;
/// One folder's edges between its modules: from and to.
type Edges = BTreeMap<Module, BTreeSet<(String, String)>>;

/// The modules of a crate whose files lie under `root`, each with its children in the order of the `mod` lines.
fn listing(sources: &[Source], root: &str) -> BTreeMap<Module, Vec<String>> {
    let mut listing = BTreeMap::<Module, Vec<String>>::new();
    for source in sources.iter().filter(|source| !is_entry(source, root)) {
        let children = listing.entry(module(&source.path, root)).or_default();
        for (at, token) in source.tokens.iter().enumerate() {
            if token.text == "mod" && [";", "{"].contains(&source.peek(at, 2)) {
                children.push(source.peek(at, 1).into());
            }
        }
    }
    listing
}

/// `src/flow/frame/row.rs` is `flow::frame::row`.
fn module(path: &str, root: &str) -> Module {
    let path = path.strip_prefix(root).unwrap_or(path).trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|part| *part != "lib").map(Into::into).collect()
}

/// A program of its own, which may name everything.
fn is_entry(source: &Source, root: &str) -> bool {
    source.path == format!("{root}main.rs") || source.path.starts_with(&format!("{root}bin/"))
}

/// The whole path from the crate's root, when it is one of ours.
fn absolute(named: &Named, file: &Module) -> Option<Module> {
    let mut here: Module = file.iter().chain(&named.inside).cloned().collect();
    let mut path = named.path.as_slice();
    match path.first()?.as_str() {
        "crate" => here.clear(),
        "self" => {}
        "super" => {
            here.pop();
        }
        _ => return None,
    }
    path = &path[1..];
    while path.first().is_some_and(|segment| segment == "super") {
        here.pop();
        path = &path[1..];
    }
    here.extend_from_slice(path);
    Some(here)
}

/// Names of what is listed below the namer, and files that no list has.
pub(super) fn out_of_order(sources: &[Source], root: &str) -> Vec<String> {
    let listing = listing(sources, root);
    let (mut edges, mut wrong) = (Edges::new(), Vec::new());
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !is_entry(source, root)) {
        let file = module(&source.path, root);
        if let Some((name, parents)) = file.split_last()
            && !listing.get(parents).is_some_and(|children| children.contains(name))
        {
            findings.push(finding(&source.path, 1, "no `mod` line names this file: list it or delete it"));
        }
        for named in source.paths() {
            let Some(target) = absolute(&named, &file) else { continue };
            let from: Module = file.iter().chain(&named.inside).cloned().collect();
            let common = from.iter().zip(&target).take_while(|(a, b)| a == b).count();
            let (Some(own), Some(other)) = (from.get(common), target.get(common)) else { continue };
            let Some(children) = listing.get(&from[..common]) else { continue };
            let place = |name: &String| children.iter().position(|child| child == name);
            // Tests help each other, whatever the order.
            if named.test && other == "tests" {
                continue;
            }
            // What is no module is an item of a file that this one lies within.
            let Some(theirs) = place(other) else { continue };
            edges.entry(from[..common].to_vec()).or_default().insert((own.clone(), other.clone()));
            if place(own).is_some_and(|ours| theirs > ours) {
                wrong.push((
                    source.path.clone(),
                    named.line,
                    from[..common].to_vec(),
                    own.clone(),
                    other.clone(),
                ));
            }
        }
    }
    wrong.dedup();
    for (path, line, folder, own, other) in wrong {
        let cycle = way(&edges[&folder], &other, &own)
            .map_or_else(String::new, |way| format!("; it closes a cycle: {own} > {}", way.join(" > ")));
        let list = if folder.is_empty() { "the crate".into() } else { folder.join("::") };
        let fix = "hand it in as an argument, or move what both need above both";
        findings.push(finding(
            &path,
            line,
            &format!("`{own}` names `{other}`, which {list} lists below it: {fix}{cycle}"),
        ));
    }
    findings
}

/// The shortest way along the edges.
fn way(edges: &BTreeSet<(String, String)>, from: &String, to: &String) -> Option<Vec<String>> {
    let (mut queue, mut seen) = (VecDeque::from([vec![from.clone()]]), BTreeSet::from([from]));
    while let Some(way) = queue.pop_front() {
        if way.last() == Some(to) {
            return Some(way);
        }
        for (a, b) in edges.iter().filter(|(a, _)| Some(a) == way.last()) {
            debug_assert_eq!(way.last(), Some(a));
            if seen.insert(b) {
                queue.push_back(way.iter().chain([b]).cloned().collect());
            }
        }
    }
    None
}

/// Whether the name is of this file or a child of it.
fn is_own(source: &Source, named: &Named) -> bool {
    let root = if source.path.starts_with("feeds/") { "feeds/src/" } else { "src/" };
    let file = module(&source.path, root);
    match absolute(named, &file) {
        Some(path) => path.starts_with(&file) && !file.is_empty(),
        None => (0..source.tokens.len())
            .any(|at| source.peek(at, 0) == "mod" && source.peek(at, 1) == named.path[0]),
    }
}

/// Ways around the law: globs, `super::super`, and names handed on by a module that does not own them.
pub(super) fn roundabout(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for named in source.paths() {
            let mut say = |text: &str| findings.push(finding(&source.path, named.line, text));
            let in_tests = named.test
                && (named.inside.last().is_some_and(|name| name == "tests")
                    || source.path.ends_with("/tests.rs")
                    || source.path.ends_with("/tests/mod.rs"));
            if named.imported
                && named.path.last().is_some_and(|last| last == "*")
                && !(in_tests && named.path == ["super", "*"])
            {
                say("a glob hides what is used: name it (only `mod tests` may `use super::*`)");
            }
            if named.path.windows(2).any(|pair| pair == ["super", "super"]) {
                say("`super::super` counts floors: begin with `crate::`");
            }
            if named.exported && !is_own(source, &named) {
                say("a name has one home: import it from there instead of `pub use`");
            }
        }
        for (at, token) in source.tokens.iter().enumerate() {
            let is_module = token.text == "mod" && token.kind == Kind::Word && source.peek(at, 1) == "tests";
            if is_module && !token.test {
                findings.push(finding(&source.path, token.line, "`mod tests` without #[cfg(test)]"));
            }
        }
    }
    findings
}

#[cfg(test)]
fn sample(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source::new(path, text)).collect()
}

#[test]
fn a_name_from_below_is_found() {
    let tree = [
        ("src/lib.rs", "pub mod base; pub mod flow; pub mod gateway;"),
        ("src/main.rs", "use tickgate::gateway::Run; use crate::anything::Below;"),
        ("src/base.rs", ""),
        ("src/flow.rs", "pub mod buffer; pub mod hub; use hub::Hub; pub type Rev = u64;"),
        ("src/flow/hub.rs", "use super::buffer::Buffer; use crate::base::Now; use super::Rev;"),
        ("src/gateway.rs", "mod tests { use super::*; fn f() { crate::flow::hub::f(); } }"),
    ];
    let buffer = "src/flow/buffer.rs";
    for good in [
        "use crate::base::{self, Now}; use super::Rev; use std::super_thing;",
        "mod inner { use super::Own; } use self::inner::X; use crate::flow::Rev;",
        "/// [`crate::flow::hub`] takes it from here. crate::gateway::Run\nfn f() { \"crate::gateway\"; }",
    ] {
        let files: Vec<_> = tree.into_iter().chain([(buffer, good)]).collect();
        assert_eq!(out_of_order(&sample(&files), "src/"), [""; 0], "{good}");
    }
    for (bad, line, word) in [
        ("\nuse super::hub::Hub;", 2, "cycle: buffer > hub > buffer"),
        ("use crate::{base::Now, gateway::Run};", 1, "`flow` names `gateway`"),
        ("fn f() {\n\n say!(crate::gateway::run()) }", 3, "lists below"),
        ("mod tests { use super::super::hub::Hub; }", 1, "`buffer` names `hub`"),
        ("macro_rules! m { () => { $crate::flow::hub::X } }", 1, "`hub`"),
        ("use super::{Rev, hub};", 1, "`hub`"),
    ] {
        let files: Vec<_> = tree.into_iter().chain([(buffer, bad)]).collect();
        let findings = out_of_order(&sample(&files), "src/");
        assert_eq!(findings.len(), 1, "{bad}: {findings:?}");
        assert!(findings[0].starts_with(&format!("{buffer}:{line}: ")), "{findings:?}");
        assert!(findings[0].contains(word), "{bad}: {findings:?}");
    }
    let orphan = sample(&[("src/lib.rs", "mod a;"), ("src/a.rs", ""), ("src/b.rs", "")]);
    assert!(out_of_order(&orphan, "src/")[0].starts_with("src/b.rs:1: no `mod` line"));
}

#[test]
fn a_way_around_is_found() {
    for good in [
        "use a::b;",
        "#[cfg(test)] mod tests { use super::*; }",
        "fn f(a: u8) -> u8 { a * B::C }",
        "mod b; pub use b::C; pub use self::b::D; mod c { pub use super::E; }",
    ] {
        assert_eq!(roundabout(&sample(&[("src/a.rs", good)])), [""; 0], "{good}");
    }
    for bad in [
        "use a::*;",
        "use a::{b, c::*};",
        "use super::*;",
        "#[cfg(test)] mod tests { use crate::a::*; }",
        "use super::super::a;",
        "fn f() { super::super::a() }",
        "pub use b::c;",
        "pub use crate::b::c;",
        "pub(crate) use super::b;",
        "mod tests { fn f() {} }",
    ] {
        assert_eq!(roundabout(&sample(&[("src/a.rs", bad)])).len(), 1, "{bad}");
    }
}
