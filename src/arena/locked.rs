//! The arena while this process holds its lock, and the rows of its tables.
//!
//! [`Locked`] exists while the lock is held, and the files above add their operations to it. None
//! of these panics or waits, or allocates except when a segment is met for the first time. Each
//! refuses what it cannot do before it changes anything. The only later error is that the tables
//! contradict themselves, which poisons the arena.
//!
//! Numbers from the segments are looked up through [`Locked::block`], [`Locked::ticket`] and
//! [`Locked::check_extent`] and nowhere else, so that a wrong number becomes an error and never a
//! wild pointer.

use super::core::{Core, Work};
use super::format::*;
use super::lock;
use super::refs::{Extent, Member};
use super::waiting::Waiting;
use super::word::{U32, U64};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// A row of the table of blocks: its truth and its cache.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub id: u32,
    pub row: &'a BlockRow,
    pub cache: &'a BlockCache,
}

impl Block<'_> {
    #[inline(always)]
    pub fn state(&self) -> u8 {
        state_of(self.row.state.get())
    }

    #[inline(always)]
    pub fn generation(&self) -> u64 {
        generation_of(self.row.state.get())
    }

    #[inline(always)]
    pub fn address(&self) -> Address {
        Address(self.row.address.get())
    }

    #[inline(always)]
    pub fn size(&self) -> u64 {
        self.row.size.get()
    }

    /// Of a free extent: how many of its bytes have pages, at most.
    #[inline(always)]
    pub fn warm(&self) -> &U64 {
        &self.cache.warm_or_owned
    }

    /// Of a block: how many open tickets it owns.
    #[inline(always)]
    pub fn owned_tickets(&self) -> &U64 {
        &self.cache.warm_or_owned
    }

    /// Of a block: the word for the first ticket that it owns, which says nothing if it owns none.
    #[inline(always)]
    pub fn first_owned(&self) -> &U32 {
        &self.cache.bin_next
    }

    /// Of a block: the first ticket that it owns, or NIL.
    #[inline(always)]
    pub fn first_owned_or_nil(&self) -> u32 {
        match self.owned_tickets().get() {
            0 => NIL,
            _ => self.first_owned().get(),
        }
    }
}

/// The arena while this process holds its lock.
pub(super) struct Locked<'a> {
    pub core: &'a Core,
    pub header: &'a Header,
    pub me: Member,
    /// Whether tickets of freed blocks are being ended, and the first of them that is still open.
    pub ends_orphans: Cell<bool>,
    pub orphans: Cell<u32>,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // An operation did not end: have its caches rebuilt.
            let condition = &self.header.condition;
            condition.commit(condition.get() | UNSETTLED);
        }
        let waiting = Waiting::new(self.core, self.me);
        lock::release(&self.header.owner, self.me.owner(), &waiting);
    }
}

impl Core {
    /// The lock that `me` holds already.
    #[inline(always)]
    pub(super) fn locked(&self, me: Member) -> Locked<'_> {
        Locked {
            core: self,
            header: self.header(),
            me,
            ends_orphans: Cell::new(false),
            orphans: Cell::new(NIL),
        }
    }
}

impl<'a> Locked<'a> {
    /// Poisons the arena.
    #[cold]
    pub fn corrupted(&self, why: &'static str) -> Error {
        let condition = &self.header.condition;
        condition.commit(condition.get() | POISONED);
        Error::Corrupted { why }
    }

    #[inline(always)]
    pub fn knows_all_chunks(&self) -> bool {
        let [blocks, tickets] = &self.core.known;
        blocks.load(Ordering::Relaxed) == self.header.block_chunks.get()
            && tickets.load(Ordering::Relaxed) == self.header.ticket_chunks.get()
    }

    /// Finds the places of chunks that were added by others, so that no
    /// operation meets an unmapped row half-way.
    #[cold]
    pub fn meet_chunks(&self) -> Result<()> {
        let tables = [
            (
                &self.core.blocks,
                &self.header.block_directory,
                &self.header.block_chunks,
                self.core.geometry.block_chunk(),
            ),
            (
                &self.core.tickets,
                &self.header.ticket_directory,
                &self.header.ticket_chunks,
                self.core.geometry.ticket_chunk(),
            ),
        ];
        for ((places, directory, count, size), known) in tables.iter().zip(&self.core.known) {
            let count = count.get();
            let met = known.load(Ordering::Relaxed);
            if count < met || count as usize > CHUNKS {
                return Err(self.corrupted("the number of chunks of a table"));
            }
            for chunk in met..count {
                // A chunk lies in a block whose row is in an earlier chunk.
                let holder = directory[chunk as usize].get().wrapping_sub(1);
                let block = self.block(holder)?;
                if !matches!(block.state(), LIVE | TABLE) || block.size() < *size {
                    return Err(self.corrupted("a table's directory"));
                }
                let place = self.meet_extent(block)?;
                places.set(chunk as usize, self.core.bytes(place));
                known.store(chunk + 1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The row of block `id`, a number from the segments.
    #[inline(always)]
    pub fn block(&self, id: u32) -> Result<Block<'a>> {
        let shift = self.core.geometry.block_shift;
        let Some(chunk) = self.core.blocks.get((id >> shift) as usize) else {
            return Err(self.corrupted("the number of a block"));
        };
        let index = (id & ((1 << shift) - 1)) as u64;
        let rows = (std::mem::size_of::<BlockRow>() as u64) << shift;
        let row = Core::within(chunk, index * 64);
        let cache = Core::within(chunk, rows + index * 32);
        Ok(Block {
            id,
            // SAFETY: a chunk is `block_chunk()` bytes in a mapping (chunk 0 by
            // the geometry, others by `meet_chunks`) aligned to 64; rows are
            // atomics, for which all bytes are values, whatever other processes write there.
            row: unsafe { row.cast().as_ref() },
            // SAFETY: in each chunk the caches follow the rows, one for each row; they are aligned
            // to 32 and made of atomics.
            cache: unsafe { cache.cast().as_ref() },
        })
    }

    /// The numbers of the chunks of the table of blocks that were ever used.
    pub fn used_block_chunks(&self) -> Range<u32> {
        let shift = self.core.geometry.block_shift;
        0..self.header.block_rows.get().div_ceil(1 << shift)
    }

    /// The rows of such a chunk that were ever used, and their caches.
    pub fn used_blocks_of(&self, chunk: u32) -> Result<(&'a [BlockRow], &'a [BlockCache])> {
        let shift = self.core.geometry.block_shift;
        let Some(place) = self.core.blocks.get(chunk as usize) else {
            return Err(self.corrupted("the number of a chunk"));
        };
        let used = self.header.block_rows.get().saturating_sub(chunk << shift);
        let count = used.min(1 << shift) as usize;
        let size = (std::mem::size_of::<BlockRow>() as u64) << shift;
        let (rows, caches) = (place.cast(), Core::within(place, size).cast());
        // SAFETY: a chunk is `block_chunk()` bytes in a mapping that lives as long as the platform,
        // and begins with `1 << shift` rows; they are atomics, for which all bytes are values.
        let rows = unsafe { std::slice::from_raw_parts(rows.as_ptr(), count) };
        // SAFETY: in each chunk so many caches follow the rows, made of atomics, too.
        let caches = unsafe { std::slice::from_raw_parts(caches.as_ptr(), count) };
        Ok((rows, caches))
    }

    /// The numbers of the chunks of the table of tickets that were ever used.
    pub fn used_ticket_chunks(&self) -> Range<u32> {
        let shift = self.core.geometry.ticket_shift;
        0..self.header.ticket_rows.get().div_ceil(1 << shift)
    }

    /// The rows of such a chunk that were ever used.
    pub fn used_tickets_of(&self, chunk: u32) -> Result<&'a [TicketRow]> {
        let shift = self.core.geometry.ticket_shift;
        let Some(place) = self.core.tickets.get(chunk as usize) else {
            return Err(self.corrupted("the number of a chunk"));
        };
        let used = self.header.ticket_rows.get().saturating_sub(chunk << shift);
        let rows = place.cast();
        // SAFETY: a chunk is `ticket_chunk()` bytes in a mapping that lives as long as the
        // platform, and consists of `1 << shift` rows; they are atomics, for which all bytes are
        // values.
        Ok(unsafe { std::slice::from_raw_parts(rows.as_ptr(), used.min(1 << shift) as usize) })
    }

    /// Of a block the words of the set of its holders that are not in its row.
    #[inline(always)]
    pub fn further_holders(&self, block: Block<'a>) -> &'a [U64] {
        match self.core.further_words {
            0 => &[],
            words => self.find_further_holders(block, words),
        }
    }

    #[cold]
    fn find_further_holders(&self, block: Block<'a>, words: usize) -> &'a [U64] {
        let geometry = &self.core.geometry;
        let shift = geometry.block_shift;
        // (The block was found in it.)
        let Some(chunk) = self.core.blocks.get((block.id >> shift) as usize) else {
            return &[];
        };
        let index = (block.id & ((1 << shift) - 1)) as u64;
        let size = (words * std::mem::size_of::<U64>()) as u64;
        let first = Core::within(chunk, geometry.further() + index * size).cast();
        // SAFETY: in each chunk the further holders follow the caches, `words` of them for each
        // row; they are atomics, in a mapping that lives as long as the platform.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), words) }
    }

    /// The words of the set of a block's holders, in two parts.
    #[inline(always)]
    pub fn holders(&self, block: Block<'a>) -> [&'a [U64]; 2] {
        [&block.row.holders, self.further_holders(block)]
    }

    /// One of these words: see [`SlotSet::place`].
    #[inline(always)]
    pub fn holders_at(&self, block: Block<'a>, word: usize) -> &'a U64 {
        match block.row.holders.get(word) {
            Some(holders) => holders,
            None => self.find_further_holders_at(block, word),
        }
    }

    #[cold]
    fn find_further_holders_at(&self, block: Block<'a>, word: usize) -> &'a U64 {
        // (The slots of members are among those that the arena has.)
        &self.further_holders(block)[word - block.row.holders.len()]
    }

    /// The set of a block's holders.
    pub fn holder_set(&self, block: Block<'a>) -> SlotSet {
        let mut set = SlotSet::default();
        let words = self.holders(block).into_iter().flatten();
        for (copy, word) in set.0.iter_mut().zip(words) {
            *copy = word.get();
        }
        set
    }

    /// Makes one process, or none, the only holder of a block.
    #[inline(always)]
    pub fn set_holder(&self, block: Block<'a>, slot: Option<SlotId>) {
        let (place, bit) = slot.map_or((usize::MAX, 0), SlotSet::place);
        let [in_row, further] = self.holders(block);
        for (i, word) in in_row.iter().enumerate() {
            word.set(if i == place { bit } else { 0 });
        }
        for (i, word) in further.iter().enumerate() {
            word.set(if in_row.len() + i == place { bit } else { 0 });
        }
    }

    /// Whether no process holds a block, children without a slot included.
    #[inline(always)]
    pub fn is_unheld(&self, block: Block<'a>) -> bool {
        let [a, b, c, d] = &block.row.holders;
        let first = a.get() | b.get() | c.get() | d.get() | block.row.marks.get() & PINNED;
        first == 0
            && self
                .further_holders(block)
                .iter()
                .all(|word| word.get() == 0)
    }

    /// The row of ticket `id`, a number from the segments.
    #[inline(always)]
    pub fn ticket(&self, id: u32) -> Result<&'a TicketRow> {
        let shift = self.core.geometry.ticket_shift;
        let Some(chunk) = self.core.tickets.get((id >> shift) as usize) else {
            return Err(self.corrupted("the number of a ticket"));
        };
        let index = (id & ((1 << shift) - 1)) as u64;
        let row = Core::within(chunk, index * 64);
        // SAFETY: a chunk is `ticket_chunk()` bytes in a mapping (chunk 0 by the geometry, others by
        // `meet_chunks`) aligned to 64; rows are atomics, for which all bytes are values.
        Ok(unsafe { row.cast().as_ref() })
    }

    /// How many rows of blocks there are that have memory.
    #[inline(always)]
    pub fn block_room(&self) -> u32 {
        match self.header.block_chunks.get() {
            1 => self.header.block_room.get(),
            chunks => chunks << self.core.geometry.block_shift,
        }
    }

    /// How many tickets there are that have memory.
    #[inline(always)]
    pub fn ticket_room(&self) -> u32 {
        match self.header.ticket_chunks.get() {
            1 => self.header.ticket_room.get(),
            chunks => chunks << self.core.geometry.ticket_shift,
        }
    }

    /// The row of a slot.
    #[inline(always)]
    pub fn slot(&self, slot: SlotId) -> &'a SlotRow {
        self.core.slot(slot)
    }

    /// Where the data of segment `number` start.
    pub fn data_start(&self, number: usize) -> u64 {
        match number {
            0 => self.core.geometry.data(),
            _ => DATA_START,
        }
    }

    /// Where a block is, its segment mapped: the words of its row are read
    /// once, and what was checked is what is returned.
    ///
    /// # Errors
    /// That its segment cannot be mapped, or `Corrupted`.
    #[inline(always)]
    pub fn meet_extent(&self, block: Block<'_>) -> Result<Extent> {
        let place = self.check_extent(block)?;
        let (number, end) = (place.address.segment(), place.end());
        // (0 for a segment that this process has not met.)
        if end > self.core.lengths[number].load(Ordering::Relaxed) {
            self.core.meet(number)?;
            if end > self.core.lengths[number].load(Ordering::Relaxed) {
                return Err(self.corrupted("the size of a segment"));
            }
        }
        Ok(place)
    }

    /// Refuses a block whose place is not within the data of a segment.
    #[inline(always)]
    pub fn check_extent(&self, block: Block<'_>) -> Result<Extent> {
        let (address, size) = (block.address(), block.size());
        let fits = self
            .header
            .segments
            .get(address.segment())
            .is_some_and(|row| {
                let end = address.offset().checked_add(size);
                state_of(row.state.get()) == PRESENT
                    && end.is_some_and(|end| end <= self.segment_size(address.segment()))
                    && address.offset() >= self.data_start(address.segment())
                    && (address.0 | size) % ALIGN == 0
                    && size > 0
            });
        match fits {
            true => Ok(Extent { address, size }),
            false => Err(self.corrupted("a block's place")),
        }
    }

    /// The length of a segment that is there. (What this process has mapped of it may be
    /// shorter or longer: a number may stand for one segment after another.)
    #[inline(always)]
    pub fn segment_size(&self, number: usize) -> u64 {
        match number {
            0 => self.core.geometry.size,
            _ => self.header.segments[number].size.get().min(LONGEST),
        }
    }

    /// Begins work that goes on after the lock is given back.
    pub(super) fn begin_work(&self) -> Work<'a> {
        self.core.work.fetch_add(1, Ordering::Relaxed);
        Work::counted(self.core, &self.core.work)
    }

    /// Adds `more` to one of the counters.
    #[inline(always)]
    pub fn count(&self, counter: impl FnOnce(&'a Counters) -> &'a U64, more: u64) {
        counter(&self.header.counters).add(more)
    }
}
