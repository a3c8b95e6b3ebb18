//! Orphans: arenas that no process has any more, since their last processes were killed together
//! with the tracker that would have removed the names.

use super::folder;
use super::membership::Arena;
use super::objects::{self, LOCK_SUFFIX};
use super::process_arenas;
use super::remains::Remains;
use crate::arena::handle::Name;
use crate::error::{Error, Result};
use crate::sys::shm;
use std::time::{Duration, SystemTime};

/// How long, in ms, tickets whose senders exited normally wait for a receiver when no process has
/// their arena any more.
const GRACE: u64 = 600_000;
/// How long to wait for the lock of an arena that no process should have, in ms.
const PATIENCE: u64 = 1000;
/// A lock file without an arena that is younger than this may be of one that is
/// being made.
const IN_THE_MAKING: Duration = Duration::from_secs(10);

/// Removes the arenas of this user that no living process has and in which
/// nothing waits for a receiver; returns their names.
///
/// # Errors
/// That the objects cannot be listed. An arena that cannot be looked at is left.
///
/// It looks where arenas are made, and in one more folder.
pub fn remove_orphans(also: Option<&str>) -> Result<Vec<Name>> {
    let mut removed = Vec::new();
    for object in folder::objects(also)? {
        let name = object.strip_suffix(LOCK_SUFFIX).map(Name::new);
        if let Some(Ok(name)) = name {
            if remove_deserted(name, GRACE) {
                removed.push(name);
            }
        }
    }
    Ok(removed)
}

/// Removes one arena if no living process has it, unless a reference waits in it for a receiver that is
/// younger than `kept` ms; whether it is gone.
pub fn remove_deserted(name: Name, kept: u64) -> bool {
    is_deserted(name) && remove(name, kept)
}

/// Removes an arena whose program has ended, unless some process lives that has it;
/// whether it is gone. What waits in it for a receiver goes with it.
pub fn remove_orphan(name: Name) -> bool {
    if is_deserted(name) && !remove(name, 0) {
        // Not finished, or not in order: it was this program's, so no age is asked.
        let list = process_arenas::lock();
        let found = Remains::find(name, |file| list.has_lock_file(file));
        if let Some(remains) = found.filter(|remains| !remains.is_finished()) {
            remains.remove();
        }
    }
    !objects::exists(name)
}

/// Removes the objects of an arena that is damaged, of another version, or of another user, whatever
/// is in them; whether they are gone. They stay if a process has a byte of the lock file.
///
/// A process that closed all its descriptors has no byte of it: the caller has to know that there is
/// none.
///
/// # Errors
/// ENOENT if there is no lock file, so that nothing tells of an arena; that the system refuses it.
pub fn remove_anyway(name: Name) -> Result<bool> {
    let list = process_arenas::lock();
    match Remains::find_any(name, |file| list.has_lock_file(file))? {
        Some(remains) => remains.remove_all(),
        None => Ok(false),
    }
}

/// Whether no process has a byte of the lock file. (A daemon that closed all its
/// descriptors has none either: a process that attaches the arena sees it by its number.)
fn is_deserted(name: Name) -> bool {
    let list = process_arenas::lock();
    let found = Remains::find(name, |file| list.has_lock_file(file));
    found.is_some()
}

/// Removes a deserted arena by attaching and leaving it, which others may do at
/// the same time; whether it is gone. It stays while a reference waits for a receiver
/// that is younger than `kept` ms.
fn remove(name: Name, kept: u64) -> bool {
    match Arena::attach_deserted(name, PATIENCE) {
        Ok(arena) => {
            let _ = arena.end_abandoned(kept, false);
        }
        Err(Error::Corrupted { .. }) => remove_remains(name, true),
        Err(_) => remove_remains(name, false),
    }
    shm::facts_of(&objects::lock_name(name)).is_err()
}

/// Removes an arena that this process has left to others of its tree, if nobody has
/// it any more; and notes that the tree need not.
pub(super) fn remove_left(name: Name, tree: u64) {
    if !is_deserted(name) {
        return;
    }
    if let Ok(arena) = Arena::attach_deserted(name, PATIENCE) {
        // (Without it the tree's tracker removes it, and warns.)
        let _ = arena.set_tree(tree);
        let _ = arena.end_abandoned(0, true);
    }
}

/// Removes names without an arena, or of one that is `corrupted`.
fn remove_remains(name: Name, corrupted: bool) {
    let list = process_arenas::lock();
    let found = Remains::find(name, |file| list.has_lock_file(file));
    let now = SystemTime::now();
    if let Some(remains) = found {
        let age = now.duration_since(remains.modified());
        let old = age.is_ok_and(|age| age >= IN_THE_MAKING);
        // A finished one that cannot be attached is another version's.
        if old && (corrupted || !remains.is_finished()) {
            remains.remove();
        }
    }
}
