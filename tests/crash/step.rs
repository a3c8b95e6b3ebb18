//! Death after every single instruction.
//!
//! A child does one operation and is killed in the middle of it: after each
//! instruction that changed the tables, which are all the states of them that
//! there are; and after exactly k instructions, for a sample of k, or for every
//! k until it gets through (`--full`), since there is more than the tables:
//! files, locks, the process itself. Each time:
//!
//! * the checker finds nothing wrong once the lock has been taken;
//! * every block, ticket, slot and segment is as it was before the operation or
//!   as it is after it, nothing in between and nothing else;
//! * after reaping, what the parent had is there to the last byte, and nothing
//!   of the child is.

use crate::tools::*;
use crate::Test;
use shared_numpy::arena::check::Snapshot;
use shared_numpy::arena::format::{Address, Keeper, ABSENT, ALIVE, EMPTY};
use shared_numpy::arena::handle::Handle;
use shared_numpy::arena::Extent;
use shared_numpy::process::{Arena, Block, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

pub const TESTS: &[Test] = &[("step_every_operation", every_operation)];

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
    passing: &'static [(&'static str, &'static str)],
    /// A process that knows nothing is the first to come after the death.
    stranger: bool,
    /// What may be absent on the way, though it is there before and after.
    absent: &'static [&'static str],
    /// A sample takes about a quarter as many values of k.
    sample: u64,
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
    while arena.core().header().owner.get() == 0 {
        assert!(!step(&mut child, 1), "the lock was never held");
    }
    // Into the middle of the split.
    step(&mut child, 80);
    child.kill();
    assert_ne!(arena.core().header().owner.get(), 0);
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
            assert!(arena.entrust(&handle, &message).unwrap());
        }
        let handle = arena.send(&message).unwrap();
        assert!(arena.entrust(&handle, &queue).unwrap());
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
    sample: 0,
};

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "lock and unlock",
        child: |arena, _| {
            stop();
            arena.core().is_unlinked(arena.member().unwrap()).unwrap();
        },
        sample: 60,
        ..SIMPLE
    },
    Operation {
        name: "allocate with split",
        child: |arena, _| {
            stop();
            std::mem::forget(arena.allocate(700).unwrap());
        },
        sample: 150,
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
        sample: 150,
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
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "receive",
        before: one_message,
        child: |arena, given| {
            stop();
            std::mem::forget(arena.receive(&given.handles[0]).unwrap());
        },
        sample: 100,
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
        sample: 100,
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
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "cancel",
        before: one_message,
        child: |arena, given| {
            stop();
            arena.cancel(&given.handles[0]).unwrap();
        },
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "entrust",
        before: |arena| Given {
            handles: one_message(arena).handles,
            ..one_block(arena)
        },
        child: |arena, given| {
            stop();
            arena.entrust(&given.handles[0], &given.blocks[0]).unwrap();
        },
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "receive what was entrusted",
        before: |arena| {
            let given = Given {
                handles: one_message(arena).handles,
                ..one_block(arena)
            };
            arena.entrust(&given.handles[0], &given.blocks[0]).unwrap();
            given
        },
        child: |arena, given| {
            stop();
            std::mem::forget(arena.receive(&given.handles[0]).unwrap());
        },
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "end of a queue with messages",
        child: |arena, _| {
            let queue = messages(arena);
            stop();
            drop(queue);
        },
        sample: 250,
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
        sample: 250,
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
        sample: 100,
        ..SIMPLE
    },
    Operation {
        name: "reap",
        before: a_death,
        child: |arena, _| {
            stop();
            arena.reap().unwrap();
        },
        sample: 150,
        ..SIMPLE
    },
    Operation {
        name: "reap with grace",
        settings: |settings| Settings {
            grace: 50,
            ..settings
        },
        before: a_death,
        child: |arena, _| {
            stop();
            arena.reap().unwrap();
        },
        sample: 100,
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
        sample: 150,
        ..SIMPLE
    },
    Operation {
        name: "register",
        child: |arena, _| {
            arena.leave().unwrap();
            stop();
            arena.core().register().unwrap();
        },
        sample: 100,
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
        sample: 150,
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
        sample: 60,
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
                    .prepare_fork(me, |_| true, |_| true, || ())
                    .unwrap();
            },
            |arena, _| {
                std::mem::forget(arena.allocate(300).unwrap());
                stop();
                fork(|| 0).wait();
            },
        ],
        sample: 250,
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
            ("segment 1", "1, 8388608 bytes"),
        ],
        sample: 250,
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
        sample: 250,
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
        sample: 250,
        ..SIMPLE
    },
    Operation {
        name: "page return",
        settings: |settings| Settings {
            size: 512 << 10,
            budget: 0,
            ..settings
        },
        child: |arena, _| {
            let block = arena.allocate(100_000).unwrap();
            stop();
            drop(block);
        },
        // All that is free, while its pages are given back.
        passing: &[(
            "block 5 life 2",
            "at Address(78848), 445440 bytes, held by [1]",
        )],
        sample: 150,
        ..SIMPLE
    },
    Operation {
        name: "allocation of returned pages",
        settings: |settings| Settings {
            size: 512 << 10,
            budget: 0,
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
        sample: 150,
        ..SIMPLE
    },
];

/// Makes every slot look like that of a process that is no more.
fn fill_slots_with_the_dead(arena: &Arena) {
    arena.core().header().slot_rows.set(256);
    for slot in arena.core().header().slots.iter() {
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

/// A child that has come to the first `stop()` of its work, and can be stepped from there.
pub fn traced(work: impl FnOnce()) -> Child {
    let mut child = fork(|| {
        // SAFETY: makes this process's parent its tracer.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        work();
        stop();
        // SAFETY: ends the child with all that it has.
        unsafe { libc::_exit(0) };
    });
    let status = child.wait();
    assert!(
        libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP,
        "status {status:#x}"
    );
    child
}

/// When a child is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After so many instructions.
    Instruction(u64),
    /// After the instruction that changed the tables for the n-th time.
    Change(u64),
    /// At the end of its operation.
    End,
}

/// The bytes of an arena's tables, as they are at this instant.
struct Tables {
    seen: Vec<u64>,
    changes: u64,
}

impl Tables {
    fn words(arena: &Arena) -> &[std::sync::atomic::AtomicU64] {
        let core = arena.core();
        let size = core.geometry().data();
        let address = Address::new(0, 0);
        let bytes = core.bytes(Extent { address, size });
        // SAFETY: so many bytes are mapped there, aligned to a page; the words
        // are atomic, since a stopped child shares them.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), size as usize / 8) }
    }

    fn new(arena: &Arena) -> Self {
        let words = Self::words(arena).iter();
        Tables {
            seen: words.map(|word| word.load(Ordering::Relaxed)).collect(),
            changes: 0,
        }
    }

    /// Looks again; how often it has found a change.
    fn look(&mut self, arena: &Arena) -> u64 {
        let mut changed = false;
        for (word, seen) in Self::words(arena).iter().zip(&mut self.seen) {
            let now = word.load(Ordering::Relaxed);
            changed |= now != *seen;
            *seen = now;
        }
        self.changes += changed as u64;
        self.changes
    }
}

/// Lets a child run up to a moment; true if its operation ended before.
fn run_to(arena: &Arena, child: &mut Child, moment: Moment) -> bool {
    match moment {
        Moment::Instruction(k) => step(child, k),
        Moment::End => step(child, u64::MAX),
        Moment::Change(n) => {
            let mut tables = Tables::new(arena);
            while tables.look(arena) < n {
                if step(child, 1) {
                    return true;
                }
            }
            false
        }
    }
}

/// Lets a child do `k` instructions; true if its operation ended before.
pub fn step(child: &mut Child, k: u64) -> bool {
    for _ in 0..k {
        // SAFETY: a child that this process traces and that has stopped.
        let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child.pid, 0, 0) };
        assert_eq!(stepped, 0);
        let status = child.wait();
        assert!(libc::WIFSTOPPED(status), "status {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {}
            libc::SIGSTOP => return true,
            libc::SIGCHLD => {}
            signal => panic!("signal {signal}"),
        }
    }
    false
}

/// Everything in the arena, by name, in words that can be compared.
pub type Picture = BTreeMap<String, String>;

pub fn picture(snapshot: &Snapshot) -> Picture {
    let mut picture = Picture::new();
    for block in snapshot.live() {
        let holders: Vec<u8> = block.holders.iter().map(|slot| slot.0).collect();
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
        let keeper = match ticket.keeper.unwrap() {
            Keeper::Nobody(_) => "nobody".to_string(),
            keeper => format!("{keeper:?}"),
        };
        picture.insert(
            format!("ticket {} life {}", ticket.id, ticket.generation),
            format!(
                "for block {} life {}, kept by {keeper}",
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

/// Runs one child to a moment and kills it. Returns whether the operation had
/// ended, and whether the lock was held. What there is at the ends is kept as
/// stages, with which all other moments are compared.
fn trial(operation: &Operation, k: Moment, stages: &mut Vec<Picture>) -> (bool, bool) {
    let test = TestArena::new((operation.settings)(small()));
    let arena = &test.arena;
    let base: Vec<Block> = (0..5).map(|_| arena.allocate(1000).unwrap()).collect();
    let base: Vec<Block> = base.into_iter().step_by(2).collect();
    for (i, block) in base.iter().enumerate() {
        fill(block, i as u8 + 1);
    }
    let own = picture(&snapshot(arena));
    let given = (operation.before)(arena);
    let mut child = start(arena, &given, operation.child);
    (operation.meanwhile)(arena, &given);
    let ended = run_to(arena, &mut child, k);
    child.kill();
    let held = arena.core().header().owner.get() != 0;
    if operation.stranger {
        let mut stranger = std::process::Command::new(std::env::current_exe().unwrap());
        let status = stranger.arg("--attach").arg(arena.name().as_str()).status();
        assert!(status.unwrap().success(), "{}, {k:?}", operation.name);
        return (ended, held);
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
    // What is of the grandchildren ends with them, the latest after the grace.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
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
    (ended, held)
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

/// How many instructions an operation takes.
fn length(operation: &Operation) -> u64 {
    let test = TestArena::new((operation.settings)(small()));
    let _base: Vec<Block> = (0..5)
        .map(|_| test.allocate(1000).unwrap())
        .step_by(2)
        .collect();
    let given = (operation.before)(&test.arena);
    let mut child = start(&test.arena, &given, operation.child);
    (operation.meanwhile)(&test.arena, &given);
    let mut count = 0;
    while !step(&mut child, 1) {
        count += 1;
    }
    child.kill();
    // The lock may be the child's, if it died in its last instructions.
    drop(given);
    count
}

/// Whether this process may trace its children.
pub fn can_trace() -> bool {
    let mut child = fork(|| {
        // SAFETY: makes this process's parent its tracer.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        (traced != 0) as i32
    });
    let status = child.wait();
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn every_operation(full: bool) {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace)");
        return;
    }
    // A step is a switch between this process and its child: many times
    // quicker on one processor than between two.
    let _pinned = Pinned::new();
    let mut all = 0;
    let mut all_recoveries = 0;
    let wanted = std::env::var("SNP_OPERATION").unwrap_or_default();
    for operation in OPERATIONS.iter().filter(|o| o.name.contains(&wanted)) {
        let start = std::time::Instant::now();
        let length = length(operation);
        let mut stages = Vec::new();
        trial(operation, Moment::Instruction(0), &mut stages);
        trial(operation, Moment::End, &mut stages);
        for way in operation.ways {
            let child = *way;
            trial(
                &Operation {
                    child,
                    ..*operation
                },
                Moment::End,
                &mut stages,
            );
        }
        let stride = if full {
            1
        } else {
            (4 * length / operation.sample).max(1)
        };
        // A sample starts elsewhere each time, so that many runs see all.
        let first = match full {
            true => 1,
            false => 1 + Random(seed(operation.name)).below(stride),
        };
        let by_change = (1..).map(Moment::Change);
        let by_count = (0..).map(|i| Moment::Instruction(first + i * stride));
        let (mut deaths, mut recoveries) = ([0, 0], 0);
        let series: [&mut dyn Iterator<Item = Moment>; 2] =
            [&mut by_change.fuse(), &mut by_count.fuse()];
        for (series, deaths) in series.into_iter().zip(&mut deaths) {
            for moment in series {
                let (ended, held) = trial(operation, moment, &mut stages);
                *deaths += 1;
                recoveries += held as u64;
                if ended {
                    break;
                }
            }
        }
        let [changes, counts] = deaths;
        let trials = changes + counts;
        println!(
            "  {:<40} {length:>6} instructions; deaths: {changes:>4} at a change, {counts:>5} at a \
             count, {recoveries:>5} with the lock; {:.1} s",
            operation.name,
            start.elapsed().as_secs_f64()
        );
        all += trials;
        all_recoveries += recoveries;
    }
    println!("  {all} deaths, {all_recoveries} with the lock held");
}
