//! Golden vectors: `tests/vectors/*.json`, what a client says, what the gateway answers to the letter, and what the client
//! must hold after it. Every SDK runs them; `tests/vectors/README.md` says how to read them.
//!
//! They are made by a real shard whose clock, market and client are moved by hand, so they are the same on every machine.
//! The test compares them with the files; with `TICKGATE_VECTORS=write` it writes the files anew.

mod table;
mod script;
mod scenes;
mod bytes;

use std::fs;
use std::path::{Path, PathBuf};

/// Every vector: the file's name and its text.
fn vectors() -> Vec<(String, String)> {
    let mut vectors: Vec<_> = scenes::all().into_iter().map(|(name, script)| (name, script.text())).collect();
    vectors.push(("bytes", bytes::text()));
    vectors.into_iter().map(|(name, text)| (format!("{name}.json"), text)).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn the_vectors_are_what_the_gateway_says() {
    let vectors = vectors();
    let write = std::env::var("TICKGATE_VECTORS").is_ok_and(|value| value == "write");
    let mut wrong = Vec::new();
    for (name, text) in &vectors {
        let path = folder().join(name);
        if write {
            fs::write(&path, text).expect("the folder can be written");
        }
        let had = fs::read_to_string(&path).unwrap_or_default();
        if had != *text {
            let same = text.lines().zip(had.lines()).take_while(|(now, then)| now == then).count();
            let [now, then] = [text, &had].map(|text| text.lines().nth(same).unwrap_or("nothing"));
            wrong.push(format!("{name}:{}\n  now  {now}\n  file {then}", same + 1));
        }
    }
    assert!(
        wrong.is_empty(),
        "vectors changed; if that is meant, run with TICKGATE_VECTORS=write:\n{}",
        wrong.join("\n")
    );
    let files = fs::read_dir(folder()).expect("the folder").map(|file| file.expect("a file").file_name());
    let strangers: Vec<_> = files
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".json") && !vectors.iter().any(|(known, _)| known == name))
        .collect();
    assert_eq!(strangers, Vec::<String>::new(), "nothing makes these files");
}
