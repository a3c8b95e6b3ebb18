//! Tickets that a block owns: a list on the block, which ends with it.
//!
//! * A block that is freed ends the tickets that it owns, and those end the blocks that they alone
//!   have kept, whatever these own: chains of any length, without a stack that grows with them.
//! * To end one of n tickets takes no longer for a larger n.
//! * The list is a cache: recovery makes it anew, and a damaged one is an error and no hang.

use crate::model::create_for;
use shared_numpy::arena::format::{Address, TicketRow, NIL};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Extent, Member, TicketRef};
use shared_numpy::error::Error;
use std::mem::size_of;

const MANY: usize = 3000;

fn arena(world: &World) -> (Core, Member) {
    create_for(world, 1 << 40, 256)
}

fn blocks(core: &Core, me: Member) -> u64 {
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    core.stats(me).unwrap().blocks
}

fn allocate(core: &Core, me: Member) -> BlockRef {
    core.allocate(me, 64).unwrap().0
}

/// A block of which nobody but a ticket of `owner` knows.
fn owned_by(core: &Core, me: Member, owner: BlockRef) -> (BlockRef, TicketRef) {
    let block = allocate(core, me);
    let ticket = core.send_owned(me, block, owner).unwrap();
    core.release(me, block).unwrap();
    (block, ticket)
}

/// The row of a ticket in the first chunk.
fn row_of(core: &Core, ticket: TicketRef) -> &TicketRow {
    let (geometry, size) = (core.geometry(), size_of::<TicketRow>() as u64);
    let place = Extent {
        address: Address::new(0, geometry.tickets() + size * ticket.id.0 as u64),
        size,
    };
    // SAFETY: a row in the tables of the first segment, which is mapped while `core` lives.
    unsafe { core.bytes(place).cast().as_ref() }
}

#[test]
fn chains_of_tickets_end_with_their_first_owner() {
    let world = World::new(1 << 40);
    let (core, me) = arena(&world);
    let first = allocate(&core, me);
    // A chain, at each link of which hang two more.
    let mut last = allocate(&core, me);
    core.send_owned(me, last, first).unwrap();
    for _ in 0..MANY {
        let next = allocate(&core, me);
        core.send_owned(me, next, last).unwrap();
        owned_by(&core, me, last);
        core.release(me, last).unwrap();
        last = next;
    }
    core.release(me, last).unwrap();
    assert_eq!(blocks(&core, me), 2 * MANY as u64 + 2);
    core.release(me, first).unwrap();
    assert_eq!(blocks(&core, me), 0);
    assert_eq!(core.stats(me).unwrap().tickets, 0);
}

#[test]
fn tickets_leave_the_list_of_their_owner_from_anywhere() {
    for order in 0..3 {
        let world = World::new(1 << 40);
        let (core, me) = arena(&world);
        let owner = allocate(&core, me);
        let mut owned: Vec<_> = (0..9).map(|_| owned_by(&core, me, owner)).collect();
        match order {
            0 => (),
            1 => owned.reverse(),
            _ => owned.rotate_left(4),
        }
        let tickets = owned.clone();
        for (number, (block, ticket)) in owned.into_iter().enumerate() {
            if number % 3 == 0 {
                // As if the last owner of the lock had died in the middle of a change: the list is
                // made anew.
                for (_, each) in &tickets[number..] {
                    row_of(&core, *each).next.set(7);
                    row_of(&core, *each).previous.set(7);
                }
                core.header().condition.set(2);
            }
            if number % 2 == 0 {
                assert!(core.cancel(me, ticket, block).unwrap());
            } else {
                core.receive(me, block, Some(ticket)).unwrap();
                core.release(me, block).unwrap();
            }
            assert_eq!(blocks(&core, me), 9 - number as u64);
        }
        core.release(me, owner).unwrap();
        assert_eq!(blocks(&core, me), 0);
    }
}

#[test]
fn an_owner_ends_those_that_are_not_found() {
    let world = World::new(1 << 40);
    let (core, me) = arena(&world);
    let owner = allocate(&core, me);
    let owned: Vec<_> = (0..20).map(|_| owned_by(&core, me, owner)).collect();
    let found =
        |ticket: TicketRef| owned.iter().position(|each| each.1 == ticket).unwrap() % 3 == 0;
    core.end_owned(me, owner, &found).unwrap();
    assert_eq!(blocks(&core, me), 1 + 7);
    core.end_owned(me, owner, &|_| false).unwrap();
    assert_eq!(blocks(&core, me), 1);
}

#[test]
fn damaged_lists_are_errors() {
    // What becomes of the links of the second of three: a ring, itself, a row that there is not, one
    // of another owner, the end.
    for damage in 0..5 {
        let world = World::new(1 << 40);
        let (core, me) = arena(&world);
        let owner = allocate(&core, me);
        let other = owned_by(&core, me, allocate(&core, me)).1;
        let owned: Vec<_> = (0..3).map(|_| owned_by(&core, me, owner).1).collect();
        let next = match damage {
            0 => owned[2].id.0,
            1 => owned[1].id.0,
            2 => u32::MAX - 1,
            3 => other.id.0,
            _ => NIL,
        };
        row_of(&core, owned[1]).next.set(next);
        let freed = core.release(me, owner);
        match damage {
            // The first is lost until a recovery.
            4 => assert_eq!(freed, Ok(true)),
            _ => assert!(
                matches!(freed, Err(Error::Corrupted { .. })),
                "{damage}: {freed:?}"
            ),
        }
        assert!(!core.check(me).is_ok_and(|wrong| wrong.is_empty()));
    }
}
