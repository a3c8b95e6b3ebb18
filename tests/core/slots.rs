//! Slots that are being freed while a process looks for one.
//!
//! * A process that finds no slot waits while one is being freed, and gets it.
//! * It does not wait for ever: not for a process that is stopped halfway.
//! * It does not wait at all where all slots are in use.
//! * A child that was forked in the middle of its parent's work is not at work.

use crate::conformance::faulty::{Call, Fate, Faulty};
use crate::conformance::SIZES;
use crate::model::{create_for, open, open_over};
use shared_numpy::arena::format::SlotId;
use shared_numpy::arena::plain::World;
use shared_numpy::arena::platform::Platform;
use shared_numpy::arena::{Core, Member};
use shared_numpy::error::{Error, Exhausted};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

/// The number of the process that is going to end.
const LEAVER: u64 = 7;
/// The number of the process that looks for a slot.
const COMER: u64 = 10_000;

/// An arena all of whose slots are taken.
struct Crowd {
    world: World,
    /// The process that is going to end, and its platform.
    leaver: (Core, Member, Arc<Faulty>),
    comer: (Core, Arc<Faulty>),
    other: (Core, Member),
}

/// Opens the arena of a world over a platform that a test can disturb.
fn open_disturbed(world: &World, pid: u64) -> (Core, Arc<Faulty>) {
    let platform = Faulty::over(world.process(pid));
    (open_over(world, platform.clone()), platform)
}

impl Crowd {
    fn new(processes: u32) -> Self {
        let world = World::new(1 << 20);
        let (first, me) = create_for(&world, 0, processes);
        // The last slot is the leaver's.
        for pid in 2..processes as u64 {
            open(&world, 10 + pid).register().unwrap();
        }
        let (core, platform) = open_disturbed(&world, LEAVER);
        let member = core.register().unwrap();
        Crowd {
            comer: open_disturbed(&world, COMER),
            leaver: (core, member, platform),
            other: (first, me),
            world,
        }
    }

    /// Has the leaver empty its slot and be stopped before it gives its byte back.
    fn stop_halfway(&self) {
        let (core, member, platform) = &self.leaver;
        platform.decide(|call| match call {
            Call::Disclaim => Fate::Fails(0),
            _ => Fate::Made,
        });
        core.leave(*member).unwrap();
    }

    /// Counts how often the comer sleeps, and has something done each time.
    fn count_sleeps(&self, then: impl Fn() + Send + Sync + 'static) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let mine = count.clone();
        self.comer.1.decide(move |call| {
            if call == Call::Sleep {
                mine.fetch_add(1, Ordering::Relaxed);
                then();
            }
            Fate::Made
        });
        count
    }

    fn assert_full(&self) {
        let full = self.comer.0.register().err();
        let slots = matches!(
            full,
            Some(Error::Full {
                what: Exhausted::Slots,
                ..
            })
        );
        assert!(slots, "{full:?}");
    }

    fn assert_taken(&self, slot: SlotId) {
        assert_eq!(self.comer.0.register().unwrap().slot, slot);
        let (core, me) = &self.other;
        assert_eq!(core.check(*me).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_slot_whose_process_is_about_to_leave_is_waited_for() {
    for processes in SIZES {
        let crowd = Crowd::new(processes);
        crowd.stop_halfway();
        let slot = crowd.leaver.1.slot;
        let byte = crowd.world.process(LEAVER);
        let sleeps = crowd.count_sleeps(move || byte.disclaim(slot));
        crowd.assert_taken(slot);
        assert_eq!(sleeps.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_process_that_is_stopped_while_it_leaves_is_not_waited_for_without_end() {
    for processes in SIZES {
        let crowd = Crowd::new(processes);
        crowd.stop_halfway();
        let sleeps = crowd.count_sleeps(|| ());
        crowd.assert_full();
        let slept = sleeps.load(Ordering::Relaxed);
        assert!((10..10_000).contains(&slept), "{slept} short sleeps");
    }
}

#[test]
fn nobody_waits_where_all_processes_live() {
    for processes in SIZES {
        let crowd = Crowd::new(processes);
        let sleeps = crowd.count_sleeps(|| ());
        crowd.assert_full();
        assert_eq!(sleeps.load(Ordering::Relaxed), 0);
    }
}

/// The dead is found, and before its slot is taken another process has emptied it.
#[test]
fn a_slot_that_another_has_just_emptied_is_taken() {
    for processes in SIZES {
        let crowd = Crowd::new(processes);
        crowd.world.kill(LEAVER);
        let reaper = open(&crowd.world, 10);
        let me = crowd.other.1;
        let count = Arc::new(AtomicU32::new(0));
        crowd.comer.1.decide(move |call| {
            if call == Call::Claim && count.fetch_add(1, Ordering::Relaxed) == 0 {
                assert_eq!(reaper.reap(me), Ok(1));
            }
            Fate::Made
        });
        crowd.assert_taken(crowd.leaver.1.slot);
    }
}

/// What a process that ends still has goes with it, in a moment.
#[test]
fn a_process_that_has_parted_is_waited_for() {
    for processes in SIZES {
        let crowd = Crowd::new(processes);
        let (core, member, _) = &crowd.leaver;
        core.allocate(*member, 100).unwrap();
        assert!(!core.detach(*member, |_| true, false).unwrap().left);
        let world = crowd.world.clone();
        crowd.count_sleeps(move || world.kill(LEAVER));
        crowd.assert_taken(member.slot);
    }
}

#[test]
fn what_a_parent_worked_at_is_no_work_of_its_child() {
    let world = World::new(1 << 30);
    let (core, me) = create_for(&world, 0, 256);
    let work = core.work(me).unwrap();
    // In the child, that returns out of a signal's handler into the middle of it.
    core.forget_threads();
    drop(work);
    // A process does not leave while it is at work.
    let (told, left) = mpsc::channel();
    thread::spawn(move || {
        drop(core.work(me).unwrap());
        let _ = told.send(core.detach(me, |_| false, true).unwrap().last);
    });
    assert_eq!(left.recv_timeout(Duration::from_secs(30)), Ok(true));
}
