//! Processes that fork, stop and die over one arena.
//!
//! ```text
//! cargo test --test crash                       every test, bounded
//! cargo test --test crash -- [--full] NAME ...  those whose names contain one
//! ```
//!
//! One thread, since the tests fork; each test has an arena of its own, whose
//! name begins with `snp-crash-` (or SNP_PREFIX) and the number of this process, and is removed
//! at its end. What is random prints its seed and takes it from SNP_SEED.

mod faults;
mod ring;
mod step;
mod storm;
mod tools;

use std::time::Instant;

/// A test and its name; `true` asks for all of it.
pub type Test = (&'static str, fn(bool));

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    if let [first, name] = &arguments[..] {
        if first == "--attach" {
            std::process::exit(faults::attach_and_tell(name));
        }
        if first == "--stay" {
            std::process::exit(faults::stay_and_tell(name));
        }
    }
    let full = arguments.iter().any(|argument| argument == "--full");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let mut count = 0;
    for (name, test) in [faults::TESTS, step::TESTS, storm::TESTS, &ring::tests()].concat() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(*part)) {
            continue;
        }
        let start = Instant::now();
        // A failed assertion ends the process, and with it all its children.
        test(full);
        println!("{name} ... ok, {:.1} s", start.elapsed().as_secs_f64());
        count += 1;
    }
    assert!(count > 0, "no test of that name");
    println!("{count} passed");
}
