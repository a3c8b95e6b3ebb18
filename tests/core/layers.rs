//! The layers of the crate, as told in `src/lib.rs`: imports point down.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with what its files may name, beside themselves.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("sys", &["error", "libc", "nix"]),
    ("segment", &["error", "sys"]),
    ("arena", &["error"]),
    ("process", &["error", "sys", "segment", "arena"]),
    ("ring", &["error", "sys", "arena", "process"]),
    (
        "python",
        &[
            "error", "sys", "segment", "arena", "process", "ring", "pyo3",
        ],
    ),
];

/// What only one layer may reach.
const GUARDED: &[&str] = &["libc", "nix", "pyo3"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The words of a line of code, without its comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or("");
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Returns what `text`, a file of `layer`, names that it may not.
fn violations(layer: &str, allowed: &[&str], text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let all: Vec<&str> = words(line).collect();
        for word in GUARDED {
            if all.contains(word) && !allowed.contains(word) {
                found.push(line.to_string());
            }
        }
        // `crate::{a, b}` names several modules, `crate::a` one.
        if let Some((_, after)) = line.split_once("crate::") {
            for (other, _) in LAYERS {
                let group = after.starts_with('{') && words(after).any(|word| word == *other);
                let single = words(after).next() == Some(other);
                if (group || single) && *other != layer && !allowed.contains(other) {
                    found.push(line.to_string());
                }
            }
        }
    }
    found
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let layer = first.trim_end_matches(".rs");
        if layer == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == layer)
            .unwrap_or_else(|| panic!("{layer} is in no layer: add it to LAYERS"));
        let text = fs::read_to_string(&path).unwrap();
        let found = violations(layer, allowed, &text);
        assert!(found.is_empty(), "{}: {found:?}", inside.display());
        seen += 1;
    }
    assert!(seen >= LAYERS.len());
}

#[test]
fn violations_are_seen() {
    assert_eq!(violations("error", &[], "use crate::sys::shm;").len(), 1);
    assert_eq!(
        violations("error", &[], "use crate::{error, sys};").len(),
        1
    );
    assert_eq!(violations("segment", &["sys"], "libc::EINTR").len(), 1);
    assert_eq!(
        violations("sys", &["libc"], "use pyo3::prelude::*;").len(),
        1
    );
    assert_eq!(
        violations("sys", &["libc"], "libc::EINTR // not pyo3").len(),
        0
    );
}
