//! Waiting for a ring under a model checker: its events with its lock, over a bounded buffer of
//! numbers. What is done here is what `ring::base` and `ring::messages` do, line by line.
//!
//! Properties:
//!
//! * without deaths no sleep needs to end by itself: whoever sleeps for something that is
//!   there is woken, also if others give up;
//! * what was put is taken once, and in order for each producer, whoever dies;
//! * with deaths, of one that was woken or of the lock's owner, all others go on as long as
//!   sleeps end.

use crate::random::{few_switches, random, schedules};
use shared_numpy::arena::lock::{self, acquire, release, Owner, Surroundings, Taken};
use shared_numpy::ring::event::{self, Event};
use shuttle::rand::{thread_rng, Rng};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;
use std::cell::Cell;
use std::collections::VecDeque;

const READY: usize = 0;
const ROOM: usize = 1;

/// A word with a queue of those who sleep on it.
struct Word {
    value: AtomicU32,
    queue: Mutex<VecDeque<u8>>,
    woken: Condvar,
}

impl Word {
    fn new() -> Self {
        Word {
            value: AtomicU32::new(0),
            queue: Mutex::new(VecDeque::new()),
            woken: Condvar::new(),
        }
    }

    /// Sleeps while it holds `expected`; `ends`: until it is woken, or for a short time.
    fn sleep(&self, me: u8, expected: u32, ends: bool) {
        let mut queue = self.queue.lock().unwrap();
        if self.value.load(Ordering::SeqCst) != expected {
            return;
        }
        queue.push_back(me);
        if ends {
            drop(queue);
            for _ in 0..thread_rng().gen_range(1..30) {
                thread::yield_now();
            }
            self.queue.lock().unwrap().retain(|sleeper| *sleeper != me);
            return;
        }
        while queue.contains(&me) {
            queue = self.woken.wait(queue).unwrap();
        }
    }

    /// Wakes so many, those that have slept for longest.
    fn wake(&self, count: usize) {
        let mut queue = self.queue.lock().unwrap();
        let count = count.min(queue.len());
        queue.drain(..count);
        self.woken.notify_all();
    }
}

impl lock::Word for Word {
    fn load(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }

    fn exchange(&self, old: u32, new: u32) -> bool {
        let value = &self.value;
        let exchanged = value.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        exchanged.is_ok()
    }
}

impl event::Word for Word {
    fn load(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }

    fn store(&self, value: u32) {
        self.value.store(value, Ordering::SeqCst)
    }
}

/// Where a process dies.
#[derive(Clone, Copy, PartialEq)]
enum Death {
    /// Under the lock, before the event happens.
    Untold,
    /// Under the lock, before it is given back.
    Owner,
    /// After it was given back, before anybody is woken.
    Silent,
    /// When it has slept and was woken.
    Woken,
}

/// A number that was put: by whom, and which.
type Number = (u8, u32);

#[derive(Default)]
struct Buffer {
    holds: VecDeque<Number>,
    taken: Vec<Number>,
}

struct Ring {
    lock: Word,
    events: [Event<Word>; 2],
    /// Locked for the type's sake: never by two, which is looked at.
    buffer: Mutex<Buffer>,
    limit: usize,
    sleeps_end: bool,
    dead: Mutex<Vec<Owner>>,
}

/// One process, or thread, at the ring.
struct User {
    ring: Arc<Ring>,
    me: u8,
    dies: Option<Death>,
}

struct Patience {
    /// Whether a sleep of its own ends by itself, and is its last.
    short: bool,
    late: bool,
    slept: bool,
}

impl Patience {
    fn new(short: bool) -> Self {
        Patience {
            short,
            late: false,
            slept: false,
        }
    }
}

struct Held<'a> {
    user: &'a User,
    wakes: Cell<[usize; 2]>,
}

struct Waiting<'a>(&'a User);

impl Surroundings<Word> for Waiting<'_> {
    fn spins(&self) -> u32 {
        1
    }

    fn pause(&self) {}

    fn sleep(&self, word: &Word, expected: u32) {
        word.sleep(self.0.me, expected, self.0.ring.sleeps_end);
    }

    fn wake(&self, word: &Word) {
        word.wake(1);
    }

    fn is_dead(&self, owner: Owner) -> bool {
        self.0.ring.dead.lock().unwrap().contains(&owner)
    }

    fn gives_up(&self, _owner: Owner) -> bool {
        false
    }
}

impl Held<'_> {
    fn happen(&self, which: usize, count: usize) {
        if count > 0 && self.user.ring.events[which].happen() {
            self.wake(which, count);
        }
    }

    fn hand_on(&self, which: usize, patience: &mut Patience, again: bool) {
        let slept = std::mem::take(&mut patience.slept);
        if slept && self.user.ring.events[which].hand_on(again) {
            self.wake(which, 1);
        }
    }

    fn wake(&self, which: usize, count: usize) {
        let mut wakes = self.wakes.get();
        wakes[which] += count;
        self.wakes.set(wakes);
    }

    fn buffer(&self) -> shuttle::sync::MutexGuard<'_, Buffer> {
        self.user.ring.buffer.try_lock().expect("two owners")
    }

    /// Dies with the lock.
    fn die(self) {
        let dead = &self.user.ring.dead;
        dead.lock().unwrap().push(self.user.owner());
        std::mem::forget(self);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let ring = &self.user.ring;
        release(&ring.lock, self.user.owner(), &Waiting(self.user));
        if self.user.dies == Some(Death::Silent) {
            return;
        }
        for (event, count) in ring.events.iter().zip(self.wakes.get()) {
            if count > 0 {
                event.count.wake(count);
            }
        }
    }
}

impl User {
    fn owner(&self) -> Owner {
        Owner::new(self.me.into(), 1)
    }

    fn lock(&self) -> Held<'_> {
        let taken = acquire(&self.ring.lock, self.owner(), &Waiting(self)).unwrap();
        let held = Held {
            user: self,
            wakes: Cell::new([0; 2]),
        };
        if taken == Taken::FromDead {
            for (which, event) in self.ring.events.iter().enumerate() {
                event.happen();
                held.wake(which, 100);
            }
        }
        held
    }

    fn count(&self, which: usize) -> u32 {
        event::Word::load(&self.ring.events[which].count)
    }

    fn wait(&self, which: usize, seen: u32, patience: &mut Patience) -> bool {
        let event = &self.ring.events[which];
        let changed = || self.count(which) != seen;
        if patience.late {
            if patience.slept {
                let held = self.lock();
                held.hand_on(which, patience, changed());
            }
            return false;
        }
        while !changed() {
            {
                let _held = self.lock();
                if changed() {
                    break;
                }
                event.mark();
            }
            patience.slept = true;
            let ends = self.ring.sleeps_end || patience.short;
            event.count.sleep(self.me, seen, ends);
            patience.late = patience.short;
            if changed() {
                break;
            }
            if patience.late {
                return false;
            }
        }
        true
    }

    /// Puts numbers, in order; how many.
    fn put(&self, numbers: &[u32], patience: &mut Patience) -> usize {
        let mut done = 0;
        while done < numbers.len() {
            let held = self.lock();
            let mut count = 0;
            let full = {
                let mut buffer = held.buffer();
                for number in &numbers[done..] {
                    if buffer.holds.len() >= self.ring.limit {
                        break;
                    }
                    buffer.holds.push_back((self.me, *number));
                    count += 1;
                }
                buffer.holds.len() >= self.ring.limit
            };
            thread::yield_now();
            if count > 0 && self.dies == Some(Death::Untold) {
                held.die();
                return count;
            }
            held.happen(READY, count);
            if count > 0 {
                held.hand_on(ROOM, patience, !full);
            }
            if count > 0 && self.dies == Some(Death::Owner) {
                held.die();
                return count;
            }
            let seen = self.count(ROOM);
            drop(held);
            done += count;
            if count == 0 {
                if !self.wait(ROOM, seen, patience) {
                    break;
                }
                if self.dies == Some(Death::Woken) && patience.slept {
                    break;
                }
            }
        }
        done
    }

    /// Takes numbers, as many as there are up to `most`, which is how many were taken.
    fn take(&self, most: usize, patience: &mut Patience) -> usize {
        loop {
            let held = self.lock();
            let (count, rest) = {
                let mut buffer = held.buffer();
                let count = most.min(buffer.holds.len());
                for _ in 0..count {
                    let number = buffer.holds.pop_front().unwrap();
                    buffer.taken.push(number);
                }
                (count, buffer.holds.len())
            };
            thread::yield_now();
            if count > 0 && self.dies == Some(Death::Untold) {
                held.die();
                return count;
            }
            held.happen(ROOM, count);
            if count > 0 {
                held.hand_on(READY, patience, rest > 0);
                if self.dies == Some(Death::Owner) {
                    held.die();
                }
                return count;
            }
            let seen = self.count(READY);
            drop(held);
            if !self.wait(READY, seen, patience) {
                return 0;
            }
            if self.dies == Some(Death::Woken) && patience.slept {
                return 0;
            }
        }
    }
}

impl Ring {
    fn new(limit: usize, sleeps_end: bool) -> Arc<Self> {
        Arc::new(Ring {
            lock: Word::new(),
            events: [0, 1].map(|_| Event::new(Word::new(), Word::new())),
            buffer: Mutex::default(),
            limit,
            sleeps_end,
            dead: Mutex::default(),
        })
    }

    fn user(self: &Arc<Self>, me: u8, dies: Option<Death>) -> User {
        User {
            ring: self.clone(),
            me,
            dies,
        }
    }

    /// All was taken: from each producer what it has put, in order.
    fn check(&self, put: &[(u8, u32)]) {
        let buffer = self.buffer.lock().unwrap();
        assert!(buffer.holds.is_empty());
        for (producer, count) in put {
            let of_it = buffer.taken.iter().filter(|(by, _)| by == producer);
            let numbers: Vec<u32> = of_it.map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..*count).collect::<Vec<u32>>());
        }
        let all: u32 = put.iter().map(|(_, count)| count).sum();
        assert_eq!(buffer.taken.len(), all as usize);
    }
}

/// Takes so many, `most` at a time.
fn consume(user: &User, quota: u32, most: usize) {
    let mut left = quota as usize;
    while left > 0 {
        left -= user.take(most.min(left), &mut Patience::new(false));
    }
}

/// Runs producers, each of which puts `each` in packs, and consumers, until all is taken.
fn run(limit: usize, producers: u8, consumers: u8, each: u32, pack: usize) {
    let ring = Ring::new(limit, false);
    let mut handles = Vec::new();
    for me in 0..producers {
        let user = ring.user(me, None);
        handles.push(thread::spawn(move || {
            let numbers: Vec<u32> = (0..each).collect();
            for numbers in numbers.chunks(pack) {
                assert_eq!(user.put(numbers, &mut Patience::new(false)), numbers.len());
            }
        }));
    }
    let all = each * producers as u32;
    for me in 0..consumers {
        let user = ring.user(100 + me, None);
        let quota = all / consumers as u32 + u32::from((me as u32) < all % consumers as u32);
        handles.push(thread::spawn(move || consume(&user, quota, pack)));
    }
    for handle in handles {
        handle.join().unwrap();
    }
    let put: Vec<(u8, u32)> = (0..producers).map(|me| (me, each)).collect();
    ring.check(&put);
}

/// Without deaths, no sleep ends by itself, and nobody sleeps for ever.
#[test]
fn nobody_sleeps_while_there_is_something() {
    random("ring::nobody_sleeps_while_there_is_something", |seed| {
        for producers in 1..=3 {
            for consumers in 1..=3 {
                for (limit, pack) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
                    let each = if producers == 3 { 2 } else { 3 };
                    let run = move || run(limit, producers, consumers, each, pack);
                    schedules(seed, 250, run);
                }
            }
        }
    });
}

/// The same, with schedules that switch as rarely as possible.
#[test]
fn nobody_sleeps_while_there_is_something_in_few_switches() {
    random(
        "ring::nobody_sleeps_while_there_is_something_in_few_switches",
        |seed| {
            for (producers, consumers) in [(1, 3), (3, 1), (2, 2)] {
                for (limit, pack) in [(1, 1), (2, 2)] {
                    few_switches(seed, 500, move || run(limit, producers, consumers, 2, pack));
                }
            }
        },
    );
}

/// One that was woken and goes without leaves the others' wake-ups as they were.
#[test]
fn who_gives_up_takes_no_wake_up_with_him() {
    let for_messages = || {
        let ring = Ring::new(1, false);
        let [hasty, patient, producer] = [101, 102, 0].map(|me| ring.user(me, None));
        let late = ring.user(103, None);
        let handles = [
            thread::spawn(move || {
                if hasty.take(1, &mut Patience::new(true)) == 1 {
                    // Another one instead.
                    hasty.put(&[0], &mut Patience::new(false));
                }
            }),
            thread::spawn(move || consume(&patient, 2, 1)),
            thread::spawn(move || consume(&late, 1, 1)),
            thread::spawn(move || {
                producer.put(&[0, 1, 2], &mut Patience::new(false));
            }),
        ];
        for handle in handles {
            handle.join().unwrap();
        }
    };
    let for_room = || {
        let ring = Ring::new(1, false);
        let [hasty, patient, other, consumer] = [0, 1, 2, 100].map(|me| ring.user(me, None));
        let handles = [
            thread::spawn(move || {
                if hasty.put(&[0], &mut Patience::new(true)) == 1 {
                    // One instead.
                    consume(&hasty, 1, 1);
                }
            }),
            thread::spawn(move || {
                patient.put(&[0, 1, 2], &mut Patience::new(false));
            }),
            thread::spawn(move || {
                other.put(&[0, 1], &mut Patience::new(false));
            }),
            // The last one stays.
            thread::spawn(move || consume(&consumer, 4, 1)),
        ];
        for handle in handles {
            handle.join().unwrap();
        }
    };
    random("ring::who_gives_up_takes_no_wake_up_with_him", |seed| {
        schedules(seed, 3000, for_messages);
        schedules(seed, 3000, for_room);
    });
}

/// Deaths of every kind, of a producer and of a consumer, among others that live.
#[test]
fn others_go_on_after_deaths() {
    random("ring::others_go_on_after_deaths", |seed| {
        let deaths = [Death::Untold, Death::Owner, Death::Silent, Death::Woken];
        for limit in [1, 2] {
            for (producing, consuming) in deaths.into_iter().flat_map(|a| deaths.map(|b| (a, b))) {
                let run = move || {
                    let ring = Ring::new(limit, true);
                    let (first, second) = (ring.user(0, Some(producing)), ring.user(1, None));
                    let (dying, living) = (ring.user(100, Some(consuming)), ring.user(101, None));
                    let ended = Arc::new(AtomicU32::new(0));
                    let [one_ends, two_ends] = [ended.clone(), ended.clone()];
                    let one = thread::spawn(move || {
                        let put = first.put(&[0], &mut Patience::new(false));
                        one_ends.fetch_add(1, Ordering::SeqCst);
                        put
                    });
                    let two = thread::spawn(move || {
                        let put = second.put(&[0, 1, 2], &mut Patience::new(false));
                        two_ends.fetch_add(1, Ordering::SeqCst);
                        put
                    });
                    let three = thread::spawn(move || dying.take(1, &mut Patience::new(true)));
                    let four = thread::spawn(move || consume(&living, 2, 2));
                    four.join().unwrap();
                    // The rest.
                    let rest = ring.user(102, None);
                    while ended.load(Ordering::SeqCst) < 2 {
                        rest.take(1, &mut Patience::new(true));
                    }
                    three.join().unwrap();
                    while rest.take(1, &mut Patience::new(true)) > 0 {}
                    let put = [one, two].map(|thread| thread.join().unwrap() as u32);
                    assert_eq!(put[1], 3);
                    ring.check(&[(0, put[0]), (1, 3)]);
                };
                schedules(seed, 150, run);
            }
        }
    });
}
