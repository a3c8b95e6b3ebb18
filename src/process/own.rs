//! Blocks that are one process's own, also against the children that it forks.
//!
//! What was moved to a process is for it alone, like memory that it has allocated
//! itself. A forked child has its parent's mappings, and shared memory stays
//! shared: what either wrote would appear to the other. So before a fork the
//! whole pages of such blocks are mapped anew, as private copies that are made
//! when they are written to; parent and child then have each its own. Nobody
//! writes to the pages of the arena beneath, since parent and child both hold the
//! block. Before it is given back, the arena's pages are mapped again.
//!
//! It goes for blocks whose bytes lie in whole pages of their own; the rest of
//! their first and last page may be others'.

use super::attached::Inner;
use crate::arena::format::PAGE;
use crate::error::Result;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whole pages that are this process's own.
struct Pages {
    arena: Arc<Inner>,
    base: NonNull<u8>,
    length: usize,
    /// Where they are in the arena's memory object.
    offset: u64,
    /// Whether a fork has made them private copies.
    copied: bool,
}

// SAFETY: mapped memory, which any thread may map anew.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps them anew: as private copies, or as what all processes share.
    fn map(&mut self, copied: bool) -> Result<()> {
        let (base, length, offset) = (self.base, self.length, self.offset);
        // SAFETY: whole pages within a block that this process holds, mapped to
        // where they are in the file: what can be read there stays the same, or
        // is not needed any more.
        unsafe {
            self.arena
                .shared()
                .map_again(base, length, offset, copied)?
        };
        self.copied = copied;
        Ok(())
    }
}

type Table = BTreeMap<usize, Pages>;

static TABLE: Mutex<Table> = Mutex::new(BTreeMap::new());

/// The table, held from before a fork until after it.
static HELD: AtomicPtr<MutexGuard<'static, Table>> = AtomicPtr::new(std::ptr::null_mut());

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block's being its process's own.
pub struct Own(usize);

impl Own {
    /// For the block of `size` bytes at `bytes`, which is at `offset` in the
    /// memory object of `arena`. None if it has no whole pages.
    pub(super) fn new(
        arena: Arc<Inner>,
        bytes: NonNull<u8>,
        size: u64,
        offset: u64,
    ) -> Option<Own> {
        let page = PAGE as usize;
        let first = bytes.as_ptr() as usize;
        let start = first.next_multiple_of(page);
        let end = (first + size as usize) / page * page;
        let base = NonNull::new(start as *mut u8)?;
        if end <= start {
            return None;
        }
        let pages = Pages {
            arena,
            base,
            length: end - start,
            offset: offset + (start - first) as u64,
            copied: false,
        };
        lock().insert(start, pages);
        Some(Own(start))
    }

    /// Ends it; false if the block must not be given back, because the arena's
    /// pages could not be mapped again.
    pub fn end(self) -> bool {
        let pages = lock().remove(&self.0);
        // Its arena is let go of when the table is.
        match pages {
            Some(mut pages) if pages.copied => pages.map(false).is_ok(),
            _ => true,
        }
    }
}

/// Before a fork: makes all of them private copies, and holds the table.
///
/// One that cannot be (the system limits the number of mappings) stays shared.
pub(super) fn before_fork() {
    let mut table = lock();
    for pages in table.values_mut().filter(|pages| !pages.copied) {
        let _ = pages.map(true);
    }
    HELD.store(Box::into_raw(Box::new(table)), Ordering::Relaxed);
}

/// After it, in the parent and in the child.
pub(super) fn after_fork() {
    let held = HELD.swap(std::ptr::null_mut(), Ordering::Relaxed);
    if !held.is_null() {
        // SAFETY: made by `before_fork` from a box, and taken out once; this is
        // the thread that locked the table, in the child as in the parent.
        drop(unsafe { Box::from_raw(held) });
    }
}
