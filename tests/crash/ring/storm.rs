//! Random SIGKILL and SIGSTOP among the users of two rings.
//!
//! Producers and consumers, each at either ring, a short one and one that grows, fork children
//! that do the same, while their parent kills one after the other, or halts it for a while.
//! What each has put and got it writes into memory that no ring is in. Properties:
//!
//! * what is taken is whole, and was put once;
//! * what was put is taken, but for what a consumer had in its hands when it was killed;
//! * what one consumer gets of one producer comes in order;
//! * no worker ends but by its parent's signal, and none hangs;
//! * after each death the checker finds nothing wrong, and when all is taken and all are dead
//!   the arena is exactly empty.

use super::*;
use crate::run;
use crate::run::seed::{self, Random};
use crate::storm::{kill_group, wait_for_orphans};
use crate::tools::*;
use shared_numpy::error::Error;
use shared_numpy::process::Settings as ArenaSettings;
use std::collections::{BTreeMap, BTreeSet};

pub const TESTS: &[Test] = &[("storm_of_ring_users", storm)];

const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
/// Deaths in one arena before all die.
const ROUNDS: u64 = 24;
/// Lives of producers, and of consumers, in one arena.
const LIVES: usize = 1 << 12;
/// Messages in one arena.
const LOG: usize = 1 << 20;

/// What the workers tell. A life is one of a process as a producer or a consumer.
struct Board {
    lives: AtomicU32,
    /// How many messages a producer has begun to put, and how many it has put.
    begun: [AtomicU32; LIVES],
    put: [AtomicU32; LIVES],
    /// How many messages a consumer may have in its hands.
    hands: [AtomicU32; LIVES],
    /// How many places of the log are given away.
    logged: AtomicU32,
    log: [AtomicU64; LOG],
    /// Producers stop and end.
    over: AtomicU32,
    /// No consumer waits any longer.
    drained: AtomicU32,
}

impl Board {
    fn clear(&self) {
        let logged = self.logged.swap(0, Ordering::SeqCst) as usize;
        for entry in &self.log[..logged.min(LOG)] {
            entry.store(0, Ordering::SeqCst);
        }
        for words in [&self.begun, &self.put, &self.hands] {
            for word in words {
                word.store(0, Ordering::SeqCst);
            }
        }
        // No life is 0.
        self.lives.store(1, Ordering::SeqCst);
        self.over.store(0, Ordering::SeqCst);
        self.drained.store(0, Ordering::SeqCst);
    }

    fn life(&self) -> usize {
        let life = self.lives.fetch_add(1, Ordering::SeqCst) as usize;
        assert!(life < LIVES, "too many lives");
        life
    }

    /// Writes down that a consumer has got a message.
    fn got(&self, consumer: usize, number: u64) {
        let place = self.logged.fetch_add(1, Ordering::SeqCst) as usize;
        let entry = number << 12 | consumer as u64;
        self.log[place].store(entry, Ordering::SeqCst);
    }

    fn is_full(&self) -> bool {
        self.logged.load(Ordering::SeqCst) as usize > LOG - (LOG >> 4)
    }
}

/// A message's number: the ring it is for, its producer's life, and its place in that.
fn number(ring: usize, life: usize, sequence: u32) -> u64 {
    (ring as u64) << 44 | (life as u64) << 32 | sequence as u64
}

struct Worker<'a> {
    arena: &'a Arena,
    rings: &'a [Messages; 2],
    board: &'a Board,
    random: Random,
    life: usize,
}

impl Worker<'_> {
    fn fail(&self, error: Error) -> ! {
        eprintln!("worker: {error}");
        std::process::abort()
    }

    /// Some message, mostly short.
    fn message(&mut self, number: u64) -> Message {
        let length = match self.random.below(40) {
            0 => 16 + self.random.below(20_000),
            1..=9 => 16 + self.random.below(2000),
            _ => 16 + self.random.below(80),
        };
        match self.random.below(5) {
            0 => InBlock(number, length as usize),
            _ => InBytes(number, length as usize),
        }
    }

    /// Puts one or a few, for which it waits a little.
    fn produce(&mut self, rings: &[usize; 2]) {
        let which = rings[self.random.below(2) as usize];
        let sent = &self.board.put[self.life];
        let first = sent.load(Ordering::SeqCst);
        let count = 1 + self.random.below(3) as u32 * self.random.below(2) as u32;
        let mut messages = Vec::new();
        for sequence in first..first + count {
            let message = self.message(number(which, self.life, sequence));
            messages.push(Ready::new(self.arena, message));
        }
        let items: Vec<Item<'_>> = messages.iter().map(Ready::item).collect();
        self.board.begun[self.life].store(first + count, Ordering::SeqCst);
        let mut patience = Patience::new(Some(Duration::from_millis(self.random.below(3))));
        match self.rings[which].put(&items, &mut patience) {
            Ok(done) => sent.store(first + done as u32, Ordering::SeqCst),
            Err(Error::Full { .. }) => {}
            Err(error) => self.fail(error),
        }
        if self.board.is_full() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes one or a few, for which it waits a little; how many.
    fn consume(&mut self, which: usize) -> usize {
        let most = 1 + self.random.below(3) * self.random.below(2);
        let hands = &self.board.hands[self.life];
        hands.store(most as u32, Ordering::SeqCst);
        let mut patience = Patience::new(Some(Duration::from_millis(self.random.below(3))));
        match self.rings[which].take(most as usize, &mut patience) {
            Ok(taken) => {
                for each in &taken {
                    let (InBytes(number, _) | InBlock(number, _)) = read(each);
                    assert_eq!(number >> 44, which as u64, "of another ring");
                    self.board.got(self.life, number);
                    hands.fetch_sub(1, Ordering::SeqCst);
                }
                hands.store(0, Ordering::SeqCst);
                taken.len()
            }
            Err(error) => self.fail(error),
        }
    }

    fn step(&mut self, produces: bool) {
        if produces {
            self.produce(&[0, 1]);
        } else {
            let which = self.random.below(2) as usize;
            self.consume(which);
        }
    }

    /// A child that does some of the same, in a life of its own.
    fn fork(&mut self, produces: bool) {
        let seed = self.random.below(u64::MAX) | 1;
        // SAFETY: a worker has one thread.
        let pid = unsafe { libc::fork() };
        if pid != 0 {
            return;
        }
        self.life = self.board.life();
        self.random = Random::new(seed);
        for _ in 0..self.random.below(30) {
            self.step(produces);
        }
        if self.random.below(2) == 0 {
            let _ = self.arena.leave();
        }
        // SAFETY: ends the child without its parent's exit handlers.
        unsafe { libc::_exit(0) };
    }

    fn work(&mut self, produces: bool) -> i32 {
        // SAFETY: its own group, so that its children die with it.
        unsafe { libc::setpgid(0, 0) };
        let ends = match produces {
            true => &self.board.over,
            false => &self.board.drained,
        };
        while ends.load(Ordering::SeqCst) == 0 {
            self.step(produces);
            if self.random.below(200) == 0 {
                self.fork(produces);
            }
            if self.random.below(16) == 0 {
                // SAFETY: does not wait, asks for no status.
                while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
            }
        }
        // SAFETY: waits for its children, and asks for no status.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
        0
    }
}

/// What has happened, in numbers.
#[derive(Default, Debug)]
struct Deaths {
    all: u64,
    with_a_ring: u64,
    halts: u64,
    messages: u64,
    lost: u64,
}

/// Compares what was put with what was got; how many of how many were lost with the dead.
fn compare(board: &Board) -> (u64, u64) {
    let logged = board.logged.load(Ordering::SeqCst) as usize;
    let mut got: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut last: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for entry in &board.log[..logged] {
        let entry = entry.load(Ordering::SeqCst);
        if entry == 0 {
            // Its consumer died before it wrote it down.
            continue;
        }
        let (consumer, number) = (entry & 0xFFF, entry >> 12);
        // Of one ring and one life.
        let before = last.insert((consumer, number >> 32), number);
        assert!(
            before < Some(number),
            "not in order: {number:x} after {before:x?}"
        );
        let life = (number >> 32 & 0xFFF) as usize;
        let sequence = number & 0xFFFF_FFFF;
        assert!(
            got.entry(life).or_default().insert(sequence),
            "doubled: {number:x}"
        );
    }
    let lives = board.lives.load(Ordering::SeqCst) as usize;
    let mut in_hands = 0;
    let mut lost = 0;
    for life in 1..lives {
        in_hands += board.hands[life].load(Ordering::SeqCst) as u64;
        let put = board.put[life].load(Ordering::SeqCst) as u64;
        let begun = board.begun[life].load(Ordering::SeqCst) as u64;
        let got = got.remove(&life).unwrap_or_default();
        lost += put - got.range(..put).count() as u64;
        assert!(got.range(begun..).next().is_none(), "never put");
        // What a dead one was about to put is there from its beginning on, as far as it came.
        let more = got.range(put..).count() as u64;
        assert!(more <= 3, "{more} more than it could");
    }
    assert!(got.is_empty(), "of producers that never were");
    assert!(lost <= in_hands, "{lost} lost, {in_hands} in hands");
    (lost, logged as u64)
}

/// One arena, from its making to the death of all.
fn one_arena(random: &mut Random, board: &'static Board, deaths: &mut Deaths) {
    let test = TestArena::new(ArenaSettings {
        size: 1 << 20,
        warm: random.below(3) * 2_000_000,
        ..small()
    });
    let arena = &test.arena;
    board.clear();
    let short = Settings {
        limit: 1 + random.below(8),
        longest: 32 << 10,
        ..SMALL
    };
    let growing = Settings {
        longest: 2 << 20,
        ..SMALL
    };
    let rings = [short, growing].map(|settings| Messages::create(arena, settings).unwrap());
    let mut workers: Vec<Option<Child>> = (0..PRODUCERS + CONSUMERS).map(|_| None).collect();
    let mut killed = 0;
    while killed < ROUNDS {
        for (number, worker) in workers.iter_mut().enumerate() {
            if worker.is_none() {
                let seed = random.below(u64::MAX) | 1;
                let life = board.life();
                *worker = Some(fork(|| {
                    let mut worker = Worker {
                        arena,
                        rings: &rings,
                        board,
                        random: Random::new(seed),
                        life,
                    };
                    worker.work(number < PRODUCERS)
                }));
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(2500)));
        let number = random.below(workers.len() as u64) as usize;
        if random.below(6) == 0 {
            let worker = workers[number].as_ref().unwrap();
            worker.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_micros(random.below(8000)));
            worker.signal(libc::SIGCONT);
            deaths.halts += 1;
            continue;
        }
        kill_group(workers[number].take().unwrap());
        killed += 1;
        deaths.with_a_ring += rings.iter().filter(|ring| Words(ring).is_held()).count() as u64;
        if random.below(2) == 0 {
            snapshot(arena);
        }
        for (ring, limit) in rings.iter().zip([short.limit, u64::MAX]) {
            assert!(ring.len().unwrap() <= limit);
        }
        if random.below(2) == 0 {
            arena.reap().unwrap();
        }
    }
    deaths.all += killed;
    // The rest of them live: producers end, then what they have put is taken.
    board.over.store(1, Ordering::SeqCst);
    let mut consumers = workers.split_off(PRODUCERS);
    for worker in workers.into_iter().flatten() {
        worker.succeed();
    }
    let some = random.below(2) == 0;
    if some {
        // The consumers take all, or die with it.
        until("the rings are not emptied", || {
            rings.iter().all(|ring| ring.is_empty().unwrap())
        });
        board.drained.store(1, Ordering::SeqCst);
        for worker in consumers.drain(..).flatten() {
            worker.succeed();
        }
    }
    for worker in consumers.into_iter().flatten() {
        kill_group(worker);
        deaths.all += 1;
    }
    wait_for_orphans(true);
    let mut last = Worker {
        arena,
        rings: &rings,
        board,
        random: Random::new(1),
        life: board.life(),
    };
    for which in [0, 1] {
        while last.consume(which) > 0 || !rings[which].is_empty().unwrap() {}
    }
    let (lost, messages) = compare(board);
    deaths.lost += lost;
    deaths.messages += messages;
    drop(rings);
    until("something is left", || {
        arena.reap().unwrap();
        arena.cancel_unreceived(0).unwrap();
        snapshot(arena).live().count() == 0
    });
    assert_empty(arena);
}

fn storm(full: bool) {
    // Children of dead workers become this process's.
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let wanted = seed::number_in("SNP_KILLS").unwrap_or(if full { 12_000 } else { times(500) });
    let mut random = Random::new(seed::of_test("storm_of_ring_users"));
    let board: &'static Board = common();
    let mut deaths = Deaths::default();
    while deaths.all < wanted {
        run::go_on();
        one_arena(&mut random, board, &mut deaths);
    }
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
    println!(
        "  {} deaths, {} times with a ring's lock held, {} halts; {} messages taken, {} lost with \
         the dead",
        deaths.all, deaths.with_a_ring, deaths.halts, deaths.messages, deaths.lost,
    );
    assert!(deaths.messages > 0);
}
