//! Sleeping on a word of shared memory.

use super::errno::{failed, last};
use crate::error::Result;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` holds `expected`: `futex(2)`, FUTEX_WAIT.
///
/// # Errors
/// EAGAIN if it does not, ETIMEDOUT, EINTR.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> Result<()> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as _,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the kernel checks the address of the word and reads the timeout,
    // which lives until the call is over. Nothing of ours is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &timeout as *const libc::timespec,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(failed("futex")(last())),
    }
}

/// Wakes at most `count` sleepers on `word`: `futex(2)`,
/// FUTEX_WAKE.
pub fn wake(word: &AtomicU32, count: i32) -> Result<()> {
    // SAFETY: the kernel uses the address as a key and reads nothing there.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    match result {
        0.. => Ok(()),
        _ => Err(failed("futex")(last())),
    }
}
