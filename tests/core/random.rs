//! Tests whose input or schedule is random: how each is repeated, and how long it may take.

use crate::seed;
use shuttle::scheduler::PctScheduler;
use std::io::Write;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

/// Seconds that a test may take: far more than it does under a sanitizer beside load.
const LIMIT: u64 = 600;

/// Runs a test with a seed of its own. One that hangs ends the process.
pub fn random(test: &str, work: impl FnOnce(u64)) {
    let of_the_run = seed::of_the_run();
    let repeat =
        format!("SNP_SEED={of_the_run} cargo test --no-default-features --test core {test}");
    // Which is shown if it fails.
    println!("repeat it with: {repeat}");
    let (over, is_over) = channel::<()>();
    std::thread::spawn(move || {
        let half = Duration::from_secs(seed::times(LIMIT) / 2);
        // Twice, since one that was stopped for longer than that did nothing in that time.
        let hangs = || is_over.recv_timeout(half) == Err(RecvTimeoutError::Timeout);
        if hangs() && hangs() {
            // Not what a test prints, which would be kept back.
            let _ = writeln!(
                std::io::stderr(),
                "the test hangs; repeat it with: {repeat}"
            );
            std::process::abort();
        }
    });
    work(seed::of_test(test));
    drop(over);
}

/// Runs a model under so many schedules.
pub fn schedules(seed: u64, usual: u64, model: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random_with_seed(model, seed, seed::times(usual) as usize);
}

/// Runs a model under so many schedules that switch as rarely as possible.
pub fn few_switches(seed: u64, usual: u64, model: impl Fn() + Send + Sync + 'static) {
    let scheduler = PctScheduler::new_from_seed(seed, 3, seed::times(usual) as usize);
    shuttle::Runner::new(scheduler, shuttle::Config::default()).run(model);
}
