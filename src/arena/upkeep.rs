//! Upkeep: when members look for dead members and for idle memory.
//!
//! No thread does it, so that a program may fork: members do it on the way to their operations.
//!
//! **At the last reference.** A process that drops its last reference to a block that others hold
//! asks whether they live, and reaps them if none does: so the memory is free when the drop
//! returns. It asks until it has found one that lives, since then the block stays. For small
//! blocks, of which there may be very many, a holder that was found alive within the same
//! millisecond is taken to be alive.
//!
//! **Once a second** one member checks on all the others, ends tickets whose grace is over, and
//! gives back what was idle. An exchange of the time of the last check decides which member. The
//! others pay one load for it, and no member reads the clock where there is nothing to check: in an
//! arena of one process with little free memory.
//!
//! **A large block**'s pages are given back as it is freed: they are missed most and reused least.
//! If another large block is made within [`IDLE`], such blocks come and go, and keep their pages
//! like all others.
//!
//! **Idle** is the free memory with pages that was never used within [`IDLE`]: the least number of
//! such bytes in that time. The minimum is kept for [`SPANS`] spans of time. A span ends, as far as
//! is known, when memory became free for the last time: since then nothing was in use that is free
//! now.

use super::core::Core;
use super::format::*;
use super::locked::Locked;
use super::page_state::LEAST_RETURN;
use super::platform::Room;
use super::refs::{BlockRef, Member};
use crate::error::Result;
use std::sync::atomic::Ordering;

/// The budget where shared memory has no limit.
const UNLIMITED: u64 = 256 << 20;
/// The time between two checks on the other members, in ms.
const INTERVAL: u64 = 1000;
/// The time after which memory that was not used goes back, in ms.
const IDLE: u64 = 10_000;
/// Blocks from this size on go back as they are freed, unless such blocks come and go.
pub(super) const LARGE: u64 = 128 << 20;
/// How long a span of time is, in ms: all of them are longer than [`IDLE`].
const SPAN: u64 = IDLE / (SPANS as u64 - 1);

/// Whether less than `age` ms are between a time and now. (The clocks of two
/// containers may differ: what seems to lie in the future is long ago.)
fn is_within(age: u64, time: u64, now: u64) -> bool {
    now.wrapping_sub(time) < age
}

impl Locked<'_> {
    /// Notes that memory was taken.
    #[inline(always)]
    pub fn note_use(&self) {
        let index = &self.header.index;
        let warm = index.warm.get();
        if warm < index.least_warm.get() {
            index.least_warm.set(warm);
        }
    }

    /// Notes that `size` bytes became free.
    #[inline(always)]
    pub fn note_freed(&self, size: u64) {
        if self.header.index.warm.get() > self.core.least_warm() {
            self.note_idle(size)
        }
    }

    fn note_idle(&self, size: u64) {
        let idle = &self.header.idle;
        let small = idle.small.get().wrapping_add(size);
        if small < LEAST_RETURN {
            idle.small.set(small);
            return;
        }
        idle.small.set(0);
        idle.freed.set(self.core.platform().now());
        if self.header.checked.get() == NO_CHECK {
            self.header.checked.commit(0);
        }
    }

    /// Notes that `warm` bytes are about to be given back, and were not used;
    /// `least` is what the index had as the least before.
    pub fn note_return(&self, least: u64, warm: u64) {
        let less = |word: &super::word::U64, bytes: u64| word.set(bytes.saturating_sub(warm));
        less(&self.header.index.least_warm, least);
        for [least, _] in &self.header.idle.before {
            less(least, least.get());
        }
    }

    /// How many bytes of free memory have pages and were not used for the time
    /// of [`IDLE`]. Begins another span if that is due.
    fn idle_bytes(&self, now: u64) -> u64 {
        let (index, idle) = (&self.header.index, &self.header.idle);
        let recent = |[least, freed]: &[u64; 2]| is_within(IDLE, *freed, now).then_some(*least);
        let this = [index.least_warm.get(), idle.freed.get()];
        let before = idle.before.iter();
        let before = before.map(|[least, freed]| [least.get(), freed.get()]);
        let all = before.chain([this]);
        let least = all.filter_map(|span| recent(&span)).min();
        let warm = index.warm.get();
        let span = now / SPAN;
        if idle.span.get() != span {
            let place = &idle.before[span as usize % SPANS];
            place
                .iter()
                .zip(this)
                .for_each(|(word, value)| word.set(value));
            idle.span.set(span);
            index.least_warm.set(warm);
        }
        least.unwrap_or(warm).min(warm)
    }

    /// The processes that keep a block alive which this process has released; None if a ticket or
    /// the arena itself keeps it.
    #[inline]
    pub fn remaining(&self, which: BlockRef) -> Result<Option<Remaining>> {
        let block = self.live(which)?;
        let pinned = block.row.marks.get() & PINNED != 0 || self.header.frozen.get() != 0;
        let remaining = || Remaining {
            holders: self.holder_set(block),
            pinned,
            size: block.size(),
        };
        let is_kept = block.cache.tickets.get() != 0 || self.is_root(block);
        Ok((!is_kept).then(remaining))
    }
}

/// The processes that keep a block alive.
pub(super) struct Remaining {
    holders: SlotSet,
    /// Children without a slot may have it.
    pinned: bool,
    size: u64,
}

impl Core {
    /// So many bytes of free memory keep their pages for good.
    #[inline(always)]
    fn least_warm(&self) -> u64 {
        let header = self.header();
        header.least.get().min(header.budget.get() / 8)
    }

    /// Has the budget be a share of what the system has and of what is free there now,
    /// this arena's free memory included, unless it was set.
    pub(super) fn renew_budget(&self) {
        let header = self.header();
        if header.warm.get() != SHARE {
            return;
        }
        let Room { all, free } = self.platform().room();
        let free = free.saturating_add(header.index.warm.get());
        let most = if all == u64::MAX { UNLIMITED } else { all / 16 };
        header.budget.set(most.min(free / 16));
    }

    /// Whether the processes that keep a block alive are dead, as far as is known without the lock.
    pub(super) fn are_gone(&self, block: &Remaining) -> bool {
        let now = self.platform().now();
        let seen = self.found_alive.load(Ordering::Relaxed);
        let known = block.holders.contains(SlotId(seen as u16));
        if block.size < LEAST_RETURN && known && seen >> 16 == now {
            return false;
        }
        if let Some(slot) = block.holders.iter().find(|slot| !self.is_over(*slot)) {
            // Of several threads any may be right.
            let seen = now << 16 | slot.0 as u64;
            self.found_alive.store(seen, Ordering::Relaxed);
            return false;
        }
        !(block.pinned && self.may_have_pins())
    }

    /// Reaps, and gives back as much as became free by that; whether the block
    /// did.
    #[cold]
    pub(super) fn free_after_deaths(&self, me: Member, which: BlockRef) -> Result<bool> {
        let before = self.header().index.warm.get();
        self.reap(me)?;
        let freed = self.lock(me)?.live(which).is_err();
        self.trim(me, before.max(self.least_warm()))?;
        Ok(freed)
    }

    /// Notes that a large block is made.
    #[cold]
    pub(super) fn note_large(&self) {
        let idle = &self.header().idle;
        let now = self.platform().now();
        let recent = |time: &super::word::U64| is_within(IDLE, time.get(), now);
        if recent(&idle.large_returned) || recent(&idle.large_wanted) {
            idle.large_wanted.set(now);
        }
    }

    /// Gives back as many bytes as a large block had that was freed, unless another
    /// will soon be made: `warm` have pages now.
    #[cold]
    pub(super) fn return_large(&self, me: Member, size: u64, warm: u64) -> Result<()> {
        let idle = &self.header().idle;
        let now = self.platform().now();
        if is_within(IDLE, idle.large_wanted.get(), now) {
            return Ok(());
        }
        idle.large_returned.set(now);
        let stay = warm.saturating_sub(size).max(self.least_warm());
        self.trim(me, stay).map(|_| ())
    }

    /// Whether it is time for the upkeep.
    #[inline(always)]
    pub fn is_upkeep_due(&self) -> bool {
        let checked = self.header().checked.get();
        (checked != NO_CHECK && self.is_old(checked)) || !self.unfinished.is_empty()
    }

    fn is_old(&self, checked: u64) -> bool {
        checked == 0 || !is_within(INTERVAL, checked, self.platform().now())
    }

    /// Does what is due: drops what dead processes held, and gives back memory that was idle. Not
    /// while a process has the lock.
    ///
    /// # Errors
    /// As for any operation. Another member does it later.
    #[cold]
    pub fn do_upkeep(&self, me: Member) -> Result<()> {
        let header = self.header();
        if header.owner.read() != 0 {
            // What this process is about to do may need no lock, and should not wait.
            return Ok(());
        }
        self.finish(me)?;
        let now = self.platform().now().max(1);
        let checked = header.checked.read();
        if checked == NO_CHECK || header.checked.swap_if(checked, now).is_err() {
            // Another member does it.
            return Ok(());
        }
        let mut others = self
            .known_slots()
            .filter(|(slot, row)| *slot != me.slot && state_of(row.state.read()) != EMPTY);
        let alone = others.next().is_none();
        self.renew_budget();
        if self.is_reaping_due(me, now) {
            let before = header.index.warm.get();
            self.reap(me)?;
            self.trim(me, before.max(self.least_warm()))?;
        }
        let stay = {
            let locked = self.lock(me)?;
            let warm = header.index.warm.get();
            let nothing = alone && warm <= self.least_warm() && header.orphans.get() == 0;
            if nothing && header.pinned.get() == 0 && header.frozen.read() == 0 {
                // A process that joins, or memory that becomes free, begins the checks again.
                let _ = header.checked.swap_if(now, NO_CHECK);
            }
            warm - locked.idle_bytes(now)
        };
        let returned = self.trim(me, stay.max(self.least_warm()))?;
        if returned > 0 {
            // With the little that each of them still has.
            self.remove_empty_segments(me, LEAST_RETURN)?;
        }
        Ok(())
    }

    /// Gives back, at the end of a process, what is free; some of it stays if there
    /// are others.
    ///
    /// # Errors
    /// As for any operation.
    pub fn trim_at_exit(&self, me: Member) -> Result<()> {
        let alone = self.lock(me)?.is_alone();
        let stay = if alone { 0 } else { self.least_warm() };
        self.trim(me, stay)?;
        self.remove_empty_segments(me, LEAST_RETURN).map(|_| ())
    }

    /// Whether a reap would find something.
    fn is_reaping_due(&self, me: Member, now: u64) -> bool {
        let header = self.header();
        let orphans = header.orphans.get();
        let pins = header.pinned.get() != 0 || header.frozen.read() != 0;
        let mut others = self.known_slots().filter(|(slot, _)| *slot != me.slot);
        (orphans != 0 && orphans <= now)
            || (pins && !self.may_have_pins())
            || others.any(|(slot, _)| self.is_over(slot))
    }

    /// Says that there is a new member, on which the others check.
    pub(super) fn begin_checks(&self) {
        self.header().checked.commit(0);
    }
}
