//! What a thread wants to be told of while it works on an arena.
//!
//! An interpreter's thread works on an arena while it keeps all others from
//! running. That is right for what takes a tenth of a microsecond and wrong for
//! what waits; which of the two it will be is known only on the way. So the
//! thread says whom to tell, and is told before it waits.
//!
//! Whoever is told must not block: it may be under the arena's lock.

use std::cell::Cell;

/// What a thread wants to be told of.
pub struct Caller {
    /// What follows may take long. Told once or often.
    pub waits: fn(),
    /// Whether to give up waiting for the arena's lock. Asked while the thread
    /// holds nothing, now and then.
    pub gives_up: fn() -> bool,
}

thread_local! {
    static CALLER: Cell<Option<&'static Caller>> = const { Cell::new(None) };
    /// How many things this thread holds that others wait for.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
}

/// While it is there this thread holds something that others wait for, and does not
/// give up.
pub struct Holding(());

impl Holding {
    /// Begins to hold something.
    #[inline(always)]
    pub fn begin() -> Self {
        HOLDS.with(|holds| holds.set(holds.get() + 1));
        Holding(())
    }
}

impl Drop for Holding {
    #[inline(always)]
    fn drop(&mut self) {
        HOLDS.with(|holds| holds.set(holds.get() - 1));
    }
}

/// Puts back, when it is dropped, who was told before.
pub struct Told(Option<&'static Caller>);

impl Drop for Told {
    #[inline(always)]
    fn drop(&mut self) {
        CALLER.with(|cell| cell.set(self.0));
    }
}

/// Has `caller` told of what this thread does, until the result is dropped.
#[inline(always)]
pub fn tell(caller: Option<&'static Caller>) -> Told {
    Told(CALLER.with(|cell| cell.replace(caller)))
}

fn caller() -> Option<&'static Caller> {
    CALLER.with(Cell::get)
}

/// Tells this thread's caller that it may have to wait.
pub fn waits() {
    if let Some(caller) = caller() {
        (caller.waits)()
    }
}

/// Whether this thread holds something that others wait for.
pub fn holds() -> bool {
    HOLDS.with(Cell::get) > 0
}

/// Whether this thread's caller gives up waiting; not while it holds something.
pub fn gives_up() -> bool {
    !holds() && caller().is_some_and(|caller| (caller.gives_up)())
}
