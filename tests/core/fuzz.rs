//! The fuzzers' targets over their kept corpus, and over mutations of it.
//!
//! Bounded: so many mutations a target, from a seed that is printed.

use crate::fuzz_targets::TARGETS;
use std::fs;
use std::path::Path;

/// How many mutated inputs each target gets; SNP_FUZZ says otherwise.
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

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let length = bytes.len();
        match random.below(5) {
            0 if length > 0 => bytes[random.below(length)] ^= 1 << random.below(8),
            1 if length > 0 => bytes[random.below(length)] = random.below(256) as u8,
            2 if length > 0 => bytes.truncate(random.below(length)),
            3 => bytes.extend((0..random.below(9)).map(|_| 0u8)),
            _ => bytes.push(random.below(256) as u8),
        }
    }
}

#[test]
fn targets_hold_for_the_corpus_and_mutations_of_it() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("SNP_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    });
    println!("SNP_SEED={seed}");
    let mut random = Random(seed | 1);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for input in &corpus {
            target(input);
        }
        for _ in 0..number("SNP_FUZZ").unwrap_or(MUTATIONS) {
            let mut input = corpus[random.below(corpus.len())].clone();
            mutate(&mut random, &mut input);
            let tried = std::panic::catch_unwind(|| target(&input));
            assert!(tried.is_ok(), "{name} fails for {input:?}");
        }
    }
}
