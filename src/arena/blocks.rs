//! Blocks: allocating, holding and releasing them.
//!
//! A block becomes LIVE by one store to its row's state word, and ceases to be LIVE by another. The
//! first store comes after the block's place, size and first holder are written. The second also
//! raises the generation, which is in the same word, so every reference to the old life is stale
//! from that instant.

use super::core::Core;
use super::format::*;
use super::locked::{Block, Locked};
use super::refs::{Allocated, BlockRef, Extent, Member};
use super::space::Joined;
use super::upkeep::LARGE;
use crate::error::{Error, Exhausted, Result};

/// How often an allocation makes room and tries again: others may take what it
/// made.
const ATTEMPTS: usize = 16;

impl<'a> Locked<'a> {
    /// The row of a block that is LIVE in the life that `which` names.
    #[inline(always)]
    pub fn live(&self, which: BlockRef) -> Result<Block<'a>> {
        if which.id.0 >= self.header.block_rows.get() {
            return Err(Error::BadHandle {
                why: "it names a block that never was",
            });
        }
        let block = self.block(which.id.0)?;
        match block.row.state.get() == state_word(which.generation, LIVE) {
            true => Ok(block),
            false => Err(Error::Stale),
        }
    }

    /// Makes a block of `size` bytes, a multiple of [`ALIGN`], held by this
    /// process.
    #[inline(always)]
    pub fn allocate(&self, size: u64) -> Result<Allocated> {
        self.need_rows(1)?;
        self.allocate_from_reserve(size)
    }

    /// [`Locked::allocate`], down to the last row.
    #[inline(always)]
    pub fn allocate_from_reserve(&self, size: u64) -> Result<Allocated> {
        let Some(extent) = self.find(size)? else {
            return Err(self.lacks_space(size));
        };
        self.meet_extent(extent)?;
        let allocated = self.take(extent, size)?;
        self.count(|c| &c.allocated, 1);
        Ok(allocated)
    }

    #[cold]
    fn lacks_space(&self, size: u64) -> Error {
        Error::Full {
            what: Exhausted::Space,
            asked: size,
            left: self.header.index.free.get(),
        }
    }

    /// Makes a block of the first `size` bytes of a free extent.
    #[inline(always)]
    pub fn take(&self, extent: Block<'a>, size: u64) -> Result<Allocated> {
        let place = self.check_extent(extent)?;
        if place.size < size {
            return Err(self.corrupted("a bin of free space"));
        }
        self.leave_bin(extent)?;
        let extent = match self.header.rows.listed_blocks.get() {
            NIL => extent,
            _ => self.core.move_down(self.me, extent)?,
        };
        let size = self.split(extent, size)?;
        self.note_use();
        self.set_holder(extent, Some(self.me.slot));
        // (Those of a free extent have the same numbers as those of a block.)
        let pages = extent.cache.whole.get() as u64 & PAGES;
        extent.row.marks.set(pages);
        extent.cache.tickets.set(0);
        extent.owned_tickets().set(0);
        let generation = extent.generation();
        extent.row.state.commit(state_word(generation, LIVE));
        self.count_live(extent.id, 1);
        Ok(Allocated {
            which: BlockRef {
                id: BlockId(extent.id),
                generation,
            },
            place: Extent { size, ..place },
            whole: extent.cache.is_whole(),
        })
    }

    /// Frees a block that no process holds and no ticket refers to; the tickets that it owns end.
    #[inline(always)]
    pub fn free(&self, block: Block<'a>) -> Result<()> {
        let pages = block.row.marks.get() & PAGES;
        let orphans = block.first_owned_or_nil();
        let size = block.size();
        let generation = block.generation() + 1;
        block.row.state.commit(state_word(generation, FREE));
        self.discount_live(block.id);
        // (New ones may have been written to.)
        block.cache.whole.set((pages & PAGES_THERE) as u32);
        block.warm().set(match pages {
            PAGES_RETURNED => 0,
            _ => size,
        });
        self.count(|c| &c.freed, 1);
        self.merge(block)?;
        self.note_freed(size);
        match orphans {
            NIL => Ok(()),
            first => self.end_orphans(first),
        }
    }

    /// Whether no process holds a block, no ticket refers to it and it is not the root.
    #[inline(always)]
    pub fn is_unwanted(&self, block: Block<'a>) -> bool {
        self.is_unheld(block)
            && block.cache.tickets.get() == 0
            && self.header.frozen.get() == 0
            && !self.is_root(block)
    }

    /// Whether the arena itself holds a block.
    #[inline(always)]
    pub fn is_root(&self, block: Block<'_>) -> bool {
        self.header.root.get() == block.id.wrapping_add(1)
    }

    /// Frees a block if it is no longer wanted; whether it did.
    #[inline(always)]
    pub fn free_if_unwanted(&self, block: Block<'a>) -> Result<bool> {
        if self.is_unwanted(block) {
            self.free(block)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Drops this process's reference; whether the block was freed.
    #[inline(always)]
    pub fn release(&self, which: BlockRef) -> Result<bool> {
        let block = self.live(which)?;
        let (word, bit) = SlotSet::place(self.me.slot);
        let holders = self.holders_at(block, word);
        if holders.get() & bit == 0 {
            return Err(Error::Stale);
        }
        holders.commit(holders.get() & !bit);
        self.free_if_unwanted(block)
    }

    /// Adds this process to the holders of a block.
    #[inline(always)]
    pub fn hold(&self, block: Block<'a>) {
        let (word, bit) = SlotSet::place(self.me.slot);
        let holders = self.holders_at(block, word);
        holders.commit(holders.get() | bit);
    }

    /// The rows of all blocks that were ever used.
    pub fn all_blocks(&self) -> impl DoubleEndedIterator<Item = Result<Block<'a>>> + '_ {
        (0..self.header.block_rows.get()).map(|id| self.block(id))
    }
}

impl Core {
    /// The size that a block for `bytes` bytes takes.
    #[inline(always)]
    pub fn block_size(&self, bytes: u64) -> Result<u64> {
        let size = bytes.max(1).checked_next_multiple_of(ALIGN);
        size.filter(|size| *size < LONGEST)
            .ok_or_else(|| self.lacks_room(bytes))
    }

    #[cold]
    fn lacks_room(&self, asked: u64) -> Error {
        Error::Full {
            what: Exhausted::Space,
            asked,
            left: self.platform().room().free,
        }
    }

    /// Allocates a block of at least `bytes` bytes, held by `me`.
    ///
    /// Its bytes are reserved, and whatever they were before. When there is no
    /// room, references of dead processes are dropped first; then a segment is
    /// added.
    ///
    /// # Errors
    /// `Full` if there is no room for it; nothing has changed then.
    #[inline(always)]
    pub fn allocate(&self, me: Member, bytes: u64) -> Result<(BlockRef, Extent)> {
        self.allocate_and(me, bytes, |_, _| ())
    }

    /// [`Core::allocate`]; `count` is told, under the lock, of the block (1), and
    /// once more if it must be released because it has no pages (0).
    #[inline(always)]
    pub fn allocate_and(
        &self,
        me: Member,
        bytes: u64,
        count: impl Fn(BlockId, u32),
    ) -> Result<(BlockRef, Extent)> {
        let size = self.block_size(bytes)?;
        if size >= LARGE {
            self.note_large();
        }
        let found = self.try_allocate(me, size, &count);
        let found = match found {
            Err(Error::Full { what, .. }) => self.make_room(me, size, what, &count),
            found => found,
        };
        self.ensure_pages(me, found?, &count)
    }

    #[inline(always)]
    fn try_allocate(
        &self,
        me: Member,
        size: u64,
        count: impl Fn(BlockId, u32),
    ) -> Result<Allocated> {
        let locked = self.lock(me)?;
        let allocated = locked.allocate(size)?;
        count(allocated.which.id, 1);
        Ok(allocated)
    }

    #[cold]
    fn make_room(
        &self,
        me: Member,
        size: u64,
        what: Exhausted,
        count: &dyn Fn(BlockId, u32),
    ) -> Result<Allocated> {
        let mut what = what;
        let mut reaped = false;
        for _ in 0..ATTEMPTS {
            let joined = what == Exhausted::Space && self.join(me, size)?;
            match what {
                _ if joined => (),
                _ if !reaped => {
                    self.reap(me)?;
                    reaped = true;
                }
                Exhausted::Blocks => self.add_block_rows(me)?,
                _ => self.add_segment(me, size)?,
            }
            what = match self.try_allocate(me, size, count) {
                Err(Error::Full { what, .. }) => what,
                found => return found,
            };
        }
        Err(Error::Full {
            what,
            asked: size,
            left: self.platform().room().free,
        })
    }

    /// Makes one free extent of `size` bytes or more of free neighbours of which some lack pages;
    /// whether there were such. Other processes get the lock in between.
    #[cold]
    pub(super) fn join(&self, me: Member, size: u64) -> Result<bool> {
        let mut first = 0;
        loop {
            let locked = self.lock(me)?;
            if locked.header.index.free.get() < size {
                return Ok(false);
            }
            match locked.join(first, size)? {
                Joined::Found => return Ok(true),
                Joined::NotIn(next) => first = next,
                Joined::Nowhere => return Ok(false),
            }
        }
    }

    /// Drops `me`'s reference; whether that freed the block.
    ///
    /// If only dead processes hold it then, it is freed at once. When more free memory than the budget keeps its pages, some of it
    /// is given back to the system.
    ///
    /// # Errors
    /// `Stale` if `me` does not hold it.
    #[inline(always)]
    pub fn release(&self, me: Member, which: BlockRef) -> Result<bool> {
        self.release_if(me, which, || true)
    }

    /// [`Core::release`], if `condition` holds when the lock is taken.
    #[inline(always)]
    pub fn release_if(
        &self,
        me: Member,
        which: BlockRef,
        condition: impl FnOnce() -> bool,
    ) -> Result<bool> {
        let (freed, size, warm, others) = {
            let locked = self.lock(me)?;
            if !condition() {
                return Ok(false);
            }
            let size = locked.live(which)?.size();
            let freed = locked.release(which)?;
            let others = if freed {
                None
            } else {
                locked.remaining(which)?
            };
            (freed, size, locked.header.index.warm.get(), others)
        };
        let budget = self.header().budget.get();
        // The block is released, whatever becomes of this.
        if freed && warm > budget {
            let _ = self.trim(me, budget);
        } else if freed && size >= LARGE {
            let _ = self.return_large(me, size, warm);
        }
        match others.filter(|others| self.are_gone(others)) {
            Some(_) => Ok(self.free_after_deaths(me, which).unwrap_or(false)),
            None => Ok(freed),
        }
    }

    /// Makes `me` the only holder of a block that no process holds, and for which one ticket is open;
    /// None if a process holds it, or a child may, or more tickets are open, or it is the root.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn claim_unheld(
        &self,
        me: Member,
        which: BlockRef,
        then: impl FnOnce(),
    ) -> Result<Option<Extent>> {
        let locked = self.lock(me)?;
        let block = locked.live(which)?;
        let waits = block.cache.tickets.get() > 1 || locked.is_root(block);
        if waits || !locked.is_unheld(block) || locked.header.frozen.get() != 0 {
            return Ok(None);
        }
        let place = locked.meet_extent(block)?;
        locked.hold(block);
        then();
        Ok(Some(place))
    }

    /// Where a block is that a process holds.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn locate(&self, me: Member, which: BlockRef) -> Result<Extent> {
        let locked = self.lock(me)?;
        let block = locked.live(which)?;
        locked.meet_extent(block)
    }
}
