//! Faults, one by one: what runs out, who stops, closes, executes or leaves.

use crate::mounts::{in_a_tmpfs, undisturbed};
use crate::run::seed::{self, times, Random};
use crate::step::{fill, is_filled};
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::format::{Header, NIL, PAGES_THERE, POISONED};
use shared_numpy::arena::handle::{Handle, Name};
use shared_numpy::arena::Member;
use shared_numpy::error::{Error, Exhausted};
use shared_numpy::process::{
    judge, remove_anyway, use_hooks, Arena, Block, Settings, Verdict, WaitHooks,
};
use shared_numpy::sys::locks;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("names_come_and_go", |_| names_come_and_go()),
    ("the_last_to_leave_removes_the_names", |_| last_leaves()),
    ("names_are_removed_by_their_owner", |_| names_used_again()),
    ("leaving_and_forking_in_threads", |_| leaving_in_threads()),
    ("fork_while_the_owner_is_stopped", |_| fork_while_stopped()),
    ("an_arena_is_attached_once", |_| attached_once()),
    ("what_is_no_arena_is_refused", |_| no_arena()),
    ("handles_of_others_are_refused", |_| foreign_handles()),
    ("transferred", |_| transferred()),
    ("mutated_handles", |_| mutated_handles()),
    ("small_blocks_are_used_again", |_| spares()),
    ("a_spare_block_is_not_a_child_s", |_| spares_and_forks()),
    ("blocks_are_found_by_names_that_were_told", |_| found()),
    ("a_process_retires", |_| retiring()),
    ("deserted_arenas_are_swept", |_| undisturbed(sweeping)),
    ("an_arena_in_the_making_is_not_swept", |_| {
        undisturbed(sweeping_remains)
    }),
    ("a_tmpfs_of_one_megabyte", |_| small_tmpfs()),
    ("what_others_do_not_use_can_be_had", |_| others_give_back()),
    ("all_rows_taken", |_| all_rows_taken()),
    ("all_slots_taken", |_| all_slots_taken()),
    ("three_hundred_processes", |_| three_hundred_processes()),
    ("no_descriptor_left", |_| no_descriptor_left()),
    ("no_address_space_left", |_| no_address_space_left()),
    ("a_child_holds_what_its_parent_holds", |_| child_holds()),
    ("fork_beside_threads", |_| fork_beside_threads()),
    ("work_of_threads_is_not_a_child_s", |_| work_of_threads()),
    ("a_child_without_handlers", |_| stray_child()),
    ("a_fork_by_a_handler_in_a_wait", |_| fork_in_a_wait()),
    ("a_stopped_owner", |_| stopped_owner()),
    ("signals_at_1_khz", |_| signals()),
    ("a_process_that_closed_its_descriptors", |_| {
        closed_descriptors()
    }),
    ("a_process_that_executed_another_program", |_| executed()),
    ("two_namespaces_of_pids", |_| two_namespaces(false)),
    ("two_namespaces_of_pids_and_bytes_lost", |_| {
        two_namespaces(true)
    }),
    ("returned_pages_come_back", |_| returned_pages()),
    ("grace_and_donation", |_| grace_and_donation()),
];

fn attach(name: Name) -> Result<Arena, Error> {
    Arena::attach(name, 30_000)
}

fn errno(error: Error) -> i32 {
    match error {
        Error::Os { errno, .. } => errno,
        other => panic!("{other:?}"),
    }
}

/// Waits until `done`, for as long as another process may take.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + crate::run::patience();
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn names_come_and_go() {
    let test = TestArena::new(small());
    let name = test.name();
    let taken = Arena::create(name, small()).err().unwrap();
    assert_eq!(errno(taken), libc::EEXIST);
    // The one that is there did not suffer.
    drop(test.allocate(100).unwrap());
    assert_eq!(objects(name).len(), 2);
    test.allocate(1 << 20).unwrap();
    assert_eq!(objects(name).len(), 2);
    test.unlink().unwrap();
    assert_eq!(objects(name).len(), 0);
    assert_eq!(errno(attach(name).err().unwrap()), libc::ENOENT);
    // Who has it goes on, and the name is free.
    drop(test.allocate(20 << 20).unwrap());
    let other = TestArena::named(name, small());
    assert_eq!(objects(name).len(), 2);
    assert_empty(&test.arena);
    test.arena.leave().unwrap();
    // The names are the other's.
    assert_eq!(objects(name).len(), 2);
    drop(other);
    drop(test);
    assert_eq!(objects(name).len(), 0);
    for settings in [
        Settings {
            size: 1000,
            ..small()
        },
        Settings {
            block_shift: 3,
            ..small()
        },
        Settings {
            ticket_shift: 40,
            ..small()
        },
    ] {
        let name = next_name();
        assert!(matches!(
            Arena::create(name, settings),
            Err(Error::Invalid { .. })
        ));
        assert_eq!(objects(name).len(), 0);
    }
}

fn last_leaves() {
    let name = next_name();
    let arena = Arena::create(name, small()).unwrap();
    let block = arena.allocate(1000).unwrap();
    let handle = arena.send(&block).unwrap();
    let mut child = fork(|| {
        stop();
        let block = arena.receive(&handle).unwrap();
        assert_eq!(block.size(), 1024);
        drop(block);
        arena.leave().unwrap();
        0
    });
    child.wait_for_stop();
    drop(block);
    // Not the last, and its message is still on the way.
    drop(arena);
    assert_eq!(objects(name).len(), 2);
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(objects(name), Vec::<String>::new());

    // A message keeps the names, for whoever comes later.
    let arena = Arena::create(name, small()).unwrap();
    let handle = arena.send(&arena.allocate(1000).unwrap()).unwrap();
    arena.leave().unwrap();
    assert!(matches!(arena.allocate(1), Err(Error::Detached)));
    drop(arena);
    assert_eq!(objects(name).len(), 2);
    let arena = attach(name).unwrap();
    drop(arena.receive(&handle).unwrap());
    drop(arena);
    assert_eq!(objects(name), Vec::<String>::new());
}

fn names_used_again() {
    let name = next_name();
    let old = Arena::create(name, small()).unwrap();
    // Somebody removes them by hand, and there is another arena of this name.
    for object in objects(name) {
        std::fs::remove_file(format!("/dev/shm/{object}")).unwrap();
    }
    let new = TestArena::named(name, small());
    let mine = objects(name);
    // Twice: when it is asked to, and when its last member leaves.
    old.unlink().unwrap();
    drop(old);
    assert_eq!(objects(name), mine);
    assert_eq!(mine.len(), 2);
    fork(|| {
        // Attached anew, not found in the family.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .arg("--attach")
            .arg(name.as_str())
            .status()
            .unwrap()
            .code()
            .unwrap()
    })
    .succeed();
    drop(new);
}

fn leaving_in_threads() {
    for _ in 0..30 {
        let test = TestArena::new(small());
        let kept = test.allocate(100).unwrap();
        fork(|| {
            let arena = &test.arena;
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| arena.leave().unwrap());
                    scope.spawn(|| loop {
                        match arena.allocate(64) {
                            Ok(block) => drop(block),
                            Err(Error::Detached) => break,
                            Err(error) => panic!("{error}"),
                        }
                    });
                }
                let mut child = fork(|| 0);
                child.wait();
            });
            0
        })
        .succeed();
        // The lock is free, and nothing is left but this process's.
        drop(kept);
        assert_empty(&test.arena);
    }
}

fn fork_while_stopped() {
    let name = next_name();
    let settings = Settings {
        patience: 50,
        ..small()
    };
    let test = Arena::create(name, settings).unwrap();
    let block = test.allocate(1000).unwrap();
    // SAFETY: ours.
    unsafe { block.bytes().write(0x77) };
    let mut owner = fork(|| {
        let me = test.member().unwrap();
        let other = test.allocate(100).unwrap();
        std::mem::forget(other);
        test.core()
            .prepare_fork(me, |_| true, |_| false, || true)
            .unwrap();
        stop();
        test.core().finish_fork(me);
        stop();
        0
    });
    owner.wait_for_stop();
    // The lock is not to be had; the child comes nevertheless.
    let mut child = fork(|| {
        stop();
        // SAFETY: nobody may have it freed.
        assert_eq!(unsafe { block.bytes().read() }, 0x77);
        0
    });
    child.wait_for_stop();
    owner.signal(libc::SIGCONT);
    owner.wait_for_stop();
    let which = block.which();
    drop(block);
    let others: Vec<Block> = (0..100).map(|_| test.allocate(1000).unwrap()).collect();
    for other in &others {
        // SAFETY: ours.
        unsafe { other.bytes().write_bytes(0xff, 1000) };
    }
    assert!(others.iter().all(|other| other.which().id != which.id));
    assert!(test.core().header().frozen.get() > 0);
    child.signal(libc::SIGCONT);
    child.succeed();
    owner.kill();
    drop(others);
    // It was kept for the child's sake alone.
    test.reap().unwrap();
    assert_eq!(test.core().header().frozen.get(), 0);
    assert_empty(&test);
    test.leave().unwrap();
    drop(test);
    assert_eq!(objects(name), Vec::<String>::new());
}

fn attached_once() {
    let test = TestArena::new(small());
    let again = attach(test.name()).unwrap();
    let block = test.allocate(100).unwrap();
    let received = again.receive(&test.send(&block).unwrap()).unwrap();
    assert_eq!(received.bytes(), block.bytes());
    assert_eq!(
        snapshot(&test.arena)
            .slots
            .iter()
            .filter(|slot| slot.0 != 0)
            .count(),
        1
    );
    // The second reference counts; so does a clone.
    drop(block);
    let clone = received.clone();
    drop(received);
    assert_eq!(snapshot(&again).live().count(), 1);
    drop(again);
    drop(clone);
    assert_empty(&test.arena);
    // The byte lock was not dropped with the second one.
    fork(|| {
        test.reap().unwrap();
        assert_eq!(test.stats().unwrap().processes, 2);
        0
    })
    .succeed();
}

const OTHER_VERSION: Error = Error::OtherVersion {
    what: "",
    found: 0,
    known: 0,
};

/// Changes the header of an arena; what attaching says to it.
fn attach_changed(change: impl FnOnce(&std::fs::File)) -> Error {
    let test = TestArena::new(small());
    let name = test.name();
    let path = format!("/dev/shm/{}", name.as_str());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    change(&file);
    let result = fork(|| {
        // A process that has it is not asked; a new one is.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.arg("--attach").arg(name.as_str()).status().unwrap();
        status.code().unwrap()
    })
    .wait();
    match libc::WEXITSTATUS(result) {
        1 => Error::Foreign { why: "" },
        2 => Error::Corrupted { why: "" },
        4 => OTHER_VERSION,
        code => panic!("attaching gave {code}"),
    }
}

/// What `--attach NAME` does: the child of `attach_changed`.
pub fn attach_and_tell(name: &str) -> i32 {
    match attach(Name::new(name).unwrap()) {
        Ok(_) => 0,
        Err(Error::Foreign { .. }) => 1,
        Err(Error::Corrupted { .. }) => 2,
        Err(Error::OtherVersion { .. }) => 4,
        Err(error) => {
            eprintln!("{error:?}");
            3
        }
    }
}

fn no_arena() {
    let foreign = Error::Foreign { why: "" };
    let at = |offset: usize| {
        move |file: &std::fs::File| file.write_all_at(&[0xee], offset as u64).unwrap()
    };
    for offset in [
        std::mem::offset_of!(Header, magic),
        std::mem::offset_of!(Header, abi),
        std::mem::offset_of!(Header, uid),
        std::mem::offset_of!(Header, block_shift),
        std::mem::offset_of!(Header, size),
        std::mem::offset_of!(Header, data),
        std::mem::offset_of!(Header, lock_file),
        std::mem::offset_of!(Header, boot),
    ] {
        assert_eq!(attach_changed(at(offset)), foreign, "byte {offset}");
    }
    let version = std::mem::offset_of!(Header, version);
    assert_eq!(attach_changed(at(version)), OTHER_VERSION);
    let mode = |file: &std::fs::File| {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))
            .unwrap()
    };
    assert_eq!(attach_changed(mode), foreign);
}

fn foreign_handles() {
    let one = TestArena::new(small());
    let other = TestArena::new(small());
    let block = one.allocate(100).unwrap();
    let handle = one.send(&block).unwrap();
    assert!(matches!(other.receive(&handle), Err(Error::Foreign { .. })));
    assert!(matches!(other.send(&block), Err(Error::Foreign { .. })));
    let mut late = handle;
    late.boot ^= 1;
    assert!(matches!(one.receive(&late), Err(Error::Foreign { .. })));
    let mut never = handle;
    never.block.id.0 = 1 << 20;
    assert!(matches!(one.receive(&never), Err(Error::BadHandle { .. })));
    let mut never = handle;
    never.ticket.as_mut().unwrap().id.0 = 1 << 20;
    assert!(matches!(one.receive(&never), Err(Error::BadHandle { .. })));
    assert!(one.cancel(&handle).unwrap());
    assert!(!one.cancel(&handle).unwrap());
    drop(block);
    assert!(matches!(one.receive(&handle), Err(Error::Stale)));
    assert_empty(&one.arena);
}

/// Mutated handles are refused or yield a block that is there, as it is.
/// What was transferred to a block ends with it, however that ends, and not before.
fn transferred() {
    let test = TestArena::new(small());
    let arena = &test.arena;
    let other = TestArena::new(small());
    let message = |owner: &Block| {
        let block = arena.allocate(500).unwrap();
        let handle = arena.send(&block).unwrap();
        assert_eq!(arena.transfer_ownership(&handle, owner), Ok(true));
        handle
    };
    // Received, it is its receiver's.
    let queue = arena.allocate(64).unwrap();
    let block = arena.receive(&message(&queue)).unwrap();
    let again = arena.send(&block).unwrap();
    drop(arena.take(&again).unwrap());
    assert_eq!(arena.take(&again).err(), Some(Error::Stale));
    assert!(arena.receive(&again).is_ok());
    // One that is cancelled, one that waits.
    let cancelled = message(&queue);
    assert_eq!(arena.cancel(&cancelled), Ok(true));
    assert_eq!(arena.transfer_ownership(&cancelled, &queue), Ok(false));
    let waiting = message(&queue);
    assert_eq!(arena.cancel_unreceived(0), Ok(0));
    assert_eq!(snapshot(arena).open().count(), 1);
    // A chain against the order of the tickets: each look at all finds one.
    let chain: Vec<Block> = (0..41).map(|_| arena.allocate(64).unwrap()).collect();
    let handles: Vec<Handle> = chain.iter().map(|b| arena.send(b).unwrap()).collect();
    for (handle, owner) in handles.iter().zip(chain.iter().skip(1).chain([&queue])) {
        assert_eq!(arena.transfer_ownership(handle, owner), Ok(true));
    }
    drop(chain);
    // What cannot be.
    let own = arena.send(&queue).unwrap();
    assert!(matches!(
        arena.transfer_ownership(&own, &queue),
        Err(Error::Invalid { .. })
    ));
    assert_eq!(arena.cancel(&own), Ok(true));
    let foreign = other.allocate(64).unwrap();
    assert_eq!(arena.transfer_ownership(&waiting, &foreign), Ok(false));
    assert_eq!(snapshot(arena).live().count(), 44);
    drop(queue);
    assert_eq!(snapshot(arena).open().count(), 0);
    assert_eq!(arena.receive(&waiting).err(), Some(Error::Stale));
    assert_eq!(snapshot(arena).live().count(), 1);
    drop(block);
    // The owner's last holder is killed; its message's sender lives.
    let queue = arena.allocate(64).unwrap();
    let keeping = arena.send(&queue).unwrap();
    message(&queue);
    let child = fork(|| {
        std::mem::forget(arena.receive(&keeping).unwrap());
        stop();
        0
    });
    let mut child = child;
    child.wait_for_stop();
    drop(queue);
    assert_eq!(snapshot(arena).open().count(), 1);
    child.kill();
    arena.reap().unwrap();
    assert_eq!(snapshot(arena).open().count(), 0);
    drop(foreign);
    assert_empty(arena);
}

fn mutated_handles() {
    let test = TestArena::new(small());
    let blocks: Vec<_> = (1..20).map(|i| test.allocate(i * 100).unwrap()).collect();
    let places: BTreeSet<_> = blocks.iter().map(|b| (b.bytes(), b.size())).collect();
    // Kept for later, sent and not received, received.
    drop(test.allocate(700).unwrap());
    let mut handles: Vec<_> = blocks.iter().map(|b| test.send(b).unwrap()).collect();
    for handle in &handles[..10] {
        drop(test.receive(handle).unwrap());
    }
    let other = TestArena::new(small());
    handles.push(other.send(&other.allocate(10).unwrap()).unwrap());
    let mut random = Random::new(seed::of_test("mutated_handles"));
    let (mut refused, mut received) = (0, 0);
    let all = times(1_000_000);
    for _ in 0..all {
        let mut handle = handles[random.below(handles.len() as u64) as usize];
        // A field or a byte: the first pass the checksum.
        let number = match random.below(3) {
            0 => random.below(64),
            1 => 1 << random.below(64),
            _ => u64::MAX - random.below(64),
        };
        let mut ticket = handle.ticket.unwrap();
        match random.below(9) {
            0 => handle.uuid[0] ^= number,
            1 => handle.boot = number,
            2 => handle.uid = number as u32,
            3 => handle.block.id.0 = number as u32,
            4 => handle.block.generation = number & ((1 << 56) - 1),
            5 => ticket.id.0 = number as u32,
            6 => ticket.generation = number & ((1 << 56) - 1),
            7 => handle.block.id.0 ^= ticket.id.0,
            _ => {}
        }
        handle.ticket = (ticket.id.0 != NIL).then_some(ticket);
        let mut bytes = handle.encode();
        if random.below(4) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        if random.below(16) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        match Handle::decode(&bytes).and_then(|handle| test.receive(&handle)) {
            Ok(block) => {
                assert!(places.contains(&(block.bytes(), block.size())));
                received += 1;
            }
            Err(
                Error::BadHandle { .. }
                | Error::OtherVersion { .. }
                | Error::Foreign { .. }
                | Error::Stale,
            ) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    println!("  {received} received, {refused} refused");
    assert!(received > all / 5 && refused > all / 5);
    drop(blocks);
    other.cancel_unreceived(0).unwrap();
    test.cancel_unreceived(0).unwrap();
    assert_empty(&test.arena);
}

/// Dropped small blocks come again without a look at the arena, unless another
/// process may know of them.
fn spares() {
    let test = TestArena::new(small());
    let allocated = || test.core().stats(test.member().unwrap()).unwrap().allocated;
    let block = test.allocate(100).unwrap();
    let which = block.which();
    let before = allocated();
    drop(block);
    let block = test.allocate(128).unwrap();
    assert_eq!((block.which(), allocated()), (which, before));
    // Two references: the block is kept with the last.
    let copy = block.clone();
    drop(block);
    let other = test.allocate(128).unwrap();
    assert_ne!(other.which(), which);
    drop(copy);
    assert_eq!(test.allocate(128).unwrap().which(), which);
    drop(other);
    // Sent: its handle must not yield what comes after it.
    let block = test.allocate(200).unwrap();
    let handle = test.send(&block).unwrap();
    assert!(test.cancel(&handle).unwrap());
    let which = block.which();
    drop(block);
    assert_ne!(test.allocate(200).unwrap().which(), which);
    assert!(matches!(test.receive(&handle), Err(Error::Stale)));
    // Received.
    let block = test.allocate(300).unwrap();
    let handle = test.send(&block).unwrap();
    let which = block.which();
    drop(block);
    drop(test.receive(&handle).unwrap());
    assert_ne!(test.allocate(300).unwrap().which(), which);
    // What is kept is no obstacle to anybody: it is given back when there is no
    // room, and before anybody counts.
    drop(test.allocate(100).unwrap());
    assert_eq!(test.stats().unwrap().blocks, 0);
    assert_empty(&test.arena);
}

fn found() {
    let test = TestArena::new(small());
    let sent = AtomicShared::new();
    // Another process, which inherits nothing.
    let mut child = fork(|| {
        stop();
        let Handle { block: which, .. } = sent.handle();
        let found = test.find(which).unwrap();
        stop();
        // SAFETY: held by this process.
        assert_eq!(unsafe { found.bytes().read() }, 1);
        drop(found);
        assert_eq!(test.find(which).err(), Some(Error::Stale));
        0
    });
    child.wait_for_stop();
    let block = test.allocate(640).unwrap();
    let which = block.which();
    assert_eq!(test.find(which).err(), Some(Error::Stale));
    assert_eq!(test.blocks(), Ok(vec![]));
    block.tell_name().unwrap();
    block.tell_name().unwrap();
    assert_eq!(test.blocks(), Ok(vec![which]));
    // SAFETY: held by this process.
    unsafe { block.bytes().write(1) };
    let names_it = Handle {
        ticket: None,
        ..test.send(&test.allocate(64).unwrap()).unwrap()
    };
    sent.put(
        &Handle {
            block: which,
            ..names_it
        }
        .encode(),
    );
    child.signal(libc::SIGCONT);
    child.wait_for_stop();
    // What somebody has found is not used again, under no name.
    drop(block);
    let next = test.allocate(640).unwrap();
    assert_ne!(next.which(), which);
    // SAFETY: held by this process.
    unsafe { next.bytes().write(2) };
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(test.find(which).err(), Some(Error::Stale));
    // In its next life the row has not been told of.
    drop(next);
    let again: Vec<Block> = (0..8).map(|_| test.allocate(640).unwrap()).collect();
    assert!(again.iter().any(|block| block.which().id == which.id));
    assert_eq!(test.blocks(), Ok(vec![]));
    drop(again);
    test.cancel_unreceived(0).unwrap();
    assert_empty(&test.arena);
}

fn spares_and_forks() {
    let test = TestArena::new(small());
    let from_parent = AtomicShared::new();
    drop(test.allocate(100).unwrap());
    let held = test.allocate(1000).unwrap();
    let which = held.which();
    let mut child = fork(|| {
        // Not the one that its parent keeps.
        let block = test.allocate(100).unwrap();
        // SAFETY: held by this process.
        unsafe { block.bytes().write_bytes(1, 100) };
        stop();
        // Sent by its parent, who kept it when this one was forked.
        drop(test.receive(&from_parent.handle()).unwrap());
        // SAFETY: held by this process.
        let bytes = unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), 100) };
        assert!(bytes.iter().all(|byte| *byte == 1));
        // SAFETY: inherited, and so held by this process.
        assert_eq!(unsafe { held.bytes().read() }, 5);
        0
    });
    child.wait_for_stop();
    let block = test.allocate(100).unwrap();
    // SAFETY: held by this process.
    unsafe { block.bytes().write_bytes(2, 100) };
    // What its parent kept then, a child receives like anybody.
    from_parent.put(&test.send(&block).unwrap().encode());
    // SAFETY: as above.
    unsafe { held.bytes().write(5) };
    // The child has it, too: it is not used again.
    drop(held);
    let other = test.allocate(1000).unwrap();
    assert_ne!(other.which(), which);
    // SAFETY: held by this process.
    unsafe { other.bytes().write_bytes(9, 1000) };
    child.signal(libc::SIGCONT);
    child.succeed();
    drop((block, other));
    assert_empty(&test.arena);
}

/// A process that is about to end keeps what it has references to.
fn retiring() {
    let name = next_name();
    let mut child = fork(|| {
        let arena = Arena::create(name, small()).unwrap();
        let kept = arena.allocate(1000).unwrap();
        drop(arena.allocate(100).unwrap());
        let sent = arena.allocate(1000).unwrap();
        let handle = arena.send(&sent).unwrap();
        drop(sent);
        assert_eq!(shared_numpy::process::retire_all(false).len(), 1);
        // SAFETY: held by this process.
        unsafe { kept.bytes().write_bytes(7, 1000) };
        // What was kept for the next allocation was given back.
        let again = arena.allocate(100).unwrap();
        assert_eq!(arena.stats().unwrap().blocks, 3);
        drop(again);
        stop();
        // SAFETY: held by this process.
        assert_eq!(unsafe { kept.bytes().read() }, 7);
        assert!(arena.cancel(&handle).unwrap());
        stop();
        // Nothing is left but what it has, and nobody who could want it.
        assert_eq!(shared_numpy::process::retire_all(false).len(), 0);
        drop(kept);
        // It may be used all the same.
        drop(arena.allocate(5000).unwrap());
        0
    });
    child.wait_for_stop();
    let arena = attach(name).unwrap();
    let now = snapshot(&arena);
    assert_eq!((now.live().count(), now.open().count()), (2, 1));
    // The ticket is the arena's: it outlives its sender.
    let block = arena.allocate(1000).unwrap();
    // SAFETY: held by this process.
    unsafe { block.bytes().write_bytes(1, 1000) };
    child.signal(libc::SIGCONT);
    child.wait_for_stop();
    // Who has detached and is about to end needs no names.
    drop((arena, block));
    assert_eq!(objects(name), Vec::<String>::new());
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(objects(name), Vec::<String>::new());
}

/// Makes an arena in a child, which does `work` with it and is killed.
fn deserted(settings: Settings, work: impl FnOnce(&Arena)) -> Name {
    let name = next_name();
    let mut child = fork(|| {
        let arena = Arena::create(name, settings).unwrap();
        work(&arena);
        stop();
        0
    });
    child.wait_for_stop();
    child.kill();
    assert_eq!(objects(name).len(), 2);
    name
}

fn remove_orphans() -> Vec<Name> {
    shared_numpy::process::remove_orphans(None).unwrap()
}

fn sweeping() {
    let mine = TestArena::new(small());
    let empty = deserted(small(), |_| ());
    let full = deserted(small(), |arena| std::mem::forget(arena.allocate(9000)));
    let sent = |arena: &Arena| {
        let block = arena.allocate(9000).unwrap();
        arena.send(&block).unwrap();
    };
    // In flight from a killed sender, whose grace is over at once or not.
    let orphan = deserted(small(), sent);
    let graced = deserted(
        Settings {
            grace: 60_000,
            ..small()
        },
        sent,
    );
    // Left in peace: somebody may still come.
    let left = next_name();
    fork(|| {
        let arena = Arena::create(left, small()).unwrap();
        sent(&arena);
        0
    })
    .succeed();
    // What is said beforehand is what is done.
    let said = [empty, full, orphan, graced, left, mine.name()].map(|name| judge(name, 600_000));
    assert_eq!(
        said.map(Option::unwrap),
        [
            Verdict::Orphan,
            Verdict::Orphan,
            Verdict::Orphan,
            Verdict::Awaited(1),
            Verdict::Awaited(1),
            Verdict::InUse,
        ]
    );
    assert_eq!(judge(next_name(), 0), None);
    let swept = remove_orphans();
    for (name, gone) in [
        (empty, true),
        (full, true),
        (orphan, true),
        (graced, false),
        (left, false),
        (mine.name(), false),
    ] {
        assert_eq!(swept.contains(&name), gone, "{name:?}");
        assert_eq!(objects(name).is_empty(), gone, "{name:?}");
    }
    drop(mine.allocate(100).unwrap());
    for name in [left, graced] {
        let arena = attach(name).unwrap();
        assert_eq!(arena.cancel_unreceived(0).unwrap(), 1);
        drop(arena);
        assert_eq!(objects(name), Vec::<String>::new());
    }
}

/// Makes a lock file a minute older than it is.
fn age(name: Name) {
    let path = format!(
        "/dev/shm/{}{}",
        name.as_str(),
        shared_numpy::process::LOCK_SUFFIX
    );
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    file.set_modified(past).unwrap();
}

/// Overwrites eight bytes of an object.
fn write_to(name: Name, suffix: &str, at: usize) {
    let path = format!("/dev/shm/{}{suffix}", name.as_str());
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xee; 8], at as u64).unwrap();
}

fn sweeping_remains() {
    let name = next_name();
    let path = |suffix: &str| format!("/dev/shm/{}{suffix}", name.as_str());
    let suffix = shared_numpy::process::LOCK_SUFFIX;
    let make = |path: String| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(path).unwrap()
    };
    // As a death in the making leaves them: no memory, no magic number yet.
    for memory in [None, Some(96), Some(200_000)] {
        let lock = make(path(suffix)).metadata().unwrap();
        if let Some(length) = memory {
            let file = make(path(""));
            file.set_len(length).unwrap();
            for (i, number) in [lock.ino(), lock.dev()].iter().enumerate() {
                let at = std::mem::offset_of!(Header, lock_file) + 8 * i;
                file.write_all_at(&number.to_ne_bytes(), at as u64).unwrap();
            }
        }
        assert!(!remove_orphans().contains(&name), "{memory:?}");
        age(name);
        assert!(remove_orphans().contains(&name), "{memory:?}");
        assert_eq!(objects(name), Vec::<String>::new());
    }
    // Somebody else's object has the name by now, or the header was overwritten: nobody can tell,
    // and the lock file is all that tells of the memory.
    for (length, written) in [(0, 0), (200_000, 0), (200_000, 4096)] {
        make(path(suffix));
        let file = make(path(""));
        file.set_len(length).unwrap();
        file.write_all_at(&vec![0xee; written], 0).unwrap();
        age(name);
        assert!(!remove_orphans().contains(&name));
        assert_eq!(objects(name).len(), 2);
        // Nor at the end of the program whose arena it was.
        assert!(!shared_numpy::process::remove_orphan(name));
        assert_eq!(objects(name).len(), 2);
        // Only by name, and while nobody has a lock.
        let lock = OpenOptions::new().write(true).open(path(suffix)).unwrap();
        assert!(locks::try_for_description(lock.as_fd(), 7, false).unwrap());
        assert_eq!(remove_anyway(name), Ok(false));
        assert_eq!(objects(name).len(), 2);
        drop(lock);
        assert_eq!(remove_anyway(name), Ok(true));
        assert_eq!(objects(name), Vec::<String>::new());
        assert!(remove_anyway(name).is_err());
    }
    // An arena of which nobody knows the format, one of another version, one of another build, and one
    // whose lock file was written to.
    let changes: [fn(Name); 4] = [
        |name| write_to(name, "", std::mem::offset_of!(Header, magic)),
        |name| write_to(name, "", std::mem::offset_of!(Header, version)),
        |name| write_to(name, "", std::mem::offset_of!(Header, abi)),
        |name| write_to(name, shared_numpy::process::LOCK_SUFFIX, 0),
    ];
    for change in changes {
        let damaged = deserted(small(), |_| ());
        change(damaged);
        age(damaged);
        let said = judge(damaged, 0);
        assert!(matches!(said, Some(Verdict::Unclear(_))), "{said:?}");
        assert!(!remove_orphans().contains(&damaged));
        assert_eq!(objects(damaged).len(), 2);
        assert_eq!(remove_anyway(damaged), Ok(true));
        assert_eq!(objects(damaged), Vec::<String>::new());
    }
    // This process's own stays.
    let mine = TestArena::new(small());
    assert_eq!(remove_anyway(mine.name()), Ok(false));
    assert_eq!(objects(mine.name()).len(), 2);
    drop(mine);
    // What only looks alike is left: written to, or for others to read.
    for (length, mode) in [(1, 0o600), (0, 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        let file = make(path(suffix));
        file.set_len(length).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .unwrap();
        age(name);
        assert!(!remove_orphans().contains(&name));
        std::fs::remove_file(path(suffix)).unwrap();
    }
    // One that overwrote itself is nobody's any more.
    let poisoned = deserted(small(), |arena| {
        arena.core().header().condition.set(POISONED)
    });
    assert_eq!(judge(poisoned, 600_000), Some(Verdict::Remains));
    assert!(remove_orphans().contains(&poisoned));
    // So is one of this version whose constants or tables were overwritten.
    for at in [
        std::mem::offset_of!(Header, data),
        std::mem::offset_of!(Header, segments),
    ] {
        let damaged = deserted(small(), |_| ());
        write_to(damaged, "", at);
        assert_eq!(judge(damaged, 600_000), Some(Verdict::Remains));
        assert!(remove_orphans().contains(&damaged), "{at}");
        assert_eq!(objects(damaged), Vec::<String>::new());
    }
}

fn small_tmpfs() {
    in_a_tmpfs("size=1m", || {
        let usual = Settings::default();
        let large = Settings {
            size: usual.size + (8 << 20),
            ..usual
        };
        let full = Arena::create(next_name(), large).err().unwrap();
        let Error::Full {
            what: Exhausted::Space,
            asked,
            ..
        } = full
        else {
            panic!("{full:?}")
        };
        // The usual 64 KiB and more.
        assert!(((8 << 20) + 1..=(64 << 10) + (8 << 20)).contains(&asked));
        assert!(full.to_string().contains("--shm-size"), "{full}");
        let names = std::fs::read_dir("/dev/shm").unwrap().count();
        assert_eq!(names, 0, "something was left");

        let test = TestArena::new(small());
        let mut blocks = Vec::new();
        let full = loop {
            match test.allocate(50_000) {
                Ok(block) => {
                    // No SIGBUS: what was promised is there.
                    // SAFETY: the block is ours, and this long.
                    unsafe { block.bytes().write_bytes(7, block.size() as usize) };
                    blocks.push(block);
                }
                Err(error) => break error,
            }
        };
        assert!(
            matches!(
                full,
                Error::Full {
                    what: Exhausted::Space,
                    ..
                }
            ),
            "{full:?}"
        );
        assert!(blocks.len() > 10, "{}", blocks.len());
        // It stays full, and each failure leaves everything as it was.
        let before = snapshot(&test.arena);
        for _ in 0..20 {
            assert!(test.allocate(60_000).is_err());
        }
        let after = snapshot(&test.arena);
        assert_eq!(before.bytes(), after.bytes());
        assert_eq!(before.segments, after.segments);
        blocks.truncate(blocks.len() - 2);
        blocks.push(test.allocate(50_000).unwrap());
        drop(blocks);
        assert_empty(&test.arena);
    });
}

/// Memory that is free in another arena of the process, and in one of another process, is had
/// before there is none; what is in use is not.
fn others_give_back() {
    const LARGE: u64 = 5 << 20;
    in_a_tmpfs("size=8m", || {
        let greedy = Settings {
            least: 1 << 40,
            longest: 1 << 30,
            ..small()
        };
        let name = next_name();
        let mut child = fork(|| {
            let arena = Arena::create(name, greedy).unwrap();
            let small = arena.allocate(9000).unwrap();
            fill(&small, 7);
            drop(arena.allocate(LARGE).unwrap());
            stop();
            assert!(is_filled(&small, 7));
            drop(arena.allocate(9000).unwrap());
            assert_eq!(arena.check().unwrap(), Vec::<String>::new());
            0
        });
        child.wait_for_stop();
        let (test, kept) = (TestArena::new(small()), TestArena::new(greedy));
        // Another process's, which is stopped.
        drop(test.allocate(LARGE).unwrap());
        test.trim().unwrap();
        // This one's other arena.
        drop(kept.allocate(LARGE).unwrap());
        let all = test.allocate(LARGE).unwrap();
        assert!(matches!(kept.allocate(LARGE), Err(Error::Full { .. })));
        fill(&all, 9);
        assert!(is_filled(&all, 9));
        drop(all);
        // For a new arena.
        drop(kept.allocate(LARGE).unwrap());
        let usual = Settings::default();
        TestArena::new(Settings {
            size: usual.size + LARGE,
            ..usual
        });
        drop(kept);
        child.signal(libc::SIGCONT);
        child.succeed();
    });
}

fn all_rows_taken() {
    let test = TestArena::new(Settings {
        size: 8 << 20,
        block_shift: 4,
        ticket_shift: 4,
        ..small()
    });
    let mut blocks: Vec<Block> = Vec::new();
    let full = loop {
        match test.allocate(1) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            full,
            Error::Full {
                what: Exhausted::Blocks,
                ..
            }
        ),
        "{full:?}"
    );
    // 4096 chunks of 16 rows: chunks lie in blocks too, and a few are kept.
    assert!(blocks.len() > 4095 * 15, "{}", blocks.len());
    assert_eq!(snapshot(&test.arena).live().count(), blocks.len());
    blocks.pop();
    blocks.push(test.allocate(1).unwrap());
    blocks.truncate(1000);
    let mut handles = Vec::new();
    let full = loop {
        match test.send(&blocks[0]) {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            full,
            Error::Full {
                what: Exhausted::Tickets,
                ..
            }
        ),
        "{full:?}"
    );
    assert_eq!(handles.len(), 4096 * 16);
    assert!(test.cancel(&handles[5]).unwrap());
    test.send(&blocks[0]).unwrap();
    assert_eq!(test.cancel_unreceived(0).unwrap(), 4096 * 16);
    drop(blocks);
    assert_empty(&test.arena);
}

/// Three hundred children are members, each with a block of its own and one that it was sent; all are
/// killed.
fn three_hundred_processes() {
    let holders = |arena: &Arena| {
        let live = snapshot(arena);
        let slots = live.live().flat_map(|block| block.holders.iter());
        let mut slots: Vec<u16> = slots.map(|slot| slot.0).collect();
        slots.sort();
        slots
    };
    fn twice(slots: impl Iterator<Item = u16>) -> Vec<u16> {
        slots.flat_map(|slot| [slot, slot]).collect()
    }
    let test = TestArena::new(Settings {
        processes: 301,
        ..small()
    });
    let handles: Vec<_> = (0..300)
        .map(|_| {
            let block = test.allocate(500).unwrap();
            test.send(&block).unwrap()
        })
        .collect();
    let mut children: Vec<Child> = handles
        .iter()
        .map(|handle| {
            fork(|| {
                let mine = test.allocate(300).unwrap();
                let sent = test.receive(handle).unwrap();
                stop();
                drop((mine, sent));
                0
            })
        })
        .collect();
    children.iter_mut().for_each(Child::wait_for_stop);
    // Two blocks of each child.
    assert_eq!(holders(&test), twice(1..=300));
    // One more has no slot, and is told which number to raise.
    fork(|| {
        let text = test.allocate(1).err().unwrap().to_string();
        assert!(text.contains("all 301 places"), "{text}");
        assert!(text.contains("processes=N"), "{text}");
        0
    })
    .succeed();
    // The byte of none of them is the one by which the names are removed.
    test.unlink().unwrap();
    assert_eq!(objects(test.name()), Vec::<String>::new());
    // Every second lives on, and still has what it had.
    let mut living = Vec::new();
    for (number, child) in children.into_iter().enumerate() {
        match number % 2 {
            0 => child.kill(),
            _ => living.push(child),
        }
    }
    test.reap().unwrap();
    assert_eq!(holders(&test), twice((2..=300).step_by(2)));
    living.iter().for_each(|child| child.signal(libc::SIGCONT));
    living.into_iter().for_each(Child::succeed);
    assert_empty(&test);
}

fn all_slots_taken() {
    let test = TestArena::new(small());
    let name = test.name();
    let block = test.allocate(1000).unwrap();
    let mut children: Vec<Child> = (0..255)
        .map(|_| {
            fork(|| {
                stop();
                0
            })
        })
        .collect();
    children.iter_mut().for_each(Child::wait_for_stop);
    assert_eq!(test.stats().unwrap().processes, 256);
    // A stranger is told.
    fork(|| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.arg("--attach").arg(name.as_str()).status().unwrap();
        // 3: neither foreign nor corrupted; the text is on the standard error.
        assert_eq!(status.code(), Some(3));
        0
    })
    .succeed();
    // A child has no slot, and still what it inherited.
    let mut pinned = fork(|| {
        assert!(matches!(
            test.allocate(1),
            Err(Error::Full {
                what: Exhausted::Slots,
                ..
            })
        ));
        stop();
        // SAFETY: the block was inherited.
        assert_eq!(unsafe { block.bytes().read() }, 0x5a);
        drop(block.clone());
        0
    });
    // SAFETY: ours.
    unsafe { block.bytes().write(0x5a) };
    pinned.wait_for_stop();
    assert!(test.stats().unwrap().pinned_forks >= 1);
    for child in children {
        child.kill();
    }
    let which = block.which();
    drop(block);
    test.reap().unwrap();
    // Nobody else holds it, and yet it is not freed.
    let live: Vec<_> = snapshot(&test.arena).live().map(|block| block.id).collect();
    assert_eq!(live, [which.id.0]);
    let others: Vec<Block> = (0..100).map(|_| test.allocate(1000).unwrap()).collect();
    pinned.signal(libc::SIGCONT);
    pinned.succeed();
    drop(others);
    // It stays for the child's sake alone.
    test.reap().unwrap();
    assert_eq!(snapshot(&test.arena).live().count(), 0);
    let arena = test.arena.clone();
    drop(test);
    drop(arena);
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// How much of something this process may have, as `getrlimit` tells it.
fn limit(resource: Resource) -> libc::rlimit {
    let mut most = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is lent to the call.
    let got = unsafe { libc::getrlimit(resource, &mut most) };
    assert_eq!(got, 0);
    most
}

fn set_limit(resource: Resource, most: libc::rlimit) {
    // SAFETY: the struct is lent to the call.
    let set = unsafe { libc::setrlimit(resource, &most) };
    assert_eq!(set, 0);
}

/// Runs `work` with no more of something to be had.
fn without<T>(resource: Resource, work: impl FnOnce() -> T) -> T {
    let before = limit(resource);
    set_limit(
        resource,
        libc::rlimit {
            rlim_cur: 0,
            ..before
        },
    );
    let result = work();
    set_limit(resource, before);
    result
}

fn without_descriptors<T>(work: impl FnOnce() -> T) -> T {
    without(libc::RLIMIT_NOFILE, work)
}

fn without_address_space<T>(work: impl FnOnce() -> T) -> T {
    without(libc::RLIMIT_AS, work)
}

fn no_address_space_left() {
    let test = TestArena::new(small());
    let before = snapshot(&test.arena);
    // Growth: the segment's row is given back, and its memory.
    let error = without_address_space(|| test.allocate(1 << 20).err().unwrap());
    assert_eq!(errno(error), libc::ENOMEM);
    assert_eq!(snapshot(&test.arena).segments, before.segments);

    // A segment that this process has not met: its message is not lost.
    let (to_child, from_parent) = (AtomicShared::new(), AtomicShared::new());
    let mut child = fork(|| {
        stop();
        let bytes = from_parent.handle();
        let error = without_address_space(|| test.receive(&bytes).err().unwrap());
        assert_eq!(errno(error), libc::ENOMEM);
        to_child.set(1);
        drop(test.receive(&bytes).unwrap());
        0
    });
    child.wait_for_stop();
    let far = test.allocate(1 << 20).unwrap();
    from_parent.put(&test.send(&far).unwrap().encode());
    drop(far);
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(to_child.get(), 1);
    test.reap().unwrap();
    assert_empty(&test.arena);
}

fn no_descriptor_left() {
    let name = next_name();
    let error = without_descriptors(|| Arena::create(name, small()).err().unwrap());
    assert_eq!(errno(error), libc::EMFILE);
    assert_eq!(objects(name).len(), 0);

    let test = TestArena::new(small());
    // Growth needs none.
    drop(without_descriptors(|| test.allocate(1 << 20).unwrap()));

    // A fork: the child's blocks are pinned.
    let block = test.allocate(100).unwrap();
    let child = without_descriptors(|| {
        fork(|| {
            let most = limit(libc::RLIMIT_NOFILE);
            set_limit(
                libc::RLIMIT_NOFILE,
                libc::rlimit {
                    rlim_cur: most.rlim_max,
                    ..most
                },
            );
            // A slot of its own, now that there are descriptors.
            drop(test.allocate(100).unwrap());
            0
        })
    });
    child.succeed();
    assert_eq!(test.stats().unwrap().pinned_forks, 1);
    drop(block);
}

/// Shared memory between a test and its children.
struct AtomicShared(&'static (AtomicU32, [AtomicU32; 128]));

impl AtomicShared {
    fn new() -> Self {
        // SAFETY: a new mapping touches no other.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(place, libc::MAP_FAILED);
        // SAFETY: zeros, long enough, and never unmapped.
        AtomicShared(unsafe { &*place.cast() })
    }

    fn set(&self, value: u32) {
        self.0 .0.store(value, Ordering::Release);
    }

    fn get(&self) -> u32 {
        self.0 .0.load(Ordering::Acquire)
    }

    fn put(&self, bytes: &[u8]) {
        for (place, byte) in self.0 .1.iter().zip(bytes) {
            place.store(*byte as u32, Ordering::Relaxed);
        }
        self.set(bytes.len() as u32);
    }

    fn handle(&self) -> shared_numpy::arena::handle::Handle {
        let bytes: Vec<u8> = self.0 .1[..self.get() as usize]
            .iter()
            .map(|place| place.load(Ordering::Relaxed) as u8)
            .collect();
        shared_numpy::arena::handle::Handle::decode(&bytes).unwrap()
    }
}

fn child_holds() {
    let test = TestArena::new(small());
    let blocks: Vec<Block> = (0..20).map(|i| test.allocate(100 * i).unwrap()).collect();
    for (i, block) in blocks.iter().enumerate() {
        // SAFETY: ours, and at least one byte.
        unsafe { block.bytes().write(i as u8) };
    }
    let mut child = fork(|| {
        let kept: Vec<&Block> = blocks.iter().step_by(2).collect();
        stop();
        for (i, block) in kept.iter().enumerate() {
            // SAFETY: held by this process.
            assert_eq!(unsafe { block.bytes().read() }, 2 * i as u8);
        }
        // A grandchild of it, too.
        fork(|| {
            for (i, block) in blocks.iter().enumerate() {
                // SAFETY: held by this process.
                assert_eq!(unsafe { block.bytes().read() }, i as u8);
            }
            0
        })
        .succeed();
        stop();
        test.leave().unwrap();
        0
    });
    child.wait_for_stop();
    // The parent lets go; what it allocates now lies elsewhere.
    let places: Vec<_> = blocks.iter().map(|block| block.bytes()).collect();
    let count = blocks.len();
    drop(blocks);
    let others: Vec<Block> = (0..200).map(|_| test.allocate(500).unwrap()).collect();
    assert!(others.iter().all(|block| !places.contains(&block.bytes())));
    child.signal(libc::SIGCONT);
    child.wait_for_stop();
    test.reap().unwrap();
    assert_eq!(snapshot(&test.arena).live().count(), count + others.len());
    child.signal(libc::SIGCONT);
    child.succeed();
    drop(others);
    assert_empty(&test.arena);
}

fn fork_beside_threads() {
    // Pages are given back all the time, as blocks of their own.
    let test = TestArena::new(Settings {
        size: 1 << 20,
        warm: 0,
        ..small()
    });
    // In a child, since this process shall keep its one thread.
    fork(|| {
        static STOP: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..3)
            .map(|seed| {
                let arena = test.arena.clone();
                std::thread::spawn(move || {
                    let mut random = Random::new(seed * 77 + 1);
                    let mut blocks = Vec::new();
                    while !STOP.load(Ordering::Relaxed) {
                        match random.below(3) {
                            0 if blocks.len() < 30 => {
                                blocks.push(arena.allocate(random.below(4000)).unwrap())
                            }
                            1 if !blocks.is_empty() => {
                                let sent: &Block = &blocks[0];
                                let handle = arena.send(sent).unwrap();
                                drop(arena.receive(&handle).unwrap());
                            }
                            _ => drop(blocks.pop()),
                        }
                    }
                })
            })
            .collect();
        let block = test.allocate(100).unwrap();
        // SAFETY: ours.
        unsafe { block.bytes().write(42) };
        for round in 0..200 {
            fork(|| {
                // The checker takes the lock, so nobody holds it for ever.
                let wrong = test.check().unwrap();
                assert_eq!(wrong, Vec::<String>::new(), "round {round}");
                // SAFETY: held by this process.
                assert_eq!(unsafe { block.bytes().read() }, 42);
                drop(test.allocate(1000).unwrap());
                // What its parent's other threads were about to do is undone:
                // no thread has a block as long as those that are returned.
                let mine = test.member().unwrap().slot;
                let all = snapshot(&test.arena);
                let mut held = all.live().filter(|block| block.holders.contains(mine));
                assert!(held.all(|block| block.size < 8192), "round {round}");
                0
            })
            .succeed();
        }
        STOP.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
        drop(block);
        let mine = test.member().unwrap().slot;
        test.reap().unwrap();
        let held = snapshot(&test.arena)
            .live()
            .filter(|b| b.holders.contains(mine))
            .count();
        assert_eq!(held, 0);
        0
    })
    .succeed();
    assert_empty(&test.arena);
}

/// What a thread is just allocating is its process's, and not its child's.
fn work_of_threads() {
    let test = TestArena::new(small());
    let me = test.member().unwrap();
    // As in the middle of an allocation, when nothing refers to the block yet.
    let which = test.core().allocate(me, 10_000).unwrap().0;
    let kept = test.allocate(100).unwrap();
    fork(|| {
        let mine = test.member().unwrap().slot;
        let all = snapshot(&test.arena);
        let held = all.live().filter(|block| block.holders.contains(mine));
        let held: Vec<u32> = held.map(|block| block.id).collect();
        assert_eq!(held, [kept.which().id.0]);
        0
    })
    .succeed();
    test.core().release(me, which).unwrap();
    drop(kept);
    assert_empty(&test.arena);
}

/// While a thread waits for the arena's lock a signal's handler forks, as Python's may, and
/// the child comes back into the wait: it goes on as itself.
fn fork_in_a_wait() {
    static OWNER: AtomicI32 = AtomicI32::new(0);
    static CHILD: AtomicI32 = AtomicI32::new(0);
    fn gives_up(_: bool) -> bool {
        let owner = OWNER.swap(0, Ordering::Relaxed);
        if owner != 0 {
            let _hooks = use_hooks(None);
            // The fork takes the lock, too.
            // SAFETY: a child of ours that nobody has waited for.
            unsafe { libc::kill(owner, libc::SIGCONT) };
            // SAFETY: as above.
            unsafe { libc::waitpid(owner, std::ptr::null_mut(), 0) };
            // SAFETY: this process has one thread.
            CHILD.store(unsafe { libc::fork() }, Ordering::Relaxed);
        }
        false
    }
    static HOOKS: WaitHooks = WaitHooks {
        before_waiting: || (),
        gives_up,
    };
    type Operation = fn(&Arena, &Block) -> Result<(), Error>;
    let operations: [(&str, Operation); 5] = [
        ("allocate", |arena, _| arena.allocate(100_000).map(drop)),
        ("send", |arena, block| {
            let handle = arena.send(block)?;
            arena.receive(&handle).map(drop)
        }),
        ("stats", |arena, _| arena.stats().map(drop)),
        ("reap", |arena, _| arena.reap().map(drop)),
        ("cancel", |arena, _| arena.cancel_unreceived(0).map(drop)),
    ];
    for (name, operation) in operations {
        let test = TestArena::new(small());
        let block = test.allocate(100).unwrap();
        let mut owner = fork(|| {
            let (core, me) = (test.core(), test.member().unwrap());
            core.lock_word(me, &core.header().owner).unwrap();
            stop();
            core.unlock_word(me, &core.header().owner);
            0
        });
        owner.wait_for_stop();
        OWNER.store(owner.give_away(), Ordering::Relaxed);
        let parent = test.member().unwrap();
        {
            let _hooks = use_hooks(Some(&HOOKS));
            operation(&test, &block).unwrap();
        }
        let me = test.member().unwrap();
        let wrong = test.check().unwrap();
        match CHILD.load(Ordering::Relaxed) {
            0 => {
                let right = me.slot != parent.slot && wrong.is_empty();
                // SAFETY: ends the child.
                unsafe { libc::_exit(!right as i32) }
            }
            pid => {
                let mut status = 0;
                // SAFETY: a child of ours.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                assert_eq!((pid > 0, status), (true, 0), "{name}");
            }
        }
        assert_eq!((me, wrong), (parent, vec![]), "{name}");
        // The child has done nothing in its parent's name.
        test.reap().unwrap();
        let stats = test.stats().unwrap();
        assert_eq!((stats.blocks, stats.tickets), (1, 0), "{name}");
    }
}

fn stray_child() {
    stray_child_of_this();
    // Of a child that had no arena when it was forked.
    fork(|| {
        stray_child_of_this();
        0
    })
    .succeed();
}

fn stray_child_of_this() {
    let test = TestArena::new(small());
    let block = test.allocate(100).unwrap();
    let mine = test.member().unwrap();
    // SAFETY: like fork, but for the C library's handlers.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let theirs = test.member().unwrap();
            assert_ne!(theirs.slot, mine.slot);
            drop(test.allocate(100).unwrap());
            // Dropping what it never held does not take it from its parent.
            drop(block);
            test.leave().unwrap();
        }));
        // SAFETY: ends the child.
        unsafe { libc::_exit(code.is_err() as i32) };
    }
    let mut status = 0;
    // SAFETY: a child of ours.
    unsafe { libc::waitpid(pid as i32, &mut status, 0) };
    assert_eq!(status, 0);
    test.reap().unwrap();
    assert_eq!(test.member(), Ok(mine));
    let live = snapshot(&test.arena);
    assert!(live.live().all(|b| b.holders.contains(mine.slot)));
    assert_eq!(live.live().count(), 1);
    drop(block);
    assert_empty(&test.arena);
}

fn stopped_owner() {
    let test = TestArena::new(Settings {
        patience: 300,
        ..small()
    });
    let block = test.allocate(100).unwrap();
    let mut child = fork(|| {
        let me: Member = test.member().unwrap();
        // Keeps the lock until `finish_fork`.
        test.core()
            .prepare_fork(me, |_| true, |_| false, || true)
            .unwrap();
        stop();
        test.core().finish_fork(me);
        test.leave().unwrap();
        0
    });
    child.wait_for_stop();
    let start = Instant::now();
    let busy = test.allocate(100).err().unwrap();
    let Error::Busy { pid, .. } = busy else {
        panic!("{busy:?}")
    };
    assert_eq!(pid as i32, child.pid);
    assert!(start.elapsed() >= Duration::from_millis(290));
    assert!(busy.to_string().contains(&child.pid.to_string()));
    child.signal(libc::SIGCONT);
    child.succeed();
    drop(block);
    // What the test's way of keeping the lock had pinned ends with the mark.
    test.reap().unwrap();
    assert_empty(&test.arena);
}

fn signals() {
    extern "C" fn nothing(_: i32) {}
    let test = TestArena::new(small());
    fork(|| {
        // SAFETY: a struct of numbers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        // SAFETY: no SA_RESTART: calls are interrupted.
        let set = unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        let tick = libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        };
        let timer = libc::itimerval {
            it_interval: tick,
            it_value: tick,
        };
        // SAFETY: the struct is lent to the call.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        let mut random = Random::new(5);
        let end = Instant::now() + Duration::from_secs(times(1));
        let mut sizes = 0;
        while Instant::now() < end {
            let size = 1 + random.below(6_000_000);
            let block = test.allocate(size).unwrap();
            drop(test.receive(&test.send(&block).unwrap()).unwrap());
            sizes += 1;
        }
        // SAFETY: as above.
        let off = unsafe { std::mem::zeroed::<libc::itimerval>() };
        // SAFETY: as above.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &off, std::ptr::null_mut()) };
        assert!(sizes > 10);
        0
    })
    .succeed();
    assert_empty(&test.arena);
}

fn closed_descriptors() {
    let test = TestArena::new(small());
    let mut child = fork(|| {
        let block = test.allocate(100).unwrap();
        // As daemons do.
        for fd in 3..256 {
            // SAFETY: whosever they are, this child can do without.
            unsafe { libc::close(fd) };
        }
        // And others take their numbers.
        let files: Vec<_> = (0..20)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        stop();
        // SAFETY: held by this process.
        unsafe { block.bytes().write(9) };
        let far = test.allocate(1 << 20).unwrap();
        fork(|| {
            // SAFETY: held by this process.
            assert_eq!(unsafe { block.bytes().read() }, 9);
            0
        })
        .succeed();
        test.reap().unwrap();
        stop();
        drop((files, far));
        stop();
        0
    });
    child.wait_for_stop();
    // Its byte is free, and it is not dead.
    assert_eq!(test.reap().unwrap(), 0);
    assert_eq!(snapshot(&test.arena).live().count(), 1);
    child.signal(libc::SIGCONT);
    child.wait_for_stop();
    test.reap().unwrap();
    assert_eq!(snapshot(&test.arena).live().count(), 2);
    child.signal(libc::SIGCONT);
    child.wait_for_stop();
    child.kill();
    assert_empty(&test.arena);
}

fn executed() {
    let test = TestArena::new(small());
    let block = test.allocate(100).unwrap();
    let sleep = CString::new("/bin/sleep").unwrap();
    let time = CString::new("100").unwrap();
    let exec = || {
        let arguments = [sleep.as_ptr(), time.as_ptr(), std::ptr::null()];
        // SAFETY: C strings, ended by a null pointer.
        unsafe { libc::execv(sleep.as_ptr(), arguments.as_ptr()) };
        panic!("exec");
    };
    let child = fork(|| {
        std::mem::forget(test.allocate(100).unwrap());
        exec()
    });
    // The process lives, its part in the arena does not.
    until("the block of the child", || {
        test.stats().unwrap().blocks == 2
    });
    until("the reference of a process that executed", || {
        test.reap().unwrap();
        snapshot(&test.arena).live().count() == 1
    });
    assert_eq!(test.stats().unwrap().processes, 1);
    // SAFETY: asks only.
    assert_eq!(unsafe { libc::kill(child.pid, 0) }, 0);
    // With the lock in its hands, too.
    let other = fork(|| {
        test.core()
            .prepare_fork(test.member().unwrap(), |_| true, |_| false, || true)
            .unwrap();
        exec()
    });
    // (It takes the lock for a moment to register, too.)
    until("the lock of a process that executed", || {
        drop(test.allocate(100).unwrap());
        test.stats().unwrap().recoveries == 1
    });
    other.kill();
    child.kill();
    drop(block);
    test.reap().unwrap();
    assert_empty(&test.arena);
}

/// Has this process lose the lock of its byte, if `lost`: it closes a descriptor of the lock file, as a
/// program does that reads all files.
fn lose_byte(name: Name, lost: bool) {
    if lost {
        let path = format!("/dev/shm/{}.snp-lock", name.as_str());
        drop(std::fs::File::open(path).unwrap());
    }
}

/// Sleeps until a signal ends this process.
fn pause() -> ! {
    loop {
        // SAFETY: touches no memory.
        unsafe { libc::pause() };
    }
}

fn two_namespaces(lost: bool) {
    let test = TestArena::new(small());
    let block = test.allocate(100).unwrap();
    let (killed, outlives) = (AtomicShared::new(), AtomicShared::new());
    lose_byte(test.name(), lost);
    fork(|| {
        lose_byte(test.name(), lost);
        // SAFETY: this child's children are in a namespace of their own.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } != 0 {
            println!("  skipped: no namespaces of pids here");
            return 0;
        }
        let mut inside = fork(|| {
            assert_eq!(std::process::id(), 1);
            std::mem::forget(test.allocate(200).unwrap());
            // Those outside have numbers that mean nothing here, and live.
            assert_eq!(test.reap().unwrap(), 0);
            lose_byte(test.name(), lost);
            let mut parent = fork(|| {
                let child = fork(|| {
                    // SAFETY: sets an attribute of this process, which outlives its parent.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
                    outlives.set(1);
                    pause();
                });
                std::mem::forget((child, test.allocate(300).unwrap()));
                lose_byte(test.name(), lost);
                until("a child that outlives it", || outlives.get() == 1);
                stop();
                0
            });
            parent.wait_for_stop();
            parent.kill();
            killed.set(1);
            pause();
        });
        until("the child inside", || killed.get() == 1);
        // Its child that was killed is dead, though a child of that lives.
        until("the death of its child", || {
            test.reap().unwrap();
            test.stats().unwrap().blocks == 2
        });
        assert_eq!(test.reap().unwrap(), 0);
        // The first process of a namespace ignores what it does not handle,
        // but for SIGKILL from outside.
        inside.signal(libc::SIGKILL);
        inside.wait();
        until("the death inside", || {
            test.reap().unwrap();
            test.stats().unwrap().blocks == 1
        });
        0
    })
    .succeed();
    drop(block);
    assert_empty(&test.arena);
}

fn returned_pages() {
    let test = TestArena::new(Settings {
        size: 8 << 20,
        warm: 1 << 20,
        ..small()
    });
    let block = test.allocate(4 << 20).unwrap();
    // SAFETY: ours, and this long.
    unsafe { block.bytes().write_bytes(1, 4 << 20) };
    drop(block);
    let stats = test.stats().unwrap();
    assert!(stats.warm_bytes <= 1 << 20, "{stats:?}");
    assert!(stats.returned_bytes >= 4 << 20);
    let path = format!("/dev/shm/{}", test.name().as_str());
    let blocks = || {
        use std::os::linux::fs::MetadataExt;
        std::fs::metadata(&path).unwrap().st_blocks() * 512
    };
    assert!(blocks() < 2 << 20, "{}", blocks());
    // Reserved anew before it is handed out.
    let block = test.allocate(4 << 20).unwrap();
    assert!(blocks() >= 4 << 20, "{}", blocks());
    let live = snapshot(&test.arena);
    assert!(live.live().all(|block| block.marks & PAGES_THERE != 0));
    assert_ne!(block.which().generation, 0);
    drop(block);
    assert_empty(&test.arena);
}

fn grace_and_donation() {
    let test = TestArena::new(Settings {
        grace: 200,
        ..small()
    });
    let place = AtomicShared::new();
    let send = || {
        let block = test.allocate(100).unwrap();
        // SAFETY: ours.
        unsafe { block.bytes().write(77) };
        place.put(&test.send(&block).unwrap().encode());
    };
    // Killed: its message lives for the time of grace.
    for late in [false, true] {
        let mut child = fork(|| {
            send();
            stop();
            0
        });
        child.wait_for_stop();
        child.kill();
        test.reap().unwrap();
        if late {
            std::thread::sleep(Duration::from_millis(250));
            test.reap().unwrap();
            assert!(matches!(test.receive(&place.handle()), Err(Error::Stale)));
        } else {
            let block = test.receive(&place.handle()).unwrap();
            // SAFETY: held by this process.
            assert_eq!(unsafe { block.bytes().read() }, 77);
        }
    }
    // Left in peace: for ever, or until it is cancelled.
    fork(|| {
        send();
        test.leave().unwrap();
        0
    })
    .succeed();
    std::thread::sleep(Duration::from_millis(250));
    test.reap().unwrap();
    let stats = test.stats().unwrap();
    assert_eq!((stats.tickets, stats.orphans), (1, 0));
    assert!(stats.oldest_ticket >= 200, "{}", stats.oldest_ticket);
    drop(test.receive(&place.handle()).unwrap());
    assert_empty(&test.arena);
}
