//! The layers of the crate, as told in `src/lib.rs`, and the order of files inside each: imports
//! point down. So there is no circle of imports, neither between layers nor between files.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with what its files may name, beside themselves.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("activity", &[]),
    ("sys", &["error", "libc", "nix"]),
    ("segment", &["error", "sys"]),
    ("arena", &["error", "activity"]),
    ("process", &["error", "activity", "sys", "segment", "arena"]),
    ("ring", &["error", "activity", "sys", "arena", "process"]),
    (
        "python",
        &[
            "error", "activity", "sys", "segment", "arena", "process", "ring", "pyo3",
        ],
    ),
];

/// The files of each layer from the bottom to the top: a file may import those before it. (A
/// folder's `mod.rs` stands for the folder, above its files.)
///
/// The order is that of imports. A file may add methods to a type from below and have them called
/// there: `arena` defines its operations so.
const ORDER: &[(&str, &[&str])] = &[
    (
        "sys",
        &[
            "errno",
            "system_files",
            "cgroup",
            "copy",
            "map",
            "fork",
            "futex",
            "loaded",
            "locks",
            "packet",
            "proc",
            "open_files",
            "shm",
            "page_map",
            "probe",
        ],
    ),
    (
        "arena",
        &[
            "word",
            "format",
            "lock",
            "refs",
            "platform",
            "plain",
            "half_done",
            "core",
            "waiting",
            "locked",
            "rows",
            "space",
            "recovery",
            "page_state",
            "upkeep",
            "blocks",
            "tickets",
            "growth",
            "slots",
            "residents",
            "root",
            "fork",
            "unfinished",
            "entry",
            "stats",
            "handle",
            "check",
            "image",
        ],
    ),
    (
        "process",
        &[
            "settings",
            "folder",
            "wait_hooks",
            "descriptor",
            "objects",
            "life",
            "remains",
            "huge_pages",
            "shm_platform",
            "names",
            "counts",
            "block_cache",
            "process_arenas",
            "registration",
            "membership",
            "attaching",
            "identified",
            "shm_space",
            "operation",
            "block",
            "first_copy",
            "private_pages",
            "forks",
            "arena",
            "look",
            "orphans",
            "exit",
        ],
    ),
    (
        "ring",
        &[
            "event", "spin", "base", "body", "frames", "messages", "look",
        ],
    ),
    (
        "python",
        &[
            "exit_state",
            "gil",
            "shutdown",
            "error",
            "operation",
            "posixshmem",
            "mapping",
            "packet",
            "folder",
            "machine",
            "look",
            "future",
            "one_copy",
            "process_tree",
            "records",
            "traffic",
            "attaching",
            "default_arena",
            "objects",
            "block_trace",
            "handles",
            "ticket_guard",
            "numpy/capi",
            "numpy/layout",
            "numpy/arrays",
            "numpy",
            "new_arrays",
            "message",
            "closable",
            "ring",
            "frames",
            "fast_pickle/stream",
            "fast_pickle/writer",
            "fast_pickle/reader",
            "fast_pickle",
            "numpy_allocator",
            "block",
            "arena",
            "all_arenas",
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

/// A file's name within its layer, as [`ORDER`] has it; None for the layer's own `mod.rs`.
fn name_of(inside: &Path) -> Option<String> {
    let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
    let name = parts[1..].join("/");
    let name = name.strip_suffix(".rs").unwrap();
    match name {
        "mod" => None,
        name => Some(name.strip_suffix("/mod").unwrap_or(name).to_owned()),
    }
}

/// The code of a file without its comments and its tests, which come last.
fn code_of(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join(" ")
}

/// The names that a path goes on with: one, or the first of each in braces.
fn heads(after: &str) -> Vec<&str> {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_';
    let head = |text: &str| text.trim_start().split(is_end).next().unwrap_or("").len();
    let Some(group) = after.strip_prefix('{') else {
        return vec![&after[..head(after)]];
    };
    let (mut depth, mut start, mut found) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {}
            _ => continue,
        }
        if depth == 0 || c == ',' && depth == 1 {
            let part = group[start..at].trim_start();
            found.push(&part[..head(part)]);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The files of its layer that a file names, by `super` or by its layer. An item of a folder's
/// `mod.rs` counts as that file; the layer's own is "mod".
fn named(layer: &str, file: &str, text: &str, files: &[&str]) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    let mut add = |base: &[&str], after: &str| {
        for head in heads(after) {
            let path = [base, &[head]].concat().join("/");
            found.push(match files.contains(&path.as_str()) {
                true => path,
                false if base.is_empty() => "mod".to_owned(),
                false => base.join("/"),
            });
        }
    };
    let absolute = format!("crate::{layer}::");
    for (at, path) in code.match_indices(&absolute) {
        add(&[], &code[at + path.len()..]);
    }
    let mut rest = code.as_str();
    while let Some(at) = rest.find("super::") {
        // (Not `pub(super)`, nor the end of a longer word.)
        let mut base: Vec<&str> = file.split('/').collect();
        rest = &rest[at..];
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        add(&base, rest);
    }
    found
}

/// Returns the files that a file names and that do not come before it.
fn circles(layer: &str, file: &str, text: &str, files: &[&str]) -> Vec<String> {
    let place = |name: &str| files.iter().position(|other| *other == name);
    let here = place(file).unwrap_or_else(|| panic!("{layer}/{file} is not in ORDER: add it"));
    let mut found = named(layer, file, text, files);
    found.retain(|name| name != file && place(name).is_none_or(|there| there > here));
    found
}

#[test]
fn no_file_imports_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (layer, files) in ORDER {
        let mut seen = Vec::new();
        for path in sources(&root.join(layer)) {
            let inside = path.strip_prefix(&root).unwrap();
            let Some(name) = name_of(inside) else {
                continue;
            };
            let text = fs::read_to_string(&path).unwrap();
            let found = circles(layer, &name, &text, files);
            assert!(found.is_empty(), "{} imports {found:?}", inside.display());
            seen.push(name);
        }
        for (at, name) in files.iter().enumerate() {
            assert!(seen.iter().any(|other| other == name), "no {layer}/{name}");
            let inner = format!("{name}/");
            assert!(!files[at..].iter().any(|other| other.starts_with(&inner)));
        }
    }
    // Every layer with files of its own is here.
    for (layer, _) in LAYERS {
        let listed = ORDER.iter().any(|(other, _)| other == layer);
        assert_eq!(root.join(layer).is_dir(), listed, "{layer}");
    }
}

#[test]
fn circles_are_seen() {
    let files = &["low", "folder/a", "folder/b", "folder", "high"];
    let seen = |file: &str, text: &str| circles("arena", file, text, files);
    assert_eq!(seen("low", "use super::high::Thing;"), ["high"]);
    assert_eq!(
        seen("low", "use super::{high::{A, B}, folder};"),
        ["high", "folder"]
    );
    assert_eq!(seen("low", "crate::arena::high::call()"), ["high"]);
    assert_eq!(seen("low", "use super::item;"), ["mod"]);
    assert_eq!(seen("folder/a", "use super::b::B;"), ["folder/b"]);
    assert_eq!(seen("folder/a", "use super::super::high::B;"), ["high"]);
    assert_eq!(seen("folder/a", "use super::item;"), ["folder"]);
    for right in [
        "use super::low::A;",
        "use super::{\n    folder::{A, B},\n    low,\n};",
    ] {
        assert!(seen("high", right).is_empty());
    }
    assert!(seen("folder/b", "use super::a; use super::super::low;").is_empty());
    assert!(seen("low", "// use super::high;\npub(super) fn a() {}").is_empty());
    let tests = "fn a() {}\nmod tests {\n    use super::*;\n}";
    assert!(seen("low", tests).is_empty());
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

/// The lines of a text with an order that has a partner, above which no comment names that.
fn unpaired(text: &str) -> Vec<String> {
    /// As many lines above as a comment and the expression may have.
    const ABOVE: usize = 8;
    const ORDERS: &[&str] = &["Acquire", "Release", "AcqRel", "SeqCst"];
    let lines: Vec<&str> = text
        .split("\nmod tests {")
        .next()
        .unwrap()
        .lines()
        .collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap();
        let ordered = ORDERS.iter().any(|order| {
            let named = format!("Ordering::{order}");
            code.contains(&named) && !code.contains("compiler_fence")
        });
        let mut above = lines[at.saturating_sub(ABOVE)..at].iter();
        // (A comment may be broken anywhere.)
        if ordered && !above.any(|line| line.contains("//") && line.contains("pairs")) {
            found.push(line.trim().to_owned());
        }
    }
    found
}

/// Whoever weakens an order has to see for whose sake it is there.
#[test]
fn each_order_names_its_partner() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let found = unpaired(&fs::read_to_string(&path).unwrap());
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn orders_without_partners_are_seen() {
    let alone = "word.store(1, Ordering::Release);";
    assert_eq!(unpaired(alone), [alone]);
    let paired = format!("// Release, pairs with the acquire in `a`.\n{alone}");
    assert!(unpaired(&paired).is_empty());
    let far = format!("// It pairs.{}{alone}", "\n".repeat(9));
    assert_eq!(unpaired(&far), [alone]);
    assert!(unpaired("word.load(Ordering::Relaxed) // Ordering::Acquire").is_empty());
}

/// One subject a file: no longer than this many lines, but for two that are one list each.
#[test]
fn no_file_is_long() {
    const MOST: usize = 700;
    const LONG: &[&str] = &["arena/format.rs", "arena/check.rs"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let may_be = LONG.iter().any(|long| inside == Path::new(long));
        assert!(lines <= MOST || may_be, "{}: {lines}", inside.display());
    }
}
