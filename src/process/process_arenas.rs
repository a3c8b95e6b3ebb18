//! The arenas that this process has attached: a list, under one mutex.
//!
//! A process attaches an arena once, however often it is asked to: byte locks belong to processes,
//! and closing a second descriptor of the lock file would drop the locks of the first. So an arena
//! is looked up here before its lock file is opened, and stays listed until its descriptors are
//! closed.
//!
//! The mutex also excludes forks: `forks` locks it before a fork and unlocks it after, in both
//! processes. Whatever must not be half done in a child is done under it.
//!
//! The list knows an arena as [`ForkHooks`]: what `membership` implements, and this file needs to
//! find an arena and to take it through a fork.

use super::life::Life;
use super::wait_hooks::{self, HooksGuard};
use crate::arena::handle::Name;
use crate::arena::{ForkedChild, Member};
use crate::error::Result;
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What tells an attached arena from all others.
pub(super) struct Identity {
    /// The memory object's inode and device.
    pub memory_file: [u64; 2],
    /// The lock file's inode and device.
    pub lock_file: [u64; 2],
    /// The arena's number, which orders the taking of locks before a fork.
    pub uuid: [u64; 2],
}

/// What a forking process has prepared in one arena for its child.
pub(super) struct PreparedFork {
    /// This process's membership; None if it has none to hand over.
    pub me: Option<Member>,
    /// The child's part; None if the arena could not be prepared.
    pub child: Option<ForkedChild>,
    /// The descriptor whose locks show that the child lives.
    pub signs: Option<OwnedFd>,
}

/// An attached arena, as the list and the fork handlers know it.
pub(super) trait ForkHooks: Send + Sync {
    /// What tells it from the others.
    fn identity(&self) -> Identity;

    /// Its seat on the list.
    fn seat(&self) -> &Seat;

    /// This process's sign of life in it, which a child ends.
    fn life(&self) -> Arc<Life>;

    /// Before a fork, with the list locked: takes the arena's lock and prepares the child's part.
    fn prepare_fork(&self) -> PreparedFork;

    /// After it, in the parent: gives back the lock.
    fn resume_parent(&self, prepared: &mut PreparedFork);

    /// After it, in the child: takes over the prepared part. `number` is the child's fork number.
    fn resume_child(&self, prepared: &mut PreparedFork, number: u64);

    /// Itself, for code that knows its type.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The list.
pub(super) struct ProcessArenas {
    entries: Vec<Entry>,
    /// Arenas that this process has left to other members, with its tree: the tree's tracker
    /// removes their names, or the last member does.
    left: Vec<(Name, u64)>,
    /// During a fork: each arena with the child's part in it.
    prepared: Vec<(Arc<dyn ForkHooks>, PreparedFork)>,
}

struct Entry {
    identity: Identity,
    /// Dead from the drop of the last reference until the descriptors are closed.
    arena: Weak<dyn ForkHooks>,
    life: Arc<Life>,
}

static LIST: Mutex<ProcessArenas> = Mutex::new(ProcessArenas {
    entries: Vec::new(),
    left: Vec::new(),
    prepared: Vec::new(),
});

/// The locked list: no arena comes or goes, and no fork happens, meanwhile.
///
/// The thread's wait hooks are called before it is locked, and switched off while it is: a hook
/// could wait for a thread that wants to fork, and that thread waits for the list.
pub(super) struct ListGuard {
    list: MutexGuard<'static, ProcessArenas>,
    _hooks: HooksGuard,
}

impl std::ops::Deref for ListGuard {
    type Target = ProcessArenas;
    fn deref(&self) -> &ProcessArenas {
        &self.list
    }
}

impl std::ops::DerefMut for ListGuard {
    fn deref_mut(&mut self) -> &mut ProcessArenas {
        &mut self.list
    }
}

/// Locks the list.
pub(super) fn lock() -> ListGuard {
    wait_hooks::before_waiting();
    ListGuard {
        list: LIST.lock().unwrap_or_else(PoisonError::into_inner),
        _hooks: wait_hooks::use_hooks(None),
    }
}

impl ProcessArenas {
    fn add<A: ForkHooks + 'static>(&mut self, arena: Arc<A>) -> Result<Arc<A>> {
        arena.seat().taken.store(true, Ordering::Relaxed);
        let weak: Weak<A> = Arc::downgrade(&arena);
        self.entries.push(Entry {
            identity: arena.identity(),
            arena: weak,
            life: arena.life(),
        });
        self.entries.sort_by_key(|entry| entry.identity.uuid);
        Ok(arena)
    }

    /// Whether this process has, or is detaching, an arena of that lock file.
    pub fn has_lock_file(&self, file: [u64; 2]) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.identity.lock_file == file)
    }

    /// Before a fork: prepares the child's part in each arena, in the order of their numbers.
    pub fn prepare_fork(&mut self) {
        let arenas = self.attached();
        let prepared = arenas.into_iter().map(|arena| {
            let prepared = arena.prepare_fork();
            (arena, prepared)
        });
        self.prepared = prepared.collect();
    }

    /// After a fork: each arena with the child's part in it.
    pub fn take_prepared(&mut self) -> Vec<(Arc<dyn ForkHooks>, PreparedFork)> {
        std::mem::take(&mut self.prepared)
    }

    /// In a forked child: an arena that another thread was detaching stays half detached here (but for
    /// the parent's sign of life), and the parent sees to the names of the arenas that it has left.
    pub fn forget_detached(&mut self) {
        self.entries.retain(|entry| {
            let attached = entry.arena.strong_count() > 0;
            if !attached {
                entry.life.end();
            }
            attached
        });
        self.left.clear();
    }

    fn attached(&self) -> Vec<Arc<dyn ForkHooks>> {
        let entries = self.entries.iter();
        entries.filter_map(|entry| entry.arena.upgrade()).collect()
    }
}

/// An attached arena by its type, of which there is one.
fn known<A: ForkHooks + 'static>(arena: Arc<dyn ForkHooks>) -> Option<Arc<A>> {
    arena.into_any().downcast().ok()
}

/// The arena of that number, if this process has attached it.
pub(super) fn find<A: ForkHooks + 'static>(uuid: [u64; 2]) -> Option<Arc<A>> {
    let list = lock();
    let mut entries = list.entries.iter();
    let found = entries.find(|entry| entry.identity.uuid == uuid);
    found
        .and_then(|entry| entry.arena.upgrade())
        .and_then(known)
}

/// The arenas that this process has attached. The list is not locked when this returns.
pub(super) fn all<A: ForkHooks + 'static>() -> Vec<Arc<A>> {
    let arenas = lock().attached();
    arenas.into_iter().filter_map(known).collect()
}

/// The arenas that this process has attached; none if another thread has locked the list.
pub(super) fn all_if_free<A: ForkHooks + 'static>() -> Vec<Arc<A>> {
    let Ok(list) = LIST.try_lock() else {
        return Vec::new();
    };
    let arenas = list.attached();
    // Unlocked first: to drop the last reference to an arena takes the list's lock.
    drop(list);
    arenas.into_iter().filter_map(known).collect()
}

/// The arenas that this process has left to others, each with its tree. None of them is in the
/// list any more.
pub(super) fn take_left() -> Vec<(Name, u64)> {
    std::mem::take(&mut lock().left)
}

/// An arena's seat on the list; dropped after its descriptors are closed.
pub(super) struct Seat {
    file: [u64; 2],
    /// Set when the arena is attached. An attempt that fails is dropped with the list locked, and
    /// must not lock it again.
    taken: AtomicBool,
}

impl Seat {
    fn new(file: [u64; 2]) -> Self {
        Seat {
            file,
            taken: AtomicBool::new(false),
        }
    }

    /// Notes that this process leaves the arena to others.
    pub fn note_left(&self, name: Name, tree: u64) {
        // (An attempt that fails is dropped with the list locked.)
        if self.taken.load(Ordering::Relaxed) {
            let mut list = lock();
            list.left.retain(|(other, _)| *other != name);
            list.left.push((name, tree));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if *self.taken.get_mut() {
            lock()
                .entries
                .retain(|entry| entry.identity.memory_file != self.file);
        }
    }
}

/// Finds an arena that this process has attached by its memory object, or attaches it by
/// `attach`, with the list locked.
pub(super) fn find_or_attach<A: ForkHooks + 'static>(
    file: [u64; 2],
    attach: impl FnOnce(Seat) -> Result<Arc<A>>,
) -> Result<Arc<A>> {
    loop {
        let mut list = lock();
        let mut entries = list.entries.iter();
        let found = entries.find(|entry| entry.identity.memory_file == file);
        match found.map(|entry| entry.arena.upgrade().and_then(known::<A>)) {
            Some(Some(arena)) => return Ok(arena),
            Some(None) => {
                // It is being detached: its descriptors are about to close.
                drop(list);
                std::thread::yield_now();
            }
            None => return list.add(attach(Seat::new(file))?),
        }
    }
}

/// Makes an arena by `make`, which is given a seat for the memory object that it makes, and
/// attaches it, with the list locked.
pub(super) fn attach_new<A: ForkHooks + 'static>(
    make: impl FnOnce(&dyn Fn([u64; 2]) -> Seat) -> Result<Arc<A>>,
) -> Result<Arc<A>> {
    let mut list = lock();
    list.add(make(&Seat::new)?)
}
