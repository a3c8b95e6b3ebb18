//! Wait hooks: functions that a thread has called before it waits for something in the arena.
//!
//! An interpreter's thread works on an arena while it holds the GIL. That is right for what takes
//! a tenth of a microsecond and wrong for what waits, and which of the two an operation will be is
//! known only on the way. So the thread sets hooks, and the core calls them before it waits: the
//! hook releases the GIL.
//!
//! A hook must not block: it may be called under the arena's lock.

use std::cell::Cell;

/// The functions that a thread has called.
pub struct WaitHooks {
    /// Called before what may take long, once or more often.
    pub before_waiting: fn(),
    /// Whether to give up waiting for a lock or an event. Called now and then, while the thread
    /// holds no lock of the arena. If its argument is false it may answer as it did a moment ago.
    pub gives_up: fn(bool) -> bool,
}

thread_local! {
    static HOOKS: Cell<Option<&'static WaitHooks>> = const { Cell::new(None) };
    /// How many locks this thread holds for which others wait.
    static LOCKS: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread holds a lock for which others wait, such as a ring's: it does not
/// give up waiting, nor does work that can be put off.
pub struct Uninterruptible(());

impl Uninterruptible {
    /// Begins such a time.
    #[inline(always)]
    pub fn begin() -> Self {
        LOCKS.with(|locks| locks.set(locks.get() + 1));
        Uninterruptible(())
    }
}

impl Drop for Uninterruptible {
    #[inline(always)]
    fn drop(&mut self) {
        LOCKS.with(|locks| locks.set(locks.get() - 1));
    }
}

/// Restores the thread's hooks of before when it is dropped.
pub struct HooksGuard(Option<&'static WaitHooks>);

impl Drop for HooksGuard {
    #[inline(always)]
    fn drop(&mut self) {
        HOOKS.with(|cell| cell.set(self.0));
    }
}

/// Sets this thread's hooks, or none, until the result is dropped.
#[inline(always)]
pub fn use_hooks(hooks: Option<&'static WaitHooks>) -> HooksGuard {
    HooksGuard(HOOKS.with(|cell| cell.replace(hooks)))
}

fn hooks() -> Option<&'static WaitHooks> {
    HOOKS.with(Cell::get)
}

/// Calls this thread's hook, since it may have to wait.
pub fn before_waiting() {
    if let Some(hooks) = hooks() {
        (hooks.before_waiting)()
    }
}

/// Whether this thread holds a lock for which others wait.
pub fn is_uninterruptible() -> bool {
    LOCKS.with(Cell::get) > 0
}

/// Whether this thread gives up waiting, by its hook; not while it holds a lock for which others
/// wait.
pub fn gives_up() -> bool {
    !is_uninterruptible() && hooks().is_some_and(|hooks| (hooks.gives_up)(false))
}

/// As [`gives_up`], before or after a sleep so long that the answer of a moment ago is not enough.
pub fn gives_up_now() -> bool {
    !is_uninterruptible() && hooks().is_some_and(|hooks| (hooks.gives_up)(true))
}
