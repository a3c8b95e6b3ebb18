//! Death after every single instruction of what is done with a ring.
//!
//! As in `crate::step`; what is watched are the arena's tables and the head of the ring's block.
//! Each time:
//!
//! * the ring's messages are those that there were and as many of those that the child put, in
//!   order, whole and once each; some of the first may be gone if the child was taking, and
//!   the one that it was withdrawing;
//! * as many of them are reported as done as the child has reported, or one less;
//! * the ring takes two more messages, in the bodies that it has;
//! * when it is empty and the child reaped, it answers for its body and nothing else, and when
//!   it is gone, all is as before.

use super::*;
use crate::instructions::*;
use crate::step::{fill, is_filled, picture, tables_of, Picture};
use crate::tools::*;
use shared_numpy::arena::format::{TicketOwner, NO_CHECK};
use shared_numpy::process::Settings as ArenaSettings;

pub const TESTS: &[Test] = &[("step_every_ring_operation", every_operation)];

/// What the child does.
#[derive(Clone, Copy)]
enum Does {
    Put(&'static [Message]),
    Take(usize),
    Report,
    /// Takes one out behind which there are so many.
    Withdraw(usize),
    Join,
    Len,
    /// Opens the ring and looks into it.
    Open,
    /// Makes another ring.
    Create,
    /// Waits for a message for so many microseconds.
    Wait(u64),
    /// Waits for room for a message, as long.
    WaitForRoom(u64),
}

struct Operation {
    name: &'static str,
    arena: fn(ArenaSettings) -> ArenaSettings,
    ring: Settings,
    /// Runs in the parent, and leaves `holds` in the ring.
    before: fn(&Arena, &Messages),
    holds: &'static [Message],
    /// Somebody died under the ring's lock while he put these, before they were put.
    dying: &'static [Message],
    /// Somebody waits for a message.
    sleeper: bool,
    /// Somebody puts this when the child waits, or is dead.
    helper: &'static [Message],
    does: Does,
}

const SIMPLE: Operation = Operation {
    name: "",
    arena: |settings| settings,
    ring: SMALL,
    before: |_, _| {},
    holds: &[],
    dying: &[],
    sleeper: false,
    helper: &[],
    does: Does::Len,
};

const TWO: &[Message] = &[InBytes(1, 100), InBytes(2, 40)];
const THREE: &[Message] = &[InBytes(1, 100), InBlock(2, 700), InBytes(3, 40)];
const BYTES_IN_THE_MIDDLE: &[Message] = &[InBlock(1, 700), InBytes(2, 100), InBytes(3, 40)];
/// About half of the first body, in pieces that are copied in few instructions.
const HALF: &[Message] = &[InBytes(1, 1000), InBlock(2, 700), InBytes(3, 1048)];
const ROW: &[Message] = &[InBytes(11, 100), InBlock(12, 300), InBytes(13, 40)];

/// The places are near the end of the body.
fn near_the_end(arena: &Arena, ring: &Messages) {
    put(ring, arena, &[InBytes(0, 3900)]);
    take_all(ring);
}

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "ring: put of bytes",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Put(&[InBytes(11, 200)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put of bytes around the end",
        before: near_the_end,
        does: Does::Put(&[InBytes(11, 500)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put of a block",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Put(&[InBlock(11, 700)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put of a block into new rows",
        before: |arena, ring| {
            let blocks: Vec<Message> = (0..17).map(|i| InBlock(i, 64)).collect();
            put(ring, arena, &blocks[1..]);
        },
        holds: &[
            InBlock(1, 64),
            InBlock(2, 64),
            InBlock(3, 64),
            InBlock(4, 64),
            InBlock(5, 64),
            InBlock(6, 64),
            InBlock(7, 64),
            InBlock(8, 64),
            InBlock(9, 64),
            InBlock(10, 64),
            InBlock(11, 64),
            InBlock(12, 64),
            InBlock(13, 64),
            InBlock(14, 64),
            InBlock(15, 64),
            InBlock(16, 64),
        ],
        does: Does::Put(&[InBlock(17, 64)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put of several",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Put(ROW),
        ..SIMPLE
    },
    Operation {
        name: "ring: put of what there is no room for",
        ring: Settings { limit: 2, ..SMALL },
        before: |arena, ring| put(ring, arena, &TWO[..1]),
        holds: &[InBytes(1, 100)],
        does: Does::Put(&[InBytes(11, 100), InBytes(12, 100)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put that wakes a sleeper",
        sleeper: true,
        does: Does::Put(&[InBytes(11, 200)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: put into a longer body",
        ring: Settings {
            longest: 16384,
            ..SMALL
        },
        before: |arena, ring| {
            near_the_end(arena, ring);
            put(ring, arena, HALF);
        },
        holds: HALF,
        does: Does::Put(&[InBytes(11, 2000)]),
        ..SIMPLE
    },
    Operation {
        name: "ring: take of bytes",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Take(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: take of bytes around the end",
        before: |arena, ring| {
            near_the_end(arena, ring);
            put(ring, arena, &[InBytes(1, 600), InBytes(2, 16)]);
        },
        holds: &[InBytes(1, 600), InBytes(2, 16)],
        does: Does::Take(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: take of a block",
        before: |arena, ring| put(ring, arena, &[InBlock(1, 700), InBytes(2, 40)]),
        holds: &[InBlock(1, 700), InBytes(2, 40)],
        does: Does::Take(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: take of several",
        before: |arena, ring| put(ring, arena, THREE),
        holds: THREE,
        does: Does::Take(5),
        ..SIMPLE
    },
    Operation {
        name: "ring: take from a longer body",
        ring: Settings {
            longest: 8192,
            ..SMALL
        },
        before: |arena, ring| {
            put(ring, arena, HALF);
            put(ring, arena, &[InBytes(4, 3000)]);
        },
        holds: &[
            InBytes(1, 1000),
            InBlock(2, 700),
            InBytes(3, 1048),
            InBytes(4, 3000),
        ],
        does: Does::Take(2),
        ..SIMPLE
    },
    Operation {
        name: "ring: take that leaves a long body",
        arena: |settings| ArenaSettings {
            size: 24 << 20,
            ..settings
        },
        ring: Settings {
            longest: 8 << 20,
            ..SMALL
        },
        before: |arena, ring| {
            put(ring, arena, &[InBytes(0, 4_500_000), InBytes(1, 100)]);
            ring.take(1, &mut Patience::none()).unwrap();
        },
        holds: &[InBytes(1, 100)],
        does: Does::Take(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: withdraw of bytes",
        before: |arena, ring| put(ring, arena, BYTES_IN_THE_MIDDLE),
        holds: BYTES_IN_THE_MIDDLE,
        does: Does::Withdraw(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: withdraw of a block",
        before: |arena, ring| put(ring, arena, THREE),
        holds: THREE,
        does: Does::Withdraw(1),
        ..SIMPLE
    },
    Operation {
        name: "ring: report of what is done",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Report,
        ..SIMPLE
    },
    Operation {
        name: "ring: join",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Join,
        ..SIMPLE
    },
    Operation {
        name: "ring: len",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Len,
        ..SIMPLE
    },
    Operation {
        name: "ring: open",
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::Open,
        ..SIMPLE
    },
    Operation {
        name: "ring: create",
        does: Does::Create,
        ..SIMPLE
    },
    Operation {
        name: "ring: wait in vain",
        does: Does::Wait(500),
        ..SIMPLE
    },
    Operation {
        name: "ring: wait for room in vain",
        ring: Settings { limit: 2, ..SMALL },
        before: |arena, ring| put(ring, arena, TWO),
        holds: TWO,
        does: Does::WaitForRoom(500),
        ..SIMPLE
    },
    Operation {
        name: "ring: wait and be woken",
        helper: &[InBytes(11, 100), InBytes(12, 100)],
        does: Does::Wait(600_000_000),
        ..SIMPLE
    },
    Operation {
        name: "ring: recovery after a put of a block",
        before: |arena, ring| put(ring, arena, THREE),
        holds: THREE,
        dying: &[InBlock(21, 700)],
        does: Does::Len,
        ..SIMPLE
    },
    Operation {
        name: "ring: recovery after a change of the body",
        ring: Settings {
            longest: 16384,
            ..SMALL
        },
        before: |arena, ring| put(ring, arena, THREE),
        holds: THREE,
        dying: &[InBytes(21, 4000)],
        does: Does::Take(1),
        ..SIMPLE
    },
];

fn does(operation: &Operation, arena: &Arena, ring: &Messages) {
    let none = &mut Patience::none();
    match operation.does {
        Does::Put(messages) => {
            let ready: Vec<Ready> = messages
                .iter()
                .map(|each| Ready::new(arena, *each))
                .collect();
            let items: Vec<Item<'_>> = ready.iter().map(Ready::item).collect();
            stop();
            ring.put(&items, none).unwrap();
            std::mem::forget(ready);
        }
        Does::Take(most) => {
            stop();
            std::mem::forget(ring.take(most, none).unwrap());
        }
        Does::Report => {
            stop();
            assert!(ring.report_done().unwrap());
        }
        Does::Withdraw(behind) => {
            stop();
            let taken = ring.withdraw(behind, |_| true).unwrap();
            assert!(taken.is_some());
            std::mem::forget(taken);
        }
        Does::Join => {
            stop();
            assert!(!ring.join(none).unwrap());
        }
        Does::Len => {
            stop();
            assert_eq!(ring.len().unwrap(), operation.holds.len() as u64);
        }
        Does::Open => {
            let block = ring.base().block().clone();
            stop();
            let opened = Messages::open(block).unwrap();
            assert_eq!(opened.len().unwrap(), operation.holds.len() as u64);
            std::mem::forget(opened);
        }
        Does::Create => {
            stop();
            std::mem::forget(Messages::create(arena, SMALL).unwrap());
        }
        Does::Wait(time) => {
            let mut patience = Patience::new(Some(Duration::from_micros(time)));
            stop();
            std::mem::forget(ring.take(1, &mut patience).unwrap());
        }
        Does::WaitForRoom(time) => {
            let mut patience = Patience::new(Some(Duration::from_micros(time)));
            let bytes = bytes_of(11, 50);
            stop();
            assert_eq!(ring.put(&[Item::Bytes(&bytes)], &mut patience).unwrap(), 0);
        }
    }
}

/// A child that dies under the ring's lock, when it has sent what it puts; always the same for
/// the same key.
pub fn a_death_under_the_lock(
    key: &str,
    arena: &Arena,
    ring: &Messages,
    messages: &'static [Message],
) {
    let operation = Operation {
        does: Does::Put(messages),
        ..SIMPLE
    };
    let mut child = traced(|| does(&operation, arena, ring));
    let header = arena.core().header();
    let owner = &header.owner;
    // An upkeep, which comes by the clock, would be another way.
    let checked = header.checked.get();
    header.checked.set(NO_CHECK);
    // First the ring's, then the arena's with it, then the ring's alone.
    let conditions: [&dyn Fn() -> bool; 3] = [
        &|| owner.get() == 0 && Words(ring).is_held(),
        &|| owner.get() != 0 && Words(ring).is_held(),
        &|| owner.get() == 0,
    ];
    reach(key, &mut child, &conditions, 0);
    child.kill();
    header.checked.set(checked);
    assert!(owner.get() == 0 && Words(ring).is_held());
}

/// What a child tells of what it has got.
struct Told {
    number: AtomicU64,
    goes: AtomicU32,
}

/// A child that waits for a message and tells its number. It sleeps when this returns.
fn sleeper(ring: &Messages, told: &'static Told) -> Child {
    told.number.store(0, Ordering::SeqCst);
    let child = fork(|| {
        let taken = ring.take(1, &mut Patience::new(None)).unwrap();
        let (InBytes(number, _) | InBlock(number, _)) = read(&taken[0]);
        told.number.store(number, Ordering::SeqCst);
        0
    });
    let mark = Words(ring).mark(READY);
    until("nobody sleeps", || {
        mark.load(Ordering::SeqCst) != 0 && is_asleep(child.pid)
    });
    child
}

/// A child that puts messages when somebody waits for them, or it is told to.
fn helper(
    arena: &Arena,
    ring: &Messages,
    messages: &'static [Message],
    told: &'static Told,
) -> Child {
    told.goes.store(0, Ordering::SeqCst);
    fork(|| {
        let mark = Words(ring).mark(READY);
        until("nobody waits", || {
            mark.load(Ordering::SeqCst) != 0 || told.goes.load(Ordering::SeqCst) != 0
        });
        put(ring, arena, messages);
        0
    })
}

/// A part of a ring's block.
pub fn words_of(block: &Block, bytes: std::ops::Range<usize>) -> &[AtomicU64] {
    assert!(bytes.start & 7 == 0 && bytes.end as u64 <= block.size());
    let first = block.bytes().as_ptr().wrapping_add(bytes.start);
    // SAFETY: so many bytes of the block are mapped there, aligned to 8; the words are atomic,
    // as above.
    unsafe { std::slice::from_raw_parts(first.cast(), bytes.len() / 8) }
}

/// A ring in an arena of its own, as an operation finds it.
struct Scene<'a> {
    operation: &'a Operation,
    // Dropped in this order.
    ring: Option<Messages>,
    base: Vec<Block>,
    test: TestArena,
    /// The arena before there was a ring.
    own: Picture,
    told: &'static Told,
}

impl<'a> Scene<'a> {
    fn new(operation: &'a Operation, told: &'static Told) -> Self {
        let test = TestArena::new((operation.arena)(small()));
        let base: Vec<Block> = (0..5).map(|_| test.allocate(1000).unwrap()).collect();
        let base: Vec<Block> = base.into_iter().step_by(2).collect();
        for (i, block) in base.iter().enumerate() {
            fill(block, i as u8 + 1);
        }
        let own = picture(&snapshot(&test));
        Scene {
            operation,
            ring: None,
            base,
            test,
            own,
            told,
        }
    }

    /// Makes the ring and the child that is about to begin, and those who help.
    fn begin(&mut self) -> (Child, Vec<Child>) {
        let arena = &self.test.arena;
        let ring = Messages::create(arena, self.operation.ring).unwrap();
        (self.operation.before)(arena, &ring);
        if !self.operation.dying.is_empty() {
            a_death_under_the_lock(self.operation.name, arena, &ring, self.operation.dying);
        }
        let child = traced(|| does(self.operation, arena, &ring));
        let mut others = Vec::new();
        if self.operation.sleeper {
            others.push(sleeper(&ring, self.told));
        }
        if !self.operation.helper.is_empty() {
            others.push(helper(arena, &ring, self.operation.helper, self.told));
        }
        self.ring = Some(ring);
        (child, others)
    }
}

/// How a ring and its arena are recovered: the arena before the ring, or by it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    ArenaFirst,
    RingFirst,
}

pub const ORDERS: &[Order] = &[Order::RingFirst, Order::ArenaFirst];

/// What is watched of an arena and of a ring in it.
fn watched<'a>(arena: &'a Arena, ring: &'a Messages) -> [&'a [AtomicU64]; 2] {
    [tables_of(arena), words_of(ring.base().block(), 0..512)]
}

/// What an operation does, instruction by instruction.
fn record(operation: &Operation, told: &'static Told) -> Run {
    let mut scene = Scene::new(operation, told);
    let (child, others) = scene.begin();
    let watched = watched(&scene.test.arena, scene.ring.as_ref().unwrap());
    // A wait that ends by itself.
    let is_timed = matches!(
        operation.does,
        Does::Wait(..1_000_000) | Does::WaitForRoom(_)
    );
    let run = Run::record(child, &watched, is_timed);
    drop(others);
    run
}

/// Runs one child to a moment and kills it. Returns whether it came there, and whether the
/// ring's lock was held.
fn trial(
    operation: &Operation,
    run: &Run,
    moment: Moment,
    order: Order,
    told: &'static Told,
) -> (Came, bool) {
    let why = format!("{}, {moment:?}, {order:?}", operation.name);
    let mut scene = Scene::new(operation, told);
    let (mut child, others) = scene.begin();
    let arena = &scene.test.arena;
    let ring = scene.ring.as_ref().unwrap();
    let came = run.bring(&mut child, moment, &watched(arena, ring));
    child.kill();
    let ended = came == Came::Ended;
    let held = Words(ring).is_held();
    if order == Order::ArenaFirst {
        snapshot(arena);
    }

    // What all have put, in order.
    let mut puts = operation.holds.to_vec();
    let (mut least, mut sure) = (puts.len(), 0);
    if let Does::Put(messages) = operation.does {
        let room = ring.limit().min(100) as usize - puts.len();
        puts.extend(messages.iter().take(room));
    }
    if ended {
        least = puts.len();
    }
    let most = match operation.does {
        Does::Take(most) => most,
        Does::Wait(_) => 1,
        _ => 0,
    };
    let mut found = Vec::new();
    told.goes.store(1, Ordering::SeqCst);
    if operation.sleeper {
        // It gets the child's message, or this one, which comes behind it.
        let extra = InBytes(90, 60);
        put(ring, arena, &[extra]);
        for other in others {
            other.succeed();
        }
        let got = told.number.load(Ordering::SeqCst);
        found.extend(puts.iter().chain([&extra]).find(|each| {
            let (InBytes(number, _) | InBlock(number, _)) = **each;
            number == got
        }));
        puts.push(extra);
        sure = 1;
    } else {
        for other in others {
            other.succeed();
        }
        puts.extend(operation.helper);
        sure += operation.helper.len();
    }

    found.extend(take_all(ring));
    let taken = match ended {
        true => most.min(puts.len())..=most.min(puts.len()),
        false => 0..=most.min(puts.len()),
    };
    if let Does::Withdraw(behind) = operation.does {
        let place = puts.len() - 1 - behind;
        if ended || !found.contains(&puts[place]) {
            puts.remove(place);
            least = puts.len();
        }
    }
    let (before, behind) = puts.split_at(puts.len() - sure);
    let put_count = (least..=before.len()).find(|count| {
        let all = [&before[..*count], behind].concat();
        taken.clone().any(|taken| all[taken..] == found)
    });
    let Some(put_count) = put_count else {
        panic!("{why}: found {found:?} of {puts:?}");
    };

    // What is not reported as done yet: of those, and of what was put and taken before.
    let total = Words(ring).body(40).load(Ordering::SeqCst) >> 32;
    let mut reports = 0;
    while ring.report_done().unwrap() {
        reports += 1;
    }
    let reported = matches!(operation.does, Does::Report) as u64;
    let possible = [total, total - reported];
    assert!(possible.contains(&reports), "{why}: {reports} of {total}");
    assert!(!(ended && reports != total - reported), "{why}: {reports}");
    assert!(total as usize >= put_count + sure, "{why}: {total}");
    assert!(ring.join(&mut Patience::none()).unwrap(), "{why}");

    let more = [InBytes(91, 60), InBlock(92, 200)];
    put(ring, arena, &more);
    assert_eq!(take_all(ring), more, "{why}");

    // The ring and its body, if that is a block of its own, and nothing of the child.
    until(&why, || {
        arena.reap().unwrap();
        arena.cancel_unreceived(0).unwrap();
        let now = snapshot(arena);
        let which = ring.base().block().which();
        let kept: Vec<_> = now.open().collect();
        let body = Words(ring).own_body();
        now.live().count() == scene.base.len() + 1 + body.is_some() as usize
            && kept.len() == body.is_some() as usize
            && kept.iter().all(|ticket| {
                ticket.owner == Ok(TicketOwner::Block(which.id)) && Some(ticket.block) == body
            })
    });
    scene.ring = None;
    arena.reap().unwrap();
    let left = without_segments(picture(&snapshot(arena)));
    assert_eq!(left, without_segments(scene.own), "{why}");
    for (i, block) in scene.base.iter().enumerate() {
        assert!(is_filled(block, i as u8 + 1), "{why}");
    }
    scene.base.clear();
    assert_empty(arena);
    (came, held)
}

/// What an arena's tables hold, but for the segments that it has grown by.
pub fn without_segments(mut picture: Picture) -> Picture {
    picture.retain(|name, _| !name.starts_with("segment"));
    picture
}

fn every_operation(full: bool) {
    let told: &'static Told = common();
    each_operation(
        "step_every_ring_operation",
        full,
        OPERATIONS,
        |operation| operation.name,
        |operation| {
            let run = record(operation, told);
            let mut trial = |moment, order| trial(operation, &run, moment, order, told);
            die_everywhere(operation.name, full, &run, ORDERS, &mut trial)
        },
    );
}
