//! Memory that comes back: segments in which nothing lies, and the budget of pages.
//!
//! * A segment in which nothing lies goes, and its number is another's later, of any length.
//! * Members that have the segment before mapped see the one in its place, shorter or longer.
//! * The budget is a share of what the system has and of what is free there now, unless it was
//!   set.

use crate::model::{create, geometry, open};
use shared_numpy::arena::format::SHARE;
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Member};

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
        // SAFETY: both hold the block, which is this long.
        unsafe { core.bytes(place).add(at).write(7) };
        // SAFETY: as above.
        assert_eq!(unsafe { other.bytes(place).add(at).read() }, 7);
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
    let block = core.allocate(me, geometry().size).unwrap().0;
    assert!(
        core.header().budget.get() < 4 << 20,
        "it is renewed as the arena grows"
    );
    core.release(me, block).unwrap();
    let world = World::new(64 << 20);
    let (core, _me) = create(&world, 5);
    assert_eq!(core.header().budget.get(), 5);
}
