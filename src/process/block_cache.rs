//! The block cache: small blocks for this process's next allocations, one of each size.
//!
//! The last reference to a small block that no other process can know of puts the block here, and
//! the next allocation of its size takes it out: neither touches shared memory. In the arena the
//! process holds the block all the while. No handle of it exists, so it needs no new generation.
//!
//! A place goes EMPTY → BUSY → FULL and FULL → BUSY → EMPTY; the thread that has made it BUSY owns
//! it until it stores the next state. At the exit of the process all places become CLOSED.

use crate::arena::format::ALIGN;
use crate::arena::word::Atomic;
use crate::arena::{BlockRef, Member};
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The largest block that is cached, in bytes.
pub const LARGEST: u64 = 4096;

const EMPTY: u32 = 0;
/// A thread reads or writes it.
const BUSY: u32 = 1;
const FULL: u32 = 2;
const CLOSED: u32 = 3;

/// A cached block.
#[derive(Clone, Copy)]
pub struct CachedBlock {
    /// Which one.
    pub which: BlockRef,
    /// Where it begins.
    pub bytes: NonNull<u8>,
    /// The member as which the process holds it.
    pub holder: Member,
}

struct CachePlace<A> {
    state: A,
    cached: UnsafeCell<Option<CachedBlock>>,
}

/// The cached blocks of a process, by their size.
pub struct BlockCache<A = AtomicU32>([CachePlace<A>; (LARGEST / ALIGN) as usize]);

// SAFETY: a cached block is two numbers and a pointer to shared memory, which any thread may reach.
unsafe impl<A: Send> Send for BlockCache<A> {}
// SAFETY: a cell is reached only by the thread that has made its place BUSY. The exchange that does
// so acquires what the release in `leave` has published, so accesses never overlap.
unsafe impl<A: Sync> Sync for BlockCache<A> {}

impl<A: Atomic<Value = u32>> Default for BlockCache<A> {
    fn default() -> Self {
        BlockCache(std::array::from_fn(|_| CachePlace {
            state: A::new(EMPTY),
            cached: UnsafeCell::new(None),
        }))
    }
}

impl<A: Atomic<Value = u32>> BlockCache<A> {
    #[inline(always)]
    fn place(&self, size: u64) -> Option<&CachePlace<A>> {
        // Sizes are multiples of ALIGN and not 0.
        self.0.get((size / ALIGN) as usize - 1)
    }

    /// Puts a block of `size` bytes in, and does `then` before any thread can take it; false if the
    /// place for that size is not EMPTY, or there is none.
    #[inline]
    pub fn put(&self, size: u64, block: CachedBlock, then: impl FnOnce()) -> bool {
        self.place(size).is_some_and(|place| {
            place.exchange(EMPTY, BUSY) && {
                then();
                // SAFETY: this thread has made the place BUSY, and owns its cell until it leaves it.
                unsafe { *place.cached.get() = Some(block) };
                place.leave(FULL);
                true
            }
        })
    }

    /// Takes a block of `size` bytes out; what `use_it` makes of it, before the place can be
    /// closed.
    #[inline]
    pub fn take<T>(&self, size: u64, use_it: impl FnOnce(CachedBlock) -> Option<T>) -> Option<T> {
        let place = self.place(size)?;
        // A look first: a locked instruction costs as much as the rest.
        if place.state.load(Ordering::Relaxed) != FULL || !place.exchange(FULL, BUSY) {
            return None;
        }
        // SAFETY: this thread has made the place BUSY, and owns its cell until it leaves it.
        let cached = unsafe { *place.cached.get() };
        let used = cached.and_then(use_it);
        place.leave(EMPTY);
        used
    }

    /// Takes all blocks out, each for `each`.
    pub fn take_all(&self, each: impl Fn(CachedBlock)) {
        for place in &self.0 {
            place.empty(EMPTY, &each);
        }
    }

    /// Takes all blocks out, each for `each`, and caches none from now on.
    pub fn close(&self, each: impl Fn(CachedBlock)) {
        for place in &self.0 {
            while !place.empty(CLOSED, &each) {
                // Another thread is about to be done.
                std::thread::yield_now();
            }
        }
    }

    /// In a forked child: the blocks are the parent's.
    pub fn forget(&self) {
        for place in &self.0 {
            // (A thread of the parent that had made it BUSY is not here.)
            place.leave(EMPTY);
        }
    }
}

impl<A: Atomic<Value = u32>> CachePlace<A> {
    #[inline(always)]
    fn exchange(&self, old: u32, new: u32) -> bool {
        // Acquire, pairs with the release in `leave`.
        let exchange = self
            .state
            .exchange(old, new, Ordering::Acquire, Ordering::Relaxed);
        exchange.is_ok()
    }

    #[inline(always)]
    fn leave(&self, state: u32) {
        // Release, pairs with the acquire in `exchange`: what this thread did to the cell and to
        // the block comes before.
        self.state.store(state, Ordering::Release);
    }

    /// Empties the place and leaves it in `state`; false if another thread has made it BUSY.
    fn empty(&self, state: u32, each: impl FnOnce(CachedBlock)) -> bool {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => true,
            EMPTY => state == EMPTY || self.exchange(EMPTY, state),
            FULL if self.exchange(FULL, BUSY) => {
                // SAFETY: this thread has made the place BUSY, and owns its cell until it leaves it.
                let cached = unsafe { *self.cached.get() };
                self.leave(state);
                if let Some(block) = cached {
                    each(block);
                }
                true
            }
            _ => false,
        }
    }
}
