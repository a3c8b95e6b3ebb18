//! Space in shared memory: giving memory back before an error says that it is full.
//!
//! Free memory keeps its pages for a while, for quick reuse. Where memory is short others may
//! need it: another arena of this process, a segment, another program. So before an error is
//! raised this process gives back the free memory of its arenas, and then has the other arenas of
//! its user do the same, which it attaches for the moment.

use super::attaching;
use super::folder;
use super::membership::Membership;
use super::objects::{self, LOCK_SUFFIX};
use super::process_arenas;
use crate::arena::handle::Name;
use crate::arena::Entry;
use crate::error::{Error, Result};
use crate::sys::{cgroup, proc, shm};
use std::sync::Arc;

/// How long, in ms, the arenas of others are looked at in all.
const PATIENCE: u64 = 500;

/// Gives back the memory that the arenas of this user have and do not use: first this
/// process's, then those of others that can be had without waiting. Nothing if `asked` bytes are
/// more than there can ever be.
///
/// # Errors
/// `Interrupted` if the thread is told to give up. What cannot be given back stays.
pub fn make(asked: u64) -> Result<()> {
    if matches!(shm::room_in(&place()), Ok(Some(room)) if room.all < asked) {
        return Ok(());
    }
    for arena in process_arenas::all::<Membership>() {
        trim(&arena)?;
    }
    let end = proc::now() + PATIENCE;
    for object in folder::objects(None).unwrap_or_default() {
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
        if let Ok(arena) = attaching::attach(name, 0, Entry::Caretaker) {
            trim(&arena)?;
        }
    }
    Ok(())
}

/// The folder in which this process makes arenas by default.
fn place() -> String {
    let chosen = folder::of_environment().ok().flatten();
    chosen.unwrap_or_else(|| shm::FOLDER.to_owned())
}

/// How much shared memory is left, in words: in its folder, by the memory limit of a control group
/// where that is less, and in the arenas of this process.
pub fn situation() -> String {
    let mut parts = Vec::new();
    let place = place();
    let room = shm::room_in(&place).ok().flatten();
    if let Some(shm::Room { all, free }) = room {
        parts.push(format!("{place} has {free} of {all} bytes free"));
    }
    let free = room.map_or(u64::MAX, |room| room.free);
    if let Some(memory) = cgroup::memory().filter(|memory| *memory < free) {
        parts.push(format!(
            "the memory limit of this process's control group leaves {memory} bytes (docker run \
             --memory, or resources.limits.memory of Kubernetes)"
        ));
    }
    for arena in process_arenas::all_if_free::<Membership>() {
        let (used, free) = arena.core.usage();
        let name = arena.platform.name();
        let name = name.as_str();
        parts.push(format!(
            "arena {name} has {used} bytes in use and {free} free"
        ));
    }
    parts.push(
        "SHARED_NUMPY_ARENA=segment=SIZE,warm=SIZE bounds what arenas take ahead of need, and \
         what they keep"
            .to_owned(),
    );
    parts.join("; ")
}

/// Whether there is an arena of this user that this process does not have.
fn is_of_others(name: Name) -> bool {
    let Ok(facts) = shm::facts_of(&objects::lock_name(name)) else {
        return false;
    };
    facts.uid == proc::user() && !process_arenas::lock().has_lock_file(facts.file())
}

fn trim(arena: &Arc<Membership>) -> Result<()> {
    loop {
        let trimmed = arena.member().and_then(|me| match arena.trim(me) {
            // A signal's handler has forked, and this is the child: see `operation`.
            Err(Error::Interrupted) if arena.is_no_more(me) => Ok(None),
            trimmed => trimmed.map(Some),
        });
        match trimmed {
            Ok(None) => continue,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            _ => return Ok(()),
        }
    }
}
