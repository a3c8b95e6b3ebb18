//! The arena as one process sees it: its memory, its rows, its lock.
//!
//! [`Core`] finds rows and bytes in the segments. What changes the tables is
//! done through [`Locked`], which exists while the lock is held: the modules
//! beside this one add their operations to it. None of them panics or waits, or
//! allocates but when a segment is met for the first time, and each refuses what
//! it cannot do before it touches anything; the one error that may come later is that the tables contradict themselves,
//! and that poisons the arena.
//!
//! Numbers that come from the segments are looked up through [`Locked::block`],
//! [`Locked::ticket`] and [`Locked::check_extent`] and nowhere else, so that a
//! wrong number becomes an error and never a wild pointer.

use super::blocks::Extent;
use super::format::*;
use super::lock::{self, Owner, Surroundings, Taken};
use super::platform::Platform;
use super::unfinished::Unfinished;
use super::word::{U32, U64};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

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
    fn owner(self) -> Owner {
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

/// Places of this process's mappings, filled as they are met. The words are
/// private to the process, and ordinary atomics.
struct Places(Box<[AtomicPtr<u8>]>);

impl Places {
    fn new(count: usize) -> Self {
        Places((0..count).map(|_| AtomicPtr::new(null_mut())).collect())
    }

    /// The place of `index`; None if it is not known or out of range.
    #[inline(always)]
    fn get(&self, index: usize) -> Option<NonNull<u8>> {
        // Acquire, pairs with the release in `set`: the mapping is there.
        NonNull::new(self.0.get(index)?.load(Ordering::Acquire))
    }

    fn set(&self, index: usize, place: NonNull<u8>) {
        self.0[index].store(place.as_ptr(), Ordering::Release)
    }
}

/// An arena as one process sees it.
pub struct Core {
    platform: Arc<dyn Platform>,
    geometry: Geometry,
    header: NonNull<Header>,
    slots: NonNull<[SlotRow]>,
    /// How many words of a block's holders are not in its row.
    further_words: usize,
    segments: Places,
    /// The lengths of the segments that have a place here.
    lengths: Box<[AtomicU64]>,
    blocks: Places,
    tickets: Places,
    /// How many chunks of each table have a place here.
    known: [AtomicU32; 2],
    /// A holder that was found alive, and when: see `upkeep`.
    pub(super) found_alive: AtomicU64,
    /// How many threads of this process are at work outside the lock on what
    /// is the process's own, or under another lock: counted up under the lock, or
    /// while nobody is `leaving`.
    work: AtomicU32,
    /// How many threads want the process to leave.
    leaving: AtomicU32,
    pub(super) unfinished: Unfinished,
}

/// A thread's work outside the lock on a block or segment of its process's.
/// The process does not leave before its end.
pub struct Work<'a>(&'a AtomicU32);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // Release, pairs with the acquire in `is_at_work`.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

// SAFETY: the pointers are to memory that the platform keeps in place for as
// long as it lives, and all that lies there is atomic.
unsafe impl Send for Core {}
// SAFETY: as above; changes of the tables are made under the arena's lock.
unsafe impl Sync for Core {}

/// A row of the table of blocks: its truth and its cache.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub id: u32,
    pub row: &'a BlockRow,
    pub cache: &'a BlockCache,
}

impl Block<'_> {
    #[inline(always)]
    pub fn state(&self) -> u8 {
        state_of(self.row.state.get())
    }

    #[inline(always)]
    pub fn generation(&self) -> u64 {
        generation_of(self.row.state.get())
    }

    #[inline(always)]
    pub fn address(&self) -> Address {
        Address(self.row.address.get())
    }

    #[inline(always)]
    pub fn size(&self) -> u64 {
        self.row.size.get()
    }

    /// Of a free extent: how many of its bytes have pages, at most.
    #[inline(always)]
    pub fn warm(&self) -> &U64 {
        &self.cache.warm_or_kept
    }

    /// Of a block: how many open tickets it answers for.
    #[inline(always)]
    pub fn kept(&self) -> &U64 {
        &self.cache.warm_or_kept
    }
}

impl Core {
    /// Makes an arena in the control segment that `platform` maps, which must
    /// be all zero, and returns it.
    ///
    /// `constants` sets the fields that stay as they are: number, user, grace,
    /// budget, least, longest, lock file and boot. This process is a member before the magic
    /// number, last of all, lets others in.
    ///
    /// # Errors
    /// Sizes that cannot be an arena, and what mapping reports.
    pub fn create(
        platform: Arc<dyn Platform>,
        geometry: Geometry,
        constants: impl FnOnce(&Header),
    ) -> Result<(Core, Member)> {
        geometry.check()?;
        let core = Core::over(platform, geometry)?;
        let header = core.header();
        header.longest.set(LONGEST);
        constants(header);
        header.warm.set(header.budget.get());
        core.renew_budget();
        header.version.set(VERSION);
        header.abi.set(ABI);
        header.block_shift.set(geometry.block_shift);
        header.ticket_shift.set(geometry.ticket_shift);
        header.processes.set(geometry.processes);
        header.size.set(geometry.size);
        header.data.set(geometry.data());
        header.pages.set(FIRST_PAGES);
        let [blocks, tickets] = geometry.first_rows();
        header.block_room.set(blocks);
        header.ticket_room.set(tickets);
        header.block_chunks.set(1);
        header.ticket_chunks.set(1);
        header.segment_rows.set(1);
        header.segments[0].size.set(geometry.size);
        header.segments[0].state.set(PRESENT as u64);
        // Nobody else can be here before the magic number is; the lock is for
        // the type's sake.
        core.locked(Member {
            slot: SlotId(0),
            generation: 0,
        })
        .first_extent()?;
        let me = core.register()?;
        core.header().magic.commit(MAGIC);
        Ok((core, me))
    }

    /// Opens an arena whose control segment is there.
    ///
    /// # Errors
    /// `Foreign` if it is not what `expected` says, or what mapping reports.
    pub fn open(platform: Arc<dyn Platform>, expected: &Expected) -> Result<Core> {
        let least = std::mem::size_of::<Header>() as u64;
        if expected.size < least {
            return Err(Error::Foreign {
                why: "it is too short for an arena",
            });
        }
        let base = platform.map(0, expected.size)?;
        // SAFETY: the mapping is at least as long as a header, aligned, and
        // made of atomics, for which all bytes are values. It lives until the
        // platform is dropped, and `header` ends before.
        let header = unsafe { base.cast::<Header>().as_ref() };
        let geometry = header.validate(expected)?;
        Core::over(platform, geometry)
    }

    fn over(platform: Arc<dyn Platform>, geometry: Geometry) -> Result<Core> {
        let base = platform.map(0, geometry.size)?;
        let core = Core {
            platform,
            geometry,
            header: base.cast(),
            slots: NonNull::slice_from_raw_parts(
                Self::within(base, SLOTS_AT as u64).cast(),
                geometry.slots(),
            ),
            further_words: geometry.further_words(),
            segments: Places::new(SEGMENTS),
            lengths: (0..SEGMENTS).map(|_| AtomicU64::new(0)).collect(),
            blocks: Places::new(CHUNKS),
            tickets: Places::new(CHUNKS),
            known: [AtomicU32::new(1), AtomicU32::new(1)],
            found_alive: AtomicU64::new(0),
            work: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            unfinished: Unfinished::new(),
        };
        core.lengths[0].store(geometry.size, Ordering::Relaxed);
        core.segments.set(0, base);
        core.blocks.set(0, Self::within(base, geometry.blocks()));
        core.tickets.set(0, Self::within(base, geometry.tickets()));
        Ok(core)
    }

    /// `offset` bytes after the beginning of a mapping that is longer.
    fn within(base: NonNull<u8>, offset: u64) -> NonNull<u8> {
        // SAFETY: all callers have compared `offset` with the mapping's length,
        // which `Geometry::check` or `check_extent` keeps below `isize::MAX`.
        unsafe { base.add(offset as usize) }
    }

    /// The control segment's beginning.
    #[inline(always)]
    pub fn header(&self) -> &Header {
        // SAFETY: see `over`: the mapping is as long as the geometry says,
        // which is more than a header, and stays as long as `platform`.
        unsafe { self.header.as_ref() }
    }

    /// The rows of the slots.
    #[inline(always)]
    fn slots(&self) -> &[SlotRow] {
        // SAFETY: the mapping has so many rows there by the geometry, which this process keeps
        // for itself; they are aligned, and atomics, for which all bytes are values.
        unsafe { self.slots.as_ref() }
    }

    /// The row of a slot that a member has.
    #[inline(always)]
    pub fn slot(&self, slot: SlotId) -> &SlotRow {
        &self.slots()[slot.0 as usize]
    }

    /// The row of a slot, by a number from the segments; None if the arena has none of that.
    pub fn find_slot(&self, slot: SlotId) -> Option<&SlotRow> {
        self.slots().get(slot.0 as usize)
    }

    /// The slots that may be somebody's.
    pub fn known_slots(&self) -> impl Iterator<Item = (SlotId, &SlotRow)> {
        let count = self.header().slot_rows.read() as usize;
        let rows = self.slots().iter().enumerate().take(count);
        rows.map(|(number, row)| (SlotId(number as u16), row))
    }

    /// The slots that processes may take.
    pub fn all_slots(&self) -> impl Iterator<Item = SlotId> {
        (0..self.geometry.processes as u16).map(SlotId)
    }

    /// The world around the arena.
    pub fn platform(&self) -> &dyn Platform {
        &*self.platform
    }

    /// The sizes of the arena's tables.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The arena's own number.
    pub fn uuid(&self) -> [u64; 2] {
        let [a, b] = &self.header().uuid;
        [a.get(), b.get()]
    }

    /// Maps segment `number`, which this process meets for the first time, or again after it
    /// was removed and a longer one made in its place.
    #[cold]
    fn meet(&self, number: usize) -> Result<()> {
        let wrong = Error::Corrupted {
            why: "the number of a segment",
        };
        let row = self.header().segments.get(number).ok_or(wrong)?;
        let size = row.size.get();
        let possible = number > 0 && (DATA_START..=LONGEST).contains(&size);
        if state_of(row.state.read()) != PRESENT || !possible {
            return Err(wrong);
        }
        let base = self.platform.map(number, size)?;
        // SAFETY: the mapping has room for the header of a data segment, is
        // aligned, and holds atomics only; it outlives this function.
        let header = unsafe { base.cast::<DataHeader>().as_ref() };
        header.validate(number, self.uuid(), size)?;
        // A thread that finds the place before and this length is on its way to a block which
        // it found under the lock: that lies in both.
        self.lengths[number].store(size, Ordering::Relaxed);
        self.segments.set(number, base);
        Ok(())
    }

    /// The bytes of a block that this process has got from an operation of this
    /// arena.
    ///
    /// # Panics
    /// If it is not in a segment that this process has met: no operation
    /// returns such a place.
    #[inline(always)]
    pub fn bytes(&self, place: Extent) -> NonNull<u8> {
        let found = self.find_bytes(place.address, place.size);
        found.expect("blocks are handed out after their segment is mapped")
    }

    /// The bytes at a place that may be any, if they are in a segment that this
    /// process has met, and begin like a block.
    #[inline(always)]
    pub(super) fn find_bytes(&self, address: Address, size: u64) -> Option<NonNull<u8>> {
        if address.0 % ALIGN != 0 {
            return None;
        }
        let base = self.segments.get(address.segment())?;
        let length = self.lengths[address.segment()].load(Ordering::Relaxed);
        let end = address.offset().checked_add(size)?;
        (end <= length).then(|| Self::within(base, address.offset()))
    }

    /// Sees to it that a part of the header has memory, before anybody touches it.
    ///
    /// # Errors
    /// `Full` if there is none.
    #[inline]
    pub(super) fn ensure_header(&self, offset: usize, size: usize) -> Result<()> {
        let wanted = pages_of(offset, size);
        match self.header().has_pages(wanted) {
            true => Ok(()),
            false => self.reserve_header(wanted),
        }
    }

    #[cold]
    fn reserve_header(&self, wanted: u64) -> Result<()> {
        let header = self.header();
        let first = wanted.trailing_zeros() as u64 * PAGE;
        let size = wanted.count_ones() as u64 * PAGE;
        let reserved = self.platform.reserve(Address::new(0, first), size);
        reserved.map_err(|error| self.without_memory(error, size))?;
        let mut seen = header.pages.read();
        while let Err(now) = header.pages.swap_if(seen, seen | wanted) {
            seen = now;
        }
        Ok(())
    }

    /// Sees to it that the row of a slot has memory.
    ///
    /// # Errors
    /// As for `ensure_header`.
    pub(super) fn ensure_slot(&self, slot: SlotId) -> Result<()> {
        let size = std::mem::size_of::<SlotRow>();
        self.ensure_header(SLOTS_AT + slot.0 as usize * size, size)
    }

    /// Takes the arena's lock, recovering what a dead owner left.
    ///
    /// # Errors
    /// `Busy` if a living owner keeps it, `Interrupted` if the waiter was told to
    /// give up, `Corrupted` if the arena is poisoned, or that a chunk of its tables cannot be mapped: nothing has been touched
    /// then.
    #[inline(always)]
    pub(super) fn lock(&self, me: Member) -> Result<Locked<'_>> {
        let locked = match self.lock_word(me, &self.header().owner)? {
            Taken::Free => self.locked(me),
            Taken::FromDead => {
                // The mark comes first: should what follows fail or die, the
                // next owner sees it.
                let header = self.header();
                header.condition.commit(header.condition.get() | UNSETTLED);
                header.counters.recovered.add(1);
                self.locked(me)
            }
        };
        let state = self.slot(me.slot).state.get();
        if state != state_word(me.generation, ALIVE) {
            locked.check_membership(state)?;
        }
        if locked.header.condition.get() != 0 {
            locked.settle()?;
        }
        if !locked.knows_all_chunks() {
            locked.meet_chunks()?;
        }
        Ok(locked)
    }

    /// Takes a lock like the arena's own for a member, by its word, which lies in the
    /// memory of the arena; not while the arena's is held.
    ///
    /// # Errors
    /// `Busy` and `Interrupted`, as for the arena's.
    #[inline(always)]
    pub fn lock_word(&self, me: Member, word: &U32) -> Result<Taken> {
        let waiting = Waiting::new(self, me);
        lock::acquire(word, me.owner(), &waiting).map_err(|owner| match waiting.interrupted.get() {
            true => Error::Interrupted,
            false => self.busy(owner),
        })
    }

    /// Gives a lock back that [`lock_word`](Self::lock_word) has taken.
    #[inline(always)]
    pub fn unlock_word(&self, me: Member, word: &U32) {
        lock::release(word, me.owner(), &Waiting::new(self, me));
    }

    /// Begins work of a member that is not under the arena's lock.
    ///
    /// # Errors
    /// `Detached` if it has left.
    #[inline(always)]
    pub fn work(&self, me: Member) -> Result<Work<'_>> {
        let work = loop {
            // A full barrier between this and the look, as in `leaving`: one of the
            // two threads sees the other.
            self.work.fetch_add(1, Ordering::SeqCst);
            let work = Work(&self.work);
            if self.leaving.load(Ordering::SeqCst) == 0 {
                break work;
            }
            drop(work);
            std::thread::yield_now();
        };
        let state = self.slot(me.slot).state.read();
        let [alive, embryo] = [ALIVE, EMBRYO].map(|which| state_word(me.generation, which));
        match state == alive || state == embryo {
            true => Ok(work),
            false => Err(Error::Detached),
        }
    }

    /// Keeps other threads from beginning such work, until the result is dropped.
    pub(super) fn leaving(&self) -> Work<'_> {
        self.leaving.fetch_add(1, Ordering::SeqCst);
        Work(&self.leaving)
    }

    /// Whether a thread of this process is at work outside the lock.
    pub(super) fn is_at_work(&self) -> bool {
        self.work.load(Ordering::SeqCst) > 0
    }

    /// In a forked child: its parent's other threads are not here.
    pub fn forget_threads(&self) {
        self.work.store(0, Ordering::Relaxed);
        self.leaving.store(0, Ordering::Relaxed);
        self.unfinished.forget();
    }

    /// Whether a member is gone: its process is over, or has left.
    pub fn is_gone(&self, member: Member) -> bool {
        let Some(row) = self.find_slot(member.slot) else {
            return true;
        };
        let state = row.state.read();
        generation_of(state) != member.generation
            || state_of(state) == EMPTY
            || self.is_over(member.slot)
    }

    /// The lock that `me` holds already.
    #[inline(always)]
    pub(super) fn locked(&self, me: Member) -> Locked<'_> {
        Locked {
            core: self,
            header: self.header(),
            me,
            ends_orphans: Cell::new(false),
        }
    }

    #[cold]
    fn busy(&self, owner: Owner) -> Error {
        let row = self.find_slot(SlotId(owner.slot()));
        Error::Busy {
            pid: row.map_or(0, |row| row.pid.get()) as u32,
            seconds: (self.platform.patience() / 1000) as u32,
        }
    }
}

/// A waiter's surroundings: the platform's, with the arena's slots.
struct Waiting<'a> {
    core: &'a Core,
    me: Member,
    /// For whom it has waited, and since when.
    waited: Cell<Option<(Owner, u64)>>,
    /// Whether it was told to give up.
    interrupted: Cell<bool>,
}

impl<'a> Waiting<'a> {
    #[inline(always)]
    fn new(core: &'a Core, me: Member) -> Self {
        Waiting {
            core,
            me,
            waited: Cell::new(None),
            interrupted: Cell::new(false),
        }
    }
}

impl lock::Word for U32 {
    fn load(&self) -> u32 {
        self.read()
    }

    #[inline(always)]
    fn exchange(&self, old: u32, new: u32) -> bool {
        self.swap_if(old, new).is_ok()
    }
}

impl Surroundings<U32> for Waiting<'_> {
    fn spins(&self) -> u32 {
        100
    }

    fn pause(&self) {
        std::hint::spin_loop()
    }

    fn sleep(&self, word: &U32, expected: u32) {
        self.core.platform.sleep(word, expected)
    }

    fn wake(&self, word: &U32) {
        self.core.platform.wake(word)
    }

    fn is_dead(&self, owner: Owner) -> bool {
        let slot = SlotId(owner.slot());
        if owner == self.me.owner() {
            // Another thread of this process.
            return false;
        }
        let Some(row) = self.core.find_slot(slot) else {
            return true;
        };
        let state = row.state.read();
        if owner != Owner::new(slot.0, generation_of(state)) {
            // Another life of the slot has begun: the owner's is over.
            return true;
        }
        match state_of(state) {
            // It has emptied its slot, and leaves as soon as it has given the
            // lock back.
            EMPTY => self.core.platform.is_dead(slot, row),
            _ => self.core.is_over(slot),
        }
    }

    fn gives_up(&self, owner: Owner) -> bool {
        if self.core.platform.is_interrupted() {
            self.interrupted.set(true);
            return true;
        }
        let now = self.core.platform.now();
        match self.waited.get() {
            Some((same, since)) if same == owner => {
                now.saturating_sub(since) >= self.core.platform.patience()
            }
            _ => {
                self.waited.set(Some((owner, now)));
                false
            }
        }
    }
}

/// The arena while this process holds its lock.
pub(super) struct Locked<'a> {
    pub core: &'a Core,
    pub header: &'a Header,
    pub me: Member,
    /// Whether tickets that nobody answers for are being ended.
    pub ends_orphans: Cell<bool>,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            // An operation did not end: have its caches rebuilt.
            let condition = &self.header.condition;
            condition.commit(condition.get() | UNSETTLED);
        }
        let waiting = Waiting::new(self.core, self.me);
        lock::release(&self.header.owner, self.me.owner(), &waiting);
    }
}

impl<'a> Locked<'a> {
    /// Poisons the arena.
    #[cold]
    pub fn corrupted(&self, why: &'static str) -> Error {
        let condition = &self.header.condition;
        condition.commit(condition.get() | POISONED);
        Error::Corrupted { why }
    }

    /// Refuses a process that has left: a thread of it may have been waiting.
    /// An embryo whose byte lock is not its own yet is a member.
    #[cold]
    fn check_membership(&self, state: u64) -> Result<()> {
        match state == state_word(self.me.generation, EMBRYO) {
            true => Ok(()),
            false => Err(Error::Detached),
        }
    }

    #[cold]
    fn settle(&self) -> Result<()> {
        if self.header.condition.get() & POISONED != 0 {
            return Err(Error::Corrupted {
                why: "a contradiction was found before",
            });
        }
        self.meet_chunks()?;
        self.recover()?;
        self.header.condition.commit(0);
        Ok(())
    }

    #[inline(always)]
    fn knows_all_chunks(&self) -> bool {
        let [blocks, tickets] = &self.core.known;
        blocks.load(Ordering::Relaxed) == self.header.block_chunks.get()
            && tickets.load(Ordering::Relaxed) == self.header.ticket_chunks.get()
    }

    /// Finds the places of chunks that were added by others, so that no
    /// operation meets an unmapped row half-way.
    #[cold]
    pub fn meet_chunks(&self) -> Result<()> {
        let tables = [
            (
                &self.core.blocks,
                &self.header.block_directory,
                &self.header.block_chunks,
                self.core.geometry.block_chunk(),
            ),
            (
                &self.core.tickets,
                &self.header.ticket_directory,
                &self.header.ticket_chunks,
                self.core.geometry.ticket_chunk(),
            ),
        ];
        for ((places, directory, count, size), known) in tables.iter().zip(&self.core.known) {
            let count = count.get();
            let met = known.load(Ordering::Relaxed);
            if count < met || count as usize > CHUNKS {
                return Err(self.corrupted("the number of chunks of a table"));
            }
            for chunk in met..count {
                // A chunk lies in a block whose row is in an earlier chunk.
                let holder = directory[chunk as usize].get().wrapping_sub(1);
                let block = self.block(holder)?;
                if !matches!(block.state(), LIVE | TABLE) || block.size() < *size {
                    return Err(self.corrupted("a table's directory"));
                }
                let place = self.meet_extent(block)?;
                places.set(chunk as usize, self.core.bytes(place));
                known.store(chunk + 1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The row of block `id`, a number from the segments.
    #[inline(always)]
    pub fn block(&self, id: u32) -> Result<Block<'a>> {
        let shift = self.core.geometry.block_shift;
        let Some(chunk) = self.core.blocks.get((id >> shift) as usize) else {
            return Err(self.corrupted("the number of a block"));
        };
        let index = (id & ((1 << shift) - 1)) as u64;
        let rows = (std::mem::size_of::<BlockRow>() as u64) << shift;
        let row = Core::within(chunk, index * 64);
        let cache = Core::within(chunk, rows + index * 32);
        Ok(Block {
            id,
            // SAFETY: a chunk is `block_chunk()` bytes in a mapping (chunk 0 by
            // the geometry, others by `meet_chunks`) aligned to 64; rows are
            // atomics, for which all bytes are values, whoever writes them.
            row: unsafe { row.cast().as_ref() },
            // SAFETY: as above; the caches follow the rows.
            cache: unsafe { cache.cast().as_ref() },
        })
    }

    /// Of a block the words of the set of its holders that are not in its row.
    #[inline(always)]
    pub fn further_holders(&self, block: Block<'a>) -> &'a [U64] {
        match self.core.further_words {
            0 => &[],
            words => self.find_further_holders(block, words),
        }
    }

    #[cold]
    fn find_further_holders(&self, block: Block<'a>, words: usize) -> &'a [U64] {
        let geometry = &self.core.geometry;
        let shift = geometry.block_shift;
        // (The block was found in it.)
        let Some(chunk) = self.core.blocks.get((block.id >> shift) as usize) else {
            return &[];
        };
        let index = (block.id & ((1 << shift) - 1)) as u64;
        let size = (words * std::mem::size_of::<U64>()) as u64;
        let first = Core::within(chunk, geometry.further() + index * size).cast();
        // SAFETY: as in `block`; the further holders follow the caches.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), words) }
    }

    /// The words of the set of a block's holders, in two parts.
    #[inline(always)]
    pub fn holders(&self, block: Block<'a>) -> [&'a [U64]; 2] {
        [&block.row.holders, self.further_holders(block)]
    }

    /// One of these words: see [`SlotSet::place`].
    #[inline(always)]
    pub fn holders_at(&self, block: Block<'a>, word: usize) -> &'a U64 {
        match block.row.holders.get(word) {
            Some(holders) => holders,
            None => self.find_further_holders_at(block, word),
        }
    }

    #[cold]
    fn find_further_holders_at(&self, block: Block<'a>, word: usize) -> &'a U64 {
        // (The slots of members are among those that the arena has.)
        &self.further_holders(block)[word - block.row.holders.len()]
    }

    /// The set of a block's holders.
    pub fn holder_set(&self, block: Block<'a>) -> SlotSet {
        let mut set = SlotSet::default();
        let words = self.holders(block).into_iter().flatten();
        for (copy, word) in set.0.iter_mut().zip(words) {
            *copy = word.get();
        }
        set
    }

    /// Makes one process, or none, the only holder of a block.
    #[inline(always)]
    pub fn set_holder(&self, block: Block<'a>, slot: Option<SlotId>) {
        let (place, bit) = slot.map_or((usize::MAX, 0), SlotSet::place);
        let [in_row, further] = self.holders(block);
        for (i, word) in in_row.iter().enumerate() {
            word.set(if i == place { bit } else { 0 });
        }
        for (i, word) in further.iter().enumerate() {
            word.set(if in_row.len() + i == place { bit } else { 0 });
        }
    }

    /// Whether no process holds a block, children without a slot included.
    #[inline(always)]
    pub fn is_unheld(&self, block: Block<'a>) -> bool {
        let [a, b, c, d] = &block.row.holders;
        let first = a.get() | b.get() | c.get() | d.get() | block.row.marks.get() & PINNED;
        first == 0
            && self
                .further_holders(block)
                .iter()
                .all(|word| word.get() == 0)
    }

    /// The row of ticket `id`, a number from the segments.
    #[inline(always)]
    pub fn ticket(&self, id: u32) -> Result<&'a TicketRow> {
        let shift = self.core.geometry.ticket_shift;
        let Some(chunk) = self.core.tickets.get((id >> shift) as usize) else {
            return Err(self.corrupted("the number of a ticket"));
        };
        let index = (id & ((1 << shift) - 1)) as u64;
        let row = Core::within(chunk, index * 64);
        // SAFETY: as in `block`.
        Ok(unsafe { row.cast().as_ref() })
    }

    /// How many rows of blocks there are that have memory.
    #[inline(always)]
    pub fn block_room(&self) -> u32 {
        match self.header.block_chunks.get() {
            1 => self.header.block_room.get(),
            chunks => chunks << self.core.geometry.block_shift,
        }
    }

    /// How many tickets there are that have memory.
    #[inline(always)]
    pub fn ticket_room(&self) -> u32 {
        match self.header.ticket_chunks.get() {
            1 => self.header.ticket_room.get(),
            chunks => chunks << self.core.geometry.ticket_shift,
        }
    }

    /// The row of a slot.
    #[inline(always)]
    pub fn slot(&self, slot: SlotId) -> &'a SlotRow {
        self.core.slot(slot)
    }

    /// Where the data of segment `number` start.
    pub fn data_start(&self, number: usize) -> u64 {
        match number {
            0 => self.core.geometry.data(),
            _ => DATA_START,
        }
    }

    /// Where a block is, its segment mapped: the words of its row are read
    /// once, and what was checked is what is returned.
    ///
    /// # Errors
    /// That its segment cannot be mapped, or `Corrupted`.
    #[inline(always)]
    pub fn meet_extent(&self, block: Block<'_>) -> Result<Extent> {
        let place = self.check_extent(block)?;
        let (number, end) = (place.address.segment(), place.end());
        // (0 for a segment that this process has not met.)
        if end > self.core.lengths[number].load(Ordering::Relaxed) {
            self.core.meet(number)?;
            if end > self.core.lengths[number].load(Ordering::Relaxed) {
                return Err(self.corrupted("the size of a segment"));
            }
        }
        Ok(place)
    }

    /// Refuses a block whose place is not within the data of a segment.
    #[inline(always)]
    pub fn check_extent(&self, block: Block<'_>) -> Result<Extent> {
        let (address, size) = (block.address(), block.size());
        let fits = self
            .header
            .segments
            .get(address.segment())
            .is_some_and(|row| {
                let end = address.offset().checked_add(size);
                state_of(row.state.get()) == PRESENT
                    && end.is_some_and(|end| end <= self.segment_size(address.segment()))
                    && address.offset() >= self.data_start(address.segment())
                    && (address.0 | size) % ALIGN == 0
                    && size > 0
            });
        match fits {
            true => Ok(Extent { address, size }),
            false => Err(self.corrupted("a block's place")),
        }
    }

    /// The length of a segment that is there. (What this process has mapped of it may be
    /// shorter or longer: a number may stand for one segment after another.)
    #[inline(always)]
    pub fn segment_size(&self, number: usize) -> u64 {
        match number {
            0 => self.core.geometry.size,
            _ => self.header.segments[number].size.get().min(LONGEST),
        }
    }

    /// Begins work that goes on after the lock is given back.
    pub(super) fn begin_work(&self) -> Work<'a> {
        self.core.work.fetch_add(1, Ordering::Relaxed);
        Work(&self.core.work)
    }

    /// Adds `more` to one of the counters.
    #[inline(always)]
    pub fn count(&self, counter: impl FnOnce(&'a Counters) -> &'a U64, more: u64) {
        counter(&self.header.counters).add(more)
    }
}
