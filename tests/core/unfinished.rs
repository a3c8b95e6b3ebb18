//! Work that ends under a lock which is not to be had then is finished before the next operation.

use crate::model::{create, open};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{Core, Member};
use shared_numpy::error::{Error, Result};
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
        let (core, member) = &*scene.other;
        assert_eq!(core.check(*member).unwrap(), Vec::<String>::new(), "{name}");
        assert_eq!(core.stats(*member).unwrap().blocks, 0, "{name}");
        let mut rows = core.header().known_segments();
        assert!(rows.all(|(_, row)| row.state.get() & 0xff != 1), "{name}");
        // Its list is of no more use, and does no harm.
        let me = scene.core.register().unwrap();
        scene.core.do_upkeep(me).unwrap();
        assert_eq!(core.check(*member).unwrap(), Vec::<String>::new(), "{name}");
    }
}
