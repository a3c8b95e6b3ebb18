//! The properties of `tests/conformance`, on plain memory.

use crate::conformance::{
    geometry, open, with_faults, without_faults, ChildWork, End, Ground, Work, SIZES,
};
use shared_numpy::arena::format::SlotId;
use shared_numpy::arena::plain::World;
use shared_numpy::arena::platform::Platform;
use shared_numpy::arena::{Core, ForkedChild, Member};
use shared_numpy::error::Result;
use std::cell::Cell;
use std::sync::Arc;

/// The memory that there is.
const ROOM: u64 = 1 << 40;

struct Plain {
    world: World,
    next: Cell<u64>,
    processes: u32,
}

fn plain(processes: u32) -> Box<dyn Ground> {
    Box::new(Plain {
        world: World::new(ROOM),
        next: Cell::new(1),
        processes,
    })
}

impl Plain {
    /// Has a process of the number end.
    fn end(&self, core: &Core, me: Member, pid: u64, end: End) {
        match end {
            End::Leaves => drop(core.leave(me).unwrap()),
            End::IsKilled => self.world.kill(pid),
        }
    }

    fn next(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
}

impl Ground for Plain {
    fn platform(&self) -> Arc<dyn Platform> {
        self.world.process(0)
    }

    fn elsewhere(&self, end: End, work: Work) -> [u64; 4] {
        let pid = self.next();
        let core = open(self.world.process(pid), self.processes);
        let me = core.register().unwrap();
        let told = work(&core, me);
        self.end(&core, me, pid, end);
        told
    }

    fn fork(
        &self,
        core: &Core,
        me: Member,
        pinned: bool,
        parent: &dyn Fn(),
        child: ChildWork,
    ) -> Result<()> {
        let world = self.world.clone();
        let sign = |slot: SlotId| {
            world.set_reserved(slot, !pinned);
            !pinned
        };
        let pin = || {
            self.world.set_pinned(true);
            true
        };
        let prepared = core.prepare_fork(me, |_| true, sign, pin)?;
        core.finish_fork(me);
        let pid = self.next();
        let other = open(self.world.process(pid), self.processes);
        let born = match prepared {
            ForkedChild::Reserved(born) => {
                assert!(other.platform().claim(born.slot).unwrap());
                other.take_over_fork(born, true);
                self.world.set_reserved(born.slot, false);
                Some(born)
            }
            ForkedChild::Pinned => None,
        };
        parent();
        let born = child(&other, born);
        self.end(&other, born, pid, End::Leaves);
        self.world.set_pinned(false);
        Ok(())
    }

    fn used(&self) -> u64 {
        geometry(self.processes).size + ROOM - self.world.process(0).room().free
    }

    fn processes(&self) -> u32 {
        self.processes
    }
}

#[test]
fn the_arena_is_right_on_plain_memory() {
    for processes in SIZES {
        without_faults(&|| plain(processes));
    }
}

#[test]
fn the_arena_is_right_where_calls_fail_on_plain_memory() {
    for processes in SIZES {
        with_faults(&|| plain(processes));
    }
}
