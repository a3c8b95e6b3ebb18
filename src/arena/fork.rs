//! Fork: how a child comes to hold what its parent holds.
//!
//! A forked child has its parent's memory, with every reference in it, and must hold the blocks
//! from its first instruction on. So before the fork its parent reserves a slot for it (state
//! RESERVED), makes that slot a holder of all its blocks, and keeps the arena's lock until after
//! the fork, so that no other thread takes or releases a block in between. The platform has given
//! the slot a sign of life that the child inherits: from then on neither process waits for the
//! other. In the child the slot becomes ALIVE. If there is no child, the sign vanishes when the
//! parent closes its end, and the slot is reaped like any other.
//!
//! If there is no free slot, the parent's blocks are marked PINNED: they stay until the parent and
//! all its descendants have exited. If the lock is not to be had, since its owner is stopped, no
//! block can be marked; then no block of the arena is freed while these processes live. Where they
//! cannot show that they live, this is for good.

use super::core::Core;
use super::format::*;
use super::locked::{Block, Locked};
use super::refs::Member;
use crate::error::Result;

/// What a forking process has prepared in an arena for its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkedChild {
    /// A slot of its own.
    Reserved(Member),
    /// The parent's blocks stay pinned.
    Pinned,
}

impl Locked<'_> {
    /// Takes an EMPTY slot for a child. `sign` gives it its sign of life and
    /// says whether it could.
    fn reserve_slot(&self, sign: &mut impl FnMut(SlotId) -> bool) -> Result<Option<Member>> {
        for slot in self.core.all_slots() {
            // (A short call under the lock, once in 64 slots.)
            if self.core.ensure_slot(slot).is_err() {
                break;
            }
            let row = self.slot(slot);
            let empty = row.state.read();
            if state_of(empty) != EMPTY {
                continue;
            }
            if !sign(slot) {
                continue;
            }
            self.header.know_slot(slot);
            let generation = generation_of(empty) + 1;
            let reserved = state_word(generation, RESERVED);
            if row.state.swap_if(empty, reserved).is_ok() {
                // No process's number yet: until the child writes its own, the sign of life alone
                // shows that it lives.
                row.pid.set(0);
                // It is of its parent's tree, whose tracker is not told yet that it need not
                // remove the names.
                let parent = self.slot(self.me.slot);
                row.tree.set(parent.tree.get());
                if parent.resident.get() == self.me.generation {
                    row.resident.set(generation);
                }
                self.core.begin_checks();
                return Ok(Some(Member { slot, generation }));
            }
        }
        Ok(None)
    }

    /// Makes the slot `child` a holder of every block that this process holds and that
    /// `survives_fork`.
    fn hand_over_to(&self, child: SlotId, survives_fork: &dyn Fn(BlockId) -> bool) -> Result<()> {
        let (word, bit) = SlotSet::place(child);
        self.hand_over(survives_fork, |block| {
            let holders = self.holders_at(block, word);
            holders.commit(holders.get() | bit);
        })
    }

    /// Marks every block that this process holds and that `survives_fork` as PINNED; for good unless a
    /// sign of life `shows` that the processes live.
    fn pin(&self, survives_fork: &dyn Fn(BlockId) -> bool, shows: bool) -> Result<()> {
        self.count(|c| &c.pins, 1);
        if !shows || self.header.pinned.get() == 0 {
            self.header.pinned.commit(if shows { 1 } else { FOR_GOOD });
        }
        self.core.begin_checks();
        self.hand_over(survives_fork, |block| {
            block.row.marks.commit(block.row.marks.get() | PINNED);
        })
    }

    /// Does something to every block that this process holds and `survives_fork`.
    fn hand_over(
        &self,
        survives_fork: &dyn Fn(BlockId) -> bool,
        give: impl Fn(Block<'_>),
    ) -> Result<()> {
        let (word, bit) = SlotSet::place(self.me.slot);
        self.each_live(|block| {
            let held = self.holders_at(block, word).get() & bit != 0;
            if held && survives_fork(BlockId(block.id)) {
                give(block);
            }
            Ok(())
        })
    }
}

impl Core {
    /// Prepares a fork of `me`, and keeps the arena's lock until
    /// [`finish_fork`](Core::finish_fork).
    ///
    /// `survives_fork` says of a block whether more than the work of some thread refers to it, since
    /// other threads are not in the child. `sign` gives the child of a slot its sign of life and
    /// returns whether it could; `pin` gives one to children without a slot.
    ///
    /// # Errors
    /// `Busy` or `Corrupted`: the lock is not held then, and a child has no
    /// part in the arena.
    pub fn prepare_fork(
        &self,
        me: Member,
        survives_fork: impl Fn(BlockId) -> bool,
        mut sign: impl FnMut(SlotId) -> bool,
        pin: impl FnOnce() -> bool,
    ) -> Result<ForkedChild> {
        let locked = self.lock(me)?;
        locked.count(|c| &c.forks, 1);
        let (child, locked) = match locked.reserve_slot(&mut sign)? {
            Some(member) => (Some(member), locked),
            None => {
                drop(locked);
                // (If that fails there is no more slot.)
                let _ = self.reap(me);
                let locked = self.lock(me)?;
                (locked.reserve_slot(&mut sign)?, locked)
            }
        };
        let child = match child {
            Some(member) => {
                locked.hand_over_to(member.slot, &survives_fork)?;
                ForkedChild::Reserved(member)
            }
            None => {
                locked.pin(&survives_fork, pin())?;
                ForkedChild::Pinned
            }
        };
        std::mem::forget(locked);
        Ok(child)
    }

    /// Stops the freeing of blocks while this process or one of its descendants lives; for good unless
    /// a sign of life `shows` that. Needs no lock.
    pub fn freeze(&self, shows: bool) {
        let frozen = &self.header().frozen;
        let mut seen = frozen.read();
        loop {
            let next = match (shows, seen) {
                (false, _) | (_, FOR_GOOD) => FOR_GOOD,
                (true, _) => (seen + 1) % FOR_GOOD,
            };
            match frozen.swap_if(seen, next.max(1)) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.begin_checks();
    }

    /// Whether children that got no slot may live, for which blocks are kept.
    pub(super) fn may_have_pins(&self) -> bool {
        let header = self.header();
        header.pinned.get() == FOR_GOOD
            || header.frozen.read() == FOR_GOOD
            || self.platform().is_pinned()
    }

    /// Gives back the lock that [`prepare_fork`](Core::prepare_fork) kept. For
    /// the parent only: in the child the lock is not the child's.
    pub fn finish_fork(&self, me: Member) {
        drop(self.locked(me));
    }

    /// Takes over, in the child, the slot that was reserved for it. `claimed` says whether its byte
    /// lock is this process's; if not, its sign of life must stay.
    pub fn take_over_fork(&self, reserved: Member, claimed: bool) {
        self.sign(reserved.slot);
        if claimed {
            let row = self.slot(reserved.slot);
            row.state.commit(state_word(reserved.generation, ALIVE));
        }
    }
}
