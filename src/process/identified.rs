//! The arena of an identifier: attached if it is in use, made if not, whatever other processes do.
//!
//! The identifier stands in the header, and gives the arena's name, so that to look for it is to open a
//! file. Its two objects decide between processes that look at once:
//!
//! * Of processes that make it one makes the lock file; to the others it exists already. It can be
//!   attached when its magic number is there, which is written last.
//! * While it has its names, no process can make another one. It loses them only after it was marked as
//!   unlinked, under its lock: by its last member, or by a process that came here and found no living
//!   resident (see `arena::residents`). No process becomes a resident after that.
//! * No tracker removes its names, since that would not ask whether others have it.
//!
//! So at any time one arena of an identifier at most has residents that come and stay, and each process
//! that comes gets that one. What killed processes left, at whatever step, the next one that comes puts
//! right: here, or in `orphans`.

use super::attaching::{self, OTHER_IDENTIFIER};
use super::membership::Membership;
use super::objects::{self, is_remnant, lock_name, memory_name, memory_of, Memory};
use super::process_arenas;
use super::remains::Remains;
use super::settings::Settings;
use super::wait_hooks;
use crate::arena::handle::Name;
use crate::arena::Entry;
use crate::error::{Error, Result};
use crate::sys::{self, proc, shm};
use std::sync::Arc;
use std::time::Duration;

/// How long to sleep while another process makes or ends the arena.
const MOMENT: Duration = Duration::from_millis(1);

/// Something else has the name that the identifier gives.
const NO_ARENA: Error = Error::Foreign {
    why: "a file that is no arena of this user has the name that the identifier gives",
};

/// A file's inode and device.
type File = [u64; 2];

/// What is under the arena's names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing that a process could attach, as of a moment ago.
    Nothing,
    /// An arena that has its magic number, by its memory.
    Arena(File),
    /// What a process leaves that makes or ends an arena, and is at it or was killed; by its lock file.
    Begun(File),
    /// Other objects: no arena of this lock file.
    Other(File),
}

fn file(object: &std::ffi::CStr) -> Option<File> {
    shm::facts_of(object).ok().map(|facts| facts.file())
}

/// What is there; None if that changes while it is looked at.
///
/// # Errors
/// That it cannot be told now.
fn look(name: Name) -> Result<Option<Found>> {
    let seen = || (file(&lock_name(name)), file(&memory_name(name)));
    let before = seen();
    let found = match before {
        (None, None) => Found::Nothing,
        (None, Some(_)) if is_remnant(name)? => Found::Nothing,
        (None, Some(memory)) => Found::Other(memory),
        (Some(lock), memory) => match (memory_of(name, lock)?, memory) {
            (Memory::Arena { finished: true }, Some(memory)) => Found::Arena(memory),
            (Memory::Other, Some(memory)) => Found::Other(memory),
            _ => Found::Begun(lock),
        },
    };
    Ok((seen() == before).then_some(found))
}

/// Attaches the arena of an identifier that has residents, or makes it.
///
/// # Errors
/// As for [`Arena::attach_or_create`](super::Arena::attach_or_create).
pub(super) fn attach_or_create(
    name: Name,
    identifier: [u8; 16],
    settings: Settings,
) -> Result<Arc<Membership>> {
    let end = proc::now().saturating_add(settings.patience);
    // What was there at the look before, and how the attempt after it failed.
    let mut before: (Option<Found>, Option<Error>) = (None, None);
    loop {
        let found = look(name)?;
        let unchanged = found.is_some() && found == before.0;
        if let (true, Some(error)) = (unchanged, before.1) {
            // No other process had to do with it.
            return Err(error);
        }
        let result = match found {
            Some(Found::Nothing) => attaching::create(name, settings, Some(identifier)).map(Some),
            Some(Found::Begun(lock)) => {
                if unchanged {
                    // (Its maker may not have locked its lock file yet: it finds that it is gone,
                    // and begins again.)
                    remove_begun(name, lock);
                }
                Ok(None)
            }
            Some(Found::Arena(_)) => attach(name, identifier, settings.patience),
            Some(Found::Other(_)) => Err(NO_ARENA),
            None => Ok(None),
        };
        before = match result {
            Ok(Some(membership)) => return Ok(membership),
            Ok(None) => (found, None),
            Err(Error::Os { errno, .. }) if errno == sys::EEXIST => (None, None),
            // (An arena that was overwritten has lost its names by now: see `settle_names`.)
            Err(
                error @ (Error::Foreign { .. }
                | Error::OtherVersion { .. }
                | Error::Corrupted { .. }),
            ) => (found, Some(error)),
            // What was there has gone, or the folder is missing.
            Err(error @ Error::Os { errno, .. }) if errno == sys::ENOENT => match found {
                Some(Found::Arena(_)) => (None, None),
                _ => (found, Some(error)),
            },
            Err(error) => return Err(error),
        };
        if proc::now() >= end {
            return Err(busy(name, settings.patience));
        }
        wait_hooks::before_waiting();
        if wait_hooks::gives_up() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(MOMENT);
    }
}

/// Attaches the arena as a resident; None if it has lost its names by now.
fn attach(name: Name, identifier: [u8; 16], patience: u64) -> Result<Option<Arc<Membership>>> {
    let boot = proc::boot()?;
    let (memory, file) = objects::open_memory(name)?;
    let attached = process_arenas::find_or_attach(file, |seat| {
        attaching::attach_memory(
            name,
            memory,
            seat,
            boot,
            patience,
            Some(identifier),
            Entry::Resident,
        )
    })?;
    if attached.core.header().identifier() != Some(identifier) {
        return Err(OTHER_IDENTIFIER);
    }
    // (This process may have had it, not as a resident.)
    Ok(attached.admit(Entry::Resident)?.then_some(attached))
}

/// Removes an arena that a dead process had begun, by its lock file; not what a process has a lock on.
fn remove_begun(name: Name, lock: File) {
    let list = process_arenas::lock();
    let found = Remains::find(name, |file| list.has_lock_file(file));
    if let Some(remains) = found.filter(|found| found.file() == lock) {
        remains.remove(false);
    }
}

/// The error that another process has been making or ending the arena for long.
fn busy(name: Name, waited: u64) -> Error {
    let list = process_arenas::lock();
    let ours = |file: File| list.has_lock_file(file);
    let owner = Remains::owner(name, ours).unwrap_or(0);
    Error::Busy {
        pid: owner,
        seconds: (waited / 1000) as u32,
    }
}
