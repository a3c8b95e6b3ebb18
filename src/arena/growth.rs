//! Growth: more segments, more rows.
//!
//! A segment is made outside the lock, since reserving its memory takes long. Meanwhile its row is
//! BUILDING and names its maker; one store makes it PRESENT when all is there. Rows for blocks and
//! tickets come in chunks, and a chunk lies in a block. The block is allocated like any other and
//! is its maker's, until one store to the directory makes it part of the table.
//!
//! A segment without blocks can be removed: its row is BUILDING again while its memory is given
//! back, and then ABSENT, for another segment of any length. A process that has mapped the old
//! segment sees the beginning of the new one there, or all of it.

use super::core::Core;
use super::format::*;
use super::half_done::HalfDone;
use super::locked::Locked;
use super::refs::{Allocated, BlockRef, Member};
use super::word::U32;
use crate::activity::{Event, EVENTS};
use crate::error::{Error, Exhausted, Result};
use std::mem::{offset_of, size_of};

/// The state of a segment that the process in a slot makes.
pub(super) fn building(slot: SlotId) -> u64 {
    (slot.0 as u64) << 8 | BUILDING as u64
}

/// The process that makes a segment, by the word that [`building`] has made.
pub(super) fn maker_of(word: u64) -> SlotId {
    SlotId((word >> 8) as u16)
}

/// The least that a segment is made of ahead of need.
const LEAST_STEP: u64 = 64 << 10;
/// A segment is as long as all before it up to this length, and then a quarter of that.
const DOUBLED: u64 = 8 << 20;
/// A segment is made of this part of what the system has left, ahead of need: the last of
/// the memory is for what is needed.
const SHARE_OF_FREE: u64 = 8;

impl Locked<'_> {
    /// Takes the row of a segment that is not there. None if the row has no memory.
    fn begin_segment(&self) -> Result<Option<usize>> {
        let rows = &self.header.segments;
        let used = self.header.segment_rows.get();
        let mut known = self.header.known_segments();
        let absent = known.find(|(_, row)| row.state.get() == ABSENT as u64);
        let number = absent.map_or(used as usize, |(number, _)| number);
        if number >= SEGMENTS {
            return Err(Error::Full {
                what: Exhausted::Segments,
                asked: SEGMENTS as u64,
                left: 0,
            });
        }
        if !self.header.has_segment_row(number) {
            return Ok(None);
        }
        if number == used as usize {
            if rows[number].state.get() != ABSENT as u64 {
                return Err(self.corrupted("the number of segments"));
            }
            self.header.segment_rows.commit(used + 1);
        }
        rows[number].state.commit(building(self.me.slot));
        Ok(Some(number))
    }

    /// Makes the space of a segment part of the arena.
    fn open_segment(&self, number: usize, size: u64) -> Result<()> {
        if self.rows_left() == 0 {
            return Err(Table::Blocks.full(self.header.block_rows.get()));
        }
        let row = &self.header.segments[number];
        row.size.set(size);
        row.state.commit(PRESENT as u64);
        self.count(|c| &c.grown, 1);
        let space = (size - DATA_START) / ALIGN * ALIGN;
        let start = Address::new(number, DATA_START);
        self.add_extent(start, space, NIL, NIL, PAGES_NEW)?;
        self.note_freed(space);
        Ok(())
    }

    /// Takes the segments out of the arena in which nothing lies, but the first, and those
    /// with more bytes that have pages than are to be `lost`. Their memory is to be given back
    /// by this process.
    fn close_empty_segments(&self, lost: u64) -> Result<SegmentSet> {
        let mut free = [0u64; SEGMENTS];
        let mut warm = [0u64; SEGMENTS];
        for block in self.all_blocks() {
            let block = block?;
            if block.state() == FREE {
                let place = self.check_extent(block)?;
                let add = |sum: &mut u64, bytes| *sum = sum.saturating_add(bytes);
                add(&mut free[place.address.segment()], place.size);
                add(&mut warm[place.address.segment()], block.warm().get());
            }
        }
        let mut empty = SegmentSet::default();
        for (number, row) in self.header.known_segments().skip(1) {
            let space = self.segment_size(number).saturating_sub(DATA_START) / ALIGN * ALIGN;
            let empty_now = row.state.get() == PRESENT as u64 && free[number] == space;
            if empty_now && warm[number] <= lost {
                // First: from here on recovery has no use for its extents.
                row.state.commit(building(self.me.slot));
                empty.insert(number);
            }
        }
        let index = &self.header.index;
        let (least, warm) = (index.least_warm.get(), index.warm.get());
        for block in self.all_blocks() {
            let block = block?;
            if block.state() == FREE && empty.contains(block.address().segment()) {
                self.leave_bin(block)?;
                self.leave_row(block);
            }
        }
        self.note_return(least, warm.saturating_sub(index.warm.get()));
        Ok(empty)
    }

    /// Makes this process the one that removes the segments which `makers` were making: outside the
    /// lock, since that takes as long as they are.
    pub fn take_over_buildings(&self, makers: &SlotSet) -> SegmentSet {
        let mut taken = SegmentSet::default();
        for (number, row) in self.header.known_segments() {
            let word = row.state.get();
            if state_of(word) == BUILDING && makers.contains(maker_of(word)) {
                row.state.commit(building(self.me.slot));
                taken.insert(number);
            }
        }
        taken
    }

    /// All bytes of all segments, without the tables of the first.
    fn total(&self) -> u64 {
        let rows = self.header.known_segments();
        rows.filter(|(_, row)| state_of(row.state.get()) == PRESENT)
            .map(|(number, _)| self.segment_size(number) - self.data_start(number))
            .fold(0, u64::saturating_add)
    }

    /// Makes a block of this process's the next chunk of a table. False if its entry in the
    /// directory has no memory.
    fn enlist(&self, which: BlockRef, table: Table) -> Result<bool> {
        let block = self.live(which)?;
        let (directory, count) = table.directory(self.header);
        let chunk = count.get();
        let Some(entry) = directory.get(chunk as usize) else {
            return Err(table.full(chunk << table.shift(self.core)));
        };
        if !self.header.has_pages(table.entry_pages(chunk)) {
            return Ok(false);
        }
        entry.set(which.id.0 + 1);
        count.commit(chunk + 1);
        // From here on recovery does the rest.
        self.discount_live(block.id);
        self.make_table(block);
        self.meet_chunks()?;
        Ok(true)
    }

    /// Makes a block the arena's own for ever.
    pub fn make_table(&self, block: super::locked::Block<'_>) {
        block
            .row
            .state
            .commit(state_word(block.generation(), TABLE));
        self.set_holder(block, None);
    }
}

/// One of the tables that grow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Blocks,
    Tickets,
}

impl Table {
    /// Where its chunks are, and how many it has.
    fn directory(self, header: &Header) -> (&[U32; CHUNKS], &U32) {
        match self {
            Table::Blocks => (&header.block_directory, &header.block_chunks),
            Table::Tickets => (&header.ticket_directory, &header.ticket_chunks),
        }
    }

    /// The place of an entry of the directory in the header.
    fn entry(self, chunk: u32) -> usize {
        let first = match self {
            Table::Blocks => offset_of!(Header, block_directory),
            Table::Tickets => offset_of!(Header, ticket_directory),
        };
        first + chunk as usize * size_of::<U32>()
    }

    /// The page of the header in which that is.
    fn entry_pages(self, chunk: u32) -> u64 {
        pages_of(self.entry(chunk), size_of::<U32>())
    }

    /// How many rows of its first chunk have memory.
    fn room(self, header: &Header) -> &U32 {
        match self {
            Table::Blocks => &header.block_room,
            Table::Tickets => &header.ticket_room,
        }
    }

    /// A chunk of it has `1 <<` this many rows.
    fn shift(self, core: &Core) -> u32 {
        match self {
            Table::Blocks => core.geometry().block_shift,
            Table::Tickets => core.geometry().ticket_shift,
        }
    }

    fn full(self, rows: u32) -> Error {
        Error::Full {
            what: match self {
                Table::Blocks => Exhausted::Blocks,
                Table::Tickets => Exhausted::Tickets,
            },
            asked: rows as u64,
            left: 0,
        }
    }
}

impl Core {
    /// Adds a segment with room for a block of `size` bytes, and for more where
    /// memory allows.
    ///
    /// # Errors
    /// `Full` if the system has no memory for it, or no row is left.
    pub(super) fn add_segment(&self, me: Member, size: u64) -> Result<()> {
        let (number, total, _work) = loop {
            let next = (self.header().segment_rows.get() as usize).min(SEGMENTS - 1);
            let row = size_of::<SegmentRow>();
            self.ensure_header(offset_of!(Header, segments) + next * row, row)?;
            let locked = self.lock(me)?;
            // (Others may have made some meanwhile, up to the end of the page.)
            if let Some(number) = locked.begin_segment()? {
                break (number, locked.total(), locked.begin_work());
            }
        };
        let least = (size + DATA_START).next_multiple_of(PAGE);
        let ahead = total.min(DOUBLED).max(total / 4).max(LEAST_STEP);
        let longest = self.header().longest.get();
        let ahead = ahead
            .min(longest)
            .min(self.platform().room().free / SHARE_OF_FREE);
        let generous = least.max(ahead.next_multiple_of(PAGE));
        let generous = generous.next_multiple_of(self.platform().unit(generous));
        let mut length = generous;
        let mut made = self.make_segment(number, length);
        if made.is_err() && generous > least {
            length = least;
            made = self.make_segment(number, length);
        }
        let made = made.map_err(|error| self.without_memory(error, size));
        self.renew_budget();
        let locked = self.lock_to_finish(me, HalfDone::Segment(number))?;
        let opened = made.and_then(|()| locked.open_segment(number, length));
        let row = &locked.header.segments[number];
        let is_left = state_of(row.state.get()) == BUILDING;
        drop(locked);
        if opened.is_err() && is_left {
            let mut made = SegmentSet::default();
            made.insert(number);
            // (What cannot be finished is noted.)
            let _ = self.remove_segments(me, made);
        }
        if opened.is_ok() {
            let (bytes, segment) = (length, number as u64);
            EVENTS.note(self.uuid(), Event::Grown { bytes, segment });
        }
        opened
    }

    /// Removes the segments in which nothing lies, but the first, and those with more bytes
    /// that have pages than are to be `lost`; how many bytes they had.
    ///
    /// # Errors
    /// As for any operation.
    #[cold]
    pub fn remove_empty_segments(&self, me: Member, lost: u64) -> Result<u64> {
        let (empty, _work) = {
            let locked = self.lock(me)?;
            if locked.header.segment_rows.get() == 1 {
                return Ok(0);
            }
            (locked.close_empty_segments(lost)?, locked.begin_work())
        };
        let segments = empty.iter().count() as u64;
        let bytes = self.remove_segments(me, empty)?;
        if bytes > 0 {
            EVENTS.note(self.uuid(), Event::Returned { bytes, segments });
        }
        Ok(bytes)
    }

    /// Removes segments of which this process is the maker; how many bytes they had.
    pub(super) fn remove_segments(&self, me: Member, segments: SegmentSet) -> Result<u64> {
        let mut sum = 0;
        let mut result = Ok(());
        for number in segments.iter() {
            self.platform().remove(number);
            match self.lock_to_finish(me, HalfDone::Segment(number)) {
                Ok(locked) => {
                    let row = &locked.header.segments[number];
                    sum += row.size.get();
                    row.state.commit(ABSENT as u64);
                }
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| sum)
    }

    fn make_segment(&self, number: usize, size: u64) -> Result<()> {
        let uuid = self.uuid();
        self.platform().create(number, size, &|base| {
            // SAFETY: the platform gives `size` bytes, which is more than a
            // header, aligned and mapped while this runs.
            let header = unsafe { base.cast::<DataHeader>().as_ref() };
            header.write(number, uuid, size)
        })
    }

    /// The error for memory that the system does not give.
    pub(super) fn without_memory(&self, error: Error, size: u64) -> Error {
        match error {
            Error::Os { errno, .. } if errno == NO_SPACE => Error::Full {
                what: Exhausted::Space,
                asked: size,
                left: self.platform().room().free,
            },
            error => error,
        }
    }

    /// Adds a chunk of rows for blocks.
    pub(super) fn add_block_rows(&self, me: Member) -> Result<()> {
        self.add_chunk(me, Table::Blocks, self.geometry().block_chunk())
    }

    /// Adds a chunk of tickets.
    pub(super) fn add_tickets(&self, me: Member) -> Result<()> {
        self.add_chunk(me, Table::Tickets, self.geometry().ticket_chunk())
    }

    #[cold]
    fn add_chunk(&self, me: Member, table: Table, size: u64) -> Result<()> {
        if self.add_room(me, table)? {
            return Ok(());
        }
        let _work = {
            let locked = self.lock(me)?;
            let chunks = table.directory(locked.header).1.get();
            if chunks as usize >= CHUNKS {
                return Err(table.full(chunks << table.shift(self)));
            }
            locked.begin_work()
        };
        let mut found = self.allocate_chunk(me, size, table);
        if let Err(Error::Full {
            what: Exhausted::Space,
            ..
        }) = found
        {
            if !self.join(me, size)? {
                self.add_segment(me, size)?;
            }
            found = self.allocate_chunk(me, size, table);
        }
        let (which, place) = self.ensure_pages(me, found?, &|_, _| ())?;
        let bytes = self.bytes(place);
        // SAFETY: the block is this process's alone, LIVE and `place.size`
        // bytes in a mapping, and only the directory makes it known to others.
        // Nothing refers to its bytes.
        unsafe { std::ptr::write_bytes(bytes.as_ptr(), 0, place.size as usize) };
        let block = HalfDone::Block(which);
        let enlisted = loop {
            let chunk = table
                .directory(self.header())
                .1
                .get()
                .min(CHUNKS as u32 - 1);
            let ready = self.ensure_header(table.entry(chunk), size_of::<U32>());
            let enlisted = match ready {
                Ok(()) => self.lock_to_finish(me, block)?.enlist(which, table),
                Err(error) => Err(error),
            };
            // (Others may have added some meanwhile, up to the end of the page.)
            if enlisted != Ok(false) {
                break enlisted.map(drop);
            }
        };
        if let Err(Error::Full { .. }) = enlisted {
            self.lock_to_finish(me, block)?.release(which)?;
        }
        enlisted
    }

    /// Has more rows of a table's first chunk get memory; false if all have.
    fn add_room(&self, me: Member, table: Table) -> Result<bool> {
        let all = 1u32 << table.shift(self);
        let room = table.room(self.lock(me)?.header).get();
        if room >= all {
            return Ok(false);
        }
        let more = room.saturating_mul(2).clamp(1, all);
        let parts = match table {
            Table::Blocks => self.geometry().block_parts(room, more),
            Table::Tickets => vec![self.geometry().ticket_part(room, more)],
        };
        for (offset, size) in parts {
            let reserved = self.platform().reserve(Address::new(0, offset), size);
            reserved.map_err(|error| self.without_memory(error, size))?;
        }
        let word = table.room(self.lock(me)?.header);
        if word.get() < more {
            word.commit(more);
        }
        Ok(true)
    }

    /// Allocates a block for a chunk of rows.
    fn allocate_chunk(&self, me: Member, size: u64, table: Table) -> Result<Allocated> {
        if table == Table::Blocks {
            // From the rows that are kept for this.
            return self.lock(me)?.allocate_from_reserve(size);
        }
        let found = self.lock(me)?.allocate(size);
        match found {
            Err(Error::Full {
                what: Exhausted::Blocks,
                ..
            }) => {
                self.add_block_rows(me)?;
                self.lock(me)?.allocate(size)
            }
            found => found,
        }
    }
}

/// ENOSPC, the same on every Linux.
const NO_SPACE: i32 = 28;
