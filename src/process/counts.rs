//! How many references this process has to each block.
//!
//! The arena knows *that* a process holds a block, not how often: that is
//! counted here, in private memory, by the number of the block's row. A count
//! says beside whether another process may know of the block, since it was sent,
//! received or there at a fork. Of a block that no other process can know, the
//! last reference may be dropped without a look at shared memory.

use crate::arena::format::{BlockId, CHUNKS};
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The count of one block.
pub(super) struct Count(AtomicU32);

/// Another process may know of the block.
const SHARED: u32 = 1 << 31;
/// The block is kept for the next allocation.
const SPARE: u32 = 1 << 30;
const FLAGS: u32 = SHARED | SPARE;

impl Count {
    /// Begins the life of a block with one reference, or none.
    pub fn begin(&self, references: u32) {
        self.0.store(references, Ordering::Relaxed);
    }

    /// Turns the only reference into a spare block.
    pub fn become_spare(&self) {
        self.0.store(SPARE, Ordering::Relaxed);
    }

    /// Turns a spare block into one with so many references; false if somebody
    /// has received it, with a handle that was forged.
    #[inline]
    pub fn be_spare_no_more(&self, references: u32) -> bool {
        if self.0.load(Ordering::Relaxed) != SPARE {
            return false;
        }
        let exchange =
            self.0
                .compare_exchange(SPARE, references, Ordering::Relaxed, Ordering::Relaxed);
        exchange.is_ok()
    }

    /// Counts a reference that came from another process. Under the arena's
    /// lock: no thread lets go of the block meanwhile.
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
            match self.0.compare_exchange_weak(
                seen,
                seen - 1,
                // Release, pairs with the acquire of whoever drops the last
                // one: what this thread did to the bytes comes before.
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
        // Acquire, pairs with the release in `drop_one_of_many`.
        self.0.fetch_sub(1, Ordering::AcqRel) & !FLAGS == 1
    }
}

/// The counts of all blocks. Chunks of them come to be with the chunks of rows.
pub(super) struct Counts {
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
        // SAFETY: a chunk has `1 << shift` counts, made by `add`.
        let count = unsafe { first.add(index as usize) };
        // SAFETY: as above; chunks are freed with `self` only.
        unsafe { count.as_ref() }
    }

    /// Whether a number, which may be any, is that of a spare block.
    #[inline]
    pub fn is_spare(&self, block: BlockId) -> bool {
        let chunk = self.chunks.get((block.0 >> self.shift) as usize);
        // Acquire, pairs with the release in `add`.
        let there = chunk.is_some_and(|chunk| !chunk.load(Ordering::Acquire).is_null());
        there && self.of(block).0.load(Ordering::Relaxed) == SPARE
    }

    /// Notes of all blocks that another process may know of them.
    pub fn share_all(&self) {
        for count in self.all().filter(|count| count.is_held()) {
            count.share();
        }
    }

    /// In a forked child: the spare blocks are its parent's.
    pub fn forget_spares(&self) {
        for count in self.all() {
            count.be_spare_no_more(0);
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
        let counts: Box<[Count]> = (0..1 << self.shift)
            .map(|_| Count(AtomicU32::new(0)))
            .collect();
        let counts = Box::into_raw(counts).cast::<Count>();
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
        // What `Box` gives is never null, nor is what was exchanged for null.
        NonNull::new(first).expect("a chunk")
    }

    /// # Safety
    /// `counts` is a chunk made by `add`, and nobody refers to it.
    unsafe fn free(&self, counts: *mut Count) {
        let all = std::ptr::slice_from_raw_parts_mut(counts, 1 << self.shift);
        // SAFETY: as promised by the caller.
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
