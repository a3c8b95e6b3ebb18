//! Room: what is given back before shared memory is said to be full.
//!
//! Free memory keeps its pages for a while, for quick reuse. Where memory is short others may
//! need it: another arena of this process, a segment, another program. So before an error is
//! raised this process gives back what its arenas have and do not use, and then has the other
//! arenas of its user do the same, which it joins for the moment.

use super::attached::Arena;
use super::family;
use super::shared::{self, LOCK_SUFFIX};
use crate::arena::handle::Name;
use crate::error::{Error, Result};
use crate::sys::{proc, shm};

/// How long, in ms, the arenas of others are looked at in all.
const PATIENCE: u64 = 500;

/// Gives back the memory that the arenas of this user have and do not use: first this
/// process's, then those of others that can be had without waiting. Nothing if `asked` bytes are
/// more than there can ever be.
///
/// # Errors
/// `Interrupted` if the thread is told to give up. What cannot be given back stays.
pub fn make(asked: u64) -> Result<()> {
    if matches!(shm::room_of_all(), Ok(Some(room)) if room.all < asked) {
        return Ok(());
    }
    for arena in family::all() {
        trim(&arena)?;
    }
    let end = proc::now() + PATIENCE;
    for object in shm::names().unwrap_or_default() {
        let Some(Ok(name)) = object.strip_suffix(LOCK_SUFFIX).map(Name::new) else {
            continue;
        };
        if proc::now() >= end {
            break;
        }
        if !is_of_others(name) {
            continue;
        }
        // (Without patience for its lock, which others may keep. If all its slots are taken, or
        // it is being made or ended, it is left alone.)
        if let Ok(arena) = Arena::attach(name, 0) {
            trim(&arena)?;
        }
    }
    Ok(())
}

/// Whether there is an arena of this user that this process does not have.
fn is_of_others(name: Name) -> bool {
    let Ok(facts) = shm::facts_of(&shared::lock_name(name)) else {
        return false;
    };
    facts.uid == proc::user() && !family::lock().has_lock_file(facts.file())
}

fn trim(arena: &Arena) -> Result<()> {
    match arena.trim() {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        _ => Ok(()),
    }
}
