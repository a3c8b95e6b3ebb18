//! The fuzzers' targets over their kept corpus, and over mutations of it.
//!
//! Bounded: so many mutations a target, from the run's seed.

use crate::fuzz_targets::TARGETS;
use crate::random::random;
use crate::seed::{times, Random};
use std::fs;
use std::path::Path;

/// How many mutated inputs each target gets.
const MUTATIONS: u64 = 4000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A number below the length of something.
fn below(random: &mut Random, end: usize) -> usize {
    random.below(end as u64) as usize
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=below(random, 4) {
        let length = bytes.len();
        match below(random, 5) {
            0 if length > 0 => bytes[below(random, length)] ^= 1 << below(random, 8),
            1 if length > 0 => bytes[below(random, length)] = below(random, 256) as u8,
            2 if length > 0 => bytes.truncate(below(random, length)),
            3 => bytes.extend((0..below(random, 9)).map(|_| 0u8)),
            _ => bytes.push(below(random, 256) as u8),
        }
    }
}

#[test]
fn targets_hold_for_the_corpus_and_mutations_of_it() {
    random(
        "fuzz::targets_hold_for_the_corpus_and_mutations_of_it",
        |seed| {
            let mut random = Random::new(seed);
            for (name, target) in TARGETS {
                let corpus = corpus(name);
                assert!(!corpus.is_empty(), "{name} has no corpus");
                for input in &corpus {
                    target(input);
                }
                for _ in 0..times(MUTATIONS) {
                    let mut input = corpus[below(&mut random, corpus.len())].clone();
                    mutate(&mut random, &mut input);
                    let tried = std::panic::catch_unwind(|| target(&input));
                    assert!(tried.is_ok(), "{name} fails for {input:?}");
                }
            }
        },
    );
}
