//! What an arena does on every platform, also where the platform fails.
//!
//! Each property is stated once, over a [`Ground`]: plain memory (`tests/core`) or the system's
//! shared memory with other processes (`tests/crash`). It is run as it is, and then once for each
//! call of the platform that it makes and each way in which that can fail. Then:
//!
//! * the operation returns an error or succeeds, and never panics;
//! * the checker finds nothing;
//! * blocks that are held have what was written to them, and those that are not held are gone;
//! * when the fault is over the same operation succeeds;
//! * in the end nothing is in the arena, and no memory is taken that no table knows of.

pub mod faulty;

use faulty::{Call, Fate, Faulty};
use shared_numpy::arena::format::{Expected, Geometry, Header, PAGE};
use shared_numpy::arena::platform::Platform;
use shared_numpy::arena::{BlockRef, Core, Member, TicketRef};
use shared_numpy::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How another process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Leaves,
    IsKilled,
}

/// What another process does in the arena, and some numbers that it tells.
pub type Work<'a> = &'a dyn Fn(&Core, Member) -> [u64; 4];

/// What a forked child does, which has a slot or gets one only now; which it has then.
pub type ChildWork<'a> = &'a dyn Fn(&Core, Option<Member>) -> Member;

/// A platform with whatever is around it: one arena, and other processes.
pub trait Ground {
    /// The platform of an arena that is made, in this process.
    fn platform(&self) -> Arc<dyn Platform>;

    /// Has another process do something as a member of the arena.
    fn elsewhere(&self, end: End, work: Work) -> [u64; 4];

    /// Forks `me`: the child gets a slot of its own, or, `pinned`, none; then the parent does
    /// something, then the child, which has become a member, and ends.
    fn fork(
        &self,
        core: &Core,
        me: Member,
        pinned: bool,
        parent: &dyn Fn(),
        child: ChildWork,
    ) -> Result<()>;

    /// How many bytes the system has given for the arena's segments.
    fn used(&self) -> u64;

    /// How many processes the arena is made for.
    fn processes(&self) -> u32;
}

/// For how many processes the arenas are made with which all is tried: as many as have their bits in
/// the rows of blocks, and as many as can be.
pub const SIZES: [u32; 2] = [256, 1024];

/// The sizes of an arena for so many processes: small tables, which grow early.
pub fn geometry(processes: u32) -> Geometry {
    let mut geometry = Geometry {
        block_shift: 4,
        ticket_shift: 4,
        processes,
        size: 0,
    };
    geometry.size = geometry.data() + 64 * PAGE;
    geometry
}

/// Opens an arena for so many processes in another process.
pub fn open(platform: Arc<dyn Platform>, processes: u32) -> Core {
    let expected = Expected {
        size: geometry(processes).size,
        uid: 0,
        boot: 0,
        lock_file: [0, 0],
    };
    Core::open(platform, &expected).unwrap()
}

/// A block that this process holds, and what it has written there.
struct Held {
    which: BlockRef,
    byte: u8,
}

/// An arena, and this process's part in it.
struct Stage<'a> {
    ground: &'a dyn Ground,
    core: Core,
    platform: Arc<Faulty>,
    me: Cell<Member>,
    held: RefCell<Vec<Held>>,
    sent: RefCell<Vec<(BlockRef, TicketRef)>>,
}

/// Bytes that tell a block from the others.
fn fill(core: &Core, me: Member, which: BlockRef, byte: u8) -> Result<()> {
    let place = core.locate(me, which)?;
    // SAFETY: the caller holds the block, which is this long, and nobody else writes to it.
    unsafe { core.bytes(place).write_bytes(byte, place.size as usize) };
    Ok(())
}

/// Whether a block is what [`fill`] has made it.
fn is_whole(core: &Core, me: Member, which: BlockRef, byte: u8) -> bool {
    let place = core.locate(me, which).unwrap();
    // SAFETY: the block is held, this long, and nobody writes to it now.
    let bytes =
        unsafe { std::slice::from_raw_parts(core.bytes(place).as_ptr(), place.size as usize) };
    bytes.iter().all(|found| *found == byte)
}

impl<'a> Stage<'a> {
    fn new(ground: &'a dyn Ground) -> Self {
        let platform = Faulty::over(ground.platform());
        let geometry = geometry(ground.processes());
        let (core, me) = Core::create(platform.clone(), geometry, |header: &Header| {
            header.uuid[0].set(7);
            header.budget.set(1 << 40);
            header.least.set(geometry.size);
            header.longest.set(1 << 30);
            header.lock_file.iter().for_each(|number| number.set(0));
        })
        .unwrap();
        Stage {
            ground,
            core,
            platform,
            me: Cell::new(me),
            held: RefCell::default(),
            sent: RefCell::default(),
        }
    }

    fn me(&self) -> Member {
        self.me.get()
    }

    fn make(&self, bytes: u64) -> Result<BlockRef> {
        let (which, _) = self.core.allocate(self.me(), bytes)?;
        self.keep(which)?;
        Ok(which)
    }

    /// Notes a block that this process holds, and writes to it.
    fn keep(&self, which: BlockRef) -> Result<()> {
        let byte = (which.id.0 as u8) ^ (which.generation as u8) | 1;
        self.held.borrow_mut().push(Held { which, byte: 0 });
        fill(&self.core, self.me(), which, byte)?;
        self.held.borrow_mut().last_mut().unwrap().byte = byte;
        Ok(())
    }

    fn drop_all(&self) -> Result<()> {
        loop {
            let Some(which) = self.held.borrow().last().map(|held| held.which) else {
                return Ok(());
            };
            self.core.release(self.me(), which)?;
            self.held.borrow_mut().pop();
        }
    }

    fn send(&self, which: BlockRef) -> Result<()> {
        let ticket = self.core.send(self.me(), which)?;
        self.sent.borrow_mut().push((which, ticket));
        Ok(())
    }

    fn cancel_all(&self) -> Result<()> {
        loop {
            let Some((which, ticket)) = self.sent.borrow().last().copied() else {
                return Ok(());
            };
            assert!(self.core.cancel(self.me(), ticket, which)?);
            self.sent.borrow_mut().pop();
        }
    }

    /// Gives all free memory back.
    fn trim(&self) -> Result<()> {
        while self.core.trim(self.me(), 0)? > 0 {}
        Ok(())
    }

    /// What must be so at any time when nothing is under way.
    fn verify(&self, when: &str) {
        let wrong = self.core.check(self.me()).unwrap();
        assert_eq!(wrong, Vec::<String>::new(), "{when}");
        for held in self.held.borrow().iter().filter(|held| held.byte != 0) {
            let whole = is_whole(&self.core, self.me(), held.which, held.byte);
            assert!(whole, "{when}: {:?}", held.which);
        }
    }

    /// Nothing is in the arena when nobody has anything.
    fn end(&self, when: &str) {
        self.cancel_all().unwrap();
        self.drop_all().unwrap();
        self.core.do_upkeep(self.me()).unwrap();
        self.core.reap(self.me()).unwrap();
        self.core.cancel_older(self.me(), 0).unwrap();
        self.trim().unwrap();
        self.verify(when);
        let stats = self.core.stats(self.me()).unwrap();
        assert_eq!((stats.blocks, stats.tickets), (0, 0), "{when}");
        assert_eq!(stats.processes, 1, "{when}");
        // What is too little to be given back, and the tables.
        let most = self.core.geometry().size + stats.segments * (256 << 10);
        let used = self.ground.used();
        assert!(used <= most, "{when}: {used} bytes for {stats:?}");
    }
}

/// A property: what is there before, and what is done. It may be done again after an error.
struct Property {
    name: &'static str,
    before: fn(&Stage),
    act: fn(&Stage) -> Result<()>,
}

fn nothing(_: &Stage) {}

/// A size that needs a segment of its own.
const MUCH: u64 = 4 << 20;

const PROPERTIES: &[Property] = &[
    Property {
        name: "make",
        before: nothing,
        act: |stage| {
            for bytes in [0, 1, 64, 1000, 5000, 40_000, 100_000] {
                stage.make(bytes)?;
            }
            Ok(())
        },
    },
    Property {
        name: "drop",
        before: |stage| {
            for bytes in [100, 30_000, 100, 70_000, MUCH] {
                stage.make(bytes).unwrap();
            }
        },
        act: |stage| stage.drop_all(),
    },
    Property {
        name: "grow by segments and rows",
        before: nothing,
        act: |stage| {
            stage.make(MUCH)?;
            for _ in 0..40 {
                stage.make(100)?;
            }
            stage.make(3 * MUCH).map(drop)
        },
    },
    Property {
        name: "send, and cancel",
        before: |stage| {
            stage.make(1000).unwrap();
        },
        act: |stage| {
            let which = stage.held.borrow()[0].which;
            // More than one chunk of tickets.
            for _ in 0..40 {
                stage.send(which)?;
            }
            stage.cancel_all()
        },
    },
    Property {
        name: "receive",
        before: nothing,
        act: |stage| {
            // In a segment that this process has not met.
            let sent = stage.ground.elsewhere(End::Leaves, &|core, me| {
                let (which, _) = core.allocate(me, 2 * MUCH).unwrap();
                fill(core, me, which, 77).unwrap();
                let ticket = core.send(me, which).unwrap();
                [
                    which.id.0 as u64,
                    which.generation,
                    ticket.id.0 as u64,
                    ticket.generation,
                ]
            });
            let which = block(sent[0], sent[1]);
            let ticket = TicketRef {
                id: shared_numpy::arena::format::TicketId(sent[2] as u32),
                generation: sent[3],
            };
            stage.sent.borrow_mut().push((which, ticket));
            stage.core.receive(stage.me(), which, Some(ticket))?;
            stage.sent.borrow_mut().pop();
            stage.held.borrow_mut().push(Held { which, byte: 77 });
            Ok(())
        },
    },
    Property {
        name: "be received",
        before: |stage| {
            stage.make(50_000).unwrap();
        },
        act: |stage| {
            let (which, byte) = {
                let held = &stage.held.borrow()[0];
                (held.which, held.byte)
            };
            stage.send(which)?;
            let ticket = stage.sent.borrow().last().unwrap().1;
            let whole = stage.ground.elsewhere(End::Leaves, &|core, me| {
                core.receive(me, which, Some(ticket)).unwrap();
                [is_whole(core, me, which, byte) as u64, 0, 0, 0]
            });
            stage.sent.borrow_mut().pop();
            assert_eq!(whole[0], 1);
            Ok(())
        },
    },
    Property {
        name: "give memory back",
        before: |stage| {
            for bytes in [200_000, 1_000_000, MUCH] {
                stage.make(bytes).unwrap();
            }
            stage.drop_all().unwrap();
        },
        act: |stage| stage.trim(),
    },
    Property {
        name: "use what was given back",
        before: |stage| {
            stage.make(MUCH).unwrap();
            stage.drop_all().unwrap();
            stage.trim().unwrap();
        },
        act: |stage| {
            stage.make(MUCH / 2)?;
            stage.make(MUCH / 4).map(drop)
        },
    },
    Property {
        name: "leave, and come back",
        before: nothing,
        act: |stage| {
            // (Who has failed to leave is none any more.)
            let left = stage.core.leave(stage.me());
            stage.me.set(stage.core.register()?);
            left.map(drop)
        },
    },
    Property {
        name: "reap",
        before: |stage| {
            let killed = stage.ground.elsewhere(End::IsKilled, &|core, me| {
                let kept = core.allocate(me, 300_000).unwrap().0;
                let sent = core.allocate(me, 1000).unwrap().0;
                core.send(me, sent).unwrap();
                core.release(me, sent).unwrap();
                [kept.id.0 as u64, kept.generation, 0, 0]
            });
            let kept = block(killed[0], killed[1]);
            assert!(stage.core.locate(stage.me(), kept).is_ok());
        },
        act: |stage| stage.core.reap(stage.me()).map(drop),
    },
    Property {
        name: "recover",
        before: |stage| {
            stage.make(1000).unwrap();
        },
        act: |stage| {
            // It is killed with the lock in hand.
            stage.ground.elsewhere(End::IsKilled, &|core, me| {
                core.allocate(me, 2 * MUCH).unwrap();
                core.lock_word(me, &core.header().owner).unwrap();
                [0; 4]
            });
            stage.make(70_000).map(drop)
        },
    },
    Property {
        name: "fork",
        before: |stage| {
            stage.make(70_000).unwrap();
        },
        act: |stage| fork(stage, false),
    },
    Property {
        name: "fork without a slot",
        before: |stage| {
            stage.make(70_000).unwrap();
        },
        act: |stage| fork(stage, true),
    },
];

fn block(id: u64, generation: u64) -> BlockRef {
    BlockRef {
        id: shared_numpy::arena::format::BlockId(id as u32),
        generation,
    }
}

/// A child has what its parent had, also when the parent has let go of it.
fn fork(stage: &Stage, pinned: bool) -> Result<()> {
    if stage.held.borrow().is_empty() {
        stage.make(70_000)?;
    }
    let (which, byte) = {
        let held = &stage.held.borrow()[0];
        (held.which, held.byte)
    };
    let dropped = Cell::new(Ok(()));
    let parent = || dropped.set(stage.drop_all());
    let child = |core: &Core, born: Option<Member>| {
        stage.platform.mend();
        let me = born.unwrap_or_else(|| core.register().unwrap());
        assert!(is_whole(core, me, which, byte));
        me
    };
    let forked = stage
        .ground
        .fork(&stage.core, stage.me(), pinned, &parent, &child);
    forked.and(dropped.into_inner())
}

/// ENOSPC, EINTR, ENOSYS and EAGAIN, at once, and ENOSPC and EINTR halfway.
const FATES: [Fate; 6] = [
    Fate::Fails(28),
    Fate::Fails(4),
    Fate::Fails(38),
    Fate::Fails(11),
    Fate::Short(28),
    Fate::Short(4),
];

/// Runs all properties on grounds that `new` makes, without faults.
pub fn without_faults(new: &dyn Fn() -> Box<dyn Ground>) {
    for property in PROPERTIES {
        let ground = new();
        let stage = Stage::new(&*ground);
        (property.before)(&stage);
        (property.act)(&stage).unwrap_or_else(|error| panic!("{}: {error}", property.name));
        stage.verify(property.name);
        stage.end(property.name);
    }
}

/// Which calls fail, and how.
#[derive(Clone, Debug)]
struct Fault {
    /// Those of a kind and a number among the calls of that kind.
    calls: Vec<(Call, u32)>,
    fate: Fate,
    /// All of these kinds that follow fail, too.
    lasts: bool,
}

impl Fault {
    fn fate(&self, call: Call, number: u32) -> Fate {
        let mut calls = self.calls.iter().filter(|(kind, _)| *kind == call);
        match calls.any(|(_, nth)| number == *nth || self.lasts && number > *nth) {
            true => self.fate,
            false => Fate::Made,
        }
    }
}

/// The faults that a property is tried with, by the calls that it makes: each call alone, each
/// two of them, and each kind of call, all of it and together with all others.
fn faults_of(calls: &[(Call, u32)]) -> Vec<Fault> {
    // Where it cannot be asked whether others live, they are waited for.
    let may_last = |(call, _): &(Call, u32)| *call != Call::IsDead;
    let mut groups: Vec<(Vec<(Call, u32)>, bool)> = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        groups.push((vec![*call], false));
        if may_last(call) {
            groups.push((vec![*call], true));
        }
        groups.extend(
            calls[i + 1..]
                .iter()
                .map(|other| (vec![*call, *other], false)),
        );
    }
    let all: Vec<(Call, u32)> = Call::ALL.map(|call| (call, 0)).into();
    groups.push((all.into_iter().filter(may_last).collect(), true));
    let of_group = |(calls, lasts): &(Vec<(Call, u32)>, bool)| {
        FATES.map(|fate| Fault {
            calls: calls.clone(),
            fate,
            lasts: *lasts,
        })
    };
    groups.iter().flat_map(of_group).collect()
}

/// Runs all properties with all faults.
pub fn with_faults(new: &dyn Fn() -> Box<dyn Ground>) {
    let (mut tried, mut told) = (0, 0);
    for property in PROPERTIES {
        let faults = faults_of(&calls_of(property, new));
        for fault in &faults {
            tried += 1;
            told += run(property, new, fault) as usize;
        }
    }
    // Some calls can be done without: more where there are more tables.
    assert!(tried > 200 && told > 130, "{told} of {tried}");
    println!("  {tried} faults, {told} of them told");
}

/// The calls of a property, each with its number among those of its kind.
fn calls_of(property: &Property, new: &dyn Fn() -> Box<dyn Ground>) -> Vec<(Call, u32)> {
    let ground = new();
    let stage = Stage::new(&*ground);
    (property.before)(&stage);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mine = seen.clone();
    stage.platform.decide(move |call| {
        mine.lock().unwrap().push(call);
        Fate::Made
    });
    (property.act)(&stage).unwrap();
    stage.platform.mend();
    stage.end(property.name);
    let mut counts = BTreeMap::new();
    let calls = std::mem::take(&mut *seen.lock().unwrap());
    let number = |call| {
        let count: &mut u32 = counts.entry(call).or_default();
        *count += 1;
        (call, *count - 1)
    };
    calls.into_iter().map(number).collect()
}

/// Runs a property with a fault; whether the operation has told of it.
fn run(property: &Property, new: &dyn Fn() -> Box<dyn Ground>, fault: &Fault) -> bool {
    let when = format!("{}: {fault:?}", property.name);
    let ground = new();
    let stage = Stage::new(&*ground);
    (property.before)(&stage);
    let counts: Mutex<BTreeMap<Call, u32>> = Mutex::default();
    let mine = fault.clone();
    stage.platform.decide(move |call| {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(call).or_default();
        *count += 1;
        mine.fate(call, *count - 1)
    });
    let done = (property.act)(&stage);
    stage.platform.mend();
    let told = match done {
        Ok(()) => false,
        Err(Error::Os { .. } | Error::Full { .. }) => true,
        Err(error) => panic!("{when}: {error}"),
    };
    if property.name == "leave, and come back" && told {
        // It may be no member.
        (property.act)(&stage)
            .or_else(|_| (property.act)(&stage))
            .unwrap();
    }
    stage.verify(&when);
    (property.act)(&stage).unwrap_or_else(|error| panic!("{when}, and after it: {error}"));
    stage.verify(&when);
    stage.end(&when);
    told
}
