//! The arenas of this process, and its forks.
//!
//! A process attaches an arena once, however often it is asked to: byte locks
//! belong to processes, and closing a second descriptor of the lock file would
//! drop those of the first. So an arena is looked up here before its lock file
//! is opened, and stays here until its descriptors are closed.
//!
//! Around a fork the handlers keep this list and the locks of all arenas on it,
//! taken in the order of their numbers, the same in all processes.

use super::membership::{self, Arena, Inner};
use super::orphans;
use super::private_pages;
use super::shm_platform::Shared;
use super::wait_hooks::{self, Told};
use crate::arena::handle::Name;
use crate::arena::{Member, Offspring};
use crate::error::{Error, Result};
use crate::sys::fork::{self, ForkMark};
use crate::sys::proc;
use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long the end of a program waits for its children, in ms.
const CHILDREN: u64 = 500;
/// How long it sleeps between two looks.
const MOMENT: Duration = Duration::from_millis(2);

/// What this process has attached.
pub(super) struct Family {
    members: Vec<Relative>,
    /// Arenas that this process has left to others, whose names its tree is to remove, or nobody
    /// but the last member; and the tree.
    left: Vec<(Name, u64)>,
    /// While a fork is going on: what was prepared.
    pending: Vec<Pending>,
}

struct Relative {
    /// The memory object's inode and device.
    file: [u64; 2],
    /// The lock file's.
    lock_file: [u64; 2],
    /// The arena's number, which orders the taking of locks.
    uuid: [u64; 2],
    arena: Weak<Inner>,
}

struct Pending {
    arena: Arc<Inner>,
    /// This process's part in it; None if it has none to hand over.
    me: Option<Member>,
    /// None if the arena could not be prepared.
    offspring: Option<Offspring>,
    signs: Option<OwnedFd>,
}

static FAMILY: Mutex<Family> = Mutex::new(Family {
    members: Vec::new(),
    left: Vec::new(),
    pending: Vec::new(),
});

/// The list, held from before a fork until after it.
static HELD: AtomicPtr<Held> = AtomicPtr::new(std::ptr::null_mut());

/// Holds the list: no arena comes or goes, and no fork happens, meanwhile.
///
/// The thread's caller is told before, and of nothing more while the list is
/// held: it could wait for a thread that wants to fork, which waits for the list.
pub(super) struct Held {
    family: MutexGuard<'static, Family>,
    _told: Told,
}

impl std::ops::Deref for Held {
    type Target = Family;
    fn deref(&self) -> &Family {
        &self.family
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Family {
        &mut self.family
    }
}

/// Holds the list.
pub(super) fn lock() -> Held {
    wait_hooks::waits();
    Held {
        family: FAMILY.lock().unwrap_or_else(PoisonError::into_inner),
        _told: wait_hooks::tell(None),
    }
}

/// The arena of that number, if this process has attached it.
pub fn find(uuid: [u64; 2]) -> Option<Arena> {
    let family = lock();
    let known = family.members.iter().find(|relative| relative.uuid == uuid);
    known.and_then(|relative| relative.arena.upgrade().map(Arena::from))
}

impl Family {
    fn add(&mut self, arena: Arc<Inner>) -> Result<Arc<Inner>> {
        arena.place().taken.store(true, Ordering::Relaxed);
        self.members.push(Relative {
            file: arena.shared().memory_file(),
            lock_file: arena.shared().lock_file(),
            uuid: arena.uuid(),
            arena: Arc::downgrade(&arena),
        });
        self.members.sort_by_key(|relative| relative.uuid);
        Ok(arena)
    }

    /// Whether this process has, or is detaching, an arena of that lock file.
    pub fn has_lock_file(&self, file: [u64; 2]) -> bool {
        let mut members = self.members.iter();
        members.any(|relative| relative.lock_file == file)
    }
}

/// The arenas that this process has attached. The list is not held when this returns.
fn all_attached() -> Vec<Arc<Inner>> {
    let family = lock();
    let members = family.members.iter();
    members
        .filter_map(|relative| relative.arena.upgrade())
        .collect()
}

/// Has the end of this process's tree remove no names of its arenas any more: its last
/// member does, whatever tree that is of. For a process that is about to leave its tree.
pub fn end_tracking() {
    all_attached().iter().for_each(|arena| arena.end_tracking());
}

/// All arenas that this process has attached.
pub fn all() -> Vec<Arena> {
    all_attached().into_iter().map(Arena::from).collect()
}

/// All arenas that this process has attached; none if another thread is at the list.
pub(super) fn all_if_free() -> Vec<Arena> {
    let Ok(family) = FAMILY.try_lock() else {
        return Vec::new();
    };
    let members = family.members.iter();
    let arenas: Vec<_> = members.filter_map(|each| each.arena.upgrade()).collect();
    // The last reference to an arena wants the list.
    drop(family);
    arenas.into_iter().map(Arena::from).collect()
}

/// Prepares the end of this process: it parts from all its arenas but for the
/// blocks to which it has references. Returns the arenas that stay.
///
/// If the whole program ends, what is in flight in an arena that no other process
/// has is ended, but for what is lasting: nobody will receive it. Children that
/// still have one are waited for, for a moment: whoever ends without a word leaves
/// it to others to tell that the names are gone.
///
/// What cannot be given back in peace is found when the process is gone.
pub fn retire_all(program_ends: bool) -> Vec<Arena> {
    let arenas = all_attached();
    if program_ends {
        // Children that have just been forked to end, or to execute something.
        let end = proc::now() + CHILDREN;
        while arenas.iter().any(|arena| arena.has_children()) && proc::now() < end {
            std::thread::sleep(MOMENT);
        }
    }
    let stays = |arena: &Arc<Inner>| !matches!(arena.retire(program_ends), Ok(true));
    let staying = arenas.into_iter().filter(stays).map(Arena::from).collect();
    if program_ends {
        let left = std::mem::take(&mut lock().left);
        for (name, tree) in left {
            orphans::remove_left(name, tree);
        }
    }
    staying
}

/// An arena's place on the list; dropped after its descriptors are closed.
pub(super) struct Place {
    file: [u64; 2],
    /// Not before the arena is attached: an attempt that fails is dropped while
    /// the list is held.
    taken: AtomicBool,
}

impl Place {
    fn new(file: [u64; 2]) -> Self {
        Place {
            file,
            taken: AtomicBool::new(false),
        }
    }

    /// Notes that this process leaves the arena to others.
    pub fn note_left(&self, name: Name, tree: u64) {
        // (An attempt that fails is dropped while the list is held.)
        if self.taken.load(Ordering::Relaxed) {
            let mut family = lock();
            family.left.retain(|(other, _)| *other != name);
            family.left.push((name, tree));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if *self.taken.get_mut() {
            lock().members.retain(|relative| relative.file != self.file);
        }
    }
}

/// Finds an arena that this process has attached by its memory object, or
/// attaches it by `attach`. Others wait meanwhile.
pub(super) fn find_or_attach(
    file: [u64; 2],
    attach: impl FnOnce(Place) -> Result<Arc<Inner>>,
) -> Result<Arc<Inner>> {
    watch_forks()?;
    loop {
        let mut family = lock();
        let known = family.members.iter().find(|relative| relative.file == file);
        match known.map(|relative| relative.arena.upgrade()) {
            Some(Some(arena)) => return Ok(arena),
            Some(None) => {
                // It is being detached: its descriptors are about to close.
                drop(family);
                std::thread::yield_now();
            }
            None => return family.add(attach(Place::new(file))?),
        }
    }
}

/// Makes an arena by `make`, which is given a place for the memory object that it
/// makes, and attaches it. Others wait meanwhile.
pub(super) fn attach_new(
    make: impl FnOnce(&dyn Fn([u64; 2]) -> Place) -> Result<Arc<Inner>>,
) -> Result<Arc<Inner>> {
    watch_forks()?;
    let mut family = lock();
    family.add(make(&Place::new)?)
}

/// Has the handlers called around forks, from now on.
///
/// It is for whoever loads this code to call, before there are arenas: a fork in
/// another thread while the first is attached would not see to the list, and the
/// child would wait for it for ever.
pub fn watch_forks() -> Result<()> {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    let _family = lock();
    if !WATCHING.load(Ordering::Relaxed) {
        ForkMark::get();
        fork::on_fork(before_fork, after_fork_in_parent, after_fork_in_child)?;
        WATCHING.store(true, Ordering::Relaxed);
    }
    Ok(())
}

extern "C" fn before_fork() {
    let mut family = lock();
    // Before the arenas' locks are taken: it may take a while.
    private_pages::before_fork();
    let arenas: Vec<Arc<Inner>> = family
        .members
        .iter()
        .filter_map(|relative| relative.arena.upgrade())
        .collect();
    family.pending = arenas.into_iter().map(prepare).collect();
    HELD.store(Box::into_raw(Box::new(family)), Ordering::Relaxed);
}

/// Prepares one arena.
fn prepare(arena: Arc<Inner>) -> Pending {
    let mut pending = Pending {
        me: arena.member_now(),
        arena,
        offspring: None,
        signs: None,
    };
    let Some(me) = pending.me else {
        return pending;
    };
    let arena = &pending.arena;
    let keeps = |block| arena.share(block);
    let opened = OnceCell::new();
    let signs = || {
        let open = || arena.shared().open_signs().ok();
        opened.get_or_init(open).as_ref()
    };
    let sign = |slot| signs().is_some_and(|signs| Shared::sign(signs, slot));
    let pin = || signs().is_some_and(Shared::pin);
    pending.offspring = match arena.core().prepare_fork(me, keeps, sign, pin) {
        Ok(offspring) => Some(offspring),
        // This process has left meanwhile: there is nothing to hand over.
        Err(Error::Detached) => None,
        Err(_) => {
            arena.share_all();
            arena.core().freeze(pin());
            None
        }
    };
    pending.signs = opened.into_inner().flatten();
    pending
}

/// Ends the hold of the list and hands out what was prepared.
fn resume(work: impl Fn(&mut Pending), tidy: impl Fn(&mut Family)) {
    let held = HELD.swap(std::ptr::null_mut(), Ordering::Relaxed);
    if held.is_null() {
        return;
    }
    // SAFETY: made by `before_fork` from a box, and taken out once. In a child
    // it is this thread, the one that called fork, that holds the mutex.
    let mut family = *unsafe { Box::from_raw(held) };
    let mut pending = std::mem::take(&mut family.pending);
    pending.iter_mut().for_each(work);
    tidy(&mut family);
    drop(family);
    // Only now: the last reference to an arena wants the list.
    drop(pending);
}

extern "C" fn after_fork_in_parent() {
    private_pages::after_fork();
    let work = |pending: &mut Pending| {
        // While the list is held: no later fork shall inherit these signs.
        drop(pending.signs.take());
        if let (Some(_), Some(me)) = (pending.offspring, pending.me) {
            pending.arena.core().finish_fork(me);
        }
    };
    resume(work, |_| ());
}

extern "C" fn after_fork_in_child() {
    membership::forget_unregistered();
    private_pages::after_fork();
    let number = ForkMark::get().renew();
    let work = |pending: &mut Pending| {
        let signs = pending.signs.take();
        pending.arena.be_born(pending.offspring, number, signs);
    };
    // What another thread was detaching stays half detached here.
    let is_whole = |relative: &Relative| relative.arena.strong_count() > 0;
    resume(work, |family| {
        family.members.retain(is_whole);
        family.left.clear();
    });
}
