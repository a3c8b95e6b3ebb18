//! A process closes a ring, at any moment, while its threads and other processes wait for messages
//! and for room, some of which are killed.
//!
//! Properties:
//!
//! * each wait of a thread of that process ends, and says that the ring is closed;
//! * the other processes go on: no wake-up that was theirs is lost;
//! * each message that was put comes once, but for those that a killed process had just taken.

use super::*;
use crate::run::seed::{self, Random};
use crate::tools::*;
use shared_numpy::error::Error;

pub const TESTS: &[Test] = &[("ring_closed_while_others_wait", |_| closed_at_any_moment())];

/// How many producers there are, and as many consumers: threads, and processes.
const THREADS: usize = 2;
const PROCESSES: usize = 2;
/// Messages of one producer at most.
const MOST: usize = 50_000;

/// For each message whether it was put, and how often it was taken.
struct Board {
    put: [[AtomicU32; MOST]; THREADS + PROCESSES],
    taken: [[AtomicU32; MOST]; THREADS + PROCESSES],
    /// How many the other processes have taken.
    elsewhere: AtomicU32,
}

/// Puts messages until the ring is closed.
fn produce(ring: &Messages, board: &Board, producer: usize) -> Error {
    for number in 0..MOST {
        let bytes = [producer as u64, number as u64].map(u64::to_ne_bytes);
        let item = [Item::Bytes(bytes.as_flattened())];
        match ring.put(&item, &mut Patience::new(None)) {
            Ok(count) => {
                assert_eq!(count, 1);
                board.put[producer][number].store(1, Ordering::SeqCst);
            }
            Err(error) => return error,
        }
    }
    loop {
        // It waits for what never comes, but for the end.
        if let Err(error) = ring.take(0, &mut Patience::new(Some(Duration::from_millis(1)))) {
            return error;
        }
        if ring.base().is_closed() {
            return Error::Closed;
        }
    }
}

/// Notes a message that was taken.
fn note(board: &Board, taken: &[Taken]) {
    for each in taken {
        let Taken::Bytes(bytes) = each else {
            panic!("nobody has put a block");
        };
        let word = |at| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        board.taken[word(0)][word(8)].fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes messages until the ring is closed.
fn consume(ring: &Messages, board: &Board, elsewhere: bool) -> Error {
    loop {
        match ring.take(1, &mut Patience::new(None)) {
            Ok(taken) => note(board, &taken),
            Err(error) => return error,
        }
        if elsewhere {
            board.elsewhere.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn closed_at_any_moment() {
    let seed = seed::of_test("ring_closed_while_others_wait");
    let random = &mut Random::new(seed);
    let board = common::<Board>();
    for round in 0..seed::times(40) {
        crate::run::go_on();
        for word in board.put.iter().chain(&board.taken).flatten() {
            word.store(0, Ordering::SeqCst);
        }
        one_round(random, board, round);
    }
}

fn one_round(random: &mut Random, board: &Board, round: u64) {
    let test = TestArena::new(small());
    let limit = 1 + random.below(4);
    let ring = Messages::create(&test, Settings { limit, ..SMALL }).unwrap();
    let mut producers = Vec::new();
    let mut consumers = Vec::new();
    for number in 0..PROCESSES {
        producers.push(fork(|| {
            produce(&ring, board, THREADS + number);
            1
        }));
        consumers.push(fork(|| {
            consume(&ring, board, true);
            1
        }));
    }
    let mut killed = 0;
    std::thread::scope(|scope| {
        let (ring, mut threads) = (&ring, Vec::new());
        for number in 0..THREADS {
            threads.push(scope.spawn(move || produce(ring, board, number)));
            threads.push(scope.spawn(move || consume(ring, board, false)));
        }
        for event in 0..3 {
            std::thread::sleep(Duration::from_micros(random.below(1500)));
            match (event, random.below(2)) {
                (1, _) => ring.base().close(),
                (_, 0) => (),
                // One of each is left.
                _ if producers.len() == PROCESSES => producers.pop().unwrap().kill(),
                _ if consumers.len() == PROCESSES => {
                    consumers.pop().unwrap().kill();
                    killed += 1;
                }
                _ => (),
            }
        }
        for thread in threads {
            let ended = thread.join().unwrap();
            assert!(matches!(ended, Error::Closed), "round {round}: {ended:?}");
        }
    });
    // The others put and take as before, unless all was put that there was.
    let last = |producer: usize| board.put[producer][MOST - 1].load(Ordering::SeqCst) != 0;
    let before = board.elsewhere.load(Ordering::SeqCst);
    until("the others do not go on", || {
        board.elsewhere.load(Ordering::SeqCst).wrapping_sub(before) >= 20 || last(THREADS)
    });
    killed += consumers.len() as u32;
    producers.into_iter().chain(consumers).for_each(Child::kill);
    let open = Messages::open(ring.base().block().clone()).unwrap();
    loop {
        let taken = open.take(16, &mut Patience::none()).unwrap();
        if taken.is_empty() {
            break;
        }
        note(board, &taken);
    }
    let mut lost = 0;
    for (put, taken) in board.put.iter().zip(&board.taken) {
        for (number, (put, taken)) in put.iter().zip(taken).enumerate() {
            let taken = taken.load(Ordering::SeqCst);
            assert!(
                taken <= 1,
                "round {round}: message {number} came {taken} times"
            );
            lost += put.load(Ordering::SeqCst).saturating_sub(taken);
        }
    }
    assert!(
        lost <= killed,
        "round {round}: {lost} messages are lost, of {killed} killed"
    );
    test.reap().unwrap();
    let now = snapshot(&test);
    assert_eq!(
        (now.live().count(), now.open().count()),
        (1, 0),
        "round {round}"
    );
}
