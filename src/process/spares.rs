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

    /// Keeps a block of `size` bytes; false if it cannot.
    #[inline]
    pub fn keep(&self, size: u64, spare: Spare) -> bool {
        self.place(size).is_some_and(|place| {
            place.exchange(EMPTY, BUSY) && {
                // SAFETY: BUSY by this thread.
                unsafe { *place.spare.get() = Some(spare) };
                place.leave(FULL);
                true
            }
        })
    }

    /// Takes a block of `size` bytes.
    #[inline]
    pub fn take(&self, size: u64) -> Option<Spare> {
        self.place(size)?.take()
    }

    /// Takes all blocks.
    pub fn take_all(&self) -> impl Iterator<Item = Spare> + '_ {
        self.0.iter().filter_map(Place::take)
    }

    /// Takes all blocks, and keeps none from now on.
    pub fn close(&self) -> impl Iterator<Item = Spare> + '_ {
        self.0.iter().filter_map(|place| loop {
            match place.state.load(Ordering::Relaxed) {
                EMPTY if place.exchange(EMPTY, CLOSED) => break None,
                FULL if place.exchange(FULL, BUSY) => {
                    // SAFETY: BUSY by this thread.
                    let spare = unsafe { *place.spare.get() };
                    place.leave(CLOSED);
                    break spare;
                }
                CLOSED => break None,
                // Another thread is about to be done.
                _ => std::thread::yield_now(),
            }
        })
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

    #[inline]
    fn take(&self) -> Option<Spare> {
        // A look first: a locked instruction costs as much as the rest.
        if self.state.load(Ordering::Relaxed) != FULL || !self.exchange(FULL, BUSY) {
            return None;
        }
        // SAFETY: BUSY by this thread.
        let spare = unsafe { *self.spare.get() };
        self.leave(EMPTY);
        spare
    }
}
