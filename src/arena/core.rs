//! A process's view of the segments: where it has mapped them, and the rows of its slots.
//!
//! A segment is mapped when this process first needs it. A number that comes from a segment may be
//! wrong, since another process can write anything there; so each lookup here compares it with the
//! length that this process has mapped, and a wrong number becomes an error and never a wild
//! pointer. The tables of blocks and tickets are looked up under the lock, in `locked`.

use super::format::*;
use super::half_done::Unfinished;
use super::platform::Platform;
use super::refs::{Extent, Member};
use crate::error::{Error, Result};
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

/// Where this process has mapped segments or chunks, filled as they are met. The words are
/// private to the process, and ordinary atomics.
pub(super) struct Mappings(Box<[AtomicPtr<u8>]>);

impl Mappings {
    fn new(count: usize) -> Self {
        Mappings((0..count).map(|_| AtomicPtr::new(null_mut())).collect())
    }

    /// The place of `index`; None if it is not known or out of range.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<NonNull<u8>> {
        // Acquire, pairs with the release in `set`: the mapping is there.
        NonNull::new(self.0.get(index)?.load(Ordering::Acquire))
    }

    pub fn set(&self, index: usize, place: NonNull<u8>) {
        // Release, pairs with the acquire in `get`: the memory is mapped, and its length noted.
        self.0[index].store(place.as_ptr(), Ordering::Release)
    }
}

/// An arena as one process sees it.
pub struct Core {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) geometry: Geometry,
    header: NonNull<Header>,
    slots: NonNull<[SlotRow]>,
    /// How many words of a block's holders are not in its row.
    pub(super) further_words: usize,
    segments: Mappings,
    /// The lengths of the segments that have a place here.
    pub(super) lengths: Box<[AtomicU64]>,
    pub(super) blocks: Mappings,
    pub(super) tickets: Mappings,
    /// How many chunks of each table have a place here.
    pub(super) known: [AtomicU32; 2],
    /// A holder that was found alive, and when: see `upkeep`.
    pub(super) found_alive: AtomicU64,
    /// How many threads of this process are at work outside the lock on what
    /// is the process's own, or under another lock: counted up under the lock, or
    /// while nobody is `leaving`.
    pub(super) work: AtomicU32,
    /// How many threads want the process to leave.
    leaving: AtomicU32,
    /// How often the threads were forgotten: see [`Core::forget_threads`].
    pub(super) forks: AtomicU32,
    pub(super) unfinished: Unfinished,
}

/// A thread's work outside the lock on a block or segment of its process's.
/// The process does not leave before its end.
pub struct Work<'a> {
    count: &'a AtomicU32,
    core: &'a Core,
    forks: u32,
}

impl<'a> Work<'a> {
    /// Work that was just counted.
    pub(super) fn counted(core: &'a Core, count: &'a AtomicU32) -> Self {
        // (Only a forked child changes it, and has one thread.)
        let forks = core.forks.load(Ordering::Relaxed);
        Work { count, core, forks }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if self.core.forks.load(Ordering::Relaxed) != self.forks {
            // A signal's handler has forked, and this is the child: it has counted nothing yet.
            return;
        }
        // Release, pairs with the loads in `is_at_work` and `work`, which acquire: what was done
        // comes before.
        self.count.fetch_sub(1, Ordering::Release);
    }
}

// SAFETY: the pointers are to memory that the platform keeps in place for as
// long as it lives, and all that lies there is atomic.
unsafe impl Send for Core {}
// SAFETY: all that is reached through a shared `Core` is atomic. The arena's lock orders changes of
// the tables.
unsafe impl Sync for Core {}

impl Core {
    pub(super) fn over(platform: Arc<dyn Platform>, geometry: Geometry) -> Result<Core> {
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
            segments: Mappings::new(SEGMENTS),
            lengths: (0..SEGMENTS).map(|_| AtomicU64::new(0)).collect(),
            blocks: Mappings::new(CHUNKS),
            tickets: Mappings::new(CHUNKS),
            known: [AtomicU32::new(1), AtomicU32::new(1)],
            found_alive: AtomicU64::new(0),
            work: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            forks: AtomicU32::new(0),
            unfinished: Unfinished::new(),
        };
        core.lengths[0].store(geometry.size, Ordering::Relaxed);
        core.segments.set(0, base);
        core.blocks.set(0, Self::within(base, geometry.blocks()));
        core.tickets.set(0, Self::within(base, geometry.tickets()));
        Ok(core)
    }

    /// `offset` bytes after the beginning of a mapping that is longer.
    pub(super) fn within(base: NonNull<u8>, offset: u64) -> NonNull<u8> {
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

    /// The slots that may have a process.
    pub fn known_slots(&self) -> impl Iterator<Item = (SlotId, &SlotRow)> {
        // Pairs with the exchange in `know_slot`: before a slot's life can be seen in its state, its
        // row is among these.
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
    pub(super) fn meet(&self, number: usize) -> Result<()> {
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
        // Relaxed, ordered by the release of the place that follows. A thread that finds the place
        // before and this length is on its way to a block which
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
        // The exchange pairs with the read in `has_pages`: the memory is there.
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

    /// Begins work of a member that is not under the arena's lock.
    ///
    /// # Errors
    /// `Detached` if it has left.
    #[inline(always)]
    pub fn work(&self, me: Member) -> Result<Work<'_>> {
        let work = loop {
            // SeqCst, pairs with that of `leaving` and `is_at_work`: both threads count up one
            // number and then look at the other one. Since all four accesses are in one order, one
            // of the threads sees the other.
            self.work.fetch_add(1, Ordering::SeqCst);
            let work = Work::counted(self, &self.work);
            if self.leaving.load(Ordering::SeqCst) == 0 {
                break work;
            }
            drop(work);
            std::thread::yield_now();
        };
        // (This process's own state, which it leaves under the lock and while nobody is at work.)
        let state = self.slot(me.slot).state.read();
        let [alive, reserved] = [ALIVE, RESERVED].map(|which| state_word(me.generation, which));
        match state == alive || state == reserved {
            true => Ok(work),
            false => Err(Error::Detached),
        }
    }

    /// Keeps other threads from beginning such work, until the result is dropped.
    pub(super) fn leaving(&self) -> Work<'_> {
        // SeqCst, pairs with that of `work`, as told there.
        self.leaving.fetch_add(1, Ordering::SeqCst);
        Work::counted(self, &self.leaving)
    }

    /// Whether a thread of this process is at work outside the lock.
    pub(super) fn is_at_work(&self) -> bool {
        // SeqCst, pairs with that of `work`, as told there; the callers have called `leaving`.
        self.work.load(Ordering::SeqCst) > 0
    }

    /// In a forked child: its parent's other threads are not here.
    pub fn forget_threads(&self) {
        self.forks.fetch_add(1, Ordering::Relaxed);
        self.work.store(0, Ordering::Relaxed);
        self.leaving.store(0, Ordering::Relaxed);
        self.unfinished.forget();
    }

    /// Whether a process may have blocks, or a slot: also one that has detached and lives on, and a
    /// child without a slot.
    pub fn may_be_in_use(&self) -> bool {
        let is_taken = |(slot, row): (SlotId, &SlotRow)| {
            state_of(row.state.read()) != EMPTY && !self.is_over(slot)
        };
        self.may_have_pins() || self.known_slots().any(is_taken)
    }

    /// Whether a member is gone: its process is dead, or has left.
    pub fn is_gone(&self, member: Member) -> bool {
        let Some(row) = self.find_slot(member.slot) else {
            return true;
        };
        let state = row.state.read();
        generation_of(state) != member.generation
            || state_of(state) == EMPTY
            || self.is_over(member.slot)
    }
}
