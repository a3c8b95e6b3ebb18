//! Statistics: what the arena has now, and what has happened in it.

use super::core::Core;
use super::format::*;
use super::locked::Locked;
use super::refs::{BlockRef, Member};
use crate::error::Result;

/// An arena in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks that a process holds or a ticket refers to.
    pub blocks: u64,
    /// The bytes that they take.
    pub block_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Free bytes that keep their pages, at most.
    pub warm_bytes: u64,
    /// Bytes of the arena's own tables beyond the control segment's.
    pub table_bytes: u64,
    /// Segments, the control segment included.
    pub segments: u64,
    /// The bytes of all segments.
    pub segment_bytes: u64,
    /// Processes that are attached, as far as is known.
    pub processes: u64,
    /// References in flight.
    pub tickets: u64,
    /// Those among them whose sender was killed.
    pub orphans: u64,
    /// The age of the oldest of them, in ms.
    pub oldest_ticket: u64,
    /// Blocks allocated so far.
    pub allocated: u64,
    /// Blocks freed so far.
    pub freed: u64,
    /// References sent so far.
    pub sent: u64,
    /// References received so far.
    pub received: u64,
    /// References that ended unreceived so far.
    pub expired: u64,
    /// Times that the lock was taken over from a dead process.
    pub recoveries: u64,
    /// Dead processes whose references were dropped.
    pub reaped_processes: u64,
    /// References of dead processes that were dropped.
    pub reaped_references: u64,
    /// Bytes whose pages were given back to the system so far.
    pub returned_bytes: u64,
    /// Forks that were prepared.
    pub forks: u64,
    /// Forks whose child got no slot.
    pub pinned_forks: u64,
    /// Segments added so far.
    pub grows: u64,
    /// Times that pages were given back to the system so far.
    pub returns: u64,
}

impl Locked<'_> {
    fn stats(&self, now: u64) -> Result<Stats> {
        let index = &self.header.index;
        let counters = &self.header.counters;
        let mut stats = Stats {
            free_bytes: index.free.get(),
            warm_bytes: index.warm.get(),
            allocated: counters.allocated.get(),
            freed: counters.freed.get(),
            sent: counters.sent.get(),
            received: counters.received.get(),
            expired: counters.expired.get(),
            recoveries: counters.recovered.get(),
            reaped_processes: counters.reaped_slots.get(),
            reaped_references: counters.reaped_holders.get(),
            returned_bytes: counters.returned.get(),
            forks: counters.forks.get(),
            pinned_forks: counters.pins.get(),
            grows: counters.grown.get(),
            returns: counters.returns.get(),
            ..Stats::default()
        };
        self.each_live(|block| {
            stats.blocks += 1;
            stats.block_bytes += block.size();
            Ok(())
        })?;
        for block in self.table_blocks() {
            stats.table_bytes += block?.size();
        }
        for ticket in self.open_tickets() {
            let ticket = ticket?;
            let age = now.saturating_sub(ticket.opened.get());
            stats.tickets += 1;
            stats.oldest_ticket = stats.oldest_ticket.max(age);
            let owner = TicketOwner::unpack(ticket.owner.get());
            stats.orphans += matches!(owner, Ok(TicketOwner::Nobody(_))) as u64;
        }
        for (number, row) in self.header.known_segments() {
            if state_of(row.state.get()) == PRESENT {
                stats.segments += 1;
                stats.segment_bytes += self.segment_size(number);
            }
        }
        let slots = self.core.known_slots();
        let used = slots.filter(|(_, row)| state_of(row.state.read()) != EMPTY);
        stats.processes = used.count() as u64;
        Ok(stats)
    }
}

impl Core {
    /// The blocks whose names were told, of those that a process holds or a ticket refers to.
    pub fn named_blocks(&self, me: Member) -> Result<Vec<BlockRef>> {
        let locked = self.lock(me)?;
        let mut found = Vec::new();
        locked.each_live(|block| {
            if block.row.marks.get() & NAMED != 0 {
                found.push(BlockRef {
                    id: BlockId(block.id),
                    generation: block.generation(),
                });
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The bytes that are in use, and those that are free, without the lock: for messages.
    pub fn usage(&self) -> (u64, u64) {
        let header = self.header();
        let free = header.index.free.get();
        let rows = header.known_segments();
        let all = rows
            .filter(|(_, row)| state_of(row.state.read()) == PRESENT)
            .map(|(number, row)| match number {
                0 => self.geometry().size - self.geometry().data(),
                _ => row.size.get(),
            })
            .fold(0, u64::saturating_add);
        (all.saturating_sub(free), free)
    }

    /// The arena in numbers.
    pub fn stats(&self, me: Member) -> Result<Stats> {
        self.finish(me)?;
        let now = self.platform().now();
        self.lock(me)?.stats(now)
    }
}
