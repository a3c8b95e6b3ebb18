//! Orphans: arenas that no process has any more, since their last processes were killed together
//! with the tracker that would have removed the names.
//!
//! One rule, [`judge`], says which of them go: for a program that starts, for `clean`, and for a
//! `clean` that only says what it would do.
//!
//! | what no process has a lock on                              | goes                         |
//! |------------------------------------------------------------|------------------------------|
//! | an arena in order                                          | unless a reference waits     |
//! | one that is damaged, of this format and by its header      | the same; its data are lost, |
//! | of the lock file beside it                                 | and only its memory is left  |
//! | one that was half made or half removed                     | after ten seconds            |
//! | one of another version of the package, or of another build | never                        |
//! | a lock file of which the memory beside it does not tell    | never: it was replaced, or   |
//! |                                                            | the header was overwritten   |
//! | files of another user, or for others to write to           | never                        |

use super::folder;
use super::look;
use super::membership::Arena;
use super::objects::{self, LOCK_SUFFIX};
use super::process_arenas;
use super::remains::Remains;
use crate::arena::format::TicketOwner;
use crate::arena::handle::Name;
use crate::arena::image::{Image, Kind};
use crate::error::{Error, Result};
use crate::sys::{self, proc, shm};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

/// How long, in ms, tickets whose senders exited normally wait for a receiver when no process has
/// their arena any more.
const GRACE: u64 = 600_000;
/// How long to wait for the lock of an arena that no process should have, in ms.
const PATIENCE: u64 = 1000;
/// A lock file without an arena that is younger than this may be of one that is
/// being made.
const IN_THE_MAKING: Duration = Duration::from_secs(10);

/// What is to become of an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes: no process has it, and it is in order.
    Orphan,
    /// It goes: no process has it, and it is damaged, half made or half removed.
    Remains,
    /// It stays: a process has it.
    InUse,
    /// It stays: it may be in the making.
    Young,
    /// It stays: so many references wait for a receiver.
    Awaited(usize),
    /// It stays until the user says otherwise, since of this nobody knows what it is.
    Unclear(String),
}

impl Verdict {
    /// Whether the arena goes.
    pub fn goes(&self) -> bool {
        matches!(self, Verdict::Orphan | Verdict::Remains)
    }
}

/// Says what is to become of an arena; None if there is none. References that are younger than `kept`
/// ms, and that nobody has received, keep it. Nothing is changed.
pub fn judge(name: Name, kept: u64) -> Option<Verdict> {
    let list = process_arenas::lock();
    judge_and_open(name, kept, |file| list.has_lock_file(file)).map(|(verdict, _)| verdict)
}

/// [`judge`], and the lock file if no process has a lock on it.
fn judge_and_open(
    name: Name,
    kept: u64,
    is_ours: impl Fn([u64; 2]) -> bool,
) -> Option<(Verdict, Option<Remains>)> {
    let stays = |why: &str| Some((Verdict::Unclear(why.to_owned()), None));
    let remains = match Remains::find_any(name, is_ours) {
        Ok(Some(remains)) => remains,
        Ok(None) => return Some((Verdict::InUse, None)),
        Err(Error::Os { errno, .. }) if errno == sys::ENOENT => {
            return match shm::facts_of(&objects::memory_name(name)) {
                Ok(_) => stays("its lock file is gone"),
                Err(_) => None,
            };
        }
        Err(_) => return stays("its lock file may not be opened"),
    };
    let verdict = match remains.is_as_made() {
        true => judge_memory(name, kept, &remains),
        false => Verdict::Unclear(
            "its lock file is not as this user's programs make them: empty, of mode 600".to_owned(),
        ),
    };
    Some((verdict, Some(remains)))
}

/// Judges the memory beside a lock file on which no process has a lock.
fn judge_memory(name: Name, kept: u64, remains: &Remains) -> Verdict {
    let age = SystemTime::now().duration_since(remains.modified());
    let young = age.is_ok_and(|age| age < IN_THE_MAKING);
    let half_made = if young {
        Verdict::Young
    } else {
        Verdict::Remains
    };
    let memory = match objects::open_memory(name) {
        Ok((memory, _)) => memory,
        Err(Error::Os { errno, .. }) if errno == sys::ENOENT => return half_made,
        Err(Error::Foreign { why }) => return Verdict::Unclear(why.to_owned()),
        Err(_) => return Verdict::Unclear("its memory may not be opened".to_owned()),
    };
    let Ok(image) = look::read(memory.as_fd()) else {
        return Verdict::Unclear("its memory may not be read".to_owned());
    };
    if image.lock_file != remains.file() {
        return match young {
            // (The number is written after the memory was made.)
            true => Verdict::Young,
            false => Verdict::Unclear(
                "its memory does not tell of the lock file beside it: one of the two was replaced or \
                 overwritten"
                    .to_owned(),
            ),
        };
    }
    match image.kind {
        Kind::Unfinished => half_made,
        Kind::Other => Verdict::Unclear("its memory does not begin as an arena's".to_owned()),
        Kind::OtherVersion(version) => Verdict::Unclear(format!(
            "it was made by another version of the package, in format {version}"
        )),
        Kind::OtherBuild => {
            Verdict::Unclear("it was made by another build of the package".to_owned())
        }
        Kind::Damaged(_) => Verdict::Remains,
        Kind::Arena if image.uid != proc::user() || proc::boot() != Ok(image.boot) => {
            Verdict::Unclear(
                "it was made by another user, or before the machine was started".to_owned(),
            )
        }
        Kind::Arena if image.poisoned => Verdict::Remains,
        Kind::Arena => match (awaited(&image, kept), image.odd.is_empty()) {
            (0, true) => Verdict::Orphan,
            (0, false) => Verdict::Remains,
            (count, _) => Verdict::Awaited(count),
        },
    }
}

/// How many references wait for a receiver for less than `kept` ms.
fn awaited(image: &Image, kept: u64) -> usize {
    let now = proc::now();
    let waits = |opened: u64, owner: TicketOwner| match owner {
        // A block's, which goes with the block.
        TicketOwner::Block(_) => false,
        TicketOwner::Arena => now.saturating_sub(opened) < kept,
        TicketOwner::Sender(_) | TicketOwner::Nobody(_) => {
            now.saturating_sub(opened) < kept.min(image.grace)
        }
    };
    // (None is of the future but in tables that were overwritten.)
    let tickets = image.tickets.iter().filter(|ticket| ticket.opened <= now);
    tickets
        .filter(|ticket| waits(ticket.opened, ticket.owner))
        .count()
}

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
            let goes = remove_deserted(name, GRACE).is_some_and(|verdict| verdict.goes());
            if goes && shm::facts_of(&objects::lock_name(name)).is_err() {
                removed.push(name);
            }
        }
    }
    Ok(removed)
}

/// Removes one arena, if that is what [`judge`] says, and returns what that says.
pub fn remove_deserted(name: Name, kept: u64) -> Option<Verdict> {
    let verdict = judge(name, kept);
    if verdict.as_ref().is_some_and(Verdict::goes) {
        remove(name, kept);
    }
    verdict
}

/// Removes an arena whose program has ended, unless some process lives that has it;
/// whether it is gone. What waits in it for a receiver goes with it.
pub fn remove_orphan(name: Name) -> bool {
    if is_deserted(name) && !remove(name, 0) {
        // Not finished, or not in order: it was this program's, so no age is asked.
        let list = process_arenas::lock();
        let found = Remains::find(name, |file| list.has_lock_file(file));
        if let Some(remains) = found {
            remains.remove(false);
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
        Err(error) => remove_remains(name, kept, matches!(error, Error::Corrupted { .. })),
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

/// Removes what cannot be attached, if it still is what goes: names without an arena, and an arena
/// that is damaged, as can be seen from outside or as attaching it has shown (`corrupted`).
fn remove_remains(name: Name, kept: u64, corrupted: bool) {
    let list = process_arenas::lock();
    let found = judge_and_open(name, kept, |file| list.has_lock_file(file));
    if let Some((verdict, Some(remains))) = found {
        if verdict == Verdict::Remains || corrupted && verdict.goes() {
            remains.remove(true);
        }
    }
}
