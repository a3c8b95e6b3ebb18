//! What a process does with its arenas before it exits.

use super::membership::{Arena, Membership};
use super::orphans;
use super::process_arenas;
use crate::sys::proc;
use std::sync::Arc;
use std::time::Duration;

/// How long a program that exits waits for its children, in ms.
const CHILDREN: u64 = 500;
/// How long it sleeps between two looks.
const MOMENT: Duration = Duration::from_millis(2);

/// Has the tracker of this process's tree remove no names of its arenas any more: their last
/// member does, whatever tree that is of. For a process that is about to leave its tree.
pub fn end_tracking() {
    let all = process_arenas::all::<Membership>();
    all.iter()
        .for_each(|arena| arena.registration().end_tracking());
}

/// Prepares the exit of this process: it detaches from all its arenas, except for the blocks to
/// which it has references. Returns the arenas that stay.
///
/// If the whole program exits, tickets in an arena that no other process has are ended, except for
/// lasting ones: no process will receive them. For a moment it waits for children that still have
/// an arena: a child that exits without leaving it cannot tell the tracker that the names are gone.
///
/// What cannot be given back is reaped when the process is gone.
pub fn retire_all(program_ends: bool) -> Vec<Arena> {
    let arenas = process_arenas::all::<Membership>();
    if program_ends {
        // Children that have just been forked to end, or to execute something.
        let end = proc::now() + CHILDREN;
        while arenas.iter().any(|arena| arena.has_children()) && proc::now() < end {
            std::thread::sleep(MOMENT);
        }
    }
    let stays = |arena: &Arc<Membership>| !matches!(arena.retire(program_ends), Ok(true));
    let staying = arenas.into_iter().filter(stays).map(Arena::from).collect();
    if program_ends {
        for (name, tree) in process_arenas::take_left() {
            orphans::remove_left(name, tree);
        }
    }
    staying
}
