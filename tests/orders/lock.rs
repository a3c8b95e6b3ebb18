//! The lock: what its owner wrote is seen by the next one.
//!
//! Properties:
//!
//! * accesses to what the lock protects never overlap, and each sees all that came before;
//! * no wake-up is lost: no sleep needs to end by itself while nobody dies;
//! * a death with the lock is told once, to the next owner.

use crate::model::{check, preempted, Sleepers, Word, ALL};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use shared_numpy::arena::lock::{acquire, release, Owner, Surroundings, Taken};

struct Arena {
    word: Word,
    sleepers: Sleepers,
    spins: u32,
    /// Who is dead. (The kernel orders what it did before what those do that find it dead.)
    dead: Mutex<Vec<Owner>>,
    /// What the lock protects: how many have been there, and how many deaths were told.
    table: UnsafeCell<(u32, u32)>,
}

impl Arena {
    fn new(spins: u32) -> Arc<Self> {
        Arc::new(Arena {
            word: Word::new(0),
            sleepers: Sleepers::default(),
            spins,
            dead: Mutex::default(),
            table: UnsafeCell::new((0, 0)),
        })
    }

    fn enter(&self, me: Owner) {
        let taken = acquire(&self.word, me, self).unwrap();
        self.table.with_mut(|table| {
            // SAFETY: `loom` has just seen that nobody else accesses it.
            let (visits, told) = unsafe { &mut *table };
            *visits += 1;
            *told += (taken == Taken::FromDead) as u32;
        });
    }

    fn visit(&self, slot: u16) {
        let me = Owner::new(slot, 1);
        self.enter(me);
        release(&self.word, me, self);
    }

    fn die_inside(&self, slot: u16) {
        let me = Owner::new(slot, 1);
        self.enter(me);
        self.dead.lock().unwrap().push(me);
    }

    fn table(&self) -> (u32, u32) {
        // SAFETY: `loom` has just seen that nobody else accesses it.
        self.table.with(|table| unsafe { *table })
    }
}

impl Surroundings<Word> for Arena {
    fn spins(&self) -> u32 {
        self.spins
    }

    fn pause(&self) {
        thread::yield_now()
    }

    fn sleep(&self, word: &Word, expected: u32) {
        // One that sleeps on a dead owner's word is woken by the end of its short sleep.
        let owner = Owner::of(expected).unwrap();
        if !self.is_dead(owner) {
            self.sleepers.sleep(word, expected)
        }
    }

    fn wake(&self, _: &Word) {
        self.sleepers.wake()
    }

    fn is_dead(&self, owner: Owner) -> bool {
        self.dead.lock().unwrap().contains(&owner)
    }

    fn gives_up(&self, _: Owner) -> bool {
        false
    }
}

#[test]
fn what_an_owner_wrote_is_seen_by_the_next() {
    check(ALL, || {
        let arena = Arena::new(1);
        let other = arena.clone();
        let thread = thread::spawn(move || {
            other.visit(1);
            other.visit(1);
        });
        arena.visit(0);
        thread.join().unwrap();
        arena.visit(0);
        assert_eq!(arena.table(), (4, 0));
    });
}

#[test]
fn wake_ups_are_not_lost() {
    check(preempted(3), || {
        let arena = Arena::new(0);
        let threads: Vec<_> = (1..3)
            .map(|slot| {
                let arena = arena.clone();
                thread::spawn(move || arena.visit(slot))
            })
            .collect();
        arena.visit(0);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(arena.table(), (3, 0));
    });
}

#[test]
fn the_dead_are_taken_over_from() {
    check(preempted(4), || {
        let arena = Arena::new(0);
        arena.die_inside(0);
        let threads: Vec<_> = (1..3)
            .map(|slot| {
                let arena = arena.clone();
                thread::spawn(move || arena.visit(slot))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(arena.table(), (3, 1));
    });
}
