//! What the fuzzers call: any bytes, and properties that hold for all of them.
//!
//! The same functions are run by the tests (`tests/core/fuzz.rs`, over the kept
//! corpus and mutations of it) and by `cargo fuzz` where there is a nightly
//! compiler (`fuzz/`).

use shared_numpy::arena::format::{Address, Expected, Geometry, Header, SlotId, MAGIC, PAGE};
use shared_numpy::arena::handle::Handle;
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Extent, Member, TicketRef};
use shared_numpy::error::Error;
use std::time::{Duration, Instant};

/// For how many processes the arenas are made: all have their bits in the rows of blocks, or not.
const SIZES: [u32; 2] = [256, 1024];

/// A property of any bytes.
pub type Target = fn(&[u8]);

/// Each target with its name, which is also that of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("handle", handle),
    ("attach", attach),
    ("metadata", metadata),
];

/// Any bytes are a handle or an error; a handle has the bytes that it came from.
pub fn handle(bytes: &[u8]) {
    if let Ok(handle) = Handle::decode(bytes) {
        assert_eq!(handle.encode(), bytes);
    }
    // Behind the checksum: forged with care.
    let mut forged = bytes.to_vec();
    if forged.len() >= 60 {
        forged[0..3].copy_from_slice(b"SN\x01");
        forged[3] = (forged.len() - 60) as u8;
        let parts = forged[..56].iter().chain(&forged[60..]);
        let sum = parts.fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ *byte as u32).wrapping_mul(0x0100_0193)
        });
        forged[56..60].copy_from_slice(&sum.to_le_bytes());
        if let Ok(handle) = Handle::decode(&forged) {
            assert_eq!(handle.encode(), forged);
            receive_forged(&handle);
        }
    }
}

/// What the tables say to a handle that is well made and names what it likes.
fn receive_forged(handle: &Handle) {
    let (_, core, me) = arena(256);
    let (block, place) = core.allocate(me, 5000).unwrap();
    let ticket = core.send(me, block).unwrap();
    match core.receive(me, handle.block, handle.ticket) {
        Ok(found) => assert_eq!((handle.block, found), (block, place)),
        Err(Error::Stale | Error::BadHandle { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    let _ = core.cancel(me, handle.ticket.unwrap_or(ticket), handle.block);
    assert_eq!(core.check(me).unwrap(), Vec::<String>::new());
}

fn geometry(processes: u32) -> Geometry {
    let mut geometry = Geometry {
        block_shift: 4,
        ticket_shift: 4,
        processes,
        size: 0,
    };
    geometry.size = geometry.data() + 16 * PAGE;
    geometry
}

fn arena(processes: u32) -> (World, Core, Member) {
    let geometry = geometry(processes);
    let world = World::new(1 << 22);
    let (core, me) = Core::create(world.process(0), geometry, |header| {
        header.uuid[0].set(7);
        header.budget.set(1 << 14);
        header.least.set(geometry.size);
        header.longest.set(1 << 30);
    })
    .unwrap();
    (world, core, me)
}

fn expected(core: &Core) -> Expected {
    Expected {
        size: core.geometry().size,
        uid: 0,
        boot: 0,
        lock_file: [0, 0],
    }
}

/// Any bytes in the place of a header are refused or are an arena that can be
/// worked with, in which nothing lies outside of it.
pub fn attach(bytes: &[u8]) {
    for processes in SIZES {
        let (world, core, _) = arena(processes);
        scribble(&core, bytes, 0..std::mem::offset_of!(Header, owner));
        if let Ok(other) = Core::open(world.process(1), &expected(&core)) {
            assert_eq!(other.header().magic.get(), MAGIC);
            work(&world, &other, bytes);
        }
    }
}

/// Bits are flipped in the tables of an arena that is in use: each operation
/// succeeds or reports; none hangs, or gives a block outside of the segments.
pub fn metadata(bytes: &[u8]) {
    for processes in SIZES {
        metadata_of(processes, bytes);
    }
}

fn metadata_of(processes: u32, bytes: &[u8]) {
    let (world, core, me) = arena(processes);
    let mut live = Vec::new();
    for size in [100, 3000, 64, 20_000, 700, 64, 1, 9000] {
        live.push(core.allocate(me, size).unwrap().0);
    }
    for block in live.drain(..).step_by(2) {
        let _ = core.send(me, block);
        let _ = core.release(me, block);
    }
    // Into more than one segment and chunk.
    for _ in 0..20 {
        live.push(core.allocate(me, 40_000).unwrap().0);
    }
    for block in live.iter().step_by(3) {
        core.release(me, *block).unwrap();
    }
    scribble(&core, bytes, 0..core.geometry().data() as usize);
    work(&world, &core, bytes);
}

/// Flips bits: three bytes say where, one which. A short input does little.
fn scribble(core: &Core, bytes: &[u8], range: std::ops::Range<usize>) {
    let base = core.bytes(Extent {
        address: Address::new(0, 0),
        size: core.geometry().size,
    });
    for change in bytes.chunks_exact(4).take(8) {
        let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
        let place = range.start + place % range.len();
        // SAFETY: within the control segment, which is plain memory of ours.
        let byte = unsafe { base.add(place) };
        // SAFETY: as above; nobody else runs.
        let flipped = unsafe { byte.read() } ^ change[3];
        // SAFETY: as above.
        unsafe { byte.write(flipped) };
    }
}

/// Everything a process can do, in an arena that may be damaged.
fn work(world: &World, core: &Core, bytes: &[u8]) {
    let start = Instant::now();
    let Ok(me) = core.register() else {
        return;
    };
    let segments_end = |segment: usize| match segment {
        0 => core.geometry().size,
        _ => 1 << 24,
    };
    let mut live: Vec<BlockRef> = Vec::new();
    let mut sent: Vec<(BlockRef, TicketRef)> = Vec::new();
    for (i, byte) in bytes.iter().chain([0; 30].iter()).take(100).enumerate() {
        let choice = *byte as usize + i;
        match choice % 8 {
            0..=2 => {
                if let Ok((block, place)) = core.allocate(me, (choice * 97 % 9000) as u64) {
                    let segment = place.address.segment();
                    assert!(world.segments().contains(&segment));
                    assert!(place.address.offset() + place.size <= segments_end(segment));
                    live.push(block);
                }
            }
            3 if !live.is_empty() => {
                let block = live.swap_remove(choice % live.len());
                let _ = core.release(me, block);
            }
            4 if !live.is_empty() => {
                let block = live[choice % live.len()];
                if let Ok(ticket) = core.send(me, block) {
                    sent.push((block, ticket));
                }
            }
            5 if !sent.is_empty() => {
                let (block, ticket) = sent.swap_remove(choice % sent.len());
                if let Ok(place) = core.receive(me, block, Some(ticket)) {
                    assert!(world.segments().contains(&place.address.segment()));
                }
            }
            6 => {
                let _ = core.reap(me);
                let _ = core.trim(me, 0);
                let _ = core.do_upkeep(me);
            }
            _ => {
                // As if the last owner of the lock had died.
                let condition = &core.header().condition;
                condition.set(condition.get() | 2);
            }
        }
    }
    let _ = core.stats(me);
    if let Ok(snapshot) = core.snapshot(me) {
        let _ = snapshot.check();
    }
    let sign = |_: SlotId| true;
    if core.prepare_fork(me, |_| true, sign, || true).is_ok() {
        core.finish_fork(me);
    }
    let _ = core.leave(me);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "it took too long"
    );
}
