//! Recovery of many rows, on plain memory.
//!
//! Properties, beside that the checker finds nothing wrong:
//!
//! * blocks stay where they are, in whatever order their rows are, and free memory is whole again;
//! * what nobody wants goes, and so do the tickets that it owned, and what these alone have kept;
//! * what still has a ticket stays, with all that it owns;
//! * a recovery after a recovery changes nothing.

use crate::model::open;
use crate::random::random;
use crate::seed::Random;
use shared_numpy::arena::format::{Address, BlockId, BlockRow, Geometry, Header, PAGE, UNSETTLED};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Extent, Member};
use shared_numpy::error::Error;
use std::mem::size_of;

/// More than are sorted at a time.
const MANY: usize = 3000;
/// So long that they all lie in few of the lists that recovery sorts.
const FAR: u64 = 256 << 20;

fn create() -> (World, Core, Member) {
    let mut geometry = Geometry {
        block_shift: 13,
        ticket_shift: 12,
        processes: 256,
        size: 0,
    };
    // (Too short for all blocks: they lie in two segments.)
    geometry.size = geometry.data() + MANY as u64 * 64;
    geometry.size = geometry.size.next_multiple_of(PAGE);
    let world = World::new(1 << 40);
    let (core, me) = Core::create(world.process(0), geometry, |header: &Header| {
        header.grace.set(1000);
        header.budget.set(1 << 40);
        header.longest.set(1 << 30);
    })
    .unwrap();
    (world, core, me)
}

/// As if the last owner of the lock had died.
fn recover(core: &Core, me: Member) {
    let condition = &core.header().condition;
    condition.commit(condition.get() | UNSETTLED);
    let before = core.header().block_rows.get();
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
    assert_eq!(condition.get(), 0);
    assert_eq!(core.header().block_rows.get(), before, "rows are wasted");
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for i in 0..list.len() {
        list.swap(i, random.below(list.len() as u64) as usize);
    }
}

/// The blocks with their places, and how many bytes are free.
fn picture(core: &Core, me: Member, blocks: &[BlockRef]) -> (Vec<Extent>, u64) {
    let places = blocks.iter().map(|which| core.locate(me, *which).unwrap());
    (places.collect(), core.stats(me).unwrap().free_bytes)
}

/// Two chunks of a table in one memory: what is written for a row of one is another row's, too.
#[test]
fn chunks_that_share_memory_are_an_error() {
    type Damage = fn(&Header, [&BlockRow; 2]);
    let damages: [Damage; 4] = [
        |header, _| header.block_directory[2].set(header.block_directory[1].get()),
        |header, _| header.ticket_directory[1].set(header.block_directory[1].get()),
        |header, _| header.block_directory[2].set(header.block_rows.get() + 1),
        |_, [blocks, tickets]| tickets.address.set(blocks.address.get()),
    ];
    for damage in damages {
        let world = World::new(1 << 40);
        let (core, me) = crate::model::create(&world, 1 << 40);
        let header = core.header();
        let sent = core.allocate(me, 64).unwrap().0;
        while header.ticket_chunks.get() < 2 {
            core.send(me, sent).unwrap();
        }
        while header.block_chunks.get() < 3 {
            core.allocate(me, 64).unwrap();
        }
        for _ in 0..40 {
            core.allocate(me, 64).unwrap();
        }
        let rows = [&header.block_directory, &header.ticket_directory].map(|directory| {
            let id = BlockId(directory[1].get() - 1);
            assert_eq!(id.0 >> core.geometry().block_shift, 0);
            row_of(&core, BlockRef { id, generation: 0 })
        });
        damage(header, rows);
        header.condition.commit(header.condition.get() | UNSETTLED);
        // (A process that has met the chunks knows where they were.)
        let other = open(&world, 1);
        let found = other.register().and_then(|me| other.check(me));
        assert!(matches!(found, Err(Error::Corrupted { .. })), "{found:?}");
    }
}

#[test]
fn blocks_stay_in_whatever_order_their_rows_are() {
    random("blocks_stay_in_whatever_order_their_rows_are", |seed| {
        let random = &mut Random::new(seed);
        // With a segment far longer than what is used of it, and without.
        for is_far in [true, false] {
            let (_world, core, me) = create();
            if is_far {
                let long = core.allocate(me, FAR).unwrap().0;
                core.release(me, long).unwrap();
            }
            shuffle_and_recover(&core, me, random);
        }
    });
}

fn shuffle_and_recover(core: &Core, me: Member, random: &mut Random) {
    let stay = |blocks: &[BlockRef]| {
        let before = picture(core, me, blocks);
        for _ in 0..2 {
            recover(core, me);
            assert_eq!(picture(core, me, blocks), before);
        }
    };
    let mut blocks = Vec::new();
    for _ in 0..3 {
        while blocks.len() < MANY {
            let size = 1 + random.below(256);
            blocks.push(core.allocate(me, size).unwrap().0);
        }
        // (The first time all rows are in order.)
        stay(&blocks);
        shuffle(&mut blocks, random);
        let kept = random.below(MANY as u64) as usize;
        for which in blocks.drain(kept..) {
            core.release(me, which).unwrap();
        }
        stay(&blocks);
    }
    for which in blocks {
        core.release(me, which).unwrap();
    }
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

/// The row of a block in the first chunk.
fn row_of(core: &Core, which: BlockRef) -> &BlockRow {
    let (geometry, size) = (core.geometry(), size_of::<BlockRow>() as u64);
    let place = Extent {
        address: Address::new(0, geometry.blocks() + size * which.id.0 as u64),
        size,
    };
    // SAFETY: a row in the tables of the first segment, which is mapped while `core` lives.
    unsafe { core.bytes(place).cast().as_ref() }
}

/// A chain of blocks of which each owns a ticket for the next, and nobody knows any but by that.
fn chain(core: &Core, me: Member, blocks: &[BlockRef], random: &mut Random) {
    let mut links: Vec<_> = blocks.windows(2).collect();
    shuffle(&mut links, random);
    for link in links {
        core.send_owned(me, link[1], link[0]).unwrap();
    }
    for which in &blocks[1..] {
        core.release(me, *which).unwrap();
    }
}

#[test]
fn chains_of_what_nobody_wants_go() {
    random("chains_of_what_nobody_wants_go", |seed| {
        let random = &mut Random::new(seed);
        let (world, core, me) = create();
        let other = open(&world, 1);
        let member = other.register().unwrap();
        let mut blocks: Vec<_> = (0..MANY)
            .map(|_| core.allocate(me, 64).unwrap().0)
            .collect();
        // The rows of a chain, and of its tickets, are in any order.
        shuffle(&mut blocks, random);
        let (gone, stays) = blocks.split_at(MANY / 2);
        chain(&core, me, gone, random);
        chain(&core, me, stays, random);
        // From here on another ticket keeps the rest of the first chain.
        let from = 1 + random.below(gone.len() as u64 - 1) as usize;
        core.receive(me, gone[from], None).unwrap();
        core.send(me, gone[from]).unwrap();
        core.release(me, gone[from]).unwrap();
        let before = core.stats(me).unwrap();
        // As if its holder had died when it had dropped the first of them, and not freed it.
        row_of(&core, gone[0]).holders[0].commit(0);
        recover(&core, me);
        let after = core.stats(me).unwrap();
        assert_eq!(before.blocks - after.blocks, from as u64);
        assert_eq!(before.tickets - after.tickets, from as u64);
        for (i, which) in gone.iter().enumerate() {
            assert_eq!(other.locate(member, *which).is_ok(), i >= from);
        }
        assert!(stays
            .iter()
            .all(|which| other.locate(member, *which).is_ok()));
        // What is left ends as it always does: with its owner.
        core.release(me, stays[0]).unwrap();
        assert_eq!(core.stats(me).unwrap().blocks, (gone.len() - from) as u64);
        recover(&core, me);
    });
}
