//! Events: what somebody waits for, and the wake-ups for it.
//!
//! A count that changes whenever the event happens, and a mark that somebody sleeps
//! for it. Both are written under the lock of whatever the event is of; the count is
//! also read without it, by who spins, and slept on.
//!
//! * Who waits sets the mark under the lock, if what he waits for is not the case, and
//!   sleeps while the count is what it was then. So no wake-up is lost, and none is
//!   made for nobody.
//! * Who makes the event happen takes the mark away and wakes one.
//! * The one that was woken does not know whether others sleep. He wakes the next, if
//!   there is something left for that, or else puts the mark back.
//!
//! Should he be killed instead, others sleep while there is something for them: a sleep
//! is never long. The algorithm is written over a trait, for a model checker.

/// A word of memory that several processes have.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u32;
    /// Writes it.
    fn store(&self, value: u32);
}

/// Something that happens, and may be waited for.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Event<W> {
    /// How often it has happened, more or less: what waiters look at and sleep on.
    pub count: W,
    marked: W,
}

impl<W: Word> Event<W> {
    /// An event that nobody waits for, of two words that are 0.
    pub fn new(count: W, marked: W) -> Self {
        Event { count, marked }
    }

    /// Lets it happen, under the lock; whether one is to be woken when that is given
    /// back.
    #[inline(always)]
    pub fn happen(&self) -> bool {
        self.count.store(self.count.load().wrapping_add(1));
        let marked = self.marked.load() != 0;
        if marked {
            self.marked.store(0);
        }
        marked
    }

    /// Marks, under the lock, that somebody is about to sleep.
    pub fn mark(&self) {
        self.marked.store(1);
    }

    /// Hands on the wake-up of one who has slept and got what he slept for, under the
    /// lock; `again`: there is something for another one. Whether one is to be woken.
    pub fn hand_on(&self, again: bool) -> bool {
        if again {
            self.happen();
        } else {
            self.mark();
        }
        again
    }
}
