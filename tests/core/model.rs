//! The arena against a model, on plain memory.
//!
//! Properties, after every step of a random program of several processes:
//!
//! * the checker finds nothing wrong;
//! * the blocks are those of the model, held by whom it says, with as many
//!   tickets; their extents do not overlap and are as long as asked for;
//! * what the model says is stale is stale, and nothing else is;
//! * no life of a row comes back;
//! * what was written to a block is there until the block is freed;
//! * the bytes of blocks and free extents are all the bytes there are;
//! * when everybody is dead or gone and the time of grace is over, the arena is
//!   exactly empty.

use crate::random::random;
use crate::seed::times;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use shared_numpy::arena::format::{
    pages_of, state_word, Expected, Header, SlotId, SlotRow, TicketOwner, RESERVED, SLOTS_AT,
};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::platform::Platform;
use shared_numpy::arena::{BlockRef, Core, Extent, ForkedChild, Member, TicketRef};
use shared_numpy::error::{Error, Exhausted};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::sync::Arc;

pub const GRACE: u64 = 30_000;

use crate::conformance::geometry;

/// A small arena: 16 rows a chunk, so that tables grow early.
pub fn create(world: &World, budget: u64) -> (Core, Member) {
    create_for(world, budget, 256)
}

/// The same for so many processes.
pub fn create_for(world: &World, budget: u64, processes: u32) -> (Core, Member) {
    let geometry = geometry(processes);
    Core::create(world.process(0), geometry, |header: &Header| {
        header.uuid[0].set(7);
        header.grace.set(GRACE);
        header.budget.set(budget);
        header.least.set(geometry.size);
        header.longest.set(1 << 30);
    })
    .unwrap()
}

pub fn open(world: &World, pid: u64) -> Core {
    open_over(world, world.process(pid))
}

/// Opens the arena of a world over a platform, which may be one that a test can disturb.
pub fn open_over(world: &World, platform: Arc<dyn Platform>) -> Core {
    let expected = Expected {
        size: world.control_size(),
        uid: 0,
        boot: 0,
        lock_file: [0, 0],
    };
    Core::open(platform, &expected).unwrap()
}

/// Has the slots from 1 up to `end` be those of children in the making, which are there for good:
/// so the next members get the slots behind them.
pub fn occupy(world: &World, core: &Core, end: u16) {
    let header = core.header();
    let pages = pages_of(SLOTS_AT, end as usize * size_of::<SlotRow>());
    header.pages.set(header.pages.get() | pages);
    for slot in (1..end).map(SlotId) {
        world.set_reserved(slot, true);
        core.slot(slot).state.set(state_word(1, RESERVED));
        header.know_slot(slot);
    }
}

/// A process of the model.
struct Process {
    pid: u64,
    core: Core,
    me: Member,
}

/// A block of the model.
struct ModelBlock {
    asked: u64,
    place: Extent,
    holders: BTreeSet<u64>,
    /// The open tickets: who sent each, and until when it lives.
    tickets: BTreeMap<u32, (TicketRef, ModelOwner)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum ModelOwner {
    Sender(u64),
    Arena,
    Until(u64),
    Block((u32, u64)),
}

struct Model {
    world: World,
    now: u64,
    next_pid: u64,
    processes: Vec<Process>,
    /// Blocks by row and generation.
    blocks: BTreeMap<(u32, u64), ModelBlock>,
    /// The lives of rows that there were: of blocks, and of tickets.
    lives: BTreeSet<(bool, u32, u64)>,
    /// Handles of everything there ever was.
    handles: Vec<(BlockRef, Option<TicketRef>)>,
}

/// What to do next; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Start,
    Allocate(u8, u64),
    Release(u8, u16),
    Send(u8, u16),
    Receive(u8, u16),
    Cancel(u8, u16),
    Transfer(u8, u16, u16),
    Fork(u8, bool),
    Leave(u8),
    Kill(u8),
    Reap(u8),
    Trim(u8, u64),
    Upkeep(u8),
    Pass(u16),
    Recover(u8),
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..300,
        3 => 300u64..20_000,
        2 => 20_000u64..300_000,
        1 => 300_000u64..3_000_000,
        1 => Just(0u64),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = any::<u8>;
    let which = any::<u16>;
    prop_oneof![
        2 => Just(Step::Start),
        12 => (who(), size()).prop_map(|(p, n)| Step::Allocate(p, n)),
        8 => (who(), which()).prop_map(|(p, b)| Step::Release(p, b)),
        6 => (who(), which()).prop_map(|(p, b)| Step::Send(p, b)),
        6 => (who(), which()).prop_map(|(p, b)| Step::Receive(p, b)),
        1 => (who(), which()).prop_map(|(p, b)| Step::Cancel(p, b)),
        3 => (who(), which(), which()).prop_map(|(p, b, k)| Step::Transfer(p, b, k)),
        2 => (who(), any::<bool>()).prop_map(|(p, born)| Step::Fork(p, born)),
        1 => who().prop_map(Step::Leave),
        2 => who().prop_map(Step::Kill),
        2 => who().prop_map(Step::Reap),
        1 => (who(), size()).prop_map(|(p, stay)| Step::Trim(p, stay)),
        2 => who().prop_map(Step::Upkeep),
        2 => any::<u16>().prop_map(Step::Pass),
        2 => who().prop_map(Step::Recover),
    ]
}

impl Model {
    /// Other members than the first one have slots from `slots` on.
    fn new(room: u64, budget: u64, slots: u16) -> Self {
        let world = World::new(room);
        let processes = if slots > 1 { 1024 } else { 256 };
        let (core, me) = create_for(&world, budget, processes);
        occupy(&world, &core, slots);
        Model {
            world,
            now: 0,
            next_pid: 1,
            processes: vec![Process { pid: 0, core, me }],
            blocks: BTreeMap::new(),
            lives: BTreeSet::new(),
            handles: Vec::new(),
        }
    }

    fn start(&mut self) {
        if self.processes.len() >= 6 {
            return;
        }
        let pid = self.next_pid;
        self.next_pid += 1;
        let core = open(&self.world, pid);
        let me = core.register().unwrap();
        self.processes.push(Process { pid, core, me });
    }

    fn who(&self, choice: u8) -> usize {
        choice as usize % self.processes.len()
    }

    fn drop_block_if_unwanted(&mut self, key: (u32, u64)) {
        let block = &self.blocks[&key];
        if !(block.holders.is_empty() && block.tickets.is_empty()) {
            return;
        }
        self.blocks.remove(&key);
        // What it answered for ends with it.
        for other in self.blocks.keys().copied().collect::<Vec<_>>() {
            let Some(block) = self.blocks.get_mut(&other) else {
                continue;
            };
            let before = block.tickets.len();
            let orphan = ModelOwner::Block(key);
            block.tickets.retain(|_, (_, owner)| *owner != orphan);
            if block.tickets.len() < before {
                self.drop_block_if_unwanted(other);
            }
        }
    }

    /// Whether `block` would go if `owner` went, or is it.
    fn hangs_on(&self, block: (u32, u64), owner: (u32, u64)) -> bool {
        block == owner
            || self.blocks[&block].tickets.values().any(
                |(_, kept)| matches!(*kept, ModelOwner::Block(next) if self.hangs_on(next, owner)),
            )
    }

    /// What a reap does: the dead hold nothing, and tickets end in time.
    fn reaped(&mut self) {
        let alive: BTreeSet<u64> = self.processes.iter().map(|p| p.pid).collect();
        let now = self.now;
        for key in self.blocks.keys().copied().collect::<Vec<_>>() {
            let Some(block) = self.blocks.get_mut(&key) else {
                continue;
            };
            block.holders.retain(|pid| alive.contains(pid));
            for (_, owner) in block.tickets.values_mut() {
                if matches!(*owner, ModelOwner::Sender(pid) if !alive.contains(&pid)) {
                    *owner = ModelOwner::Until(now + GRACE);
                }
            }
            block
                .tickets
                .retain(|_, (_, owner)| !matches!(*owner, ModelOwner::Until(end) if end <= now));
            self.drop_block_if_unwanted(key);
        }
    }

    fn reap(&mut self, by: usize) {
        let process = &self.processes[by];
        process.core.reap(process.me).unwrap();
        self.reaped();
    }

    fn handle(&self, choice: u16) -> Option<(BlockRef, Option<TicketRef>)> {
        (!self.handles.is_empty()).then(|| self.handles[choice as usize % self.handles.len()])
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Start => self.start(),
            Step::Allocate(p, asked) => {
                let p = self.who(p);
                // Reaping happens now and then by itself; here, before each.
                self.reap(p);
                let process = &self.processes[p];
                match process.core.allocate(process.me, asked) {
                    Ok((which, place)) => {
                        assert!(place.size >= asked && place.address.0 % 64 == 0);
                        assert!(!self.world.lacks_page(place.address, place.size));
                        let key = (which.id.0, which.generation);
                        let block = ModelBlock {
                            asked,
                            place,
                            holders: [process.pid].into(),
                            tickets: BTreeMap::new(),
                        };
                        self.blocks.insert(key, block);
                        assert!(self.lives.insert((true, key.0, key.1)), "a life came back");
                        self.handles.push((which, None));
                        self.new_is_zero(p, which, place);
                        self.stamp(p, which, place);
                    }
                    Err(Error::Full {
                        what: Exhausted::Space,
                        ..
                    }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Release(p, b) => {
                let p = self.who(p);
                let Some((which, _)) = self.handle(b) else {
                    return;
                };
                let process = &self.processes[p];
                let pid = process.pid;
                let result = process.core.release(process.me, which);
                let key = (which.id.0, which.generation);
                let held = |block: &mut ModelBlock| block.holders.remove(&pid);
                if self.blocks.get_mut(&key).is_some_and(held) {
                    let block = &self.blocks[&key];
                    let freed = block.holders.is_empty() && block.tickets.is_empty();
                    assert_eq!(result, Ok(freed));
                    self.drop_block_if_unwanted(key);
                } else {
                    assert_eq!(result, Err(Error::Stale));
                }
            }
            Step::Send(p, b) => {
                let p = self.who(p);
                let Some((which, _)) = self.handle(b) else {
                    return;
                };
                let process = &self.processes[p];
                let pid = process.pid;
                let result = process.core.send(process.me, which);
                let key = (which.id.0, which.generation);
                // Where no row was left the arena has reaped, which ends tickets in time.
                let has = |id| self.blocks.values().any(|b| b.tickets.contains_key(&id));
                let reaped = match &result {
                    Ok(ticket) => has(ticket.id.0),
                    Err(_) => self.blocks.contains_key(&key),
                };
                if reaped {
                    self.reaped();
                }
                match (self.blocks.get_mut(&key), result) {
                    (Some(block), Ok(ticket)) => {
                        let owner = ModelOwner::Sender(pid);
                        assert!(block.tickets.insert(ticket.id.0, (ticket, owner)).is_none());
                        let life = (false, ticket.id.0, ticket.generation);
                        assert!(self.lives.insert(life), "a life came back");
                        self.handles.push((which, Some(ticket)));
                    }
                    (None, result) => assert_eq!(result, Err(Error::Stale)),
                    (Some(_), result) => panic!("{result:?}"),
                }
            }
            Step::Receive(p, b) => {
                let p = self.who(p);
                let Some((which, ticket)) = self.handle(b) else {
                    return;
                };
                let process = &self.processes[p];
                let result = process.core.receive(process.me, which, ticket);
                let key = (which.id.0, which.generation);
                match self.blocks.get_mut(&key) {
                    Some(block) => {
                        assert_eq!(result, Ok(block.place));
                        block.holders.insert(process.pid);
                        if let Some(ticket) = ticket {
                            let same = block.tickets.get(&ticket.id.0).map(|t| t.0) == Some(ticket);
                            if same {
                                block.tickets.remove(&ticket.id.0);
                            }
                        }
                        self.verify(p, which);
                    }
                    None => assert_eq!(result, Err(Error::Stale)),
                }
            }
            Step::Cancel(p, b) => {
                let p = self.who(p);
                let Some((which, Some(ticket))) = self.handle(b) else {
                    return;
                };
                let process = &self.processes[p];
                let result = process.core.cancel(process.me, ticket, which);
                let key = (which.id.0, which.generation);
                let open = self.blocks.get_mut(&key).is_some_and(|block| {
                    let same = block.tickets.get(&ticket.id.0).map(|t| t.0) == Some(ticket);
                    if same {
                        block.tickets.remove(&ticket.id.0);
                    }
                    same
                });
                assert_eq!(result, Ok(open));
                if open {
                    self.drop_block_if_unwanted(key);
                }
            }
            Step::Transfer(p, b, k) => self.transfer_ownership(p, b, k),
            Step::Fork(p, born) => self.fork(p, born),
            Step::Leave(p) => {
                if self.processes.len() == 1 {
                    return;
                }
                // Who leaves buries the dead first.
                self.reaped();
                let process = self.processes.remove(self.who(p));
                process.core.leave(process.me).unwrap();
                for key in self.blocks.keys().copied().collect::<Vec<_>>() {
                    let Some(block) = self.blocks.get_mut(&key) else {
                        continue;
                    };
                    block.holders.remove(&process.pid);
                    for (_, owner) in block.tickets.values_mut() {
                        if *owner == ModelOwner::Sender(process.pid) {
                            *owner = ModelOwner::Arena;
                        }
                    }
                    self.drop_block_if_unwanted(key);
                }
            }
            Step::Kill(p) => {
                if self.processes.len() > 1 {
                    let process = self.processes.remove(self.who(p));
                    self.world.kill(process.pid);
                    // Its slot may be taken over at any time from now on.
                    self.reap(0);
                }
            }
            Step::Reap(p) => self.reap(self.who(p)),
            Step::Trim(p, stay) => {
                let process = &self.processes[self.who(p)];
                process.core.trim(process.me, stay).unwrap();
            }
            Step::Upkeep(p) => {
                let process = &self.processes[self.who(p)];
                if process.core.is_upkeep_due() {
                    process.core.do_upkeep(process.me).unwrap();
                    // Tickets end in time; of the dead there are none, see `Kill`.
                    self.reaped();
                }
            }
            Step::Pass(ms) => {
                self.world.pass(ms as u64);
                self.now += ms as u64;
            }
            Step::Recover(p) => {
                // As if the lock's last owner had died.
                let process = &self.processes[self.who(p)];
                process.core.header().condition.set(2);
            }
        }
    }

    fn transfer_ownership(&mut self, p: u8, b: u16, k: u16) {
        let process = &self.processes[self.who(p)];
        let (Some((which, Some(ticket))), Some((owner, _))) = (self.handle(b), self.handle(k))
        else {
            return;
        };
        let key = (which.id.0, which.generation);
        let owner_key = (owner.id.0, owner.generation);
        let lives = self.blocks.contains_key(&owner_key);
        // What keeps each other would stay for ever.
        if lives && key != owner_key && self.hangs_on(owner_key, key) {
            return;
        }
        let result = process
            .core
            .transfer_ownership(process.me, ticket, which, owner);
        if !lives {
            assert_eq!(result, Err(Error::Stale));
            return;
        }
        if key == owner_key {
            assert!(matches!(result, Err(Error::Invalid { .. })));
            return;
        }
        let block = self.blocks.get_mut(&key);
        let open = block.and_then(|block| block.tickets.get_mut(&ticket.id.0));
        match open.filter(|(same, _)| *same == ticket) {
            Some((_, ModelOwner::Block(_))) | None => assert_eq!(result, Ok(false)),
            Some((_, kept)) => {
                *kept = ModelOwner::Block(owner_key);
                assert_eq!(result, Ok(true));
            }
        }
    }

    fn fork(&mut self, p: u8, born: bool) {
        if self.processes.len() >= 6 {
            return;
        }
        let p = self.who(p);
        let child = self.next_pid;
        self.next_pid += 1;
        let parent = &self.processes[p];
        let world = self.world.clone();
        let sign = |slot: SlotId| {
            world.set_reserved(slot, true);
            true
        };
        let prepared = parent
            .core
            .prepare_fork(parent.me, |_| true, sign, || panic!("no slot"))
            .unwrap();
        let ForkedChild::Reserved(me) = prepared else {
            panic!()
        };
        parent.core.finish_fork(parent.me);
        if born {
            let core = open(&self.world, child);
            assert!(core.platform().claim(me.slot).unwrap());
            core.take_over_fork(me, true);
            let parent = self.processes[p].pid;
            for block in self.blocks.values_mut() {
                if block.holders.contains(&parent) {
                    block.holders.insert(child);
                }
            }
            self.processes.push(Process {
                pid: child,
                core,
                me,
            });
        }
        self.world.set_reserved(me.slot, false);
        if !born {
            self.reap(p);
        }
    }

    /// Both ends of a block, as words.
    fn ends(&self, p: usize, place: Extent) -> [*mut u64; 2] {
        let first = self.processes[p].core.bytes(place).as_ptr().cast::<u64>();
        [first, first.wrapping_add(place.size as usize / 8 - 1)]
    }

    /// Writes into a block what tells it from all others.
    /// A block that the arena calls new holds zeros at its ends, where others would be stamped.
    fn new_is_zero(&self, p: usize, which: BlockRef, place: Extent) {
        let process = &self.processes[p];
        if process.core.is_new(process.me, which).unwrap() {
            for end in self.ends(p, place) {
                // SAFETY: within the block, aligned, held by process `p`.
                assert_eq!(unsafe { end.read() }, 0);
            }
        }
    }

    fn stamp(&self, p: usize, which: BlockRef, place: Extent) {
        for end in self.ends(p, place) {
            // SAFETY: within the block, aligned, held by process `p`.
            unsafe { end.write(which.generation << 32 | which.id.0 as u64) };
        }
    }

    fn verify(&self, p: usize, which: BlockRef) {
        let block = &self.blocks[&(which.id.0, which.generation)];
        for end in self.ends(p, block.place) {
            // SAFETY: within the block, aligned, held by process `p`.
            let found = unsafe { end.read() };
            assert_eq!(found, which.generation << 32 | which.id.0 as u64);
        }
    }

    /// Compares everything.
    fn compare(&self) {
        let process = &self.processes[0];
        let snapshot = process.core.snapshot(process.me).unwrap();
        assert_eq!(snapshot.check(), Vec::<String>::new());
        let slot_of: BTreeMap<u16, u64> = self
            .processes
            .iter()
            .map(|p| (p.me.slot.0, p.pid))
            .collect();
        let mut seen = 0;
        for copy in snapshot.live() {
            let block = &self.blocks[&(copy.id, copy.generation)];
            let holders: BTreeSet<u64> = copy.holders.iter().map(|s| slot_of[&s.0]).collect();
            assert_eq!(holders, block.holders, "holders of block {}", copy.id);
            assert_eq!(copy.tickets as usize, block.tickets.len());
            assert_eq!(
                (copy.address, copy.size),
                (block.place.address, block.place.size)
            );
            assert!(copy.size >= block.asked);
            seen += 1;
        }
        assert_eq!(seen, self.blocks.len());
        let owners: BTreeMap<u32, (TicketOwner, u64)> = snapshot
            .open()
            .map(|t| (t.id, (t.owner.unwrap(), t.owner_generation)))
            .collect();
        let mut tickets = 0;
        for (id, (_, owner)) in self.blocks.values().flat_map(|block| &block.tickets) {
            match (*owner, owners[id]) {
                (ModelOwner::Sender(pid), (TicketOwner::Sender(slot), _)) => {
                    assert_eq!(slot_of[&slot.0], pid)
                }
                (ModelOwner::Until(a), (TicketOwner::Nobody(b), _)) => assert_eq!(a, b),
                (ModelOwner::Arena, (TicketOwner::Arena, _)) => {}
                (ModelOwner::Block(key), (TicketOwner::Block(id), life)) => {
                    assert_eq!(key, (id.0, life))
                }
                different => panic!("{different:?}"),
            }
            tickets += 1;
        }
        assert_eq!(owners.len(), tickets);
        let (live, free) = snapshot.bytes();
        assert_eq!(live + free, snapshot.capacity());
    }

    /// Everybody but one dies, that one lets go, and time passes.
    fn end(mut self) {
        let last = self.processes.remove(0);
        for process in self.processes.drain(..) {
            self.world.kill(process.pid);
        }
        last.core.reap(last.me).unwrap();
        last.core.leave(last.me).unwrap();
        let me = last.core.register().unwrap();
        self.world.pass(GRACE);
        last.core.reap(me).unwrap();
        last.core.cancel_older(me, 0).unwrap();
        let snapshot = last.core.snapshot(me).unwrap();
        assert_eq!(snapshot.check(), Vec::<String>::new());
        assert_eq!(snapshot.live().count() + snapshot.open().count(), 0);
        assert_eq!(snapshot.bytes(), (0, snapshot.capacity()));
    }
}

/// A process that has left is refused, whoever has its slot by then.
#[test]
fn who_has_left_is_no_member() {
    let world = World::new(1 << 20);
    let (core, me) = create(&world, 0);
    let other = open(&world, 1);
    let stays = other.register().unwrap();
    let block = core.allocate(me, 100).unwrap().0;
    core.leave(me).unwrap();
    assert_eq!(core.allocate(me, 100), Err(Error::Detached));
    assert_eq!(core.release(me, block), Err(Error::Detached));
    let successor = open(&world, 2);
    let next = successor.register().unwrap();
    assert_eq!(next.slot, me.slot);
    let kept = successor.allocate(next, 100).unwrap().0;
    assert_eq!(core.allocate(me, 100), Err(Error::Detached));
    assert_eq!(core.leave(me), Err(Error::Detached));
    assert!(successor.locate(next, kept).is_ok());
    assert_eq!(other.check(stays).unwrap(), Vec::<String>::new());
}

/// Whoever takes the slot of a dead process has nothing of what that had.
#[test]
fn the_slot_of_a_dead_process_is_taken_clean() {
    let world = World::new(1 << 20);
    let (_core, me) = create(&world, 0);
    let mut members = vec![me];
    for pid in 1..256 {
        members.push(open(&world, pid).register().unwrap());
    }
    let full = open(&world, 300).register().err().unwrap();
    assert!(matches!(
        full,
        Error::Full {
            what: Exhausted::Slots,
            ..
        }
    ));
    let dead = open(&world, 7);
    let block = dead.allocate(members[7], 100).unwrap().0;
    let other = dead.allocate(members[7], 100).unwrap().0;
    let ticket = dead.send(members[7], other).unwrap();
    world.kill(7);
    let successor = open(&world, 301);
    let next = successor.register().unwrap();
    assert_eq!(next.slot, members[7].slot);
    assert_eq!(successor.locate(next, block), Err(Error::Stale));
    let snapshot = successor.snapshot(next).unwrap();
    assert_eq!(snapshot.check(), Vec::<String>::new());
    assert!(!snapshot.live().any(|copy| copy.holders.contains(next.slot)));
    // Its message lives on for the time of grace.
    assert!(successor.receive(next, other, Some(ticket)).is_ok());
}

/// A child that has a slot and does not run yet keeps what it has inherited.
#[test]
fn a_child_in_the_making_is_not_buried() {
    let world = World::new(1 << 20);
    let (core, me) = create(&world, 0);
    let block = core.allocate(me, 100).unwrap().0;
    let sign = |slot: SlotId| {
        world.set_reserved(slot, true);
        true
    };
    let prepared = core.prepare_fork(me, |_| true, sign, || panic!("no slot"));
    let Ok(ForkedChild::Reserved(child)) = prepared else {
        panic!()
    };
    core.finish_fork(me);
    core.release(me, block).unwrap();
    assert_eq!(core.reap(me), Ok(0));
    let other = open(&world, 1);
    assert!(other.platform().claim(child.slot).unwrap());
    other.take_over_fork(child, true);
    world.set_reserved(child.slot, false);
    assert!(other.locate(child, block).is_ok());
    assert_eq!(other.check(child).unwrap(), Vec::<String>::new());
}

/// How many random programs run.
const PROGRAMS: u64 = 200;

#[test]
fn the_arena_does_what_the_model_does() {
    random("model::the_arena_does_what_the_model_does", |seed| {
        let config = ProptestConfig {
            cases: times(PROGRAMS) as u32,
            max_shrink_iters: 3000,
            // The run's seed says all.
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
        let room = prop_oneof![Just(0u64), 0u64..20_000_000, Just(1u64 << 30)];
        let budget = prop_oneof![Just(0u64), 0u64..2_000_000, Just(1u64 << 40)];
        // Before, around and far behind the end of those that have their bits in rows.
        let slots = prop_oneof![3 => Just(1u16), 1 => Just(254u16), 1 => Just(1018u16)];
        let steps = proptest::collection::vec(step(), 1..120);
        let result = TestRunner::new_with_rng(config, random).run(
            &(room, budget, slots, steps),
            |(room, budget, slots, steps)| {
                let mut model = Model::new(room, budget, slots);
                for step in &steps {
                    model.step(step);
                    model.compare();
                }
                model.end();
                Ok(())
            },
        );
        if let Err(failure) = result {
            panic!("{failure}");
        }
    });
}
