//! Private pages: blocks that no other process sees, forked children included.
//!
//! A block that was moved to a process is for that process alone, like memory that it has allocated
//! itself. But a forked child has its parent's mappings, and shared memory stays shared: what either
//! wrote would appear to the other. So before a fork the whole pages of such blocks are mapped
//! again, copy-on-write; parent and child then each have a private copy. Neither writes to the
//! arena's pages beneath, and both hold the block. Before the block is given back, the arena's pages
//! are mapped again.
//!
//! This is for blocks whose bytes lie in whole pages of their own. The rest of their first and last
//! page may be other blocks'.
//!
//! Memory for numpy's allocator is private, too. It is known by its address alone, and lent as a
//! block to be sent, if no fork has seen it.

use super::block::Block;
use super::membership::{Arena, Membership};
use super::wait_hooks::use_hooks;
use crate::arena::platform::Room;
use crate::error::{Error, Result};
use crate::sys::{self, probe, proc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Whole pages that are private to this process.
struct Pages {
    arena: Arc<Membership>,
    base: NonNull<u8>,
    length: usize,
    /// Where they are in the arena's memory object.
    offset: u64,
    /// Whether a fork has made them private copies.
    copied: bool,
    /// Whether they may differ from what the arena has, or be another process's too: they were
    /// there at a fork, or copied.
    forked: bool,
    /// How many [`PrivatePages`] there are for them.
    users: usize,
}

// SAFETY: the pointer is to memory that this process has mapped, which any thread may map again.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps them again: as private copies, or as what all processes share.
    fn map(&mut self, copied: bool) -> Result<()> {
        let (base, length, offset) = (self.base, self.length, self.offset);
        // SAFETY: whole pages within a block that this process holds, mapped to
        // where they are in the file: what can be read there stays the same, or
        // is not needed any more.
        unsafe {
            self.arena
                .platform
                .map_again(base, length, offset, copied)?
        };
        self.copied = copied;
        Ok(())
    }

    /// Makes them private copies; as they were if that cannot be.
    fn copy(&mut self) -> Result<()> {
        self.map(true).inspect_err(|_| {
            // Some kernels have unmapped them by then. If that lasts, they are mapped
            // again before the block is given back.
            self.copied = self.map(false).is_err();
        })
    }
}

/// All of them, by their addresses.
struct Table {
    pages: BTreeMap<usize, Pages>,
    placed: BTreeMap<usize, (PrivatePages, Block)>,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    pages: BTreeMap::new(),
    placed: BTreeMap::new(),
});

/// The table, held from before a fork until after it.
static TABLE_OVER_FORK: AtomicPtr<MutexGuard<'static, Table>> =
    AtomicPtr::new(std::ptr::null_mut());

fn lock() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most private pieces of memory, by [`can_make_private`]: as private copies each takes two more
/// mappings, and the system limits their number (65,530 by default, for the whole process).
const MOST_COPIES: usize = 1 << 14;

fn most_copies() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    // (65,530 unless it was set otherwise.)
    match MOST.get() {
        Some(most) => *most,
        None => match proc::most_mappings() {
            // It could not be asked; the next time perhaps.
            Err(Error::Os { errno, .. }) if sys::is_passing(errno) => MOST_COPIES,
            most => {
                *MOST.get_or_init(|| most.map_or(MOST_COPIES, |most| MOST_COPIES.min(most / 4)))
            }
        },
    }
}

/// Whether one more piece may be made private. What is received beyond that is to be copied into
/// other memory.
pub fn can_make_private() -> bool {
    let table = lock();
    table.pages.len() - table.placed.len() < most_copies()
}

/// The most pieces for numpy's allocator, beside those: all of them are made copies at a fork.
const MOST_PLACED: usize = MOST_COPIES / 4;

/// That a block's pages are private, until [`PrivatePages::end`].
#[must_use]
pub struct PrivatePages(usize);

impl PrivatePages {
    /// For the block of `size` bytes at `bytes`, which is at `offset` in the
    /// memory object of `arena`. None if it has no whole pages.
    fn new(
        arena: Arc<Membership>,
        bytes: NonNull<u8>,
        size: u64,
        offset: u64,
    ) -> Option<PrivatePages> {
        let page = probe::page_size();
        let first = bytes.as_ptr() as usize;
        let start = first.next_multiple_of(page);
        let end = (first + size as usize) / page * page;
        let base = NonNull::new(start as *mut u8)?;
        if end <= start {
            return None;
        }
        let pages = || Pages {
            arena,
            base,
            length: end - start,
            offset: offset + (start - first) as u64,
            copied: false,
            forked: false,
            users: 0,
        };
        lock().pages.entry(start).or_insert_with(pages).users += 1;
        Some(PrivatePages(start))
    }

    /// Whether the memory may become another process's: no child has seen it.
    pub fn is_unforked(&self) -> bool {
        lock().pages.get(&self.0).is_some_and(|pages| !pages.forked)
    }

    /// Makes them private copies now, so that no other process sees what is written to them; false
    /// if they are private for another object too, which may have written.
    ///
    /// # Errors
    /// The system's, if it has no room for another mapping.
    pub fn detach(&self) -> Result<bool> {
        let mut table = lock();
        let pages = table.pages.get_mut(&self.0);
        let Some(pages) = pages.filter(|pages| pages.users == 1 && !pages.copied) else {
            return Ok(false);
        };
        // They are not what the arena has, from the first write on.
        pages.forked = true;
        pages.copy().map(|()| true)
    }

    /// Ends it; false if the block must not be given back, because the arena's
    /// pages could not be mapped again.
    pub fn end(self) -> bool {
        let mut table = lock();
        let last = table.pages.get_mut(&self.0).is_some_and(|pages| {
            pages.users -= 1;
            pages.users == 0
        });
        let mut pages = last.then(|| table.pages.remove(&self.0)).flatten();
        let ended = match &mut pages {
            Some(pages) if pages.copied => pages.map(false).is_ok(),
            _ => true,
        };
        // Only then is the arena dropped, which may take other locks.
        drop(table);
        ended
    }
}

impl Block {
    /// Makes its whole pages private, also against children that this process forks; until the
    /// result is ended, before the block is dropped. None if it has no whole pages.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn make_private(&self) -> Result<Option<PrivatePages>> {
        let arena = &self.arena().0;
        let place = arena.core.locate(arena.member()?, self.which())?;
        let offset = arena.platform.offset_of(place.address);
        Ok(PrivatePages::new(
            arena.clone(),
            self.bytes(),
            self.size(),
            offset,
        ))
    }
}

/// Whether a quarter of what there is for shared memory stays free beside so many
/// bytes.
fn has_plenty(arena: &Arena, bytes: u64) -> bool {
    let core = &arena.0.core;
    let Room { all, free } = core.platform().room();
    let free = free.saturating_add(core.header().index.warm.get());
    free.checked_sub(bytes).is_some_and(|left| left >= all / 4)
}

/// Allocates `bytes` bytes in whole private pages of a block; None if the last of the arena's memory
/// is left for what is sent, or too many pieces were allocated.
///
/// Like all functions for numpy's allocator it sets no wait hooks: numpy calls it with the GIL held.
pub fn allocate_private(arena: &Arena, bytes: u64) -> Option<NonNull<u8>> {
    let _hooks = use_hooks(None);
    // So much is there up to the first whole page, and behind the last.
    let bytes = bytes.checked_add(2 * probe::page_size() as u64)?;
    if lock().placed.len() >= MOST_PLACED || !has_plenty(arena, bytes) {
        return None;
    }
    let block = Block::allocate(arena.clone(), bytes).ok()?;
    let own = block.make_private().ok()??;
    let start = own.0;
    lock().placed.insert(start, (own, block));
    NonNull::new(start as *mut u8)
}

/// How many bytes were allocated at the address; None if none were.
pub fn private_size(address: usize) -> Option<usize> {
    // Most that is asked for lies elsewhere.
    if address % probe::page_size() != 0 {
        return None;
    }
    let table = lock();
    table.placed.get(&address)?;
    table.pages.get(&address).map(|pages| pages.length)
}

/// Frees what was allocated at the address; false if nothing was.
pub fn free_private(address: usize) -> bool {
    let _hooks = use_hooks(None);
    if address % probe::page_size() != 0 {
        return false;
    }
    // (The table is unlocked before both are dropped.)
    let Some((own, block)) = lock().placed.remove(&address) else {
        return false;
    };
    if !own.end() {
        // It cannot be given back while this process lives.
        std::mem::forget(block);
    }
    true
}

/// The block of what was allocated at the address, to be sent; None if a fork has seen it, or
/// nothing was.
pub fn lend_private(address: usize) -> Option<Block> {
    let table = lock();
    let (_, block) = table.placed.get(&address)?;
    let pages = table.pages.get(&address)?;
    (!pages.forked).then(|| block.clone())
}

/// Before a fork: makes all of them private copies, and holds the table.
///
/// What cannot be, since the program has many mappings of its own, stays shared.
pub(super) fn before_fork() {
    let mut table = lock();
    for pages in table.pages.values_mut() {
        pages.forked = true;
        if !pages.copied {
            let _ = pages.copy();
        }
    }
    TABLE_OVER_FORK.store(Box::into_raw(Box::new(table)), Ordering::Relaxed);
}

/// After it, in the parent and in the child.
pub(super) fn after_fork() {
    let held = TABLE_OVER_FORK.swap(std::ptr::null_mut(), Ordering::Relaxed);
    if !held.is_null() {
        // SAFETY: made by `before_fork` from a box, and taken out once; this is
        // the thread that locked the table, in the child as in the parent.
        drop(unsafe { Box::from_raw(held) });
    }
}
