//! The law of the house, as tests (docs/architecture.md has it in prose).
//!
//! Each rule is a function from sources to findings, and is tested twice: here on this repository, and beside the
//! function on snippets that it must find or let pass. A finding says `file:line` and what to do about it.

mod source;
mod imports;
mod purity;
mod manners;
mod lengths;
mod metrics;
mod files;

use source::{Source, repository, rust_files};

/// Fails with one line per finding.
#[track_caller]
fn none(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} against the law of the house:\n{}\n",
        findings.len(),
        findings.join("\n")
    );
}

/// The sources whose path begins with one of `folders`.
fn under(folders: &[&str]) -> Vec<Source> {
    let mut sources = rust_files();
    sources.retain(|source| folders.iter().any(|folder| source.path.starts_with(folder)));
    assert!(!sources.is_empty(), "nothing to check in {folders:?}");
    sources
}

#[test]
fn data_goes_down_and_knowledge_goes_up() {
    let mut findings = imports::out_of_order(&under(&["src/"]), "src/");
    findings.extend(imports::out_of_order(&under(&["feeds/src/"]), "feeds/src/"));
    none(&findings);
}

#[test]
fn names_come_by_their_own_path() {
    none(&imports::roundabout(&rust_files()));
}

#[test]
fn pure_stages_are_handed_their_time_and_bytes() {
    none(&purity::impure(&rust_files(), purity::ALLOWED));
}

#[test]
fn a_file_says_first_what_it_owns() {
    none(&manners::without_header(&rust_files()));
}

#[test]
fn nothing_gives_up_in_the_middle() {
    none(&manners::giving_up(&under(&["src/", "feeds/src/"]), manners::INVARIANTS));
}

#[test]
fn no_test_is_skipped_and_no_lint_silenced_without_a_reason() {
    none(&manners::silenced(&rust_files()));
}

#[test]
fn a_file_can_be_read_in_one_go() {
    none(&lengths::long_files(&rust_files()));
    none(&lengths::long_scripts(&repository()));
}

#[test]
fn a_function_fits_on_a_screen() {
    none(&lengths::long_functions(&rust_files(), lengths::LONG));
}

#[test]
fn every_metric_is_on_a_dashboard_and_every_dashboard_names_metrics_that_exist() {
    none(&metrics::strangers(&under(&["src/gateway/metrics.rs"])[0], &metrics::boards()));
}

#[test]
fn the_tree_in_the_documents_is_the_tree() {
    let prose = include_str!("../docs/architecture.md");
    none(&files::not_in_tree(rust_files().iter().map(|source| source.path.as_str()), prose));
}

#[test]
fn tracked_files_are_clean() {
    none(&files::untidy(&repository()));
}
