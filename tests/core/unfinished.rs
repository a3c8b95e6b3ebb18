//! Work that ends under a lock which is not to be had then is finished before the next operation.

use crate::model::{create, create_for, open};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{Core, ForkedChild, Member};
use shared_numpy::error::{Error, Result};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

const MANY: u64 = 4 << 20;

/// An arena of two processes, the first of which does something.
struct Scene {
    world: World,
    core: Core,
    me: Member,
    other: Arc<(Core, Member)>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(1 << 40);
        let (core, me) = create(&world, 1 << 40);
        let other = open(&world, 1);
        let member = other.register().unwrap();
        Scene {
            world,
            core,
            me,
            other: Arc::new((other, member)),
        }
    }

    /// Has the other take the lock when this one is at work outside it, and this one be told
    /// not to wait for it.
    fn disturb(&self) {
        let (world, other) = (self.world.clone(), self.other.clone());
        self.world.at_work(move || {
            let (core, member) = &*other;
            core.lock_word(*member, &core.header().owner).unwrap();
            world.set_interrupted(true);
        });
    }

    fn calm(&self) {
        let (core, member) = &*self.other;
        core.unlock_word(*member, &core.header().owner);
        self.world.set_interrupted(false);
    }

    /// Blocks, segments as the tables have them, and the segments that there are.
    fn facts(&self) -> (u64, u64, Vec<usize>) {
        assert_eq!(self.core.check(self.me).unwrap(), Vec::<String>::new());
        let stats = self.core.stats(self.me).unwrap();
        (stats.blocks, stats.segments, self.world.segments())
    }

    /// The other member sees tables that are right, and no segment in the making.
    fn nothing_is_being_made(&self, name: &str) {
        let (core, member) = &*self.other;
        assert_eq!(core.check(*member).unwrap(), Vec::<String>::new(), "{name}");
        let mut rows = core.header().known_segments();
        assert!(rows.all(|(_, row)| row.state.get() & 0xff != 1), "{name}");
    }

    /// Has nothing be due but what is half done.
    fn keep_up(&self) {
        self.world.pass(1);
        self.core.do_upkeep(self.me).unwrap();
        assert!(!self.core.is_upkeep_due());
    }

    /// Has no free memory any pages.
    fn trim_all(&self) {
        while self.core.trim(self.me, 0).unwrap() > 0 {}
    }
}

type Prepare = fn(&Scene);
type Work = fn(&Scene) -> Result<()>;
type Finish = (&'static str, Work);

const WORK: [(&str, Prepare, Work); 6] = [
    (
        "a segment",
        |_| (),
        |scene| scene.core.allocate(scene.me, MANY).map(drop),
    ),
    (
        "a segment for which there is no memory",
        |scene| scene.world.set_room(0),
        |scene| scene.core.allocate(scene.me, MANY).map(drop),
    ),
    (
        "memory that goes back",
        |scene| {
            let block = scene.core.allocate(scene.me, MANY).unwrap().0;
            scene.core.release(scene.me, block).unwrap();
        },
        |scene| scene.core.trim(scene.me, 0).map(drop),
    ),
    (
        "a segment in which nothing lies",
        |scene| {
            let block = scene.core.allocate(scene.me, MANY).unwrap().0;
            scene.core.release(scene.me, block).unwrap();
        },
        |scene| {
            let removed = scene.core.remove_empty_segments(scene.me, u64::MAX);
            removed.map(drop)
        },
    ),
    (
        "pages for which there is no memory",
        |scene| {
            let block = scene.core.allocate(scene.me, MANY).unwrap().0;
            scene.core.release(scene.me, block).unwrap();
            scene.trim_all();
            scene.world.set_room(0);
        },
        |scene| scene.core.allocate(scene.me, MANY).map(drop),
    ),
    (
        "rows",
        |scene| {
            // The last before the table grows, for which it needs pages.
            let twin = Scene::new();
            let mut count = 0;
            while twin.core.header().block_chunks.get() == 1 {
                twin.core.allocate(twin.me, 64).unwrap();
                count += 1;
            }
            for _ in 1..count {
                scene.core.allocate(scene.me, 64).unwrap();
            }
            scene.trim_all();
        },
        |scene| scene.core.allocate(scene.me, 64).map(drop),
    ),
];

/// What finishes it: the upkeep that comes before an operation, or one that wants all that can
/// be had.
const FINISH: [Finish; 5] = [
    ("upkeep", |scene| scene.core.do_upkeep(scene.me)),
    ("reap", |scene| scene.core.reap(scene.me).map(|_| ())),
    // (Nothing that is free has to go.)
    ("trim", |scene| {
        scene.core.trim(scene.me, u64::MAX).map(|_| ())
    }),
    ("stats", |scene| scene.core.stats(scene.me).map(|_| ())),
    ("check", |scene| scene.core.check(scene.me).map(|_| ())),
];

#[test]
fn what_is_half_done_is_finished() {
    let all = WORK
        .iter()
        .flat_map(|each| FINISH.iter().map(move |finish| (each, finish)));
    for ((name, prepare, work), (how, finish)) in all {
        let name = &format!("{name}, {how}");
        let scene = Scene::new();
        prepare(&scene);
        scene.keep_up();
        let before = scene.facts();
        scene.disturb();
        let failed = work(&scene).unwrap_err();
        let expected = [
            matches!(failed, Error::Interrupted),
            matches!(failed, Error::Full { .. }),
        ];
        assert!(expected.contains(&true), "{name}: {failed:?}");
        scene.calm();
        assert!(scene.core.is_upkeep_due(), "{name}");
        finish(&scene).unwrap();
        assert!(!scene.core.is_upkeep_due(), "{name}");
        let after = scene.facts();
        // (Blocks were made before the rows came to an end.)
        let same = (after.0 >= before.0, after.1, after.2);
        let right = match name.starts_with("a segment in which nothing lies") {
            true => (true, 1, vec![0]),
            false => (true, before.1, before.2),
        };
        assert_eq!(same, right, "{name}");
        if !name.starts_with("rows") {
            assert_eq!(after.0, before.0, "{name}");
        }
        // And it can be done now.
        scene.world.set_room(1 << 40);
        scene.core.allocate(scene.me, MANY).unwrap();
        scene.facts();
    }
}

/// Nobody has the slot in whose name it was done.
#[test]
fn what_is_half_done_ends_with_its_maker() {
    for (name, prepare, work) in WORK {
        let scene = Scene::new();
        prepare(&scene);
        scene.disturb();
        work(&scene).unwrap_err();
        scene.calm();
        scene.core.leave(scene.me).unwrap();
        scene.nothing_is_being_made(name);
        let (core, member) = &*scene.other;
        assert_eq!(core.stats(*member).unwrap().blocks, 0, "{name}");
        // Its list is of no more use, and does no harm.
        let me = scene.core.register().unwrap();
        scene.core.do_upkeep(me).unwrap();
        assert_eq!(core.check(*member).unwrap(), Vec::<String>::new(), "{name}");
    }
}

/// It is on no list, as after a failure that says nothing of the lock.
#[test]
fn what_is_half_done_and_forgotten_ends_with_its_maker() {
    for (name, prepare, work) in WORK {
        let scene = Scene::new();
        prepare(&scene);
        scene.disturb();
        work(&scene).unwrap_err();
        scene.calm();
        scene.core.forget_threads();
        scene.core.leave(scene.me).unwrap();
        scene.nothing_is_being_made(name);
    }
}

/// What a process does that finds out that another one is dead.
type Discovery = (&'static str, fn(&Core, Member));

const DISCOVERIES: &[Discovery] = &[
    ("reap", |core, me| assert_eq!(core.reap(me), Ok(1))),
    ("leave", |core, me| assert!(core.leave(me).unwrap().left)),
    ("fork where all slots are taken", |core, me| {
        let child = core.prepare_fork(me, |_| true, |_| true, || true);
        assert!(matches!(child, Ok(ForkedChild::Reserved(_))), "{child:?}");
        core.finish_fork(me);
    }),
    ("take its slot", |core, _| {
        core.register().unwrap();
    }),
];

/// The removal of a segment takes as long as it is long: the others go on meanwhile.
#[test]
fn whoever_removes_segments_of_the_dead_does_so_outside_the_lock() {
    for (name, find) in DISCOVERIES {
        let world = World::new(1 << 40);
        let (core, me) = create_for(&world, 1 << 40, 4);
        let [maker, third, fourth] = [1, 2, 3].map(|pid| open(&world, pid));
        let [member, witness, _] = [&maker, &third, &fourth].map(|core| core.register().unwrap());
        let third = Arc::new(third);
        // It dies when the segment is made, and not yet the arena's.
        let (other, interrupted) = (third.clone(), world.clone());
        world.at_work(move || {
            other.lock_word(witness, &other.header().owner).unwrap();
            interrupted.set_interrupted(true);
        });
        assert_eq!(maker.allocate(member, MANY), Err(Error::Interrupted));
        third.unlock_word(witness, &third.header().owner);
        world.set_interrupted(false);
        world.kill(1);
        assert_eq!(world.segments(), [0, 1], "{name}");
        // What the lock's word is while it is removed.
        let owner = Arc::new(AtomicU32::new(u32::MAX));
        let (seen, other) = (owner.clone(), third.clone());
        world.at_work(move || seen.store(other.header().owner.get(), Ordering::Relaxed));
        let comer = open(&world, 5);
        match *name == "take its slot" {
            true => find(&comer, me),
            false => find(&core, me),
        }
        assert_eq!(owner.load(Ordering::Relaxed), 0, "{name}");
        assert_eq!(world.segments(), [0], "{name}");
        assert_eq!(
            third.check(witness).unwrap(),
            Vec::<String>::new(),
            "{name}"
        );
    }
}
