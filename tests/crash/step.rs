//! Death after every single instruction.
//!
//! A child does one operation and is killed in the middle of it: after each
//! instruction that changed the tables and after each system call, which are all
//! the states of tables, files and locks that there are; and after a sample of all
//! instructions, or after every one (`--full`); see `instructions`. Each time:
//!
//! * the checker finds nothing wrong once the lock has been taken;
//! * every block, ticket, slot and segment is as it was before the operation or
//!   as it is after it, nothing in between and nothing else;
//! * after reaping, what the parent had is there to the last byte, and nothing
//!   of the child is.

use crate::instructions::*;
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::check::Snapshot;
use shared_numpy::arena::format::{
    pages_of, state_word, Address, SlotId, SlotRow, TicketOwner, ABSENT, ALIVE, EMPTY, RESERVED,
    SLOTS_AT,
};
use shared_numpy::arena::handle::Handle;
use shared_numpy::arena::Extent;
use shared_numpy::process::{Arena, Block, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

pub const TESTS: &[Test] = &[
    ("step_every_operation", every_operation),
    ("step_in_a_wide_arena", in_a_wide_arena),
];

/// Objects that are on the way, and how they look.
type Passing = &'static [(&'static str, &'static str)];

/// An operation: what the child does before, and what is stepped through.
struct Operation {
    name: &'static str,
    settings: fn(Settings) -> Settings,
    /// Runs in the parent before each child; what it returns lives as long.
    before: fn(&Arena) -> Given,
    /// Runs in the parent when the child is about to begin.
    meanwhile: fn(&Arena, &Given),
    /// Runs in the child; the second half starts at `stop()`.
    child: fn(&Arena, &Given),
    /// Other children, whose ends are stages on the way.
    ways: &'static [fn(&Arena, &Given)],
    /// Objects that are on the way, and how they look.
    passing: Passing,
    /// A process that knows nothing is the first to come after the death.
    stranger: bool,
    /// What may be absent on the way, though it is there before and after.
    absent: &'static [&'static str],
    /// Until when others have the slots that have bits in rows, and some more, in an arena for as
    /// many processes as can be.
    taken: Taken,
}

#[derive(Clone, Copy, PartialEq)]
enum Taken {
    /// The arena is one for as many as have bits in rows.
    Never,
    /// Until the child begins, which has a slot behind them.
    AtFirst,
    /// For as long as the child lives: what it does needs a slot.
    Throughout,
}

/// What the parent gives to its child.
#[derive(Default)]
struct Given {
    handles: Vec<Handle>,
    blocks: Vec<Block>,
}

/// Leaves a mess behind: a child that died with blocks and tickets.
fn a_death(arena: &Arena) -> Given {
    let given = one_block(arena);
    fork(|| {
        let a = arena.allocate(300).unwrap();
        let b = arena.allocate(300).unwrap();
        arena.send(&a).unwrap();
        arena.send(&given.blocks[0]).unwrap();
        drop(b);
        let _kept = arena
            .receive(&arena.send(&given.blocks[0]).unwrap())
            .unwrap();
        std::mem::forget(a);
        kill_self();
    })
    .wait();
    given
}

fn kill_self() -> ! {
    // SAFETY: a signal to this process, which does not come back.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!()
}

/// A child that dies while it holds the lock, in the middle of an allocation.
fn a_death_under_the_lock(arena: &Arena, given: &Given) {
    let mut child = start(arena, given, |arena, _| {
        let block = arena.allocate(300).unwrap();
        arena.send(&block).unwrap();
        stop();
        let other = arena.allocate(700).unwrap();
        std::mem::forget((block, other));
    });
    let is_held = || arena.core().header().owner.get() != 0;
    // Into the middle of the split.
    reach("a death under the lock", &mut child, &[&is_held], 80);
    child.kill();
    assert!(is_held());
}

fn one_block(arena: &Arena) -> Given {
    Given {
        blocks: vec![arena.allocate(640).unwrap()],
        ..Given::default()
    }
}

/// A block that lives by its ticket alone.
fn one_message(arena: &Arena) -> Given {
    let block = arena.allocate(640).unwrap();
    Given {
        handles: vec![arena.send(&block).unwrap()],
        ..Given::default()
    }
}

/// A block that answers for two messages, one of which answers for a block that
/// it speaks of.
fn messages(arena: &Arena) -> Block {
    let queue = arena.allocate(64).unwrap();
    for arrays in 0..2 {
        let message = arena.allocate(200).unwrap();
        for _ in 0..arrays {
            let array = arena.allocate(640).unwrap();
            let handle = arena.send(&array).unwrap();
            assert!(arena.transfer_ownership(&handle, &message).unwrap());
        }
        let handle = arena.send(&message).unwrap();
        assert!(arena.transfer_ownership(&handle, &queue).unwrap());
    }
    queue
}

const SIMPLE: Operation = Operation {
    name: "",
    settings: |settings| settings,
    before: |_| Given::default(),
    meanwhile: |_, _| {},
    child: |_, _| {},
    ways: &[],
    passing: &[],
    stranger: false,
    absent: &[],
    taken: Taken::Never,
};

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "lock and unlock",
        child: |arena, _| {
            stop();
            arena.core().is_unlinked(arena.member().unwrap()).unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "allocate with split",
        child: |arena, _| {
            stop();
            std::mem::forget(arena.allocate(700).unwrap());
        },
        ..SIMPLE
    },
    Operation {
        name: "free with merges on both sides",
        child: |arena, _| {
            let mut row: Vec<Block> = (0..4).map(|_| arena.allocate(640).unwrap()).collect();
            let middle = row.remove(1);
            drop(row.remove(0));
            drop(row.remove(0));
            stop();
            drop(middle);
            std::mem::forget(row);
        },
        ..SIMPLE
    },
    Operation {
        name: "send",
        child: |arena, _| {
            let block = arena.allocate(640).unwrap();
            stop();
            arena.send(&block).unwrap();
            std::mem::forget(block);
        },
        ..SIMPLE
    },
    Operation {
        name: "receive",
        before: one_message,
        child: |arena, given| {
            stop();
            std::mem::forget(arena.receive(&given.handles[0]).unwrap());
        },
        ..SIMPLE
    },
    Operation {
        name: "tell a name",
        child: |arena, _| {
            let block = arena.allocate(640).unwrap();
            stop();
            block.tell_name().unwrap();
            std::mem::forget(block);
        },
        ..SIMPLE
    },
    Operation {
        name: "find by name",
        before: |arena| {
            let given = one_block(arena);
            given.blocks[0].tell_name().unwrap();
            given
        },
        child: |arena, given| {
            stop();
            std::mem::forget(arena.find(given.blocks[0].which()).unwrap());
        },
        ..SIMPLE
    },
    Operation {
        name: "cancel",
        before: one_message,
        child: |arena, given| {
            stop();
            arena.cancel(&given.handles[0]).unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "transfer of ownership",
        before: |arena| Given {
            handles: one_message(arena).handles,
            ..one_block(arena)
        },
        child: |arena, given| {
            stop();
            arena
                .transfer_ownership(&given.handles[0], &given.blocks[0])
                .unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "receive what was transferred",
        before: |arena| {
            let given = Given {
                handles: one_message(arena).handles,
                ..one_block(arena)
            };
            arena
                .transfer_ownership(&given.handles[0], &given.blocks[0])
                .unwrap();
            given
        },
        child: |arena, given| {
            stop();
            std::mem::forget(arena.receive(&given.handles[0]).unwrap());
        },
        ..SIMPLE
    },
    Operation {
        name: "end of a queue with messages",
        child: |arena, _| {
            let queue = messages(arena);
            stop();
            drop(queue);
        },
        ..SIMPLE
    },
    Operation {
        name: "reap of a queue with messages",
        before: |arena| {
            fork(|| {
                std::mem::forget(messages(arena));
                kill_self();
            })
            .wait();
            Given::default()
        },
        child: |arena, _| {
            stop();
            arena.reap().unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "release of a shared block",
        before: one_block,
        child: |arena, given| {
            // The child's own reference, which it inherited.
            let me = arena.member().unwrap();
            stop();
            arena.core().release(me, given.blocks[0].which()).unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "release of what the dead hold",
        child: |arena, _| {
            let block = arena.allocate(70_000).unwrap();
            without_signals_of_children();
            fork(|| kill_self()).wait();
            stop();
            drop(block);
        },
        // For the sake of the dead alone.
        passing: &[(
            "block 5 life 0",
            "at Address(78848), 70016 bytes, held by [2]",
        )],
        ..SIMPLE
    },
    Operation {
        name: "upkeep after a death",
        before: a_death,
        child: |arena, _| {
            arena.core().header().checked.set(0);
            stop();
            arena.begin().unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "reap",
        before: a_death,
        child: |arena, _| {
            stop();
            arena.reap().unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "reap with grace",
        settings: |settings| Settings {
            grace: 10,
            ..settings
        },
        before: a_death,
        child: |arena, _| {
            stop();
            arena.reap().unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "recovery",
        before: one_block,
        meanwhile: a_death_under_the_lock,
        child: |arena, _| {
            stop();
            arena.core().is_unlinked(arena.member().unwrap()).unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "register",
        child: |arena, _| {
            arena.leave().unwrap();
            stop();
            arena.core().register().unwrap();
        },
        ..SIMPLE
    },
    Operation {
        name: "leave",
        before: one_message,
        child: |arena, given| {
            let own = arena.allocate(300).unwrap();
            let sent = arena.allocate(300).unwrap();
            arena.send(&sent).unwrap();
            let received = arena.receive(&given.handles[0]).unwrap();
            stop();
            arena.leave().unwrap();
            std::mem::forget((own, sent, received));
        },
        ..SIMPLE
    },
    Operation {
        name: "register in the slot of a dead process",
        child: |arena, _| {
            arena.leave().unwrap();
            fill_slots_with_the_dead(arena);
            stop();
            arena.core().register().unwrap();
        },
        // Emptied of the dead, then this process's.
        absent: &["slot 1"],
        stranger: true,
        ..SIMPLE
    },
    Operation {
        name: "fork hand-over",
        before: one_block,
        child: |arena, _| {
            let block = arena.allocate(300).unwrap();
            stop();
            // SAFETY: this process has one thread.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: ends the grandchild at once.
                unsafe { libc::_exit(0) };
            }
            std::mem::forget(block);
        },
        ways: &[
            |arena, _| {
                std::mem::forget(arena.allocate(300).unwrap());
                stop();
                let me = arena.member().unwrap();
                arena
                    .core()
                    .prepare_fork(me, |_| true, |_| true, || true)
                    .unwrap();
            },
            |arena, _| {
                std::mem::forget(arena.allocate(300).unwrap());
                stop();
                fork(|| 0).wait();
            },
        ],
        ..SIMPLE
    },
    Operation {
        name: "growth by a segment",
        child: |arena, _| {
            stop();
            std::mem::forget(arena.allocate(300_000).unwrap());
        },
        // In the making.
        passing: &[
            ("segment 1", "1, 0 bytes"),
            ("segment 1", "1, 303104 bytes"),
        ],
        ..SIMPLE
    },
    Operation {
        name: "growth by memory for rows",
        settings: |settings| Settings {
            size: 512 << 10,
            block_shift: 8,
            ..settings
        },
        child: |arena, _| {
            // Until those with memory are used up to those that are kept.
            while arena.core().header().block_rows.get() < 60 {
                std::mem::forget(arena.allocate(64).unwrap());
            }
            stop();
            std::mem::forget(arena.allocate(64).unwrap());
        },
        ..SIMPLE
    },
    Operation {
        name: "growth by rows for blocks",
        child: |arena, _| {
            // Until the rows are used up to those that are kept.
            while arena.core().header().block_rows.get() < 28 {
                std::mem::forget(arena.allocate(64).unwrap());
            }
            stop();
            std::mem::forget(arena.allocate(64).unwrap());
        },
        // The new chunk while it is its maker's.
        passing: &[(
            "block 5 life 0",
            "at Address(78848), 3072 bytes, held by [1]",
        )],
        ..SIMPLE
    },
    Operation {
        name: "growth by tickets",
        before: one_block,
        child: |arena, given| {
            for _ in 0..16 {
                arena.send(&given.blocks[0]).unwrap();
            }
            stop();
            arena.send(&given.blocks[0]).unwrap();
        },
        // The new chunk while it is its maker's.
        passing: &[(
            "block 3 life 1",
            "at Address(76800), 1024 bytes, held by [1]",
        )],
        ..SIMPLE
    },
    Operation {
        name: "page return",
        settings: |settings| Settings {
            size: 512 << 10,
            warm: 0,
            ..settings
        },
        child: |arena, _| {
            let block = arena.allocate(100_000).unwrap();
            stop();
            drop(block);
        },
        // All that is free, while its pages are given back.
        passing: &[(
            "block 6 life 0",
            "at Address(78848), 160448 bytes, held by [1]",
        )],
        ..SIMPLE
    },
    Operation {
        name: "return of idle pages",
        child: |arena, _| {
            drop(arena.allocate(300_000).unwrap());
            idle_for_long(arena);
            stop();
            arena.begin().unwrap();
        },
        // What is more than stays, while its pages are given back, and then the rest.
        passing: &[
            (
                "block 6 life 1",
                "at Address(281474976710720), 237568 bytes, held by [1]",
            ),
            ("segment 1", "1, 303104 bytes"),
        ],
        ..SIMPLE
    },
    Operation {
        name: "removal of empty segments",
        child: |arena, _| {
            for size in [300_000, 9 << 20] {
                drop(arena.allocate(size).unwrap());
            }
            stop();
            arena.trim().unwrap();
        },
        // While their memory is given back.
        passing: &[
            ("segment 1", "1, 303104 bytes"),
            ("segment 2", "1, 9441280 bytes"),
            (
                "block 5 life 0",
                "at Address(78848), 84992 bytes, held by [1]",
            ),
        ],
        ..SIMPLE
    },
    Operation {
        name: "allocation of returned pages",
        settings: |settings| Settings {
            size: 512 << 10,
            warm: 0,
            ..settings
        },
        before: |arena| {
            drop(arena.allocate(300_000).unwrap());
            Given::default()
        },
        child: |arena, _| {
            stop();
            std::mem::forget(arena.allocate(300_000).unwrap());
        },
        ..SIMPLE
    },
];

/// Those that are stepped through in a wide arena, too, until when slots are taken there, and the
/// objects on the way.
const WIDE: &[(&str, Taken, Passing)] = &[
    ("lock and unlock", Taken::AtFirst, &[]),
    ("allocate with split", Taken::AtFirst, &[]),
    ("free with merges on both sides", Taken::AtFirst, &[]),
    ("send", Taken::AtFirst, &[]),
    ("receive", Taken::AtFirst, &[]),
    ("find by name", Taken::AtFirst, &[]),
    ("cancel", Taken::AtFirst, &[]),
    ("end of a queue with messages", Taken::AtFirst, &[]),
    ("reap of a queue with messages", Taken::AtFirst, &[]),
    ("release of a shared block", Taken::AtFirst, &[]),
    ("upkeep after a death", Taken::AtFirst, &[]),
    ("reap", Taken::AtFirst, &[]),
    ("recovery", Taken::AtFirst, &[]),
    ("register", Taken::Throughout, &[]),
    ("leave", Taken::AtFirst, &[]),
    ("fork hand-over", Taken::Throughout, &[]),
    ("growth by memory for rows", Taken::AtFirst, &[]),
    (
        "growth by rows for blocks",
        Taken::AtFirst,
        // The new chunk while it is its maker's.
        &[(
            "block 5 life 0",
            "at Address(132096), 6144 bytes, held by [300]",
        )],
    ),
];

/// In a wide arena the slots up to this are taken by others: those that have bits in rows, and
/// some more.
const TAKEN: u16 = 300;

/// Takes the slots from 1 up to [`TAKEN`] as those of children in the making, for as long as the
/// result and its copies in forked children are open, or until they are freed.
fn take_slots(arena: &Arena) -> File {
    let path = format!("/dev/shm/{}", arena.name().as_str());
    let memory = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: a plain struct, for which zeros are a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    (lock.l_start, lock.l_len) = (1, TAKEN as i64 - 1);
    // SAFETY: the descriptor is open, and the struct is lent to the call.
    let locked = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    assert_eq!(locked, 0, "{}", std::io::Error::last_os_error());
    let (core, size) = (arena.core(), std::mem::size_of::<SlotRow>());
    let pages = pages_of(SLOTS_AT, TAKEN as usize * size);
    core.header().pages.set(core.header().pages.get() | pages);
    for slot in (1..TAKEN).map(SlotId) {
        core.slot(slot).state.set(state_word(1, RESERVED));
        core.header().know_slot(slot);
    }
    memory
}

/// Makes the slots that were taken nobody's.
fn free_slots(arena: &Arena) {
    for slot in (1..TAKEN).map(SlotId) {
        arena.core().slot(slot).state.set(state_word(1, EMPTY));
    }
}

/// Has this process, which is traced, not stopped by its child's end.
fn without_signals_of_children() {
    // SAFETY: a set of bits, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is lent to the call.
    unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) };
    // SAFETY: as above; the old set is not asked for.
    let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    assert_eq!(blocked, 0);
}

/// Makes all free memory look as if it had not been used for long.
fn idle_for_long(arena: &Arena) {
    let header = arena.core().header();
    header.idle.freed.set(0);
    for [_, freed] in &header.idle.before {
        freed.set(0);
    }
    header.checked.set(0);
}

/// Makes every slot look like that of a process that is no more.
fn fill_slots_with_the_dead(arena: &Arena) {
    let core = arena.core();
    core.header().slot_rows.set(core.geometry().processes);
    for slot in core.all_slots().map(|slot| core.slot(slot)) {
        let empty = slot.state.read();
        if empty as u8 == EMPTY {
            slot.pid.set(u32::MAX as u64);
            slot.state.commit(((empty >> 8) + 1) << 8 | ALIVE as u64);
        }
    }
}

/// A child that is about to begin its operation.
fn start(arena: &Arena, given: &Given, work: fn(&Arena, &Given)) -> Child {
    traced(|| work(arena, given))
}

/// The child of an operation, when all is as it is to find it.
fn begin(operation: &Operation, arena: &Arena, given: &Given) -> Child {
    let child = start(arena, given, operation.child);
    (operation.meanwhile)(arena, given);
    if operation.taken == Taken::AtFirst {
        free_slots(arena);
    }
    child
}

/// The arena's tables.
pub fn tables_of(arena: &Arena) -> &[AtomicU64] {
    let core = arena.core();
    let size = core.geometry().data();
    let address = Address::new(0, 0);
    let tables = core.bytes(Extent { address, size });
    // SAFETY: so many bytes are mapped there, aligned to a page; the words are atomic, since a
    // stopped child shares them.
    unsafe { std::slice::from_raw_parts(tables.as_ptr().cast(), size as usize / 8) }
}

/// Everything in the arena, by name, in words that can be compared.
pub type Picture = BTreeMap<String, String>;

pub fn picture(snapshot: &Snapshot) -> Picture {
    let mut picture = Picture::new();
    for block in snapshot.live() {
        let holders: Vec<u16> = block.holders.iter().map(|slot| slot.0).collect();
        picture.insert(
            format!("block {} life {}", block.id, block.generation),
            format!(
                "at {:?}, {} bytes, held by {holders:?}",
                block.address, block.size
            ),
        );
    }
    for ticket in snapshot.open() {
        // Times differ from run to run.
        let owner = match ticket.owner.unwrap() {
            TicketOwner::Nobody(_) => "nobody".to_string(),
            owner => format!("{owner:?}"),
        };
        picture.insert(
            format!("ticket {} life {}", ticket.id, ticket.generation),
            format!(
                "for block {} life {}, kept by {owner}",
                ticket.block, ticket.block_generation
            ),
        );
    }
    for (number, (state, generation)) in snapshot.slots.iter().enumerate() {
        if *state != EMPTY {
            picture.insert(
                format!("slot {number}"),
                format!("{state}, life {generation}"),
            );
        }
    }
    for (number, (state, _, size)) in snapshot.segments.iter().enumerate() {
        if *state != ABSENT {
            picture.insert(
                format!("segment {number}"),
                format!("{state}, {size} bytes"),
            );
        }
    }
    picture
}

/// Each object is as in one of the stages, and is there unless one lacks it.
fn is_between(now: &Picture, stages: &[Picture], operation: &Operation) -> Result<(), String> {
    let names: BTreeSet<&String> = stages.iter().flat_map(|stage| stage.keys()).collect();
    for (name, what) in now {
        let passing = operation.passing.contains(&(name.as_str(), what.as_str()));
        if !passing && !stages.iter().any(|stage| stage.get(name) == Some(what)) {
            return Err(format!("{name}: {what}"));
        }
    }
    for name in names {
        let needed = stages.iter().all(|stage| stage.contains_key(name));
        let needed = needed && !operation.absent.contains(&name.as_str());
        if needed && !now.contains_key(name) {
            return Err(format!("{name} is gone"));
        }
    }
    Ok(())
}

/// An arena as an operation finds it, with three blocks of the parent's between which there is
/// room, and its picture; and in a wide one those who have taken slots.
fn scene(operation: &Operation) -> (TestArena, Vec<Block>, Picture, Option<File>) {
    let settings = (operation.settings)(small());
    let settings = match operation.taken {
        Taken::Never => settings,
        _ => Settings {
            // With as much room behind the longer tables.
            size: settings.size + (64 << 10),
            processes: 1024,
            ..settings
        },
    };
    let test = TestArena::new(settings);
    let base: Vec<Block> = (0..5).map(|_| test.allocate(1000).unwrap()).collect();
    let base: Vec<Block> = base.into_iter().step_by(2).collect();
    for (i, block) in base.iter().enumerate() {
        fill(block, i as u8 + 1);
    }
    let own = picture(&snapshot(&test));
    let wide = operation.taken != Taken::Never;
    let others = wide.then(|| take_slots(&test));
    (test, base, own, others)
}

/// Runs one child to a moment and kills it. Returns whether it came there, and whether the
/// lock was held. What there is at the ends is kept as stages, with which all other moments
/// are compared.
fn trial(operation: &Operation, run: &Run, k: Moment, stages: &mut Vec<Picture>) -> (Came, bool) {
    let (test, base, own, others) = scene(operation);
    let arena = &test.arena;
    let given = (operation.before)(arena);
    let mut child = begin(operation, arena, &given);
    let came = run.bring(&mut child, k, &[tables_of(arena)]);
    child.kill();
    let held = arena.core().header().owner.get() != 0;
    if operation.stranger {
        let mut stranger = std::process::Command::new(std::env::current_exe().unwrap());
        let status = stranger.arg("--attach").arg(arena.name().as_str()).status();
        assert!(status.unwrap().success(), "{}, {k:?}", operation.name);
        return (came, held);
    }
    let now = snapshot(arena);
    if matches!(k, Moment::Instruction(0) | Moment::End) {
        stages.push(picture(&now));
    } else if let Err(what) = is_between(&picture(&now), stages, operation) {
        panic!("{}, {k:?}: {what}", operation.name);
    }
    // The parent's messages, received or not, and its blocks.
    for handle in &given.handles {
        let _ = arena.receive(handle);
    }
    drop(given);
    drop(others);
    // What is of the grandchildren ends with them, the latest after the grace.
    let end = std::time::Instant::now() + crate::run::patience();
    loop {
        arena.reap().unwrap();
        arena.cancel_unreceived(0).unwrap();
        let mut left = picture(&snapshot(arena));
        left.retain(|name, _| !name.starts_with("segment"));
        let mut own = own.clone();
        own.retain(|name, _| !name.starts_with("segment"));
        if left == own {
            break;
        }
        assert!(
            std::time::Instant::now() < end,
            "{}, {k:?}: left is {left:#?}, and should be {own:#?}",
            operation.name
        );
        std::thread::yield_now();
    }
    for (i, block) in base.iter().enumerate() {
        assert!(is_filled(block, i as u8 + 1), "{}, {k:?}", operation.name);
    }
    drop(base);
    assert_empty(arena);
    (came, held)
}

pub fn fill(block: &Block, value: u8) {
    // SAFETY: the block is ours, and this long.
    unsafe { block.bytes().write_bytes(value, block.size() as usize) };
}

pub fn is_filled(block: &Block, value: u8) -> bool {
    // SAFETY: the block is ours, and this long; nobody writes to it.
    let bytes =
        unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), block.size() as usize) };
    bytes.iter().all(|byte| *byte == value)
}

/// What an operation does, instruction by instruction.
fn record(operation: &Operation) -> Run {
    let (test, _base, _own, _others) = scene(operation);
    let given = (operation.before)(&test.arena);
    let child = begin(operation, &test.arena, &given);
    Run::record(child, &[tables_of(&test.arena)], false)
}

fn every_operation(full: bool) {
    step("step_every_operation", full, OPERATIONS);
}

fn in_a_wide_arena(full: bool) {
    let wide = WIDE.iter().map(|(name, taken, passing)| {
        let same = OPERATIONS.iter().find(|operation| operation.name == *name);
        Operation {
            passing,
            taken: *taken,
            ..*same.unwrap()
        }
    });
    step("step_in_a_wide_arena", full, &wide.collect::<Vec<_>>());
}

fn step(test: &str, full: bool, operations: &[Operation]) {
    each_operation(
        test,
        full,
        operations,
        |operation| operation.name,
        |operation| {
            let run = record(operation);
            let mut stages = Vec::new();
            for way in operation.ways {
                let child = *way;
                let other = Operation {
                    child,
                    ..*operation
                };
                trial(&other, &run, Moment::End, &mut stages);
            }
            let mut trial = |moment, ()| trial(operation, &run, moment, &mut stages);
            die_everywhere(operation.name, full, &run, &[()], &mut trial)
        },
    );
}
