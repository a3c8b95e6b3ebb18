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
//! body    there, or a block of its own, for which the ring's answers:
//!         length u32, kind u32, payload, to a multiple of 16 bytes; and so on, around
//! ```
//!
//! A body says where the next message is taken from and where one is put, each by one word
//! that holds the place and how many there were before: so a message is put, or taken, by one
//! store. If it does not fit, a longer body takes the place of the one before, by one store,
//! with all that is in it; when that is empty the first one does.
//!
//! A block that is put belongs to a ticket from then on, for which the ring's block answers.
//! It is opened before the message is put, and used up before it is taken: who dies in between
//! has put nothing, and the next owner of the lock ends the ticket; or he has taken it with
//! him, and the others find a message without a ticket, which they skip.

use super::base::{Base, Head, Held, Layout, Patience};
use crate::arena::format::{BlockId, TicketId, NIL};
use crate::arena::word::{U32, U64};
use crate::arena::{BlockRef, TicketRef};
use crate::error::{Error, Exhausted, Result};
use crate::process::{Arena, Block};
use crate::sys::copy::copy;
use std::ptr::NonNull;

/// Somebody has put something.
const READY: usize = 0;
/// Somebody has taken something.
const ROOM: usize = 1;
/// All that was put is done.
const DONE: usize = 2;

/// The unit of places in a body, in bytes.
const UNIT: u64 = 16;
/// The bytes before a payload.
const PREFIX: usize = 8;
/// A body this long is given up when it is empty, for the first one's length.
const LONG: u64 = 8 << 20;

// Kinds of payloads.
const BYTES: u32 = 0;
const BLOCK: u32 = 1;

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

// SAFETY: as is seen.
unsafe impl Layout for Rows {
    const MAGIC: u64 = u64::from_le_bytes(*b"snpMSGS1");
}

/// A body, as the ring's block describes it.
#[repr(C, align(64))]
struct Body {
    block: U32,
    /// NIL for the one that lies in the ring's own block.
    ticket: U32,
    block_generation: U64,
    ticket_generation: U64,
    size: U64,
    /// Where the next message is taken: a [`Place`].
    front: U64,
    /// Where the next one is put.
    back: U64,
}

/// How many messages there were before, and where the next one is, in units; both come
/// around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    number: u32,
    unit: u32,
}

impl Place {
    fn of(word: &U64) -> Self {
        let word = word.get();
        Place {
            number: (word >> 32) as u32,
            unit: word as u32,
        }
    }

    fn pack(self) -> u64 {
        (self.number as u64) << 32 | self.unit as u64
    }

    /// Behind a message of so many units.
    fn after(self, units: u32) -> Self {
        Place {
            number: self.number.wrapping_add(1),
            unit: self.unit.wrapping_add(units),
        }
    }
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

/// The bytes of a reference to a block.
const REFERENCE: usize = 24;

/// The ticket of the body that needs none.
const INSIDE: TicketRef = TicketRef {
    id: TicketId(NIL),
    generation: 0,
};

/// A block and a ticket for it, as they lie in a body.
fn reference(block: BlockRef, ticket: TicketRef) -> [u8; REFERENCE] {
    let mut bytes = [0; REFERENCE];
    bytes[0..4].copy_from_slice(&block.id.0.to_ne_bytes());
    bytes[4..8].copy_from_slice(&ticket.id.0.to_ne_bytes());
    bytes[8..16].copy_from_slice(&block.generation.to_ne_bytes());
    bytes[16..24].copy_from_slice(&ticket.generation.to_ne_bytes());
    bytes
}

fn referred(bytes: &[u8; REFERENCE]) -> (BlockRef, TicketRef) {
    let short = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    (
        BlockRef {
            id: BlockId(short(0)),
            generation: long(8),
        },
        TicketRef {
            id: TicketId(short(4)),
            generation: long(16),
        },
    )
}

/// The units that a message takes.
fn units_of(length: usize) -> u64 {
    (length + PREFIX).div_ceil(UNIT as usize) as u64
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

// SAFETY: what is shared are words, changed under the ring's lock; bytes of bodies are
// reached under it.
unsafe impl Send for Messages {}
// SAFETY: as above.
unsafe impl Sync for Messages {}

/// The body in use, under the lock.
struct Open<'a> {
    held: &'a Held<'a>,
    row: &'a Body,
    bytes: NonNull<u8>,
    size: u64,
    front: Place,
    back: Place,
}

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
    fn lock(&self) -> Result<Held<'_>> {
        self.base.lock(|held| self.recover(held))
    }

    fn wait(&self, which: usize, seen: u32, patience: &mut Patience) -> Result<bool> {
        let recover = |held: &Held<'_>| self.recover(held);
        self.base.wait(which, seen, patience, recover)
    }

    fn seen(&self, which: usize) -> u32 {
        super::event::Word::load(&self.base.event(which).count)
    }

    /// Ends the tickets that no message has, after a death under the lock.
    #[cold]
    fn recover(&self, held: &Held<'_>) -> Result<()> {
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
        let keeps = |ticket: TicketRef| {
            let at = found.binary_search_by_key(&ticket.id.0, |found| found.id.0);
            at.is_ok_and(|at| found[at] == ticket)
        };
        let arena = self.base.block().arena();
        arena
            .core()
            .end_kept(held.me, self.base.block().which(), &keeps)
    }

    /// The body in use.
    #[inline(always)]
    fn body<'a>(&'a self, held: &'a Held<'a>) -> Result<Open<'a>> {
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
        let (front, back) = (Place::of(&row.front), Place::of(&row.back));
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
    fn find(&self, held: &Held<'_>, which: BlockRef, size: u64) -> Result<NonNull<u8>> {
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
    fn meet(&self, held: &Held<'_>, which: BlockRef, size: u64) -> Result<NonNull<u8>> {
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
        held: &Held<'_>,
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
                    match arena.send_kept(block, self.base.block()) {
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
    fn missing(&self, held: &Held<'_>, item: &Item<'_>) -> Result<Option<u64>> {
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
        let ticket = arena.send_kept(&block, self.base.block())?;
        self.change_body(&held, &open, |next| {
            next.set(block.which(), ticket, size);
            open.copy_to(block.bytes())
        });
        Ok(())
    }

    /// Takes the first body into use again, if the one in use is long and empty.
    fn shrink_if_empty(&self, held: &Held<'_>, open: &Open<'_>) {
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
        held: &Held<'_>,
        open: &Open<'_>,
        fill: impl FnOnce(&Body) -> (Place, Place),
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

    /// Takes what there is, and how many messages there were that somebody has taken with
    /// him.
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
            let ticket = arena.send_kept(&block, self.base.block())?;
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
                    Place { unit: 0, ..front },
                    Place {
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
                    // It is for who takes it.
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

impl Body {
    fn set(&self, block: BlockRef, ticket: TicketRef, size: u64) {
        self.block.set(block.id.0);
        self.ticket.set(ticket.id.0);
        self.block_generation.set(block.generation);
        self.ticket_generation.set(ticket.generation);
        self.size.set(size);
    }

    #[inline(always)]
    fn which(&self) -> BlockRef {
        BlockRef {
            id: BlockId(self.block.get()),
            generation: self.block_generation.get(),
        }
    }

    fn ticket(&self) -> TicketRef {
        TicketRef {
            id: TicketId(self.ticket.get()),
            generation: self.ticket_generation.get(),
        }
    }
}

impl Open<'_> {
    fn used(&self) -> u64 {
        self.back.unit.wrapping_sub(self.front.unit) as u64 * UNIT
    }

    fn count(&self) -> u64 {
        self.back.number.wrapping_sub(self.front.number) as u64
    }

    fn has_room(&self, units: u64) -> bool {
        units * UNIT <= self.size - self.used()
    }

    /// Where a byte of the message at a place is, and how many follow until the body
    /// begins anew.
    #[inline(always)]
    fn at(&self, place: Place, offset: usize) -> (*mut u8, usize) {
        let index = (place.unit as u64 * UNIT + offset as u64) & (self.size - 1);
        // In the body, which is `size` bytes long.
        let first = self.bytes.as_ptr().wrapping_add(index as usize);
        (first, (self.size - index) as usize)
    }

    /// Copies out of the body, around its end.
    #[inline(always)]
    fn read(&self, place: Place, offset: usize, to: *mut u8, length: usize) {
        let (from, until_end) = self.at(place, offset);
        let first = length.min(until_end);
        // SAFETY: so many bytes of the body, which is there as long as the lock is held, to
        // memory of the caller's with room for `length`.
        unsafe { copy(from, to, first) };
        // SAFETY: the rest, from the body's beginning on: all callers have compared
        // `length` with its size.
        unsafe { copy(self.bytes.as_ptr(), to.wrapping_add(first), length - first) };
    }

    #[inline(always)]
    fn write(&self, place: Place, offset: usize, from: *const u8, length: usize) {
        let (to, until_end) = self.at(place, offset);
        let first = length.min(until_end);
        // SAFETY: as in `read`, the other way.
        unsafe { copy(from, to, first) };
        // SAFETY: as in `read`, the other way.
        unsafe {
            copy(
                from.wrapping_add(first),
                self.bytes.as_ptr(),
                length - first,
            )
        };
    }

    /// The length and kind of the message at a place before the back, and the next place.
    #[inline(always)]
    fn look(&self, place: Place) -> Result<(usize, u32, Place)> {
        // (Never around the end: a unit is longer.)
        let mut prefix = [0; PREFIX];
        self.read(place, 0, prefix.as_mut_ptr(), PREFIX);
        let [length, kind] =
            [0, 4].map(|at| u32::from_ne_bytes(prefix[at..at + 4].try_into().expect("four bytes")));
        let units = units_of(length as usize);
        let left = self.back.unit.wrapping_sub(place.unit) as u64;
        match units <= left && kind <= BLOCK && place.number != self.back.number {
            true => Ok((length as usize, kind, place.after(units as u32))),
            false => Err(self.held.corrupted("a message in a ring")),
        }
    }

    fn reference(&self, place: Place, length: usize) -> Result<(BlockRef, TicketRef)> {
        if length != REFERENCE {
            return Err(self.held.corrupted("a block in a ring"));
        }
        let mut bytes = [0; REFERENCE];
        self.read(place, PREFIX, bytes.as_mut_ptr(), REFERENCE);
        Ok(referred(&bytes))
    }

    /// Puts a message for which there is room.
    #[inline(always)]
    fn append(&mut self, payload: &[u8], kind: u32) {
        let mut prefix = [0; PREFIX];
        prefix[..4].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        prefix[4..].copy_from_slice(&kind.to_ne_bytes());
        self.write(self.back, 0, prefix.as_ptr(), PREFIX);
        self.write(self.back, PREFIX, payload.as_ptr(), payload.len());
        self.back = self.back.after(units_of(payload.len()) as u32);
        self.row.back.commit(self.back.pack());
    }

    /// Takes the first message away.
    #[inline(always)]
    fn take(&mut self, next: Place) {
        self.front = next;
        self.row.front.commit(next.pack());
    }

    /// Copies all messages to another body, from its beginning on; their places there.
    fn copy_to(&self, to: NonNull<u8>) -> (Place, Place) {
        self.read(self.front, 0, to.as_ptr(), self.used() as usize);
        let used = (self.used() / UNIT) as u32;
        let (front, back) = (self.front, self.back);
        (Place { unit: 0, ..front }, Place { unit: used, ..back })
    }

    /// The bytes of a message.
    #[inline(always)]
    fn bytes_at(&self, place: Place, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        self.read(place, PREFIX, bytes.as_mut_ptr(), length);
        // SAFETY: so many were read, and there is room for them.
        unsafe { bytes.set_len(length) };
        bytes
    }
}
