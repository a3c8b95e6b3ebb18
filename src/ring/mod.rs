//! Rings: messages and frames between processes, in memory that all of them have.
//!
//! A ring is a block of the arena with a lock of its own, of the arena's kind: a word that
//! names its owner, so that a dead one is found out. What is done under it takes effect by one
//! store; so who dies under it leaves the ring as it was or as it was to be, and the next owner
//! only ends references that nobody finds any more. What does not fit into the ring lies in
//! blocks, for which the ring's own block answers: they end with it, however that comes about.
//!
//! | module     | holds                                                            |
//! |------------|------------------------------------------------------------------|
//! | `base`     | the block, its lock, waiting                                     |
//! | `body`     | where the messages of a ring lie                                 |
//! | `event`    | what is waited for, and the wake-ups for it                      |
//! | `spin`     | looking again and again before sleeping                          |
//! | `frames`   | pieces of memory of one length, filled and looked at in place     |
//! | `messages` | bytes and blocks, from any of its processes to any other, in order |

mod base;
mod body;
pub mod event;
pub mod frames;
pub mod messages;
mod spin;

pub use base::Patience;
