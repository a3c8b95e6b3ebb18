//! References: what names a row of a table in one of its lives.
//!
//! Only these cross from one process to another, never an address of its memory.

use super::format::*;
use super::lock::Owner;

/// A process's part in an arena: a slot in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The slot.
    pub slot: SlotId,
    /// Its generation.
    pub generation: u64,
}

impl Member {
    #[inline(always)]
    pub(super) fn owner(self) -> Owner {
        Owner::new(self.slot.0, self.generation)
    }

    /// The word that stands for it, which is not 0: generations begin with 1.
    #[inline(always)]
    pub fn word(self) -> u64 {
        self.generation << SLOT_BITS | self.slot.0 as u64
    }

    /// The member that a word stands for.
    #[inline(always)]
    pub fn of_word(word: u64) -> Self {
        Member {
            slot: SlotId(word as u16 % SLOTS as u16),
            generation: word >> SLOT_BITS,
        }
    }
}

/// A block in one of the lives of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Its row.
    pub id: BlockId,
    /// The life of the row that is meant.
    pub generation: u64,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub address: Address,
    /// Its length in bytes, at least what was asked for.
    pub size: u64,
}

impl Extent {
    /// The offset behind its last byte.
    pub const fn end(&self) -> u64 {
        self.address.offset() + self.size
    }
}

/// A block just allocated, and whether all its pages are there.
pub(super) struct Allocated {
    pub which: BlockRef,
    pub place: Extent,
    pub whole: bool,
}

/// A ticket in one of the lives of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketRef {
    /// Its row.
    pub id: TicketId,
    /// The life of the row that is meant.
    pub generation: u64,
}
