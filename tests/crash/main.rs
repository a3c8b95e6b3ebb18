//! Processes that fork, stop and die over one arena.
//!
//! ```text
//! cargo test --test crash                       every test, bounded
//! cargo test --test crash -- [--full] NAME ...  those whose names contain one
//! cargo test --test crash -- --skip=NAME ...    all but those of these names
//! ```
//!
//! One thread, since the tests fork; each test has an arena of its own, whose
//! name begins with `snp-crash-` (or SNP_PREFIX) and the number of this process, and is removed
//! at its end. What is random follows from the run's seed, which is printed, and taken from
//! SNP_SEED. `--full` is every death that there is, and many more at random;
//! SHARED_NUMPY_TEST_FACTOR is how many times as much of the rest is tried. A test that fails or
//! hangs says how it is repeated.

mod calls;
#[path = "../conformance/mod.rs"]
mod conformance;
mod conformance_on_system;
mod faults;
mod folders;
mod identified;
mod instructions;
mod mounts;
mod pages;
mod ring;
mod run;
mod step;
mod storm;
mod systems;
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
    }
    let full = arguments.iter().any(|argument| argument == "--full");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let skipped: Vec<&str> = arguments
        .iter()
        .filter_map(|a| a.strip_prefix("--skip="))
        .collect();
    println!("SNP_SEED={}", run::seed::of_the_run());
    run::watch();
    let mut count = 0;
    for (name, test) in [
        calls::TESTS,
        conformance_on_system::TESTS,
        faults::TESTS,
        folders::TESTS,
        identified::TESTS,
        pages::TESTS,
        step::TESTS,
        storm::TESTS,
        systems::TESTS,
        &ring::tests(),
    ]
    .concat()
    {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(*part)) {
            continue;
        }
        if skipped.contains(&name) {
            println!("{name} ... skipped");
            continue;
        }
        run::begin(name, None, full);
        let start = Instant::now();
        // A failed assertion ends the process, and with it all its children.
        if std::panic::catch_unwind(|| test(full)).is_err() {
            println!("{name} ... FAILED; repeat it with: {}", run::command());
            std::process::exit(101);
        }
        println!("{name} ... ok, {:.1} s", start.elapsed().as_secs_f64());
        count += 1;
    }
    assert!(count > 0, "no test of that name");
    println!("{count} passed");
}
