//! The space index: where free memory is. A cache.
//!
//! Blocks and free extents tile the data of each segment; `previous` and `next`
//! link neighbours, so that a freed block merges with free ones beside it. Free
//! extents are also in bins by size, two levels of them: a class for each power
//! of two, 16 bins in a class, and a bit for each class and bin that has an
//! extent, so that a fitting one is found by two searches for a bit (TLSF, as
//! Masmano and others described it in 2004). Everything takes the same time
//! however many blocks there are.
//!
//! A free extent knows how many of its bytes still have memory (`warm`, at
//! most) and whether all have (`whole`). The sums over all free extents are
//! kept in the header. An extent that is whole is not merged with one that is
//! not: what a program uses again and again stays whole beside memory that was
//! given back. Only when nothing fits are neighbours of both kinds joined, as many
//! as the request needs: the rest of the last one keeps what it is.

use super::format::*;
use super::locked::{Block, Locked};
use super::rows::SLICE;
use crate::error::{Error, Exhausted, Result};

/// Rows of blocks that stay unused until one is needed to make more of them,
/// or to describe a new segment.
const RESERVED_ROWS: u32 = 4;

/// How many extents of the asked size's own bin are looked at for one that
/// fits before a larger bin is opened.
const LOOKS: usize = 8;

/// How many of them are looked at before memory is said to be wanting. `join` finds the others.
const LAST_LOOKS: usize = 256;

/// What came of a search for free neighbours.
pub(super) enum Joined {
    /// One free extent was made of some.
    Found,
    /// There are none before this row.
    NotIn(u32),
    /// There are none.
    Nowhere,
}

/// The class and bin for extents of `size` bytes.
#[inline(always)]
fn bin_for(size: u64) -> (usize, usize) {
    let units = size / ALIGN;
    let log = units.ilog2() as usize;
    match log {
        // Below 16 units each size has a bin of its own, in class 0.
        0..=3 => (0, units as usize),
        _ => (log - 3, (units >> (log - 4)) as usize & 15),
    }
}

impl<'a> Locked<'a> {
    /// Refuses if fewer than `rows` rows are left beside those that are kept.
    #[inline(always)]
    pub fn need_rows(&self, rows: u32) -> Result<()> {
        match self.rows_left() >= rows + RESERVED_ROWS {
            true => Ok(()),
            false => Err(Error::Full {
                what: Exhausted::Blocks,
                asked: self.header.block_rows.get() as u64,
                left: 0,
            }),
        }
    }

    /// How many rows of blocks are unused.
    #[inline(always)]
    pub fn rows_left(&self) -> u32 {
        let never = self
            .block_room()
            .saturating_sub(self.header.block_rows.get());
        never.saturating_add(self.header.index.spare_blocks.get())
    }

    /// Takes a row that is unused; None if there is none.
    #[inline(always)]
    pub fn take_row(&self) -> Result<Option<Block<'a>>> {
        let index = &self.header.index;
        let mut id = index.spare_block.get();
        if id == NIL && index.spare_blocks.get() != 0 {
            self.core.list_blocks(self.me)?;
            id = index.spare_block.get();
        }
        if id != NIL {
            let block = self.block(id)?;
            if block.state() != UNUSED {
                return Err(self.corrupted("the list of unused rows"));
            }
            index.spare_block.set(block.cache.bin_next.get());
            index.spare_blocks.sub(1);
            return Ok(Some(block));
        }
        let id = self.header.block_rows.get();
        if id >= self.block_room() {
            return Ok(None);
        }
        let block = self.block(id)?;
        // Before its first use: recovery looks at the rows below only.
        self.header.block_rows.commit(id + 1);
        Ok(Some(block))
    }

    /// Puts a row among those that are unused.
    #[inline(always)]
    pub fn leave_row(&self, block: Block<'_>) {
        let index = &self.header.index;
        block.row.state.set(state_word(block.generation(), UNUSED));
        index.spare_blocks.add(1);
        if block.id < self.header.rows.listed_blocks.get() {
            block.cache.bin_next.set(index.spare_block.get());
            index.spare_block.set(block.id);
        }
    }

    /// Puts a free extent into its bin and its bytes into the sums.
    #[inline]
    pub fn enter_bin(&self, extent: Block<'a>) -> Result<()> {
        let index = &self.header.index;
        let (class, bin) = bin_for(extent.size().max(ALIGN));
        let Some(head) = index.heads.get(class).map(|bins| &bins[bin]) else {
            return Err(self.corrupted("the size of a free extent"));
        };
        let first = head.get();
        extent.cache.bin_previous.set(NIL);
        extent.cache.bin_next.set(first);
        if first != NIL {
            self.block(first)?.cache.bin_previous.set(extent.id);
        }
        head.set(extent.id);
        index.bins[class].set(index.bins[class].get() | 1 << bin);
        index.classes.set(index.classes.get() | 1 << class);
        index.free.add(extent.size());
        index.warm.add(extent.warm().get());
        Ok(())
    }

    /// Takes a free extent out of its bin and its bytes out of the sums.
    #[inline]
    pub fn leave_bin(&self, extent: Block<'a>) -> Result<()> {
        let index = &self.header.index;
        let (class, bin) = bin_for(extent.size().max(ALIGN));
        let Some(head) = index.heads.get(class).map(|bins| &bins[bin]) else {
            return Err(self.corrupted("the size of a free extent"));
        };
        let (previous, next) = (extent.cache.bin_previous.get(), extent.cache.bin_next.get());
        if next != NIL {
            self.block(next)?.cache.bin_previous.set(previous);
        }
        if previous != NIL {
            self.block(previous)?.cache.bin_next.set(next);
        } else {
            head.set(next);
            if next == NIL {
                let bins = index.bins[class].get() & !(1 << bin);
                index.bins[class].set(bins);
                if bins == 0 {
                    index.classes.set(index.classes.get() & !(1 << class));
                }
            }
        }
        index.free.sub(extent.size());
        index.warm.sub(extent.warm().get());
        Ok(())
    }

    /// Finds a free extent of at least `size` bytes.
    #[inline(always)]
    pub fn find(&self, size: u64) -> Result<Option<Block<'a>>> {
        let index = &self.header.index;
        let (class, bin) = bin_for(size);
        if class >= CLASSES {
            return Ok(None);
        }
        // The asked size's own bin, which holds some that are smaller: a block
        // that was freed and is wanted again is here.
        if let Some(extent) = self.look_through(class, bin, size, LOOKS)? {
            return Ok(Some(extent));
        }
        // Whatever is in a later bin fits.
        let later = index.bins[class].get() & !(u32::MAX >> (31 - bin));
        if later != 0 {
            return self.first_of(class, later).map(Some);
        }
        let classes = index.classes.get() & !(u64::MAX >> (63 - class));
        if classes != 0 {
            let class = classes.trailing_zeros() as usize;
            if class >= CLASSES {
                return Err(self.corrupted("the index of free space"));
            }
            return self.first_of(class, index.bins[class].get()).map(Some);
        }
        // More of its own bin, before memory is said to be wanting.
        self.look_through(class, bin, size, LAST_LOOKS)
    }

    /// The first extent of the lowest bin in `bins`.
    #[inline(always)]
    fn first_of(&self, class: usize, bins: u32) -> Result<Block<'a>> {
        let heads = &self.header.index.heads[class];
        let id = heads.get(bins.trailing_zeros() as usize).map(|h| h.get());
        let extent = self.block(id.unwrap_or(NIL))?;
        match extent.state() {
            FREE => Ok(extent),
            _ => Err(self.corrupted("a bin of free space")),
        }
    }

    #[inline]
    fn look_through(
        &self,
        class: usize,
        bin: usize,
        size: u64,
        looks: usize,
    ) -> Result<Option<Block<'a>>> {
        let mut id = self.header.index.heads[class][bin].get();
        // No bin has more extents than there are rows.
        for _ in 0..looks.min(self.header.block_rows.get() as usize) {
            if id == NIL {
                break;
            }
            let extent = self.block(id)?;
            if extent.state() != FREE {
                return Err(self.corrupted("a bin of free space"));
            }
            if extent.size() >= size {
                return Ok(Some(extent));
            }
            id = extent.cache.bin_next.get();
        }
        Ok(None)
    }

    /// The neighbour `id` of an extent, if there is one, it is free, and it is
    /// whole if the extent is.
    #[inline(always)]
    fn like_neighbour(&self, id: u32, extent: Block<'_>) -> Result<Option<Block<'a>>> {
        if id == NIL {
            return Ok(None);
        }
        let block = self.block(id)?;
        let like = block.state() == FREE && block.cache.is_whole() == extent.cache.is_whole();
        Ok(like.then_some(block))
    }

    /// Makes `id`, if it is a row, the one whose neighbour before is `previous`.
    #[inline(always)]
    fn link_back(&self, id: u32, previous: u32) -> Result<()> {
        if id != NIL {
            self.block(id)?.cache.previous.set(previous);
        }
        Ok(())
    }

    /// Cuts a free extent that is in no bin to `size` bytes; the rest becomes a
    /// free extent of its own. Without a row for it the extent stays whole.
    /// Returns the size that it has then.
    #[inline(always)]
    pub fn split(&self, extent: Block<'a>, size: u64) -> Result<u64> {
        let whole_size = extent.size();
        let rest_size = whole_size.saturating_sub(size);
        if rest_size < ALIGN {
            return Ok(whole_size);
        }
        let Some(rest) = self.take_row()? else {
            return Ok(whole_size);
        };
        let next = extent.cache.next.get();
        let place = extent.row.address.get().wrapping_add(size);
        rest.row.address.set(place);
        rest.row.size.set(rest_size);
        rest.cache.previous.set(extent.id);
        rest.cache.next.set(next);
        self.link_back(next, rest.id)?;
        let warm = extent.warm().get();
        rest.cache.whole.set(extent.cache.whole.get());
        rest.warm().set(warm.min(rest_size));
        rest.row.state.set(state_word(rest.generation(), FREE));
        extent.cache.next.set(rest.id);
        extent.warm().set(warm.min(size));
        extent.row.size.set(size);
        self.enter_bin(rest)?;
        Ok(size)
    }

    /// Merges a free extent that is in no bin with its like beside it, and puts
    /// the result into its bin.
    #[inline(always)]
    pub fn merge(&self, extent: Block<'a>) -> Result<()> {
        let mut extent = extent;
        if let Some(after) = self.like_neighbour(extent.cache.next.get(), extent)? {
            self.leave_bin(after)?;
            self.absorb(extent, after)?;
        }
        if let Some(before) = self.like_neighbour(extent.cache.previous.get(), extent)? {
            self.leave_bin(before)?;
            self.absorb(before, extent)?;
            extent = before;
        }
        self.enter_bin(extent)
    }

    /// Lengthens an extent by the one behind it, whose row becomes unused.
    #[inline]
    fn absorb(&self, extent: Block<'a>, after: Block<'a>) -> Result<()> {
        let end = extent.row.address.get().wrapping_add(extent.size());
        if end != after.row.address.get() {
            return Err(self.corrupted("the links between neighbours"));
        }
        let next = after.cache.next.get();
        extent.row.size.add(after.size());
        extent.warm().add(after.warm().get());
        let whole = extent.cache.whole.get() & after.cache.whole.get();
        extent.cache.whole.set(whole);
        extent.cache.next.set(next);
        self.link_back(next, extent.id)?;
        self.leave_row(after);
        Ok(())
    }

    /// Looks, in the rows from `first` on, for neighbours that are free and have `size` bytes
    /// together, and makes one free extent of them: the first of its bin.
    ///
    /// It looks at [`SLICE`] rows, or somewhat more.
    #[cold]
    pub fn join(&self, first: u32, size: u64) -> Result<Joined> {
        let all = self.header.block_rows.get();
        let end = first.saturating_add(SLICE).min(all);
        let mut looks = 0;
        for id in first..end {
            looks += 1;
            let extent = self.block(id)?;
            // Where free neighbours begin: each row of them is counted once.
            if extent.state() != FREE || self.free_row(extent.cache.previous.get())?.is_some() {
                continue;
            }
            let (mut bytes, mut last) = (extent.size(), extent);
            while bytes < size && looks <= SLICE {
                let Some(next) = self.free_row(last.cache.next.get())? else {
                    break;
                };
                (bytes, last) = (bytes.saturating_add(next.size()), next);
                looks += 1;
            }
            if bytes >= size {
                self.join_from(extent, size)?;
                return Ok(Joined::Found);
            }
            if looks > SLICE {
                // They go on beyond what is looked at in one go: they are looked at first the next
                // time, and what is one by then is not looked at again.
                if id == first {
                    self.join_from(extent, bytes)?;
                }
                return Ok(Joined::NotIn(id));
            }
        }
        Ok(if end < all {
            Joined::NotIn(end)
        } else {
            Joined::Nowhere
        })
    }

    /// The row `id` if it is one and a free extent.
    fn free_row(&self, id: u32) -> Result<Option<Block<'a>>> {
        if id == NIL {
            return Ok(None);
        }
        let block = self.block(id)?;
        Ok((block.state() == FREE).then_some(block))
    }

    /// Makes one free extent of at least `size` bytes of a free extent and those behind it.
    fn join_from(&self, extent: Block<'a>, size: u64) -> Result<()> {
        self.leave_bin(extent)?;
        while extent.size() < size {
            let Some(after) = self.free_row(extent.cache.next.get())? else {
                return Err(self.corrupted("the links between neighbours"));
            };
            self.leave_bin(after)?;
            // What is not needed of it keeps its pages, or the lack of them.
            self.split(after, size - extent.size())?;
            self.absorb(extent, after)?;
        }
        self.merge(extent)
    }

    /// Makes a free extent of bytes that belong to nothing yet, between two
    /// neighbours, and puts it into its bin. Its pages are PAGES_NEW or PAGES_UNKNOWN. Without a
    /// row the bytes stay unused until the next recovery.
    pub fn add_extent(
        &self,
        address: Address,
        size: u64,
        previous: u32,
        next: u32,
        pages: u64,
    ) -> Result<Option<Block<'a>>> {
        let Some(extent) = self.take_row()? else {
            return Ok(None);
        };
        extent.row.address.set(address.0);
        extent.row.size.set(size);
        extent.cache.previous.set(previous);
        extent.cache.next.set(next);
        extent.cache.whole.set(pages as u32);
        extent.warm().set(size);
        extent.row.state.set(state_word(extent.generation(), FREE));
        self.enter_bin(extent)?;
        Ok(Some(extent))
    }

    /// Empties the index: no bins, no unused rows, no sums.
    pub fn clear_index(&self) {
        self.clear_rows();
        let index = &self.header.index;
        index.spare_block.set(NIL);
        index.spare_blocks.set(0);
        index.spare_ticket.set(NIL);
        index.spare_tickets.set(0);
        index.free.set(0);
        index.warm.set(0);
        index.least_warm.set(0);
        index.classes.set(0);
        for (bins, heads) in index.bins.iter().zip(&index.heads) {
            bins.set(0);
            for head in heads {
                head.set(NIL);
            }
        }
    }

    /// The space of a new arena.
    pub fn first_extent(&self) -> Result<()> {
        self.clear_index();
        let geometry = self.core.geometry();
        let start = Address::new(0, geometry.data());
        let size = (geometry.size - geometry.data()) / ALIGN * ALIGN;
        self.add_extent(start, size, NIL, NIL, PAGES_NEW)
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damaged links do not let a free extent grow over a block.
    #[test]
    fn only_neighbours_are_merged() {
        use crate::arena::plain::World;
        use crate::arena::Core;
        let world = World::new(0);
        let mut geometry = Geometry {
            block_shift: 5,
            ticket_shift: 4,
            processes: 256,
            size: 0,
        };
        geometry.size = geometry.data() + 16 * PAGE;
        let constants = |header: &Header| header.processes.set(1);
        let (core, me) = Core::create(world.process(0), geometry, constants).unwrap();
        let blocks: Vec<_> = (0..6).map(|_| core.allocate(me, 1000).unwrap().0).collect();
        core.release(me, blocks[4]).unwrap();
        {
            let locked = core.lock(me).unwrap();
            let damaged = locked.block(blocks[1].id.0).unwrap();
            damaged.cache.next.set(blocks[4].id.0);
        }
        let released = core.release(me, blocks[1]);
        assert!(
            matches!(released, Err(Error::Corrupted { .. })),
            "{released:?}"
        );
        let poisoned = core.allocate(me, 1);
        assert!(
            matches!(poisoned, Err(Error::Corrupted { .. })),
            "{poisoned:?}"
        );
    }

    /// Bins grow with sizes, one step at a time, and no size falls out.
    #[test]
    fn bins_are_in_order_of_size() {
        let mut last = bin_for(ALIGN);
        for units in 2..100_000u64 {
            let bin = bin_for(units * ALIGN);
            let next = (last.0, last.1 + 1);
            assert!(bin == last || bin == next || (bin == (last.0 + 1, 0) && last.1 == 15));
            last = bin;
        }
        let longest = bin_for(LONGEST);
        assert!(longest.0 < CLASSES && longest.1 < BINS);
    }
}
