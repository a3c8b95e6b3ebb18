//! Events: what waiters wait for, and their wake-ups.
//!
//! An event is a count that changes whenever it happens, and a mark that a waiter is asleep. Both
//! are written under the lock of the ring. The count is also read without it, by waiters that spin,
//! and slept on.
//!
//! * A waiter sets the mark under the lock, if its condition does not hold, and sleeps while the
//!   count is what it was then. So no wake-up is lost, and none is made for nobody.
//! * The thread that makes the event happen clears the mark and wakes one waiter.
//! * The waiter that was woken does not know whether others sleep. It wakes the next one, if there
//!   is something left for that, or else sets the mark again.
//!
//! If it is killed instead, others sleep although there is something for them: a sleep is never
//! long. The algorithm is written over a trait, so that it also runs under a model checker.

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

impl<W> Event<W> {
    /// Where the mark is in an event, in bytes.
    pub const MARKED: usize = std::mem::offset_of!(Event<W>, marked);
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

    /// Marks, under the lock, that a waiter is about to sleep.
    pub fn mark(&self) {
        self.marked.store(1);
    }

    /// Hands on the wake-up of a waiter that has slept and got what it slept for, under the lock;
    /// `again`: there is something for another waiter. Whether one is to be woken.
    pub fn hand_on(&self, again: bool) -> bool {
        if again {
            self.happen();
        } else {
            self.mark();
        }
        again
    }
}
