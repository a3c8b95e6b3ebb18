//! The lock under a model checker: many schedules of a few threads.
//!
//! Properties:
//!
//! * at no time do two living owners have the lock;
//! * every thread that wants it gets it, whoever dies with it and whoever's
//!   wake-up is lost, as long as sleeps end;
//! * whoever takes it from the dead is told so, exactly once for each death.

use crate::random::{few_switches, random, schedules};
use shared_numpy::arena::lock::{acquire, release, Owner, Surroundings, Taken, Word};
use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;

struct ModelWord(AtomicU32);

impl Word for ModelWord {
    fn load(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn exchange(&self, old: u32, new: u32) -> bool {
        let exchanged = self
            .0
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        exchanged.is_ok()
    }
}

/// A futex of shuttle's parts; sleeps end by themselves only if `sleeps_end`.
struct Model {
    word: ModelWord,
    sleepers: Mutex<usize>,
    wake: Condvar,
    sleeps_end: bool,
    dead: Mutex<Vec<Owner>>,
    inside: AtomicUsize,
    broken: AtomicBool,
    taken_over: AtomicUsize,
}

impl Model {
    fn new(sleeps_end: bool) -> Arc<Self> {
        Arc::new(Model {
            word: ModelWord(AtomicU32::new(0)),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            sleeps_end,
            dead: Mutex::new(Vec::new()),
            inside: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            taken_over: AtomicUsize::new(0),
        })
    }

    /// Takes the lock, looks around, and gives it back, or dies with it.
    fn visit(&self, slot: u16, dies: bool) {
        let me = Owner::new(slot, 1);
        let taken = acquire(&self.word, me, self).unwrap();
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two owners");
        if taken == Taken::FromDead {
            assert!(self.broken.swap(false, Ordering::SeqCst), "nobody had died");
            self.taken_over.fetch_add(1, Ordering::SeqCst);
        } else {
            assert!(!self.broken.load(Ordering::SeqCst), "a death was not told");
        }
        thread::yield_now();
        if dies {
            self.broken.store(true, Ordering::SeqCst);
            self.inside.fetch_sub(1, Ordering::SeqCst);
            self.dead.lock().unwrap().push(me);
            return;
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
        release(&self.word, me, self);
    }
}

impl Surroundings<ModelWord> for Model {
    fn spins(&self) -> u32 {
        1
    }

    fn pause(&self) {}

    fn sleep(&self, word: &ModelWord, expected: u32) {
        let mut sleepers = self.sleepers.lock().unwrap();
        if word.load() != expected {
            return;
        }
        if self.sleeps_end {
            drop(sleepers);
            thread::yield_now();
            return;
        }
        *sleepers += 1;
        drop(self.wake.wait(sleepers).unwrap());
    }

    fn wake(&self, _word: &ModelWord) {
        let mut sleepers = self.sleepers.lock().unwrap();
        if *sleepers > 0 {
            *sleepers -= 1;
            self.wake.notify_one();
        }
    }

    fn is_dead(&self, owner: Owner) -> bool {
        self.dead.lock().unwrap().contains(&owner)
    }

    fn gives_up(&self, _owner: Owner) -> bool {
        false
    }
}

fn run(model: &Arc<Model>, threads: u16, visits: usize, dying: u16) {
    let handles: Vec<_> = (0..threads)
        .map(|slot| {
            let model = model.clone();
            thread::spawn(move || {
                for visit in 0..visits {
                    let dies = slot < dying && visit + 1 == visits;
                    model.visit(slot, dies);
                }
            })
        })
        .collect();
    for handle in handles {
        handle.join().unwrap();
    }
}

/// Without deaths, sleepers are woken: no sleep needs to end by itself.
#[test]
fn wake_ups_are_not_lost() {
    random("lock::wake_ups_are_not_lost", |seed| {
        schedules(seed, 3000, || {
            let model = Model::new(false);
            run(&model, 3, 2, 0);
        });
    });
}

/// With deaths, each is told once, and nobody hangs.
#[test]
fn the_dead_are_taken_over_from() {
    random("lock::the_dead_are_taken_over_from", |seed| {
        schedules(seed, 3000, || {
            let model = Model::new(true);
            run(&model, 4, 2, 2);
            // The last death may not have been seen by anyone yet.
            model.visit(9, false);
            assert_eq!(model.taken_over.load(Ordering::SeqCst), 2);
            assert_eq!(model.word.load(), 0);
        });
    });
}

/// The same, with schedules that switch as rarely as possible.
#[test]
fn the_dead_are_taken_over_from_in_few_switches() {
    random(
        "lock::the_dead_are_taken_over_from_in_few_switches",
        |seed| {
            few_switches(seed, 2000, || {
                let model = Model::new(true);
                run(&model, 3, 2, 1);
                model.visit(9, false);
                assert_eq!(model.taken_over.load(Ordering::SeqCst), 1);
            });
        },
    );
}
