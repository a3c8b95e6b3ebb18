//! Free memory whose pages are not known or not there, on plain memory.
//!
//! Properties:
//!
//! * after a recovery, or after pages went back, many small blocks cost few calls of the system,
//!   and each of them has its pages;
//! * where the system has only the pages of the block, the block is made all the same;
//! * a block in memory that nobody has had is called new, and no other;
//! * neighbours are joined, wherever their rows are in the table and however many they are, before
//!   memory is said to be wanting;
//! * neighbours that are joined for a large block do not spoil what they have beyond it.

use shared_numpy::arena::format::{Address, Geometry, Header, PAGE, UNSETTLED};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{Core, Extent, Member};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// An arena with one segment of somewhat more than 16 MiB, in which nothing lies.
fn with_a_segment() -> (World, Core, Member) {
    with_a_segment_and(12)
}

/// The same, whose chunks have `1 << block_shift` rows of blocks.
fn with_a_segment_and(block_shift: u32) -> (World, Core, Member) {
    let mut geometry = Geometry {
        block_shift,
        ticket_shift: 10,
        processes: 256,
        size: 0,
    };
    geometry.size = geometry.data() + 64 * PAGE;
    let world = World::new(1 << 40);
    let (core, me) = Core::create(world.process(0), geometry, |header: &Header| {
        header.budget.set(1 << 40);
        header.longest.set(1 << 30);
    })
    .unwrap();
    let block = core.allocate(me, 16 * MIB).unwrap().0;
    core.release(me, block).unwrap();
    (world, core, me)
}

/// Allocates blocks of 100 bytes; how many of these calls asked the system for something.
fn allocate_many(world: &World, core: &Core, me: Member, count: u32) -> u32 {
    let asked = Arc::new(AtomicU32::new(0));
    let mut blocks = Vec::new();
    for _ in 0..count {
        let counter = asked.clone();
        world.at_work(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (which, place) = core.allocate(me, 100).unwrap();
        assert!(!world.lacks_page(place.address, place.size));
        assert_eq!(place.size, 128);
        blocks.push(which);
    }
    world.at_work(|| ());
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    for which in blocks {
        core.release(me, which).unwrap();
    }
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    asked.load(Ordering::Relaxed)
}

#[test]
fn small_blocks_are_reserved_together() {
    for pages_go in [false, true] {
        let (world, core, me) = with_a_segment();
        // Rows for all of them, first of all.
        allocate_many(&world, &core, me, 3000);
        assert_eq!(allocate_many(&world, &core, me, 3000), 0);
        if pages_go {
            core.trim(me, 0).unwrap();
        } else {
            let condition = &core.header().condition;
            condition.commit(condition.get() | UNSETTLED);
        }
        // 375 KiB, of which 64 KiB are reserved at a time.
        let asked = allocate_many(&world, &core, me, 3000);
        assert!((1..20).contains(&asked), "{asked} of 3,000 calls");
        // And never again.
        assert_eq!(allocate_many(&world, &core, me, 3000), 0);
    }
}

#[test]
fn a_block_needs_no_more_pages_than_its_own() {
    let (world, core, me) = with_a_segment();
    core.trim(me, 0).unwrap();
    world.set_room(PAGE);
    let (_, first) = core.allocate(me, PAGE).unwrap();
    // It lies in pages of which the first is shared.
    assert!(!world.lacks_page(first.address, first.size));
    world.set_room(0);
    assert!(core.allocate(me, MIB).is_err(), "there is no page for it");
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

#[test]
fn joined_neighbours_keep_the_pages_that_are_not_needed() {
    let (world, core, me) = with_a_segment();
    let [a, b, c] = [MIB, MIB, 4 * MIB].map(|size| core.allocate(me, size).unwrap());
    core.allocate(me, 10 * MIB - 64 * PAGE).unwrap();
    let end = |place: Extent| Address(place.address.0 + place.size);
    assert_eq!((end(a.1), end(b.1)), (b.1.address, c.1.address));
    core.release(me, b.0).unwrap();
    core.trim(me, 0).unwrap();
    core.release(me, a.0).unwrap();
    core.release(me, c.0).unwrap();
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    // Pages for what went back, and no others.
    world.set_room(MIB);
    let segments = core.stats(me).unwrap().segments;
    let (_, large) = core.allocate(me, 5 * MIB).unwrap();
    assert_eq!(large.address, a.1.address);
    assert_eq!(core.stats(me).unwrap().segments, segments);
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    // The rest has what it had: it is not reserved again.
    world.at_work(|| panic!("it has its pages"));
    let (_, rest) = core.allocate(me, MIB).unwrap();
    assert_eq!(rest.address, end(large));
    world.at_work(|| ());
}

/// The words of a block that are not zero, of which there is one if it was written to.
fn written(core: &Core, place: Extent) -> usize {
    let bytes = core.bytes(place);
    // SAFETY: the block is this process's own, as long as that and aligned; nobody writes there.
    let words = unsafe {
        std::slice::from_raw_parts(bytes.cast::<u64>().as_ptr(), (place.size / 8) as usize)
    };
    words.iter().filter(|word| **word != 0).count()
}

fn fill(core: &Core, place: Extent) {
    // SAFETY: the block is this process's own, and this long.
    unsafe { core.bytes(place).write_bytes(0xff, place.size as usize) };
}

#[test]
fn only_memory_that_nobody_has_had_is_new() {
    let (_world, core, me) = with_a_segment();
    let allocate = |size| {
        let (which, place) = core.allocate(me, size).unwrap();
        (which, place, core.is_new(me, which).unwrap())
    };
    // In a segment of its own, and in what is left of it.
    let (first, place, new) = allocate(64 * MIB);
    assert!(new);
    assert_eq!(written(&core, place), 0);
    fill(&core, place);
    let rest: Vec<_> = (0..8).map(|_| allocate(MIB)).collect();
    for (_, place, new) in &rest {
        assert!(!new || written(&core, *place) == 0);
        fill(&core, *place);
    }
    // Freed, joined with what is new beside it, given back, and had again.
    core.release(me, first).unwrap();
    let (again, place, new) = allocate(64 * MIB);
    assert!(!new && written(&core, place) > 0);
    core.release(me, again).unwrap();
    for (which, ..) in rest {
        core.release(me, which).unwrap();
    }
    for size in [MIB, 3 * MIB, 70 * MIB] {
        let (which, place, new) = allocate(size);
        assert!(!new || written(&core, place) == 0, "{size}");
        fill(&core, place);
        core.release(me, which).unwrap();
    }
    core.trim(me, 0).unwrap();
    let (which, _, new) = allocate(MIB);
    assert!(!new);
    core.release(me, which).unwrap();
    // What a recovery finds free is nothing that it knows.
    let (which, ..) = allocate(200 * MIB);
    core.release(me, which).unwrap();
    let condition = &core.header().condition;
    condition.set(condition.get() | UNSETTLED);
    let (_, _, new) = allocate(MIB);
    assert!(!new);
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

#[test]
fn neighbours_are_joined_in_whatever_rows_they_are() {
    let (world, core, me) = with_a_segment();
    // More rows than are looked at in one go.
    for _ in 0..20_000 {
        core.allocate(me, 100).unwrap();
    }
    let [a, b] = [(); 2].map(|()| core.allocate(me, MIB).unwrap().0);
    core.allocate(me, 10 * MIB).unwrap();
    core.release(me, b).unwrap();
    core.trim(me, 0).unwrap();
    core.release(me, a).unwrap();
    world.set_room(MIB);
    core.allocate(me, 2 * MIB).unwrap();
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

#[test]
fn neighbours_are_joined_however_many_they_are() {
    // (All rows in one chunk: no chunk lies between the blocks.)
    let (world, core, me) = with_a_segment_and(15);
    let blocks: Vec<_> = (0..20_000)
        .map(|_| core.allocate(me, 100).unwrap().0)
        .collect();
    core.allocate(me, 13 * MIB).unwrap();
    let condition = &core.header().condition;
    for parity in [0, 1] {
        for which in blocks.iter().skip(parity).step_by(2) {
            core.release(me, *which).unwrap();
        }
        if parity == 0 {
            // The pages of what is free now are not known, and those of the others are there.
            condition.commit(condition.get() | UNSETTLED);
        }
    }
    world.set_room(0);
    let before = core.stats(me).unwrap().segments;
    core.allocate(me, 2 * MIB).unwrap();
    assert_eq!(core.stats(me).unwrap().segments, before);
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}
