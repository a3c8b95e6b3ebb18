//! The lock: one word that names its owner.
//!
//! ```text
//! bit 31      a waiter may be asleep
//! bit 30      held
//! bits 10..30 the low bits of the owner's generation
//! bits 0..10  the owner's slot
//! ```
//!
//! 0 is a free lock. Without waiters, taking it and giving it back are one atomic instruction each.
//! A waiter spins for a moment, sets bit 31 and sleeps on the word, for a short time at most. Then
//! it asks whether the owner lives. A waiter that finds the owner dead exchanges the word for its
//! own, and must put right what the dead process left half done. So progress needs no wake-up: one
//! that got lost with a dead waiter costs a short sleep.
//!
//! The exchange cannot hit a living owner. The word names one life of one slot, that life is over,
//! and a life of a slot never comes back. (The word's part of the generation comes around after a
//! million lives, which do not pass within one short sleep.)
//!
//! The algorithm is written over traits, so that the same lines run on shared memory and under a
//! model checker.

use super::format::{SLOTS, SLOT_BITS};

/// A waiter may be asleep.
const WAITERS: u32 = 1 << 31;
/// The lock is held; keeps the word of slot 0 from being 0.
const HELD: u32 = 1 << 30;
const GENERATION: u32 = (1 << (30 - SLOT_BITS)) - 1;

/// The owner of the lock: a slot in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// The process in `slot` in its life `generation`.
    pub const fn new(slot: u16, generation: u64) -> Self {
        Owner(HELD | (generation as u32 & GENERATION) << SLOT_BITS | slot as u32)
    }

    /// The slot.
    pub const fn slot(self) -> u16 {
        self.0 as u16 % SLOTS as u16
    }

    /// The owner of a lock whose word is `word`.
    pub const fn of(word: u32) -> Option<Self> {
        match word & !WAITERS {
            0 => None,
            owner => Some(Owner(owner)),
        }
    }
}

/// The lock's word.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u32;
    /// Writes `new` if it holds `old`, and says whether it did; acquire and
    /// release.
    fn exchange(&self, old: u32, new: u32) -> bool;
}

/// What a waiter needs of its surroundings.
pub trait Surroundings<W> {
    /// How often a waiter looks again before it sleeps.
    fn spins(&self) -> u32;
    /// A short pause between two looks.
    fn pause(&self);
    /// Sleeps while the word holds `expected`, until it is woken or a short
    /// time is over.
    fn sleep(&self, word: &W, expected: u32);
    /// Wakes one sleeper.
    fn wake(&self, word: &W);
    /// Whether the life `owner` is over.
    fn is_dead(&self, owner: Owner) -> bool;
    /// Called when a wait is over, that began since the lock was taken.
    fn end_wait(&self) {}
    /// Whether the waiter, which has just slept and found `owner` alive, has waited long enough
    /// for it.
    fn gives_up(&self, owner: Owner) -> bool;
}

/// How the lock was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was free.
    Free,
    /// Its owner was dead, and what it did may be half done.
    FromDead,
}

/// Takes the lock for `me` if it is free; whether it was.
#[inline(always)]
pub fn try_acquire<W: Word>(word: &W, me: Owner) -> bool {
    word.exchange(0, me.0)
}

/// Takes the lock for `me`.
///
/// # Errors
/// The living owner for which the caller's surroundings would wait no longer.
#[inline]
pub fn acquire<W: Word>(
    word: &W,
    me: Owner,
    surroundings: &impl Surroundings<W>,
) -> Result<Taken, Owner> {
    if try_acquire(word, me) {
        return Ok(Taken::Free);
    }
    let taken = wait(word, me, surroundings);
    surroundings.end_wait();
    taken
}

#[cold]
fn wait<W: Word>(word: &W, me: Owner, surroundings: &impl Surroundings<W>) -> Result<Taken, Owner> {
    let mut spins = 0;
    // A waiter that has slept takes the lock with the mark on: others may be asleep too, and
    // this one cannot know.
    let mut mine = me.0;
    loop {
        let seen = word.load();
        let Some(owner) = Owner::of(seen) else {
            if word.exchange(seen, mine) {
                return Ok(Taken::Free);
            }
            continue;
        };
        if spins < surroundings.spins() {
            spins += 1;
            surroundings.pause();
            continue;
        }
        mine = me.0 | WAITERS;
        let marked = seen | WAITERS;
        if seen != marked && !word.exchange(seen, marked) {
            continue;
        }
        surroundings.sleep(word, marked);
        if word.load() != marked {
            continue;
        }
        if surroundings.is_dead(owner) {
            if word.exchange(marked, mine) {
                return Ok(Taken::FromDead);
            }
        } else if surroundings.gives_up(owner) {
            return Err(owner);
        }
    }
}

/// Gives the lock back, if `me` has it: the word of a process that has left the
/// arena meanwhile may have been exchanged for another's.
#[inline]
pub fn release<W: Word>(word: &W, me: Owner, surroundings: &impl Surroundings<W>) {
    if !word.exchange(me.0, 0) && word.exchange(me.0 | WAITERS, 0) {
        surroundings.wake(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_from_the_word() {
        for (slot, generation) in [(0, 0), (1023, 1), (7, u64::MAX)] {
            let owner = Owner::new(slot, generation);
            assert_eq!(owner.slot(), slot);
            assert_eq!(Owner::of(owner.0), Some(owner));
            assert_eq!(Owner::of(owner.0 | WAITERS), Some(owner));
        }
        assert_ne!(Owner::new(1, 1), Owner::new(1, 2));
        assert_eq!(Owner::of(0), None);
        assert_eq!(Owner::of(WAITERS), None);
    }
}
