//! Whether all that several processes see of a ring has one order.
//!
//! Processes put and take on one short ring, and write down what they did, what came of it and
//! when. A history is right if its operations can be put in one order in which each does what
//! it would do alone, and which keeps what was over before something else began (Herlihy and
//! Wing). The search tries the orders, and remembers what it has reached (Wing and Gong; Lowe).
//!
//! Messages that are put at once are put in order, but others may come in between: they are as
//! many operations, each of which waits for the one before.

use super::*;
use crate::run;
use crate::run::seed::{self, Random};
use crate::tools::*;
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("histories_that_are_wrong_are_found", |_| wrong_histories()),
    ("ring_histories_have_one_order", histories),
];

const WORKERS: usize = 3;
/// Operations of a worker in one history.
const EACH: usize = 4;
const LIMIT: usize = 2;

/// An operation and what came of it.
#[derive(Clone, Debug, PartialEq)]
enum Done {
    /// What it had, and whether that was put.
    Put(u32, bool),
    /// How many it would have, and what it got.
    Take(usize, Vec<u32>),
    Len(usize),
}

#[derive(Clone, Debug)]
struct Event {
    begin: u64,
    end: u64,
    done: Done,
    /// It comes behind the one before it in the history.
    behind: bool,
}

/// A put of several, of which so many were put: one behind the other, up to one for which
/// there was no room.
fn puts(begin: u64, end: u64, values: &[u32], count: usize) -> Vec<Event> {
    let tried = values.iter().enumerate().take(count + 1);
    let events = tried.map(|(i, value)| Event {
        begin,
        end,
        done: Done::Put(*value, i < count),
        behind: i > 0,
    });
    events.collect()
}

/// Does an operation on a queue; false if something else comes of it.
fn fits(done: &Done, queue: &mut VecDeque<u32>) -> bool {
    match done {
        Done::Put(value, put) => {
            let has_room = queue.len() < LIMIT;
            queue.push_back(*value);
            if !put {
                queue.pop_back();
            }
            *put == has_room
        }
        Done::Take(most, values) => {
            let count = queue.len().min(*most);
            let first: Vec<u32> = queue.drain(..count).collect();
            first == *values
        }
        Done::Len(length) => queue.len() == *length,
    }
}

/// Whether there is an order.
fn is_right(history: &[Event]) -> bool {
    let mut met = HashSet::new();
    search(history, 0, &VecDeque::new(), &mut met)
}

fn search(
    history: &[Event],
    over: u64,
    queue: &VecDeque<u32>,
    met: &mut HashSet<(u64, VecDeque<u32>)>,
) -> bool {
    let left = || (0..history.len()).filter(|i| over & 1 << i == 0);
    // Whatever begins behind this end comes later.
    let Some(first_end) = left().map(|i| history[i].end).min() else {
        return true;
    };
    if !met.insert((over, queue.clone())) {
        return false;
    }
    let is_next = |i: usize| {
        let behind = history[i].behind && over & 1 << (i - 1) == 0;
        history[i].begin <= first_end && !behind
    };
    let next = left().filter(|i| is_next(*i));
    for i in next {
        let mut queue = queue.clone();
        if fits(&history[i].done, &mut queue) && search(history, over | 1 << i, &queue, met) {
            return true;
        }
    }
    false
}

fn wrong_histories() {
    let put = puts;
    let one = |begin, end, done| {
        vec![Event {
            begin,
            end,
            done,
            behind: false,
        }]
    };
    let take =
        |begin, end, most, values: &[u32]| one(begin, end, Done::Take(most, values.to_vec()));
    let len = |begin, end, length| one(begin, end, Done::Len(length));
    let right = [
        vec![
            put(0, 1, &[1], 1),
            put(2, 3, &[2], 1),
            take(4, 5, 2, &[1, 2]),
        ],
        // At the same time: either order.
        vec![
            put(0, 3, &[1], 1),
            put(1, 2, &[2], 1),
            take(4, 5, 2, &[2, 1]),
        ],
        vec![put(0, 3, &[1], 1), take(1, 2, 1, &[]), take(4, 5, 1, &[1])],
        vec![put(0, 3, &[1], 1), take(1, 2, 1, &[1]), len(4, 5, 0)],
        vec![
            put(0, 1, &[1, 2, 3], 2),
            put(2, 5, &[4], 1),
            take(3, 4, 1, &[1]),
        ],
        // Between two that were put at once.
        vec![
            put(0, 5, &[1, 2], 2),
            put(1, 2, &[3], 1),
            take(3, 4, 2, &[1, 3]),
        ],
    ];
    for history in right.map(|events| events.concat()) {
        assert!(is_right(&history), "{history:?}");
    }
    let wrong = [
        // Overtaken.
        vec![put(0, 1, &[1], 1), put(2, 3, &[2], 1), take(4, 5, 1, &[2])],
        vec![put(0, 1, &[1, 2], 2), take(2, 3, 2, &[2, 1])],
        // Lost.
        vec![put(0, 1, &[1], 1), take(2, 3, 1, &[])],
        vec![put(0, 1, &[1], 1), put(2, 3, &[2], 1), take(4, 5, 2, &[1])],
        // Doubled.
        vec![put(0, 1, &[1], 1), take(2, 5, 1, &[1]), take(3, 4, 1, &[1])],
        // Out of nothing, or before its time.
        vec![take(0, 1, 1, &[1])],
        vec![take(0, 1, 1, &[1]), put(2, 3, &[1], 1)],
        // More than there may be, or full too early.
        vec![put(0, 1, &[1, 2, 3], 3)],
        vec![put(0, 1, &[1], 1), put(2, 3, &[2], 0)],
        vec![put(0, 1, &[1, 2], 1)],
        vec![put(0, 1, &[1], 1), len(2, 3, 0)],
    ];
    for history in wrong.map(|events| events.concat()) {
        assert!(!is_right(&history), "{history:?}");
    }
}

/// What a worker writes down of one operation.
struct Record {
    /// 0 for a put, 1 for taking, 2 for the length; and how many.
    what: [AtomicU32; 2],
    /// What it put or got.
    values: [AtomicU32; 2],
    count: AtomicU32,
    begin: AtomicU64,
    end: AtomicU64,
}

struct Board {
    round: AtomicU32,
    ended: AtomicU32,
    records: [[Record; EACH]; WORKERS],
}

fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is lent to the call.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(told, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An operation that a worker wants to do.
enum Wanted {
    Put(Vec<u32>),
    Take(usize),
    Len,
}

/// Does an operation and says what came of it, and when.
fn operate(ring: &Messages, wanted: Wanted, wait: Duration) -> Vec<Event> {
    let mut patience = match wait.is_zero() {
        true => Patience::none(),
        false => Patience::new(Some(wait)),
    };
    let begin = now();
    let done = match wanted {
        Wanted::Put(values) => {
            let bytes: Vec<[u8; 4]> = values.iter().map(|value| value.to_ne_bytes()).collect();
            let items: Vec<Item<'_>> = bytes.iter().map(|bytes| Item::Bytes(bytes)).collect();
            let count = ring.put(&items, &mut patience).unwrap();
            return puts(begin, now(), &values, count);
        }
        Wanted::Take(most) => {
            let taken = ring.take(most, &mut patience).unwrap();
            let values = taken.iter().map(|taken| match taken {
                Taken::Bytes(bytes) => u32::from_ne_bytes(bytes[..].try_into().unwrap()),
                Taken::Block(_) => panic!("a block"),
            });
            Done::Take(most, values.collect())
        }
        Wanted::Len => Done::Len(ring.len().unwrap() as usize),
    };
    vec![Event {
        begin,
        end: now(),
        done,
        behind: false,
    }]
}

impl Record {
    /// Writes down what came of a whole operation.
    fn write(&self, events: &[Event]) {
        let (what, most, values, count) = match &events[0].done {
            Done::Put(..) => {
                let each = events.iter().map(|event| match event.done {
                    Done::Put(value, put) => (value, put),
                    _ => unreachable!(),
                });
                let values: Vec<u32> = each.clone().map(|(value, _)| value).collect();
                (
                    0,
                    values.len(),
                    values,
                    each.filter(|(_, put)| *put).count(),
                )
            }
            Done::Take(most, values) => (1, *most, values.clone(), values.len()),
            Done::Len(length) => (2, 0, Vec::new(), *length),
        };
        self.what[0].store(what, Ordering::SeqCst);
        self.what[1].store(most as u32, Ordering::SeqCst);
        for (word, value) in self.values.iter().zip(values) {
            word.store(value, Ordering::SeqCst);
        }
        self.count.store(count as u32, Ordering::SeqCst);
        self.begin.store(events[0].begin, Ordering::SeqCst);
        self.end.store(events[0].end, Ordering::SeqCst);
    }

    fn read(&self) -> Vec<Event> {
        let [what, most] = self.what.each_ref().map(|word| word.load(Ordering::SeqCst));
        let values = self
            .values
            .each_ref()
            .map(|word| word.load(Ordering::SeqCst));
        let count = self.count.load(Ordering::SeqCst) as usize;
        let begin = self.begin.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        let done = match what {
            0 => return puts(begin, end, &values[..most as usize], count),
            1 => Done::Take(most as usize, values[..count].to_vec()),
            _ => Done::Len(count),
        };
        vec![Event {
            begin,
            end,
            done,
            behind: false,
        }]
    }
}

fn work(ring: &Messages, board: &Board, number: usize, seed: u64) -> i32 {
    let mut random = Random::new(seed);
    for round in 1.. {
        loop {
            match board.round.load(Ordering::SeqCst) {
                u32::MAX => return 0,
                now if now >= round => break,
                _ => std::thread::yield_now(),
            }
        }
        for (i, record) in board.records[number].iter().enumerate() {
            let value = ((round << 8) as usize + number * 64 + i * 4) as u32;
            let wait = Duration::from_micros(random.below(2) * random.below(300));
            let (wanted, wait) = match random.below(8) {
                0..=2 => (Wanted::Put(vec![value]), wait),
                3 => (Wanted::Put(vec![value, value + 1]), wait),
                4..=5 => (Wanted::Take(1), wait),
                6 => (Wanted::Take(2), wait),
                _ => (Wanted::Len, wait),
            };
            record.write(&operate(ring, wanted, wait));
        }
        board.ended.fetch_add(1, Ordering::SeqCst);
    }
    0
}

/// Exchanges what two takes got which must have been in that order; None if there are none.
fn spoilt(history: &[Event]) -> Option<Vec<Event>> {
    let singles = |i: usize| match &history[i].done {
        Done::Take(1, values) => values.first().copied(),
        _ => None,
    };
    let put_of = |value: u32| {
        let mut puts = history.iter();
        puts.find(|event| matches!(event.done, Done::Put(put, true) if put == value))
    };
    for i in 0..history.len() {
        for j in 0..history.len() {
            let (Some(a), Some(b)) = (singles(i), singles(j)) else {
                continue;
            };
            let (put_a, put_b) = (put_of(a)?, put_of(b)?);
            if history[i].end < history[j].begin && put_a.end < put_b.begin {
                let mut history = history.to_vec();
                let done = history[i].done.clone();
                history[i].done = std::mem::replace(&mut history[j].done, done);
                return Some(history);
            }
        }
    }
    None
}

fn histories(full: bool) {
    let test = TestArena::new(small());
    let settings = Settings {
        limit: LIMIT as u64,
        ..SMALL
    };
    let ring = Messages::create(&test, settings).unwrap();
    let board: &'static Board = common();
    let mut random = Random::new(seed::of_test("ring_histories_have_one_order"));
    let workers: Vec<Child> = (0..WORKERS)
        .map(|number| {
            let seed = random.below(u64::MAX) | 1;
            fork(|| work(&ring, board, number, seed))
        })
        .collect();
    let wanted = if full { 100_000 } else { times(1500) as u32 };
    let (mut count, mut overlaps, mut found, mut waits) = (0, 0, 0, 0);
    while count < wanted {
        run::go_on();
        count += 1;
        board.ended.store(0, Ordering::SeqCst);
        board.round.store(count, Ordering::SeqCst);
        let late = Instant::now() + Duration::from_secs(20);
        while board.ended.load(Ordering::SeqCst) < WORKERS as u32 {
            assert!(Instant::now() < late, "somebody hangs");
            std::thread::yield_now();
        }
        let mut history: Vec<Event> = board
            .records
            .iter()
            .flatten()
            .flat_map(Record::read)
            .collect();
        // What is left belongs to it.
        for _ in 0..2 {
            history.extend(operate(&ring, Wanted::Take(LIMIT), Duration::ZERO));
        }
        if !is_right(&history) {
            history.sort_by_key(|event| event.begin);
            panic!("no order for {history:#?}");
        }
        let beside = |a: &Event, b: &Event| a.begin < b.begin && b.begin < a.end;
        let with = |a| history.iter().filter(|b| beside(a, b)).count();
        overlaps += history.iter().map(with).sum::<usize>();
        waits += history
            .iter()
            .filter(|event| event.end - event.begin > 50_000)
            .count();
        if let Some(spoilt) = spoilt(&history) {
            assert!(!is_right(&spoilt), "a mistake is not seen: {spoilt:#?}");
            found += 1;
        }
    }
    board.round.store(u32::MAX, Ordering::SeqCst);
    workers.into_iter().for_each(Child::succeed);
    println!(
        "  {count} histories, {overlaps} pairs at the same time, {waits} long ones; {found} spoilt \
         ones found"
    );
    assert!(overlaps > 0 && found > 0);
}
