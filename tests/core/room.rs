//! Memory that comes back: segments in which nothing lies, and the budget of pages.
//!
//! * A segment in which nothing lies goes, and its number is another's later, of any length.
//! * Members that have the segment before mapped see the one in its place, shorter or longer.
//! * A segment that a dead process was making goes while nobody has the lock.
//! * An arena begins small: rows of its tables have memory when they are used, and not before; a
//!   lack of it is an error and no touch of a page that is not there.
//! * The budget is a share of what the system has and of what is free there now, unless it was
//!   set.

use crate::conformance::{geometry, SIZES};
use crate::model::{create, open};
use shared_numpy::arena::format::{
    state_of, Address, Geometry, Header, SlotRow, BUILDING, SHARE, SLOTS_AT,
};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Member};
use shared_numpy::error::Error;
use std::mem::{offset_of, size_of};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

const LARGE: u64 = 12 << 20;

fn check(core: &Core, me: Member) {
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

fn segments(core: &Core, me: Member) -> u64 {
    core.stats(me).unwrap().segments
}

/// Fills a block, and looks whether another process sees that.
fn write_and_read(writer: (&Core, Member), reader: (&Core, Member), which: BlockRef) {
    let ((core, me), (other, member)) = (writer, reader);
    let place = core.locate(me, which).unwrap();
    let ticket = core.send(me, which).unwrap();
    let received = other.receive(member, which, Some(ticket)).unwrap();
    assert_eq!(received, place);
    for at in [0, place.size as usize - 1] {
        let byte = core.bytes(place).as_ptr().wrapping_add(at);
        // SAFETY: both hold the block, which is this long.
        unsafe { byte.write(7) };
        let same = other.bytes(place).as_ptr().wrapping_add(at);
        // SAFETY: as above.
        assert_eq!(unsafe { same.read() }, 7);
    }
    other.release(member, which).unwrap();
}

#[test]
fn empty_segments_go() {
    let world = World::new(1 << 40);
    let (core, me) = create(&world, 1 << 40);
    let kept = core.allocate(me, LARGE).unwrap().0;
    let blocks = [LARGE; 5].map(|size| core.allocate(me, size).unwrap().0);
    // In more than one piece, of which some have no pages.
    core.release(me, blocks[0]).unwrap();
    core.trim(me, 0).unwrap();
    for block in &blocks[1..] {
        core.release(me, *block).unwrap();
    }
    let before = segments(&core, me);
    assert!(core.remove_empty_segments(me, u64::MAX).unwrap() > 0);
    check(&core, me);
    assert!(segments(&core, me) < before);
    assert_eq!(core.remove_empty_segments(me, u64::MAX), Ok(0));
    assert_eq!(world.segments().len() as u64, segments(&core, me));
    core.release(me, kept).unwrap();
    core.remove_empty_segments(me, u64::MAX).unwrap();
    // (A table may lie in one of them, for ever.)
    assert!(segments(&core, me) <= 2);
    assert_eq!(world.segments().len() as u64, segments(&core, me));
    check(&core, me);
}

#[test]
fn segments_whose_memory_may_be_wanted_soon_stay() {
    let world = World::new(1 << 40);
    let (core, me) = create(&world, 1 << 40);
    let block = core.allocate(me, LARGE).unwrap().0;
    core.release(me, block).unwrap();
    assert_eq!(core.remove_empty_segments(me, 64 << 10), Ok(0));
    core.trim(me, 0).unwrap();
    assert!(core.remove_empty_segments(me, 64 << 10).unwrap() >= LARGE);
    check(&core, me);
}

#[test]
fn segments_of_the_dead_are_removed_outside_the_lock() {
    let world = World::new(1 << 40);
    let (core, me) = create(&world, 1 << 40);
    let other = open(&world, 1);
    let member = other.register().unwrap();
    world.at_work(|| panic!("the end of the process that makes it"));
    let made = AssertUnwindSafe(|| other.allocate(member, LARGE));
    assert!(std::panic::catch_unwind(made).is_err());
    world.kill(1);
    let (witness, seen) = (open(&world, 2), Arc::new(AtomicBool::new(false)));
    let removed = seen.clone();
    world.at_work(move || {
        assert_eq!(witness.header().owner.get(), 0, "somebody has the lock");
        removed.store(true, Ordering::Relaxed);
    });
    assert_eq!(core.reap(me), Ok(1));
    assert!(seen.load(Ordering::Relaxed));
    check(&core, me);
    core.allocate(me, LARGE).unwrap();
    assert_eq!(segments(&core, me), 2);
    check(&core, me);
}

/// Where the system tells nothing true of processes, not even of this one.
#[test]
fn a_segment_that_this_process_makes_is_not_taken_for_a_dead_one_s() {
    let world = World::new(1 << 40);
    let (core, me) = create(&world, 1 << 40);
    let thread = open(&world, 0);
    world.kill(0);
    let seen = Arc::new(AtomicBool::new(false));
    let asked = seen.clone();
    world.at_work(move || {
        let state = &thread.header().segments[1].state;
        let before = state.get();
        assert_eq!(state_of(before), BUILDING);
        assert_eq!(thread.reap(me), Ok(0));
        assert_eq!(state.get(), before);
        asked.store(true, Ordering::Relaxed);
    });
    let (block, _) = core.allocate(me, LARGE).unwrap();
    assert!(seen.load(Ordering::Relaxed));
    assert_eq!(segments(&core, me), 2);
    check(&core, me);
    core.release(me, block).unwrap();
}

#[test]
fn those_that_had_it_mapped_see_the_segment_in_its_place() {
    let world = World::new(1 << 40);
    let (core, me) = create(&world, 1 << 40);
    let other = open(&world, 1);
    let member = other.register().unwrap();
    // Longer, shorter, and longer again than what either has mapped.
    for size in [LARGE, LARGE * 5 / 4, LARGE / 2, LARGE / 8 * 9] {
        for (writer, reader) in [
            ((&core, me), (&other, member)),
            ((&other, member), (&core, me)),
        ] {
            let which = writer.0.allocate(writer.1, size).unwrap().0;
            write_and_read(writer, reader, which);
            writer.0.release(writer.1, which).unwrap();
            check(&core, me);
            writer.0.remove_empty_segments(writer.1, u64::MAX).unwrap();
            check(&other, member);
        }
        assert_eq!(segments(&core, me), 1);
    }
}

#[test]
fn the_budget_is_a_share_of_what_there_is_and_of_what_is_free() {
    let world = World::new(64 << 20);
    let (core, _me) = create(&world, SHARE);
    assert_eq!(core.header().budget.get(), 4 << 20);
    let world = World::new(64 << 20);
    let (core, me) = create(&world, SHARE);
    world.set_room(2 << 20);
    let block = core.allocate(me, geometry(256).size).unwrap().0;
    assert!(
        core.header().budget.get() < 4 << 20,
        "it is renewed as the arena grows"
    );
    core.release(me, block).unwrap();
    let world = World::new(64 << 20);
    let (core, _me) = create(&world, 5);
    assert_eq!(core.header().budget.get(), 5);
}

/// An arena with tables as large as usual, which have memory only where they were used.
fn usual(room: u64, processes: u32) -> (World, Core, Member) {
    let mut geometry = Geometry {
        block_shift: 12,
        ticket_shift: 10,
        processes,
        size: 0,
    };
    geometry.size = geometry.data() + (32 << 10);
    let world = World::new(room);
    world.bare_tables(&geometry);
    let constants = |header: &Header| {
        header.budget.set(SHARE);
        header.longest.set(1 << 30);
    };
    let (core, me) = Core::create(world.process(0), geometry, constants).unwrap();
    (world, core, me)
}

/// Asserts that all that is used of the tables has memory.
fn is_there(world: &World, core: &Core) {
    let (header, geometry) = (core.header(), core.geometry());
    // Worked out by hand: rows of 64 bytes, caches of 32, and a word for each further 64 slots.
    let (first, rows) = (geometry.blocks(), header.block_rows.get().min(4096) as u64);
    let further = (geometry.slots() as u64 - 256) / 64 * 8;
    let blocks = [(0, 64), (64, 32), (96, further)]
        .map(|(behind, size)| (first + (behind << geometry.block_shift), rows * size));
    let tickets = geometry.ticket_part(0, header.ticket_rows.get().min(1024));
    let slots = header.slot_rows.read() as usize * size_of::<SlotRow>();
    let segments = header.segment_rows.get() as u64 * 16;
    let header = [
        (SLOTS_AT as u64, slots as u64),
        (offset_of!(Header, segments) as u64, segments),
    ];
    for (start, size) in blocks.into_iter().chain([tickets]).chain(header) {
        let lacks = size > 0 && world.lacks_page(Address::new(0, start), size);
        assert!(!lacks, "{size} bytes at {start}");
    }
}

#[test]
fn tables_get_memory_before_they_are_used() {
    SIZES.into_iter().for_each(uses_all_tables);
}

fn uses_all_tables(processes: u32) {
    let (world, core, me) = usual(1 << 40, processes);
    is_there(&world, &core);
    let mut held = Vec::new();
    for number in 0..9000 {
        let which = core.allocate(me, 64).unwrap().0;
        if number % 3 == 0 {
            core.send(me, which).unwrap();
        }
        held.push(which);
        if number % 100 == 0 {
            is_there(&world, &core);
            check(&core, me);
        }
    }
    for number in 1..processes as u64 - 50 {
        open(&world, number).register().unwrap();
        is_there(&world, &core);
    }
    check(&core, me);
}

#[test]
fn without_memory_for_tables_nothing_is_touched() {
    SIZES.into_iter().for_each(is_refused_without_memory);
}

fn is_refused_without_memory(processes: u32) {
    let (world, core, me) = usual(0, processes);
    let which = core.allocate(me, 64).unwrap().0;
    let full = |error: Error| assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let mut held = Vec::new();
    full(loop {
        match core.allocate(me, 64) {
            Ok((which, _)) => held.push(which),
            Err(error) => break error,
        }
    });
    full(loop {
        match core.send(me, which) {
            Ok(_) => (),
            Err(error) => break error,
        }
    });
    full(loop {
        match open(&world, held.len() as u64).register() {
            Ok(_) => held.push(which),
            Err(error) => break error,
        }
    });
    is_there(&world, &core);
    check(&core, me);
    world.set_room(1 << 30);
    core.allocate(me, 64).unwrap();
    core.send(me, which).unwrap();
    open(&world, 10_000).register().unwrap();
    is_there(&world, &core);
    check(&core, me);
}

#[test]
fn segments_grow_by_what_there_is_and_leave_the_last_to_what_is_needed() {
    let (world, core, me) = usual(14 << 20, 256);
    let mut held = Vec::new();
    while let Ok((which, _)) = core.allocate(me, 4000) {
        held.push(which);
    }
    assert!(held.len() > 3000, "{} blocks", held.len());
    assert!(
        segments(&core, me) < 100,
        "{} segments",
        segments(&core, me)
    );
    for which in held {
        core.release(me, which).unwrap();
    }
    world.set_room(1 << 30);
    core.allocate(me, 20 << 20).unwrap();
    check(&core, me);
}
