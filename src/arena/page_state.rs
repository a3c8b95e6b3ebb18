//! Page state: memory is reserved before it is handed out, and free memory keeps its pages.
//!
//! Filling a page that a freed block has left is many times faster than filling one that the kernel
//! must first find and clear. So free memory keeps its pages, up to a budget and for a time (see
//! `upkeep`); the rest is given back. A free extent that may lack pages is reserved before a block
//! of it is handed out, so that a write to the block cannot fail.
//!
//! Both take long and are done outside the lock, on a block that belongs to this process meanwhile.
//! What is known of its pages is in its row, on the safe side: a death half-way leaves "unknown".
//!
//! A small block that may lack pages is reserved with what lies behind it, so that only one of many
//! small blocks pays for a system call.

use super::core::Core;
use super::format::*;
use super::half_done::HalfDone;
use super::locked::{Block, Locked};
use super::refs::{Allocated, BlockRef, Extent, Member};
use crate::activity::{Event, EVENTS};
use crate::error::Result;

/// Free extents below this size keep their pages: they are shared with
/// neighbours, and the call costs more than it gains.
pub(super) const LEAST_RETURN: u64 = 64 << 10;

/// How many bytes are reserved at one time, at least, where free memory may lack pages.
const AHEAD: u64 = 64 << 10;

/// How many extents are given back by one call, so that it ends.
const RETURNS: usize = 64;

impl<'a> Locked<'a> {
    /// Records what is known of the pages of a block of this process's.
    fn mark_pages(&self, which: BlockRef, pages: u64) -> Result<()> {
        let row = self.live(which)?.row;
        row.marks.commit(row.marks.get() & !PAGES | pages);
        Ok(())
    }

    /// Takes what lies behind a block of this process's and may lack pages, up to the end of the
    /// bytes that are reserved together; None if that is nothing, or if rows are short.
    fn take_ahead(&self, which: BlockRef) -> Result<Option<(BlockRef, Extent)>> {
        let block = self.live(which)?;
        let next = block.cache.next.get();
        if block.size() >= AHEAD || next == NIL || self.need_rows(1).is_err() {
            return Ok(None);
        }
        let extent = self.block(next)?;
        if extent.state() != FREE || extent.cache.is_whole() {
            return Ok(None);
        }
        let start = extent.address().offset();
        if extent.address().0 != block.address().0.wrapping_add(block.size()) {
            return Err(self.corrupted("the links between neighbours"));
        }
        let end = (block.address().offset() + AHEAD) / PAGE * PAGE;
        if end <= start {
            return Ok(None);
        }
        self.meet_extent(extent)?;
        // It is not used, and free again soon.
        let least = self.header.index.least_warm.get();
        let taken = self.take(extent, (end - start).min(extent.size()))?;
        self.header.index.least_warm.set(least);
        Ok(Some((taken.which, taken.place)))
    }

    /// The largest free extent with pages to give back, or nearly.
    fn most_to_return(&self) -> Result<Option<Block<'a>>> {
        let index = &self.header.index;
        for class in (0..CLASSES)
            .rev()
            .filter(|c| index.classes.get() >> c & 1 == 1)
        {
            for head in index.heads[class].iter().rev() {
                let mut id = head.get();
                // Cold ones among them are passed over, up to a bound.
                for _ in 0..RETURNS {
                    if id == NIL {
                        break;
                    }
                    let extent = self.block(id)?;
                    if extent.size() < LEAST_RETURN {
                        break;
                    }
                    if extent.warm().get() >= LEAST_RETURN {
                        return Ok(Some(extent));
                    }
                    id = extent.cache.bin_next.get();
                }
            }
        }
        Ok(None)
    }

    /// Takes memory whose pages should go, as a block of this process's, if more
    /// bytes of free memory have pages than are to `stay`.
    fn take_surplus(&self, stay: u64) -> Result<Option<(BlockRef, Extent)>> {
        let index = &self.header.index;
        let warm = index.warm.get();
        let surplus = warm.saturating_sub(stay);
        if surplus < LEAST_RETURN {
            return Ok(None);
        }
        let Some(extent) = self.most_to_return()? else {
            return Ok(None);
        };
        self.meet_extent(extent)?;
        let size = match extent.cache.is_whole() {
            // No more than that, and what lies in pages that are not its own.
            true => (surplus.next_multiple_of(PAGE) + 2 * PAGE).min(extent.size()),
            // Which of its pages are there is not known.
            false => extent.size(),
        };
        let least = index.least_warm.get();
        let taken = self.take(extent, size)?;
        self.note_return(least, warm.saturating_sub(index.warm.get()));
        self.mark_pages(taken.which, PAGES_UNKNOWN)?;
        Ok(Some((taken.which, taken.place)))
    }
}

impl Core {
    /// Whether a block just allocated holds zeros: nobody has written there since the system gave
    /// its memory.
    ///
    /// # Errors
    /// As for any operation.
    pub fn is_new(&self, me: Member, which: BlockRef) -> Result<bool> {
        let marks = &self.lock(me)?.live(which)?.row.marks;
        Ok(marks.get() & PAGES == PAGES_NEW)
    }

    /// Sees to it that a block just allocated has all its pages.
    ///
    /// # Errors
    /// `Full` if the system has no memory; the block is released then.
    #[inline(always)]
    pub(super) fn ensure_pages(
        &self,
        me: Member,
        allocated: Allocated,
        count: &dyn Fn(BlockId, u32),
    ) -> Result<(BlockRef, Extent)> {
        let (which, place) = (allocated.which, allocated.place);
        if !allocated.whole {
            self.reserve_pages(me, which, place, count)?;
        }
        Ok((which, place))
    }

    #[cold]
    fn reserve_pages(
        &self,
        me: Member,
        which: BlockRef,
        place: Extent,
        count: &dyn Fn(BlockId, u32),
    ) -> Result<()> {
        match self.reserve_ahead(me, which, place) {
            Ok(()) => {
                // Unmarked they are there as well, and reserved once more.
                let _ = self
                    .lock(me)
                    .and_then(|locked| locked.mark_pages(which, PAGES_THERE));
                Ok(())
            }
            Err(error) => {
                let released = self.release_if(me, which, || {
                    count(which.id, 0);
                    true
                });
                if released.is_err() {
                    self.unfinished.note(HalfDone::Block(which));
                }
                Err(self.without_memory(error, place.size))
            }
        }
    }

    /// Reserves a block, and what lies behind it if that fits.
    fn reserve_ahead(&self, me: Member, which: BlockRef, place: Extent) -> Result<()> {
        let ahead = match self.lock(me) {
            Ok(locked) => {
                let taken = locked.take_ahead(which)?;
                taken.map(|(ahead, space)| (ahead, space, locked.begin_work()))
            }
            // The block alone needs no lock.
            Err(_) => None,
        };
        let Some((ahead, space, _work)) = ahead else {
            return self.platform().reserve(place.address, place.size);
        };
        let size = place.size + space.size;
        let reserved = self.platform().reserve(place.address, size);
        if let Ok(locked) = self.lock_to_finish(me, HalfDone::Block(ahead)) {
            if reserved.is_ok() {
                locked.mark_pages(ahead, PAGES_THERE)?;
            }
            locked.release(ahead)?;
        }
        match reserved {
            Ok(()) => Ok(()),
            Err(_) => self.platform().reserve(place.address, place.size),
        }
    }

    /// Gives pages of free memory back to the system, as long as more bytes have
    /// pages than are to `stay`; how many went.
    ///
    /// It ends after some of the largest extents: another call does the rest.
    #[cold]
    pub fn trim(&self, me: Member, stay: u64) -> Result<u64> {
        self.finish(me)?;
        let mut sum = 0;
        for _ in 0..RETURNS {
            let (taken, _work) = {
                let locked = self.lock(me)?;
                (locked.take_surplus(stay)?, locked.begin_work())
            };
            let Some((which, place)) = taken else {
                break;
            };
            let (address, bytes) = (place.address, self.bytes(place));
            // SAFETY: the block is this process's own, of a segment that
            // `take_surplus` has mapped, and nothing is in it.
            let returned = unsafe { self.platform().give_back(address, bytes, place.size) };
            let locked = self.lock_to_finish(me, HalfDone::Block(which))?;
            if returned.is_ok() {
                locked.mark_pages(which, PAGES_RETURNED)?;
                locked.count(|c| &c.returned, place.size);
                locked.count(|c| &c.returns, (sum == 0) as u64);
                sum += place.size;
            }
            locked.release(which)?;
            if returned.is_err() {
                break;
            }
        }
        if sum > 0 {
            let (bytes, segments) = (sum, 0);
            EVENTS.note(self.uuid(), Event::Returned { bytes, segments });
        }
        Ok(sum)
    }
}
