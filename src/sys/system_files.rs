//! Small files in which the system tells of itself: below `/proc` and `/sys`.

use super::errno::{failed, is_passing};
use crate::error::Result;
use nix::errno::Errno;
use std::path::Path;

/// The text of such a file; None if this system has it not, or does not show it.
///
/// # Errors
/// What says nothing of the system, since it may be otherwise the next time: no descriptor or no
/// memory was left.
pub fn text_of(path: impl AsRef<Path>) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) => match error.raw_os_error() {
            Some(errno) if is_passing(errno) => Err(failed("open")(Errno::from_raw(errno))),
            _ => Ok(None),
        },
    }
}
