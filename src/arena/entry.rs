//! Entry: making an arena, opening one, and taking its lock.
//!
//! Taking the lock is above the operations, since it recovers what a dead owner left half done.

use super::core::Core;
use super::format::*;
use super::lock::Taken;
use super::locked::Locked;
use super::platform::Platform;
use super::refs::Member;
use crate::error::{Error, Result};
use std::sync::Arc;

impl Core {
    /// Makes an arena in the control segment that `platform` maps, which must
    /// be all zero, and returns it.
    ///
    /// `constants` sets the fields that stay as they are: number, user, grace,
    /// budget, least, longest, lock file, boot and identifier. This process is a resident before the
    /// magic number, last of all, lets others in.
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
        // No other process can be here before the magic number is written; only the type asks for
        // the lock.
        core.locked(Member {
            slot: SlotId(0),
            generation: 0,
        })
        .first_extent()?;
        let me = core.register()?;
        core.slot(me.slot).resident.set(me.generation);
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

    /// Takes the arena's lock, recovering what a dead owner left.
    ///
    /// # Errors
    /// `Busy` if a living owner keeps it, `Interrupted` if the waiter was told to give up,
    /// `Corrupted` if the arena is poisoned, and what mapping a chunk of its tables reports. Nothing
    /// has been changed then.
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
}

impl Locked<'_> {
    /// Refuses a process that has left: one of its threads may have been waiting.
    /// A child in a RESERVED slot, whose byte lock is not its own yet, is a member.
    #[cold]
    fn check_membership(&self, state: u64) -> Result<()> {
        match state == state_word(self.me.generation, RESERVED) {
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
}
