//! The upkeep of an arena, on plain memory, where time passes when it is told to.
//!
//! Properties:
//!
//! * the last reference of a living process frees a block that only the dead hold,
//!   and gives its pages back;
//! * once a second what the dead held is dropped, and tickets end in time;
//! * free memory that was not used for ten seconds goes back, and no other, but that
//!   of a large block, which goes at once if none is made again and again;
//! * what is used again and again keeps its pages beside memory that went back,
//!   and is merged with it when nothing else fits;
//! * a process that is alone with little free memory has nothing to check, until
//!   there is another one;
//! * at the end of a program a ticket counts only if somebody may receive it.

use crate::conformance::geometry;
use crate::model::{create, open};
use shared_numpy::arena::format::{NO_CHECK, PAGE};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Member};
use shared_numpy::error::Error;

const MANY: u64 = 16 << 20;

/// An arena of one process, with memory and budget for all that there is.
fn alone() -> (World, Core, Member) {
    let world = World::new(1 << 40);
    world.pass(1_000_000);
    let (core, me) = create(&world, 1 << 40);
    (world, core, me)
}

/// Lets time pass, and does what is due then.
fn pass(world: &World, core: &Core, me: Member, ms: u64) {
    world.pass(ms);
    if core.is_upkeep_due() {
        core.do_upkeep(me).unwrap();
    }
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

fn warm(core: &Core, me: Member) -> u64 {
    core.stats(me).unwrap().warm_bytes
}

fn lives(core: &Core, me: Member, which: BlockRef) -> bool {
    core.locate(me, which) != Err(Error::Stale)
}

/// Another process that holds the block.
fn holder(world: &World, core: &Core, me: Member, which: BlockRef, pid: u64) -> (Core, Member) {
    let other = open(world, pid);
    let member = other.register().unwrap();
    let ticket = core.send(me, which).unwrap();
    other.receive(member, which, Some(ticket)).unwrap();
    (other, member)
}

#[test]
fn the_last_reference_drops_those_of_the_dead() {
    for size in [100, MANY] {
        let (world, core, me) = alone();
        let block = core.allocate(me, size).unwrap().0;
        let before = core.stats(me).unwrap();
        let _dead = holder(&world, &core, me, block, 1);
        let (other, living) = holder(&world, &core, me, block, 2);
        world.kill(1);
        // It stays for the sake of one that lives.
        assert_eq!(core.release(me, block), Ok(false));
        assert!(lives(&core, me, block));
        world.pass(1);
        assert_eq!(other.release(living, block), Ok(true));
        assert!(!lives(&core, me, block));
        // But for what is too little to be given back.
        assert!(warm(&core, me) - before.warm_bytes < 64 << 10);
    }
}

#[test]
fn a_ticket_keeps_what_the_dead_hold() {
    let (world, core, me) = alone();
    let block = core.allocate(me, MANY).unwrap().0;
    holder(&world, &core, me, block, 1);
    let ticket = core.send(me, block).unwrap();
    world.kill(1);
    assert_eq!(core.release(me, block), Ok(false));
    assert!(core.receive(me, block, Some(ticket)).is_ok());
    assert_eq!(core.release(me, block), Ok(true));
}

#[test]
fn pinned_blocks_stay_while_the_family_lives() {
    let (world, core, me) = alone();
    let block = core.allocate(me, MANY).unwrap().0;
    world.set_pinned(true);
    core.prepare_fork(me, |_| true, |_| false, || true).unwrap();
    core.finish_fork(me);
    assert_eq!(core.release(me, block), Ok(false));
    pass(&world, &core, me, 2000);
    assert!(lives(&core, me, block));
    world.set_pinned(false);
    pass(&world, &core, me, 2000);
    assert!(!lives(&core, me, block));
}

/// As before Linux 3.15, where nobody can tell when such children are gone.
#[test]
fn what_a_family_cannot_show_is_kept_for_good() {
    for (shown, frozen) in [(false, false), (true, false), (false, true)] {
        let (world, core, me) = alone();
        let block = core.allocate(me, MANY).unwrap().0;
        world.set_pinned(true);
        if frozen {
            core.freeze(false);
        }
        for shows in [shown, frozen, !shown && !frozen] {
            core.prepare_fork(me, |_| true, |_| false, || shows)
                .unwrap();
            core.finish_fork(me);
        }
        core.freeze(true);
        assert_eq!(core.release(me, block), Ok(false));
        world.set_pinned(false);
        pass(&world, &core, me, 2000);
        core.reap(me).unwrap();
        assert!(lives(&core, me, block), "{shown} {frozen}");
    }
}

#[test]
fn what_the_dead_hold_is_found_within_a_second() {
    let (world, core, me) = alone();
    pass(&world, &core, me, 0);
    let block = core.allocate(me, MANY).unwrap().0;
    let (other, living) = holder(&world, &core, me, block, 1);
    let sent = other.allocate(living, 100).unwrap().0;
    other.send(living, sent).unwrap();
    core.release(me, block).unwrap();
    pass(&world, &core, me, 0);
    world.kill(1);
    pass(&world, &core, me, 999);
    assert!(lives(&core, me, block));
    pass(&world, &core, me, 1);
    assert!(!lives(&core, me, block));
    assert!(warm(&core, me) < MANY);
    // Its message waits for the time of grace.
    pass(&world, &core, me, 29_000);
    assert!(lives(&core, me, sent));
    pass(&world, &core, me, 1000);
    assert!(!lives(&core, me, sent));
}

#[test]
fn idle_memory_goes_back() {
    let (world, core, me) = alone();
    let block = core.allocate(me, MANY).unwrap().0;
    pass(&world, &core, me, 20_000);
    core.release(me, block).unwrap();
    for ms in [5000, 4999] {
        pass(&world, &core, me, ms);
        assert!(warm(&core, me) >= MANY - (1 << 20));
    }
    pass(&world, &core, me, 1000);
    assert!(warm(&core, me) <= geometry(256).size);
}

#[test]
fn memory_in_use_stays() {
    let (world, core, me) = alone();
    let others = core.allocate(me, 4 * MANY).unwrap().0;
    core.release(me, others).unwrap();
    let before = core.stats(me).unwrap().returned_bytes;
    for _ in 0..60 {
        // Small blocks, of which each is too small for a look at the clock.
        let blocks: Vec<_> = (0..MANY / 50_000)
            .map(|_| core.allocate(me, 50_000).unwrap().0)
            .collect();
        blocks.into_iter().for_each(|block| {
            core.release(me, block).unwrap();
        });
        pass(&world, &core, me, 1100);
    }
    let left = warm(&core, me);
    assert!((MANY / 50_000 * 50_000..2 * MANY).contains(&left), "{left}");
    assert!(core.stats(me).unwrap().returned_bytes > before);
}

#[test]
fn what_is_used_keeps_its_pages_beside_what_went_back() {
    let (world, core, me) = alone();
    let block = core.allocate(me, MANY).unwrap().0;
    core.release(me, block).unwrap();
    // (At once, since in time the segment would go, too.)
    core.trim(me, 0).unwrap();
    let (before, _) = core.allocate(me, 1 << 20).unwrap();
    let (block, used) = core.allocate(me, 1 << 20).unwrap();
    core.release(me, before).unwrap();
    core.trim(me, 0).unwrap();
    core.release(me, block).unwrap();
    // No more memory: it needs no page that it has not.
    world.set_room(0);
    for _ in 0..3 {
        let (block, place) = core.allocate(me, 1 << 20).unwrap();
        assert_eq!(place, used);
        core.release(me, block).unwrap();
    }
    // What is before and behind it is the rest of one segment, and has none.
    assert_ne!(used.address.segment(), 0);
    assert!(core.stats(me).unwrap().free_bytes > MANY);
    world.set_room(1 << 40);
    let segments = core.stats(me).unwrap().segments;
    let all = core.stats(me).unwrap().free_bytes - geometry(256).size;
    core.allocate(me, all).unwrap();
    assert_eq!(core.stats(me).unwrap().segments, segments);
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

#[test]
fn a_part_of_an_extent_goes_back() {
    let (_world, core, me) = alone();
    let block = core.allocate(me, MANY).unwrap().0;
    core.release(me, block).unwrap();
    let warm_bytes = warm(&core, me);
    let returned = core.trim(me, warm_bytes - (1 << 20)).unwrap();
    assert!(returned <= (1 << 20) + 3 * PAGE);
    assert!(warm(&core, me) <= warm_bytes - (1 << 20));
}

#[test]
fn large_blocks_go_back_at_once_unless_they_come_and_go() {
    const LARGE: u64 = 128 << 20;
    let (world, core, me) = alone();
    let make_and_free = || {
        let block = core.allocate(me, LARGE).unwrap().0;
        core.release(me, block).unwrap();
        warm(&core, me) >= LARGE
    };
    assert!(!make_and_free());
    pass(&world, &core, me, 11_000);
    assert!(!make_and_free());
    for _ in 0..3 {
        pass(&world, &core, me, 9000);
        assert!(make_and_free());
    }
    pass(&world, &core, me, 11_000);
    assert!(!make_and_free());
}

#[test]
fn nothing_is_checked_where_there_is_nothing() {
    let (world, core, me) = alone();
    let checked = || core.header().checked.get();
    pass(&world, &core, me, 2000);
    assert_eq!(checked(), NO_CHECK);
    // Free memory that may be idle.
    let block = core.allocate(me, MANY).unwrap().0;
    core.release(me, block).unwrap();
    assert_ne!(checked(), NO_CHECK);
    pass(&world, &core, me, 20_000);
    pass(&world, &core, me, 20_000);
    assert_eq!(checked(), NO_CHECK);
    // Another process.
    let other = open(&world, 1);
    let member = other.register().unwrap();
    assert_ne!(checked(), NO_CHECK);
    pass(&world, &core, me, 2000);
    assert_ne!(checked(), NO_CHECK);
    other.leave(member).unwrap();
    pass(&world, &core, me, 2000);
    assert_eq!(checked(), NO_CHECK);
    // A child.
    world.set_pinned(true);
    core.prepare_fork(me, |_| true, |_| false, || true).unwrap();
    core.finish_fork(me);
    pass(&world, &core, me, 2000);
    assert_ne!(checked(), NO_CHECK);
}

#[test]
fn only_what_may_be_received_keeps_an_arena() {
    let keeps = |_| true;
    // A queue's block, which is used to the end, and its message.
    let (_world, core, me) = alone();
    let [queue, message] = [0, 1].map(|_| core.allocate(me, 100).unwrap().0);
    core.send_owned(me, message, queue).unwrap();
    core.release(me, message).unwrap();
    assert!(core.detach(me, keeps, false).unwrap().last);
    // Something in flight.
    for (lasting, ends, last) in [
        (false, false, false),
        (false, true, true),
        (true, true, false),
    ] {
        let (_world, core, me) = alone();
        let block = core.allocate(me, 100).unwrap().0;
        core.send_as(me, block, lasting).unwrap();
        let detachment = core.detach(me, keeps, ends).unwrap();
        assert_eq!(detachment.last, last, "{lasting} {ends}");
    }
    // The message of a queue that is on its way itself.
    let (_world, core, me) = alone();
    let [queue, message] = [0, 1].map(|_| core.allocate(me, 100).unwrap().0);
    core.send_owned(me, message, queue).unwrap();
    core.send_as(me, queue, true).unwrap();
    assert!(!core.detach(me, |_| false, true).unwrap().last);
}
