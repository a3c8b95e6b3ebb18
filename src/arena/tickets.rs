//! Tickets: references in flight between processes.
//!
//! Sending a block opens a ticket, which keeps the block alive whatever becomes of the sender. The
//! first receiver becomes a holder, *then* the ticket is closed. A death in between leaves one
//! reference too many, which ends when the dead process is reaped, and never one too few.
//!
//! Each open ticket has an owner:
//!
//! * its sender, at first;
//! * the arena, after the sender has left it: so the result of a worker that exits after sending it
//!   can still be received;
//! * nobody, after the sender was killed: the ticket ends after a time of grace;
//! * or a block to which the ticket was transferred, and with which it ends. So what a queue holds
//!   ends with the queue, and the arrays in a message end with the message, however these end.

use super::core::Core;
use super::format::*;
use super::locked::{Block, Locked};
use super::refs::{BlockRef, Extent, Member, TicketRef};
use super::rows::SLICE;
use crate::error::{Error, Exhausted, Result};
use std::ops::Range;

/// What an error names as damaged if the tickets of a block are not as they should be.
const OWNED: &str = "the list of tickets that a block owns";

impl<'a> Locked<'a> {
    /// Takes a closed ticket.
    #[inline(always)]
    fn take_ticket(&self) -> Result<(u32, &'a TicketRow)> {
        let index = &self.header.index;
        let mut id = index.spare_ticket.get();
        if id == NIL && index.spare_tickets.get() != 0 {
            self.core.list_tickets(self.me)?;
            id = index.spare_ticket.get();
        }
        if id != NIL {
            let ticket = self.ticket(id)?;
            if state_of(ticket.state.get()) != CLOSED {
                return Err(self.corrupted("the list of closed tickets"));
            }
            index.spare_ticket.set(ticket.next.get());
            index.spare_tickets.sub(1);
            return Ok((id, ticket));
        }
        let id = self.header.ticket_rows.get();
        let all = self.ticket_room();
        if id >= all {
            return Err(Error::Full {
                what: Exhausted::Tickets,
                asked: all as u64,
                left: 0,
            });
        }
        let ticket = self.ticket(id)?;
        self.header.ticket_rows.commit(id + 1);
        Ok((id, ticket))
    }

    /// Opens a ticket for a block.
    #[inline(always)]
    fn open(&self, which: BlockRef, lasting: bool, now: u64) -> Result<TicketRef> {
        let block = self.live(which)?;
        let (id, ticket) = self.take_ticket()?;
        ticket.block.set(which.id.0);
        ticket.generation.set(which.generation);
        ticket.owner.set(TicketOwner::Sender(self.me.slot).pack());
        ticket.opened.set(now);
        ticket.lasting.set(lasting as u64);
        let generation = generation_of(ticket.state.get());
        ticket.state.commit(state_word(generation, OPEN));
        self.open_in_part(id).add(1);
        block.cache.tickets.add(1);
        self.count(|c| &c.sent, 1);
        Ok(TicketRef {
            id: TicketId(id),
            generation,
        })
    }

    /// The rows of tickets that are open.
    pub fn open_tickets(&self) -> impl Iterator<Item = Result<&'a TicketRow>> + '_ {
        let rows = self.ticket_ids().map(|id| self.ticket(id));
        rows.filter(|row| !matches!(row, Ok(row) if state_of(row.state.get()) != OPEN))
    }

    /// The block that owns a ticket; None if that block was freed, or if no block owns the ticket.
    #[inline(always)]
    pub fn owner(&self, ticket: &TicketRow) -> Result<Option<Block<'a>>> {
        match TicketOwner::unpack(ticket.owner.get()) {
            Ok(TicketOwner::Block(id)) => {
                let block = self.block(id.0)?;
                let life = state_word(ticket.owner_generation.get(), LIVE);
                Ok((block.row.state.get() == life).then_some(block))
            }
            _ => Ok(None),
        }
    }

    /// Opens a ticket that a block owns from the beginning.
    fn open_owned(&self, which: BlockRef, owner: BlockRef, now: u64) -> Result<TicketRef> {
        if owner == which {
            return Err(Error::Invalid {
                why: "a block cannot answer for a handle of itself",
            });
        }
        self.live(owner)?;
        // The sender owns it until it is transferred; the lock is held in between.
        let ticket = self.open(which, false, now)?;
        self.transfer_ownership(ticket, which, owner)?;
        Ok(ticket)
    }

    /// Ends the tickets that a block owns, except those of which `is_found` is true.
    fn end_owned(&self, owner: BlockRef, is_found: &dyn Fn(TicketRef) -> bool) -> Result<()> {
        let block = self.live(owner)?;
        let mut next = block.first_owned_or_nil();
        // (At most as many as there are: the list is a cache, and may be damaged.)
        for _ in 0..self.header.ticket_rows.get() {
            if next == NIL {
                return Ok(());
            }
            let (row, ticket) = (next, self.ticket(next)?);
            next = ticket.next.get();
            let state = ticket.state.get();
            let owner = self.owner(ticket)?;
            let is_owned = owner.is_some_and(|found| found.id == block.id);
            if state_of(state) != OPEN || !is_owned {
                return Err(self.corrupted(OWNED));
            }
            let which = TicketRef {
                id: TicketId(row),
                generation: generation_of(state),
            };
            if !is_found(which) {
                self.end(row, ticket)?;
            }
        }
        match next {
            NIL => Ok(()),
            _ => Err(self.corrupted(OWNED)),
        }
    }

    /// Puts a ticket into the list of those that a block owns.
    #[inline(always)]
    pub fn add_owned(&self, id: u32, ticket: &TicketRow, owner: Block<'a>) -> Result<()> {
        let next = owner.first_owned_or_nil();
        if next != NIL {
            self.ticket(next)?.previous.set(id);
        }
        ticket.previous.set(NIL);
        ticket.next.set(next);
        owner.first_owned().set(id);
        owner.owned_tickets().add(1);
        Ok(())
    }

    /// Takes a ticket out of the list of those that a block owns.
    #[inline(always)]
    fn remove_owned(&self, ticket: &TicketRow, owner: Block<'a>) -> Result<()> {
        let (previous, next) = (ticket.previous.get(), ticket.next.get());
        match previous {
            NIL => owner.first_owned().set(next),
            id => self.ticket(id)?.next.set(next),
        }
        if next != NIL {
            self.ticket(next)?.previous.set(previous);
        }
        owner.owned_tickets().sub(1);
        Ok(())
    }

    /// Whether a ticket was transferred to a block that is freed.
    pub fn is_orphan(&self, ticket: &TicketRow) -> Result<bool> {
        let transferred = matches!(
            TicketOwner::unpack(ticket.owner.get()),
            Ok(TicketOwner::Block(_))
        );
        Ok(transferred && self.owner(ticket)?.is_none())
    }

    /// Ends the tickets of a block that was freed, `first` and those behind it in the list, and the
    /// tickets of blocks that are freed by that.
    ///
    /// A block can own tickets for blocks that own tickets, and so on. So this does not call itself:
    /// there is one list of tickets to end, and each block that is freed adds its own to it.
    #[cold]
    pub fn end_orphans(&self, first: u32) -> Result<()> {
        let mut last = self.orphan(first)?;
        // (At most as many as there are: the list is a cache, and may be damaged.)
        let mut left = self.header.ticket_rows.get();
        while last.next.get() != NIL {
            last = self.orphan(last.next.get())?;
            left = left.checked_sub(1).ok_or_else(|| self.corrupted(OWNED))?;
        }
        last.next.set(self.orphans.replace(first));
        if self.ends_orphans.replace(true) {
            return Ok(());
        }
        while self.orphans.get() != NIL {
            let id = self.orphans.get();
            let ticket = self.orphan(id)?;
            self.orphans.set(ticket.next.get());
            self.end(id, ticket)?;
        }
        self.ends_orphans.set(false);
        Ok(())
    }

    /// The row of an open ticket whose owner was freed.
    fn orphan(&self, id: u32) -> Result<&'a TicketRow> {
        let ticket = self.ticket(id)?;
        match state_of(ticket.state.get()) == OPEN && self.is_orphan(ticket)? {
            true => Ok(ticket),
            false => Err(self.corrupted(OWNED)),
        }
    }

    /// Makes a block the owner of a ticket; false if that is not open any more, or another block
    /// owns it.
    fn transfer_ownership(
        &self,
        which: TicketRef,
        block: BlockRef,
        owner: BlockRef,
    ) -> Result<bool> {
        let keeping = self.live(owner)?;
        if owner == block {
            return Err(Error::Invalid {
                why: "a block cannot answer for a handle of itself",
            });
        }
        let Some(row) = self.opened(which, block)? else {
            return Ok(false);
        };
        if matches!(
            TicketOwner::unpack(row.owner.get()),
            Ok(TicketOwner::Block(_))
        ) {
            return Ok(false);
        }
        row.owner_generation.set(owner.generation);
        row.owner.commit(TicketOwner::Block(owner.id).pack());
        self.add_owned(which.id.0, row, keeping)?;
        Ok(true)
    }

    /// Closes an open ticket, which must not be used any more, and leaves its
    /// block as it is.
    #[inline(always)]
    pub fn close_row(&self, id: u32, ticket: &TicketRow) -> Result<()> {
        if let Some(owner) = self.owner(ticket)? {
            self.remove_owned(ticket, owner)?;
        }
        let generation = generation_of(ticket.state.get()) + 1;
        ticket.state.commit(state_word(generation, CLOSED));
        self.open_in_part(id).sub(1);
        let index = &self.header.index;
        index.spare_tickets.add(1);
        if id < self.header.rows.listed_tickets.get() {
            ticket.next.set(index.spare_ticket.get());
            index.spare_ticket.set(id);
        }
        Ok(())
    }

    /// Ends a ticket that was not received; its block may be freed by that.
    pub fn end(&self, id: u32, ticket: &TicketRow) -> Result<()> {
        let block = self.block(ticket.block.get())?;
        self.close_row(id, ticket)?;
        self.count(|c| &c.expired, 1);
        if block.row.state.get() != state_word(ticket.generation.get(), LIVE) {
            return Err(self.corrupted("the block of an open ticket"));
        }
        block.cache.tickets.sub(1);
        self.free_if_unwanted(block)?;
        Ok(())
    }

    /// The row of a ticket that is open, in the life that is named, for the
    /// block that is named.
    #[inline(always)]
    fn opened(&self, which: TicketRef, block: BlockRef) -> Result<Option<&'a TicketRow>> {
        if which.id.0 >= self.header.ticket_rows.get() {
            return Err(Error::BadHandle {
                why: "it names a ticket that never was",
            });
        }
        let ticket = self.ticket(which.id.0)?;
        let same = ticket.state.get() == state_word(which.generation, OPEN)
            && ticket.block.get() == block.id.0
            && ticket.generation.get() == block.generation;
        Ok(same.then_some(ticket))
    }

    #[inline(always)]
    fn receive(&self, which: BlockRef, by: Option<TicketRef>, once: bool) -> Result<Extent> {
        let block = self.live(which)?;
        let ticket = match by {
            Some(ticket) => self.opened(ticket, which)?.map(|row| (ticket.id.0, row)),
            None => None,
        };
        if once && ticket.is_none() {
            return Err(Error::Stale);
        }
        // Before anything changes: a segment that cannot be mapped leaves the
        // ticket as it is.
        let place = self.meet_extent(block)?;
        self.hold(block);
        if let Some((id, row)) = ticket {
            self.close_row(id, row)?;
            block.cache.tickets.sub(1);
            self.count(|c| &c.received, 1);
        }
        Ok(place)
    }

    fn cancel(&self, which: TicketRef, block: BlockRef) -> Result<bool> {
        match self.opened(which, block)? {
            Some(row) => self.end(which.id.0, row).map(|()| true),
            None => Ok(false),
        }
    }

    /// Ends the tickets opened at `time` or before, of some rows, except those that a block owns; how
    /// many.
    fn cancel_before(&self, rows: Range<u32>, time: u64) -> Result<u64> {
        let mut ended = 0;
        for id in rows {
            let ticket = self.ticket(id)?;
            let open = state_of(ticket.state.get()) == OPEN;
            if open && ticket.opened.get() <= time && self.owner(ticket)?.is_none() {
                self.end(id, ticket)?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}

impl Core {
    /// Opens a ticket for a block that a process holds.
    ///
    /// # Errors
    /// `Stale` if the block has been freed, `Full` if there are too many
    /// tickets.
    #[inline]
    pub fn send(&self, me: Member, which: BlockRef) -> Result<TicketRef> {
        self.send_as(me, which, false)
    }

    /// [`Core::send`]; if `lasting`, the ticket is for a receiver outside this program and stays
    /// open when the program ends.
    #[inline(always)]
    pub fn send_as(&self, me: Member, which: BlockRef, lasting: bool) -> Result<TicketRef> {
        let now = self.platform().now();
        let sent = self.lock(me)?.open(which, lasting, now);
        match sent {
            Err(Error::Full { .. }) => {
                self.send_with_more_tickets(me, &|locked| locked.open(which, lasting, now))
            }
            sent => sent,
        }
    }

    #[cold]
    fn send_with_more_tickets(
        &self,
        me: Member,
        send: &dyn Fn(&Locked<'_>) -> Result<TicketRef>,
    ) -> Result<TicketRef> {
        self.reap(me)?;
        loop {
            let sent = send(&self.lock(me)?);
            match sent {
                Err(Error::Full { .. }) => self.add_tickets(me)?,
                sent => return sent,
            }
        }
    }

    /// Opens a ticket for a block that a process holds, with another block as its owner: see [`Core::transfer_ownership`].
    ///
    /// # Errors
    /// As for both.
    #[inline]
    pub fn send_owned(&self, me: Member, which: BlockRef, owner: BlockRef) -> Result<TicketRef> {
        let now = self.platform().now();
        let sent = self.lock(me)?.open_owned(which, owner, now);
        match sent {
            Err(Error::Full { .. }) => {
                self.send_with_more_tickets(me, &|locked| locked.open_owned(which, owner, now))
            }
            sent => sent,
        }
    }

    /// Ends the tickets that `owner` owns, except those for which `is_found` returns true. It is
    /// called under the lock.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn end_owned(
        &self,
        me: Member,
        owner: BlockRef,
        is_found: &dyn Fn(TicketRef) -> bool,
    ) -> Result<()> {
        self.lock(me)?.end_owned(owner, is_found)
    }

    /// Makes `me` a holder of a block and returns where it is. The ticket `by` is closed if it is
    /// open. Without an open ticket the block can be received for as long as it lives.
    ///
    /// # Errors
    /// `Stale` if the block has been freed, `BadHandle` if what is named never
    /// was.
    #[inline]
    pub fn receive(&self, me: Member, which: BlockRef, by: Option<TicketRef>) -> Result<Extent> {
        self.receive_and(me, which, by, false, || ())
    }

    /// [`Core::receive`]; `once`: only if the ticket is open. `then` runs before
    /// the lock is given back.
    #[inline(always)]
    pub fn receive_and(
        &self,
        me: Member,
        which: BlockRef,
        by: Option<TicketRef>,
        once: bool,
        then: impl FnOnce(),
    ) -> Result<Extent> {
        let locked = self.lock(me)?;
        let place = locked.receive(which, by, once)?;
        then();
        Ok(place)
    }

    /// Has others find a block by its name from now on.
    ///
    /// # Errors
    /// `Stale` if it has been freed.
    pub fn tell_name(&self, me: Member, which: BlockRef) -> Result<()> {
        let locked = self.lock(me)?;
        let marks = &locked.live(which)?.row.marks;
        if marks.get() & NAMED == 0 {
            marks.commit(marks.get() | NAMED);
        }
        Ok(())
    }

    /// Holds a block whose name was told. `then` runs before the lock is given back.
    ///
    /// # Errors
    /// `Stale` if it has been freed or its name was not told, `BadHandle` if it never
    /// was.
    pub fn find_and(&self, me: Member, which: BlockRef, then: impl FnOnce()) -> Result<Extent> {
        let locked = self.lock(me)?;
        if locked.live(which)?.row.marks.get() & NAMED == 0 {
            return Err(Error::Stale);
        }
        let place = locked.receive(which, None, false)?;
        then();
        Ok(place)
    }

    /// Ends a ticket that will not be received; false if it is not open any more.
    ///
    /// # Errors
    /// `BadHandle` if it never was.
    pub fn cancel(&self, me: Member, which: TicketRef, block: BlockRef) -> Result<bool> {
        self.lock(me)?.cancel(which, block)
    }

    /// Makes the block `owner` the owner of a ticket: it ends, if it was not received, when that
    /// block is freed. False if it is not open any more, or another block owns it.
    ///
    /// # Errors
    /// `Stale` if `owner` has been freed, `Invalid` if the ticket is for it.
    pub fn transfer_ownership(
        &self,
        me: Member,
        which: TicketRef,
        block: BlockRef,
        owner: BlockRef,
    ) -> Result<bool> {
        self.lock(me)?.transfer_ownership(which, block, owner)
    }

    /// Ends all tickets that were opened at least `age` ms ago and that no block owns; how many.
    pub fn cancel_older(&self, me: Member, age: u64) -> Result<u64> {
        let time = self.platform().now().saturating_sub(age);
        let (mut first, mut ended) = (0, 0);
        loop {
            let locked = self.lock(me)?;
            let Some(rows) = locked.busy_tickets(first) else {
                return Ok(ended);
            };
            first = rows.end.min(rows.start.saturating_add(SLICE));
            ended += locked.cancel_before(rows.start..first, time)?;
        }
    }
}
