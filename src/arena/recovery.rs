//! Recovery: rebuilding every cache from the truth.
//!
//! It runs under the lock, in the process that took the lock from a dead owner. The truth is right
//! after every instruction of every operation. What may be wrong are the caches, and a few blocks
//! that no process wants any more because their owner died between two stores. Recovery reads
//! nothing of a cache and writes the truth only to finish what was begun, so it may itself die
//! anywhere and be begun again.
//!
//! It needs the blocks in the order of their addresses and may not allocate. So it links them
//! through their own caches, in many lists by their places, and sorts those that are out of order.
//!
//! Nobody else can use the arena meanwhile. So it reads each table as seldom as can be: the tickets
//! once, the rows of blocks twice.
//!
//! Whatever the tables are, it ends: it counts its steps along each list.

use super::format::*;
use super::locked::{Block, Locked};
use super::refs::Extent;
use crate::error::Result;

/// So many rows need few lists.
const FEW: u32 = 2048;
/// How many blocks are sorted at a time before lists are merged.
const RUN: usize = 256;

impl<'a> Locked<'a> {
    /// Rebuilds every cache.
    ///
    /// # Errors
    /// `Corrupted` if the truth contradicts itself.
    pub fn recover(&self) -> Result<()> {
        self.check_truth()?;
        self.finish_tables()?;
        self.root_block()?;
        self.clear_index();
        self.clear_counts()?;
        let owners = self.count_tickets()?;
        self.close_unwanted(owners)?;
        // (To clear the lists of many would take longer than all the rest for few.)
        match self.header.block_rows.get() <= FEW {
            true => self.link::<16, 32>(),
            false => self.link::<1024, SEGMENTS>(),
        }
    }

    /// Refuses numbers of rows that are more than there is room for.
    fn check_truth(&self) -> Result<()> {
        let geometry = self.core.geometry();
        let header = self.header;
        let fits = |rows: u32, room: u32| rows <= room;
        let right = header.segment_rows.get() as usize <= SEGMENTS
            && fits(header.block_room.get(), 1 << geometry.block_shift)
            && fits(header.ticket_room.get(), 1 << geometry.ticket_shift)
            && fits(header.block_rows.get(), self.block_room())
            && fits(header.ticket_rows.get(), self.ticket_room());
        match right {
            true => Ok(()),
            false => Err(self.corrupted("the number of rows of a table")),
        }
    }

    /// Blocks that the directories name belong to the tables, each to one chunk.
    fn finish_tables(&self) -> Result<()> {
        for block in self.table_blocks() {
            let block = block?;
            self.make_table(block);
            block.cache.next.set(NIL);
        }
        // A block that was met is its own neighbour, until the blocks are linked.
        for block in self.table_blocks() {
            let block = block?;
            if block.cache.next.get() == block.id {
                return Err(self.corrupted("two chunks of tables in one block"));
            }
            block.cache.next.set(block.id);
        }
        Ok(())
    }

    /// The blocks that the directories name.
    pub fn table_blocks(&self) -> impl Iterator<Item = Result<Block<'a>>> + '_ {
        let header = self.header;
        let tables = [
            (&header.block_directory, header.block_chunks.get()),
            (&header.ticket_directory, header.ticket_chunks.get()),
        ];
        let entries = tables.into_iter().flat_map(|(directory, chunks)| {
            let chunks = (chunks as usize).clamp(1, CHUNKS);
            directory[1..chunks].iter()
        });
        let rows = header.block_rows.get();
        entries.map(move |entry| match entry.get().wrapping_sub(1) {
            id if id < rows => self.block(id),
            _ => Err(self.corrupted("a table's directory")),
        })
    }

    /// Makes all blocks owners of no ticket, to which no ticket refers.
    fn clear_counts(&self) -> Result<()> {
        // (Whatever the rows are: nobody asks those that are no blocks. So this reads no row.)
        for chunk in self.used_block_chunks() {
            for cache in self.used_blocks_of(chunk)?.1 {
                cache.tickets.set(0);
                cache.warm_or_owned.set(0);
            }
        }
        Ok(())
    }

    /// Counts the open tickets of each block, lists those that it owns, closes those whose block or
    /// owner is gone, and lists the closed ones; the first of the blocks that own tickets, linked as
    /// [`close_unwanted`](Self::close_unwanted) wants them.
    fn count_tickets(&self) -> Result<u32> {
        let mut owners = NIL;
        let rows = self.header.block_rows.get();
        for chunk in self.used_ticket_chunks().rev() {
            let first = chunk << self.core.geometry().ticket_shift;
            let mut open = 0;
            for (i, ticket) in self.used_tickets_of(chunk)?.iter().enumerate().rev() {
                let id = first + i as u32;
                if state_of(ticket.state.get()) != OPEN {
                    self.list_ticket(id, ticket);
                    continue;
                }
                let block = self.block(ticket.block.get())?;
                let gone = block.row.state.get() != state_word(ticket.generation.get(), LIVE);
                let owner = self.owner(ticket)?;
                if block.id >= rows || owner.is_some_and(|owner| owner.id >= rows) {
                    return Err(self.corrupted("the block of an open ticket"));
                }
                if gone || owner.is_none() && self.is_orphan(ticket)? {
                    self.close_ticket(id, ticket);
                    continue;
                }
                open += 1;
                block.cache.tickets.add(1);
                if let Some(owner) = owner {
                    if owner.owned_tickets().get() == 0 {
                        owner.cache.bin_previous.set(owners);
                        owners = owner.id;
                    }
                    self.add_owned(id, ticket, owner)?;
                }
            }
            self.open_in_part(first).add(open);
        }
        Ok(owners)
    }

    /// Puts a ticket that is not open among those that are taken next.
    fn list_ticket(&self, id: u32, ticket: &TicketRow) {
        let index = &self.header.index;
        ticket.next.set(index.spare_ticket.get());
        index.spare_ticket.set(id);
        index.spare_tickets.add(1);
    }

    fn close_ticket(&self, id: u32, ticket: &TicketRow) {
        let generation = generation_of(ticket.state.get()) + 1;
        ticket.state.commit(state_word(generation, CLOSED));
        self.list_ticket(id, ticket);
    }

    /// Closes the tickets whose owners nobody wants and which will go: which may leave more such
    /// blocks.
    ///
    /// The blocks that own tickets are linked through `bin_previous`, which is no block's otherwise,
    /// from `first` on. One that was looked at is its own neighbour there, and comes back if it is
    /// unwanted later: so each ticket is looked at once, whoever owns whom.
    fn close_unwanted(&self, first: u32) -> Result<()> {
        let mut first = first;
        let [blocks, tickets] =
            [&self.header.block_rows, &self.header.ticket_rows].map(|rows| rows.get() as u64);
        // Each owner, each ticket, and the block of each ticket.
        let mut steps = Steps(blocks + 2 * tickets);
        while first != NIL {
            steps.take(self)?;
            let owner = self.block(first)?;
            first = owner.cache.bin_previous.get();
            owner.cache.bin_previous.set(owner.id);
            if !self.is_unwanted(owner) {
                continue;
            }
            let mut id = owner.first_owned_or_nil();
            owner.owned_tickets().set(0);
            while id != NIL {
                steps.take(self)?;
                let ticket = self.ticket(id)?;
                let block = self.block(ticket.block.get())?;
                let next = ticket.next.get();
                self.open_in_part(id).sub(1);
                self.close_ticket(id, ticket);
                id = next;
                block.cache.tickets.sub(1);
                let was_looked_at = block.cache.bin_previous.get() == block.id;
                if block.owned_tickets().get() != 0 && was_looked_at {
                    block.cache.bin_previous.set(first);
                    first = block.id;
                }
            }
        }
        Ok(())
    }

    /// Links all blocks, and what is free between them, in the order of their addresses.
    fn link<const LISTS: usize, const KNOWN: usize>(&self) -> Result<()> {
        let mut places = Places::<LISTS, KNOWN>::over(self);
        self.distribute(&mut places)?;
        self.tile(&places)
    }

    /// Puts the blocks into lists by their places, and makes all other rows unused.
    fn distribute<const LISTS: usize, const KNOWN: usize>(
        &self,
        places: &mut Places<'a, LISTS, KNOWN>,
    ) -> Result<()> {
        for chunk in self.used_block_chunks().rev() {
            let first = chunk << self.core.geometry().block_shift;
            let (rows, caches) = self.used_blocks_of(chunk)?;
            let mut live = 0;
            for (i, (row, cache)) in rows.iter().zip(caches).enumerate().rev() {
                let id = first + i as u32;
                let block = Block { id, row, cache };
                let kept = match block.state() {
                    TABLE => true,
                    LIVE => !self.is_unwanted(block),
                    UNUSED | FREE => false,
                    _ => return Err(self.corrupted("the state of a block")),
                };
                if !kept {
                    self.make_unused(block);
                    continue;
                }
                live += (block.state() == LIVE) as u32;
                places.put(self, block, self.check_extent(block)?)?;
            }
            self.count_live(first, live);
        }
        Ok(())
    }

    /// A row that stands for nothing, in a new life if it was a block.
    fn make_unused(&self, block: Block<'a>) {
        if block.state() == LIVE {
            let next = state_word(block.generation() + 1, UNUSED);
            block.row.state.commit(next);
        }
        self.leave_row(block);
    }

    fn add_run(&self, sorted: &mut [u32; 33], run: u32, steps: &mut Steps) -> Result<()> {
        let mut list = run;
        for place in sorted.iter_mut() {
            if *place == NIL {
                *place = list;
                return Ok(());
            }
            list = self.merge_lists(*place, list, steps)?;
            *place = NIL;
        }
        Err(self.corrupted("the number of blocks"))
    }

    /// Merges two lists in the order of addresses.
    fn merge_lists(&self, a: u32, b: u32, steps: &mut Steps) -> Result<u32> {
        let (mut a, mut b) = (a, b);
        let mut first = NIL;
        let mut last: Option<Block<'a>> = None;
        while a != NIL && b != NIL {
            steps.take(self)?;
            let (left, right) = (self.block(a)?, self.block(b)?);
            let smaller = if left.address() <= right.address() {
                a = left.cache.next.get();
                left
            } else {
                b = right.cache.next.get();
                right
            };
            match last {
                Some(last) => last.cache.next.set(smaller.id),
                None => first = smaller.id,
            }
            last = Some(smaller);
        }
        let rest = if a != NIL { a } else { b };
        match last {
            Some(last) => last.cache.next.set(rest),
            None => first = rest,
        }
        Ok(first)
    }

    /// Sorts a list of blocks by their addresses.
    fn sort_list(&self, first: u32, steps: &mut Steps) -> Result<u32> {
        // `sorted[n]` is the head of a list of 2^n runs, like the digits of a
        // binary counter.
        let mut sorted = [NIL; 33];
        let mut next = first;
        while next != NIL {
            let mut run = [(0, NIL); RUN];
            let mut count = 0;
            for entry in &mut run {
                if next == NIL {
                    break;
                }
                steps.take(self)?;
                let block = self.block(next)?;
                *entry = (block.address().0, next);
                next = block.cache.next.get();
                count += 1;
            }
            run[..count].sort_unstable();
            let mut list = NIL;
            for (_, id) in run[..count].iter().rev() {
                self.block(*id)?.cache.next.set(list);
                list = *id;
            }
            self.add_run(&mut sorted, list, steps)?;
        }
        let mut all = NIL;
        for list in sorted {
            all = self.merge_lists(list, all, steps)?;
        }
        Ok(all)
    }

    /// Links the blocks of each segment with the free extents between them.
    /// Which pages those have is not known.
    fn tile<const LISTS: usize, const KNOWN: usize>(
        &self,
        places: &Places<'a, LISTS, KNOWN>,
    ) -> Result<()> {
        let mut tiles = Tiles {
            locked: self,
            number: 0,
            reached: 0,
            end: 0,
            last: None,
        };
        // (Each block is in one list, and is merged as often as its number has digits, at most twice.)
        let mut steps = Steps(self.header.block_rows.get() as u64 * 128);
        tiles.begin(0)?;
        for (list, head) in places.heads.iter().enumerate() {
            if places.disordered[list] {
                // (Its rows are near when they are linked.)
                let mut id = self.sort_list(*head, &mut steps)?;
                while id != NIL {
                    steps.take(self)?;
                    let block = self.block(id)?;
                    id = block.cache.next.get();
                    tiles.put(block)?;
                }
            } else if *head != NIL {
                // Those behind the first are linked already.
                tiles.put(self.block(*head)?)?;
                tiles.fill_gaps(places.gaps[list], &mut steps)?;
                tiles.reach(self.block(places.tails[list])?);
            }
        }
        while tiles.number < SEGMENTS {
            tiles.finish()?;
        }
        Ok(())
    }
}

/// How many steps lists of rows can take. In damaged tables, of which two chunks share memory, a list
/// may have no end.
struct Steps(u64);

impl Steps {
    /// Takes a step along a list.
    #[inline(always)]
    fn take(&mut self, locked: &Locked<'_>) -> Result<()> {
        match self.0.checked_sub(1) {
            Some(left) => self.0 = left,
            None => return Err(locked.corrupted("a list of rows without an end")),
        }
        Ok(())
    }
}

/// The blocks in `LISTS` lists, by their places: what is in one lies before what is in the next. What
/// lies in the segments from `KNOWN` on is in the last one.
///
/// A list is linked through `next`. If it is in order, and of one segment, it is linked through
/// `previous`, too.
struct Places<'a, const LISTS: usize, const KNOWN: usize> {
    /// The bytes of all segments before one, and how many bits of the sum choose no list.
    before: [u64; KNOWN],
    shift: u32,
    // Of each list:
    heads: [u32; LISTS],
    tails: [u32; LISTS],
    /// The blocks behind which there is a gap, linked through `bin_previous`.
    gaps: [u32; LISTS],
    disordered: [bool; LISTS],
    /// Where the head begins.
    first: [u64; LISTS],
    /// The block that came last.
    last: Option<Block<'a>>,
}

impl<'a, const LISTS: usize, const KNOWN: usize> Places<'a, LISTS, KNOWN> {
    fn over(locked: &Locked<'_>) -> Self {
        let mut before = [0u64; KNOWN];
        let mut all = 0u64;
        for (number, row) in locked.header.known_segments() {
            if let Some(before) = before.get_mut(number) {
                *before = all;
            }
            if state_of(row.state.get()) == PRESENT {
                all = all.saturating_add(locked.segment_size(number));
            }
        }
        Places {
            before,
            shift: (u64::BITS - all.leading_zeros()).saturating_sub(LISTS.ilog2()),
            heads: [NIL; LISTS],
            tails: [NIL; LISTS],
            gaps: [NIL; LISTS],
            disordered: [false; LISTS],
            first: [u64::MAX; LISTS],
            last: None,
        }
    }

    /// Puts a block at the front of its list.
    ///
    /// Rows are mostly in the order of their addresses: from the last one on a list grows in order.
    #[inline(always)]
    fn put(&mut self, locked: &Locked<'a>, block: Block<'a>, place: Extent) -> Result<()> {
        let address = place.address;
        let list = match self.before.get(address.segment()) {
            Some(before) => before.saturating_add(address.offset()) >> self.shift,
            None => u64::MAX,
        };
        let list = list.min(LISTS as u64 - 1) as usize;
        let (head, first) = (self.heads[list], Address(self.first[list]));
        block.cache.next.set(head);
        if head == NIL {
            self.tails[list] = block.id;
        } else if !self.disordered[list] {
            let head = match self.last {
                Some(last) if last.id == head => last,
                _ => locked.block(head)?,
            };
            let end = address.0.saturating_add(place.size);
            self.disordered[list] = end > first.0 || address.segment() != first.segment();
            head.cache.previous.set(block.id);
            if end != first.0 {
                block.cache.bin_previous.set(self.gaps[list]);
                self.gaps[list] = block.id;
            }
        }
        self.heads[list] = block.id;
        self.first[list] = address.0;
        self.last = Some(block);
        Ok(())
    }
}

/// The blocks and free extents of a segment, up to where they are linked.
struct Tiles<'l, 'a> {
    locked: &'l Locked<'a>,
    number: usize,
    /// Up to here, in the segment, and where its space ends.
    reached: u64,
    end: u64,
    last: Option<Block<'a>>,
}

impl<'a> Tiles<'_, 'a> {
    /// Begins with the first segment from `number` on that is there.
    fn begin(&mut self, number: usize) -> Result<()> {
        let mut rows = self.locked.header.known_segments().skip(number);
        let found = rows.find(|(_, row)| state_of(row.state.get()) == PRESENT);
        self.number = found.map_or(SEGMENTS, |(number, _)| number);
        self.last = None;
        if self.number < SEGMENTS {
            let size = self.locked.segment_size(self.number);
            self.reached = self.locked.data_start(self.number);
            if size < self.reached {
                return Err(self.locked.corrupted("the size of a segment"));
            }
            self.end = self.reached + (size - self.reached) / ALIGN * ALIGN;
        }
        Ok(())
    }

    /// Fills the rest of the segment, and goes on to the next one.
    fn finish(&mut self) -> Result<()> {
        self.fill(self.end)?;
        if let Some(last) = self.last {
            last.cache.next.set(NIL);
        }
        self.begin(self.number + 1)
    }

    /// Links a block, which lies behind all before it.
    #[inline(always)]
    fn put(&mut self, block: Block<'a>) -> Result<()> {
        let address = block.address();
        while self.number < address.segment().min(SEGMENTS) {
            self.finish()?;
        }
        if self.number != address.segment() {
            return Err(self.locked.corrupted("a block in no segment"));
        }
        if address.offset() < self.reached {
            return Err(self.locked.corrupted("two blocks at one place"));
        }
        self.fill(address.offset())?;
        block
            .cache
            .previous
            .set(self.last.map_or(NIL, |last| last.id));
        if let Some(last) = self.last {
            last.cache.next.set(block.id);
        }
        self.reach(block);
        Ok(())
    }

    /// Notes that all is linked up to the end of a block.
    fn reach(&mut self, block: Block<'a>) {
        self.reached = block.address().offset().saturating_add(block.size());
        self.last = Some(block);
    }

    /// Makes a free extent of what lies between the last block and an offset.
    #[inline(always)]
    fn fill(&mut self, to: u64) -> Result<()> {
        if to <= self.reached {
            return Ok(());
        }
        let place = Address::new(self.number, self.reached);
        let previous = self.last.map_or(NIL, |last| last.id);
        let size = to - self.reached;
        let locked = self.locked;
        if let Some(extent) = locked.add_extent(place, size, previous, NIL, PAGES_UNKNOWN)? {
            if let Some(last) = self.last {
                last.cache.next.set(extent.id);
            }
            self.last = Some(extent);
        }
        Ok(())
    }

    /// Makes free extents of what lies behind some blocks, linked through `bin_previous` from `first`
    /// on, of a list that is in order.
    fn fill_gaps(&self, first: u32, steps: &mut Steps) -> Result<()> {
        let mut id = first;
        while id != NIL {
            steps.take(self.locked)?;
            let before = self.locked.block(id)?;
            id = before.cache.bin_previous.get();
            let after = self.locked.block(before.cache.next.get())?;
            let place = Address(before.address().0.wrapping_add(before.size()));
            let size = after.address().0.saturating_sub(place.0);
            let (previous, next) = (before.id, after.id);
            let extent = self
                .locked
                .add_extent(place, size, previous, next, PAGES_UNKNOWN)?;
            if let Some(extent) = extent {
                before.cache.next.set(extent.id);
                after.cache.previous.set(extent.id);
            }
        }
        Ok(())
    }
}
