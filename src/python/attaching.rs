//! Making an arena and attaching one, as Python asks for it.

use super::error::{exception, natural, os_error};
use super::gil::end_long;
use super::operation::{work, work_long};
use super::process_tree::{announce, ask, name_of, unregister, watch_end, Nothing};
use super::records;
use super::shutdown::{is_over, stay};
use crate::arena::handle::{Name, LONGEST_NAME};
use crate::error::Error;
use crate::process::{self, Settings, Wishes};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::sync::atomic::{AtomicBool, Ordering};

/// How long to wait for a living owner of an arena's lock, in ms.
const PATIENCE: u64 = 30_000;

/// The exception for a failure to make or attach the arena `name`.
fn with_name(py: Python<'_>, error: Error, name: Name) -> PyErr {
    let name = pyo3::types::PyString::new(py, name.as_str());
    match error {
        Error::Os { .. } => os_error(py, error, Some(name)),
        error => exception(py, error),
    }
}

/// Attaches the arena `name`.
pub fn attach(py: Python<'_>, name: Name) -> PyResult<process::Arena> {
    watch_end(py)?;
    // The error becomes an exception only when the GIL is held again.
    let attached = work_long(py, || Ok(process::Arena::attach(name, PATIENCE)))?;
    let arena = attached.map_err(|error| with_name(py, error, name))?;
    // The last process of the tree to have the arena must tell the tracker.
    let tree: u64 = ask(py, "registrar", (false,))?;
    work(py, || arena.set_tree(tree))?;
    Ok(arena)
}

/// A name that no arena has: `snp-<program>-<pid in hex>-<8 hex digits>`, by which an operator who
/// finds it in /dev/shm learns whose it is.
fn new_name(py: Python<'_>, folder: Option<&str>) -> PyResult<Name> {
    let number = process::random_number().map_err(|error| exception(py, error))?;
    let end = format!("-{:x}-{:08x}", std::process::id(), number as u32);
    let room = LONGEST_NAME - "snp-".len() - end.len();
    let program: String = program(py).chars().take(room).collect();
    let name = format!("snp-{program}{end}");
    Name::new(&path_of(folder, &name)).map_err(|error| exception(py, error))
}

/// What the program calls itself: the name of its script, of its module or package, or else of the
/// interpreter, in letters, digits, `_` and `.`.
fn program(py: Python<'_>) -> String {
    let sys = |name: &str| py.import("sys").and_then(|sys| sys.getattr(name));
    // (`sys.argv` is the program's to change, and an interpreter in another program may have none.)
    let script = sys("argv").and_then(|argv| argv.get_item(0)?.extract::<String>());
    let named = script.ok().and_then(|script| plain_name(&script));
    let executable = || sys("executable").and_then(|path| path.extract::<String>());
    named
        .or_else(|| executable().ok().and_then(|path| plain_name(&path)))
        .unwrap_or_else(|| "python".to_owned())
}

/// The last part of a script's path without `.py`, or the folder's name of a package that is run.
/// None for options of the interpreter, as of a program that `-c` gives.
fn plain_name(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let last = match parts.next()? {
        "__main__.py" => parts.next()?,
        last => last.strip_suffix(".py").unwrap_or(last),
    };
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.".contains(letter);
    let plain = |letter| if is_plain(letter) { letter } else { '_' };
    let is_name = !last.is_empty() && !last.starts_with('-');
    is_name.then(|| last.chars().map(plain).collect())
}

/// An arena's name with the folder where it lies.
fn path_of(folder: Option<&str>, name: &str) -> String {
    match folder {
        Some(folder) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// The name of an arena that is to be made or looked for in a folder.
pub fn name_in(folder: Option<&str>, name: &str) -> PyResult<Name> {
    // (With a path in it the name is wrong.)
    let plain = name_of(name)?;
    match plain.folder() {
        None => name_of(&path_of(folder, name)),
        Some(_) => Err(PyValueError::new_err(format!(
            "{name:?}: which folder an arena lies in is told by 'directory'"
        ))),
    }
}

/// The environment variable with the settings for new arenas.
const VARIABLE: &str = "SHARED_NUMPY_ARENA";

/// What the arguments of `Arena.create` and `Arena.attach_or_create` say, as wishes.
pub fn wishes(
    first: Option<&PyAny>,
    segment: Option<&PyAny>,
    warm: Option<&PyAny>,
    processes: Option<&PyAny>,
) -> PyResult<Wishes> {
    let arguments = [
        ("first", first),
        ("segment", segment),
        ("warm", warm),
        ("processes", processes),
    ];
    let mut wishes = Wishes::default();
    for (key, value) in arguments {
        let Some(value) = value else {
            continue;
        };
        let set = match value.downcast::<PyString>() {
            Ok(text) => {
                let text = text.to_str()?;
                wishes.set(key, process::number(text).ok_or(text))
            }
            Err(_) => wishes.set(key, Ok(natural(key, value.extract()?)?)),
        };
        set.map_err(PyValueError::new_err)?;
    }
    Ok(wishes)
}

/// The settings in the environment for new arenas.
pub fn environment() -> PyResult<Wishes> {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return Ok(Wishes::default());
    };
    let text = text.to_string_lossy();
    Wishes::read(&text).map_err(|why| {
        PyValueError::new_err(format!(
            "the environment variable {VARIABLE}={text:?}: {why}"
        ))
    })
}

/// Removes what killed processes left, before the first arena that a process makes, and before each
/// that it makes in another folder.
fn clean_once(py: Python<'_>, folder: Option<&str>) -> PyResult<()> {
    static CLEANED: AtomicBool = AtomicBool::new(false);
    if !CLEANED.swap(true, Ordering::Relaxed) || folder.is_some() {
        // Orphans that cannot be removed are no reason not to begin.
        let removed = end_long(py, || process::remove_orphans(folder));
        if removed.is_err() {
            // They could not be listed: the next time perhaps.
            CLEANED.store(false, Ordering::Relaxed);
        }
        announce(py);
        records::note_cleaning(py, &removed.unwrap_or_default())?;
        ask::<Nothing>(py, "clean_managers_once", ())?;
    }
    Ok(())
}

/// Makes an arena, in a folder or with POSIX's objects.
pub fn create(
    py: Python<'_>,
    wishes: Wishes,
    name: Option<&str>,
    folder: Option<&str>,
) -> PyResult<process::Arena> {
    watch_end(py)?;
    if is_over(py) {
        // No thread would give it back.
        stay(py);
    }
    let mut settings = wishes.or(environment()?).settings();
    clean_once(py, folder)?;
    let name = name.map(|name| name_in(folder, name)).transpose()?;
    if let Some(taken) = name.filter(|name| process::exists(*name)) {
        let error = Error::Os {
            call: "shm_open",
            errno: crate::sys::EEXIST,
        };
        return Err(with_name(py, error, taken));
    }
    if folder.is_none() {
        settings.tree = ask(py, "registrar", (true,))?;
    }
    match name {
        None => create_registered(py, settings, folder),
        Some(name) => {
            // Another process may be making one of this name: only the arena that was made can be
            // registered.
            let arena = create_named(py, settings, name)?;
            if settings.tree != 0 {
                ask::<Nothing>(py, "register", (name.as_str(),))?;
            }
            Ok(arena)
        }
    }
}

/// The 16 bytes of an identifier.
pub fn identifier_of(py: Python<'_>, identifier: &PyAny) -> PyResult<[u8; 16]> {
    let view = py
        .import("builtins")?
        .getattr("memoryview")?
        .call1((identifier,));
    let Ok(view) = view else {
        let class = identifier.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "'identifier' must be 16 bytes, not of type {class}"
        )));
    };
    let bytes: &PyBytes = view.call_method0("tobytes")?.downcast()?;
    match <[u8; 16]>::try_from(bytes.as_bytes()) {
        Ok(bytes) if bytes != [0; 16] => Ok(bytes),
        Ok(_) => Err(PyValueError::new_err(
            "'identifier' must not be zeros, which stand for none",
        )),
        Err(_) => Err(PyValueError::new_err(format!(
            "'identifier' must be 16 bytes, not {}",
            bytes.as_bytes().len()
        ))),
    }
}

/// Attaches the arena of an identifier, or makes it: in a folder, or with POSIX's objects.
pub fn attach_or_create(
    py: Python<'_>,
    identifier: [u8; 16],
    wishes: Wishes,
    folder: Option<&str>,
) -> PyResult<process::Arena> {
    watch_end(py)?;
    if is_over(py) {
        // No thread would give it back.
        stay(py);
    }
    let settings = wishes.or(environment()?).settings();
    clean_once(py, folder)?;
    let name = Name::of_identifier(folder, identifier).map_err(|error| exception(py, error))?;
    let met = || process::Arena::attach_or_create(folder, identifier, settings);
    let met = work_long(py, || Ok(met()))?;
    announce(py);
    let arena = met.map_err(|error| without_place(py, error, name))?;
    // The last process of the tree to have the arena looks whether its children have left it.
    let tree: u64 = ask(py, "registrar", (false,))?;
    work(py, || arena.set_tree(tree))?;
    Ok(arena)
}

/// The error where shared memory has no folder.
fn without_folder(py: Python<'_>, errno: i32) -> PyErr {
    let class = py.get_type::<PyOSError>();
    match class.call1((errno, NO_FOLDER)) {
        Ok(exception) => PyErr::from_instance(exception),
        Err(failure) => failure,
    }
}

/// What to do where shared memory has no folder.
pub const NO_FOLDER: &str = "there is no /dev/shm, where shared memory lies: mount a tmpfs there \
                         (mount -t tmpfs tmpfs /dev/shm), or start the container with one (not \
                         with docker run --ipc none)";

fn create_named(py: Python<'_>, settings: Settings, name: Name) -> PyResult<process::Arena> {
    let created = end_long(py, || process::Arena::create(name, settings));
    announce(py);
    created.map_err(|error| without_place(py, error, name))
}

/// The exception for a failure to make the arena `name`.
fn without_place(py: Python<'_>, error: Error, name: Name) -> PyErr {
    match error {
        Error::Os { errno, .. } if errno == crate::sys::ENOENT => without_folder(py, errno),
        error => with_name(py, error, name),
    }
}

/// Makes an arena of a new name. The tracker is told first: if all processes are killed in between, it
/// removes what there is.
fn create_registered(
    py: Python<'_>,
    settings: Settings,
    folder: Option<&str>,
) -> PyResult<process::Arena> {
    let name = new_name(py, folder)?;
    if settings.tree != 0 {
        ask::<Nothing>(py, "register", (name.as_str(),))?;
    }
    create_named(py, settings, name).inspect_err(|_| {
        if settings.tree != 0 {
            unregister(py, &[name]);
        }
    })
}
