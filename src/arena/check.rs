//! The checker: every invariant, seen with other eyes.
//!
//! It shares nothing with the operations but the format: a [`Snapshot`] copies
//! the tables under the lock, by arithmetic of its own, and [`Snapshot::check`]
//! checks the copy outside the lock, with sorted lists and sets where the arena has
//! links and bits. What it finds wrong it says in words.

use super::core::Core;
use super::format::*;
use super::refs::{Extent, Member};
use super::word::U64;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::ptr::NonNull;

/// A copy of a block's row and cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the format's.
pub struct BlockCopy {
    pub id: u32,
    pub generation: u64,
    pub state: u8,
    pub address: Address,
    pub size: u64,
    pub marks: u64,
    pub holders: SlotSet,
    pub previous: u32,
    pub next: u32,
    pub bin_previous: u32,
    pub bin_next: u32,
    pub tickets: u32,
    pub whole: u32,
    pub warm_or_owned: u64,
}

/// A copy of a ticket's row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the format's.
pub struct TicketCopy {
    pub id: u32,
    pub generation: u64,
    pub state: u8,
    pub block: u32,
    pub block_generation: u64,
    pub owner: Result<TicketOwner>,
    pub owner_generation: u64,
    pub opened: u64,
    pub next: u32,
    pub previous: u32,
}

/// A copy of an arena's tables, taken under its lock.
#[derive(Clone, Debug)]
pub struct Snapshot {
    condition: u32,
    pinned: bool,
    frozen: bool,
    root: u32,
    slot_rows: u32,
    geometry: Geometry,
    /// Of each slot: its state and generation.
    pub slots: Vec<(u8, u64)>,
    /// Of each segment: its state, its maker, its length.
    pub segments: Vec<(u8, u16, u64)>,
    blocks: Vec<BlockCopy>,
    tickets: Vec<TicketCopy>,
    /// State words of rows that were never used and are not 0.
    stray: u64,
    /// What could not be copied.
    unreadable: Vec<String>,
    block_directory: Vec<u32>,
    ticket_directory: Vec<u32>,
    spare_block: (u32, u32),
    spare_ticket: (u32, u32),
    free: u64,
    warm: u64,
    classes: u64,
    bins: Vec<u32>,
    heads: Vec<Vec<u32>>,
    /// The numbers of rows in use, of blocks and of tickets, in each part of their tables.
    in_use: [Vec<u32>; 2],
    /// Up to which rows the unused ones are listed.
    listed: [u32; 2],
}

/// Makes room for `rows` and as many again.
fn reserve<T>(list: &mut Vec<T>, rows: usize) -> Result<()> {
    let reserved = list.try_reserve_exact(rows * 2 + 1024);
    reserved.map_err(|_| Error::Invalid {
        why: "there is no memory for a copy of the arena's tables",
    })
}

/// The place of row `id` of a table whose chunks begin at `chunks` and whose
/// rows have `size` bytes, `skip` bytes into the chunk.
fn place(
    chunks: &[NonNull<u8>],
    shift: u32,
    id: u32,
    skip: usize,
    size: usize,
) -> Option<*const u8> {
    let chunk = chunks.get((id / (1 << shift)) as usize)?;
    let offset = skip + (id % (1 << shift)) as usize * size;
    Some(chunk.as_ptr().wrapping_add(offset))
}

impl Core {
    /// Copies the tables, under the lock.
    ///
    /// # Errors
    /// `Busy`, or `Corrupted` if the arena is poisoned or becomes so by what
    /// taking the lock had to recover.
    pub fn snapshot(&self, me: Member) -> Result<Snapshot> {
        // Memory is taken before the lock, with room for what others add
        // meanwhile.
        let mut blocks = Vec::new();
        let mut tickets = Vec::new();
        let mut wanted = self.rows();
        loop {
            reserve(&mut blocks, wanted.0)?;
            reserve(&mut tickets, wanted.1)?;
            let locked = self.lock(me)?;
            wanted = self.rows();
            if blocks.capacity() >= wanted.0 && tickets.capacity() >= wanted.1 {
                let snapshot = self.copy(blocks, tickets);
                drop(locked);
                return Ok(snapshot);
            }
        }
    }

    /// How many rows of each table were used, as far as it can be believed.
    fn rows(&self) -> (usize, usize) {
        let header = self.header();
        let geometry = self.geometry();
        let count = |rows: u32, chunks: u32, shift: u32| {
            let all = (chunks as usize).min(CHUNKS) << shift;
            (rows as usize).min(all)
        };
        (
            count(
                header.block_rows.get(),
                header.block_chunks.get(),
                geometry.block_shift,
            ),
            count(
                header.ticket_rows.get(),
                header.ticket_chunks.get(),
                geometry.ticket_shift,
            ),
        )
    }

    fn copy(&self, mut blocks: Vec<BlockCopy>, mut tickets: Vec<TicketCopy>) -> Snapshot {
        let header = self.header();
        let geometry = self.geometry();
        let control = self.bytes(Extent {
            address: Address::new(0, 0),
            size: geometry.size,
        });
        // SAFETY: the control segment has its tables where the geometry says.
        let first_blocks = unsafe { control.add(geometry.blocks() as usize) };
        let mut block_chunks = vec![first_blocks];
        // SAFETY: the control segment has its tables where the geometry says.
        let first_tickets = unsafe { control.add(geometry.tickets() as usize) };
        let mut ticket_chunks = vec![first_tickets];
        let block_shift = geometry.block_shift;
        let caches = size_of::<BlockRow>() << block_shift;
        let further = caches + (size_of::<BlockCache>() << block_shift);
        let words = geometry.slots() / 64 - 4;
        let block_directory = copy_directory(&header.block_directory, header.block_chunks.get());
        let ticket_directory = copy_directory(&header.ticket_directory, header.ticket_chunks.get());
        let tables = [(&block_directory, true), (&ticket_directory, false)];
        let mut unreadable = Vec::new();
        for (directory, is_blocks) in tables {
            for holder in directory {
                let id = holder.wrapping_sub(1);
                let found = place(&block_chunks, block_shift, id, 0, 64).and_then(|row| {
                    // SAFETY: a row in a chunk found before.
                    let row = unsafe { &*row.cast::<BlockRow>() };
                    let size = match is_blocks {
                        true => geometry.block_chunk(),
                        false => geometry.ticket_chunk(),
                    };
                    self.find_bytes(Address(row.address.get()), size)
                });
                match (found, is_blocks) {
                    (Some(chunk), true) => block_chunks.push(chunk),
                    (Some(chunk), false) => ticket_chunks.push(chunk),
                    (None, _) => {
                        unreadable.push(format!("the chunk in block {id} cannot be found"));
                        break;
                    }
                }
            }
        }
        let mut stray = 0;
        // (To touch rows that have no memory would give them some, if there is any.)
        let with_memory = |chunks: usize, shift: u32, room: u32| match chunks {
            1 => room.min(1 << shift),
            chunks => (chunks as u32) << shift,
        };
        let room = header.block_room.get();
        for id in 0..with_memory(block_chunks.len(), block_shift, room) {
            let size = size_of::<BlockCache>();
            let row = place(&block_chunks, block_shift, id, 0, size_of::<BlockRow>());
            let cache = place(&block_chunks, block_shift, id, caches, size);
            let more = place(&block_chunks, block_shift, id, further, words * 8);
            let (Some(row), Some(cache), Some(more)) = (row, cache, more) else {
                break;
            };
            // SAFETY: `id` is in one of the chunks, which are mapped, aligned
            // and made of atomics.
            let row = unsafe { &*row.cast::<BlockRow>() };
            // SAFETY: `place` found the cache of `id` in the same chunk, behind the rows.
            let cache = unsafe { &*cache.cast::<BlockCache>() };
            // SAFETY: `place` found the further holders of `id` in the same chunk, behind the
            // caches, and there are `words` for each row.
            let more = unsafe { std::slice::from_raw_parts(more.cast::<U64>(), words) };
            if id < header.block_rows.get() {
                blocks.push(copy_block(id, row, cache, more));
            } else {
                stray += (row.state.get() != 0) as u64;
            }
        }
        let room = header.ticket_room.get();
        for id in 0..with_memory(ticket_chunks.len(), geometry.ticket_shift, room) {
            let size = size_of::<TicketRow>();
            let Some(row) = place(&ticket_chunks, geometry.ticket_shift, id, 0, size) else {
                break;
            };
            // SAFETY: `id` is in one of the chunks, which are mapped, aligned and made of atomics.
            let row = unsafe { &*row.cast::<TicketRow>() };
            if id < header.ticket_rows.get() {
                tickets.push(copy_ticket(id, row));
            } else {
                stray += (row.state.get() != 0) as u64;
            }
        }
        let index = &header.index;
        Snapshot {
            condition: header.condition.get(),
            pinned: header.pinned.get() != 0,
            frozen: header.frozen.get() != 0,
            root: header.root.get(),
            geometry,
            slots: (0..geometry.slots() as u16)
                .map(SlotId)
                .map(|slot| match header.has_slot(slot) {
                    true => split(self.slot(slot).state.read()),
                    false => (EMPTY, 0),
                })
                .collect(),
            // After their states: processes take slots without the lock, and say so before.
            slot_rows: header.slot_rows.read(),
            segments: (0..SEGMENTS)
                .map(|number| match header.has_segment_row(number) {
                    true => copy_segment(&header.segments[number]),
                    false => (ABSENT, 0, 0),
                })
                .collect(),
            blocks,
            tickets,
            stray,
            unreadable,
            block_directory,
            ticket_directory,
            spare_block: (index.spare_block.get(), index.spare_blocks.get()),
            spare_ticket: (index.spare_ticket.get(), index.spare_tickets.get()),
            free: index.free.get(),
            warm: index.warm.get(),
            classes: index.classes.get(),
            bins: index.bins.iter().map(|bins| bins.get()).collect(),
            heads: index
                .heads
                .iter()
                .map(|heads| heads.iter().map(|head| head.get()).collect())
                .collect(),
            in_use: [&header.rows.live, &header.rows.open]
                .map(|counts| counts.iter().map(|count| count.get()).collect()),
            listed: [
                header.rows.listed_blocks.get(),
                header.rows.listed_tickets.get(),
            ],
        }
    }

    /// Checks every invariant of the arena; what is wrong, in words.
    ///
    /// # Errors
    /// As [`snapshot`](Core::snapshot).
    pub fn check(&self, me: Member) -> Result<Vec<String>> {
        self.finish(me)?;
        Ok(self.snapshot(me)?.check())
    }
}

fn split(word: u64) -> (u8, u64) {
    ((word & 0xff) as u8, word >> 8)
}

fn copy_directory(directory: &[super::word::U32], chunks: u32) -> Vec<u32> {
    directory[1..(chunks as usize).clamp(1, CHUNKS)]
        .iter()
        .map(|entry| entry.get())
        .collect()
}

fn copy_segment(row: &SegmentRow) -> (u8, u16, u64) {
    let word = row.state.get();
    ((word & 0xff) as u8, (word >> 8) as u16, row.size.get())
}

fn copy_block(id: u32, row: &BlockRow, cache: &BlockCache, more: &[U64]) -> BlockCopy {
    let (state, generation) = split(row.state.get());
    let mut holders = SlotSet::default();
    for (copy, word) in holders.0.iter_mut().zip(row.holders.iter().chain(more)) {
        *copy = word.get();
    }
    BlockCopy {
        id,
        generation,
        state,
        address: Address(row.address.get()),
        size: row.size.get(),
        marks: row.marks.get(),
        holders,
        previous: cache.previous.get(),
        next: cache.next.get(),
        bin_previous: cache.bin_previous.get(),
        bin_next: cache.bin_next.get(),
        tickets: cache.tickets.get(),
        whole: cache.whole.get(),
        warm_or_owned: cache.warm_or_owned.get(),
    }
}

fn copy_ticket(id: u32, row: &TicketRow) -> TicketCopy {
    let (state, generation) = split(row.state.get());
    TicketCopy {
        id,
        generation,
        state,
        block: row.block.get(),
        block_generation: row.generation.get(),
        owner: TicketOwner::unpack(row.owner.get()),
        owner_generation: row.owner_generation.get(),
        opened: row.opened.get(),
        next: row.next.get(),
        previous: row.previous.get(),
    }
}

/// The class and bin for a size, from what they mean: class 0 has a bin for
/// each number of units below 16, class n the numbers from `8 << n` on, up to
/// twice that, in 16 equal parts.
fn expected_bin(size: u64) -> (usize, usize) {
    let units = size / ALIGN;
    if units < 16 {
        return (0, units as usize);
    }
    let mut class = 1;
    let mut low = 16;
    while units >= low * 2 {
        low *= 2;
        class += 1;
    }
    (class, ((units - low) * 16 / low) as usize)
}

impl Snapshot {
    /// The blocks, in the order of their rows.
    pub fn live(&self) -> impl Iterator<Item = &BlockCopy> {
        self.blocks.iter().filter(|block| block.state == LIVE)
    }

    /// The open tickets, in the order of their rows.
    pub fn open(&self) -> impl Iterator<Item = &TicketCopy> {
        self.tickets.iter().filter(|ticket| ticket.state == OPEN)
    }

    /// The bytes of blocks and those that are free.
    pub fn bytes(&self) -> (u64, u64) {
        let free = self.blocks.iter().filter(|block| block.state == FREE);
        (sum(self.live(), |b| b.size), sum(free, |b| b.size))
    }

    /// The bytes that segments have for blocks, without the arena's tables.
    pub fn capacity(&self) -> u64 {
        let tables = self.blocks.iter().filter(|block| block.state == TABLE);
        let spans = self.spans();
        let all: u64 = spans.values().map(|(start, end)| end - start).sum();
        all.saturating_sub(sum(tables, |block| block.size))
    }

    /// The data of each segment that is there: where they start and end.
    fn spans(&self) -> BTreeMap<usize, (u64, u64)> {
        let segments = self.segments.iter().enumerate();
        let present = segments.filter(|(_, segment)| segment.0 == PRESENT);
        present
            .map(|(number, (_, _, size))| {
                let start = if number == 0 {
                    self.geometry.data()
                } else {
                    DATA_START
                };
                (
                    number,
                    (start, start + size.saturating_sub(start) / ALIGN * ALIGN),
                )
            })
            .collect()
    }

    /// Whether a slot is nobody's, or the arena has none of this number.
    fn is_empty(&self, slot: SlotId) -> bool {
        let state = self.slots.get(slot.0 as usize);
        state.is_none_or(|(state, _)| *state == EMPTY)
    }

    /// What contradicts the invariants, in words; nothing if all is well.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = self.unreadable.clone();
        if self.condition != 0 {
            wrong.push(format!("the condition is {}", self.condition));
        }
        if self.stray != 0 {
            wrong.push(format!("{} rows above those used are not 0", self.stray));
        }
        self.check_tiling(&mut wrong);
        self.check_blocks(&mut wrong);
        if self.root != 0 && !self.live().any(|block| block.id + 1 == self.root) {
            wrong.push(format!("the root {} is no block", self.root - 1));
        }
        self.check_tickets(&mut wrong);
        self.check_spares(&mut wrong);
        self.check_in_use(&mut wrong);
        self.check_bins(&mut wrong);
        self.check_tables(&mut wrong);
        self.check_segments(&mut wrong);
        let beyond = self.slots.iter().skip(self.slot_rows as usize);
        if beyond.into_iter().any(|slot| slot.0 != EMPTY) {
            wrong.push("a slot is used beyond those that are known".to_string());
        }
        wrong
    }

    /// Blocks and free extents tile the data of each segment, linked in order,
    /// and no two free ones that are alike are neighbours.
    fn check_tiling(&self, wrong: &mut Vec<String>) {
        let mut pieces: BTreeMap<usize, Vec<&BlockCopy>> = BTreeMap::new();
        for block in self.blocks.iter().filter(|block| block.state != UNUSED) {
            pieces
                .entry(block.address.segment())
                .or_default()
                .push(block);
        }
        let spans = self.spans();
        for segment in pieces.keys().filter(|segment| !spans.contains_key(segment)) {
            wrong.push(format!("blocks in segment {segment}, which is not there"));
        }
        for (segment, (start, end)) in spans {
            let mut row = pieces.remove(&segment).unwrap_or_default();
            row.sort_by_key(|block| block.address);
            let mut reached = start;
            for (i, block) in row.iter().enumerate() {
                if block.address.offset() != reached {
                    wrong.push(format!(
                        "segment {segment}: block {} begins at {} and not at {reached}",
                        block.id,
                        block.address.offset()
                    ));
                }
                reached = block.address.offset().saturating_add(block.size);
                let before = if i == 0 { NIL } else { row[i - 1].id };
                let after = row.get(i + 1).map_or(NIL, |block| block.id);
                if (block.previous, block.next) != (before, after) {
                    wrong.push(format!(
                        "block {} is linked to {} and {}, but lies between {before} and {after}",
                        block.id, block.previous, block.next
                    ));
                }
                let alike = |other: &&BlockCopy| {
                    block.state == FREE && other.state == FREE && block.whole & 1 == other.whole & 1
                };
                if row.get(i + 1).is_some_and(alike) {
                    wrong.push(format!("free extents {} and {after} touch", block.id));
                }
            }
            if reached != end {
                wrong.push(format!("segment {segment} is tiled to {reached} of {end}"));
            }
        }
    }

    /// A block lists the open tickets that it owns, once each and in both directions.
    fn check_owned(&self, block: &BlockCopy, mut wanted: BTreeSet<u32>, wrong: &mut Vec<String>) {
        let mut previous = NIL;
        // (The first of none says nothing.)
        let mut next = match wanted.is_empty() {
            true => NIL,
            false => block.bin_next,
        };
        while next != NIL {
            let ticket = self.tickets.get(next as usize);
            let Some(ticket) = ticket.filter(|_| wanted.remove(&next)) else {
                wrong.push(format!("block {} lists ticket {next}", block.id));
                return;
            };
            if ticket.previous != previous {
                wrong.push(format!("ticket {next} does not follow {previous}"));
            }
            (previous, next) = (next, ticket.next);
        }
        if !wanted.is_empty() {
            wrong.push(format!("block {} lists no tickets {wanted:?}", block.id));
        }
    }

    /// Every block is wanted, and only by members that are there.
    fn check_blocks(&self, wrong: &mut Vec<String>) {
        let mut tickets: BTreeMap<(u32, u64), u32> = BTreeMap::new();
        let mut owned: BTreeMap<(u32, u64), BTreeSet<u32>> = BTreeMap::new();
        for ticket in self.open() {
            if let Ok(TicketOwner::Block(id)) = ticket.owner {
                let tickets = owned.entry((id.0, ticket.owner_generation));
                tickets.or_default().insert(ticket.id);
            }
            *tickets
                .entry((ticket.block, ticket.block_generation))
                .or_default() += 1;
        }
        for block in self.live() {
            let count = tickets
                .get(&(block.id, block.generation))
                .copied()
                .unwrap_or(0);
            if block.tickets != count {
                wrong.push(format!(
                    "block {} counts {} tickets, and has {count}",
                    block.id, block.tickets
                ));
            }
            let owns = owned.remove(&(block.id, block.generation));
            let owns = owns.unwrap_or_default();
            if block.warm_or_owned != owns.len() as u64 {
                wrong.push(format!(
                    "block {} counts {} tickets that it owns, and has {}",
                    block.id,
                    block.warm_or_owned,
                    owns.len()
                ));
            }
            self.check_owned(block, owns, wrong);
            let pinned = block.marks & PINNED != 0;
            let kept = pinned || self.frozen || block.id + 1 == self.root;
            if block.holders.is_empty() && count == 0 && !kept {
                wrong.push(format!("nobody wants block {}", block.id));
            }
            for slot in block.holders.iter() {
                if self.is_empty(slot) {
                    wrong.push(format!(
                        "block {} is held by empty slot {}",
                        block.id, slot.0
                    ));
                }
            }
            if pinned && !self.pinned {
                wrong.push(format!("block {} is pinned, the arena is not", block.id));
            }
            if block.marks & !(PINNED | NAMED | PAGES) != 0 {
                wrong.push(format!("block {} has marks {:x}", block.id, block.marks));
            }
        }
        for (id, generation) in owned.keys() {
            wrong.push(format!(
                "block {id}, life {generation}, is gone and answers for tickets"
            ));
        }
        for block in &self.blocks {
            if block.state > TABLE {
                wrong.push(format!("block {} is in state {}", block.id, block.state));
            }
        }
    }

    /// Every open ticket refers to a block, and someone answers for it.
    fn check_tickets(&self, wrong: &mut Vec<String>) {
        for ticket in self.open() {
            let block = self.blocks.get(ticket.block as usize);
            let same = |b: &BlockCopy| b.state == LIVE && b.generation == ticket.block_generation;
            if !block.is_some_and(same) {
                wrong.push(format!("ticket {} refers to no block", ticket.id));
            }
            match ticket.owner {
                Ok(TicketOwner::Sender(slot)) if self.is_empty(slot) => wrong.push(format!(
                    "ticket {} is kept by empty slot {}",
                    ticket.id, slot.0
                )),
                Ok(_) => {}
                Err(error) => wrong.push(format!("ticket {}: {error}", ticket.id)),
            }
        }
        for ticket in &self.tickets {
            if ticket.state > OPEN {
                wrong.push(format!("ticket {} is in state {}", ticket.id, ticket.state));
            }
        }
    }

    /// The parts of each table count the rows of theirs that are in use.
    fn check_in_use(&self, wrong: &mut Vec<String>) {
        let tables = [
            (
                "blocks",
                self.geometry.block_shift,
                self.live().map(|b| b.id).collect(),
            ),
            (
                "tickets",
                self.geometry.ticket_shift,
                self.open().map(|ticket| ticket.id).collect::<Vec<u32>>(),
            ),
        ];
        // The last chunk of each part: 16 alone, then 8 parts up to twice as many.
        let mut ends: Vec<u32> = (0..16).collect();
        let mut length = 2;
        while ends.len() < PARTS {
            for _ in 0..8 {
                ends.push(ends[ends.len() - 1] + length);
            }
            length *= 2;
        }
        for ((what, shift, ids), counted) in tables.into_iter().zip(&self.in_use) {
            let mut counts = vec![0; PARTS];
            for id in ids {
                counts[ends.partition_point(|end| *end < id >> shift)] += 1;
            }
            if counts != *counted {
                wrong.push(format!("{what} in use: {counts:?}, counted {counted:?}"));
            }
        }
    }

    /// The lists of spare rows have each of them once, and nothing else; those behind what is
    /// listed are in none.
    fn check_spares(&self, wrong: &mut Vec<String>) {
        let unused = self.blocks.iter().filter(|block| block.state == UNUSED);
        let closed = self.tickets.iter().filter(|ticket| ticket.state == CLOSED);
        let lists = [
            (
                "unused rows",
                self.spare_block,
                unused.map(|block| block.id).collect::<BTreeSet<u32>>(),
                self.blocks
                    .iter()
                    .map(|block| block.bin_next)
                    .collect::<Vec<u32>>(),
            ),
            (
                "closed tickets",
                self.spare_ticket,
                closed.map(|ticket| ticket.id).collect(),
                self.tickets.iter().map(|ticket| ticket.next).collect(),
            ),
        ];
        for ((what, (first, count), expected, next), end) in lists.into_iter().zip(self.listed) {
            match follow(first, &next) {
                Some(found) => {
                    let set: BTreeSet<u32> = found.iter().copied().collect();
                    let all = expected.len();
                    let listed: BTreeSet<u32> =
                        expected.into_iter().filter(|id| *id < end).collect();
                    if set != listed || found.len() != listed.len() || all != count as usize {
                        wrong.push(format!(
                            "the list of {what} has {} of {}; there are {all}, by the count {count}",
                            found.len(),
                            listed.len()
                        ));
                    }
                }
                None => wrong.push(format!("the list of {what} has a loop or a wrong link")),
            }
        }
    }

    /// Each free extent is in the bin for its size, once; bits and sums agree.
    fn check_bins(&self, wrong: &mut Vec<String>) {
        let free: Vec<&BlockCopy> = self.blocks.iter().filter(|b| b.state == FREE).collect();
        let next: Vec<u32> = self.blocks.iter().map(|block| block.bin_next).collect();
        let mut seen = BTreeSet::new();
        for (class, heads) in self.heads.iter().enumerate() {
            for (bin, head) in heads.iter().enumerate() {
                let has = self.bins[class] >> bin & 1 == 1;
                if has != (*head != NIL) {
                    wrong.push(format!("bin {class}/{bin}: its bit says {has}"));
                }
                let Some(found) = follow(*head, &next) else {
                    wrong.push(format!("bin {class}/{bin} has a loop or a wrong link"));
                    continue;
                };
                let mut before = NIL;
                for id in found {
                    let block = &self.blocks[id as usize];
                    if block.state != FREE || expected_bin(block.size) != (class, bin) {
                        wrong.push(format!("block {id} is in bin {class}/{bin}"));
                    }
                    if block.bin_previous != before {
                        wrong.push(format!(
                            "extent {id} is linked back to {}",
                            block.bin_previous
                        ));
                    }
                    if !seen.insert(id) {
                        wrong.push(format!("extent {id} is in two bins"));
                    }
                    before = id;
                }
            }
            if (self.classes >> class & 1 == 1) != (self.bins[class] != 0) {
                wrong.push(format!("class {class}: its bit is wrong"));
            }
        }
        for block in &free {
            if !seen.contains(&block.id) {
                wrong.push(format!("free extent {} is in no bin", block.id));
            }
            let whole = block.whole & 1 == 1;
            if ![0, 1, 3].contains(&block.whole)
                || block.warm_or_owned > block.size
                || (whole && block.warm_or_owned < block.size)
            {
                wrong.push(format!(
                    "free extent {} of {} bytes: warm {}, whole {}",
                    block.id, block.size, block.warm_or_owned, block.whole
                ));
            }
        }
        let sums: (u64, u64) = (
            sum(free.iter().copied(), |block| block.size),
            sum(free.iter().copied(), |block| block.warm_or_owned),
        );
        if sums != (self.free, self.warm) {
            let kept = (self.free, self.warm);
            wrong.push(format!("the sums are {kept:?} and should be {sums:?}"));
        }
    }

    /// Chunks of the tables lie in blocks of their own.
    fn check_tables(&self, wrong: &mut Vec<String>) {
        let mut holders = BTreeSet::new();
        let tables = [
            (
                &self.block_directory,
                self.geometry.block_chunk(),
                self.geometry.block_shift,
            ),
            (
                &self.ticket_directory,
                self.geometry.ticket_chunk(),
                u32::MAX,
            ),
        ];
        for (directory, size, shift) in tables {
            for (i, entry) in directory.iter().enumerate() {
                let id = entry.wrapping_sub(1);
                let block = self.blocks.get(id as usize);
                if !block.is_some_and(|block| block.state == TABLE && block.size >= size) {
                    wrong.push(format!("a chunk lies in block {id}, which is none for it"));
                }
                // A chunk of rows lies in a block of an earlier chunk.
                if shift != u32::MAX && id >> shift > i as u32 {
                    wrong.push(format!("chunk {} lies in block {id}", i + 1));
                }
                if !holders.insert(id) {
                    wrong.push(format!("two chunks lie in block {id}"));
                }
            }
        }
        let all = self.blocks.iter().filter(|block| block.state == TABLE);
        let all: BTreeSet<u32> = all.map(|block| block.id).collect();
        if all != holders {
            wrong.push(format!(
                "blocks of tables {all:?}, in the directories {holders:?}"
            ));
        }
    }

    /// Segments in the making have a maker.
    fn check_segments(&self, wrong: &mut Vec<String>) {
        for (number, (state, maker, _)) in self.segments.iter().enumerate() {
            let orphan = *state == BUILDING && self.is_empty(SlotId(*maker));
            if *state > PRESENT || orphan {
                wrong.push(format!(
                    "segment {number} is in state {state}, maker {maker}"
                ));
            }
        }
    }
}

/// Adds up a number of each block; damaged ones may be of any size.
fn sum<'a>(blocks: impl Iterator<Item = &'a BlockCopy>, of: fn(&BlockCopy) -> u64) -> u64 {
    blocks.map(of).fold(0, u64::saturating_add)
}

/// The members of a list; None if it has a loop or leads out of the table.
fn follow(first: u32, next: &[u32]) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let mut id = first;
    while id != NIL {
        if found.len() >= next.len() {
            return None;
        }
        found.push(id);
        id = *next.get(id as usize)?;
    }
    Some(found)
}
