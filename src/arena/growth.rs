//! Growth: more segments, more rows.
//!
//! A segment is made outside the lock, since reserving its memory takes long:
//! its row is BUILDING meanwhile and names its maker, and becomes PRESENT by one
//! store when all is there. Rows for blocks and tickets come in chunks, and a
//! chunk lies in a block: it is allocated like any other, and its maker's until
//! one store to the directory makes it part of the table.
//!
//! A segment in which nothing lies any more can go: its row is BUILDING again while its
//! memory is given back, and then ABSENT, for another segment of any length. Whoever has
//! mapped the one before has the beginning of the next one there, or all of it.

use super::blocks::{Allocated, BlockRef};
use super::core::{Core, Locked, Member};
use super::format::*;
use super::unfinished::HalfDone;
use crate::error::{Error, Exhausted, Result};

/// The state of a segment that the process in a slot makes.
pub(super) fn building(slot: SlotId) -> u64 {
    (slot.0 as u64) << 8 | BUILDING as u64
}

/// The least that a segment is made of ahead of need.
const LEAST_STEP: u64 = 8 << 20;
/// The most that a segment is made of ahead of need.
const LONGEST_STEP: u64 = 1 << 30;

impl Locked<'_> {
    /// Takes the row of a segment that is not there.
    fn begin_segment(&self) -> Result<usize> {
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
        if number == used as usize {
            if rows[number].state.get() != ABSENT as u64 {
                return Err(self.corrupted("the number of segments"));
            }
            self.header.segment_rows.commit(used + 1);
        }
        rows[number].state.commit(building(self.me.slot));
        Ok(number)
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
        self.add_extent(start, space, NIL, NIL, true)?;
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

    /// All bytes of all segments.
    fn total(&self) -> u64 {
        let rows = self.header.known_segments();
        rows.filter(|(_, row)| state_of(row.state.get()) == PRESENT)
            .map(|(number, _)| self.segment_size(number))
            .fold(0, u64::saturating_add)
    }

    /// Makes a block of this process's the next chunk of a table.
    fn enlist(&self, which: BlockRef, table: Table) -> Result<()> {
        let block = self.live(which)?;
        let (directory, count) = match table {
            Table::Blocks => (&self.header.block_directory, &self.header.block_chunks),
            Table::Tickets => (&self.header.ticket_directory, &self.header.ticket_chunks),
        };
        let chunk = count.get();
        let Some(entry) = directory.get(chunk as usize) else {
            return Err(table.full(chunk << self.core.geometry().block_shift));
        };
        entry.set(which.id.0 + 1);
        count.commit(chunk + 1);
        // From here on recovery does the rest.
        self.make_table(block);
        self.meet_chunks()
    }

    /// Makes a block the arena's own for ever.
    pub fn make_table(&self, block: super::core::Block<'_>) {
        block
            .row
            .state
            .commit(state_word(block.generation(), TABLE));
        for holders in &block.row.holders {
            holders.set(0);
        }
    }
}

/// One of the tables that grow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Blocks,
    Tickets,
}

impl Table {
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
        let (number, total, _work) = {
            let locked = self.lock(me)?;
            (locked.begin_segment()?, locked.total(), locked.begin_work())
        };
        let least = (size + DATA_START).next_multiple_of(PAGE);
        let ahead = (total / 4).clamp(LEAST_STEP, LONGEST_STEP);
        let generous = least.max(ahead.next_multiple_of(PAGE));
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
        if opened.is_err() && state_of(row.state.get()) == BUILDING {
            self.platform().remove(number);
            row.state.commit(ABSENT as u64);
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
        let mut sum = 0;
        let mut result = Ok(());
        for number in empty.iter() {
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
        let _work = {
            let locked = self.lock(me)?;
            let header = locked.header;
            let chunks = match table {
                Table::Blocks => header.block_chunks.get(),
                Table::Tickets => header.ticket_chunks.get(),
            };
            if chunks as usize >= CHUNKS {
                let shift = match table {
                    Table::Blocks => self.geometry().block_shift,
                    Table::Tickets => self.geometry().ticket_shift,
                };
                return Err(table.full(chunks << shift));
            }
            locked.begin_work()
        };
        let mut found = self.allocate_chunk(me, size, table);
        if let Err(Error::Full {
            what: Exhausted::Space,
            ..
        }) = found
        {
            self.add_segment(me, size)?;
            found = self.allocate_chunk(me, size, table);
        }
        let (which, place) = self.ensure_pages(me, found?, &|_, _| ())?;
        let bytes = self.bytes(place);
        // SAFETY: the block is this process's alone, LIVE and `place.size`
        // bytes in a mapping, and only the directory makes it known to others.
        // Nothing refers to its bytes.
        unsafe { std::ptr::write_bytes(bytes.as_ptr(), 0, place.size as usize) };
        let block = HalfDone::Block(which);
        let enlisted = self.lock_to_finish(me, block)?.enlist(which, table);
        if let Err(Error::Full { .. }) = enlisted {
            self.lock_to_finish(me, block)?.release(which)?;
        }
        enlisted
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
