//! Attaching: making an arena or opening one, and becoming a member of it.

use super::membership::{Membership, GONE};
use super::objects;
use super::process_arenas::{self, Seat};
use super::registration::Registration;
use super::settings::Settings;
use super::shm_platform::ShmPlatform;
use crate::arena::format::{Expected, Header, NO_TREE};
use crate::arena::handle::Name;
use crate::arena::{Core, Entry};
use crate::error::{Error, Result};
use crate::sys::proc;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How often an arena is looked for that others make or end meanwhile.
const ATTEMPTS: usize = 8;

/// The arena of the name that an identifier gives was made otherwise.
pub(super) const OTHER_IDENTIFIER: Error = Error::Foreign {
    why: "an arena has the name that the identifier gives, and was not made by attach_or_create",
};

/// A number that nobody can guess.
pub fn random_number() -> Result<u64> {
    let mut bytes = [0; 8];
    proc::random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Makes an arena and attaches it, if there is memory for its first segment.
///
/// # Errors
/// As for [`Arena::create`](super::Arena::create).
pub(super) fn create(
    name: Name,
    settings: Settings,
    identifier: Option<[u8; 16]>,
) -> Result<Arc<Membership>> {
    let geometry = settings.geometry();
    geometry.check()?;
    let boot = proc::boot()?;
    let mut uuid = [0; 16];
    proc::random(&mut uuid)?;
    let constants = |header: &Header, lock_file: [u64; 2]| {
        let uuid = u128::from_ne_bytes(uuid);
        header.uuid[0].set(uuid as u64);
        header.uuid[1].set((uuid >> 64) as u64);
        header.uid.set(proc::user());
        header.grace.set(settings.grace);
        header.budget.set(settings.warm);
        header.least.set(settings.least);
        header.longest.set(settings.longest);
        header.lock_file[0].set(lock_file[0]);
        header.lock_file[1].set(lock_file[1]);
        header.boot.set(boot);
        header.registrar.set(settings.tree);
        if let Some(identifier) = identifier {
            header.set_identifier(identifier);
            // A tracker would remove the names while others than its own program's have the arena.
            header.registrar.set(NO_TREE);
        }
    };
    process_arenas::attach_new(|seat| {
        let platform = Arc::new(ShmPlatform::create(name, &geometry)?);
        platform.set_patience(settings.patience);
        platform.set_tree(settings.tree);
        let set = |header: &Header| constants(header, platform.lock_file());
        let made = Core::create(platform.clone(), geometry, set);
        let (core, me) = made.inspect_err(|_| platform.unmake())?;
        // (From now on others may have attached it: the last of them removes it.)
        let seat = seat(platform.memory_file());
        Membership::join(core, me, platform, boot, seat, Entry::Resident)
    })
}

/// Attaches an arena as what `entry` says, or returns the membership that this process has in it
/// already.
///
/// # Errors
/// As for [`Arena::attach`](super::Arena::attach).
pub(super) fn attach(name: Name, patience: u64, entry: Entry) -> Result<Arc<Membership>> {
    let boot = proc::boot()?;
    // What was there after the attempt before.
    let mut before = None;
    for _ in 0..ATTEMPTS {
        let (memory, file) = objects::open_memory(name)?;
        let mut is_new = false;
        let attached = process_arenas::find_or_attach(file, |seat| {
            is_new = true;
            attach_memory(name, memory, seat, boot, patience, None, entry)
        });
        match &attached {
            Err(Error::Foreign { .. }) => (),
            // (It may not have been let in as what it wants to be now.)
            Ok(known) if !is_new && !known.admit(entry)? => return Err(GONE),
            _ => return attached,
        }
        // Another process may have been making it, and be done by now: it is foreign only if it
        // was the same before.
        let now = objects::is_arena(name, file).map(|finished| (file, finished));
        if now.is_some() && now == before {
            return attached;
        }
        before = now;
        std::thread::yield_now();
    }
    Err(GONE)
}

/// Attaches the arena of a memory object, if it has that `identifier`.
pub(super) fn attach_memory(
    name: Name,
    memory: OwnedFd,
    seat: Seat,
    boot: u64,
    patience: u64,
    identifier: Option<[u8; 16]>,
    entry: Entry,
) -> Result<Arc<Membership>> {
    let platform = Arc::new(ShmPlatform::open(name, memory)?);
    platform.set_patience(patience);
    let expected = Expected {
        size: platform.control_size()?,
        uid: proc::user(),
        boot,
        lock_file: platform.lock_file(),
    };
    let core = Core::open(platform.clone(), &expected)?;
    if identifier.is_some() && core.header().identifier() != identifier {
        return Err(OTHER_IDENTIFIER);
    }
    let me = core.register().inspect_err(|error| {
        if matches!(error, Error::Corrupted { .. }) {
            // As a member does that leaves it: nobody can use it.
            let (core, platform) = (&core, &platform);
            Registration { core, platform }.remove_names();
        }
    })?;
    Membership::join(core, me, platform, boot, seat, entry)
}
