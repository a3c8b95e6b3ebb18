//! Processes that meet in the arena of an identifier, while others die and leave.
//!
//! Properties, whatever process is stopped or killed at whatever system call:
//!
//! * processes that have the arena as its residents at the same time have the same one, also if they
//!   came at different times;
//! * what dead processes left is attached by none that looks for the identifier;
//! * each that comes gets an arena, with right tables, or, while another one is stopped that makes or
//!   ends it, the error that says so;
//! * the last that leaves removes it; what killed ones leave goes with the next that comes.

use crate::instructions::{can_trace, to_system_call, traced};
use crate::mounts::undisturbed;
use crate::run::seed::{self, times, Random};
use crate::storm::{kill_group, wait_for_orphans};
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::format::{POISONED, SLOTS, UNSETTLED};
use shared_numpy::arena::handle::Name;
use shared_numpy::error::{Error, Result};
use shared_numpy::process::{
    remove_deserted, remove_orphans, retire_all, Arena, Block, Settings, LOCK_SUFFIX,
};
use shared_numpy::sys::locks;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("meeting_in_the_arena_of_an_identifier", |_| {
        undisturbed(meeting)
    }),
    ("what_has_the_name_of_an_identifier", |_| {
        undisturbed(strangers)
    }),
    ("a_root_is_held_by_its_arena", |_| undisturbed(roots)),
    ("meeting_one_that_is_stopped", |full| {
        undisturbed(|| meeting_at_each_call(full, After::GoesOn))
    }),
    ("meeting_after_a_death", |full| {
        undisturbed(|| meeting_at_each_call(full, After::Dies))
    }),
    ("meeting_two_that_are_stopped", |full| {
        undisturbed(|| two_at_each_call(full))
    }),
    ("meeting_one_that_leaves", |full| {
        undisturbed(|| leaving_at_each_call(full))
    }),
    ("names_that_another_process_looks_at", |_| {
        undisturbed(kept_for_a_while)
    }),
    ("a_process_at_its_end_keeps_its_blocks", |_| {
        undisturbed(retired)
    }),
    ("a_child_without_a_slot_keeps_its_blocks", |_| {
        undisturbed(pinned)
    }),
    ("meeting_storm", |_| undisturbed(storm)),
];

const IDENTIFIER: [u8; 16] = *b"an identifier 16";

fn name() -> Name {
    Name::of_identifier(None, IDENTIFIER).unwrap()
}

/// Attaches or makes the arena; `patience` in ms.
fn meet_within(patience: u64) -> Result<Arena> {
    let settings = Settings {
        patience,
        ..small()
    };
    Arena::attach_or_create(None, IDENTIFIER, settings)
}

fn meet() -> Arena {
    meet_within(30_000).unwrap()
}

fn is_gone() -> bool {
    objects(name()).is_empty()
}

/// Writes into a block whose arena it is of, and makes it the root if there is none.
fn publish(arena: &Arena) -> bool {
    let block = arena.allocate(64).unwrap();
    // SAFETY: the block is ours, and this long; nobody knows of it yet.
    unsafe { block.bytes().cast::<u64>().write_volatile(arena.uuid()[0]) };
    arena.publish_root(&block, false).unwrap()
}

/// What `publish` has written.
fn written(block: &Block) -> u64 {
    // SAFETY: the block is held, and nobody writes to it after it was published.
    unsafe { block.bytes().cast::<u64>().read_volatile() }
}

/// Asserts that all is right with an arena that was met.
fn assert_right(arena: &Arena, when: &str) {
    assert_eq!(arena.check().unwrap(), Vec::<String>::new(), "{when}");
    assert_eq!(arena.identifier(), Some(IDENTIFIER), "{when}");
    assert_eq!(arena.name(), name(), "{when}");
    if let Some(root) = arena.root().unwrap() {
        assert_eq!(written(&root), arena.uuid()[0], "{when}");
    }
}

// ---- one by one ------------------------------------------------------------------------------

fn meeting() {
    let told: &[AtomicU64; 2] = common();
    assert!(matches!(
        Arena::attach_or_create(None, [0; 16], small()),
        Err(Error::Invalid { .. })
    ));
    let mut first = fork(|| {
        let arena = meet();
        told[0].store(arena.uuid()[0], Ordering::SeqCst);
        // It has it once.
        assert_eq!(meet().uuid(), arena.uuid());
        stop();
        0
    });
    first.wait_for_stop();
    let mut second = fork(|| {
        let arena = meet();
        told[1].store(arena.uuid()[0], Ordering::SeqCst);
        0
    });
    assert_eq!(second.wait(), 0);
    let one = told[0].load(Ordering::SeqCst);
    assert_eq!(told[1].load(Ordering::SeqCst), one);
    first.kill();
    let arena = meet();
    assert_ne!(arena.uuid()[0], one);
    drop(arena);
    assert!(is_gone());
    children();
    deserted();
    by_name();
}

/// Waits until no process has a byte of the lock file.
fn wait_for_nobody() {
    let end = std::time::Instant::now() + crate::run::patience();
    while !is_gone() && !remove_deserted(name(), 0).is_some_and(|verdict| verdict.goes()) {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A forked child keeps the arena for those that come later.
fn children() {
    let one: &AtomicU64 = common();
    let child: &AtomicU32 = common();
    fork(|| {
        let arena = meet();
        one.store(arena.uuid()[0], Ordering::SeqCst);
        assert!(publish(&arena));
        let mut forked = fork(|| {
            // SAFETY: lets this process live on without its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
            stop();
            0
        });
        forked.wait_for_stop();
        child.store(forked.give_away() as u32, Ordering::SeqCst);
        0
    })
    .succeed();
    fork(|| {
        let arena = meet();
        assert_eq!(arena.uuid()[0], one.load(Ordering::SeqCst));
        assert_right(&arena, "with a child");
        assert!(arena.root().unwrap().is_some());
        0
    })
    .succeed();
    // SAFETY: a process of this test, which is stopped.
    unsafe { libc::kill(child.load(Ordering::SeqCst) as i32, libc::SIGKILL) };
    wait_for_nobody();
}

/// Leaves an arena whose processes are dead, with a root, a block in flight and a holder; its number.
fn leave_deserted() -> u64 {
    let one: &AtomicU64 = common();
    let mut dead = fork(|| {
        let arena = meet();
        assert!(publish(&arena));
        let block = arena.allocate(5000).unwrap();
        arena.send_as(&block, true).unwrap();
        one.store(arena.uuid()[0], Ordering::SeqCst);
        stop();
        0
    });
    dead.wait_for_stop();
    dead.kill();
    assert_eq!(objects(name()).len(), 2);
    one.load(Ordering::SeqCst)
}

fn deserted() {
    let old = leave_deserted();
    let arena = meet();
    assert_ne!(arena.uuid()[0], old);
    assert!(arena.root().unwrap().is_none());
    assert_empty(&arena);
    drop(arena);
    assert!(is_gone());
    // One that has all its processes left in peace, with a block in flight.
    fork(|| {
        let arena = meet();
        arena.send(&arena.allocate(100).unwrap()).unwrap();
        arena.leave().unwrap();
        0
    })
    .succeed();
    assert_eq!(objects(name()).len(), 2);
    let arena = meet();
    assert_empty(&arena);
    drop(arena);
    assert!(is_gone());
    // One whose tables were overwritten, which nobody can use, also while a process has it.
    let poisoned = stopped(|| {
        let arena = meet();
        arena.core().header().condition.commit(POISONED);
        stop();
        0
    });
    assert_empty(&meet());
    poisoned.kill();
    assert!(is_gone());
    // The same with no slot for another process but those of the dead.
    let meet_two = || {
        let settings = Settings {
            processes: 2,
            ..small()
        };
        Arena::attach_or_create(None, IDENTIFIER, settings).unwrap()
    };
    let dead = [false, true].map(|poisons| {
        stopped(|| {
            let arena = meet_two();
            if poisons {
                arena.core().header().condition.commit(POISONED);
            }
            stop();
            0
        })
    });
    dead.into_iter().for_each(Child::kill);
    assert_eq!(objects(name()).len(), 2);
    assert_empty(&meet_two());
    assert!(is_gone());
    // A sweep removes it like any other.
    leave_deserted();
    assert!(remove_orphans(None).unwrap().contains(&name()));
    assert!(is_gone());
}

/// Who attaches it by its name belongs to it if it is in use, and keeps nothing of the dead's.
fn by_name() {
    let board: &Board = common();
    let has = |who: usize| board.has[who].load(Ordering::SeqCst);
    let first = stopped(|| meet_and_stop(board, 0, 30_000));
    let second = stopped(|| {
        let arena = Arena::attach(name(), 30_000).unwrap();
        board.has[1].store(arena.uuid()[0], Ordering::SeqCst);
        stop();
        0
    });
    first.kill();
    let third = stopped(|| meet_and_stop(board, 2, 30_000));
    assert_eq!([has(1), has(2)], [has(0); 2]);
    for child in [second, third] {
        child.signal(libc::SIGCONT);
        child.succeed();
    }
    assert!(is_gone());
    let old = leave_deserted();
    let mut visitor = fork(|| {
        let arena = Arena::attach(name(), 30_000).unwrap();
        assert_eq!(arena.uuid()[0], old);
        stop();
        // It goes on with the old one, and gets the new one if it asks.
        drop(arena.allocate(100).unwrap());
        assert_ne!(meet().uuid(), arena.uuid());
        0
    });
    visitor.wait_for_stop();
    let arena = meet();
    assert_ne!(arena.uuid()[0], old);
    visitor.signal(libc::SIGCONT);
    visitor.succeed();
    assert_eq!(objects(name()).len(), 2);
    drop(arena);
    assert!(is_gone());
    // Nor does a process that has it get it by its name when it is about to lose that.
    let arena = meet();
    let me = arena.member().unwrap();
    arena.core().mark_unlinked(me).unwrap();
    let again = Arena::attach(name(), 30_000);
    assert!(matches!(again, Err(Error::Os { errno, .. }) if errno == libc::ENOENT));
    assert!(is_gone());
}

/// What is there under the name, and is no arena of the identifier.
fn strangers() {
    // Made by its name.
    let made = Arena::create(name(), small()).unwrap();
    let met = || meet_within(1000).err().unwrap();
    assert!(matches!(met(), Error::Foreign { .. }));
    fork(|| {
        let _ = made.leave();
        assert!(matches!(met(), Error::Foreign { .. }));
        0
    })
    .succeed();
    assert_eq!(objects(name()).len(), 2);
    drop(made);
    assert!(is_gone());
    // A file, without a lock file and with one.
    let path = |suffix: &str| format!("/dev/shm/{}{suffix}", name().as_str());
    let files = [path(""), path(shared_numpy::process::LOCK_SUFFIX)];
    for count in [1, 2] {
        for (file, content) in files.iter().zip([&[0xee; 200][..], &[]]).take(count) {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = std::fs::OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(file).unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
        }
        assert!(matches!(met(), Error::Foreign { .. }));
        assert_eq!(objects(name()).len(), count);
        for file in files.iter().take(count) {
            std::fs::remove_file(file).unwrap();
        }
    }
    drop(meet());
    assert!(is_gone());
    // What is left of an arena without its lock file, and what its maker has not written to.
    let old = leave_deserted();
    std::fs::remove_file(&files[1]).unwrap();
    assert_ne!(meet().uuid()[0], old);
    assert!(is_gone());
    leave_deserted();
    std::fs::remove_file(&files[1]).unwrap();
    std::fs::File::create(&files[0]).unwrap();
    assert_empty(&meet());
    assert!(is_gone());
}

fn roots() {
    let arena = meet();
    assert!(arena.root().unwrap().is_none());
    assert!(publish(&arena));
    assert!(!publish(&arena));
    // Nobody holds it but the arena.
    let which = arena.root().unwrap().unwrap().which();
    assert!(arena.claim_unheld(which).unwrap().is_none());
    let stats = arena.stats().unwrap();
    assert_eq!((stats.blocks, stats.tickets), (1, 0));
    assert_right(&arena, "published");
    arena.reap().unwrap();
    arena.trim().unwrap();
    arena.cancel_unreceived(0).unwrap();
    let root = arena.root().unwrap().unwrap();
    // Again the same.
    assert!(arena.publish_root(&root, false).unwrap());
    let other = arena.allocate(7000).unwrap();
    assert!(arena.publish_root(&other, true).unwrap());
    assert_eq!(arena.root().unwrap().unwrap().which(), other.which());
    // The one before lives while it is used.
    assert_eq!(written(&root), arena.uuid()[0]);
    assert_eq!(arena.stats().unwrap().blocks, 2);
    drop((root, other));
    assert_eq!(arena.stats().unwrap().blocks, 1);
    // Which nobody has: it is freed when another one takes its place.
    let third = arena.allocate(7000).unwrap();
    assert!(arena.publish_root(&third, true).unwrap());
    drop(third);
    assert_eq!(arena.stats().unwrap().blocks, 1);
    // As after a death with the lock: what recovery rebuilds keeps the root.
    arena.core().header().condition.commit(UNSETTLED);
    assert_eq!(arena.check().unwrap(), Vec::<String>::new());
    assert_eq!(arena.root().unwrap().unwrap().size(), 7040);
    let elsewhere = TestArena::new(small());
    let block = elsewhere.allocate(10).unwrap();
    assert!(matches!(
        arena.publish_root(&block, true),
        Err(Error::Foreign { .. })
    ));
    drop((block, elsewhere));
    // It does not keep the arena.
    drop(arena);
    assert!(is_gone());
}

// ---- at each system call ---------------------------------------------------------------------

/// What becomes of the process that is stopped.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// After another one has come.
    GoesOn,
    /// Before another one comes.
    Dies,
}

/// What there is before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Nothing,
    /// A process has it and goes on.
    Living,
    /// The processes are dead that had it.
    Deserted,
    /// The one that is stopped has it, alone.
    Own,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Meets,
    Leaves,
    Cleans,
}

use Deed::*;
use Start::*;

/// Beside which start a process is stopped in what, and what another one does meanwhile.
const SCENES: &[(Start, Deed, Deed)] = &[
    (Nothing, Meets, Meets),
    (Living, Meets, Meets),
    (Deserted, Meets, Meets),
    (Deserted, Meets, Cleans),
    (Deserted, Cleans, Meets),
    (Own, Leaves, Meets),
];

/// What processes tell: the numbers of the arenas that they have, or 0.
#[derive(Default)]
struct Board {
    has: [AtomicU64; 4],
}

/// Meets, tells, and has it until it goes on; it has none if it finds one that is stopped.
fn meet_and_stop(board: &Board, who: usize, patience: u64) -> i32 {
    match meet_within(patience) {
        Ok(arena) => {
            assert_right(&arena, "met");
            board.has[who].store(arena.uuid()[0], Ordering::SeqCst);
            stop();
        }
        Err(Error::Busy { .. }) => stop(),
        Err(error) => panic!("{error}"),
    }
    0
}

fn stopped(work: impl FnOnce() -> i32) -> Child {
    let mut child = fork(work);
    child.wait_for_stop();
    child
}

fn meeting_at_each_call(full: bool, after: After) {
    if !can_trace() {
        println!("  SKIPPED: processes cannot be traced here");
        return;
    }
    let mut random = Random::new(seed::of_test("meeting_at_each_call"));
    for scene in SCENES {
        let mut calls = 0;
        // A part of the stops, which is another one in each run.
        let each = if full { 1 } else { 4 };
        let first = random.below(each);
        while at_call(scene, first + calls * each, after) {
            calls += 1;
        }
        assert!(calls > 3, "{scene:?}");
        println!("  {scene:?}: {calls} stops");
    }
}

/// One trial; false if the process has done its deed before so many stops at system calls.
fn at_call(&(start, deed, other): &(Start, Deed, Deed), nth: u64, after: After) -> bool {
    let when = format!("{start:?}, {deed:?}, {other:?}, at stop {nth}");
    let board: &Board = common();
    let has = |who: usize| board.has[who].load(Ordering::SeqCst);
    let old = match start {
        Deserted => leave_deserted(),
        _ => 0,
    };
    let living = (start == Living).then(|| stopped(|| meet_and_stop(board, 0, 30_000)));
    let mut actor = traced(|| {
        let own = (start == Own).then(meet);
        stop();
        match deed {
            Meets => {
                let arena = meet();
                board.has[1].store(arena.uuid()[0], Ordering::SeqCst);
                std::mem::forget(arena);
            }
            Leaves => drop(own),
            Cleans => drop(remove_deserted(name(), 0)),
        }
    });
    if (0..=nth).any(|_| !to_system_call(&mut actor)) {
        end(living, actor, None, &when);
        return false;
    }
    let patience = match after {
        // It cannot know that the other one is stopped.
        After::GoesOn => 10,
        After::Dies => 30_000,
    };
    let come = |who| stopped(|| meet_and_stop(board, who, patience));
    let (actor, second) = match after {
        After::Dies => {
            actor.kill();
            // (Stopped before it had told.)
            board.has[1].store(0, Ordering::SeqCst);
            if other == Cleans {
                remove_deserted(name(), 0);
            }
            (None, Some(come(2)))
        }
        After::GoesOn => {
            let second = match other {
                Cleans => {
                    fork(|| {
                        remove_deserted(name(), 0);
                        0
                    })
                    .succeed();
                    None
                }
                _ => Some(come(2)),
            };
            while to_system_call(&mut actor) {}
            (Some(actor), second)
        }
    };
    let patience = 30_000;
    let mut third = fork(|| meet_and_stop(board, 3, patience));
    third.wait_for_stop();
    assert_ne!(has(3), 0, "{when}");
    for who in 0..3 {
        assert!(has(who) == 0 || has(who) == has(3), "{when}: {who}");
    }
    assert_ne!(has(3), old, "{when}");
    assert!(
        deed != Meets || after == After::Dies || has(1) != 0,
        "{when}"
    );
    assert!(after == After::GoesOn || has(2) != 0, "{when}");
    third.signal(libc::SIGCONT);
    third.succeed();
    if let Some(mut second) = second {
        second.signal(libc::SIGCONT);
        let status = second.wait();
        assert_eq!(status, 0, "{when}");
    }
    match actor {
        Some(actor) => end(living, actor, None, &when),
        None => end_living(living, &when),
    }
    true
}

/// A process that makes the arena is stopped when it has made the lock file, and another one, which
/// comes then, at any of its calls.
fn two_at_each_call(full: bool) {
    if !can_trace() {
        println!("  SKIPPED: processes cannot be traced here");
        return;
    }
    let mut random = Random::new(seed::of_test("two_at_each_call"));
    let each = if full { 1 } else { 16 };
    for further in 0..6 {
        let first = random.below(each);
        let mut calls = 0;
        while two_at_call(further, first + calls * each) {
            calls += 1;
        }
        // (How often it looks in its 10 ms depends on the machine.)
        assert!(calls > if full { 3 } else { 0 }, "{further}");
    }
}

fn two_at_call(further: u64, nth: u64) -> bool {
    let when = format!("{further} stops after the lock file, at stop {nth}");
    let board: &Board = common();
    let has = |who: usize| board.has[who].load(Ordering::SeqCst);
    let [mut maker, mut other] = [0, 1].map(|who| {
        traced(|| {
            stop();
            // It cannot know that the other one is stopped.
            match meet_within(10) {
                Ok(arena) => {
                    board.has[who].store(arena.uuid()[0], Ordering::SeqCst);
                    std::mem::forget(arena);
                }
                Err(Error::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        })
    });
    while is_gone() {
        assert!(to_system_call(&mut maker), "{when}");
    }
    assert!((0..further).all(|_| to_system_call(&mut maker)), "{when}");
    let stops = (0..=nth).all(|_| to_system_call(&mut other));
    while to_system_call(&mut maker) {}
    while stops && to_system_call(&mut other) {}
    let third = stopped(|| meet_and_stop(board, 2, 30_000));
    assert_ne!(has(2), 0, "{when}");
    for who in 0..2 {
        assert!(has(who) == 0 || has(who) == has(2), "{when}: {who}");
    }
    third.signal(libc::SIGCONT);
    third.succeed();
    maker.kill();
    other.kill();
    end_living(None, &when);
    stops
}

/// The last process leaves, and cannot remove the names, while another one has opened the arena and
/// takes a slot: that one finds the arena gone, and never emptied under it.
fn leaving_at_each_call(full: bool) {
    if !can_trace() {
        println!("  SKIPPED: processes cannot be traced here");
        return;
    }
    let mut random = Random::new(seed::of_test("leaving_at_each_call"));
    let each = if full { 1 } else { 16 };
    for why in [Names::HaveGone, Names::TellNothing] {
        for by_name in [false, true] {
            let mut leaving = 0;
            loop {
                let first = random.below(each);
                // (Then it waits for the lock, if the other one has that, or is done.)
                let mut goes_on = false;
                for i in 0..32 / each {
                    goes_on |= leaving_at_call(why, by_name, leaving, first + i * each);
                }
                leaving += 1;
                if !goes_on {
                    break;
                }
            }
            println!("  {why:?}: {leaving} stops of the one that leaves");
            assert!(leaving > 3);
        }
    }
}

/// Why a process cannot remove the names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Names {
    /// Another one has.
    HaveGone,
    /// The lock file's has gone, without which nothing tells that the memory's is this arena's.
    TellNothing,
}

fn lock_path() -> String {
    format!("/dev/shm/{}{LOCK_SUFFIX}", name().as_str())
}

/// The lock file, of whose arena this process has no descriptor else.
fn open_lock_file() -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).write(true);
    options.open(lock_path()).unwrap()
}

/// Keeps others from removing the names, until the lock file is dropped.
fn keep_names(lock_file: &std::fs::File) {
    // (Behind the bytes of the slots and that of the pins.)
    let byte = locks::try_for_process(lock_file.as_fd(), SLOTS as u64 + 1);
    assert_eq!(byte, Ok(true));
}

/// Lets stopped processes go on, one after the other, while none can remove the names.
fn go_on_with_names_kept<const N: usize>(stopped: [Child; N], when: &str) {
    let lock_file = open_lock_file();
    keep_names(&lock_file);
    for each in stopped {
        each.signal(libc::SIGCONT);
        each.succeed();
    }
    drop(lock_file);
    end_living(None, when);
}

/// Its parent leaves, is the last member, and cannot remove the names.
fn pinned() {
    let parent = stopped(|| {
        let settings = Settings {
            processes: 1,
            ..small()
        };
        let arena = Arena::attach_or_create(None, IDENTIFIER, settings).unwrap();
        let block = arena.allocate(100_000).unwrap();
        // SAFETY: ours, and this long.
        unsafe { block.bytes().write_bytes(0x5a, 100_000) };
        let child = stopped(|| {
            stop();
            // SAFETY: the block was inherited.
            let bytes = unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), 100_000) };
            assert!(bytes.iter().all(|byte| *byte == 0x5a));
            0
        });
        assert_eq!(arena.stats().unwrap().pinned_forks, 1);
        stop();
        drop(block);
        drop(arena);
        child.signal(libc::SIGCONT);
        child.succeed();
        0
    });
    go_on_with_names_kept([parent], "with a child without a slot");
}

/// A process that is at its end, and uses its blocks still, keeps them when the last one leaves and
/// cannot remove the names; who has given all back is told that it has left.
fn retired() {
    for has_blocks in [true, false] {
        let mut retired = stopped(|| {
            let arena = meet();
            stop();
            let block = arena.allocate(100_000).unwrap();
            // SAFETY: ours, and this long.
            unsafe { block.bytes().write_bytes(0x5a, 100_000) };
            let block = Some(block).filter(|_| has_blocks);
            retire_all(false);
            stop();
            if let Some(block) = &block {
                // SAFETY: ours, and this long.
                let bytes = unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), 100_000) };
                assert!(bytes.iter().all(|byte| *byte == 0x5a));
            }
            0
        });
        let last = stopped(|| {
            let arena = meet();
            stop();
            drop(arena);
            0
        });
        retired.signal(libc::SIGCONT);
        retired.wait_for_stop();
        go_on_with_names_kept([last, retired], "with a process at its end");
    }
    // The same, where it is the last itself.
    let alone = stopped(|| {
        let arena = meet();
        drop(
            (0..100)
                .map(|_| arena.allocate(100).unwrap())
                .collect::<Vec<Block>>(),
        );
        stop();
        retire_all(false);
        assert_eq!(arena.allocate(100).err(), Some(Error::Detached));
        0
    });
    go_on_with_names_kept([alone], "with a process at its end, alone");
    // The same, while another thread of it goes on.
    let busy = stopped(|| {
        let arena = meet();
        stop();
        let ended = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while ended.load(Ordering::Relaxed) == 0 {
                    drop(arena.allocate(5000).unwrap());
                }
            });
            retire_all(false);
            ended.store(1, Ordering::Relaxed);
        });
        0
    });
    go_on_with_names_kept([busy], "with a process at its end, and a thread");
}

/// Another process has the names' lock for a while, and does not remove them.
fn kept_for_a_while() {
    if !can_trace() {
        println!("  SKIPPED: processes cannot be traced here");
        return;
    }
    let mut last = traced(|| {
        let arena = meet();
        stop();
        drop(arena);
    });
    let lock_file = open_lock_file();
    keep_names(&lock_file);
    for _ in 0..200 {
        assert!(to_system_call(&mut last));
    }
    assert!(!is_gone());
    drop(lock_file);
    while to_system_call(&mut last) {}
    assert!(is_gone());
    last.kill();
}

/// Whether the one that leaves has such a stop.
fn leaving_at_call(why: Names, by_name: bool, leaving: u64, coming: u64) -> bool {
    const HAS: u64 = 1;
    const GONE: u64 = 2;
    let when = format!("{why:?}, by its name: {by_name}, at stops {leaving} and {coming}");
    let found: &AtomicU64 = common();
    let mut last = traced(|| {
        let arena = meet();
        // Its tables have more than one chunk.
        drop(
            (0..100)
                .map(|_| arena.allocate(100).unwrap())
                .collect::<Vec<Block>>(),
        );
        stop();
        if why == Names::HaveGone {
            let me = arena.member().unwrap();
            arena.core().mark_unlinked(me).unwrap();
            // As another process does that finds the mark.
            assert!(Arena::attach(name(), 30_000).is_err() && is_gone());
        }
        drop(arena);
    });
    let lock_file = open_lock_file();
    let mut comer = traced(|| {
        stop();
        let arena = match by_name {
            true => Arena::attach(name(), 30_000),
            false => meet_within(30_000),
        };
        let told = match &arena {
            Ok(arena) => {
                assert_eq!(arena.check().unwrap(), Vec::<String>::new());
                drop(arena.allocate(100).unwrap());
                HAS
            }
            Err(Error::Os { errno, .. }) if by_name && *errno == libc::ENOENT => GONE,
            Err(error) => panic!("{error}"),
        };
        found.store(told, Ordering::SeqCst);
        std::mem::forget(arena);
    });
    // It has the byte of a slot, which is not its own yet.
    while !locks::is_any_locked(lock_file.as_fd(), 1, 255).unwrap() {
        assert!(to_system_call(&mut comer), "{when}");
    }
    if why == Names::TellNothing {
        std::fs::remove_file(lock_path()).unwrap();
    }
    while why == Names::HaveGone && !is_gone() {
        assert!(to_system_call(&mut last), "{when}");
    }
    let leaves = (0..=leaving).all(|_| to_system_call(&mut last));
    let comes = (0..=coming).all(|_| to_system_call(&mut comer));
    while leaves && to_system_call(&mut last) {}
    while comes && to_system_call(&mut comer) {}
    assert_ne!(found.load(Ordering::SeqCst), 0, "{when}");
    last.kill();
    comer.kill();
    end_living(None, &when);
    leaves
}

fn end_living(living: Option<Child>, when: &str) {
    if let Some(living) = living {
        living.signal(libc::SIGCONT);
        living.succeed();
    }
    // What the dead left goes with the next that comes and leaves.
    fork(|| {
        let arena = meet();
        assert_right(&arena, "at the end");
        0
    })
    .succeed();
    assert!(is_gone(), "{when}: {:?}", objects(name()));
}

fn end(living: Option<Child>, actor: Child, other: Option<Child>, when: &str) {
    actor.kill();
    if let Some(other) = other {
        other.signal(libc::SIGCONT);
        other.succeed();
    }
    end_living(living, when);
}

// ---- all at once -----------------------------------------------------------------------------

const WORKERS: usize = 6;
const KILLS: u64 = 60;

/// What the workers tell.
struct Crowd {
    /// Which arena each has, set after it came and cleared before it leaves.
    has: [AtomicU64; WORKERS],
    /// Set before a worker is killed: what it told is nothing from then on.
    doomed: [AtomicU32; WORKERS],
    failed: AtomicU32,
    met: AtomicU64,
    shared: AtomicU64,
}

fn come_and_go(crowd: &'static Crowd, number: usize, seed: u64) -> i32 {
    // SAFETY: its own group, so that its children die with it.
    unsafe { libc::setpgid(0, 0) };
    // (It may be killed before it has told of it otherwise.)
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |why| {
        crowd.failed.fetch_add(1, Ordering::SeqCst);
        usual(why)
    }));
    let mut random = Random::new(seed);
    let look = |who: usize| crowd.has[who].load(Ordering::SeqCst);
    let mut kept = Vec::new();
    loop {
        let before: Vec<u64> = (0..WORKERS).map(look).collect();
        let arena = meet();
        for (who, before) in before.into_iter().enumerate() {
            let lives = |who: usize| crowd.doomed[who].load(Ordering::SeqCst) == 0;
            // It has had that one all the time.
            if who != number && before != 0 && look(who) == before && lives(who) {
                assert_eq!(before, arena.uuid()[0], "two arenas of one identifier");
                crowd.shared.fetch_add(1, Ordering::SeqCst);
            }
        }
        crowd.has[number].store(arena.uuid()[0], Ordering::SeqCst);
        crowd.met.fetch_add(1, Ordering::SeqCst);
        if let Some(root) = arena.root().unwrap() {
            assert_eq!(written(&root), arena.uuid()[0], "another arena's root");
        }
        for _ in 0..random.below(20) {
            match random.below(40) {
                0 => drop(publish(&arena)),
                1 => {
                    let child = fork(|| {
                        std::thread::sleep(Duration::from_micros(random.below(500)));
                        0
                    });
                    drop(child);
                }
                2 => drop(remove_deserted(name(), 0)),
                3..=20 => kept.extend(arena.allocate(random.below(20_000)).ok()),
                _ => drop(kept.pop()),
            }
        }
        kept.clear();
        if random.below(8) == 0 {
            assert_eq!(arena.check().unwrap(), Vec::<String>::new());
        }
        crowd.has[number].store(0, Ordering::SeqCst);
        drop(arena);
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(2000)));
        }
    }
}

fn storm() {
    // Children of dead workers become this process's, which waits for them: until they have ended they
    // have the arena.
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let crowd: &Crowd = common();
    let mut random = Random::new(seed::of_test("meeting_storm"));
    let mut workers: Vec<Option<Child>> = (0..WORKERS).map(|_| None).collect();
    for _ in 0..times(KILLS) {
        for (number, worker) in workers.iter_mut().enumerate() {
            if worker.is_none() {
                let seed = random.below(u64::MAX) | 1;
                crowd.has[number].store(0, Ordering::SeqCst);
                crowd.doomed[number].store(0, Ordering::SeqCst);
                *worker = Some(fork(|| come_and_go(crowd, number, seed)));
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        // One, some or all.
        let count = [1, 1, 1, 2, WORKERS as u64][random.below(5) as usize];
        let first = random.below(WORKERS as u64);
        for i in 0..count {
            let number = ((first + i) % WORKERS as u64) as usize;
            crowd.doomed[number].store(1, Ordering::SeqCst);
            kill_group(workers[number].take().unwrap());
        }
        wait_for_orphans(false);
    }
    for (number, worker) in workers.into_iter().enumerate() {
        crowd.doomed[number].store(1, Ordering::SeqCst);
        if let Some(worker) = worker {
            kill_group(worker);
        }
    }
    wait_for_orphans(true);
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
    let [met, shared] = [&crowd.met, &crowd.shared].map(|count| count.load(Ordering::SeqCst));
    println!("  met {met} times, {shared} times with another one there");
    assert!(met > KILLS && shared > 0);
    assert_eq!(crowd.failed.load(Ordering::SeqCst), 0);
    let arena = meet();
    assert_right(&arena, "at the end");
    drop(arena);
    assert!(is_gone());
}
