//! The handlers that the C library calls around a fork.
//!
//! Before it they lock, in this order, the list of arenas, the table of private pages, and the
//! locks of all listed arenas in the order of their numbers, which is the same in all processes.
//! After it both processes unlock them.

use super::private_pages;
use super::process_arenas::{self, ForkHooks, ListGuard, PreparedFork, ProcessArenas};
use super::registration;
use crate::activity;
use crate::error::Result;
use crate::sys::fork::{self, ForkMark};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The locked list, from before a fork until after it.
static LIST_OVER_FORK: AtomicPtr<ListGuard> = AtomicPtr::new(std::ptr::null_mut());

/// A number that differs in a forked child from its parent's; 0 in one that was
/// made without the C library's fork.
#[inline(always)]
pub fn fork_number() -> u64 {
    ForkMark::get().number()
}

/// Has the handlers called around forks, from now on.
///
/// The code that loads this crate calls it before there are arenas: a fork in another thread
/// while the first is attached would not lock the list, and the child would wait for it for ever.
///
/// # Errors
/// The system has no memory for the handlers.
pub fn watch_forks() -> Result<()> {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    let _list = process_arenas::lock();
    if !WATCHING.load(Ordering::Relaxed) {
        ForkMark::get();
        fork::on_fork(before_fork, after_fork_in_parent, after_fork_in_child)?;
        WATCHING.store(true, Ordering::Relaxed);
    }
    Ok(())
}

extern "C" fn before_fork() {
    let mut list = process_arenas::lock();
    // Before the arenas' locks are taken: it may take a while.
    private_pages::before_fork();
    list.prepare_fork();
    LIST_OVER_FORK.store(Box::into_raw(Box::new(list)), Ordering::Relaxed);
}

/// Hands each arena the child's part in it, and unlocks the list.
fn resume(each: impl Fn(&dyn ForkHooks, &mut PreparedFork), tidy: impl FnOnce(&mut ProcessArenas)) {
    let list = LIST_OVER_FORK.swap(std::ptr::null_mut(), Ordering::Relaxed);
    if list.is_null() {
        return;
    }
    // SAFETY: `before_fork` made the pointer from a box, and the swap takes it once. In a child
    // this is the thread that called fork, and so the one that locked the mutex.
    let mut list = *unsafe { Box::from_raw(list) };
    let mut prepared = list.take_prepared();
    for (arena, prepared) in &mut prepared {
        each(&**arena, prepared);
    }
    tidy(&mut list);
    drop(list);
    // Only now: to drop the last reference to an arena takes the list's lock.
    drop(prepared);
}

extern "C" fn after_fork_in_parent() {
    private_pages::after_fork();
    resume(|arena, prepared| arena.resume_parent(prepared), |_| ());
}

extern "C" fn after_fork_in_child() {
    registration::forget_unregistered();
    private_pages::after_fork();
    let number = ForkMark::get().renew();
    activity::begin_anew(number);
    resume(
        |arena, prepared| arena.resume_child(prepared, number),
        ProcessArenas::forget_detached,
    );
}
