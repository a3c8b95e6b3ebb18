//! The body of a ring of messages: where they lie, one behind the other and around.

use super::base::LockedRing;
use crate::arena::format::{BlockId, TicketId, NIL};
use crate::arena::word::{U32, U64};
use crate::arena::{BlockRef, TicketRef};
use crate::error::Result;
use crate::sys::copy::copy;
use std::ptr::NonNull;

/// The unit of places in a body, in bytes.
pub(super) const UNIT: u64 = 16;

/// The bytes before a payload.
pub(super) const PREFIX: usize = 8;

// Kinds of payloads.
pub(super) const BYTES: u32 = 0;
pub(super) const BLOCK: u32 = 1;

/// The bytes of a reference to a block.
pub(super) const REFERENCE: usize = 24;

/// The ticket of the body that needs none.
pub(super) const INSIDE: TicketRef = TicketRef {
    id: TicketId(NIL),
    generation: 0,
};

/// A body, as the ring's block describes it.
#[repr(C, align(64))]
pub(super) struct Body {
    pub block: U32,
    /// NIL for the one that lies in the ring's own block.
    pub ticket: U32,
    pub block_generation: U64,
    pub ticket_generation: U64,
    pub size: U64,
    /// Where the next message is taken: a [`RingPosition`].
    pub front: U64,
    /// Where the next one is put.
    pub back: U64,
}

impl Body {
    pub fn set(&self, block: BlockRef, ticket: TicketRef, size: u64) {
        self.block.set(block.id.0);
        self.ticket.set(ticket.id.0);
        self.block_generation.set(block.generation);
        self.ticket_generation.set(ticket.generation);
        self.size.set(size);
    }

    #[inline(always)]
    pub fn which(&self) -> BlockRef {
        BlockRef {
            id: BlockId(self.block.get()),
            generation: self.block_generation.get(),
        }
    }

    pub fn ticket(&self) -> TicketRef {
        TicketRef {
            id: TicketId(self.ticket.get()),
            generation: self.ticket_generation.get(),
        }
    }
}

/// How many messages there were before, and where the next one is, in units; both come
/// around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingPosition {
    pub number: u32,
    pub unit: u32,
}

impl RingPosition {
    pub fn of(word: &U64) -> Self {
        let word = word.get();
        RingPosition {
            number: (word >> 32) as u32,
            unit: word as u32,
        }
    }

    pub fn pack(self) -> u64 {
        (self.number as u64) << 32 | self.unit as u64
    }

    /// Behind a message of so many units.
    pub fn after(self, units: u32) -> Self {
        RingPosition {
            number: self.number.wrapping_add(1),
            unit: self.unit.wrapping_add(units),
        }
    }
}

/// A block and a ticket for it, as they lie in a body.
pub(super) fn reference(block: BlockRef, ticket: TicketRef) -> [u8; REFERENCE] {
    let mut bytes = [0; REFERENCE];
    bytes[0..4].copy_from_slice(&block.id.0.to_ne_bytes());
    bytes[4..8].copy_from_slice(&ticket.id.0.to_ne_bytes());
    bytes[8..16].copy_from_slice(&block.generation.to_ne_bytes());
    bytes[16..24].copy_from_slice(&ticket.generation.to_ne_bytes());
    bytes
}

pub(super) fn referred(bytes: &[u8; REFERENCE]) -> (BlockRef, TicketRef) {
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
pub(super) fn units_of(length: usize) -> u64 {
    (length + PREFIX).div_ceil(UNIT as usize) as u64
}

/// The body in use, under the lock.
pub(super) struct Open<'a> {
    pub held: &'a LockedRing<'a>,
    pub row: &'a Body,
    pub bytes: NonNull<u8>,
    pub size: u64,
    pub front: RingPosition,
    pub back: RingPosition,
}

impl Open<'_> {
    pub fn used(&self) -> u64 {
        self.back.unit.wrapping_sub(self.front.unit) as u64 * UNIT
    }

    pub fn count(&self) -> u64 {
        self.back.number.wrapping_sub(self.front.number) as u64
    }

    pub fn has_room(&self, units: u64) -> bool {
        units * UNIT <= self.size - self.used()
    }

    /// Where a byte of the message at a place is, and how many follow until the body
    /// begins again.
    #[inline(always)]
    pub fn at(&self, place: RingPosition, offset: usize) -> (*mut u8, usize) {
        let index = (place.unit as u64 * UNIT + offset as u64) & (self.size - 1);
        // In the body, which is `size` bytes long.
        let first = self.bytes.as_ptr().wrapping_add(index as usize);
        (first, (self.size - index) as usize)
    }

    /// Copies out of the body, around its end.
    #[inline(always)]
    pub fn read(&self, place: RingPosition, offset: usize, to: *mut u8, length: usize) {
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
    pub fn write(&self, place: RingPosition, offset: usize, from: *const u8, length: usize) {
        let (to, until_end) = self.at(place, offset);
        let first = length.min(until_end);
        // SAFETY: `at` returns a place in the body with `until_end` bytes behind it, and the body
        // is mapped while the lock is held; the caller's memory has `length` bytes.
        unsafe { copy(from, to, first) };
        // SAFETY: the rest goes to the body's beginning: all callers have compared `length` with
        // the body's size.
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
    pub fn look(&self, place: RingPosition) -> Result<(usize, u32, RingPosition)> {
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

    pub fn reference(&self, place: RingPosition, length: usize) -> Result<(BlockRef, TicketRef)> {
        if length != REFERENCE {
            return Err(self.held.corrupted("a block in a ring"));
        }
        let mut bytes = [0; REFERENCE];
        self.read(place, PREFIX, bytes.as_mut_ptr(), REFERENCE);
        Ok(referred(&bytes))
    }

    /// Puts a message for which there is room.
    #[inline(always)]
    pub fn append(&mut self, payload: &[u8], kind: u32) {
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
    pub fn take(&mut self, next: RingPosition) {
        self.front = next;
        self.row.front.commit(next.pack());
    }

    /// Copies all messages to another body, from its beginning on; their places there.
    pub fn copy_to(&self, to: NonNull<u8>) -> (RingPosition, RingPosition) {
        self.read(self.front, 0, to.as_ptr(), self.used() as usize);
        let used = (self.used() / UNIT) as u32;
        let (front, back) = (self.front, self.back);
        (
            RingPosition { unit: 0, ..front },
            RingPosition { unit: used, ..back },
        )
    }

    /// The bytes of a message.
    #[inline(always)]
    pub fn bytes_at(&self, place: RingPosition, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        self.read(place, PREFIX, bytes.as_mut_ptr(), length);
        // SAFETY: so many were read, and there is room for them.
        unsafe { bytes.set_len(length) };
        bytes
    }
}
