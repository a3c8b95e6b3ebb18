//! Registration: which process removes an arena's names.
//!
//! The header's word `registrar` has the number of a tree of processes. Its resource tracker
//! removes the names when the whole tree has ended, unless it is told before that it need not.
//! The word is 0 where no tracker does, and [`NO_TREE`] where none
//! ever shall. While a process of the tree is about to tell the tracker, the word has the bit
//! [`ENDING`]: another tree waits for that before it registers the same names.
//!
//! The tracker is told by the package in Python. So a thread notes here which names it has ended
//! the registration of, and its caller asks for them with [`unregistered`].

use super::names::Patience;
use super::shm_platform::ShmPlatform;
use crate::arena::format::{ENDING, NO_TREE};
use crate::arena::handle::Name;
use crate::arena::{Core, Detachment};
use crate::error::{Error, Result};
use std::cell::RefCell;

thread_local! {
    /// Arenas that this thread has ended the registration of. They are noted per thread, so that
    /// the thread that has ended it tells, and no fork in another thread doubles it.
    static UNREGISTERED_NAMES: RefCell<Vec<Name>> = const { RefCell::new(Vec::new()) };
}

/// The arenas whose names the tracker of this process's tree need not remove any more, by what
/// this thread has done since it last asked.
#[inline]
pub fn unregistered() -> Vec<Name> {
    UNREGISTERED_NAMES.with(RefCell::take)
}

/// In a forked child: the parent tells the tracker.
pub(super) fn forget_unregistered() {
    drop(unregistered());
}

/// The names of one arena, as this process may remove or register them.
pub(super) struct Registration<'a> {
    pub core: &'a Core,
    pub platform: &'a ShmPlatform,
}

impl Registration<'_> {
    /// Removes the names, if that is up to this process, and notes whether its
    /// tree has to be told that it need not. True if the names should be gone and are not: the process
    /// has changed its user or its root, the lock file was removed by hand, or another process that is
    /// at the names is stopped.
    pub fn settle_names(&self, detached: &Result<Detachment>) -> bool {
        let mut names_stay = false;
        match detached {
            Ok(detachment) => {
                if detachment.last {
                    names_stay = !self.platform.unlink(Patience::Some);
                }
                if detachment.unregisters {
                    self.note_unregistered();
                }
            }
            // Nobody can use an arena that was overwritten.
            Err(Error::Corrupted { .. }) => self.remove_names(),
            Err(_) => {}
        }
        names_stay
    }

    /// Gives back the memory of an arena whose names stay, unless somebody may have blocks: a process
    /// that has detached and lives on, one that comes and does not know yet that it is too late, or a
    /// child that got no slot.
    pub fn empty(&self) {
        if !self.core.may_be_in_use() {
            self.platform.empty(self.core.geometry().data());
        }
    }

    /// Registers the names with a tree, if no other has them; whether it did.
    pub fn begin(&self, tree: u64) -> bool {
        tree != 0 && self.core.header().registrar.swap_if(0, tree).is_ok()
    }

    /// Notes that this process's tree has been told.
    pub fn end(&self) {
        let tree = self.platform.tree();
        let registrar = &self.core.header().registrar;
        let _ = registrar.swap_if(tree | ENDING, 0);
    }

    /// Has no tree's tracker remove the names, now and later. Whether this process's tree
    /// has to be told is noted.
    pub fn end_tracking(&self) {
        let tree = self.platform.tree();
        let registrar = &self.core.header().registrar;
        if tree != 0 && registrar.swap_if(tree, NO_TREE).is_ok() {
            self.note_unregistered();
        }
    }

    /// Removes the names, which no tree's tracker has to do any more.
    pub fn remove_names(&self) {
        self.platform.unlink(Patience::None);
        let tree = self.platform.tree();
        let registrar = &self.core.header().registrar;
        if tree != 0 && registrar.swap_if(tree, 0).is_ok() {
            self.note_unregistered();
        }
    }

    fn note_unregistered(&self) {
        let name = self.platform.name();
        UNREGISTERED_NAMES.with(|names| names.borrow_mut().push(name));
    }
}
