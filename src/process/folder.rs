//! Where arenas lie: with POSIX's objects, or in a folder of the user's choice on another tmpfs.
//!
//! /dev/shm may be small (64 MiB in Docker) or read-only. Memory of the same kind is wherever a
//! tmpfs is mounted; files of any other file system would be written to a disk.

use crate::arena::handle::{is_folder, LONGEST_FOLDER};
use crate::error::Result;
use crate::sys::shm;

/// The variable with the path of the folder where arenas and named arrays are made.
pub const VARIABLE: &str = "SHARED_NUMPY_DIR";

/// The folder of a path, as arenas' names have it; None for that of POSIX's objects.
///
/// # Errors
/// What is wrong with it, as text.
pub fn check(path: &str) -> std::result::Result<Option<String>, String> {
    let plain = match path.trim_end_matches('/') {
        "" => path,
        plain => plain,
    };
    if plain == shm::FOLDER {
        return Ok(None);
    }
    if !is_folder(plain) {
        return Err(format!(
            "{path:?}: the path of a folder for shared memory begins with '/', has at most \
             {LONGEST_FOLDER} bytes and no part that is '.', '..' or empty"
        ));
    }
    match shm::is_tmpfs(plain) {
        Ok(true) => Ok(Some(plain.to_owned())),
        Ok(false) => Err(format!(
            "{path:?} is not on a tmpfs: shared memory there would be written to a disk"
        )),
        Err(error) => Err(format!(
            "{path:?} cannot be a folder for shared memory: {error}"
        )),
    }
}

/// The folder that the environment says; None for that of POSIX's objects.
///
/// # Errors
/// As [`check`].
pub fn of_environment() -> std::result::Result<Option<String>, String> {
    match std::env::var_os(VARIABLE) {
        None => Ok(None),
        Some(path) if path.is_empty() => Ok(None),
        Some(path) => {
            let path = path.to_string_lossy();
            check(&path).map_err(|why| format!("the environment variable {VARIABLE}: {why}"))
        }
    }
}

/// The objects among POSIX's, in the folder that the environment says, and in one more, by their
/// names: with the folder's path before them, unless they are POSIX's.
///
/// # Errors
/// If not even POSIX's can be listed. Other folders may be gone.
pub fn objects(also: Option<&str>) -> Result<Vec<String>> {
    let mut objects = shm::names_in(shm::FOLDER);
    let mut folders: Vec<String> = of_environment().ok().flatten().into_iter().collect();
    folders.extend(also.map(str::to_owned));
    folders.dedup();
    for folder in folders {
        if let Ok(names) = shm::names_in(&folder) {
            let paths = names.iter().map(|name| format!("{folder}/{name}"));
            // (There may be no /dev/shm at all.)
            objects = Ok(objects
                .unwrap_or_default()
                .into_iter()
                .chain(paths)
                .collect());
        }
    }
    objects
}
