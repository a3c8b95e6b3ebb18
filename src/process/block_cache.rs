//! Small blocks that this process keeps for its next allocation.
//!
//! A block that was dropped, is small, and that no other process ever could know
//! of is kept, one of each size: the next allocation of that size takes it, and
//! neither touches shared memory. In the arena it is a block of this process's
//! all the while. Nobody can have a handle of it, so it needs no new generation.

use crate::arena::format::ALIGN;
use crate::arena::{BlockRef, Member};
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks of up to so many bytes are kept.
const LARGEST: u64 = 4096;

const EMPTY: u32 = 0;
/// A thread reads or writes it.
const BUSY: u32 = 1;
const FULL: u32 = 2;
const CLOSED: u32 = 3;

/// A block that is kept.
#[derive(Clone, Copy)]
pub(super) struct Spare {
    /// Which one.
    pub which: BlockRef,
    /// Where it begins.
    pub bytes: NonNull<u8>,
    /// As whom the process holds it.
    pub holder: Member,
}

struct Place {
    state: AtomicU32,
    spare: UnsafeCell<Option<Spare>>,
}

/// The blocks that a process keeps, by their size.
pub(super) struct Spares([Place; (LARGEST / ALIGN) as usize]);

// SAFETY: who has made a place BUSY has its cell alone.
unsafe impl Send for Spares {}
// SAFETY: as above.
unsafe impl Sync for Spares {}

impl Spares {
    pub fn new() -> Self {
        Spares(std::array::from_fn(|_| Place {
            state: AtomicU32::new(EMPTY),
            spare: UnsafeCell::new(None),
        }))
    }

    #[inline(always)]
    fn place(&self, size: u64) -> Option<&Place> {
        // Sizes are multiples of ALIGN and not 0.
        self.0.get((size / ALIGN) as usize - 1)
    }

    /// Keeps a block of `size` bytes, and does `then` before anybody can take
    /// it; false if it cannot.
    #[inline]
    pub fn keep(&self, size: u64, spare: Spare, then: impl FnOnce()) -> bool {
        self.place(size).is_some_and(|place| {
            place.exchange(EMPTY, BUSY) && {
                then();
                // SAFETY: BUSY by this thread.
                unsafe { *place.spare.get() = Some(spare) };
                place.leave(FULL);
                true
            }
        })
    }

    /// Takes a block of `size` bytes; what `use_it` makes of it, before the
    /// place can be closed.
    #[inline]
    pub fn take<T>(&self, size: u64, use_it: impl FnOnce(Spare) -> Option<T>) -> Option<T> {
        let place = self.place(size)?;
        // A look first: a locked instruction costs as much as the rest.
        if place.state.load(Ordering::Relaxed) != FULL || !place.exchange(FULL, BUSY) {
            return None;
        }
        // SAFETY: BUSY by this thread.
        let spare = unsafe { *place.spare.get() };
        let used = spare.and_then(use_it);
        place.leave(EMPTY);
        used
    }

    /// Takes all blocks, each for `each`.
    pub fn take_all(&self, each: impl Fn(Spare)) {
        for place in &self.0 {
            place.empty(EMPTY, &each);
        }
    }

    /// Takes all blocks, each for `each`, and keeps none from now on.
    pub fn close(&self, each: impl Fn(Spare)) {
        for place in &self.0 {
            while !place.empty(CLOSED, &each) {
                // Another thread is about to be done.
                std::thread::yield_now();
            }
        }
    }

    /// In a forked child: they are its parent's.
    pub fn forget(&self) {
        for place in &self.0 {
            // A thread that was BUSY is not here.
            place.leave(EMPTY);
        }
    }
}

impl Place {
    #[inline(always)]
    fn exchange(&self, old: u32, new: u32) -> bool {
        // Acquire, pairs with the release in `leave`.
        let exchange = self
            .state
            .compare_exchange(old, new, Ordering::Acquire, Ordering::Relaxed);
        exchange.is_ok()
    }

    #[inline(always)]
    fn leave(&self, state: u32) {
        self.state.store(state, Ordering::Release);
    }

    /// Empties the place and leaves it in `state`; false if another thread is
    /// at it.
    fn empty(&self, state: u32, each: impl FnOnce(Spare)) -> bool {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => true,
            EMPTY => state == EMPTY || self.exchange(EMPTY, state),
            FULL if self.exchange(FULL, BUSY) => {
                // SAFETY: BUSY by this thread.
                let spare = unsafe { *self.spare.get() };
                self.leave(state);
                if let Some(spare) = spare {
                    each(spare);
                }
                true
            }
            _ => false,
        }
    }
}
