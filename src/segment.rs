//! Segments: policy over the single calls of `sys::shm`.

use crate::error::Result;
use crate::sys::shm;
use std::os::fd::BorrowedFd;

/// How much is reserved by one call.
///
/// The kernel gives up all pages of an interrupted call, so a process whose
/// timer fires more often than a call takes would never get on. 1 MiB takes
/// well under a millisecond, and the calls' own cost vanishes beside it.
const CHUNK: u64 = 1 << 20;

/// Takes storage for the first `size` bytes of a segment, so that writing there
/// can no longer fail for want of memory (which would be a SIGBUS).
///
/// Existing bytes keep their values. `done` says how many bytes from the start
/// have been taken, also when the call fails: after EINTR the caller does what
/// an interruption means to it, and calls again to go on from there.
///
/// # Errors
/// What `posix_fallocate` reports: ENOSPC when the memory is not there, EINTR.
pub fn reserve(fd: BorrowedFd<'_>, size: u64, done: &mut u64) -> Result<()> {
    in_chunks(size, done, |offset, length| {
        shm::allocate(fd, offset, length)
    })
}

/// The loop of [`reserve`], over any `allocate(offset, length)`.
fn in_chunks(
    size: u64,
    done: &mut u64,
    mut allocate: impl FnMut(i64, i64) -> Result<()>,
) -> Result<()> {
    while *done < size {
        let length = CHUNK.min(size - *done);
        allocate(*done as i64, length as i64)?;
        *done += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const EINTR: Error = Error::Os {
        call: "posix_fallocate",
        errno: crate::sys::EINTR,
    };

    /// The chunks cover the range exactly once and in order.
    #[test]
    fn chunks_tile_the_range() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let mut end = 0;
            let mut done = 0;
            let result = in_chunks(size, &mut done, |offset, length| {
                assert_eq!(offset, end);
                assert!(length > 0 && length as u64 <= CHUNK);
                end = offset + length;
                Ok(())
            });
            assert_eq!(result, Ok(()));
            assert_eq!((end as u64, done), (size, size));
        }
    }

    /// After a failure the work goes on with the chunk that failed.
    #[test]
    fn an_interrupted_chunk_is_repeated() {
        let mut calls = Vec::new();
        let mut done = 0;
        let mut attempt = |fails: bool| {
            in_chunks(2 * CHUNK, &mut done, |offset, _| {
                calls.push(offset as u64);
                if fails && offset > 0 {
                    Err(EINTR)
                } else {
                    Ok(())
                }
            })
        };
        assert_eq!(attempt(true), Err(EINTR));
        assert_eq!(attempt(true), Err(EINTR));
        assert_eq!(attempt(false), Ok(()));
        assert_eq!(attempt(false), Ok(()));
        assert_eq!(calls, [0, CHUNK, CHUNK, CHUNK]);
        assert_eq!(done, 2 * CHUNK);
    }
}
