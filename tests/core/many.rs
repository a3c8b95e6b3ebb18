//! More processes than have their bits in the rows of blocks.
//!
//! * As many processes are members as the arena was made for, and one more is told which number
//!   to raise; members in all slots can do all that others can.
//! * What a member holds in any slot stays, also over a recovery, and goes with it, however it
//!   ends: by leaving, by being reaped, by the release of the last living holder.
//! * A child has what its parent has, whichever slots they have.
//! * A lock, a ticket and a segment in the making of a dead member are found to be so.

use crate::model::{create_for, occupy, open, GRACE};
use shared_numpy::arena::format::{SlotId, SlotRow, SLOTS, SLOTS_IN_ROW};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, ForkedChild, Member};
use shared_numpy::error::{Error, Exhausted};

/// The slots of members that have their bits in different words: the last in a row, the first
/// behind it, the last of the next word, and the last of all.
const PLACES: [u16; 5] = [255, 256, 319, 320, 1023];

/// An arena with a member in slot 0 and one in another slot.
struct Scene {
    world: World,
    first: (Core, Member),
    other: (Core, Member),
}

/// The number of the process in the other slot.
const OTHER: u64 = 7;

impl Scene {
    fn new(slot: u16) -> Self {
        let world = World::new(1 << 30);
        let first = create_for(&world, 1 << 40, 1024);
        occupy(&world, &first.0, slot);
        let core = open(&world, OTHER);
        let me = core.register().unwrap();
        assert_eq!(me.slot, SlotId(slot));
        let other = (core, me);
        Scene {
            world,
            first,
            other,
        }
    }

    /// A block of the other member's.
    fn block(&self) -> BlockRef {
        let (core, me) = &self.other;
        core.allocate(*me, 1000).unwrap().0
    }

    /// The slots that hold a block; None if it is gone.
    fn holders(&self, which: BlockRef) -> Option<Vec<u16>> {
        let (core, me) = &self.first;
        let snapshot = core.snapshot(*me).unwrap();
        assert_eq!(snapshot.check(), Vec::<String>::new());
        let mut live = snapshot.live();
        let same = live.find(|b| (b.id, b.generation) == (which.id.0, which.generation));
        same.map(|block| block.holders.iter().map(|slot| slot.0).collect())
    }

    /// As if the last owner of the lock had died.
    fn unsettle(&self) {
        self.first.0.header().condition.set(2);
    }
}

#[test]
fn as_many_processes_have_an_arena_as_it_was_made_for_and_one_more_is_told() {
    for processes in [2, 255, 256, 257, 300, 1024] {
        let world = World::new(1 << 30);
        let (first, me) = create_for(&world, 0, processes);
        let mut members = vec![me];
        for pid in 1..processes as u64 {
            let core = open(&world, pid);
            let me = core.register().unwrap();
            let which = core.allocate(me, 64).unwrap().0;
            assert_eq!(core.locate(me, which).unwrap().size, 64);
            members.push(me);
        }
        let slots: Vec<u16> = members.iter().map(|me| me.slot.0).collect();
        assert_eq!(slots, (0..processes as u16).collect::<Vec<_>>());
        let error = open(&world, 2000).register().unwrap_err();
        let (what, left) = (Exhausted::Slots, 0);
        let asked = processes as u64;
        assert_eq!(error, Error::Full { what, asked, left });
        let text = error.to_string();
        let parts = [
            &format!("all {processes} places"),
            "SHARED_NUMPY_ARENA=processes=N",
            "Arena.create(processes=N)",
            "1024",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        // All but the first die, half of them at a time.
        for half in 0..2 {
            let dead = (1..processes as u64).filter(|pid| pid % 2 == half);
            let count = dead.inspect(|pid| world.kill(*pid)).count();
            assert_eq!(first.reap(me), Ok(count as u64));
            let stats = first.stats(me).unwrap();
            assert_eq!(stats.processes, stats.blocks + 1);
        }
        assert_eq!(first.stats(me).unwrap().blocks, 0);
        assert_eq!(first.check(me).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_an_arena_is_refused() {
    for processes in [0, 1025, u32::MAX] {
        let mut geometry = crate::conformance::geometry(1024);
        geometry.processes = processes;
        assert!(geometry.check().is_err(), "{processes}");
    }
}

/// An arena for as many as have their bits in rows costs nothing for those that do not.
#[test]
fn only_arenas_for_more_have_longer_tables() {
    let usual = crate::conformance::geometry(256);
    assert_eq!(crate::conformance::geometry(2), {
        let processes = 2;
        shared_numpy::arena::format::Geometry { processes, ..usual }
    });
    assert_eq!((usual.slots(), usual.further_words()), (SLOTS_IN_ROW, 0));
    assert_eq!(usual.block_chunk(), 96 << usual.block_shift);
    for (processes, slots, bytes) in [(257, 320, 104), (320, 320, 104), (1024, SLOTS, 192)] {
        let wide = crate::conformance::geometry(processes);
        assert_eq!(wide.slots(), slots);
        assert_eq!(wide.block_chunk(), bytes << wide.block_shift);
        let more = (slots - SLOTS_IN_ROW) * std::mem::size_of::<SlotRow>();
        assert_eq!(wide.blocks() - usual.blocks(), more as u64);
    }
}

#[test]
fn members_in_all_slots_pass_blocks_on() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let ((first, me), (other, member)) = (&scene.first, &scene.other);
        let which = scene.block();
        assert_eq!(scene.holders(which), Some(vec![slot]));
        let ticket = other.send(*member, which).unwrap();
        assert_eq!(other.release(*member, which), Ok(false));
        first.receive(*me, which, Some(ticket)).unwrap();
        assert_eq!(scene.holders(which), Some(vec![0]));
        let ticket = first.send(*me, which).unwrap();
        other.receive(*member, which, Some(ticket)).unwrap();
        assert_eq!(scene.holders(which), Some(vec![0, slot]));
        assert_eq!(first.release(*me, which), Ok(false));
        assert_eq!(scene.holders(which), Some(vec![slot]));
        // It is the other's alone.
        assert_eq!(first.release(*me, which), Err(Error::Stale));
        assert_eq!(first.claim_unheld(*me, which, || ()), Ok(None));
        assert_eq!(other.release(*member, which), Ok(true));
        assert_eq!(scene.holders(which), None);
        // The row's next life begins with one holder.
        let next = first.allocate(*me, 1000).unwrap().0;
        assert_eq!(next.id, which.id);
        assert_eq!(scene.holders(next), Some(vec![0]));
    }
}

#[test]
fn what_is_held_in_any_slot_stays_over_a_recovery() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        // More than one chunk of the table.
        let blocks: Vec<BlockRef> = (0..40).map(|_| scene.block()).collect();
        scene.unsettle();
        for which in &blocks {
            assert_eq!(scene.holders(*which), Some(vec![slot]));
        }
        scene.world.kill(OTHER);
        assert_eq!(scene.first.0.reap(scene.first.1), Ok(1));
        assert!(blocks.iter().all(|which| scene.holders(*which).is_none()));
    }
}

/// A chunk of the table belongs to the arena, and to no slot.
#[test]
fn chunks_are_held_by_nobody() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        while scene.first.0.header().block_chunks.get() < 3 {
            scene.block();
        }
        scene.world.kill(OTHER);
        assert_eq!(scene.first.0.reap(scene.first.1), Ok(1));
        scene.unsettle();
        assert_eq!(scene.holders(scene.block_of_first()), Some(vec![0]));
    }
}

impl Scene {
    fn block_of_first(&self) -> BlockRef {
        let (core, me) = &self.first;
        core.allocate(*me, 1000).unwrap().0
    }
}

#[test]
fn a_process_that_leaves_any_slot_drops_what_it_had() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let (mine, sent) = (scene.block(), scene.block());
        let (other, member) = &scene.other;
        let ticket = other.send(*member, sent).unwrap();
        other.leave(*member).unwrap();
        assert_eq!(
            (scene.holders(mine), scene.holders(sent)),
            (None, Some(vec![]))
        );
        let (first, me) = &scene.first;
        first.receive(*me, sent, Some(ticket)).unwrap();
    }
}

/// The last living holder finds the other one dead.
#[test]
fn a_release_frees_what_the_dead_of_any_slot_hold() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let which = scene.block();
        let (first, me) = &scene.first;
        first.receive(*me, which, None).unwrap();
        scene.world.kill(OTHER);
        assert_eq!(scene.holders(which), Some(vec![0, slot]));
        assert_eq!(first.release(*me, which), Ok(true));
        assert_eq!(scene.holders(which), None);
    }
}

#[test]
fn the_slot_of_any_dead_process_is_taken_clean() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let which = scene.block();
        // Those behind it are taken, too.
        let all: Vec<Core> = (slot + 1..1024)
            .map(|pid| open(&scene.world, 2000 + pid as u64))
            .collect();
        for core in &all {
            core.register().unwrap();
        }
        scene.world.kill(OTHER);
        let next = open(&scene.world, 5000).register().unwrap();
        assert_eq!(next.slot, SlotId(slot));
        assert_eq!(scene.holders(which), None);
    }
}

#[test]
fn a_child_has_what_its_parent_has_whichever_slots_they_have() {
    for slot in PLACES.into_iter().filter(|slot| *slot < 1023) {
        for from_first in [true, false] {
            // The parent in the first slot, or in the one before the child's.
            let scene = Scene::new(if from_first { slot } else { slot - 1 });
            let (core, me) = if from_first {
                scene.other.0.leave(scene.other.1).unwrap();
                &scene.first
            } else {
                &scene.other
            };
            let which = core.allocate(*me, 1000).unwrap().0;
            let sign = |slot: SlotId| {
                scene.world.set_reserved(slot, true);
                true
            };
            let child = core.prepare_fork(*me, |_| true, sign, || panic!("no slot"));
            let Ok(ForkedChild::Reserved(born)) = child else {
                panic!("{child:?}")
            };
            core.finish_fork(*me);
            assert_eq!(born.slot, SlotId(slot));
            let child = open(&scene.world, 9);
            assert!(child.platform().claim(born.slot).unwrap());
            child.take_over_fork(born, true);
            scene.world.set_reserved(born.slot, false);
            assert_eq!(scene.holders(which), Some(vec![me.slot.0, slot]));
            assert_eq!(core.release(*me, which), Ok(false));
            scene.unsettle();
            assert_eq!(scene.holders(which), Some(vec![slot]));
            assert_eq!(child.release(born, which), Ok(true));
        }
    }
}

#[test]
fn a_lock_of_the_dead_of_any_slot_is_taken_over() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let which = scene.block();
        let (other, member) = &scene.other;
        other.lock_word(*member, &other.header().owner).unwrap();
        scene.world.kill(OTHER);
        assert_eq!(scene.holders(which), Some(vec![slot]));
        let (first, me) = &scene.first;
        assert_eq!(first.stats(*me).unwrap().recoveries, 1);
    }
}

/// An owner that no arena of this size can have had is nobody.
#[test]
fn a_lock_of_no_slot_is_taken_over() {
    let world = World::new(1 << 30);
    let (core, me) = create_for(&world, 0, 256);
    core.header().owner.set(1 << 30 | 5 << 10 | 700);
    core.allocate(me, 100).unwrap();
    assert_eq!(core.stats(me).unwrap().recoveries, 1);
}

#[test]
fn a_ticket_of_the_dead_of_any_slot_ends_after_the_grace() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let which = scene.block();
        let (other, member) = &scene.other;
        other.send(*member, which).unwrap();
        scene.world.kill(OTHER);
        let (first, me) = &scene.first;
        first.reap(*me).unwrap();
        assert_eq!(scene.holders(which), Some(vec![]));
        scene.world.pass(GRACE);
        first.reap(*me).unwrap();
        assert_eq!(scene.holders(which), None);
    }
}

#[test]
fn a_segment_in_the_making_of_the_dead_of_any_slot_is_removed() {
    for slot in PLACES {
        let scene = Scene::new(slot);
        let (world, (other, member)) = (scene.world.clone(), &scene.other);
        scene.world.at_work(move || {
            world.kill(OTHER);
            panic!("dies");
        });
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.allocate(*member, 4 << 20).map(drop)
        }));
        assert!(made.is_err());
        let (first, me) = &scene.first;
        let states = || first.snapshot(*me).unwrap().segments[1];
        assert_eq!((states().0, states().1), (1, slot));
        first.reap(*me).unwrap();
        assert_eq!(states().0, 0);
        assert_eq!(first.check(*me).unwrap(), Vec::<String>::new());
    }
}
