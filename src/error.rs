//! The error type of the core.
//!
//! Inward there is this one enum; `python::error` is the one place where it
//! becomes an exception. The raw errno is kept, since Python chooses the class
//! of an `OSError` by it.

use std::fmt;

/// What can go wrong in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A system call failed.
    Os {
        /// The call's name, as in its manual page.
        call: &'static str,
        /// The error number that the call left.
        errno: i32,
    },
}

impl Error {
    /// The error number to report to the operating system's users.
    pub fn errno(&self) -> i32 {
        match *self {
            Error::Os { errno, .. } => errno,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Os { call, errno } => {
                let reason = std::io::Error::from_raw_os_error(errno);
                write!(f, "{call}: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// The result of whatever can fail in the core.
pub type Result<T> = std::result::Result<T, Error>;
