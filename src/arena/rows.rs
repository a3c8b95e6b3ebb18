//! Rows of the tables: which are in use, and which are taken next. Caches.
//!
//! A table has as many rows as were ever used at one time, and few of them may be in use after a
//! burst. What looks at all blocks or at all tickets (a reap, a fork, the end of a process) passes over the
//! parts of the table in which none is: each part counts its own.
//!
//! Unused rows are in a list. After a burst they are there in the order in which they were freed,
//! which may be any; rows from all over the table would be taken from it. So it is given up when nearly all
//! rows are unused, and made anew from the first row on, a few rows at a time, as they are needed.

use super::core::Core;
use super::format::*;
use super::locked::{Block, Locked};
use super::refs::Member;
use super::word::U32;
use crate::error::Result;
use std::mem::ManuallyDrop;
use std::ops::Range;

/// How many rows an operation looks at before it gives the lock back and takes it again.
pub(super) const SLICE: u32 = 4096;
/// How many rows are looked at for unused ones at a time.
const BATCH: u32 = 64;
/// With fewer rows the order of the unused ones does not matter.
const FEW: u32 = 8192;

/// The first part from row `first` on in which rows are in use: the rows of it that were used,
/// not before `first`.
fn next_busy(counts: &[U32; PARTS], shift: u32, used: u32, first: u32) -> Option<Range<u32>> {
    let chunk = first >> shift;
    if first >= used || chunk >= CHUNKS as u32 {
        return None;
    }
    let mut parts = part_of(chunk)..PARTS;
    let part = parts.find(|part| counts[*part].get() != 0)?;
    let start = (first_chunk(part) as u64) << shift;
    let end = (first_chunk(part + 1) as u64) << shift;
    let (start, end) = (start.max(first as u64), end.min(used as u64));
    (start < end).then_some(start as u32..end as u32)
}

/// Whether nearly all rows are unused, and the list of them is out of order.
fn is_due(unused: u32, used: u32, listed: u32) -> bool {
    let most = used / 8 * 7;
    unused > FEW && unused > most && listed.min(used) > FEW
}

impl<'a> Locked<'a> {
    /// Counts `count` blocks of one chunk, `id` among them, that have become LIVE.
    #[inline(always)]
    pub fn count_live(&self, id: u32, count: u32) {
        self.live_in_part(id).add(count)
    }

    /// Counts a block that is LIVE no more.
    #[inline(always)]
    pub fn discount_live(&self, id: u32) {
        self.live_in_part(id).sub(1)
    }

    #[inline(always)]
    fn live_in_part(&self, id: u32) -> &'a U32 {
        let part = part_of(id >> self.core.geometry().block_shift);
        &self.header.rows.live[part.min(PARTS - 1)]
    }

    /// How many tickets are open in the part of the table in which this one is.
    #[inline(always)]
    pub fn open_in_part(&self, id: u32) -> &'a U32 {
        let part = part_of(id >> self.core.geometry().ticket_shift);
        &self.header.rows.open[part.min(PARTS - 1)]
    }

    /// Rows of blocks, from `first` on, among which some are LIVE; None if all that follow are not.
    pub fn busy_blocks(&self, first: u32) -> Option<Range<u32>> {
        let shift = self.core.geometry().block_shift;
        let used = self.header.block_rows.get();
        next_busy(&self.header.rows.live, shift, used, first)
    }

    /// Tickets, from `first` on, among which some are open.
    pub fn busy_tickets(&self, first: u32) -> Option<Range<u32>> {
        let shift = self.core.geometry().ticket_shift;
        let used = self.header.ticket_rows.get();
        next_busy(&self.header.rows.open, shift, used, first)
    }

    /// Whether more blocks are LIVE, or more tickets open, than are looked at in one go.
    pub fn has_many_in_use(&self) -> bool {
        let rows = &self.header.rows;
        let used = self
            .header
            .block_rows
            .get()
            .max(self.header.ticket_rows.get());
        let sum = |counts: &[U32; PARTS]| {
            counts
                .iter()
                .fold(0u32, |sum, count| sum.saturating_add(count.get()))
        };
        used > SLICE && (sum(&rows.live) > SLICE || sum(&rows.open) > SLICE)
    }

    /// Does something with each block that is LIVE.
    pub fn each_live(&self, mut act: impl FnMut(Block<'a>) -> Result<()>) -> Result<()> {
        let mut first = 0;
        while let Some(rows) = self.busy_blocks(first) {
            first = rows.end;
            self.each_live_in(rows, &mut act)?;
        }
        Ok(())
    }

    /// Does something with each block among some rows that is LIVE.
    pub fn each_live_in(
        &self,
        rows: Range<u32>,
        mut act: impl FnMut(Block<'a>) -> Result<()>,
    ) -> Result<()> {
        for id in rows {
            let block = self.block(id)?;
            if block.state() == LIVE {
                act(block)?;
            }
        }
        Ok(())
    }

    /// The numbers of the tickets that may be open.
    pub fn ticket_ids(&self) -> impl Iterator<Item = u32> + '_ {
        let mut first = 0;
        let parts = std::iter::from_fn(move || {
            let rows = self.busy_tickets(first)?;
            first = rows.end;
            Some(rows)
        });
        parts.flatten()
    }

    /// Moves a free extent that is in no bin to a lower row, if one is listed: a block that is made of
    /// it does not keep high rows in use.
    fn move_down(&self, extent: Block<'a>) -> Result<Block<'a>> {
        let index = &self.header.index;
        if index.spare_block.get() == NIL && index.spare_blocks.get() != 0 {
            self.list_blocks()?;
        }
        if index.spare_block.get() >= extent.id {
            return Ok(extent);
        }
        let Some(row) = self.take_row()? else {
            return Ok(extent);
        };
        row.row.address.set(extent.row.address.get());
        row.row.size.set(extent.row.size.get());
        let (previous, next) = (extent.cache.previous.get(), extent.cache.next.get());
        row.cache.previous.set(previous);
        row.cache.next.set(next);
        row.cache.whole.set(extent.cache.whole.get());
        row.warm().set(extent.warm().get());
        row.row.state.set(state_word(row.generation(), FREE));
        if previous != NIL {
            self.block(previous)?.cache.next.set(row.id);
        }
        if next != NIL {
            self.block(next)?.cache.previous.set(row.id);
        }
        self.leave_row(extent);
        Ok(row)
    }

    /// Gives up lists of unused rows that are out of order, if nearly all rows are unused.
    pub fn give_up_lists(&self) {
        let (index, rows) = (&self.header.index, &self.header.rows);
        let used = self.header.block_rows.get();
        if is_due(index.spare_blocks.get(), used, rows.listed_blocks.get()) {
            rows.listed_blocks.set(0);
            index.spare_block.set(NIL);
        }
        let used = self.header.ticket_rows.get();
        if is_due(index.spare_tickets.get(), used, rows.listed_tickets.get()) {
            rows.listed_tickets.set(0);
            index.spare_ticket.set(NIL);
        }
    }

    /// Lists more unused rows of blocks, when none is listed and there are some.
    fn list_blocks(&self) -> Result<()> {
        let (index, rows) = (&self.header.index, &self.header.rows);
        let used = self.header.block_rows.get();
        while index.spare_block.get() == NIL {
            let first = rows.listed_blocks.get();
            if first >= used {
                return Err(self.corrupted("the number of unused rows"));
            }
            let end = first.saturating_add(BATCH);
            // Backwards: the first is the next to be taken.
            for id in (first..end.min(used)).rev() {
                let block = self.block(id)?;
                if block.state() == UNUSED {
                    block.cache.bin_next.set(index.spare_block.get());
                    index.spare_block.set(id);
                }
            }
            rows.listed_blocks.set(if end < used { end } else { NIL });
        }
        Ok(())
    }

    /// Lists more closed tickets, when none is listed and there are some.
    fn list_tickets(&self) -> Result<()> {
        let (index, rows) = (&self.header.index, &self.header.rows);
        let used = self.header.ticket_rows.get();
        while index.spare_ticket.get() == NIL {
            let first = rows.listed_tickets.get();
            if first >= used {
                return Err(self.corrupted("the number of closed tickets"));
            }
            let end = first.saturating_add(BATCH);
            for id in (first..end.min(used)).rev() {
                let ticket = self.ticket(id)?;
                if state_of(ticket.state.get()) == CLOSED {
                    ticket.next.set(index.spare_ticket.get());
                    index.spare_ticket.set(id);
                }
            }
            rows.listed_tickets.set(if end < used { end } else { NIL });
        }
        Ok(())
    }

    /// Forgets which rows are in use, and which are listed.
    pub fn clear_rows(&self) {
        let rows = &self.header.rows;
        rows.live
            .iter()
            .chain(&rows.open)
            .for_each(|count| count.set(0));
        rows.listed_blocks.set(NIL);
        rows.listed_tickets.set(NIL);
    }
}

/// What operations seldom need of the above. It is asked of the core, by a process that has the lock: lent
/// to a function that is no part of it, a `Locked` would lie in memory in each operation, which then takes a
/// tenth longer.
impl Core {
    /// Lists more unused rows of blocks, when none is listed and there are some.
    #[cold]
    pub(super) fn list_blocks(&self, me: Member) -> Result<()> {
        ManuallyDrop::new(self.locked(me)).list_blocks()
    }

    /// Lists more closed tickets, when none is listed and there are some.
    #[cold]
    pub(super) fn list_tickets(&self, me: Member) -> Result<()> {
        ManuallyDrop::new(self.locked(me)).list_tickets()
    }

    /// Moves a free extent that is in no bin to a lower row, if one is listed.
    #[cold]
    pub(super) fn move_down<'a>(&'a self, me: Member, extent: Block<'a>) -> Result<Block<'a>> {
        ManuallyDrop::new(self.locked(me)).move_down(extent)
    }
}
