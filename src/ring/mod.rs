//! Rings: messages and frames between processes, in blocks of the arena.
//!
//! A ring is a block of the arena with a lock of its own. The lock is of the arena's kind, a word
//! that names its owner, so that other processes can find out that the owner is dead. Each
//! operation under it takes effect by one store: a process that dies under the lock leaves the ring
//! either as it was or as it was to be, and the next owner only ends references that no message
//! has any more. What does not fit into the ring lies in other blocks. The ring's block owns their
//! tickets, so they end with the ring, however it ends.
//!
//! The files, from the bottom to the top:
//!
//! | module     | holds                                                              |
//! |------------|--------------------------------------------------------------------|
//! | `event`    | what waiters wait for, and their wake-ups                          |
//! | `spin`     | whether and how long a waiter spins before it sleeps               |
//! | `base`     | what both kinds have: the block, its lock, waiting                 |
//! | `body`     | where the messages of a ring lie                                   |
//! | `frames`   | pieces of memory of one length, filled and read in place           |
//! | `messages` | bytes and blocks, from any process to any other, in order          |
//! | `look`     | a ring as bytes that somebody has read                             |

mod base;
mod body;
pub mod event;
pub mod frames;
mod look;
pub mod messages;
mod spin;

pub use base::{BodyLook, Patience};
pub use look::{look, RingLook, LONGEST_HEAD};
