//! Rings of messages and of frames in processes that die, stop and wait.
//!
//! | module    | asks                                                              |
//! |-----------|-------------------------------------------------------------------|
//! | `closing` | what a process that closes a ring while others wait leaves them   |
//! | `faults`  | who is woken, and what becomes of a ring that contradicts itself  |
//! | `frames`  | what is left of a ring of frames after a death at any instruction   |
//! | `history` | whether all that several processes see has one order              |
//! | `soak`    | whether each message comes once, and everybody gets a share       |
//! | `step`    | what is left after a death at any instruction                     |
//! | `storm`   | the same under load, with deaths, halts and forks at random       |

mod closing;
mod faults;
mod frames;
mod history;
mod soak;
mod step;
mod storm;

use crate::run::seed::times;
use crate::Test;
use shared_numpy::arena::format::NIL;
use shared_numpy::process::{Arena, Block};
use shared_numpy::ring::messages::{Item, Messages, Settings, Taken};
use shared_numpy::ring::Patience;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    let all = [
        closing::TESTS,
        faults::TESTS,
        frames::TESTS,
        history::TESTS,
        soak::TESTS,
        step::TESTS,
        storm::TESTS,
    ];
    all.concat()
}

/// A ring whose first body has the least length.
const SMALL: Settings = Settings {
    limit: 0,
    first: 4096,
    longest: 4096,
};

// Events, by their numbers.
const READY: usize = 0;
const ROOM: usize = 1;
const DONE: usize = 2;

/// A message that names itself, and whose bytes follow from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Bytes(u64, usize),
    Block(u64, usize),
}

use Message::{Block as InBlock, Bytes as InBytes};

/// The bytes of a message: its number, its length, and what follows from them.
fn bytes_of(number: u64, length: usize) -> Vec<u8> {
    let head = [number, length as u64].map(u64::to_ne_bytes).concat();
    let rest = (16..length as u64).map(|i| (i * 7 + (i >> 8) + number * 31) as u8);
    head.into_iter().chain(rest).collect()
}

/// The number and length that bytes begin with, if they are whole.
fn number_of(bytes: &[u8]) -> Option<(u64, usize)> {
    let word = |at| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (number, length) = (word(0)?, word(8)? as usize);
    let whole = bytes.get(..length)? == bytes_of(number, length);
    whole.then_some((number, length))
}

/// A message that is about to be put.
enum Ready {
    Bytes(Vec<u8>),
    Block(Block),
}

impl Ready {
    fn new(arena: &Arena, message: Message) -> Self {
        match message {
            InBytes(number, length) => Ready::Bytes(bytes_of(number, length)),
            InBlock(number, length) => {
                let block = arena.allocate(length as u64).unwrap();
                let bytes = bytes_of(number, length);
                // SAFETY: the block is ours, and as long.
                let all = unsafe { std::slice::from_raw_parts_mut(block.bytes().as_ptr(), length) };
                all.copy_from_slice(&bytes);
                Ready::Block(block)
            }
        }
    }

    fn item(&self) -> Item<'_> {
        match self {
            Ready::Bytes(bytes) => Item::Bytes(bytes),
            Ready::Block(block) => Item::Block(block),
        }
    }
}

/// Puts messages for which there is room.
fn put(ring: &Messages, arena: &Arena, messages: &[Message]) {
    let ready: Vec<Ready> = messages
        .iter()
        .map(|each| Ready::new(arena, *each))
        .collect();
    let items: Vec<Item<'_>> = ready.iter().map(Ready::item).collect();
    let count = ring.put(&items, &mut Patience::none()).unwrap();
    assert_eq!(count, messages.len());
}

/// A block's bytes, which nobody writes any more.
fn bytes_in(block: &Block) -> &[u8] {
    // SAFETY: the block is this process's, and so long; who has put it has let go of it.
    unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), block.size() as usize) }
}

/// Which message was taken; it must be whole.
fn read(taken: &Taken) -> Message {
    let found = match taken {
        Taken::Bytes(bytes) => number_of(bytes)
            .filter(|(_, length)| *length == bytes.len())
            .map(|(number, length)| InBytes(number, length)),
        Taken::Block(block) => {
            number_of(bytes_in(block)).map(|(number, length)| InBlock(number, length))
        }
    };
    found.expect("a torn message")
}

/// Takes all that there is.
fn take_all(ring: &Messages) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let taken = ring.take(usize::MAX, &mut Patience::none()).unwrap();
        if taken.is_empty() {
            return all;
        }
        all.extend(taken.iter().map(read));
    }
}

/// A ring's words, by their places in its block: see `ring::base` and `ring::messages`.
struct Words<'a>(&'a Messages);

impl<'a> Words<'a> {
    fn short(&self, byte: usize) -> &'a AtomicU32 {
        let place = self.0.base().block().bytes().as_ptr().wrapping_add(byte);
        // SAFETY: within the ring's block, aligned, which lives as long as the ring.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }

    fn long(&self, byte: usize) -> &'a AtomicU64 {
        let place = self.0.base().block().bytes().as_ptr().wrapping_add(byte);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(place.cast()) }
    }

    /// Whether somebody, dead or alive, has the lock.
    fn is_held(&self) -> bool {
        self.short(64).load(Ordering::SeqCst) != 0
    }

    /// How often an event has happened.
    fn count(&self, which: usize) -> &'a AtomicU32 {
        self.short(128 + 64 * which)
    }

    /// Whether somebody sleeps for it.
    fn mark(&self, which: usize) -> &'a AtomicU32 {
        self.short(132 + 64 * which)
    }

    fn current(&self) -> &'a AtomicU32 {
        self.short(344)
    }

    /// The block that the body in use has of its own.
    fn own_body(&self) -> Option<u32> {
        let both = self.body(0).load(Ordering::SeqCst);
        ((both >> 32) as u32 != NIL).then_some(both as u32)
    }

    /// A word of the row of the body in use.
    fn body(&self, byte: usize) -> &'a AtomicU64 {
        let row = 384 + 64 * self.current().load(Ordering::SeqCst) as usize;
        self.long(row + byte)
    }
}

/// Whether a process or thread of this number sleeps.
fn is_asleep(pid: libc::pid_t) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next();
    state.is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// Waits until `done`, for as long as another process may take.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + crate::run::patience();
    while !done() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}
