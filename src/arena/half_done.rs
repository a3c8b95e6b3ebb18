//! What this process began outside the lock and has not finished.

use super::refs::BlockRef;
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
        // Release, pairs with the acquire in `take`: the node is written before. (Exchanges of
        // other threads that follow keep the pair: so it holds for all nodes below the first.)
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
    pub fn take(&self) -> Vec<HalfDone> {
        let mut all = Vec::new();
        // Acquire, pairs with the release in `note`.
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
