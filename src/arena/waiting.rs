//! Waiting for a lock in the arena's memory: the arena's own, and those of rings.
//!
//! The algorithm is in `lock`; here it gets the clock, the sleep and the liveness of the platform.

use super::core::Core;
use super::format::*;
use super::lock::{self, Owner, Surroundings, Taken};
use super::refs::Member;
use super::word::{Atomic, Word, U32};
use crate::activity::{Event, COUNTERS, EVENTS};
use crate::error::{Error, Result};
use std::cell::Cell;

/// What a waiter needs, from the platform and the arena's slots.
pub(super) struct Waiting<'a> {
    core: &'a Core,
    me: Member,
    /// The owner for which it has waited, and since when.
    waited: Cell<Option<(Owner, u64)>>,
    /// Whether it was told to give up.
    interrupted: Cell<bool>,
    /// When it slept for the first time, in µs; 0 if it has not.
    slept: Cell<u64>,
    /// The process of the last owner that it found dead, as it numbered itself.
    dead: Cell<u64>,
}

impl<'a> Waiting<'a> {
    #[inline(always)]
    pub fn new(core: &'a Core, me: Member) -> Self {
        Waiting {
            core,
            me,
            waited: Cell::new(None),
            interrupted: Cell::new(false),
            slept: Cell::new(0),
            dead: Cell::new(0),
        }
    }
}

impl<A: Atomic<Value = u32>> lock::Word for Word<A> {
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
        if self.slept.get() == 0 {
            self.slept.set(self.core.platform.micros().max(1));
        }
        self.core.platform.sleep(word, expected)
    }

    fn end_wait(&self) {
        COUNTERS.lock_waits.add(1);
        if self.slept.get() != 0 {
            let slept = self.core.platform.micros().saturating_sub(self.slept.get());
            COUNTERS.longest_lock_wait.raise(slept);
        }
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
        // Pairs with the exchange in `enter` and the commit in `detach`, by which a life of
        // the slot begins and ends.
        let state = row.state.read();
        // (Before the next life of the slot begins.)
        self.dead.set(row.pid.get());
        if owner != Owner::new(slot.0, generation_of(state)) {
            // Another life of the slot has begun: the owner's is over.
            self.dead.set(0);
            return true;
        }
        match state_of(state) {
            // It has emptied its slot, and leaves as soon as it has released the lock.
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

impl Core {
    /// Takes a lock like the arena's own for a member, by its word, which lies in the
    /// memory of the arena; not while the arena's is held.
    ///
    /// # Errors
    /// `Busy` and `Interrupted`, as for the arena's.
    #[inline(always)]
    pub fn lock_word(&self, me: Member, word: &U32) -> Result<Taken> {
        match lock::try_acquire(word, me.owner()) {
            true => Ok(Taken::Free),
            false => self.await_word(me, word),
        }
    }

    /// [`lock_word`](Self::lock_word), of a lock that was taken.
    #[cold]
    fn await_word(&self, me: Member, word: &U32) -> Result<Taken> {
        let waiting = Waiting::new(self, me);
        match lock::acquire(word, me.owner(), &waiting) {
            Ok(Taken::Free) => Ok(Taken::Free),
            Ok(Taken::FromDead) => {
                let event = Event::Recovered {
                    pid: waiting.dead.get(),
                    ring: !std::ptr::eq(word, &self.header().owner),
                };
                EVENTS.note(self.uuid(), event);
                Ok(Taken::FromDead)
            }
            Err(_) if waiting.interrupted.get() => Err(Error::Interrupted),
            Err(owner) => Err(self.busy(owner)),
        }
    }

    /// Gives a lock back that [`lock_word`](Self::lock_word) has taken.
    #[inline(always)]
    pub fn unlock_word(&self, me: Member, word: &U32) {
        lock::release(word, me.owner(), &Waiting::new(self, me));
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
