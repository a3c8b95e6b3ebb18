//! How far this process is with its exit.
//!
//! Words without a lock: they are written by the thread that ends the process, and a thread that
//! reads an old value behaves as one that was a moment earlier.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The thread that exits this process, once it has begun to; 0 for none.
static EXITING: AtomicUsize = AtomicUsize::new(0);

/// The thread that has given this process's arenas back, at its exit; 0 for none.
static RETIRED: AtomicUsize = AtomicUsize::new(0);

/// Whether this process's arenas were given back, at its exit. Threads may go on for a while, and be
/// joined.
pub fn is_retired() -> bool {
    RETIRED.load(Ordering::Relaxed) != 0
}

/// Whether this thread has given this process's arenas back, at its exit.
pub fn ends_here() -> bool {
    RETIRED.load(Ordering::Relaxed) == this_thread()
}

/// A number that no other living thread has, and not 0.
pub fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| here as *const u8 as usize)
}

/// Notes that this thread exits the process.
pub fn begin() {
    EXITING.store(this_thread(), Ordering::Relaxed);
}

/// Notes that this thread is about to give this process's arenas back.
pub fn retire() {
    RETIRED.store(this_thread(), Ordering::Relaxed);
}

/// In a process that has not begun to exit: a forked child forgets what its parent did.
pub fn forget() {
    EXITING.store(0, Ordering::Relaxed);
    RETIRED.store(0, Ordering::Relaxed);
}

/// Whether another thread has begun to end this process.
pub fn is_begun_elsewhere() -> bool {
    let exiting = EXITING.load(Ordering::Relaxed);
    exiting != 0 && exiting != this_thread()
}

/// Whether another thread has given this process's arenas back.
pub fn is_retired_elsewhere() -> bool {
    is_retired() && !ends_here()
}
