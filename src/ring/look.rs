//! A ring as bytes that somebody has read, without having it open.
//!
//! Nothing is locked, so the fields may be of different moments, and none of them is trusted.

use super::base::{self, BodyLook, Numbers, EVENTS};
use super::{frames, messages};

/// How many bytes of a block are enough to tell a ring.
pub const LONGEST_HEAD: usize = frames::HEAD_SIZE;

/// What a ring's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingLook {
    /// The slot of the process that has made it.
    pub maker: u16,
    /// The slot of the process that has its lock.
    pub owner: Option<u16>,
    /// Whether a waiter may be asleep: for something to read, for room, and for all to be done.
    pub waiters: [bool; EVENTS],
    /// What the kind has more.
    pub body: BodyLook,
}

/// Tells what the bytes that a block begins with, at most [`LONGEST_HEAD`], are the head of. None if
/// of no ring.
pub fn look(bytes: &[u8]) -> Option<RingLook> {
    let bytes = Numbers(bytes);
    let body = messages::look(&bytes).or_else(|| frames::look(&bytes))?;
    let (maker, owner, waiters) = base::look(&bytes);
    Some(RingLook {
        maker,
        owner,
        waiters,
        body,
    })
}
