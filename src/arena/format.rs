//! The format: the layout of the segments, and for each field its writer and its lock.
//!
//! An arena is one *control* segment, number 0, and as many further *data*
//! segments as it has needed, at most [`SEGMENTS`]. Nothing in them is a
//! pointer: places are [`Address`]es, rows are numbers. All numbers are in the
//! machine's byte order; a segment never leaves its machine.
//!
//! # The control segment
//!
//! ```text
//! byte            field                  written by, under which lock
//! 0               magic        u64       the creator, last of all
//! 8               version      u32       the creator, before the magic, as all
//! 12              abi          u32         down to byte 127: constant later
//! 16              uuid         2 x u64
//! 32              uid          u32       the user whose arena it is
//! 36              block shift  u32       a chunk of the table has 1 << this rows
//! 40              ticket shift u32
//! 44              processes    u32       how many can be attached: it decides how many slots
//!                                       there are, and how wide the sets of processes
//! 48              size         u64       of this segment
//! 56              data         u64       where its data start
//! 64              grace        u64       ms that a killed sender's tickets live
//! 72              budget       u64       anyone, without the lock: bytes of free
//!                                       memory that keep pages, now
//! 80              lock file    2 x u64   its inode and device
//! 96              boot         u64       hash of the machine's boot id
//! 104             warm         u64       what the budget was set to, or SHARE
//! 112             least        u64       bytes that keep pages if they are idle
//! 120  T          block room   u32       lock; rows of chunk 0 that have memory
//! 124  T          ticket room  u32       lock; the same
//! 128  T          owner        u32       the lock: see `lock`
//! 192  T          condition    u32       lock: POISONED for ever, UNSETTLED until recovered
//! 196  T          unlinked     u32       the process that removes the names; never reset
//! 200  T          block rows   u32       lock; rows below it were used once
//! 204  T          ticket rows  u32       lock; the same
//! 208  T          block chunks u32       lock; chunks that the table has
//! 212  T          ticket chunks u32      lock; the same
//! 216  T          pinned       u32       lock; 1: some block may be PINNED; FOR_GOOD
//! 220  T          segment rows u32       lock; rows below it were used once
//! 224  T          frozen       u32       a forking process, without the lock; reset
//!                                       by compare and exchange under it
//! 228  T          slot rows    u32       the first user of a slot, before it is used, by
//!                                       compare and exchange; never falls
//! 232             registrar    u64       compare and exchange, without the lock:
//!                                       the tree of processes whose tracker removes the
//!                                       names, or 0; ENDING: until that is told that it
//!                                       need not; NO_TREE: no tree's, now and later
//! 240             checked      u64       anyone, without the lock: when a member
//!                                       last checked on the others, in ms; see
//!                                       `upkeep`
//! 248             orphans      u64       lock; the first end of an orphan's grace
//!                                       that there may be, in ms, or 0
//! 256     C       space index            lock; see `IndexCache`
//! 3024 T          pages        u64       anyone, without the lock, before they are
//!                                       touched: bit n: page n of what lies before
//!                                       chunk 0 has memory
//! 3032            longest      u64       the creator: the most that a segment is
//!                                       made of ahead of need
//! 3040            identifier   2 x u64   the creator: by which `attach_or_create` finds the
//!                                       arena, or 0
//! 3056 T          root         u32       lock; the block that the arena itself holds, + 1, or 0
//! 3072            counters     24 x u64  lock, though nothing depends on them
//! 3264    C       idle memory            lock; see `IdleCache`
//! 3400    C       rows in use            lock; see `RowsCache`
//! 4096 T          segments     1024 x 16 lock; the row of segment n
//! 20480 T         block directory  4096 x u32   lock; block that holds chunk n, + 1
//! 36864 T         ticket directory 4096 x u32   lock; the same
//! 53248 T         slots        n x 64    see `SlotRow`; n: `processes`, rounded up to a
//!                                       multiple of 64, and 256 at least
//! 69632 or more T,C   chunk 0 of the blocks, then chunk 0 of the tickets
//! data            the space that blocks are made of
//! ```
//!
//! *T* is the truth, *C* is a cache that recovery rebuilds from it. A chunk of
//! the table of blocks is `1 << shift` rows of truth (64 bytes each), then as
//! many rows of cache (32 bytes each): 96 bytes a block. In an arena with more than 256 slots
//! the *further holders* follow, truth, too: for each block 8 bytes for each further 64 slots,
//! 96 bytes with 1,024 of them. A chunk of tickets is rows of 64 bytes. Chunks after the first
//! lie in blocks of the arena's own space, in state [`TABLE`].
//!
//! An arena begins small: the tables of the control segment have addresses, and memory only
//! where they were used. A process that needs more of them reserves their memory first: to touch a
//! page for the first time, even to read it, kills the process when memory is short.
//!
//! # A data segment
//!
//! ```text
//! 0               magic        u64       its maker, last of all
//! 8               number       u64       its maker: constant later
//! 16              uuid         2 x u64
//! 32              size         u64
//! 64              data
//! ```
//!
//! # State words
//!
//! The rows of slots, blocks and tickets begin with `generation << 8 | state`.
//! The generation counts the lives of a row, and has 56 bits: at a billion
//! lives a second it lasts for two years.
//!
//! A change of anything here bumps [`VERSION`].

use super::word::{U32, U64};
use crate::error::{Error, Result};
use std::mem::{offset_of, size_of};

/// The first eight bytes of a control segment.
pub const MAGIC: u64 = u64::from_le_bytes(*b"snpARENA");
/// The first eight bytes of a data segment.
pub const DATA_MAGIC: u64 = u64::from_le_bytes(*b"snpSPACE");
/// The version of this format.
pub const VERSION: u32 = 11;

/// Blocks begin at multiples of this and their sizes are multiples of it.
pub const ALIGN: u64 = 64;
/// The unit in which the system gives and takes memory.
pub const PAGE: u64 = 4096;
/// How many bits the number of a slot has.
pub const SLOT_BITS: u32 = 10;
/// How many slots an arena can have.
pub const SLOTS: usize = 1 << SLOT_BITS;
/// How many of them have their bits in the rows of blocks: those of the others follow the chunk's
/// rows and caches.
pub const SLOTS_IN_ROW: usize = 256;
/// How many segments an arena can have.
pub const SEGMENTS: usize = 1024;
/// How many chunks a table can have.
pub const CHUNKS: usize = 4096;
/// Beside a registrar: its end of the matter is being told.
pub const ENDING: u64 = 1 << 63;
/// A registrar that is no tree: the last member removes the names, or `remove_orphans`.
pub const NO_TREE: u64 = 1 << 62;
/// In place of the time of the last check: there is nothing to check.
pub const NO_CHECK: u64 = u64::MAX;
/// Blocks are kept for children whose end nobody will notice.
pub const FOR_GOOD: u32 = u32::MAX;
/// In place of a budget: a share of what the system has and of what is free there.
pub const SHARE: u64 = u64::MAX;
/// No row: the end of a list.
pub const NIL: u32 = u32::MAX;

/// Size classes of the space index, first and second level.
pub const CLASSES: usize = 40;
/// Bins in a size class.
pub const BINS: usize = 16;

/// In how many parts the rows of a table are counted: see [`part_of`].
pub const PARTS: usize = 80;
/// So many chunks, the first ones, are a part each.
const SINGLE: u32 = 16;

/// How far the offset in a segment reaches in an [`Address`].
const OFFSET_BITS: u32 = 48;

// States of a slot.
/// Nobody's.
pub const EMPTY: u8 = 0;
/// Made for a child that does not run yet.
pub const RESERVED: u8 = 1;
/// A process's.
pub const ALIVE: u8 = 2;

// States of a block's row.
/// The row stands for nothing.
pub const UNUSED: u8 = 0;
/// A free extent; a cache, like everything about it but its generation.
pub const FREE: u8 = 1;
/// A block.
pub const LIVE: u8 = 2;
/// A block that holds a chunk of one of the arena's own tables, for ever.
pub const TABLE: u8 = 3;

// States of a ticket.
/// No reference.
pub const CLOSED: u8 = 0;
/// A reference in flight.
pub const OPEN: u8 = 1;

// States of a segment.
/// There is none of this number.
pub const ABSENT: u8 = 0;
/// A process is making it; nothing lies in it yet.
pub const BUILDING: u8 = 1;
/// It is there and its space belongs to the arena.
pub const PRESENT: u8 = 2;

// Marks of a block: which of its pages are there.
/// It is not known: it may have to be reserved before use.
pub const PAGES_UNKNOWN: u64 = 0;
/// All of them.
pub const PAGES_THERE: u64 = 1;
/// They were given back to the system, but for those that it shares.
pub const PAGES_RETURNED: u64 = 2;
/// All of them, and nobody has written there since the system gave them: they hold zeros.
pub const PAGES_NEW: u64 = 3;
/// The bits of a block's marks that speak of pages.
pub const PAGES: u64 = 3;
/// The mark of a block that children without a slot have inherited.
pub const PINNED: u64 = 4;
/// The mark of a block whose name was told: others may find it by that.
pub const NAMED: u64 = 8;

// The condition of the arena.
/// A contradiction was found; no operation works any more.
pub const POISONED: u32 = 1;
/// The caches may not agree with the truth and must be rebuilt.
pub const UNSETTLED: u32 = 2;

/// A generation and a state in one word.
#[inline(always)]
pub const fn state_word(generation: u64, state: u8) -> u64 {
    generation << 8 | state as u64
}

/// The state in a state word.
#[inline(always)]
pub const fn state_of(word: u64) -> u8 {
    word as u8
}

/// The generation in a state word.
#[inline(always)]
pub const fn generation_of(word: u64) -> u64 {
    word >> 8
}

/// A process's row, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

/// A block's row, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// A ticket's row, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u32);

/// A place in the arena: a segment's number and an offset in it.
///
/// Addresses in different segments are never neighbours, since no segment is
/// as long as the offset can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Address {
    /// The place `offset` bytes into `segment`.
    pub const fn new(segment: usize, offset: u64) -> Self {
        Address((segment as u64) << OFFSET_BITS | offset)
    }

    /// The segment.
    pub const fn segment(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    /// The offset in the segment, in bytes.
    pub const fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

/// The longest that a segment can be.
pub const LONGEST: u64 = 1 << (OFFSET_BITS - 1);

/// A set of processes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet(pub [u64; SLOTS / 64]);

impl SlotSet {
    /// The word of the set in which `slot` is, and its bit there.
    #[inline(always)]
    pub const fn place(slot: SlotId) -> (usize, u64) {
        (slot.0 as usize / 64, 1 << (slot.0 % 64))
    }

    /// Adds a process.
    pub fn insert(&mut self, slot: SlotId) {
        let (word, bit) = Self::place(slot);
        self.0[word] |= bit;
    }

    /// Whether the process is in the set; the number may be any.
    pub fn contains(&self, slot: SlotId) -> bool {
        let (word, bit) = Self::place(slot);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; SLOTS / 64]
    }

    /// Those in the set, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = SlotId> + '_ {
        let words = self.0.iter().enumerate();
        words.flat_map(|(i, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then_some(left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(SlotId((i * 64 + bit) as u16))
            })
        })
    }
}

/// A process's row. The state changes by compare and exchange: EMPTY to ALIVE
/// by whoever holds the slot's byte lock, EMPTY to RESERVED by a forking process
/// under the arena's lock, RESERVED to ALIVE by its child, anything to EMPTY
/// under the arena's lock. The other fields are the process's own, written
/// before it is ALIVE.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SlotRow {
    /// Generation and [`EMPTY`], [`RESERVED`] or [`ALIVE`].
    pub state: U64,
    /// The process as it numbers itself.
    pub pid: U64,
    /// When it started, in the kernel's ticks since boot.
    pub started: U64,
    /// Where its stack begins: another one after it has executed another
    /// program.
    pub stack: U64,
    /// The inode of its namespace of pids.
    pub namespace: U64,
    /// Its tree of processes, by whoever removes the names when the whole tree
    /// is killed; 0 for none. It may change while the process is ALIVE.
    pub tree: U64,
    /// The life, by its generation, that has detached and only keeps some blocks
    /// until its process is gone. Written under the arena's lock.
    pub detached: U64,
    /// The life, by its generation, in which the process is a resident: see `residents`. Written
    /// under the arena's lock.
    pub resident: U64,
}

/// The truth of a block. All of it is written under the arena's lock.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct BlockRow {
    /// Generation and [`UNUSED`], [`FREE`], [`LIVE`] or [`TABLE`].
    pub state: U64,
    /// Where it begins: an [`Address`].
    pub address: U64,
    /// How long it is; a multiple of [`ALIGN`].
    pub size: U64,
    /// What is known of its pages, [`PINNED`] and [`NAMED`].
    pub marks: U64,
    /// The processes in the first slots that hold it.
    pub holders: [U64; SLOTS_IN_ROW / 64],
}

/// The cache of a block or free extent. All of it is written under the lock.
#[derive(Debug, Default)]
#[repr(C)]
pub struct BlockCache {
    /// The block or extent that ends where this begins.
    pub previous: U32,
    /// The block or extent that begins where this ends.
    pub next: U32,
    /// A free extent: the one before it in its bin.
    pub bin_previous: U32,
    /// A free extent: the next in its bin. A row that is unused: the next one. A block: the
    /// first open ticket that it owns.
    pub bin_next: U32,
    /// A block: how many open tickets refer to it.
    pub tickets: U32,
    /// A free extent: 1 if all its pages are there, 3 if they are new, too.
    pub whole: U32,
    /// A free extent: how many of its bytes have pages, at most. A block: how
    /// many open tickets it answers for.
    pub warm_or_owned: U64,
}

impl BlockCache {
    /// Whether all pages of a free extent are there.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.whole.get() & PAGES_THERE as u32 != 0
    }
}

/// A ticket: a reference in flight. All of it is written under the lock.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct TicketRow {
    /// Generation and [`CLOSED`] or [`OPEN`].
    pub state: U64,
    /// The generation of its block.
    pub generation: U64,
    /// Who answers for it: a [`TicketOwner`].
    pub owner: U64,
    /// When it was opened, in ms of the system's monotonic clock.
    pub opened: U64,
    /// Its block.
    pub block: U32,
    /// A cache: the next closed ticket, or the next one with the same owner.
    pub next: U32,
    /// The generation of the block that answers for it, if one does.
    pub owner_generation: U64,
    /// 1: it is for others than the program that opened it, and outlives that.
    pub lasting: U64,
    /// A cache: the one before it with the same owner.
    pub previous: U32,
}

/// Who answers for a ticket, in one word, so that it changes by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketOwner {
    /// Its sender, which lives as far as is known.
    Sender(SlotId),
    /// The arena: its sender has left.
    Arena,
    /// Nobody: its sender was killed. It ends at this time, in ms.
    Nobody(u64),
    /// A block, in the life that stands beside this word: it ends with that.
    Block(BlockId),
}

impl TicketOwner {
    /// The word for it.
    pub const fn pack(self) -> u64 {
        match self {
            TicketOwner::Sender(slot) => (slot.0 as u64) << 2,
            TicketOwner::Arena => 1,
            TicketOwner::Nobody(time) => time << 2 | 2,
            TicketOwner::Block(id) => (id.0 as u64) << 2 | 3,
        }
    }

    /// What a word stands for.
    pub const fn unpack(word: u64) -> Result<Self> {
        match word & 3 {
            0 if word >> 2 < SLOTS as u64 => Ok(TicketOwner::Sender(SlotId((word >> 2) as u16))),
            1 => Ok(TicketOwner::Arena),
            2 => Ok(TicketOwner::Nobody(word >> 2)),
            3 if word >> 34 == 0 => Ok(TicketOwner::Block(BlockId((word >> 2) as u32))),
            _ => Err(Error::Corrupted {
                why: "a ticket's owner",
            }),
        }
    }
}

/// A segment's row, written under the lock.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SegmentRow {
    /// `slot of its maker << 8 |` [`ABSENT`], [`BUILDING`] or [`PRESENT`].
    pub state: U64,
    /// Its length in bytes.
    pub size: U64,
}

/// A set of segments, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet([u64; SEGMENTS / 64]);

impl SegmentSet {
    /// Adds a segment.
    pub fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// Whether the segment is in the set.
    pub fn contains(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    /// Those in the set, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SEGMENTS).filter(|number| self.contains(*number))
    }
}

/// The heads of the space index's lists: a cache.
#[repr(C)]
pub struct IndexCache {
    /// The first row of blocks that is unused and was used once.
    pub spare_block: U32,
    /// How many such rows there are.
    pub spare_blocks: U32,
    /// The first closed ticket below the ones used so far.
    pub spare_ticket: U32,
    /// How many such tickets there are.
    pub spare_tickets: U32,
    /// How many bytes are free.
    pub free: U64,
    /// How many of them have pages, at most.
    pub warm: U64,
    /// The least that this was in the present span of time, see [`IdleCache`].
    pub least_warm: U64,
    /// Bit n: class n has an extent.
    pub classes: U64,
    /// Class n, bit m: bin m of the class has an extent.
    pub bins: [U32; CLASSES],
    /// The first extent of each bin.
    pub heads: [[U32; BINS]; CLASSES],
}

/// In how many parts the time is cut in which memory counts as used.
pub const SPANS: usize = 6;

/// How much of the free memory with pages was left unused: a cache, from which
/// `upkeep` learns what to give back. What is wrong here costs pages that are
/// given back too early or too late.
#[derive(Debug, Default)]
#[repr(C)]
pub struct IdleCache {
    /// When memory became free for the last time, in ms.
    pub freed: U64,
    /// How many bytes became free since, too few for a look at the clock.
    pub small: U64,
    /// The number of this span, counted since the clock began.
    pub span: U64,
    /// Of the spans before: the least number of free bytes that had pages, and
    /// when memory became free for the last time.
    pub before: [[U64; 2]; SPANS],
    /// When the pages of a large block went back as it was freed, in ms.
    pub large_returned: U64,
    /// When a large block was made not long after another went back, in ms.
    pub large_wanted: U64,
}

/// Where the rows are that are in use, so that nobody need look at the others; and which of the
/// unused ones are in a list.
#[derive(Debug)]
#[repr(C)]
pub struct RowsCache {
    /// How many blocks are LIVE in each part of their table.
    pub live: [U32; PARTS],
    /// How many tickets are open in each part of theirs.
    pub open: [U32; PARTS],
    /// Unused rows of blocks below this one are in the list of them; the others are looked for when
    /// that is empty.
    pub listed_blocks: U32,
    /// The same for closed tickets.
    pub listed_tickets: U32,
}

/// The part of a table in which a chunk is: the first chunks are one each, and then of as many chunks as
/// there are before a part has an eighth.
#[inline(always)]
pub fn part_of(chunk: u32) -> usize {
    match chunk < SINGLE {
        true => chunk as usize,
        false => larger_part_of(chunk),
    }
}

#[cold]
fn larger_part_of(chunk: u32) -> usize {
    let log = chunk.ilog2();
    (SINGLE + (log - 4) * 8 + (chunk >> (log - 3) & 7)) as usize
}

/// The first chunk of a part; that of the part behind the last is the number of chunks.
pub fn first_chunk(part: usize) -> u32 {
    let part = part as u32;
    match part < SINGLE {
        true => part,
        false => (8 + (part - SINGLE) % 8) << ((part - SINGLE) / 8 + 1),
    }
}

/// What has happened so far, counted under the lock.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Blocks allocated.
    pub allocated: U64,
    /// Blocks freed.
    pub freed: U64,
    /// Tickets opened.
    pub sent: U64,
    /// Tickets turned into a reference.
    pub received: U64,
    /// Locks taken over from the dead.
    pub recovered: U64,
    /// Slots of the dead emptied.
    pub reaped_slots: U64,
    /// References of the dead dropped.
    pub reaped_holders: U64,
    /// Tickets that ended unreceived.
    pub expired: U64,
    /// Segments added.
    pub grown: U64,
    /// Bytes whose pages were given back.
    pub returned: U64,
    /// Forks prepared.
    pub forks: U64,
    /// Forks whose child got no slot.
    pub pins: U64,
    /// Times that pages were given back.
    pub returns: U64,
    unused: [U64; 11],
}

/// The beginning of the control segment.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: U64,
    /// [`VERSION`].
    pub version: U32,
    /// [`ABI`].
    pub abi: U32,
    /// The arena's own number.
    pub uuid: [U64; 2],
    /// The user whose arena it is.
    pub uid: U32,
    /// A chunk of blocks has `1 <<` this many rows.
    pub block_shift: U32,
    /// A chunk of tickets has `1 <<` this many rows.
    pub ticket_shift: U32,
    /// How many processes can be attached at one time.
    pub processes: U32,
    /// The length of the control segment.
    pub size: U64,
    /// Where its data start.
    pub data: U64,
    /// How long a killed sender's tickets live, in ms.
    pub grace: U64,
    /// How many free bytes may keep their pages, as things are now.
    pub budget: U64,
    /// The inode and the device of the lock file.
    pub lock_file: [U64; 2],
    /// A hash of the machine's boot id.
    pub boot: U64,
    /// How many free bytes may keep their pages, as it was set; or [`SHARE`].
    pub warm: U64,
    /// How many free bytes keep their pages even if nobody uses them, at most.
    pub least: U64,
    /// How many rows of the first chunk of blocks have memory.
    pub block_room: U32,
    /// How many tickets of the first chunk have memory.
    pub ticket_room: U32,
    /// The lock's owner.
    pub owner: U32,
    rest_of_owner: [U32; 15],
    /// [`POISONED`] and [`UNSETTLED`].
    pub condition: U32,
    /// 1: the arena has no name any more.
    pub unlinked: U32,
    /// The first row of blocks that was never used.
    pub block_rows: U32,
    /// The first ticket that was never used.
    pub ticket_rows: U32,
    /// How many chunks the table of blocks has.
    pub block_chunks: U32,
    /// How many chunks the table of tickets has.
    pub ticket_chunks: U32,
    /// 1: a block may be [`PINNED`]; or [`FOR_GOOD`].
    pub pinned: U32,
    /// The first segment that there never was.
    pub segment_rows: U32,
    /// Not 0: no block is freed, for children that could be handed nothing; or
    /// [`FOR_GOOD`].
    pub frozen: U32,
    /// The first slot that was never used.
    pub slot_rows: U32,
    /// The tree of processes whose end removes the names; 0 for none.
    pub registrar: U64,
    /// When a member last checked on the others, in ms; 0: that is to be done at
    /// once; [`NO_CHECK`].
    pub checked: U64,
    /// When the first ticket of a dead sender ends, at the earliest, in ms; 0 for
    /// never. Written before the ticket is.
    pub orphans: U64,
    /// The cache.
    pub index: IndexCache,
    /// The pages of this header that have memory, one bit each.
    pub pages: U64,
    /// The most that a segment is made of ahead of need, in bytes.
    pub longest: U64,
    /// By which `attach_or_create` finds the arena; zeros for none.
    pub identifier: [U64; 2],
    /// The block that the arena itself holds, + 1; 0 for none.
    pub root: U32,
    rest_of_index: [U32; 3],
    /// The counters.
    pub counters: Counters,
    /// Free memory that is left unused.
    pub idle: IdleCache,
    /// Rows that are in use.
    pub rows: RowsCache,
    rest_of_counters: [U64; 6],
    /// The segments.
    pub segments: [SegmentRow; SEGMENTS],
    /// The blocks that hold the chunks of the table of blocks.
    pub block_directory: [U32; CHUNKS],
    /// The blocks that hold the chunks of the table of tickets.
    pub ticket_directory: [U32; CHUNKS],
}

/// The beginning of a data segment.
#[repr(C, align(64))]
pub struct DataHeader {
    /// [`DATA_MAGIC`].
    pub magic: U64,
    /// The segment's number.
    pub number: U64,
    /// The arena's.
    pub uuid: [U64; 2],
    /// The segment's length.
    pub size: U64,
}

/// Where the data of a data segment start.
pub const DATA_START: u64 = size_of::<DataHeader>() as u64;

// The diagram above, held by the compiler.
const _: () = {
    assert!(offset_of!(Header, uuid) == 16);
    assert!(offset_of!(Header, uid) == 32);
    assert!(offset_of!(Header, size) == 48);
    assert!(offset_of!(Header, lock_file) == 80);
    assert!(offset_of!(Header, boot) == 96);
    assert!(offset_of!(Header, owner) == 128);
    assert!(offset_of!(Header, condition) == 192);
    assert!(offset_of!(Header, slot_rows) == 228);
    assert!(offset_of!(Header, registrar) == 232);
    assert!(offset_of!(Header, checked) == 240);
    assert!(offset_of!(Header, block_room) == 120);
    assert!(offset_of!(Header, index) == 256);
    assert!(offset_of!(Header, pages) == 3024);
    assert!(SLOTS_AT + SLOTS * size_of::<SlotRow>() <= 64 * PAGE as usize);
    assert!(offset_of!(Header, identifier) == 3040);
    assert!(offset_of!(Header, root) == 3056);
    assert!(offset_of!(Header, counters) == 3072);
    assert!(offset_of!(Header, idle) == 3264);
    assert!(offset_of!(Header, rows) == 3400);
    assert!(offset_of!(Header, segments) == 4096);
    assert!(offset_of!(Header, block_directory) == 20480);
    assert!(offset_of!(Header, ticket_directory) == 36864);
    assert!(size_of::<Header>() == SLOTS_AT);
    assert!(SLOTS_AT == 53248);
    assert!(size_of::<SlotRow>() == 64);
    assert!(size_of::<BlockRow>() == 64);
    assert!(size_of::<BlockCache>() == 32);
    assert!(size_of::<TicketRow>() == 64);
    assert!(size_of::<SegmentRow>() == 16);
    assert!(DATA_START == 64);
};

/// A number that differs where the sizes or the byte order of this build do.
pub const ABI: u32 = {
    let facts = [
        size_of::<Header>(),
        size_of::<IndexCache>(),
        size_of::<RowsCache>(),
        size_of::<Counters>(),
        size_of::<SlotRow>(),
        size_of::<BlockRow>(),
        size_of::<BlockCache>(),
        size_of::<TicketRow>(),
        size_of::<usize>(),
        SLOTS,
        SLOTS_IN_ROW,
        SEGMENTS,
        CHUNKS,
        CLASSES,
        BINS,
        ALIGN as usize,
        PAGE as usize,
        u16::from_ne_bytes([1, 2]) as usize,
    ];
    // FNV-1a.
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < facts.len() {
        hash = (hash ^ facts[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
};

/// The sizes that an arena is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// A chunk of blocks has `1 <<` this many rows.
    pub block_shift: u32,
    /// A chunk of tickets has `1 <<` this many rows.
    pub ticket_shift: u32,
    /// How many processes can be attached at one time.
    pub processes: u32,
    /// The length of the control segment in bytes, its tables included.
    pub size: u64,
}

/// Where the slots are in the control segment: behind the header.
pub const SLOTS_AT: usize = size_of::<Header>();
/// How many rows of a table have memory at first, at most.
const FIRST_ROWS: u32 = 64;
/// The pages before chunk 0 that have memory at first: the header's fields, the first of the
/// segments, of either directory and of the slots.
pub const FIRST_PAGES: u64 = {
    let mut pages = 0;
    let mut i = 0;
    let first = [
        0,
        offset_of!(Header, segments),
        offset_of!(Header, block_directory),
        offset_of!(Header, ticket_directory),
        SLOTS_AT,
    ];
    while i < first.len() {
        pages |= pages_of(first[i], 1);
        i += 1;
    }
    pages
};

/// The pages in which some bytes of the header or the slots are, one bit each.
pub const fn pages_of(offset: usize, size: usize) -> u64 {
    let first = offset / PAGE as usize;
    let last = (offset + size - 1) / PAGE as usize;
    (u64::MAX >> (63 - (last - first))) << first
}

impl Geometry {
    /// What a chunk's number of rows may be, as a power of two.
    const SHIFTS: std::ops::RangeInclusive<u32> = 4..=16;

    /// Refuses what cannot be an arena.
    pub fn check(&self) -> Result<()> {
        let shifts = [self.block_shift, self.ticket_shift];
        if !shifts.iter().all(|shift| Self::SHIFTS.contains(shift)) {
            return Err(Error::Invalid {
                why: "a chunk of an arena's table has 16 to 65536 rows",
            });
        }
        if !(1..=SLOTS as u32).contains(&self.processes) {
            return Err(Error::Invalid {
                why: "an arena is made for 1 to 1,024 processes",
            });
        }
        if self.size < self.data() + PAGE || self.size > LONGEST {
            return Err(Error::Invalid {
                why: "the arena's first segment is too small for its tables, or too long",
            });
        }
        Ok(())
    }

    /// How many slots there are: a multiple of 64, since a set of processes has as many bits.
    pub const fn slots(&self) -> usize {
        let slots = (self.processes as usize).next_multiple_of(64);
        if slots > SLOTS_IN_ROW {
            slots
        } else {
            SLOTS_IN_ROW
        }
    }

    /// How many words of a block's holders are not in its row.
    pub const fn further_words(&self) -> usize {
        (self.slots() - SLOTS_IN_ROW) / 64
    }

    /// Where the further holders are in a chunk of blocks.
    pub const fn further(&self) -> u64 {
        ((size_of::<BlockRow>() + size_of::<BlockCache>()) as u64) << self.block_shift
    }

    /// How long a chunk of blocks is, in bytes.
    pub const fn block_chunk(&self) -> u64 {
        self.further() + (((self.further_words() * size_of::<U64>()) as u64) << self.block_shift)
    }

    /// How long a chunk of tickets is, in bytes.
    pub const fn ticket_chunk(&self) -> u64 {
        (size_of::<TicketRow>() as u64) << self.ticket_shift
    }

    /// Where chunk 0 of the blocks is in the control segment.
    pub const fn blocks(&self) -> u64 {
        (SLOTS_AT + self.slots() * size_of::<SlotRow>()) as u64
    }

    /// Where chunk 0 of the tickets is in the control segment.
    pub const fn tickets(&self) -> u64 {
        self.blocks() + self.block_chunk()
    }

    /// Where the data of the control segment start.
    pub const fn data(&self) -> u64 {
        (self.tickets() + self.ticket_chunk()).next_multiple_of(PAGE)
    }

    /// How many rows of the first chunk of blocks, and of tickets, have memory at first.
    pub fn first_rows(&self) -> [u32; 2] {
        [self.block_shift, self.ticket_shift].map(|shift| FIRST_ROWS.min(1 << shift))
    }

    /// Where rows of the first chunk of blocks are, up to the row `to`: offsets and lengths.
    pub fn block_parts(&self, from: u32, to: u32) -> Vec<(u64, u64)> {
        let (rows, caches) = (size_of::<BlockRow>(), size_of::<BlockCache>());
        let further = self.further_words() * size_of::<U64>();
        let part = |(start, size): (u64, usize)| {
            let size = size as u64;
            let start = self.blocks() + start + from as u64 * size;
            (start, (to - from) as u64 * size)
        };
        let behind = (rows as u64) << self.block_shift;
        let parts = [(0, rows), (behind, caches), (self.further(), further)];
        let parts = parts.into_iter().filter(|(_, size)| *size > 0);
        parts.map(part).collect()
    }

    /// Where tickets of the first chunk are, up to the row `to`.
    pub fn ticket_part(&self, from: u32, to: u32) -> (u64, u64) {
        let size = size_of::<TicketRow>() as u64;
        let start = self.tickets() + from as u64 * size;
        (start, (to - from) as u64 * size)
    }

    /// What the tables of a new arena take, in bytes.
    pub fn first_tables(&self) -> u64 {
        let parts = self.first_table_parts().into_iter();
        parts.map(|(_, size)| size.next_multiple_of(PAGE)).sum()
    }

    /// What of the control segment has memory at first: offsets and lengths, in order; the
    /// last ends with the segment.
    pub fn first_parts(&self) -> Vec<(u64, u64)> {
        let mut parts = self.first_table_parts();
        parts.push((self.data(), self.size - self.data()));
        parts
    }

    fn first_table_parts(&self) -> Vec<(u64, u64)> {
        let [blocks, tickets] = self.first_rows();
        let pages = (0..64).filter(|page| FIRST_PAGES >> page & 1 == 1);
        let mut parts: Vec<_> = pages.map(|page| (page * PAGE, PAGE)).collect();
        parts.extend(self.block_parts(0, blocks));
        parts.push(self.ticket_part(0, tickets));
        parts
    }
}

/// The arena that a segment must be of, for whoever attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The length of the object that was opened.
    pub size: u64,
    /// This user.
    pub uid: u32,
    /// This boot of the machine.
    pub boot: u64,
    /// The lock file's inode and device.
    pub lock_file: [u64; 2],
}

/// The two words of an identifier, as 16 bytes; None if there is none.
pub fn as_identifier(words: [u64; 2]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    (words != [0, 0]).then_some(bytes)
}

impl Header {
    /// By what `attach_or_create` finds the arena; None if it does not.
    pub fn identifier(&self) -> Option<[u8; 16]> {
        let [first, second] = &self.identifier;
        as_identifier([first.get(), second.get()])
    }

    /// Writes it, for the creator.
    pub fn set_identifier(&self, bytes: [u8; 16]) {
        for (word, half) in self.identifier.iter().zip(bytes.chunks_exact(8)) {
            word.set(half.try_into().map_or(0, u64::from_ne_bytes));
        }
    }

    /// Says that `slot` is about to be used.
    pub fn know_slot(&self, slot: SlotId) {
        let mut seen = self.slot_rows.read();
        while seen <= slot.0 as u32 {
            match self.slot_rows.swap_if(seen, slot.0 as u32 + 1) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether the row of a segment has memory.
    pub fn has_segment_row(&self, number: usize) -> bool {
        let at = offset_of!(Header, segments) + number * size_of::<SegmentRow>();
        self.has_pages(pages_of(at, size_of::<SegmentRow>()))
    }

    /// Whether the row of a slot has memory.
    pub fn has_slot(&self, slot: SlotId) -> bool {
        let at = SLOTS_AT + slot.0 as usize * size_of::<SlotRow>();
        self.has_pages(pages_of(at, size_of::<SlotRow>()))
    }

    /// Whether these pages have memory.
    pub fn has_pages(&self, pages: u64) -> bool {
        // Pairs with the exchange in `Core::reserve_header`.
        self.pages.read() & pages == pages
    }

    /// The segments that there may be, by number.
    pub fn known_segments(&self) -> impl Iterator<Item = (usize, &SegmentRow)> {
        let count = self.segment_rows.get() as usize;
        self.segments.iter().enumerate().take(count)
    }

    /// Checks whether this is the control segment of an arena that this build
    /// can work with, and returns its geometry.
    ///
    /// # Errors
    /// `Foreign` says in what it differs, `OtherVersion` which one it is of.
    pub fn validate(&self, expected: &Expected) -> Result<Geometry> {
        let foreign = |why| Err(Error::Foreign { why });
        // Pairs with the commit in `Core::create`: all else that is read here was written before.
        if self.magic.read() != MAGIC {
            return foreign("it has no arena's magic number; it may still be in the making");
        }
        let found = self.version.get();
        if found != VERSION {
            return Err(Error::OtherVersion {
                what: "this arena",
                found,
                known: VERSION,
            });
        }
        if self.abi.get() != ABI {
            return foreign("made by a build with other sizes");
        }
        if self.uid.get() != expected.uid {
            return foreign("another user's arena");
        }
        if self.boot.get() != expected.boot {
            return foreign("made before the machine was started");
        }
        if [self.lock_file[0].get(), self.lock_file[1].get()] != expected.lock_file {
            return foreign("its lock file was replaced");
        }
        let geometry = Geometry {
            block_shift: self.block_shift.get(),
            ticket_shift: self.ticket_shift.get(),
            processes: self.processes.get(),
            size: self.size.get(),
        };
        if geometry.check().is_err() || self.data.get() != geometry.data() {
            return foreign("its tables have impossible sizes");
        }
        if geometry.size != expected.size {
            return foreign("its size is not the one it was made with");
        }
        Ok(geometry)
    }
}

impl DataHeader {
    /// Writes the header of segment `number` of the arena `uuid`.
    pub fn write(&self, number: usize, uuid: [u64; 2], size: u64) {
        self.number.set(number as u64);
        self.uuid[0].set(uuid[0]);
        self.uuid[1].set(uuid[1]);
        self.size.set(size);
        self.magic.commit(DATA_MAGIC);
    }

    /// Checks whether this is segment `number` of the arena `uuid`.
    ///
    /// # Errors
    /// `Corrupted`: its name is one that only this arena can have made.
    pub fn validate(&self, number: usize, uuid: [u64; 2], size: u64) -> Result<()> {
        // Pairs with the commit in `write`.
        let same = self.magic.read() == DATA_MAGIC
            && self.number.get() == number as u64
            && [self.uuid[0].get(), self.uuid[1].get()] == uuid
            && self.size.get() == size;
        match same {
            true => Ok(()),
            false => Err(Error::Corrupted {
                why: "a data segment is not the one that its number says",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_both_parts() {
        for (segment, offset) in [(0, 0), (3, 64), (SEGMENTS - 1, LONGEST)] {
            let address = Address::new(segment, offset);
            assert_eq!((address.segment(), address.offset()), (segment, offset));
        }
        assert!(Address::new(0, LONGEST) < Address::new(1, 0));
    }

    #[test]
    fn owners_survive_their_word() {
        for owner in [
            TicketOwner::Sender(SlotId(0)),
            TicketOwner::Sender(SlotId(1023)),
            TicketOwner::Arena,
            TicketOwner::Nobody(0),
            TicketOwner::Nobody(u64::MAX >> 2),
            TicketOwner::Block(BlockId(0)),
            TicketOwner::Block(BlockId(u32::MAX)),
        ] {
            assert_eq!(TicketOwner::unpack(owner.pack()), Ok(owner));
        }
        assert!(TicketOwner::unpack(1024 << 2).is_err());
        assert!(TicketOwner::unpack(1 << 34 | 3).is_err());
    }

    #[test]
    fn parts_follow_one_another() {
        assert_eq!(first_chunk(PARTS), CHUNKS as u32);
        for part in 0..PARTS {
            for chunk in first_chunk(part)..first_chunk(part + 1) {
                assert_eq!(part_of(chunk), part, "of chunk {chunk}");
            }
        }
    }

    #[test]
    fn a_set_of_slots_is_a_set() {
        let mut set = SlotSet::default();
        assert!(set.is_empty());
        for slot in [0, 63, 64, 255, 256, 1023] {
            set.insert(SlotId(slot));
        }
        let members: Vec<u16> = set.iter().map(|slot| slot.0).collect();
        assert_eq!(members, [0, 63, 64, 255, 256, 1023]);
        for slot in [1, 257, 1024, u16::MAX] {
            assert!(!set.contains(SlotId(slot)));
        }
    }
}
