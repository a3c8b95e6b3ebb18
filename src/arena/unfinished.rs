//! What this process has begun and could not finish, because the lock was not to be had again.
//!
//! Work outside the lock ends under it: a segment is opened, a block that was taken for the time
//! is released. If the lock's owner is stopped, or the thread is told to give up, the memory
//! would stay taken until the process ends. So what is half done is noted, and finished before
//! the next operation: by the upkeep, or by an operation that asks for all that can be had (reap,
//! trim, stats, check).

use super::blocks::BlockRef;
use super::core::{Core, Locked, Member};
use super::format::*;
use super::growth::building;
use crate::error::{Error, Result};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Something half done.
#[derive(Clone, Copy)]
pub(super) enum HalfDone {
    /// A segment that is BUILDING.
    Segment(usize),
    /// A block of this process's that nobody has a use for.
    Block(BlockRef),
}

/// A stack of it. (No mutex: in a forked child another thread of the parent may have it.)
pub(super) struct Unfinished(AtomicPtr<Node>);

struct Node {
    what: HalfDone,
    next: *mut Node,
}

impl Unfinished {
    pub const fn new() -> Self {
        Unfinished(AtomicPtr::new(null_mut()))
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Notes something.
    #[cold]
    pub fn note(&self, what: HalfDone) {
        let next = self.0.load(Ordering::Relaxed);
        let node = Box::into_raw(Box::new(Node { what, next }));
        let mut seen = next;
        // Release, pairs with the acquire in `take`.
        while let Err(now) =
            self.0
                .compare_exchange_weak(seen, node, Ordering::Release, Ordering::Relaxed)
        {
            seen = now;
            // SAFETY: nobody else has the node before the exchange succeeds.
            unsafe { (*node).next = seen };
        }
    }

    /// Takes all of it.
    fn take(&self) -> Vec<HalfDone> {
        let mut all = Vec::new();
        let mut node = self.0.swap(null_mut(), Ordering::Acquire);
        while !node.is_null() {
            // SAFETY: made by `note` from a box, and taken off the stack by this swap alone.
            let taken = unsafe { Box::from_raw(node) };
            all.push(taken.what);
            node = taken.next;
        }
        all
    }

    /// In a forked child: it is the parent's.
    pub fn forget(&self) {
        self.take();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.take();
    }
}

impl Core {
    /// Takes the arena's lock for the rest of `what`, which is noted if it is not to be had.
    ///
    /// # Errors
    /// As for [`lock`](Core::lock).
    pub(super) fn lock_to_finish(&self, me: Member, what: HalfDone) -> Result<Locked<'_>> {
        let locked = self.lock(me);
        if locked.is_err() {
            self.unfinished.note(what);
        }
        locked
    }

    /// Finishes what is half done; what cannot be is left for the next time.
    ///
    /// # Errors
    /// `Interrupted`: the thread is told to give up.
    pub(super) fn finish(&self, me: Member) -> Result<()> {
        match self.unfinished.is_empty() {
            true => Ok(()),
            false => self.finish_all(me),
        }
    }

    #[cold]
    fn finish_all(&self, me: Member) -> Result<()> {
        let mut all = self.unfinished.take().into_iter();
        while let Some(what) = all.next() {
            let finished = match what {
                HalfDone::Segment(number) => self.abandon_segment(me, number),
                HalfDone::Block(which) => self.release_if(me, which, || true).map(drop),
            };
            match finished {
                Err(Error::Busy { .. }) => self.unfinished.note(what),
                Err(Error::Interrupted) => {
                    self.unfinished.note(what);
                    all.for_each(|what| self.unfinished.note(what));
                    return Err(Error::Interrupted);
                }
                // Or it is no more: this process has left, or the arena is poisoned.
                _ => (),
            }
        }
        Ok(())
    }

    /// Removes a segment that this process has begun to make.
    fn abandon_segment(&self, me: Member, number: usize) -> Result<()> {
        let locked = self.lock(me)?;
        let row = &locked.header.segments[number];
        if row.state.get() == building(me.slot) {
            self.platform().remove(number);
            row.state.commit(ABSENT as u64);
        }
        Ok(())
    }
}
