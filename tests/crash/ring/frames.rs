//! Death after every single instruction of what is done with a ring of frames.
//!
//! As in `step`. Each frame is stamped with its number and has bytes that follow from it. Each
//! time, when the parent has taken the ring's lock and has reaped:
//!
//! * the frames that are there are those before the operation or those after it, and each is
//!   whole; the next number is one more than the greatest there was;
//! * a reader that comes now sees all of them, in order, and none is taken from it unless the
//!   ring overwrites;
//! * all frames that nobody looks at can be filled and read, with the numbers that follow;
//! * the frame that the parent looks at is what it was;
//! * the ring answers for its frames and nothing else, and when it is gone, all is as before.

use super::step::{without_segments, words_of, Order, ORDERS};
use super::*;
use crate::instructions::*;
use crate::step::{picture, tables_of, Picture};
use crate::tools::*;
use shared_numpy::arena::format::TicketOwner;
use shared_numpy::ring::frames::{Frames, View};

pub const TESTS: &[Test] = &[("step_every_frame_operation", every_operation)];

/// How many frames a ring has, and how long they are.
const SLOTS: usize = 3;
const LENGTH: usize = 192;

/// What the child does.
#[derive(Clone, Copy)]
enum Does {
    Blank,
    /// Asks for a blank when there is none.
    BlankInVain,
    Write,
    /// A blank, its bytes, and writing it.
    Fill,
    /// Reads, after so many times before.
    Read(usize),
    /// Reads with a ring that it has opened itself, as one that has not read before.
    ReadAsNew,
    /// Waits for a frame for so many microseconds.
    Wait(u64),
    Latest,
    /// Lets go of a view.
    LetGo,
    Leave,
    /// Joins with a ring that it has opened itself.
    Join,
    /// Opens the ring and looks into it.
    Open,
    /// Makes another ring.
    Create,
    Written,
}

struct Operation {
    name: &'static str,
    overwrites: bool,
    /// For how many readers the ring waits.
    awaited: usize,
    /// The parent is a reader from the first on.
    joins: bool,
    /// A reader has come before all, and has died.
    dead_reader: bool,
    /// How many frames were written.
    written: u64,
    /// How many of those that there were the parent has read.
    reads: usize,
    /// It still looks at the last one of these.
    looks: bool,
    /// Somebody died when he had written one more, and had not counted it.
    dying: bool,
    does: Does,
    /// The frames that there are, from before the operation to after it.
    stages: &'static [&'static [u64]],
}

const SIMPLE: Operation = Operation {
    name: "",
    overwrites: false,
    awaited: 0,
    joins: false,
    dead_reader: false,
    written: 3,
    reads: 0,
    looks: false,
    dying: false,
    does: Does::Written,
    stages: &[&[0, 1, 2]],
};

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "frames: blank of an empty slot",
        written: 1,
        does: Does::Blank,
        stages: &[&[0]],
        ..SIMPLE
    },
    Operation {
        name: "frames: blank of a read one",
        reads: 2,
        does: Does::Blank,
        stages: &[&[0, 1, 2], &[1, 2]],
        ..SIMPLE
    },
    Operation {
        name: "frames: blank that overwrites",
        overwrites: true,
        written: 5,
        reads: 1,
        looks: true,
        does: Does::Blank,
        stages: &[&[2, 3, 4], &[2, 4]],
        ..SIMPLE
    },
    Operation {
        name: "frames: blank in vain",
        dead_reader: true,
        reads: 1,
        looks: true,
        does: Does::BlankInVain,
        ..SIMPLE
    },
    Operation {
        name: "frames: write",
        written: 1,
        does: Does::Write,
        stages: &[&[0], &[0, 1]],
        ..SIMPLE
    },
    Operation {
        name: "frames: write over another",
        overwrites: true,
        written: 5,
        does: Does::Write,
        stages: &[&[3, 4], &[3, 4, 5]],
        ..SIMPLE
    },
    Operation {
        name: "frames: fill",
        overwrites: true,
        written: 5,
        reads: 1,
        looks: true,
        does: Does::Fill,
        stages: &[&[2, 3, 4], &[2, 4], &[2, 4, 5]],
        ..SIMPLE
    },
    Operation {
        name: "frames: first read",
        reads: 2,
        does: Does::ReadAsNew,
        ..SIMPLE
    },
    Operation {
        name: "frames: later read",
        does: Does::Read(1),
        ..SIMPLE
    },
    Operation {
        name: "frames: read in vain",
        written: 1,
        does: Does::Wait(500),
        stages: &[&[0]],
        ..SIMPLE
    },
    Operation {
        name: "frames: latest",
        does: Does::Latest,
        ..SIMPLE
    },
    Operation {
        name: "frames: let go",
        reads: 1,
        looks: true,
        does: Does::LetGo,
        ..SIMPLE
    },
    Operation {
        name: "frames: leave",
        does: Does::Leave,
        ..SIMPLE
    },
    Operation {
        name: "frames: join of an awaited reader",
        awaited: 1,
        written: 0,
        does: Does::Join,
        stages: &[&[]],
        ..SIMPLE
    },
    Operation {
        name: "frames: the first blank",
        awaited: 1,
        joins: true,
        written: 0,
        does: Does::Blank,
        stages: &[&[]],
        ..SIMPLE
    },
    Operation {
        name: "frames: the first blank in vain",
        awaited: 1,
        dead_reader: true,
        written: 0,
        does: Does::BlankInVain,
        stages: &[&[]],
        ..SIMPLE
    },
    Operation {
        name: "frames: open",
        does: Does::Open,
        ..SIMPLE
    },
    Operation {
        name: "frames: create",
        does: Does::Create,
        ..SIMPLE
    },
    Operation {
        name: "frames: recovery after a write",
        written: 1,
        dying: true,
        stages: &[&[0, 1]],
        ..SIMPLE
    },
];

/// Writes the bytes of the frame of this number.
fn stamp(block: &Block, bytes: &[u8]) {
    // SAFETY: the block is as long, and nobody else has it while it is filled.
    let all = unsafe { std::slice::from_raw_parts_mut(block.bytes().as_ptr(), bytes.len()) };
    all.copy_from_slice(bytes);
}

/// Fills a blank and writes it; its number.
fn fill_one(ring: &Frames) -> u64 {
    let blank = ring.blank(&mut Patience::none()).unwrap().unwrap();
    stamp(&blank.block, &bytes_of(ring.written().unwrap(), LENGTH));
    let number = ring.write(&blank.block, blank.index).unwrap();
    drop(blank);
    ring.let_go().unwrap();
    number
}

fn read_one(ring: &Frames) -> Option<View> {
    ring.read(&mut Patience::none()).unwrap()
}

/// Whether a frame has the bytes of its number, all of them.
fn is_whole(view: &View) -> bool {
    bytes_in(&view.block)[..LENGTH] == bytes_of(view.number, LENGTH)
}

/// The numbers of the frames that are there, as they lie in the ring: see `ring::frames`.
fn numbers(ring: &Frames) -> Vec<u64> {
    let rows = words_of(ring.base().block(), 4480..4480 + 64 * SLOTS).chunks(8);
    let filled = rows.map(|row| row[0].load(Ordering::SeqCst));
    let mut all: Vec<u64> = filled.filter_map(|filled| filled.checked_sub(1)).collect();
    all.sort();
    all
}

/// Whether somebody, dead or alive, has the ring's lock.
fn is_held(ring: &Frames) -> bool {
    words_of(ring.base().block(), 64..72)[0].load(Ordering::SeqCst) as u32 != 0
}

fn does(operation: &Operation, ring: &Frames) {
    let none = &mut Patience::none();
    // It is a process of the arena before.
    let next = ring.written().unwrap();
    match operation.does {
        Does::Blank => {
            stop();
            std::mem::forget(ring.blank(none).unwrap().unwrap());
        }
        Does::BlankInVain => {
            stop();
            assert!(ring.blank(none).unwrap().is_none());
        }
        Does::Write => {
            let blank = ring.blank(none).unwrap().unwrap();
            stamp(&blank.block, &bytes_of(next, LENGTH));
            stop();
            assert_eq!(ring.write(&blank.block, blank.index).unwrap(), next);
            std::mem::forget(blank);
        }
        Does::Fill => {
            let bytes = bytes_of(next, LENGTH);
            stop();
            let blank = ring.blank(none).unwrap().unwrap();
            stamp(&blank.block, &bytes);
            assert_eq!(ring.write(&blank.block, blank.index).unwrap(), next);
            std::mem::forget(blank);
        }
        Does::Read(before) => {
            for _ in 0..before {
                read_one(ring).unwrap();
            }
            stop();
            std::mem::forget(read_one(ring).unwrap());
        }
        Does::ReadAsNew => {
            let own = Frames::open(ring.base().block().clone()).unwrap();
            stop();
            std::mem::forget(read_one(&own).unwrap());
            std::mem::forget(own);
        }
        Does::Join => {
            let own = Frames::open(ring.base().block().clone()).unwrap();
            stop();
            own.join().unwrap();
            std::mem::forget(own);
        }
        Does::Wait(time) => {
            read_one(ring).unwrap();
            let mut patience = Patience::new(Some(Duration::from_micros(time)));
            stop();
            assert!(ring.read(&mut patience).unwrap().is_none());
        }
        Does::Latest => {
            stop();
            std::mem::forget(ring.latest(none).unwrap().unwrap());
        }
        Does::LetGo => {
            let view = read_one(ring).unwrap();
            stop();
            drop(view);
            ring.let_go().unwrap();
        }
        Does::Leave => {
            read_one(ring).unwrap();
            stop();
            ring.leave().unwrap();
        }
        Does::Open => {
            let block = ring.base().block().clone();
            stop();
            let opened = Frames::open(block).unwrap();
            assert_eq!(opened.written().unwrap(), next);
            std::mem::forget(opened);
        }
        Does::Create => {
            let arena = ring.base().block().arena();
            stop();
            std::mem::forget(Frames::create(arena, SLOTS, LENGTH as u64, false, 0).unwrap());
        }
        Does::Written => {
            stop();
            assert_eq!(ring.written().unwrap(), next);
        }
    }
}

/// A child that dies under the ring's lock, when the frame that it writes is there and not
/// counted.
fn a_death_while_writing(ring: &Frames) {
    let before = numbers(ring).len();
    let operation = Operation {
        does: Does::Write,
        ..SIMPLE
    };
    let mut child = traced(|| does(&operation, ring));
    let is_there = || numbers(ring).len() != before;
    reach("a death while writing", &mut child, &[&is_there], 0);
    child.kill();
    assert!(is_there() && is_held(ring));
}

/// A ring of frames in an arena of its own, as an operation finds it.
struct Scene {
    // Dropped in this order.
    view: Option<View>,
    ring: Frames,
    test: TestArena,
    own: Picture,
}

impl Scene {
    fn new(operation: &Operation) -> Self {
        let test = TestArena::new(small());
        let own = without_segments(picture(&snapshot(&test)));
        let ring = Frames::create(
            &test,
            SLOTS,
            LENGTH as u64,
            operation.overwrites,
            operation.awaited,
        )
        .unwrap();
        if operation.joins {
            ring.join().unwrap();
        }
        if operation.dead_reader {
            fork(|| read_one(&ring).is_some() as i32).succeed();
        }
        for number in 0..operation.written {
            assert_eq!(fill_one(&ring), number);
        }
        let mut view = None;
        for _ in 0..operation.reads {
            view = Some(read_one(&ring).unwrap());
        }
        let view = view.filter(|_| operation.looks);
        if operation.dying {
            a_death_while_writing(&ring);
        }
        Scene {
            view,
            ring,
            test,
            own,
        }
    }

    fn begin(&self, operation: &Operation) -> Child {
        traced(|| does(operation, &self.ring))
    }
}

/// What is watched: the arena's tables, the ring's head and some readers, and the frames.
fn watched(ring: &Frames) -> [&[AtomicU64]; 3] {
    let block = ring.base().block();
    let [head, frames] =
        [0..384 + 64 * 4, 4480..4480 + 64 * SLOTS].map(|part| words_of(block, part));
    [tables_of(block.arena()), head, frames]
}

/// All frames that can be filled now, and one more if that is had.
fn blanks(ring: &Frames) -> Vec<shared_numpy::ring::frames::Blank> {
    let blank = || ring.blank(&mut Patience::none()).unwrap();
    std::iter::from_fn(blank).take(SLOTS + 1).collect()
}

/// Runs one child to a moment and kills it. Returns whether it came there, and whether the
/// ring's lock was held.
fn trial(operation: &Operation, run: &Run, moment: Moment, order: Order) -> (Came, bool) {
    let why = format!("{}, {moment:?}, {order:?}", operation.name);
    let scene = Scene::new(operation);
    let mut child = scene.begin(operation);
    let Scene {
        mut view,
        ring,
        test,
        own,
    } = scene;
    let block = ring.base().block();
    let came = run.bring(&mut child, moment, &watched(&ring));
    child.kill();
    let ended = came == Came::Ended;
    let held = is_held(&ring);
    if order == Order::ArenaFirst {
        snapshot(&test);
    }
    let next = ring.written().unwrap();
    test.reap().unwrap();

    let there = numbers(&ring);
    let (first, last) = (operation.stages[0], *operation.stages.last().unwrap());
    let right = match (ended, moment) {
        (true, _) => there == last,
        (_, Moment::Instruction(0)) => there == first,
        _ => operation.stages.contains(&&there[..]),
    };
    assert!(right, "{why}: there are {there:?}");
    let written = there.last().map_or(0, |last| last + 1);
    assert_eq!(next, written.max(operation.written), "{why}");

    // One that has not read before; the parent's part as a reader ends.
    ring.leave().unwrap();
    let fresh = Frames::open(block.clone()).unwrap();
    let mut found = Vec::new();
    while let Some(seen) = read_one(&fresh) {
        assert!(is_whole(&seen), "{why}: {}", seen.number);
        found.push(seen.number);
        if found.len() == 1 && !operation.overwrites {
            // It looks at the first one, and has not read the others.
            let count = blanks(&ring).len();
            assert_eq!(count, SLOTS - there.len(), "{why}");
        }
    }
    // It begins behind the last gap.
    let follows = |number: &&u64| (**number..written).all(|each| there.contains(&each));
    let expected: Vec<u64> = there.iter().filter(follows).copied().collect();
    assert_eq!(found, expected, "{why}");
    let newest = fresh.latest(&mut Patience::none()).unwrap();
    assert!(newest.iter().all(is_whole), "{why}");
    let newest = newest.map(|view| view.number);
    assert_eq!(newest, there.last().copied(), "{why}");

    // All that nobody looks at, once with the parent's view and once without.
    let mut next = next;
    for looked_at in [view.is_some() as usize, 0] {
        let all = blanks(&fresh);
        assert_eq!(all.len(), SLOTS - looked_at, "{why}");
        for blank in all {
            stamp(&blank.block, &bytes_of(next, LENGTH));
            let number = fresh.write(&blank.block, blank.index).unwrap();
            assert_eq!(number, next, "{why}");
            drop(blank);
            let seen = read_one(&fresh).unwrap();
            assert_eq!((seen.number, seen.skipped), (next, 0), "{why}");
            assert!(is_whole(&seen), "{why}: {next}");
            next += 1;
        }
        assert!(read_one(&fresh).is_none(), "{why}");
        if let Some(view) = view.take() {
            assert!(is_whole(&view), "{why}: a frame changed under a view");
        }
    }

    // The ring and its frames, and nothing of the child.
    fresh.leave().unwrap();
    drop(fresh);
    let id = block.which().id;
    let now = snapshot(&test);
    assert_eq!(now.live().count(), 1 + SLOTS, "{why}");
    assert_eq!(now.open().count(), SLOTS, "{why}");
    let mut tickets = now.open();
    assert!(
        tickets.all(|ticket| ticket.owner == Ok(TicketOwner::Block(id))),
        "{why}"
    );
    drop(ring);
    test.reap().unwrap();
    assert_eq!(
        without_segments(picture(&snapshot(&test))),
        own,
        "{why}: left"
    );
    assert_empty(&test);
    (came, held)
}

fn every_operation(full: bool) {
    each_operation(
        "step_every_frame_operation",
        full,
        OPERATIONS,
        |operation| operation.name,
        |operation| {
            let scene = Scene::new(operation);
            let is_timed = matches!(operation.does, Does::Wait(_));
            let run = Run::record(scene.begin(operation), &watched(&scene.ring), is_timed);
            drop(scene);
            let mut trial = |moment, order| trial(operation, &run, moment, order);
            die_everywhere(operation.name, full, &run, ORDERS, &mut trial)
        },
    );
}
