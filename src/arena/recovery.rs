//! Recovery: rebuilding every cache from the truth.
//!
//! It runs under the lock, in the process that took the lock from a dead owner. The truth is right
//! after every instruction of every operation. What may be wrong are the caches, and a few blocks
//! that no process wants any more because their owner died between two stores. Recovery reads
//! nothing of a cache and writes the truth only to finish what was begun, so it may itself die
//! anywhere and be begun again.
//!
//! It needs the blocks in the order of their addresses and may not allocate. So it links them
//! through their own caches and sorts by merging, which needs one number for each power of two.

use super::format::*;
use super::locked::{Block, Locked};
use crate::error::Result;

impl<'a> Locked<'a> {
    /// Rebuilds every cache.
    ///
    /// # Errors
    /// `Corrupted` if the truth contradicts itself.
    pub fn recover(&self) -> Result<()> {
        self.check_truth()?;
        self.finish_tables()?;
        self.root_block()?;
        self.count_tickets()?;
        self.close_orphans()?;
        self.clear_index();
        self.list_spare_tickets()?;
        let first = self.sort_blocks()?;
        self.tile(first)
    }

    /// Refuses numbers of rows that are more than there is room for.
    fn check_truth(&self) -> Result<()> {
        let geometry = self.core.geometry();
        let header = self.header;
        let fits = |rows: u32, room: u32| rows <= room;
        let right = header.segment_rows.get() as usize <= SEGMENTS
            && fits(header.block_room.get(), 1 << geometry.block_shift)
            && fits(header.ticket_room.get(), 1 << geometry.ticket_shift)
            && fits(header.block_rows.get(), self.block_room())
            && fits(header.ticket_rows.get(), self.ticket_room());
        match right {
            true => Ok(()),
            false => Err(self.corrupted("the number of rows of a table")),
        }
    }

    /// Blocks that the directories name belong to the tables.
    fn finish_tables(&self) -> Result<()> {
        for block in self.table_blocks() {
            self.make_table(block?);
        }
        Ok(())
    }

    /// The blocks that the directories name.
    pub fn table_blocks(&self) -> impl Iterator<Item = Result<Block<'a>>> + '_ {
        let header = self.header;
        let tables = [
            (&header.block_directory, header.block_chunks.get()),
            (&header.ticket_directory, header.ticket_chunks.get()),
        ];
        let entries = tables.into_iter().flat_map(|(directory, chunks)| {
            let chunks = (chunks as usize).clamp(1, CHUNKS);
            directory[1..chunks].iter()
        });
        entries.map(|entry| self.block(entry.get().wrapping_sub(1)))
    }

    /// Counts the open tickets of each block, lists those that it answers for, and closes those
    /// whose block is gone.
    fn count_tickets(&self) -> Result<()> {
        for block in self.all_blocks() {
            let block = block?;
            block.cache.tickets.set(0);
            if block.state() == LIVE {
                block.owned_tickets().set(0);
            }
        }
        for id in 0..self.header.ticket_rows.get() {
            let ticket = self.ticket(id)?;
            let word = ticket.state.get();
            if state_of(word) != OPEN {
                continue;
            }
            let block = self.block(ticket.block.get())?;
            if block.row.state.get() == state_word(ticket.generation.get(), LIVE) {
                block.cache.tickets.add(1);
                if let Some(owner) = self.owner(ticket)? {
                    self.add_owned(id, ticket, owner)?;
                }
            } else {
                let closed = state_word(generation_of(word) + 1, CLOSED);
                ticket.state.commit(closed);
            }
        }
        Ok(())
    }

    /// Closes the tickets that were transferred to blocks that are gone, or that
    /// nobody wants and that will go: which may leave more such blocks.
    fn close_orphans(&self) -> Result<()> {
        let mut closed = true;
        while closed {
            closed = false;
            for id in 0..self.header.ticket_rows.get() {
                let ticket = self.ticket(id)?;
                let word = ticket.state.get();
                if state_of(word) != OPEN {
                    continue;
                }
                let goes = match self.owner(ticket)? {
                    Some(owner) => self.is_unwanted(owner),
                    None => self.is_orphan(ticket)?,
                };
                if goes {
                    let state = state_word(generation_of(word) + 1, CLOSED);
                    ticket.state.commit(state);
                    self.block(ticket.block.get())?.cache.tickets.sub(1);
                    closed = true;
                }
            }
        }
        Ok(())
    }

    fn list_spare_tickets(&self) -> Result<()> {
        let index = &self.header.index;
        for id in (0..self.header.ticket_rows.get()).rev() {
            let ticket = self.ticket(id)?;
            if state_of(ticket.state.get()) == OPEN {
                self.open_in_part(id).add(1);
            } else {
                ticket.next.set(index.spare_ticket.get());
                index.spare_ticket.set(id);
                index.spare_tickets.add(1);
            }
        }
        Ok(())
    }

    /// Links the blocks through `next` in the order of their addresses, and
    /// makes all other rows unused; returns the first.
    fn sort_blocks(&self) -> Result<u32> {
        // `sorted[n]` is the head of a list of 2^n runs, like the digits of a
        // binary counter.
        let mut sorted = [NIL; 33];
        let mut run: Option<(u32, Block<'a>)> = None;
        for block in self.all_blocks().rev() {
            let block = block?;
            let kept = match block.state() {
                TABLE => true,
                LIVE => !self.is_unwanted(block),
                UNUSED | FREE => false,
                _ => return Err(self.corrupted("the state of a block")),
            };
            if !kept {
                self.make_unused(block);
                continue;
            }
            self.check_extent(block)?;
            if block.state() == LIVE {
                self.count_live(block.id);
            }
            // Rows are mostly in the order of their addresses, so that going
            // backwards a run grows at its front.
            block.cache.next.set(NIL);
            run = match run {
                Some((head, first)) if block.address() < first.address() => {
                    block.cache.next.set(head);
                    Some((block.id, block))
                }
                Some((head, _)) => {
                    self.add_run(&mut sorted, head)?;
                    Some((block.id, block))
                }
                None => Some((block.id, block)),
            };
        }
        let mut all = run.map_or(NIL, |(head, _)| head);
        for list in sorted {
            all = self.merge_lists(list, all)?;
        }
        Ok(all)
    }

    /// A row that stands for nothing, in a new life if it was a block.
    fn make_unused(&self, block: Block<'a>) {
        if block.state() == LIVE {
            let next = state_word(block.generation() + 1, UNUSED);
            block.row.state.commit(next);
        }
        self.leave_row(block);
    }

    fn add_run(&self, sorted: &mut [u32; 33], run: u32) -> Result<()> {
        let mut list = run;
        for place in sorted.iter_mut() {
            if *place == NIL {
                *place = list;
                return Ok(());
            }
            list = self.merge_lists(*place, list)?;
            *place = NIL;
        }
        Err(self.corrupted("the number of blocks"))
    }

    /// Merges two lists in the order of addresses.
    fn merge_lists(&self, a: u32, b: u32) -> Result<u32> {
        let (mut a, mut b) = (a, b);
        let mut first = NIL;
        let mut last: Option<Block<'a>> = None;
        while a != NIL && b != NIL {
            let (left, right) = (self.block(a)?, self.block(b)?);
            let smaller = if left.address() <= right.address() {
                a = left.cache.next.get();
                left
            } else {
                b = right.cache.next.get();
                right
            };
            match last {
                Some(last) => last.cache.next.set(smaller.id),
                None => first = smaller.id,
            }
            last = Some(smaller);
        }
        let rest = if a != NIL { a } else { b };
        match last {
            Some(last) => last.cache.next.set(rest),
            None => first = rest,
        }
        Ok(first)
    }

    /// Links the blocks of each segment with the free extents between them.
    /// Which pages those have is not known.
    fn tile(&self, first: u32) -> Result<()> {
        let mut id = first;
        for (number, row) in self.header.known_segments() {
            if state_of(row.state.get()) != PRESENT {
                continue;
            }
            let size = self.segment_size(number);
            let start = self.data_start(number);
            if size < start {
                return Err(self.corrupted("the size of a segment"));
            }
            let end = start + (size - start) / ALIGN * ALIGN;
            let mut reached = start;
            let mut last = NIL;
            while id != NIL {
                let block = self.block(id)?;
                if block.address().segment() != number {
                    break;
                }
                let from = block.address().offset();
                if from < reached {
                    return Err(self.corrupted("two blocks at one place"));
                }
                last = self.fill(number, reached, from, last)?;
                block.cache.previous.set(last);
                self.follow(last, block.id)?;
                last = block.id;
                reached = from + block.size();
                id = block.cache.next.get();
                block.cache.next.set(NIL);
            }
            self.fill(number, reached, end, last)?;
        }
        match id {
            NIL => Ok(()),
            _ => Err(self.corrupted("a block in no segment")),
        }
    }

    /// Makes a free extent of what lies between two offsets, behind the row
    /// `last`; returns the row that is last now.
    fn fill(&self, segment: usize, from: u64, to: u64, last: u32) -> Result<u32> {
        if to <= from {
            return Ok(last);
        }
        let place = Address::new(segment, from);
        match self.add_extent(place, to - from, last, NIL, PAGES_UNKNOWN)? {
            Some(extent) => {
                self.follow(last, extent.id)?;
                Ok(extent.id)
            }
            None => Ok(last),
        }
    }

    /// Makes `id` the one behind `last`.
    fn follow(&self, last: u32, id: u32) -> Result<()> {
        if last != NIL {
            self.block(last)?.cache.next.set(id);
        }
        Ok(())
    }
}
