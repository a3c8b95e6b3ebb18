//! Rows whose place or length is not one: whatever looks at it refuses, and poisons the arena.

use crate::conformance::SIZES;
use crate::model::create_for;
use shared_numpy::arena::format::{Address, ALIGN};
use shared_numpy::arena::plain::World;
use shared_numpy::arena::{BlockRef, Core, Extent, Member, TicketRef};
use shared_numpy::error::{Error, Result};
use std::ptr::NonNull;

/// What looks at the place of a block that is held and in flight.
type Look = fn(&Core, Member, BlockRef, TicketRef) -> Result<()>;

const LOOKS: &[(&str, Look)] = &[
    ("locate", |core, me, block, _| {
        core.locate(me, block).map(drop)
    }),
    ("receive", |core, me, block, ticket| {
        core.receive(me, block, Some(ticket)).map(drop)
    }),
    ("release", |core, me, block, ticket| {
        core.cancel(me, ticket, block)?;
        core.release(me, block).map(drop)
    }),
];

/// The words of a block's row that say where it begins and how long it is, by what they say.
fn words_of(core: &Core, place: Extent) -> NonNull<[u64; 2]> {
    let size = core.geometry().size;
    let base = core.bytes(Extent {
        address: Address::new(0, 0),
        size,
    });
    let found = (0..size as usize / 64).find_map(|row| {
        // SAFETY: within the control segment.
        let words = unsafe { base.add(64 * row + 8) }.cast::<[u64; 2]>();
        // SAFETY: as above; nothing else runs, and rows begin at multiples of 64.
        let is_it = unsafe { words.read() } == [place.address.0, place.size];
        is_it.then_some(words)
    });
    found.expect("a row with this place")
}

#[test]
fn wrong_places_are_refused() {
    let places = |place: Extent, end: u64| {
        let (address, size) = (place.address, place.size);
        [
            (
                "a segment that is not there",
                Address::new(3, address.offset()),
                size,
            ),
            ("a segment that cannot be", Address(!(ALIGN - 1)), size),
            (
                "an end behind the segment's",
                address,
                end - address.offset() + ALIGN,
            ),
            ("an end that is no number", address, !(ALIGN - 1)),
            ("the tables", Address::new(0, ALIGN), size),
            (
                "an odd beginning",
                Address::new(0, address.offset() + 8),
                size,
            ),
            ("an odd length", address, size + 8),
            ("no length", address, 0),
        ]
    };
    for processes in SIZES {
        for (name, look) in LOOKS {
            for wrong in 0..8 {
                let world = World::new(1 << 30);
                let (core, me) = create_for(&world, 1 << 40, processes);
                let (block, place) = core.allocate(me, 1000).unwrap();
                let ticket = core.send(me, block).unwrap();
                let (what, address, size) = places(place, core.geometry().size)[wrong];
                let words = words_of(&core, place);
                // SAFETY: the row's words, see `words_of`; nothing else runs.
                unsafe { words.write([address.0, size]) };
                let error = look(&core, me, block, ticket);
                assert!(
                    matches!(error, Err(Error::Corrupted { .. })),
                    "{name} of {what}: {error:?}"
                );
                // Nothing works any more.
                assert!(core.allocate(me, 64).is_err(), "{name} of {what}");
            }
        }
    }
}
