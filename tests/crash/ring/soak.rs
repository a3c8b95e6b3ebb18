//! Many messages through one ring, between many processes.
//!
//! Properties:
//!
//! * each message comes exactly once, and what a consumer gets of one producer in order;
//! * nobody starves: each consumer gets some, and no producer needs many times as long as
//!   another one for as many messages.

use super::*;
use crate::tools::*;
use std::sync::atomic::AtomicU8;
use std::time::Instant;

pub const TESTS: &[Test] = &[("soak_of_a_ring", soak)];

const PRODUCERS: usize = 4;
const CONSUMERS: usize = 4;
/// Messages of one producer at most.
const MOST: usize = 1 << 22;

struct Board {
    begin: AtomicU32,
    over: AtomicU32,
    got: [[AtomicU8; MOST]; PRODUCERS],
    /// Of each consumer: how many it has got, and its longest time without one, in us.
    shares: [AtomicU64; CONSUMERS],
    without: [AtomicU64; CONSUMERS],
    /// Of each producer: for how long it has put, and its longest put, in us.
    took: [AtomicU64; PRODUCERS],
    longest: [AtomicU64; PRODUCERS],
}

fn produce(ring: &Messages, board: &Board, number: usize, count: usize) -> i32 {
    while board.begin.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    let mut last = start;
    for sequence in 0..count {
        let bytes = (sequence as u64 | (number as u64) << 32).to_ne_bytes();
        let mut patience = Patience::new(Some(Duration::from_secs(20)));
        assert_eq!(ring.put(&[Item::Bytes(&bytes)], &mut patience).unwrap(), 1);
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    board.took[number].store(start.elapsed().as_micros() as u64, Ordering::SeqCst);
    board.longest[number].store(longest.as_micros() as u64, Ordering::SeqCst);
    0
}

fn consume(ring: &Messages, board: &Board, number: usize) -> i32 {
    let mut last = [-1; PRODUCERS];
    let (mut share, mut longest) = (0, Duration::ZERO);
    let mut since = Instant::now();
    loop {
        let mut patience = Patience::new(Some(Duration::from_millis(20)));
        let taken = ring.take(1, &mut patience).unwrap();
        let Some(Taken::Bytes(bytes)) = taken.first() else {
            if board.over.load(Ordering::SeqCst) != 0 {
                break;
            }
            continue;
        };
        let word = u64::from_ne_bytes(bytes[..].try_into().unwrap());
        let (producer, sequence) = ((word >> 32) as usize, word as u32 as usize);
        assert!(last[producer] < sequence as i64, "not in order");
        last[producer] = sequence as i64;
        let before = board.got[producer][sequence].fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "doubled");
        let now = Instant::now();
        if share > 0 {
            longest = longest.max(now - since);
        }
        since = now;
        share += 1;
    }
    board.shares[number].store(share, Ordering::SeqCst);
    board.without[number].store(longest.as_micros() as u64, Ordering::SeqCst);
    0
}

fn soak(full: bool) {
    let test = TestArena::new(small());
    let settings = Settings { limit: 64, ..SMALL };
    let ring = Messages::create(&test, settings).unwrap();
    let board: &'static Board = common();
    let count = if full {
        MOST
    } else {
        (times(100_000) as usize).min(MOST)
    };
    let producers: Vec<Child> = (0..PRODUCERS)
        .map(|number| fork(|| produce(&ring, board, number, count)))
        .collect();
    let consumers: Vec<Child> = (0..CONSUMERS)
        .map(|number| fork(|| consume(&ring, board, number)))
        .collect();
    let start = Instant::now();
    board.begin.store(1, Ordering::SeqCst);
    producers.into_iter().for_each(Child::succeed);
    until("it is not emptied", || ring.is_empty().unwrap());
    let took = start.elapsed();
    board.over.store(1, Ordering::SeqCst);
    consumers.into_iter().for_each(Child::succeed);
    for (producer, got) in board.got.iter().enumerate() {
        for (sequence, got) in got[..count].iter().enumerate() {
            let got = got.load(Ordering::SeqCst);
            assert_eq!(got, 1, "message {sequence} of producer {producer}");
        }
    }
    let load = |words: &[AtomicU64; 4]| words.each_ref().map(|word| word.load(Ordering::SeqCst));
    let all = (count * PRODUCERS) as f64;
    let shares = load(&board.shares);
    let percent = shares.map(|share| (share as f64 * 1000.0 / all).round() / 10.0);
    let (took_each, longest) = (load(&board.took), load(&board.longest));
    println!(
        "  {all} messages in {:.1} s; consumers got {percent:?} %, without one for {:?} us at \
         most; producers took {took_each:?} us, {longest:?} us for one put at most",
        took.as_secs_f64(),
        load(&board.without),
    );
    assert!(shares.iter().all(|share| *share > 0), "a consumer starved");
    let [first, last] = [took_each.iter().min(), took_each.iter().max()].map(|each| *each.unwrap());
    assert!(last < 10 * first + 1_000_000, "a producer starved");
    drop(ring);
    assert_empty(&test);
}
