//! Many rows in the tables, on plain memory: bursts that are over, and processes that held much.
//!
//! Properties, beside that the checker finds nothing wrong:
//!
//! * after a burst, however it was freed, blocks and tickets are in the first rows again;
//! * what a dead process held goes, whatever it was, and what others hold stays;
//! * a process that leaves keeps what it still uses, and nothing else;
//! * old tickets are cancelled, all of them, and no others.

use crate::model::open;
use shared_numpy::arena::format::{Geometry, Header, PAGE};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Member, TicketRef};
use std::collections::BTreeSet;

/// More than are looked at in one go.
const MANY: usize = 20_000;
const GRACE: u64 = 30_000;

fn create() -> (World, Core, Member) {
    create_with(12, 10)
}

fn create_with(block_shift: u32, ticket_shift: u32) -> (World, Core, Member) {
    let mut geometry = Geometry {
        block_shift,
        ticket_shift,
        processes: 256,
        size: 0,
    };
    geometry.size = geometry.data() + 64 * PAGE;
    let world = World::new(1 << 40);
    world.pass(1_000_000);
    let (core, me) = Core::create(world.process(0), geometry, |header: &Header| {
        header.grace.set(GRACE);
        header.budget.set(1 << 40);
        header.longest.set(1 << 30);
    })
    .unwrap();
    (world, core, me)
}

fn check(core: &Core, me: Member) {
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

/// Many blocks of a process, each with a ticket.
fn allocate_many(core: &Core, me: Member) -> Vec<(BlockRef, TicketRef)> {
    let one = |_| {
        let which = core.allocate(me, 64).unwrap().0;
        (which, core.send(me, which).unwrap())
    };
    (0..MANY).map(one).collect()
}

#[test]
fn rows_after_a_burst_are_the_first_again() {
    let (_world, core, me) = create();
    let kept = core.allocate(me, 64).unwrap().0;
    for round in 0..2 {
        let mut many = allocate_many(&core, me);
        if round == 0 {
            // In an order that scatters them: the step is prime.
            many = (0..MANY).map(|i| many[i * 7919 % MANY]).collect();
        }
        for (which, ticket) in &many {
            core.cancel(me, *ticket, *which).unwrap();
            core.release(me, *which).unwrap();
        }
        check(&core, me);
        core.reap(me).unwrap();
        check(&core, me);
        let few: Vec<_> = (0..500)
            .map(|_| {
                let which = core.allocate(me, 300).unwrap().0;
                (which, core.send(me, which).unwrap())
            })
            .collect();
        check(&core, me);
        let highest = few.iter().map(|(which, _)| which.id.0).max();
        assert!(highest < Some(1000), "block {highest:?}");
        let highest = few.iter().map(|(_, ticket)| ticket.id.0).max();
        assert!(highest < Some(1000), "ticket {highest:?}");
        for (which, ticket) in few {
            core.cancel(me, ticket, which).unwrap();
            core.release(me, which).unwrap();
        }
        check(&core, me);
    }
    core.release(me, kept).unwrap();
    assert_eq!(core.stats(me).unwrap().blocks, 0);
}

#[test]
fn much_that_the_dead_held_goes() {
    let (world, core, me) = create();
    let other = open(&world, 1);
    let member = other.register().unwrap();
    let mine: BTreeSet<_> = (0..100)
        .map(|_| core.allocate(me, 64).unwrap().0.id.0)
        .collect();
    let theirs = allocate_many(&other, member);
    // Some are this process's, too; of one there is a ticket of a living sender.
    for (which, ticket) in &theirs[..100] {
        core.receive(me, *which, Some(*ticket)).unwrap();
    }
    let sent = theirs[MANY - 1].0;
    core.receive(me, sent, None).unwrap();
    core.send(me, sent).unwrap();
    core.release(me, sent).unwrap();
    world.kill(1);
    assert_eq!(core.reap(me), Ok(1));
    check(&core, me);
    let stats = core.stats(me).unwrap();
    assert_eq!(stats.reaped_references, MANY as u64);
    assert_eq!(stats.orphans, MANY as u64 - 100);
    assert_eq!(stats.blocks, MANY as u64 + 100);
    world.pass(GRACE);
    assert_eq!(core.reap(me), Ok(0));
    check(&core, me);
    let snapshot = core.snapshot(me).unwrap();
    let left: BTreeSet<_> = snapshot.live().map(|block| block.id).collect();
    let received = theirs[..100].iter().map(|(which, _)| which.id.0);
    let expected: BTreeSet<_> = mine
        .into_iter()
        .chain(received)
        .chain([sent.id.0])
        .collect();
    assert_eq!(left, expected);
}

/// Parts that are shorter than what is looked at in one go.
#[test]
fn nothing_of_the_dead_is_passed_over() {
    let (world, core, me) = create_with(8, 7);
    let other = open(&world, 1);
    let member = other.register().unwrap();
    allocate_many(&other, member);
    world.kill(1);
    assert_eq!(core.reap(me), Ok(1));
    check(&core, me);
    world.pass(GRACE + 1);
    core.reap(me).unwrap();
    check(&core, me);
    let stats = core.stats(me).unwrap();
    assert_eq!((stats.blocks, stats.tickets), (0, 0));
}

#[test]
fn a_process_that_leaves_keeps_what_it_uses() {
    let (world, core, me) = create();
    let other = open(&world, 1);
    let member = other.register().unwrap();
    let blocks: Vec<_> = (0..MANY)
        .map(|_| other.allocate(member, 64).unwrap().0)
        .collect();
    let used: BTreeSet<_> = blocks.iter().step_by(100).map(|which| which.id.0).collect();
    let detachment = other.detach(member, |id| used.contains(&id.0), false);
    assert!(!detachment.unwrap().left);
    check(&core, me);
    let snapshot = core.snapshot(me).unwrap();
    let left: BTreeSet<_> = snapshot.live().map(|block| block.id).collect();
    assert_eq!(left, used);
    assert!(other.detach(member, |_| false, false).unwrap().left);
    check(&core, me);
    assert_eq!(core.stats(me).unwrap().blocks, 0);
}

#[test]
fn old_tickets_are_cancelled_and_no_others() {
    let (world, core, me) = create();
    let many = allocate_many(&core, me);
    world.pass(1000);
    let young = core.send(me, many[0].0).unwrap();
    assert_eq!(core.cancel_older(me, 500), Ok(MANY as u64));
    check(&core, me);
    assert_eq!(core.stats(me).unwrap().tickets, 1);
    assert_eq!(core.cancel(me, young, many[0].0), Ok(true));
}
