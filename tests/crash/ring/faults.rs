//! Who is woken, and what becomes of a ring that contradicts itself.
//!
//! A sleep on a ring ends by itself after some time, so that a wake-up that is not made is
//! hardly seen. Here a child of the test's own sleeps as a waiter does, and for long.

use super::step::a_death_under_the_lock;
use super::*;
use crate::instructions::{can_trace, step, traced};
use crate::step::fill;
use crate::tools::*;
use shared_numpy::arena::format::{BlockId, TicketId, NIL, POISONED};
use shared_numpy::arena::{BlockRef, TicketRef};
use shared_numpy::error::Error;
use shared_numpy::process::Settings as ArenaSettings;
use shared_numpy::ring::frames::Frames;
use std::collections::BTreeSet;

pub const TESTS: &[Test] = &[
    ("ring_sleepers_are_woken", |_| woken()),
    ("ring_wake_ups_are_handed_on", |_| handed_on()),
    ("ring_wake_ups_of_who_gives_up", |_| given_up()),
    ("ring_recovery_wakes_all", |_| woken_by_recovery()),
    ("ring_recovery_that_fails", |_| failed_recovery()),
    ("ring_failed_take", |_| failed_take()),
    ("ring_closed", |_| closed()),
    ("ring_lock_between_threads", |_| lock_between_threads()),
    ("ring_threads", |_| threads()),
    ("ring_bodies_of_others", |_| bodies_of_others()),
    ("ring_limits", |_| limits()),
    ("ring_contradictions", |_| contradictions()),
    ("ring_frames_on_their_way", |_| frames_on_their_way()),
];

/// A child that sleeps for an event as a waiter does; it succeeds if it is woken.
fn sleeper(ring: &Messages, which: usize) -> Child {
    let words = Words(ring);
    let seen = words.count(which).load(Ordering::SeqCst);
    words.mark(which).store(1, Ordering::SeqCst);
    let child = fork(|| {
        let timeout = libc::timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let word = words.count(which).as_ptr();
        let wait = libc::FUTEX_WAIT;
        // SAFETY: the word and the timeout live until the call is over.
        let result = unsafe { libc::syscall(libc::SYS_futex, word, wait, seen, &timeout) };
        (result != 0) as i32
    });
    until("it does not sleep", || is_asleep(child.pid));
    child
}

/// A child that takes a message, for which it has slept when this returns.
fn taker(ring: &Messages, patience: Option<Duration>) -> Child {
    let child = fork(|| {
        let taken = ring.take(1, &mut Patience::new(patience)).unwrap();
        (taken.len() != 1) as i32
    });
    let mark = Words(ring).mark(READY);
    until("it does not sleep", || {
        mark.load(Ordering::SeqCst) != 0 && is_asleep(child.pid)
    });
    child
}

fn woken() {
    let test = TestArena::new(small());
    let ring = Messages::create(&test, SMALL).unwrap();
    let mark = |which| Words(&ring).mark(which).load(Ordering::SeqCst);

    let one = sleeper(&ring, READY);
    put(&ring, &test, &[InBytes(1, 30)]);
    one.succeed();
    assert_eq!(mark(READY), 0);

    // As many as there are messages.
    let two = [sleeper(&ring, READY), sleeper(&ring, READY)];
    put(&ring, &test, &[InBytes(2, 30), InBlock(3, 30)]);
    two.into_iter().for_each(Child::succeed);

    let two = [sleeper(&ring, ROOM), sleeper(&ring, ROOM)];
    assert_eq!(ring.take(2, &mut Patience::none()).unwrap().len(), 2);
    two.into_iter().for_each(Child::succeed);
    take_all(&ring);

    // A message that was taken by a dead one makes room, too.
    put(&ring, &test, &[InBlock(4, 30)]);
    let tickets = snapshot(&test);
    let ticket = tickets.open().next().unwrap();
    let which = TicketRef {
        id: TicketId(ticket.id),
        generation: ticket.generation,
    };
    let block = BlockRef {
        id: BlockId(ticket.block),
        generation: ticket.block_generation,
    };
    let me = test.member().unwrap();
    assert!(test.core().cancel(me, which, block).unwrap());
    let one = sleeper(&ring, ROOM);
    assert!(take_all(&ring).is_empty());
    one.succeed();

    // All of those who wait until all is done, and not before it is.
    let three = [0; 3].map(|_| sleeper(&ring, DONE));
    for left in (0..4).rev() {
        assert_eq!(mark(DONE), 1);
        assert!(ring.report_done().unwrap());
        assert_eq!(mark(DONE), (left > 0) as u32);
    }
    three.into_iter().for_each(Child::succeed);
    assert!(!ring.report_done().unwrap());
}

fn handed_on() {
    let test = TestArena::new(small());
    let ring = Messages::create(&test, Settings { limit: 1, ..SMALL }).unwrap();
    let words = Words(&ring);
    let mark = |which| words.mark(which).load(Ordering::SeqCst);
    let message = [InBytes(1, 30)];

    // Who was woken and leaves nothing does not know of others: the mark is for them.
    let child = taker(&ring, None);
    put(&ring, &test, &message);
    child.succeed();
    assert_eq!(mark(READY), 1);
    put(&ring, &test, &message);
    assert_eq!(mark(READY), 0);

    // The same for one who has waited for room.
    let child = fork(|| {
        let bytes = bytes_of(2, 30);
        let patience = &mut Patience::new(None);
        (ring.put(&[Item::Bytes(&bytes)], patience).unwrap() != 1) as i32
    });
    until("it does not sleep", || {
        mark(ROOM) == 1 && is_asleep(child.pid)
    });
    assert_eq!(ring.take(1, &mut Patience::none()).unwrap().len(), 1);
    child.succeed();
    assert_eq!(mark(ROOM), 1);
    take_all(&ring);

    // If there is more, the next is woken.
    let ring = Messages::create(&test, SMALL).unwrap();
    let words = Words(&ring);
    let child = taker(&ring, None);
    child.signal(libc::SIGSTOP);
    put(&ring, &test, &[InBytes(1, 30)]);
    put(&ring, &test, &[InBytes(2, 30)]);
    let other = sleeper(&ring, READY);
    child.signal(libc::SIGCONT);
    child.succeed();
    other.succeed();
    assert_eq!(words.mark(READY).load(Ordering::SeqCst), 0);
    take_all(&ring);
}

/// Who was woken, finds nothing any more and goes without leaves the mark for the others.
fn given_up() {
    let test = TestArena::new(small());
    let ring = Messages::create(&test, SMALL).unwrap();
    let words = Words(&ring);
    let message = [InBytes(1, 30)];
    let mut child = taker(&ring, Some(Duration::from_millis(40)));
    child.signal(libc::SIGSTOP);
    put(&ring, &test, &message);
    assert_eq!(take_all(&ring), message);
    // It has slept beside the child, and its mark was taken away with that one's.
    let other = sleeper(&ring, READY);
    words.mark(READY).store(0, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(45));
    child.signal(libc::SIGCONT);
    child.wait();
    put(&ring, &test, &message);
    other.succeed();
}

/// Lets a child die under the lock when a word of the ring has changed.
fn die_when_changed(ring: &Messages, word: &AtomicU64, work: impl FnOnce()) {
    let before = word.load(Ordering::SeqCst);
    let mut child = traced(work);
    while word.load(Ordering::SeqCst) == before {
        assert!(!step(&mut child, 1), "it never changed");
    }
    child.kill();
    assert!(Words(ring).is_held());
}

fn woken_by_recovery() {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace)");
        return;
    }
    let _pinned = Pinned::new();
    let test = TestArena::new(small());
    let ring = Messages::create(&test, SMALL).unwrap();
    let sleepers = [READY, READY, ROOM, DONE].map(|which| sleeper(&ring, which));
    let bytes = bytes_of(1, 100);
    die_when_changed(&ring, Words(&ring).body(40), || {
        stop();
        let _ = ring.put(&[Item::Bytes(&bytes)], &mut Patience::none());
    });
    // Whoever comes next tells of it.
    assert_eq!(ring.len().unwrap(), 1);
    sleepers.into_iter().for_each(Child::succeed);
    assert_eq!(take_all(&ring), [InBytes(1, 100)]);
}

/// A recovery that cannot be done now is done later.
fn failed_recovery() {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace)");
        return;
    }
    let _pinned = Pinned::new();
    let test = TestArena::new(ArenaSettings {
        patience: 20,
        ..small()
    });
    let ring = Messages::create(&test, SMALL).unwrap();
    a_death_under_the_lock("failed recovery", &test, &ring, &[InBlock(1, 300)]);
    let owner = stopped_owner(&test);
    assert!(matches!(ring.len(), Err(Error::Busy { .. })));
    owner.kill();
    assert_eq!(ring.len().unwrap(), 0);
    test.reap().unwrap();
    // The ring, and no block that nobody has put.
    let now = snapshot(&test);
    assert_eq!((now.live().count(), now.open().count()), (1, 0));
}

/// Who cannot take a block leaves it, and what is behind it.
fn failed_take() {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace)");
        return;
    }
    let test = TestArena::new(ArenaSettings {
        patience: 20,
        ..small()
    });
    let ring = Messages::create(&test, SMALL).unwrap();
    let all = [InBytes(1, 100), InBlock(2, 100), InBytes(3, 100)];
    put(&ring, &test, &all);
    let owner = stopped_owner(&test);
    let taken = ring.take(3, &mut Patience::none()).unwrap();
    assert_eq!(taken.iter().map(read).collect::<Vec<_>>(), all[..1]);
    let failed = ring.take(3, &mut Patience::none());
    assert!(matches!(failed, Err(Error::Busy { .. })));
    owner.kill();
    assert_eq!(take_all(&ring), all[1..]);
}

fn closed() {
    let test = TestArena::new(small());
    let ring = Messages::create(&test, SMALL).unwrap();
    for which in [READY, ROOM, DONE] {
        let sleepers = [sleeper(&ring, which), sleeper(&ring, which)];
        ring.base().close();
        sleepers.into_iter().for_each(Child::succeed);
    }
    let none = &mut Patience::none();
    assert!(matches!(ring.take(1, none), Err(Error::Closed)));
    let item = [Item::Bytes(b"late")];
    assert!(matches!(ring.put(&item, none), Err(Error::Closed)));

    // It is closed for this process's threads; others go on.
    let ring = Messages::open(ring.base().block().clone()).unwrap();
    let mut child = fork(|| {
        let taken = ring.take(1, &mut Patience::new(None)).unwrap();
        (taken.len() != 1) as i32
    });
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| ring.take(1, &mut Patience::new(None)).map(|_| ()));
        until("nobody sleeps", || {
            Words(&ring).mark(READY).load(Ordering::SeqCst) != 0 && is_asleep(child.pid)
        });
        std::thread::sleep(Duration::from_millis(5));
        ring.base().close();
        assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
    });
    let open = Messages::open(ring.base().block().clone()).unwrap();
    put(&open, &test, &[InBytes(1, 30)]);
    assert_eq!(child.wait(), 0);
}

/// A child that holds the arena's lock, and has stopped.
fn stopped_owner(arena: &Arena) -> Child {
    let mut owner = traced(|| {
        stop();
        arena.core().is_unlinked(arena.member().unwrap()).unwrap();
    });
    while arena.core().header().owner.get() == 0 {
        assert!(!step(&mut owner, 1), "the lock was never held");
    }
    owner
}

/// A thread waits for the lock while another one of its process has it.
fn lock_between_threads() {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace)");
        return;
    }
    let test = TestArena::new(small());
    let ring = Messages::create(&test, SMALL).unwrap();
    let block = Ready::new(&test, InBlock(1, 100));
    let owner = stopped_owner(&test);
    std::thread::scope(|scope| {
        // It has the ring's lock while it waits for the arena's.
        let first = scope.spawn(|| ring.put(&[block.item()], &mut Patience::none()));
        until("the lock is not held", || Words(&ring).is_held());
        let second = scope.spawn(|| ring.len());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished(), "two owners");
        owner.kill();
        assert_eq!(first.join().unwrap().unwrap(), 1);
        assert_eq!(second.join().unwrap().unwrap(), 1);
    });
    drop(block);
    assert_eq!(take_all(&ring), [InBlock(1, 100)]);
}

/// Threads of one process exclude each other as processes do.
fn threads() {
    let test = TestArena::new(small());
    let ring = Messages::create(&test, Settings { limit: 3, ..SMALL }).unwrap();
    let each = times(40_000);
    let produce = |first: u64| {
        for number in first..first + each {
            let bytes = bytes_of(number, 40);
            let count = ring.put(&[Item::Bytes(&bytes)], &mut Patience::new(None));
            assert_eq!(count.unwrap(), 1);
        }
    };
    let consume = || {
        let mut numbers = Vec::new();
        for _ in 0..each {
            let taken = ring.take(1, &mut Patience::new(None)).unwrap();
            match read(&taken[0]) {
                InBytes(number, 40) => numbers.push(number),
                other => panic!("{other:?}"),
            }
        }
        for half in [0, each] {
            let of_one = numbers
                .iter()
                .filter(|number| (half..half + each).contains(number));
            assert!(of_one.is_sorted(), "not in order");
        }
        numbers
    };
    let mut all = std::thread::scope(|scope| {
        for first in [0, each] {
            scope.spawn(move || produce(first));
        }
        let takers = [scope.spawn(consume), scope.spawn(consume)];
        takers.map(|taker| taker.join().unwrap()).concat()
    });
    all.sort_unstable();
    assert_eq!(all, (0..2 * each).collect::<Vec<u64>>());
}

/// What another process has taken into use is found.
fn bodies_of_others() {
    let test = TestArena::new(ArenaSettings {
        size: 16 << 20,
        ..small()
    });
    let settings = Settings {
        longest: 8 << 20,
        ..SMALL
    };
    let ring = Messages::create(&test, settings).unwrap();
    // Something else comes to lie where each body was, so that the next one lies elsewhere.
    let mut between = Vec::new();
    let mut places = BTreeSet::new();
    for round in 0..3 {
        put(&ring, &test, &[InBytes(round, 100)]);
        let long = InBytes(100 + round, 4_500_000);
        fork(|| {
            put(&ring, &test, &[long, InBlock(200 + round, 500)]);
            0
        })
        .succeed();
        let current = Words(&ring).body(0).load(Ordering::SeqCst) as u32;
        let now = snapshot(&test);
        let body = now.live().find(|each| each.id == current).unwrap();
        let (address, size) = (body.address, body.size);
        assert!(places.insert(address), "the bodies lie at one place");
        let taken = ring.take(2, &mut Patience::none()).unwrap();
        let taken: Vec<Message> = taken.iter().map(read).collect();
        assert_eq!(taken, [InBytes(round, 100), long]);
        fork(|| {
            assert_eq!(take_all(&ring), [InBlock(200 + round, 500)]);
            0
        })
        .succeed();
        // The short one again, without a message.
        assert_eq!(Words(&ring).body(24).load(Ordering::SeqCst), 4096);
        test.reap().unwrap();
        let now = snapshot(&test);
        let others = between.len();
        assert_eq!((now.live().count(), now.open().count()), (1 + others, 0));
        between.push(test.allocate(size).unwrap());
    }
}

fn limits() {
    let test = TestArena::new(small());
    for limit in 1..=3 {
        let ring = Messages::create(&test, Settings { limit, ..SMALL }).unwrap();
        let messages: Vec<Message> = (0..limit).map(|i| InBytes(i, 30)).collect();
        for round in 0..3 {
            let late = bytes_of(9, 30);
            let ready: Vec<Vec<u8>> = (0..limit).map(|i| bytes_of(i, 30)).collect();
            let mut items: Vec<Item<'_>> = ready.iter().map(|each| Item::Bytes(each)).collect();
            items.push(Item::Bytes(&late));
            // At once, or one by one.
            if round == 1 {
                for item in &items[..limit as usize] {
                    assert_eq!(ring.put(&[*item], &mut Patience::none()).unwrap(), 1);
                }
            } else {
                let count = ring.put(&items, &mut Patience::none()).unwrap();
                assert_eq!(count as u64, limit);
            }
            assert_eq!(ring.put(&items, &mut Patience::none()).unwrap(), 0);
            assert_eq!(ring.len().unwrap(), limit);
            assert_eq!(take_all(&ring), messages);
        }
    }
    // As long as a body is, and no longer.
    let ring = Messages::create(&test, SMALL).unwrap();
    put(&ring, &test, &[InBytes(1, 4088)]);
    assert_eq!(take_all(&ring), [InBytes(1, 4088)]);
    let bytes = bytes_of(1, 4089);
    let longer = ring.put(&[Item::Bytes(&bytes)], &mut Patience::none());
    assert!(matches!(longer, Err(Error::Full { .. })));
    // The empty one and the shortest ones.
    for length in 0..32 {
        let bytes = vec![7; length];
        assert_eq!(
            ring.put(&[Item::Bytes(&bytes)], &mut Patience::none())
                .unwrap(),
            1
        );
        match &ring.take(1, &mut Patience::none()).unwrap()[0] {
            Taken::Bytes(taken) => assert_eq!(*taken, bytes),
            Taken::Block(_) => panic!("a block"),
        }
    }
}

/// What cannot be is an error, now and from then on, and nothing else happens.
fn contradictions() {
    let test = TestArena::new(small());
    // A byte of the ring's block, or of its body (from 512 on), and a value.
    let wrongs: &[(usize, u32)] = &[
        // The body in use.
        (344, 2),
        (344, u32::MAX),
        // The body's length, place of the next message and of the next that is put.
        (384 + 24, 4097),
        (384 + 24, 1 << 20),
        (384 + 32, 1000),
        (384 + 40, 1000),
        (384 + 44, 0),
        // A message's length and kind.
        (512, 4096),
        (512, 200),
        (512, u32::MAX),
        (512, u32::MAX - 7),
        (516, 2),
        (516, 1),
        // Of the second message: how many there are, and a reference's length.
        (384 + 44, 1),
        (512 + 112, 16),
    ];
    let spoil = |ring: &Messages, byte: usize, value: u32, right: usize| {
        Words(ring).short(byte).store(value, Ordering::SeqCst);
        for _ in 0..right {
            let taken = ring.take(1, &mut Patience::none()).unwrap();
            assert_eq!(read(&taken[0]), InBytes(1, 100));
        }
        match ring.take(1, &mut Patience::none()) {
            Err(Error::Corrupted { .. }) => {}
            other => panic!("{byte}, {value}: {:?}", other.map(|taken| taken.len())),
        }
        assert_ne!(Words(ring).short(68).load(Ordering::SeqCst) & POISONED, 0);
        assert!(matches!(ring.len(), Err(Error::Corrupted { .. })));
        let item = [Item::Bytes(b"late")];
        let late = ring.put(&item, &mut Patience::none());
        assert!(matches!(late, Err(Error::Corrupted { .. })));
    };
    for (i, (byte, value)) in wrongs.iter().enumerate() {
        let ring = Messages::create(&test, SMALL).unwrap();
        put(&ring, &test, &[InBytes(1, 100), InBlock(2, 100)]);
        let right = (i + 2 >= wrongs.len()) as usize;
        spoil(&ring, *byte, *value, right);
    }
    // In the row of a body that is a block of its own: no ticket, its length, its places.
    let longer = Settings {
        longest: 8192,
        ..SMALL
    };
    for (byte, value) in [(4, NIL), (24, 4097), (24, 1 << 20), (32, 1000), (40, 1000)] {
        let ring = Messages::create(&test, longer).unwrap();
        put(&ring, &test, &[InBytes(1, 100), InBytes(2, 4000)]);
        spoil(&ring, 384 + 64 + byte, value, 0);
    }
    assert_empty(&test);
    // What is no ring is none.
    let block = test.allocate(4096).unwrap();
    fill(&block, 0);
    assert!(matches!(
        Messages::open(block),
        Err(Error::BadHandle { .. })
    ));
    let block = test.allocate(64).unwrap();
    assert!(matches!(
        Messages::open(block),
        Err(Error::BadHandle { .. })
    ));
}

/// A frame is not filled anew while its block is on its way to somebody.
fn frames_on_their_way() {
    let test = TestArena::new(small());
    let none = || Patience::none();
    let ring = Frames::create(&test, 1, 64, true, 0).unwrap();
    let blank = ring.blank(&mut none()).unwrap().unwrap();
    ring.write(&blank.block, blank.index).unwrap();
    drop(blank);
    let view = ring.read(&mut none()).unwrap().unwrap();
    let handle = test.send(&view.block).unwrap();
    drop(view);
    ring.let_go().unwrap();
    // Nobody holds it.
    assert!(ring.blank(&mut none()).unwrap().is_none());
    let received = test.receive(&handle).unwrap();
    assert!(ring.blank(&mut none()).unwrap().is_none());
    drop(received);
    let handle = test.send(&ring.latest(&mut none()).unwrap().unwrap().block);
    assert!(ring.blank(&mut none()).unwrap().is_none());
    test.cancel(&handle.unwrap()).unwrap();
    drop(ring.blank(&mut none()).unwrap().unwrap());
    ring.leave().unwrap();
    drop(ring);
    assert_empty(&test);
}
