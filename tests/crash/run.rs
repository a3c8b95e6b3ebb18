//! The test that runs: how it is repeated, and how long it may take.
//!
//! A test that fails says with which command it fails again. One that hangs is one that fails:
//! each has so many seconds from when it begins, or from when it last said that it goes on.

#[path = "../core/seed.rs"]
pub mod seed;

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

/// Seconds that a test, or each part of one that tells of its parts, may take; SNP_LIMIT says
/// otherwise.
const LIMIT: u64 = 120;

static SECONDS: AtomicU32 = AtomicU32::new(0);
/// Whether half of them are over.
static HALF: AtomicBool = AtomicBool::new(false);

/// The command that repeats what runs.
static COMMAND: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// A test begins, or one of its operations.
pub fn begin(test: &str, operation: Option<&str>, full: bool) {
    let chosen = operation.map(|name| format!("SNP_OPERATION='{name}' "));
    let command = format!(
        "SNP_SEED={} {}cargo test --no-default-features --test crash -- {}{test}",
        seed::of_the_run(),
        chosen.unwrap_or_default(),
        if full { "--full " } else { "" },
    );
    // Never freed, since the handler may read it at any time.
    COMMAND.store(Box::into_raw(Box::new(command)), Ordering::SeqCst);
    let usual = seed::times(if full { 10 * LIMIT } else { LIMIT });
    let seconds = seed::number_in("SNP_LIMIT").unwrap_or(usual);
    SECONDS.store(seconds as u32, Ordering::SeqCst);
    go_on();
}

/// The command that repeats what runs.
pub fn command() -> &'static str {
    // SAFETY: null, or a string that is neither changed nor freed.
    let command = unsafe { COMMAND.load(Ordering::SeqCst).as_ref() };
    command.map_or("", String::as_str)
}

/// How long a part of a test may wait for another process: 20 seconds as a rule, longer where all
/// takes longer.
pub fn patience() -> Duration {
    Duration::from_secs((SECONDS.load(Ordering::SeqCst) / 6).into())
}

/// The test does not hang: its time begins anew.
pub fn go_on() {
    HALF.store(false, Ordering::SeqCst);
    // SAFETY: sets a timer of this process; its children have none.
    unsafe { libc::alarm(SECONDS.load(Ordering::SeqCst).div_ceil(2)) };
}

/// Ends a process whose test hangs; its children end with it.
extern "C" fn hang(_signal: i32) {
    // Twice, since one that was stopped for longer than that did nothing in that time.
    if !HALF.swap(true, Ordering::SeqCst) {
        // SAFETY: as in `go_on`; it may be set in a handler.
        unsafe { libc::alarm(SECONDS.load(Ordering::SeqCst).div_ceil(2)) };
        return;
    }
    for text in ["the test hangs; repeat it with: ", command(), "\n"] {
        // SAFETY: the bytes are lent to the call, which may be made in a handler.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: ends the process, which may be done in a handler.
    unsafe { libc::_exit(101) };
}

/// Makes hanging an end. Called once, before the first test.
pub fn watch() {
    let handler: extern "C" fn(i32) = hang;
    // SAFETY: the handler does only what handlers may.
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
}
