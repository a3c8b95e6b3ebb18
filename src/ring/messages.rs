//! A ring of messages: bytes and blocks, from any process to any other, in order.
//!
//! ```text
//! block   head (see `base`), then
//!         limit    u64   how many messages it holds at most
//!         first    u64   the length of its first body in bytes
//!         longest  u64   how long a body may become
//!         current  u32   which of the two bodies is in use
//!         done     u32   how many messages were reported as done
//!         bodies   2 x 64
//!         the first body
//! body    there, or a block of its own, whose ticket the ring's block owns:
//!         length u32, kind u32, payload, to a multiple of 16 bytes; and so on, around
//! ```
//!
//! A body has one word for the place where the next message is taken, and one for the place where
//! the next is put; each also holds how many messages there were before. So a message is put, or
//! taken, by one store. If a message does not fit, a longer body takes the place of the current
//! one, by one store, with all messages in it. When the long body is empty, the first one takes its
//! place again.
//!
//! A block that is put belongs to a ticket from then on, which the ring's block owns. The ticket is
//! opened before the message is put, and used up before the message is taken. If the sender dies in
//! between, it has put nothing, and the next owner of the lock ends the ticket. If the receiver
//! dies in between, others find a message without a ticket and skip it.

use super::base::{Base, BodyLook, Head, Layout, LockedRing, Numbers, Patience};
use super::body::{
    reference, units_of, Body, Open, RingPosition, BLOCK, BYTES, INSIDE, PREFIX, REFERENCE, UNIT,
};
use crate::arena::format::NIL;
use crate::arena::word::{U32, U64};
use crate::arena::{BlockRef, TicketRef};
use crate::error::{Error, Exhausted, Result};
use crate::process::{Arena, Block};
use std::mem::offset_of;
use std::ptr::NonNull;

/// A message was put.
const READY: usize = 0;
/// A message was taken.
const ROOM: usize = 1;
/// All that was put is done.
const DONE: usize = 2;

/// A body this long is given up when it is empty, for the first one's length.
const LONG: u64 = 8 << 20;

#[repr(C)]
struct Rows {
    head: Head,
    limit: U64,
    first: U64,
    longest: U64,
    current: U32,
    done: U32,
    bodies: [Body; 2],
}

// SAFETY: it is `repr(C)`, its first field is a `Head`, and all fields are words of shared memory.
unsafe impl Layout for Rows {
    const MAGIC: u64 = u64::from_le_bytes(*b"snpMSGS1");
}

/// What is put.
#[derive(Clone, Copy)]
pub enum Item<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// A block of the ring's arena, for one receiver.
    Block(&'a Block),
}

impl Item<'_> {
    fn length(&self) -> usize {
        match self {
            Item::Bytes(bytes) => bytes.len(),
            Item::Block(_) => REFERENCE,
        }
    }
}

/// What is taken.
pub enum Taken {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A block, which is this process's now.
    Block(Block),
}

/// What a ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many messages it holds at most; 0 for any number.
    pub limit: u64,
    /// The length of its first body in bytes, a power of two from 4096 on.
    pub first: u64,
    /// How long a body may become.
    pub longest: u64,
}

/// A ring of messages that this process has open.
pub struct Messages {
    base: Base,
    /// The length of the body in the ring's own block, as it was when that was opened.
    first: u64,
    known: Known,
}

/// Where this process has found a body. Written under the ring's lock, and so that a fork
/// in another thread may come at any time.
#[derive(Default)]
struct Known {
    /// 0 while the rest is written.
    generation: U64,
    block: U32,
    bytes: U64,
    /// How long it is; more is not believed later.
    size: U64,
}

// SAFETY: it owns a reference to a block, which any thread may drop, and words of its own.
unsafe impl Send for Messages {}
// SAFETY: the words are atomics, changed under the ring's lock. The bytes of bodies are read and
// written under that lock only.
unsafe impl Sync for Messages {}

impl Messages {
    /// Makes a ring in an arena.
    ///
    /// # Errors
    /// `Full` if there is no memory for it; `Invalid` for lengths that cannot be.
    pub fn create(arena: &Arena, settings: Settings) -> Result<Messages> {
        let Settings { first, longest, .. } = settings;
        let right = first.is_power_of_two() && (4096..=longest).contains(&first);
        if !right || longest > UNIT << 31 {
            return Err(Error::Invalid {
                why: "a ring's body has a power of two of bytes, 4 KiB at least and 32 GiB at most",
            });
        }
        let base = Base::create(arena, first, |base, rows: &Rows| {
            rows.limit.set(match settings.limit {
                0 => u64::MAX,
                limit => limit,
            });
            rows.first.set(first);
            rows.longest.set(longest);
            rows.bodies[0].set(base.block().which(), INSIDE, first);
            Ok(())
        })?;
        Ok(Messages::over(base, first))
    }

    /// Opens the ring that lies in a block.
    ///
    /// # Errors
    /// `BadHandle` if none does.
    pub fn open(block: Block) -> Result<Messages> {
        let size = block.size();
        let base = Base::open::<Rows>(block)?;
        let first = base.layout::<Rows>().first.get();
        match size - size_of::<Rows>() as u64 >= first {
            true => Ok(Messages::over(base, first)),
            false => Err(Error::BadHandle {
                why: "its block is too short for its ring",
            }),
        }
    }

    /// Where the body in the ring's own block is.
    fn inside(&self) -> NonNull<u8> {
        let block = self.base.block().bytes();
        // SAFETY: the block is longer than its layout (`create`, `open`).
        unsafe { block.add(size_of::<Rows>()) }
    }

    fn over(base: Base, first: u64) -> Messages {
        Messages {
            base,
            first,
            known: Known::default(),
        }
    }

    /// What it has in common with other rings.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn rows(&self) -> &Rows {
        self.base.layout()
    }

    #[inline(always)]
    fn lock(&self) -> Result<LockedRing<'_>> {
        self.base.lock(|held| self.recover(held))
    }

    fn wait(&self, which: usize, seen: u32, patience: &mut Patience) -> Result<bool> {
        let recover = |held: &LockedRing<'_>| self.recover(held);
        self.base.wait(which, seen, patience, recover)
    }

    fn seen(&self, which: usize) -> u32 {
        super::event::Word::load(&self.base.event(which).count)
    }

    /// Ends the tickets that no message has, after a death under the lock.
    #[cold]
    fn recover(&self, held: &LockedRing<'_>) -> Result<()> {
        let open = self.body(held)?;
        let mut found = vec![open.row.ticket()]; // Or INSIDE, which is no ticket's.
        let mut place = open.front;
        while place != open.back {
            let (length, kind, next) = open.look(place)?;
            if kind == BLOCK {
                found.push(open.reference(place, length)?.1);
            }
            place = next;
        }
        found.sort_unstable_by_key(|ticket| ticket.id.0);
        let is_found = |ticket: TicketRef| {
            let at = found.binary_search_by_key(&ticket.id.0, |found| found.id.0);
            at.is_ok_and(|at| found[at] == ticket)
        };
        let arena = self.base.block().arena();
        arena
            .core()
            .end_owned(held.me, self.base.block().which(), &is_found)
    }

    /// The body in use.
    #[inline(always)]
    fn body<'a>(&'a self, held: &'a LockedRing<'a>) -> Result<Open<'a>> {
        let rows = self.rows();
        let Some(row) = rows.bodies.get(rows.current.get() as usize) else {
            return Err(held.corrupted("which body a ring has"));
        };
        let size = row.size.get();
        let bytes = match row.ticket.get() {
            NIL if size == self.first => self.inside(),
            NIL => return Err(held.corrupted("the length of a ring's body")),
            _ => self.find(held, row.which(), size)?,
        };
        let (front, back) = (RingPosition::of(&row.front), RingPosition::of(&row.back));
        let units = back.unit.wrapping_sub(front.unit) as u64;
        let count = back.number.wrapping_sub(front.number) as u64;
        let right = units * UNIT <= size && count <= units && (count == 0) == (units == 0);
        match right && size.is_power_of_two() {
            true => Ok(Open {
                held,
                row,
                bytes,
                size,
                front,
                back,
            }),
            false => Err(held.corrupted("the places in a ring")),
        }
    }

    /// Finds a body that is a block of its own.
    fn find(&self, held: &LockedRing<'_>, which: BlockRef, size: u64) -> Result<NonNull<u8>> {
        let known = &self.known;
        let same = known.generation.get() == which.generation + 1
            && known.block.get() == which.id.0
            && known.size.get() == size;
        match same.then(|| NonNull::new(known.bytes.get() as *mut u8)) {
            Some(Some(bytes)) => Ok(bytes),
            _ => self.meet(held, which, size),
        }
    }

    /// Finds one that this process has not met.
    #[cold]
    fn meet(&self, held: &LockedRing<'_>, which: BlockRef, size: u64) -> Result<NonNull<u8>> {
        let core = self.base.block().arena().core();
        let place = core.locate(held.me, which)?;
        if place.size < size {
            return Err(held.corrupted("the length of a ring's body"));
        }
        let bytes = core.bytes(place);
        let known = &self.known;
        known.generation.commit(0);
        known.block.set(which.id.0);
        known.bytes.set(bytes.as_ptr() as u64);
        known.size.set(size);
        known.generation.commit(which.generation + 1);
        Ok(bytes)
    }

    /// Puts messages, in order; how many, if there was no room for all in time.
    ///
    /// # Errors
    /// `Full` if there is no memory for a longer body, `Invalid` if a message is longer
    /// than any, and those of waiting. What was put before stays: then it is the number
    /// that is returned.
    pub fn put(&self, items: &[Item<'_>], patience: &mut Patience) -> Result<usize> {
        let mut done = 0;
        match self.put_counted(items, patience, &mut done) {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    /// [`put`](Self::put), which counts those that are in, also should it fail then.
    #[inline(always)]
    pub fn put_counted(
        &self,
        items: &[Item<'_>],
        patience: &mut Patience,
        done: &mut usize,
    ) -> Result<()> {
        while *done < items.len() {
            match self.put_some(&items[*done..], patience)? {
                0 => break,
                count => *done += count,
            }
        }
        Ok(())
    }

    fn put_some(&self, items: &[Item<'_>], patience: &mut Patience) -> Result<usize> {
        loop {
            if self.base.is_closed() {
                return Err(Error::Closed);
            }
            let (seen, missing) = {
                let held = self.lock()?;
                let count = self.append(&held, items, patience)?;
                if count > 0 {
                    return Ok(count);
                }
                (self.seen(ROOM), self.missing(&held, &items[0])?)
            };
            match missing {
                Some(size) => self.grow(size)?,
                None if !self.wait(ROOM, seen, patience)? => return Ok(0),
                None => {}
            }
        }
    }

    /// Puts what there is room for, under the lock; how many.
    #[inline(always)]
    fn append(
        &self,
        held: &LockedRing<'_>,
        items: &[Item<'_>],
        patience: &mut Patience,
    ) -> Result<usize> {
        let mut open = self.body(held)?;
        let limit = self.rows().limit.get();
        let mut count = 0;
        for item in items {
            if open.count() >= limit || !open.has_room(units_of(item.length())) {
                break;
            }
            match item {
                Item::Bytes(bytes) => open.append(bytes, BYTES),
                Item::Block(block) => {
                    let arena = self.base.block().arena();
                    match arena.send_owned(block, self.base.block()) {
                        Ok(ticket) => open.append(&reference(block.which(), ticket), BLOCK),
                        Err(_) if count > 0 => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            count += 1;
        }
        held.happen(READY, count);
        if count > 0 {
            held.hand_on(ROOM, patience, open.count() < limit);
        }
        Ok(count)
    }

    /// The length of the body that a message needs; None if it has to wait for room.
    fn missing(&self, held: &LockedRing<'_>, item: &Item<'_>) -> Result<Option<u64>> {
        let open = self.body(held)?;
        let needed = units_of(item.length());
        if open.has_room(needed) || open.count() >= self.rows().limit.get() {
            return Ok(None);
        }
        let longest = self.rows().longest.get();
        let size = (open.used() + needed * UNIT).next_power_of_two();
        if size.max(open.size * 2) <= longest {
            return Ok(Some(size.max(open.size * 2)));
        }
        match needed * UNIT <= open.size {
            true => Ok(None),
            false => Err(Error::Full {
                what: Exhausted::Space,
                asked: item.length() as u64,
                left: open.size - PREFIX as u64,
            }),
        }
    }

    /// Takes a longer body into use.
    #[cold]
    fn grow(&self, size: u64) -> Result<()> {
        let arena = self.base.block().arena();
        // Outside the lock: its memory may have to be reserved.
        let block = arena.allocate(size)?;
        let held = self.lock()?;
        let open = self.body(&held)?;
        if open.size >= size {
            return Ok(()); // Another one has.
        }
        let ticket = arena.send_owned(&block, self.base.block())?;
        self.change_body(&held, &open, |next| {
            next.set(block.which(), ticket, size);
            open.copy_to(block.bytes())
        });
        Ok(())
    }

    /// Takes the first body into use again, if the one in use is long and empty.
    fn shrink_if_empty(&self, held: &LockedRing<'_>, open: &Open<'_>) {
        let first = self.first;
        if open.used() == 0 && open.size >= LONG && open.size > first {
            self.change_body(held, open, |next| {
                next.set(self.base.block().which(), INSIDE, first);
                open.copy_to(self.inside())
            });
        }
    }

    /// Takes another body into use, after `fill` has described it in its row and copied there
    /// what is to be in it; `fill` returns the places of the first message and behind the last.
    #[cold]
    fn change_body(
        &self,
        held: &LockedRing<'_>,
        open: &Open<'_>,
        fill: impl FnOnce(&Body) -> (RingPosition, RingPosition),
    ) {
        let rows = self.rows();
        let current = rows.current.get() & 1;
        let next = &rows.bodies[1 - current as usize];
        let (front, back) = fill(next);
        next.front.set(front.pack());
        next.back.set(back.pack());
        rows.current.commit(1 - current);
        if open.row.ticket.get() != NIL {
            // (Should this fail, the body before is kept for longer.)
            let core = self.base.block().arena().core();
            let _ = core.cancel(held.me, open.row.ticket(), open.row.which());
        }
        held.happen(ROOM, usize::MAX);
    }

    /// Takes messages, in order; none if there was none in time.
    ///
    /// # Errors
    /// Those of waiting, and that a block cannot be mapped; nothing was taken then.
    pub fn take(&self, most: usize, patience: &mut Patience) -> Result<Vec<Taken>> {
        loop {
            if self.base.is_closed() {
                return Err(Error::Closed);
            }
            let seen = {
                let held = self.lock()?;
                let mut open = self.body(&held)?;
                let (taken, gone) = self.take_some(&mut open, most)?;
                held.happen(ROOM, taken.len() + gone);
                if !taken.is_empty() {
                    held.hand_on(READY, patience, open.used() > 0);
                    self.shrink_if_empty(&held, &open);
                    return Ok(taken);
                }
                self.seen(READY)
            };
            if !self.wait(READY, seen, patience)? {
                return Ok(Vec::new());
            }
        }
    }

    /// Takes what there is; also how many messages there were whose receiver has died with them.
    #[inline(always)]
    fn take_some(&self, open: &mut Open<'_>, most: usize) -> Result<(Vec<Taken>, usize)> {
        let mut taken = Vec::with_capacity(most.min(open.count() as usize).min(64));
        let mut gone = 0;
        while taken.len() < most && open.front != open.back {
            let (length, kind, next) = open.look(open.front)?;
            match kind {
                BYTES => taken.push(Taken::Bytes(open.bytes_at(open.front, length))),
                _ => {
                    let (block, ticket) = open.reference(open.front, length)?;
                    match self.base.block().arena().take_sent(block, ticket) {
                        Ok(block) => taken.push(Taken::Block(block)),
                        Err(Error::Stale) => gone += 1,
                        Err(_) if !taken.is_empty() => break,
                        Err(error) => {
                            open.held.happen(ROOM, gone);
                            return Err(error);
                        }
                    }
                }
            }
            open.take(next);
        }
        Ok((taken, gone))
    }

    /// Takes the message out behind which there are so many others, if `right` says of it
    /// that it is the one; None if it is not, or there are not so many.
    ///
    /// # Errors
    /// `Full` if there is no memory for a body without it, and those of taking the lock.
    pub fn withdraw(&self, behind: usize, right: impl Fn(&Taken) -> bool) -> Result<Option<Taken>> {
        let arena = self.base.block().arena();
        loop {
            let size = self.body(&self.lock()?)?.size;
            let block = arena.allocate(size)?;
            let held = self.lock()?;
            let open = self.body(&held)?;
            if open.size != size {
                continue; // It has another body meanwhile.
            }
            let count = open.count() as usize;
            let Some(before) = count.checked_sub(behind + 1) else {
                return Ok(None);
            };
            let mut place = open.front;
            for _ in 0..before {
                place = open.look(place)?.2;
            }
            let (length, kind, next) = open.look(place)?;
            let taken = match kind {
                BYTES => Taken::Bytes(open.bytes_at(place, length)),
                _ => {
                    let (which, ticket) = open.reference(place, length)?;
                    // (Put in again by a ticket of its own, if it is not the one.)
                    let taken = Taken::Block(arena.hold(which)?);
                    if !right(&taken) {
                        return Ok(None);
                    }
                    drop(taken);
                    Taken::Block(arena.take_sent(which, ticket)?)
                }
            };
            if matches!(taken, Taken::Bytes(_)) && !right(&taken) {
                return Ok(None);
            }
            let ticket = arena.send_owned(&block, self.base.block())?;
            let units = next.unit.wrapping_sub(place.unit);
            self.change_body(&held, &open, |row| {
                row.set(block.which(), ticket, size);
                let first = place.unit.wrapping_sub(open.front.unit) as usize * UNIT as usize;
                let to = block.bytes().as_ptr();
                open.read(open.front, 0, to, first);
                let rest = open.used() as usize - first - units as usize * UNIT as usize;
                open.read(next, 0, to.wrapping_add(first), rest);
                let (front, back) = (open.front, open.back);
                (
                    RingPosition { unit: 0, ..front },
                    RingPosition {
                        number: back.number.wrapping_sub(1),
                        unit: back.unit.wrapping_sub(front.unit) - units,
                    },
                )
            });
            return Ok(Some(taken));
        }
    }

    /// How many messages are in it.
    pub fn len(&self) -> Result<u64> {
        let held = self.lock()?;
        let open = self.body(&held)?;
        Ok(open.count())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How many messages it holds at most.
    pub fn limit(&self) -> u64 {
        self.rows().limit.get()
    }

    /// Waits until there is a message; false if there was none in time.
    pub fn poll(&self, patience: &mut Patience) -> Result<bool> {
        loop {
            let seen = {
                let held = self.lock()?;
                if self.body(&held)?.count() > 0 {
                    // The message is for the thread that takes it.
                    held.hand_on(READY, patience, true);
                    return Ok(true);
                }
                self.seen(READY)
            };
            if !self.wait(READY, seen, patience)? {
                return Ok(false);
            }
        }
    }

    /// Says that one of the messages that were put is done; false if all are.
    pub fn report_done(&self) -> Result<bool> {
        let held = self.lock()?;
        let put = self.body(&held)?.back.number;
        let done = &self.rows().done;
        if done.get() == put {
            return Ok(false);
        }
        done.commit(done.get().wrapping_add(1));
        if done.get() == put {
            held.happen(DONE, usize::MAX);
        }
        Ok(true)
    }

    /// Waits until all that was put is done; false if it was not in time.
    pub fn join(&self, patience: &mut Patience) -> Result<bool> {
        loop {
            let seen = {
                let held = self.lock()?;
                if self.body(&held)?.back.number == self.rows().done.get() {
                    return Ok(true);
                }
                self.seen(DONE)
            };
            if !self.wait(DONE, seen, patience)? {
                return Ok(false);
            }
        }
    }
}

/// What the bytes of a ring of messages say; None of others.
pub(super) fn look(bytes: &Numbers<'_>) -> Option<BodyLook> {
    if bytes.magic() != Rows::MAGIC {
        return None;
    }
    let current = bytes.u32(offset_of!(Rows, current)) as usize % 2;
    let body = offset_of!(Rows, bodies) + current * size_of::<Body>();
    let front = bytes.u64(body + offset_of!(Body, front));
    let back = bytes.u64(body + offset_of!(Body, back));
    let number = |position: u64| (position >> 32) as u32;
    Some(BodyLook::Messages {
        count: number(back).wrapping_sub(number(front)),
        limit: bytes.u64(offset_of!(Rows, limit)),
    })
}
