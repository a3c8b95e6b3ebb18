//! Arenas and processes, seen from outside and told to Python.

use super::error::exception;
use super::gil::end_long;
use crate::arena::format::{TicketOwner, FREE, LIVE, NAMED, PAGES, PAGES_RETURNED, PINNED, TABLE};
use crate::arena::image::{place_in_file, BlockImage, Image, Kind, TicketImage};
use crate::process::{self, Look};
use crate::ring::{self, BodyLook};
use crate::sys::open_files::{self, Process};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// Adds the functions of this file to the extension module.
pub fn add_to(module: &PyModule) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(look_at_arena, module)?)?;
    module.add_function(wrap_pyfunction!(look_at_ring, module)?)?;
    module.add_function(wrap_pyfunction!(list_processes, module)?)
}

/// Look at an arena without joining it or changing anything.
///
/// It may be in use: what is told was so a moment ago, and parts of it at different moments.
///
/// Parameters
/// ----------
/// path : str
///     The file of its memory.
/// tables : bool, optional
///     Also tell of each block and of each handle in flight.
///
/// Returns
/// -------
/// dict
///     ``kind``: ``"arena"``, ``"other version"``, ``"unfinished"``, ``"damaged"`` or ``"other"``;
///     and for an arena what its tables and the kernel's locks say.
///
/// Raises
/// ------
/// OSError
///     The file cannot be opened.
#[pyfunction(tables = "false")]
#[pyo3(text_signature = "(path, tables=False)")]
fn look_at_arena<'py>(py: Python<'py>, path: &str, tables: bool) -> PyResult<&'py PyDict> {
    let look = end_long(py, || process::look(path)).map_err(|error| exception(py, error))?;
    let told = PyDict::new(py);
    tell_look(py, told, &look)?;
    tell_counts(told, &look)?;
    if tables {
        tell_tables(py, told, &look)?;
    }
    Ok(told)
}

fn tell_look(py: Python<'_>, told: &PyDict, look: &Look) -> PyResult<()> {
    let image = &look.image;
    let (kind, version, why) = match image.kind {
        Kind::Arena => ("arena", None, None),
        Kind::OtherVersion(version) => ("other version", Some(version), None),
        Kind::Unfinished => ("unfinished", None, None),
        Kind::Other => ("other", None, None),
        Kind::Damaged(why) => ("damaged", None, Some(why)),
    };
    told.set_item("kind", kind)?;
    told.set_item("version", version)?;
    told.set_item("why", why)?;
    told.set_item("odd", image.odd.clone())?;
    told.set_item("uid", image.uid)?;
    told.set_item(
        "identifier",
        image.identifier.map(|bytes| PyBytes::new(py, &bytes)),
    )?;
    told.set_item("root", image.root)?;
    told.set_item("places", image.processes)?;
    told.set_item("lock_owner", image.owner)?;
    told.set_item("poisoned", image.poisoned)?;
    told.set_item("any_locked", look.any_locked)?;
    told.set_item("pinned", look.pinned)?;
    told.set_item("ours", look.ours)?;
    told.set_item("same_lock_file", look.same_lock_file)?;
    told.set_item("same_boot", look.same_boot)?;
    let members = PyList::empty(py);
    for (slot, locked) in image.slots.iter().zip(&look.locked) {
        let member = PyDict::new(py);
        member.set_item("slot", slot.slot)?;
        member.set_item("reserved", slot.reserved)?;
        member.set_item("detached", slot.detached)?;
        member.set_item("pid", slot.pid)?;
        member.set_item("started", slot.started)?;
        member.set_item("namespace", slot.namespace)?;
        member.set_item("locked", *locked)?;
        members.append(member)?;
    }
    told.set_item("members", members)
}

fn tell_counts(told: &PyDict, look: &Look) -> PyResult<()> {
    let image = &look.image;
    let sum = |state: u8| -> u64 {
        let alike = image.blocks.iter().filter(|block| block.state == state);
        alike.fold(0, |sum, block| sum.saturating_add(block.size))
    };
    told.set_item("blocks", image.live().count())?;
    told.set_item("block_bytes", sum(LIVE))?;
    told.set_item("table_bytes", sum(TABLE))?;
    told.set_item("free_bytes", image.free)?;
    told.set_item("warm_bytes", image.warm)?;
    told.set_item("handles", image.tickets.len())?;
    let ages = image.tickets.iter().map(|ticket| age(look, ticket));
    told.set_item("oldest_handle", ages.max().unwrap_or(0))
}

/// How long ago a ticket was opened, in ms.
fn age(look: &Look, ticket: &TicketImage) -> u64 {
    look.now.saturating_sub(ticket.opened)
}

fn tell_tables(py: Python<'_>, told: &PyDict, look: &Look) -> PyResult<()> {
    let image = &look.image;
    told.set_item("data", image.data)?;
    told.set_item("segments", image.segments.clone())?;
    let blocks = image.blocks.iter().map(|block| block_as_dict(py, block));
    let blocks = blocks.collect::<PyResult<Vec<_>>>()?;
    told.set_item("block_list", blocks)?;
    let handles = image.tickets.iter().map(|ticket| {
        let handle = PyDict::new(py);
        let (owner, number) = match ticket.owner {
            TicketOwner::Sender(slot) => ("sender", Some(u64::from(slot.0))),
            TicketOwner::Arena => ("sender has left", None),
            TicketOwner::Nobody(_) => ("sender was killed", None),
            TicketOwner::Block(block) => ("message", Some(u64::from(block.0))),
        };
        handle.set_item("block", ticket.block)?;
        handle.set_item("owner", owner)?;
        handle.set_item("number", number)?;
        handle.set_item("age", age(look, ticket))?;
        handle.set_item("lasting", ticket.lasting)?;
        Ok(handle)
    });
    told.set_item("handle_list", handles.collect::<PyResult<Vec<_>>>()?)?;
    let wanted = unwanted(image);
    told.set_item("unwanted", wanted)
}

/// The blocks that no living holder, no handle and not the arena keeps: the dead's, until they are
/// reaped.
fn unwanted(image: &Image) -> Vec<u32> {
    let named: std::collections::BTreeSet<u32> =
        image.tickets.iter().map(|ticket| ticket.block).collect();
    let is_unwanted = |block: &&BlockImage| {
        let is_kept = named.contains(&block.id) || image.root == Some(block.id);
        block.holders.is_empty() && !is_kept
    };
    image
        .live()
        .filter(is_unwanted)
        .map(|block| block.id)
        .collect()
}

fn block_as_dict<'py>(py: Python<'py>, block: &BlockImage) -> PyResult<&'py PyDict> {
    let told = PyDict::new(py);
    let state = match block.state {
        LIVE => "live",
        FREE => "free",
        _ => "table",
    };
    told.set_item("id", block.id)?;
    told.set_item("generation", block.generation)?;
    told.set_item("state", state)?;
    told.set_item("segment", block.address.segment())?;
    told.set_item("offset", block.address.offset())?;
    told.set_item("place", place_in_file(block.address))?;
    told.set_item("bytes", block.size)?;
    told.set_item("returned", block.marks & PAGES == PAGES_RETURNED)?;
    told.set_item("pinned", block.marks & PINNED != 0)?;
    told.set_item("named", block.marks & NAMED != 0)?;
    told.set_item("warm", block.warm.min(block.size))?;
    let holders: Vec<u16> = block.holders.iter().map(|slot| slot.0).collect();
    told.set_item("holders", holders)?;
    Ok(told)
}

/// Tell what the bytes at the beginning of a block are the head of.
///
/// Parameters
/// ----------
/// content : bytes
///     The first bytes of a block, about 21 KiB or all.
///
/// Returns
/// -------
/// dict or None
///     None if it is no ring. ``kind``: ``"messages"`` or ``"frames"``; the places of its ``maker`` and
///     of the ``lock_owner``; for which of ``"something to read"``, ``"room"`` and ``"all done"`` a
///     process may be asleep; and what the kind has more.
#[pyfunction]
#[pyo3(text_signature = "(content)")]
fn look_at_ring<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Option<&'py PyDict>> {
    let Some(ring) = ring::look(content) else {
        return Ok(None);
    };
    let told = PyDict::new(py);
    told.set_item("maker", ring.maker)?;
    told.set_item("lock_owner", ring.owner)?;
    let events = ["something to read", "room", "all done"];
    let waiters = events.iter().zip(ring.waiters).filter(|(_, waits)| *waits);
    told.set_item(
        "waiters",
        waiters.map(|(event, _)| *event).collect::<Vec<_>>(),
    )?;
    match ring.body {
        BodyLook::Messages { count, limit } => {
            told.set_item("kind", "messages")?;
            told.set_item("messages", count)?;
            told.set_item("limit", (limit != u64::MAX).then_some(limit))?;
        }
        BodyLook::Frames {
            written,
            consumed,
            overwrites,
            frames,
            readers,
        } => {
            told.set_item("kind", "frames")?;
            told.set_item("written", written)?;
            told.set_item("consumed", consumed)?;
            told.set_item("overwrites", overwrites)?;
            told.set_item("frames", frames)?;
            told.set_item("readers", readers)?;
        }
    }
    Ok(Some(told))
}

/// List processes with the files that they have on some devices, as ``/proc`` shows them.
///
/// Parameters
/// ----------
/// devices : list of int
///     The numbers of file systems, as ``os.stat`` has them in ``st_dev``.
///
/// Returns
/// -------
/// processes : list of dict
///     Of each process its ``pid``, its ``own_pid`` in its own namespace of numbers, the
///     ``namespace``, ``uid``, ``started``, ``command``, ``files`` as ``(device, inode, mapped)``,
///     and whether it is ``readable``: whether no other file of it can be missing.
/// complete : bool
///     Whether no process can be missing.
///
/// Raises
/// ------
/// OSError
///     There is no ``/proc``.
#[pyfunction]
#[pyo3(text_signature = "(devices)")]
fn list_processes<'py>(py: Python<'py>, devices: Vec<u64>) -> PyResult<&'py PyTuple> {
    let found = end_long(py, || open_files::processes(&devices));
    let found = found.map_err(|error| exception(py, error))?;
    let processes = found
        .list
        .iter()
        .map(|process| process_as_dict(py, process));
    let processes = processes.collect::<PyResult<Vec<_>>>()?;
    let list = PyList::new(py, processes);
    let pair: [PyObject; 2] = [list.into_py(py), found.complete.into_py(py)];
    Ok(PyTuple::new(py, pair))
}

fn process_as_dict<'py>(py: Python<'py>, process: &Process) -> PyResult<&'py PyDict> {
    let told = PyDict::new(py);
    told.set_item("pid", process.pid)?;
    told.set_item("own_pid", process.own_pid)?;
    told.set_item("namespace", process.namespace)?;
    told.set_item("uid", process.uid)?;
    told.set_item("started", process.started)?;
    told.set_item("command", &process.command)?;
    let files = process.files.iter();
    let files: Vec<_> = files
        .map(|(file, mapped)| (file[0], file[1], *mapped))
        .collect();
    told.set_item("files", files)?;
    told.set_item("readable", process.readable)?;
    Ok(told)
}
