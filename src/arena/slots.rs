//! Slots: processes that join, leave and die.
//!
//! A process is a member of the arena while it holds the byte lock of a slot whose row says ALIVE.
//! The kernel drops the byte lock when the process exits, however it exits. The platform knows what
//! else counts: a process that closed all its descriptors has lost the lock and is alive.
//!
//! Taking an EMPTY slot needs no arena lock. The kernel gives the byte to one process; a compare
//! and exchange of the row's state decides between that process and a forking one that wants to
//! reserve the slot for its child. Emptying a slot needs the lock, and comes after everything that
//! names the slot is gone from the tables: an EMPTY slot holds no block, owns no ticket and makes
//! no segment.

use super::core::Core;
use super::format::*;
use super::locked::{Block, Locked};
use super::platform::Identity;
use super::refs::Member;
use super::rows::SLICE;
use super::word::{U32, U64};
use crate::activity::{Event, EVENTS};
use crate::error::{Error, Exhausted, Result};
use std::ops::Range;

/// How often a process looks for a slot while one is being freed, with a short sleep in
/// between. One that is stopped halfway keeps nobody waiting for longer.
const LOOKS: u32 = 500;

/// The event that the process of a slot is reaped; before another one has the slot.
fn reaped(row: &SlotRow) -> Event {
    Event::Reaped {
        pid: row.pid.get(),
        exited: row.detached.get() == generation_of(row.state.read()),
    }
}

/// As many of some rows as are looked at before the lock is given back.
fn slice_of(rows: Range<u32>) -> Range<u32> {
    rows.start..rows.end.min(rows.start.saturating_add(SLICE))
}

impl Locked<'_> {
    /// The slots of dead processes.
    fn dead(&self) -> SlotSet {
        let mut dead = SlotSet::default();
        for (slot, _) in self.core.known_slots() {
            if slot != self.me.slot && self.core.is_over(slot) {
                dead.insert(slot);
            }
        }
        dead
    }

    /// Drops all that the processes in `dead` held, and ends tickets whose grace is over.
    fn drop_holdings(&self, dead: SlotSet, advance: &Advance) -> Result<()> {
        let now = self.core.platform().now();
        self.orphan_tickets(dead, now)?;
        self.drop_holders(self.without(dead, advance))
    }

    /// Drops all that the processes in `dead` held, and empties their slots. The segments that they
    /// were making are another's by now.
    fn reap_slots(&self, dead: SlotSet, advance: &Advance) -> Result<()> {
        self.drop_holdings(dead, advance)?;
        for slot in dead.iter() {
            let row = self.slot(slot);
            let state = row.state.read();
            let empty = state_word(generation_of(state), EMPTY);
            let reaped = reaped(row);
            // Another process may have taken the slot over. That shows first in its byte lock, then
            // in its state.
            if self.core.is_over(slot) && row.state.swap_if(state, empty).is_ok() {
                self.count(|c| &c.reaped_slots, 1);
                EVENTS.note(self.core.uuid(), reaped);
            }
        }
        Ok(())
    }

    /// The tickets of killed senders live for the time of grace; those whose
    /// time is over end.
    fn orphan_tickets(&self, dead: SlotSet, now: u64) -> Result<()> {
        // When the first of those that stay ends.
        let mut first = u64::MAX;
        for id in self.ticket_ids() {
            first = first.min(self.orphan_ticket(id, &dead, now)?);
        }
        let orphans = &self.header.orphans;
        orphans.commit(if first == u64::MAX { 0 } else { first });
        Ok(())
    }

    /// The same for one ticket: when it ends, or `u64::MAX`.
    fn orphan_ticket(&self, id: u32, dead: &SlotSet, now: u64) -> Result<u64> {
        let grace = self.header.grace.get();
        let ticket = self.ticket(id)?;
        if state_of(ticket.state.get()) != OPEN {
            return Ok(u64::MAX);
        }
        let owner = TicketOwner::unpack(ticket.owner.get());
        match owner.map_err(|_| self.corrupted("a ticket's owner"))? {
            TicketOwner::Sender(slot) if dead.contains(slot) && grace == 0 => {
                self.end(id, ticket)?
            }
            TicketOwner::Sender(slot) if dead.contains(slot) => {
                let end = now.saturating_add(grace).min(u64::MAX >> 2);
                // First of all: a process that finds this one dead continues from it.
                let orphans = &self.header.orphans;
                if orphans.get() == 0 {
                    orphans.commit(end);
                }
                ticket.owner.commit(TicketOwner::Nobody(end).pack());
                return Ok(end);
            }
            TicketOwner::Nobody(end) if end <= now => self.end(id, ticket)?,
            TicketOwner::Nobody(end) => return Ok(end),
            _ => {}
        }
        Ok(u64::MAX)
    }

    /// Those of the dead that may hold blocks.
    fn without(&self, dead: SlotSet, advance: &Advance) -> SlotSet {
        let mut left = dead;
        for (slot, life) in &advance.lives {
            if self.slot(*slot).state.read() == *life {
                let (word, bit) = SlotSet::place(*slot);
                left.0[word] &= !bit;
            }
        }
        left
    }

    fn drop_holders(&self, dead: SlotSet) -> Result<()> {
        let pins_end = self.header.pinned.get() != 0 && !self.core.may_have_pins();
        let frozen = self.header.frozen.read();
        // A fork that wants everything kept meanwhile counts on, and wins.
        let thaws = frozen != 0
            && !self.core.may_have_pins()
            && self.header.frozen.swap_if(frozen, 0).is_ok();
        if dead.is_empty() && !pins_end && !thaws {
            return Ok(());
        }
        self.each_live(|block| {
            let mut dropped = self.drop_holders_of(block, &dead);
            let marks = block.row.marks.get();
            if pins_end && marks & PINNED != 0 {
                block.row.marks.commit(marks & !PINNED);
                dropped += 1;
            }
            if dropped > 0 {
                self.count(|c| &c.reaped_holders, dropped);
            }
            if dropped > 0 || thaws {
                self.free_if_unwanted(block)?;
            }
            Ok(())
        })?;
        if pins_end {
            self.header.pinned.commit(0);
        }
        Ok(())
    }

    /// Takes dead processes from the holders of a block; how many it were.
    #[inline(always)]
    fn drop_holders_of(&self, block: Block<'_>, dead: &SlotSet) -> u64 {
        // (Copies, which the compiler knows that no store to shared memory changes.)
        let [a, b, c, d, further @ ..] = dead.0;
        let mut dropped = 0;
        let mut drop = |holders: &U64, dead: u64| {
            let had = holders.get();
            if had & dead != 0 {
                holders.commit(had & !dead);
                dropped += (had & dead).count_ones() as u64;
            }
        };
        for (holders, dead) in block.row.holders.iter().zip([a, b, c, d]) {
            drop(holders, dead);
        }
        for (holders, dead) in self.further_holders(block).iter().zip(&further) {
            drop(holders, *dead);
        }
        dropped
    }

    /// What [`drop_holdings`](Self::drop_holdings) does, for some rows of each table from `next` on:
    /// the tickets' and the blocks', which become those that follow. False if there were none.
    fn drop_some(&self, dead: &SlotSet, next: &mut [u32; 2]) -> Result<bool> {
        let now = self.core.platform().now();
        let [ticket, block] = next;
        let tickets = self.busy_tickets(*ticket).map(slice_of);
        let blocks = self.busy_blocks(*block).map(slice_of);
        for rows in tickets.iter().cloned() {
            *ticket = rows.end;
            for id in rows {
                self.orphan_ticket(id, dead, now)?;
            }
        }
        for rows in blocks.iter().cloned() {
            *block = rows.end;
            self.each_live_in(rows, |block| {
                let dropped = self.drop_holders_of(block, dead);
                if dropped > 0 {
                    self.count(|c| &c.reaped_holders, dropped);
                    self.free_if_unwanted(block)?;
                }
                Ok(())
            })?;
        }
        Ok(tickets.is_some() || blocks.is_some())
    }

    /// Drops this process's blocks that it does not use, of some rows from `next` on, which becomes
    /// the row that follows; false if there were none.
    fn drop_some_unused(&self, next: &mut u32, is_used: &dyn Fn(BlockId) -> bool) -> Result<bool> {
        let Some(rows) = self.busy_blocks(*next).map(slice_of) else {
            return Ok(false);
        };
        *next = rows.end;
        self.each_live_in(rows, |block| self.drop_if_unused(block, is_used).map(drop))?;
        Ok(true)
    }

    /// Drops a block if this process holds it and does not use it; false if it uses it.
    fn drop_if_unused(&self, block: Block<'_>, is_used: &dyn Fn(BlockId) -> bool) -> Result<bool> {
        let (word, bit) = SlotSet::place(self.me.slot);
        let holders = self.holders_at(block, word);
        if holders.get() & bit == 0 {
            return Ok(true);
        }
        if is_used(BlockId(block.id)) {
            return Ok(false);
        }
        holders.commit(holders.get() & !bit);
        self.free_if_unwanted(block)?;
        Ok(true)
    }

    /// Removes the segments that this process was making. No thread of it is at work: they are
    /// nobody's, since what was half done could not be finished.
    fn abandon_buildings(&self) {
        let mut mine = SlotSet::default();
        mine.insert(self.me.slot);
        for number in self.take_over_buildings(&mine).iter() {
            self.core.platform().remove(number);
            self.header.segments[number].state.commit(ABSENT as u64);
        }
    }

    /// Gives this process's tickets to the arena, and drops the blocks that it
    /// does not keep; if it keeps none, empties its slot. If it is alone, and its
    /// whole program ends, so do tickets that nobody will receive.
    ///
    /// None of the `dead` is making a segment.
    fn detach(
        &self,
        dead: SlotSet,
        is_used: &dyn Fn(BlockId) -> bool,
        program_ends: bool,
    ) -> Result<Detachment> {
        let me = self.me.slot;
        self.give_up_lists();
        self.reap_slots(dead, &Advance::default())?;
        self.abandon_buildings();
        for ticket in self.open_tickets() {
            let ticket = ticket?;
            if ticket.owner.get() == TicketOwner::Sender(me).pack() {
                ticket.owner.commit(TicketOwner::Arena.pack());
            }
        }
        let mut left = true;
        self.each_live(|block| {
            left &= self.drop_if_unused(block, is_used)?;
            Ok(())
        })?;
        if left {
            let row = self.slot(me);
            // The number of a process that lives on must not vouch for a process that dies in this
            // slot before it has written its own.
            row.pid.set(0);
            row.state.commit(state_word(self.me.generation, EMPTY));
        } else {
            self.slot(me).detached.set(self.me.generation);
        }
        let tree = self.slot(me).tree.get();
        let alone = self.is_alone();
        if alone && program_ends {
            // Under the same lock: a thread that goes on may have opened some.
            self.end_abandoned(u64::MAX, true, 0)?;
        }
        let last = alone && !self.is_awaited()?;
        if last {
            // A process that has opened the arena and is not a member yet sees this.
            self.header.unlinked.commit(1);
        }
        let kin = self.others().any(|row| row.tree.get() == tree);
        // Under the lock, as the rest: the next process to detach finds it done.
        let unregisters = tree != 0
            && (last || !kin)
            && self
                .header
                .registrar
                .swap_if(tree, if last { 0 } else { tree | ENDING })
                .is_ok();
        Ok(Detachment {
            left,
            last,
            unregisters,
        })
    }

    /// See [`Core::others`].
    fn others(&self) -> impl Iterator<Item = &SlotRow> {
        self.core.others(self.me)
    }

    pub fn is_alone(&self) -> bool {
        self.others().next().is_none()
    }

    /// Whether a ticket waits for a receiver that no process knows of. One for
    /// which a block answers does not: that is held by this process alone, or
    /// goes with another ticket.
    fn is_awaited(&self) -> Result<bool> {
        for ticket in self.open_tickets() {
            if self.owner(ticket?)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends tickets that were opened at `time` or before, and those of the dead
    /// that are older than their grace; but for what a block answers for, and, if
    /// that is to be kept, what is lasting.
    fn end_abandoned(&self, time: u64, keep_lasting: bool, now: u64) -> Result<()> {
        let grace = self.header.grace.get();
        for id in self.ticket_ids() {
            let ticket = self.ticket(id)?;
            if state_of(ticket.state.get()) != OPEN {
                continue;
            }
            let lasts = keep_lasting && ticket.lasting.get() != 0;
            if lasts || self.owner(ticket)?.is_some() {
                continue;
            }
            let opened = ticket.opened.get();
            let orphan = matches!(
                TicketOwner::unpack(ticket.owner.get()),
                Ok(TicketOwner::Nobody(_))
            );
            if opened <= time || orphan && opened.saturating_add(grace) <= now {
                self.end(id, ticket)?;
            }
        }
        Ok(())
    }
}

/// Dead processes that are no holders of blocks any more.
#[derive(Default)]
struct Advance {
    /// Their slots and the words of their states.
    lives: Vec<(SlotId, u64)>,
}

/// How a process has detached from an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detachment {
    /// Its slot is empty; if not, it still has the blocks that it keeps.
    pub left: bool,
    /// No other process is a member and no ticket is open: the arena is marked
    /// as unlinked, and its names should go.
    pub last: bool,
    /// It was the last of the tree whose end was to remove the names, and has
    /// to see to it that it does not; then, if others may come, the registrar is
    /// no longer [`ENDING`].
    pub unregisters: bool,
}

impl Core {
    /// Makes this process a member.
    ///
    /// The arena may have been left by its last member meanwhile: see
    /// [`Core::admit`].
    ///
    /// It waits for a moment while a slot is being freed.
    ///
    /// # Errors
    /// `Full` if all slots belong to living processes, and what the platform
    /// reports.
    pub fn register(&self) -> Result<Member> {
        let member = self.take_slot();
        // After it is a member: a check that has not seen it does not end the checks.
        self.begin_checks();
        member
    }

    fn take_slot(&self) -> Result<Member> {
        // Nobody wakes a process that waits for a slot: it sleeps for a moment.
        let moment = U32::new(0);
        for _ in 0..LOOKS {
            for slot in self.all_slots() {
                self.ensure_slot(slot)?;
                if let Some(member) = self.take_empty(slot)? {
                    return Ok(member);
                }
            }
            for (slot, _) in self.known_slots() {
                if let Some(member) = self.take_from_dead(slot)? {
                    return Ok(member);
                }
            }
            let mut slots = self.all_slots();
            if !slots.any(|slot| self.is_being_freed(slot)) {
                break;
            }
            if self.platform().is_interrupted() {
                return Err(Error::Interrupted);
            }
            self.platform().sleep(&moment, moment.get());
        }
        Err(Error::Full {
            what: Exhausted::Slots,
            asked: self.geometry().processes as u64,
            left: 0,
        })
    }

    /// Whether a slot that could not be taken soon can be: its process is at its end, or
    /// has emptied the slot and not given its byte back, or another process has just
    /// emptied it.
    fn is_being_freed(&self, slot: SlotId) -> bool {
        let row = self.slot(slot);
        let state = row.state.read();
        let detached = row.detached.get() == generation_of(state);
        state_of(state) == EMPTY || detached || self.is_over(slot)
    }

    /// Takes a slot that is EMPTY.
    fn take_empty(&self, slot: SlotId) -> Result<Option<Member>> {
        let row = self.slot(slot);
        let state = row.state.read();
        if state_of(state) != EMPTY || !self.platform().claim(slot)? {
            return Ok(None);
        }
        let member = self.enter(slot, state);
        if member.is_none() {
            self.platform().disclaim(slot);
        }
        Ok(member)
    }

    /// Becomes ALIVE in a slot whose byte this process holds, if its state
    /// still is the one that was seen.
    fn enter(&self, slot: SlotId, seen: u64) -> Option<Member> {
        let row = self.slot(slot);
        if row.state.read() != seen {
            return None;
        }
        self.header().know_slot(slot);
        let generation = generation_of(seen) + 1;
        let alive = state_word(generation, ALIVE);
        // Pairs with the reads of others: `know_slot` comes before.
        row.state.swap_if(seen, alive).ok()?;
        // Not before: the row may be a child's by then. The byte speaks for
        // this process meanwhile.
        self.sign(slot);
        Some(Member { slot, generation })
    }

    /// Writes this process's identity into its row.
    pub(super) fn sign(&self, slot: SlotId) {
        let row = self.slot(slot);
        let Identity {
            pid,
            started,
            stack,
            namespace,
            tree,
        } = self.platform().identity();
        row.pid.set(pid);
        row.started.set(started);
        row.stack.set(stack);
        row.namespace.set(namespace);
        row.tree.set(tree);
    }

    /// Whether the process of a slot is dead. An EMPTY slot has none.
    pub(super) fn is_over(&self, slot: SlotId) -> bool {
        let row = self.slot(slot);
        let state = row.state.read();
        let platform = self.platform();
        match state_of(state) {
            EMPTY => false,
            // The child becomes ALIVE before it drops its sign of life, so a look at the state
            // after the look for the sign settles it.
            // One that could not take its byte yet lives by its number, too.
            RESERVED => {
                platform.is_child_gone(slot)
                    && platform.is_dead(slot, row)
                    && row.state.read() == state
            }
            _ => platform.is_dead(slot, row),
        }
    }

    /// Takes the slot of a dead process: its byte lock makes this process the only one that can. The
    /// slot begins its next life at once, so that this process takes the arena's lock like any other
    /// member, and what the dead process held is dropped before this one holds anything.
    fn take_from_dead(&self, slot: SlotId) -> Result<Option<Member>> {
        let row = self.slot(slot);
        let state = row.state.read();
        if !self.is_over(slot) || !self.platform().claim(slot)? {
            return Ok(None);
        }
        let reaped = reaped(row);
        let member = self.enter(slot, state);
        let succeeded = match member {
            Some(member) => self.replace_dead(member),
            None => Ok(()),
        };
        if member.is_none() || succeeded.is_err() {
            if succeeded.is_err() {
                // No process's number: the slot is a dead process's again.
                row.pid.set(0);
            }
            self.platform().disclaim(slot);
        } else {
            EVENTS.note(self.uuid(), reaped);
        }
        succeeded.map(|()| member)
    }

    fn replace_dead(&self, successor: Member) -> Result<()> {
        let mut dead = SlotSet::default();
        dead.insert(successor.slot);
        let (made, _work) = {
            let locked = self.lock(successor)?;
            locked.drop_holdings(dead, &Advance::default())?;
            (locked.take_over_buildings(&dead), locked.begin_work())
        };
        self.remove_segments(successor, made).map(drop)
    }

    /// Ends this process's membership: its references are dropped, and the arena becomes the owner
    /// of the tickets it opened.
    ///
    /// # Errors
    /// `Busy` or `Corrupted`; the byte lock is released all the same, so that others see this
    /// process as dead.
    pub fn leave(&self, me: Member) -> Result<Detachment> {
        let detached = self.detach(me, |_| false, false);
        let row = self.slot(me.slot);
        if detached.is_err() && generation_of(row.state.read()) == me.generation {
            // No process's number: without its byte lock the slot is a dead process's.
            row.pid.set(0);
            self.unfinished.forget();
            self.platform().disclaim(me.slot);
        }
        detached
    }

    /// Ends this process's membership but for the blocks of which it says `is_used`: those it
    /// holds until its own end. The tickets it opened are left to the arena, or
    /// end, if `program_ends` and nobody else is there, but for what is lasting.
    ///
    /// # Errors
    /// `Busy` or `Corrupted`; it is a member still.
    pub fn detach(
        &self,
        me: Member,
        is_used: impl Fn(BlockId) -> bool,
        program_ends: bool,
    ) -> Result<Detachment> {
        // (What cannot be finished is abandoned.)
        let _ = self.finish(me);
        self.reap_in_advance(me)?;
        let mut next = 0;
        loop {
            let _leaving = self.leaving();
            let locked = self.lock(me)?;
            if self.is_at_work() {
                // Of another thread, which goes on as a member.
                drop((locked, _leaving));
                std::thread::yield_now();
                continue;
            }
            // Most of it some rows at a time, so that no process waits for long.
            if locked.has_many_in_use() && locked.drop_some_unused(&mut next, &is_used)? {
                continue;
            }
            let dead = locked.dead();
            let made = locked.take_over_buildings(&dead);
            if !made.is_empty() {
                let _work = locked.begin_work();
                drop((locked, _leaving));
                self.remove_segments(me, made)?;
                continue;
            }
            let detachment = locked.detach(dead, &is_used, program_ends)?;
            drop(locked);
            if detachment.left {
                self.unfinished.forget();
                self.platform().disclaim(me.slot);
            }
            return Ok(detachment);
        }
    }

    /// In an arena that no other process has, ends the tickets that were opened
    /// at least `age` ms ago, and those of killed senders whose grace is over;
    /// what is lasting perhaps not.
    pub fn end_abandoned(&self, me: Member, age: u64, keep_lasting: bool) -> Result<()> {
        let now = self.platform().now();
        let locked = self.lock(me)?;
        match locked.is_alone() {
            true => locked.end_abandoned(now.saturating_sub(age), keep_lasting, now),
            false => Ok(()),
        }
    }

    /// The rows of other processes that are members, as far as can be seen.
    /// Children without a slot have mapped what they need, and do not count; nor do
    /// those that have detached and are about to end.
    pub fn others(&self, me: Member) -> impl Iterator<Item = &SlotRow> {
        let slots = self.known_slots();
        let others = slots.filter(move |(slot, row)| {
            let state = row.state.read();
            let empty = state_of(state) == EMPTY;
            let detached = row.detached.get() == generation_of(state);
            !(empty || detached || *slot == me.slot || self.is_over(*slot))
        });
        others.map(|(_, row)| row)
    }

    /// Whether the arena has lost its names, or is about to. Asked by a member,
    /// the answer no means that it keeps them for as long as it has members.
    pub fn is_unlinked(&self, me: Member) -> Result<bool> {
        Ok(self.lock(me)?.header.unlinked.get() != 0)
    }

    /// Marks the arena as one that nobody attaches any more.
    pub fn mark_unlinked(&self, me: Member) -> Result<()> {
        self.lock(me)?.header.unlinked.commit(1);
        Ok(())
    }

    /// Drops what dead processes held and ends tickets whose grace is over;
    /// how many processes were found dead.
    pub fn reap(&self, me: Member) -> Result<u64> {
        self.finish(me)?;
        let advance = self.reap_in_advance(me)?;
        let (dead, made, _work) = {
            let locked = self.lock(me)?;
            locked.give_up_lists();
            let dead = locked.dead();
            // Before a slot is empty: an empty one makes no segment.
            let made = locked.take_over_buildings(&dead);
            locked.reap_slots(dead, &advance)?;
            (dead, made, locked.begin_work())
        };
        self.remove_segments(me, made)?;
        Ok(dead.iter().count() as u64)
    }

    /// Where dead processes have held much, drops it some rows at a time, so that no process waits
    /// for long.
    fn reap_in_advance(&self, me: Member) -> Result<Advance> {
        let mut advance = Advance::default();
        let locked = self.lock(me)?;
        if !locked.has_many_in_use() {
            return Ok(advance);
        }
        let dead = locked.dead();
        drop(locked);
        advance.lives = dead
            .iter()
            .map(|slot| (slot, self.slot(slot).state.read()))
            .collect();
        let mut next = [0; 2];
        while !advance.lives.is_empty() {
            let locked = self.lock(me)?;
            // Not those whose slots others have taken meanwhile.
            let same = |(slot, life): &(SlotId, u64)| {
                self.slot(*slot).state.read() == *life && self.is_over(*slot)
            };
            advance.lives.retain(same);
            let mut still = SlotSet::default();
            advance
                .lives
                .iter()
                .for_each(|(slot, _)| still.insert(*slot));
            if !locked.drop_some(&still, &mut next)? {
                break;
            }
        }
        Ok(advance)
    }
}
