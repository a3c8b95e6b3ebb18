//! The error type of the core.
//!
//! Inward there is this one enum; `python::error` is the one place where it
//! becomes an exception. The raw errno is kept, since Python chooses the class
//! of an `OSError` by it; what is no system call's failure has the nearest one.

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
    /// This system has not what an arena cannot be safe without; nothing has changed.
    Missing {
        /// What it is, and what for.
        what: &'static str,
        /// The call that has failed.
        call: &'static str,
        /// The error number that it left.
        errno: i32,
    },
    /// The arena cannot hold one more of something; nothing has changed.
    Full {
        /// What there is no room for.
        what: Exhausted,
        /// How much was asked for: bytes, or a number of rows.
        asked: u64,
        /// How much is left: bytes of the file system, or rows.
        left: u64,
    },
    /// A handle whose block or reference is gone.
    Stale,
    /// A handle that no arena of this kind can have made.
    BadHandle {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A handle or a segment of another arena, user, machine or boot.
    Foreign {
        /// What differs.
        why: &'static str,
    },
    /// Something that another version of the package has made.
    OtherVersion {
        /// What it is.
        what: &'static str,
        /// The format that it has.
        found: u32,
        /// The only format of it that this version knows.
        known: u32,
    },
    /// What lies in the segments contradicts itself; the arena is poisoned.
    Corrupted {
        /// What was found.
        why: &'static str,
    },
    /// The arena's lock stayed with one owner for longer than a wait may last.
    Busy {
        /// The process that holds it, as it numbers itself.
        pid: u32,
        /// How long was waited, in seconds.
        seconds: u32,
    },
    /// The caller gave up waiting for the arena's lock.
    Interrupted,
    /// This process has no part in the arena: it left, or was made by a call
    /// that gave it none.
    Detached,
    /// The ring was closed by this process.
    Closed,
    /// The process that has made the ring is gone.
    Orphaned,
    /// A request that cannot be met whatever the state of things.
    Invalid {
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What an arena can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Bytes for a block or a segment.
    Space,
    /// Rows for blocks.
    Blocks,
    /// Rows for tickets.
    Tickets,
    /// Slots for processes.
    Slots,
    /// Rows for segments.
    Segments,
    /// Rows for readers of a ring of frames.
    Readers,
}

/// A number of bytes as errors tell it, in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Error {
    /// The same for a caller that asked for so many bytes, if it is for want of space: what there was
    /// no room for may have been rows, or more.
    #[cold]
    pub fn asking(self, bytes: u64) -> Self {
        match self {
            Error::Full {
                what: Exhausted::Space,
                left,
                ..
            } => Error::Full {
                what: Exhausted::Space,
                asked: bytes,
                left,
            },
            error => error,
        }
    }

    /// The same for a caller that has given back so many bytes, of the same request, meanwhile: they
    /// were free when it came.
    #[cold]
    pub fn having_taken(self, bytes: u64) -> Self {
        match self {
            Error::Full {
                what: Exhausted::Space,
                asked,
                left,
            } => Error::Full {
                what: Exhausted::Space,
                asked,
                left: left.saturating_add(bytes),
            },
            error => error,
        }
    }

    /// Whether it would not have come up if there were more free memory, or more of it in one
    /// piece.
    pub fn is_for_want_of_memory(&self) -> bool {
        use Exhausted::{Blocks, Segments, Space};
        let Error::Full { what, .. } = self else {
            return false;
        };
        // (Blocks: those that are kept for later have rows, too.)
        matches!(what, Space | Segments | Blocks)
    }

    /// The error number to report to the operating system's users.
    pub fn errno(&self) -> i32 {
        // These numbers are the same on every Linux that Rust runs on but for
        // two families of processors; the core must not name libc, and nothing
        // but the text of an exception depends on them.
        match *self {
            Error::Os { errno, .. } | Error::Missing { errno, .. } => errno,
            Error::Full { .. } => 28,                              // ENOSPC
            Error::Stale => 116,                                   // ESTALE
            Error::BadHandle { .. } | Error::Invalid { .. } => 22, // EINVAL
            Error::Foreign { .. } | Error::OtherVersion { .. } => 18, // EXDEV
            Error::Corrupted { .. } => 5,                          // EIO
            Error::Busy { .. } => 16,                              // EBUSY
            Error::Interrupted => 4,                               // EINTR
            Error::Detached => 107,                                // ENOTCONN
            Error::Closed => 9,                                    // EBADF
            Error::Orphaned => 32,                                 // EPIPE
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
            Error::Missing { what, call, errno } => {
                let reason = std::io::Error::from_raw_os_error(errno);
                write!(
                    f,
                    "arrays in shared memory need {what}, which this system does not have or \
                     forbids ({call}: {reason}); SharedMemory works without"
                )
            }
            Error::Full { what, asked, left } => match what {
                Exhausted::Space => write!(
                    f,
                    "no room in shared memory for {} bytes: {} are free; free some, \
                     or give /dev/shm more (Docker: --shm-size)",
                    grouped(asked),
                    grouped(left)
                ),
                Exhausted::Slots => write!(
                    f,
                    "all {asked} places for processes in the arena are taken by living ones; raise \
                     their number when it is made, to 1024 at most: \
                     SHARED_NUMPY_ARENA=processes=N for the program, or Arena.create(processes=N)"
                ),
                Exhausted::Blocks => write!(f, "the arena holds {asked} blocks, its most"),
                Exhausted::Tickets => write!(
                    f,
                    "the arena holds {asked} references in flight, its most; cancel those that \
                     nobody will receive"
                ),
                Exhausted::Segments => write!(f, "the arena has {asked} segments, its most"),
                Exhausted::Readers => write!(
                    f,
                    "{asked} processes read this ring buffer, which is its most; one that has \
                     exited or closed it makes room"
                ),
            },
            Error::Stale => write!(f, "the block of this handle has been freed"),
            Error::BadHandle { why } => write!(f, "this is no handle of a block: {why}"),
            Error::Foreign { why } => write!(f, "not of this arena: {why}"),
            Error::OtherVersion { what, found, known } => write!(
                f,
                "another version of shared_numpy has made {what}: it has format {found}, and this \
                 version knows format {known}. Programs that share memory need the same version"
            ),
            Error::Corrupted { why } => write!(
                f,
                "the arena's tables are corrupted ({why}); it can no longer be used"
            ),
            Error::Busy { pid, seconds } => write!(
                f,
                "process {pid} has held the arena's lock for over {seconds} s; is it stopped? \
                 Let it go on (kill -CONT {pid}) or end it"
            ),
            Error::Interrupted => write!(f, "the wait for the arena's lock was interrupted"),
            Error::Detached => write!(f, "this process is not attached to the arena"),
            Error::Closed => write!(f, "it was closed"),
            Error::Orphaned => write!(f, "the process that has made it is gone"),
            Error::Invalid { why } => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for Error {}

/// The result of whatever can fail in the core.
pub type Result<T> = std::result::Result<T, Error>;
