//! Events: a waiter is woken, and sees what it was woken for.
//!
//! The steps are those of `ring::base` and `ring::messages`, over a ring that holds a number.
//!
//! Properties:
//!
//! * what was put before an event is seen by the waiter that takes it under the lock;
//! * no wake-up is lost, neither of one waiter nor of two;
//! * a waiter that sees the count change when its process closes the ring sees that it is closed.

use crate::model::{check, preempted, Sleepers, Word, ALL};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::Arc;
use loom::thread;
use shared_numpy::arena::lock::{acquire, release, Owner, Surroundings};
use shared_numpy::ring::event::{Event, Word as _};

struct Ring {
    word: Word,
    /// Those that sleep for the lock.
    lock_sleepers: Sleepers,
    ready: Event<Word>,
    sleepers: Sleepers,
    /// How many numbers are in the ring, under its lock.
    holds: UnsafeCell<u32>,
    closed: AtomicBool,
}

impl Ring {
    fn new() -> Arc<Self> {
        Arc::new(Ring {
            word: Word::new(0),
            lock_sleepers: Sleepers::default(),
            ready: Event::new(Word::new(0), Word::new(0)),
            sleepers: Sleepers::default(),
            holds: UnsafeCell::new(0),
            closed: AtomicBool::new(false),
        })
    }

    fn locked<T>(&self, slot: u16, work: impl FnOnce(&mut u32) -> T) -> T {
        let me = Owner::new(slot, 1);
        acquire(&self.word, me, self).unwrap();
        // SAFETY: `loom` has just seen that nobody else accesses it.
        let result = self.holds.with_mut(|holds| work(unsafe { &mut *holds }));
        release(&self.word, me, self);
        result
    }

    fn put(&self, slot: u16) {
        let marked = self.locked(slot, |holds| {
            *holds += 1;
            self.ready.happen()
        });
        if marked {
            self.sleepers.wake();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.ready.count.step();
        self.sleepers.wake();
    }

    /// Takes a number; false if the ring was closed.
    fn take(&self, slot: u16) -> bool {
        let mut slept = false;
        loop {
            let (taken, wakes, seen) = self.locked(slot, |holds| {
                let taken = *holds > 0;
                *holds -= taken as u32;
                let wakes = taken && slept && self.ready.hand_on(*holds > 0);
                (taken, wakes, self.ready.count.load())
            });
            if wakes {
                self.sleepers.wake();
            }
            if taken {
                return true;
            }
            while self.ready.count.load() == seen && !self.is_closed() {
                let changed = self.locked(slot, |_| {
                    let changed = self.ready.count.load() != seen;
                    if !changed {
                        self.ready.mark();
                    }
                    changed
                });
                if changed {
                    break;
                }
                slept = true;
                self.sleepers.sleep(&self.ready.count, seen);
            }
            if self.is_closed() {
                return false;
            }
        }
    }
}

impl Surroundings<Word> for Ring {
    fn spins(&self) -> u32 {
        0
    }

    fn pause(&self) {}

    fn sleep(&self, word: &Word, expected: u32) {
        self.lock_sleepers.sleep(word, expected)
    }

    fn wake(&self, _: &Word) {
        self.lock_sleepers.wake()
    }

    fn is_dead(&self, _: Owner) -> bool {
        false
    }

    fn gives_up(&self, _: Owner) -> bool {
        false
    }
}

#[test]
fn a_waiter_is_woken_and_sees_what_was_put() {
    check(preempted(5), || {
        let ring = Ring::new();
        let other = ring.clone();
        let thread = thread::spawn(move || other.put(1));
        assert!(ring.take(0));
        thread.join().unwrap();
    });
}

#[test]
fn two_waiters_are_woken() {
    check(preempted(2), || {
        let ring = Ring::new();
        let threads: Vec<_> = (1..3)
            .map(|slot| {
                let ring = ring.clone();
                thread::spawn(move || assert!(ring.take(slot)))
            })
            .collect();
        ring.put(0);
        ring.put(0);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_waiter_sees_that_its_ring_is_closed() {
    check(ALL, || {
        let ring = Ring::new();
        let other = ring.clone();
        let thread = thread::spawn(move || other.close());
        assert!(!ring.take(0));
        thread.join().unwrap();
    });
}
