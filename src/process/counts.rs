//! Reference counts: how many references this process has to each block.
//!
//! The arena knows *that* a process holds a block, not how often: that is counted here, in private
//! memory, by the number of the block's row. The rules by which a count changes are told in
//! [`block`](super::block).
//!
//! A count is generic over its word, so that the same lines run under a model checker.

use crate::arena::format::{BlockId, CHUNKS};
use crate::arena::word::Atomic;
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The count of one block.
pub struct Count<A = AtomicU32>(A);

/// Another process may know of the block.
const SHARED: u32 = 1 << 31;
/// The block is cached for the next allocation.
const CACHED: u32 = 1 << 30;
const FLAGS: u32 = SHARED | CACHED;

impl<A: Atomic<Value = u32>> Default for Count<A> {
    fn default() -> Self {
        Count(A::new(0))
    }
}

impl<A: Atomic<Value = u32>> Count<A> {
    /// Begins the life of a block with one reference, or none.
    pub fn begin(&self, references: u32) {
        self.0.store(references, Ordering::Relaxed);
    }

    /// Turns the only reference into a cached block.
    pub fn enter_cache(&self) {
        self.0.store(CACHED, Ordering::Relaxed);
    }

    /// Turns a cached block into one with so many references; false if a thread has received it
    /// meanwhile, with a forged handle.
    #[inline]
    pub fn leave_cache(&self, references: u32) -> bool {
        if self.0.load(Ordering::Relaxed) != CACHED {
            return false;
        }
        let exchange = self
            .0
            .exchange(CACHED, references, Ordering::Relaxed, Ordering::Relaxed);
        exchange.is_ok()
    }

    /// Counts a reference that came from another process. Under the arena's
    /// lock: no thread drops the last reference meanwhile.
    pub fn receive(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.share();
    }

    /// Counts another reference.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that another process may know of the block from now on.
    pub fn share(&self) {
        if self.0.load(Ordering::Relaxed) & SHARED == 0 {
            self.0.fetch_or(SHARED, Ordering::Relaxed);
        }
    }

    /// Whether this process has a reference.
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !FLAGS > 0
    }

    /// Whether the block is cached.
    #[inline(always)]
    pub fn is_cached(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CACHED
    }

    /// Whether there is one reference, and no other process knows of the block.
    #[inline(always)]
    pub fn is_only(&self) -> bool {
        // Acquire, pairs with the release in `drop_one_of_many`.
        self.0.load(Ordering::Acquire) == 1
    }

    /// Drops a reference unless it is the last; whether it did.
    #[inline]
    pub fn drop_one_of_many(&self) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen & !FLAGS > 1 {
            match self.0.exchange(
                seen,
                seen - 1,
                // Release, pairs with the acquire of the thread that drops the last reference:
                // what this thread did to the bytes comes before.
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Drops a reference; whether it was the last.
    pub fn drop_one(&self) -> bool {
        // Acquire, pairs with the release in `drop_one_of_many` and here. Release, pairs with the
        // acquire here: if a block was received while its last reference was dropped, another thread
        // drops it after this one.
        self.0.fetch_sub(1, Ordering::AcqRel) & !FLAGS == 1
    }
}

/// The counts of all blocks, in chunks like their rows, made when one is first used.
pub struct Counts {
    chunks: Box<[AtomicPtr<Count>]>,
    shift: u32,
}

impl Counts {
    /// Counts for chunks of `1 << shift` rows.
    pub fn new(shift: u32) -> Self {
        let chunks = (0..CHUNKS).map(|_| AtomicPtr::new(null_mut()));
        Counts {
            chunks: chunks.collect(),
            shift,
        }
    }

    /// The count of a block that the arena has found, so that its number is in
    /// range.
    #[inline(always)]
    pub fn of(&self, block: BlockId) -> &Count {
        let chunk = &self.chunks[(block.0 >> self.shift) as usize];
        // Acquire, pairs with the release in `add`: the counts are zero.
        let first = match NonNull::new(chunk.load(Ordering::Acquire)) {
            Some(first) => first,
            None => self.add(chunk),
        };
        let index = block.0 & ((1 << self.shift) - 1);
        // SAFETY: a chunk has `1 << shift` counts, made by `add`, and `index` is below that.
        let count = unsafe { first.add(index as usize) };
        // SAFETY: `add` has initialized it, and chunks are freed when `self` is dropped, which the
        // result borrows.
        unsafe { count.as_ref() }
    }

    /// Whether a number, which may be any, is that of a cached block.
    #[inline]
    pub fn is_cached(&self, block: BlockId) -> bool {
        let chunk = self.chunks.get((block.0 >> self.shift) as usize);
        // Acquire, pairs with the release in `add`.
        let there = chunk.is_some_and(|chunk| !chunk.load(Ordering::Acquire).is_null());
        there && self.of(block).is_cached()
    }

    /// Notes of all blocks that another process may know of them.
    pub fn share_all(&self) {
        for count in self.all().filter(|count| count.is_held()) {
            count.share();
        }
    }

    /// In a forked child: the cached blocks are the parent's.
    pub fn forget_cached(&self) {
        for count in self.all() {
            count.leave_cache(0);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Count> {
        let chunks = self.chunks.iter().enumerate();
        // Acquire, pairs with the release in `add`.
        let there = chunks.filter(|(_, chunk)| !chunk.load(Ordering::Acquire).is_null());
        there.flat_map(|(number, _)| {
            let first = (number as u32) << self.shift;
            (first..first + (1 << self.shift)).map(|id| self.of(BlockId(id)))
        })
    }

    /// Makes a chunk. No lock: a fork in another thread must not find one held.
    #[cold]
    fn add(&self, chunk: &AtomicPtr<Count>) -> NonNull<Count> {
        let counts: Box<[Count]> = (0..1 << self.shift).map(|_| Count::default()).collect();
        let counts = Box::into_raw(counts).cast::<Count>();
        // Release, pairs with the acquire in `of`, `is_cached` and `all`: the counts are made before
        // they are found. Acquire if another thread's chunk is there, pairs with this release.
        let exchanged =
            chunk.compare_exchange(null_mut(), counts, Ordering::AcqRel, Ordering::Acquire);
        let first = match exchanged {
            Ok(_) => counts,
            Err(other) => {
                // SAFETY: made above, and nobody has seen it.
                unsafe { self.free(counts) };
                other
            }
        };
        // A box's pointer is never null, nor is one that another thread has stored in place of null.
        NonNull::new(first).expect("a chunk")
    }

    /// # Safety
    /// `counts` is a chunk made by `add`, and nobody refers to it.
    unsafe fn free(&self, counts: *mut Count) {
        let all = std::ptr::slice_from_raw_parts_mut(counts, 1 << self.shift);
        // SAFETY: `add` made the slice from a box of that length, and the caller promises that
        // nothing refers to it.
        drop(unsafe { Box::from_raw(all) });
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            let counts = chunk.load(Ordering::Relaxed);
            if !counts.is_null() {
                // SAFETY: a chunk of `add`; `self` is dropped.
                unsafe { self.free(counts) };
            }
        }
    }
}
