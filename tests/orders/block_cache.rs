//! The block cache: who takes a block out sees what was done to it before it was put in.
//!
//! Properties:
//!
//! * a cached block is used by one thread at a time, which sees all that came before;
//! * a block is lost by nobody: it is cached in the end, or was taken out for good.

use crate::model::{check, preempted, ModelAtomic, ALL};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use shared_numpy::arena::format::{BlockId, SlotId};
use shared_numpy::arena::{BlockRef, Member};
use shared_numpy::process::block_cache::{BlockCache, CachedBlock};
use shared_numpy::process::counts::Count;
use std::ptr::NonNull;

const SIZE: u64 = 64;

struct Process {
    cache: BlockCache<ModelAtomic>,
    count: Count<ModelAtomic>,
    /// The block's bytes.
    bytes: UnsafeCell<u32>,
    /// Accessed when the cell of the cache's place is.
    place: UnsafeCell<()>,
}

impl Process {
    /// A process with one block, in its cache.
    fn new() -> Arc<Self> {
        let process = Process {
            cache: BlockCache::default(),
            count: Count::default(),
            bytes: UnsafeCell::new(0),
            place: UnsafeCell::new(()),
        };
        process.count.begin(1);
        process.put();
        Arc::new(process)
    }

    fn put(&self) -> bool {
        let block = CachedBlock {
            which: BlockRef {
                id: BlockId(0),
                generation: 0,
            },
            bytes: NonNull::dangling(),
            holder: Member {
                slot: SlotId(0),
                generation: 1,
            },
        };
        self.cache.put(SIZE, block, || {
            self.count.enter_cache();
            self.place.with_mut(|_| ());
        })
    }

    fn take(&self) -> bool {
        let taken = self.cache.take(SIZE, |_| {
            self.place.with(|_| ());
            self.count.leave_cache(1).then_some(())
        });
        taken.is_some()
    }

    /// Allocates from the cache, uses the block, and drops it again.
    fn use_once(&self) {
        if self.take() {
            // SAFETY: `loom` has just seen that nobody else accesses them.
            self.bytes.with_mut(|bytes| unsafe { *bytes += 1 });
            assert!(self.count.is_only());
            assert!(self.put());
        }
    }

    fn times_used(&self) -> u32 {
        // SAFETY: `loom` has just seen that nobody writes them.
        self.bytes.with(|bytes| unsafe { *bytes })
    }
}

#[test]
fn a_cached_block_is_used_by_one_at_a_time() {
    check(preempted(3), || {
        let process = Process::new();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let process = process.clone();
                thread::spawn(move || process.use_once())
            })
            .collect();
        process.use_once();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!((1..=3).contains(&process.times_used()));
        assert!(process.count.is_cached());
        assert!(process.take());
    });
}

#[test]
fn a_cached_block_is_given_back_after_all_uses() {
    check(ALL, || {
        let process = Process::new();
        let other = process.clone();
        let thread = thread::spawn(move || other.use_once());
        process.cache.take_all(|_| {
            process.place.with(|_| ());
            assert!(process.count.leave_cache(0));
            // SAFETY: `loom` has just seen that nobody else accesses them.
            process.bytes.with_mut(|bytes| unsafe { *bytes += 10 });
        });
        thread.join().unwrap();
        // The thread has used it or not, and has put it back after the cache was emptied or not.
        let [used, cached] = [process.times_used(), process.count.is_cached() as u32];
        assert!(
            matches!((used, cached), (0 | 1, 1) | (10 | 11, 0)),
            "{used} {cached}"
        );
    });
}
