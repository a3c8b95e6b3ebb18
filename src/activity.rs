//! What this process has done: counters, and events that are to be reported.
//!
//! Both are private memory of the process, and begin anew in a forked child. Code may count and note
//! anywhere, also while it holds a lock of an arena: nothing here waits, allocates, or calls the
//! system. The events wait in a queue of [`MOST`] places, until somebody takes them; those for which
//! there is no place are lost, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many events can wait.
pub const MOST: usize = 64;

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// Counts `more`.
    #[inline(always)]
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts `more` without a locked instruction, where the caller holds a lock under which alone
    /// this counter changes: the GIL, say.
    #[inline(always)]
    pub fn add_alone(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// Has it be `value`, unless it is more.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// What it has counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What has gone through one kind of channel.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Messages that this process has put.
    pub sent: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    /// Messages that this process has taken.
    pub received: Counter,
    /// Their bytes.
    pub received_bytes: Counter,
}

impl Traffic {
    const fn new() -> Self {
        Traffic {
            sent: Counter::new(),
            sent_bytes: Counter::new(),
            received: Counter::new(),
            received_bytes: Counter::new(),
        }
    }

    /// Counts messages that were put, with the GIL held.
    #[inline(always)]
    pub fn count_sent(&self, messages: u64, bytes: u64) {
        self.sent.add_alone(messages);
        self.sent_bytes.add_alone(bytes);
    }

    /// Counts a message that was taken, with the GIL held.
    #[inline(always)]
    pub fn count_received(&self, bytes: u64) {
        self.received.add_alone(1);
        self.received_bytes.add_alone(bytes);
    }

    fn reset(&self) {
        let Traffic {
            sent,
            sent_bytes,
            received,
            received_bytes,
        } = self;
        for counter in [sent, sent_bytes, received, received_bytes] {
            counter.reset();
        }
    }
}

/// The counters of a process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Times that a thread found a lock taken: an arena's, or a ring's.
    pub lock_waits: Counter,
    /// The longest time that a thread then slept until it had the lock or gave up, in µs.
    pub longest_lock_wait: Counter,
    /// Waits for a message, a frame or room that ended while the thread was spinning.
    pub spins: Counter,
    /// Waits for which the thread slept.
    pub sleeps: Counter,
    /// Messages through rings.
    pub rings: Traffic,
    /// Messages through pipes.
    pub pipes: Traffic,
    /// Frames.
    pub frames: Traffic,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters {
    lock_waits: Counter::new(),
    longest_lock_wait: Counter::new(),
    spins: Counter::new(),
    sleeps: Counter::new(),
    rings: Traffic::new(),
    pipes: Traffic::new(),
    frames: Traffic::new(),
};

/// Something that is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A lock of an arena was taken over from a process that died while it held it.
    Recovered {
        /// The dead process, as it numbered itself; 0 if it is not known.
        pid: u64,
        /// Whether it was the lock of a ring in the arena, not the arena's own.
        ring: bool,
    },
    /// The references of a process that is gone were dropped.
    Reaped {
        /// The process, as it numbered itself; 0 for a child that was not forked after all.
        pid: u64,
        /// It had left the arena, and held only what was in use at its exit.
        exited: bool,
    },
    /// An arena has got another segment.
    Grown {
        /// The bytes of the segment.
        bytes: u64,
        /// The number of the segment.
        segment: u64,
    },
    /// Free memory was given back to the system.
    Returned {
        /// How much it was.
        bytes: u64,
        /// How many segments were removed for it; 0 if they stay.
        segments: u64,
    },
    /// A request was refused, since there is no room.
    Refused {
        /// The bytes that were asked for, or the number of rows that there are.
        asked: u64,
        /// What is left of them.
        left: u64,
        /// Bytes were asked for, not one more row of a table.
        memory: bool,
    },
    /// What the layers above have noted with a text of their own, in the order of these.
    Other,
}

impl Event {
    fn pack(self) -> [u64; 4] {
        match self {
            Event::Recovered { pid, ring } => [1, pid, ring as u64, 0],
            Event::Reaped { pid, exited } => [2, pid, exited as u64, 0],
            Event::Grown { bytes, segment } => [3, bytes, segment, 0],
            Event::Returned { bytes, segments } => [4, bytes, segments, 0],
            Event::Refused {
                asked,
                left,
                memory,
            } => [5, asked, left, memory as u64],
            Event::Other => [6, 0, 0, 0],
        }
    }

    fn unpack([kind, a, b, c]: [u64; 4]) -> Event {
        match kind {
            1 => Event::Recovered {
                pid: a,
                ring: b != 0,
            },
            2 => Event::Reaped {
                pid: a,
                exited: b != 0,
            },
            3 => Event::Grown {
                bytes: a,
                segment: b,
            },
            4 => Event::Returned {
                bytes: a,
                segments: b,
            },
            5 => Event::Refused {
                asked: a,
                left: b,
                memory: c != 0,
            },
            _ => Event::Other,
        }
    }
}

/// The number of an arena, or zeros for no arena.
pub type Uuid = [u64; 2];

/// A place of the queue.
///
/// Place `p` serves the events numbered `p`, `p + MOST`, `p + 2 * MOST` and so on: its laps. `turn`
/// is twice the lap if it is free for that one, and one more if it has the event of that lap.
struct Place {
    turn: AtomicU64,
    words: [AtomicU64; 6],
}

/// A queue of events. Any thread may put and take at any time; none waits for another one.
pub struct Events {
    places: [Place; MOST],
    put: AtomicU64,
    taken: AtomicU64,
    lost: AtomicU64,
}

/// The events of this process.
pub static EVENTS: Events = Events::new();

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// An empty queue.
    pub const fn new() -> Self {
        Events {
            places: [const {
                Place {
                    turn: AtomicU64::new(0),
                    words: [const { AtomicU64::new(0) }; 6],
                }
            }; MOST],
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn place(&self, number: u64) -> (&Place, u64) {
        let most = MOST as u64;
        (&self.places[(number % most) as usize], 2 * (number / most))
    }

    /// Whether there is an event.
    #[inline(always)]
    pub fn are_there(&self) -> bool {
        self.put.load(Ordering::Relaxed) != self.taken.load(Ordering::Relaxed)
    }

    /// Notes an event.
    #[cold]
    pub fn note(&self, arena: Uuid, event: Event) {
        // (Bounded, as a number that another thread of a parent was taking is never given back.)
        for _ in 0..2 * MOST {
            let number = self.put.load(Ordering::Relaxed);
            let (place, free) = self.place(number);
            // Acquire, pairs with the release in `take`: the words of the last lap are read.
            match place.turn.load(Ordering::Acquire) {
                turn if turn == free && self.advance(&self.put, number) => {
                    let [kind, a, b, c] = event.pack();
                    let words = [arena[0], arena[1], kind, a, b, c];
                    for (word, value) in place.words.iter().zip(words) {
                        word.store(value, Ordering::Relaxed);
                    }
                    // Release, pairs with the acquire in `take`.
                    place.turn.store(free + 1, Ordering::Release);
                    return;
                }
                turn if turn < free => {
                    // The event of the last lap is still there.
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // Another thread puts one there.
                _ => {}
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the oldest event.
    pub fn take(&self) -> Option<(Uuid, Event)> {
        for _ in 0..2 * MOST {
            let number = self.taken.load(Ordering::Relaxed);
            let (place, free) = self.place(number);
            // Acquire, pairs with the release in `note`.
            match place.turn.load(Ordering::Acquire) {
                turn if turn == free + 1 && self.advance(&self.taken, number) => {
                    let [x, y, kind, a, b, c] = &place.words;
                    let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
                    let event = Event::unpack([kind, a, b, c].map(read));
                    let arena = [x, y].map(read);
                    // Release, pairs with the acquire in `note`.
                    place.turn.store(free + 2, Ordering::Release);
                    return Some((arena, event));
                }
                // There is none, or a thread is just writing it.
                turn if turn <= free => return None,
                // Another thread takes it.
                _ => {}
            }
        }
        None
    }

    /// How many events were lost since this was asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn advance(&self, word: &AtomicU64, number: u64) -> bool {
        word.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Forgets all events, where no other thread can be at work here.
    fn reset(&self) {
        for place in &self.places {
            place.turn.store(0, Ordering::Relaxed);
        }
        for word in [&self.put, &self.taken, &self.lost] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Begins anew, in a forked child: all this is its parent's. It has one thread. `number` is that of
/// the fork, for which this is done once.
pub fn begin_anew(number: u64) {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    if BEGUN.swap(number, Ordering::Relaxed) == number {
        return;
    }
    let Counters {
        lock_waits,
        longest_lock_wait,
        spins,
        sleeps,
        rings,
        pipes,
        frames,
    } = &COUNTERS;
    for counter in [lock_waits, longest_lock_wait, spins, sleeps] {
        counter.reset();
    }
    for traffic in [rings, pipes, frames] {
        traffic.reset();
    }
    EVENTS.reset();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event::Returned {
            bytes: number,
            segments: 0,
        }
    }

    fn number((arena, event): (Uuid, Event)) -> u64 {
        match event {
            Event::Returned { bytes, .. } if arena == [bytes, !bytes] => bytes,
            other => panic!("{arena:?}, {other:?}"),
        }
    }

    fn note(events: &Events, number: u64) {
        events.note([number, !number], event(number));
    }

    #[test]
    fn events_come_out_as_they_went_in() {
        let all = [
            Event::Recovered { pid: 7, ring: true },
            Event::Reaped {
                pid: 8,
                exited: true,
            },
            Event::Grown {
                bytes: 9,
                segment: 2,
            },
            Event::Returned {
                bytes: 10,
                segments: 3,
            },
            Event::Refused {
                asked: 1,
                left: 2,
                memory: true,
            },
            Event::Other,
        ];
        let events = Events::new();
        for each in all {
            events.note([1, 2], each);
        }
        assert!(events.are_there());
        for each in all {
            assert_eq!(events.take(), Some(([1, 2], each)));
        }
        assert_eq!(events.take(), None);
        assert!(!events.are_there());
    }

    #[test]
    fn what_has_no_place_is_lost_and_counted() {
        let events = Events::new();
        for lap in 0..5 {
            let first = 1000 * lap;
            for each in first..first + MOST as u64 + 3 {
                note(&events, each);
            }
            assert_eq!(events.take_lost(), 3);
            for each in first..first + MOST as u64 {
                assert_eq!(events.take().map(number), Some(each));
            }
            assert_eq!((events.take(), events.take_lost()), (None, 0));
        }
    }

    #[test]
    fn threads_get_each_event_once() {
        let events = Events::new();
        let (threads, each) = (4u64, 2000u64);
        let mut found: Vec<u64> = std::thread::scope(|scope| {
            for thread in 0..threads {
                let events = &events;
                scope.spawn(move || (0..each).for_each(|i| note(events, thread * each + i)));
            }
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut found = Vec::new();
                        let mut empty = 0;
                        while empty < 100 {
                            match events.take() {
                                Some(taken) => found.push(number(taken)),
                                None => {
                                    empty += 1;
                                    std::thread::yield_now();
                                }
                            }
                        }
                        found
                    })
                })
                .collect();
            takers
                .into_iter()
                .flat_map(|taker| taker.join().unwrap())
                .collect()
        });
        while let Some(taken) = events.take() {
            found.push(number(taken));
        }
        let lost = events.take_lost();
        let count = found.len() as u64;
        found.sort_unstable();
        found.dedup();
        assert_eq!((found.len() as u64, count + lost), (count, threads * each));
    }

    #[test]
    fn a_child_begins_anew() {
        // (Other tests of this process count, too, but nothing here.)
        COUNTERS.pipes.count_sent(2, 30);
        COUNTERS.pipes.count_received(40);
        let counts = || {
            let Traffic {
                sent,
                sent_bytes,
                received,
                received_bytes,
            } = &COUNTERS.pipes;
            [sent, sent_bytes, received, received_bytes].map(Counter::get)
        };
        assert_eq!(counts(), [2, 30, 1, 40]);
        begin_anew(u64::MAX);
        assert_eq!(counts(), [0; 4]);
        // Once, by whichever arena it is found out.
        COUNTERS.pipes.count_sent(1, 5);
        begin_anew(u64::MAX);
        assert_eq!(counts(), [1, 5, 0, 0]);
    }
}
