//! Segments: policy over the single calls of `sys::shm`.

use crate::error::Result;
use crate::sys::shm;
use std::os::fd::BorrowedFd;

/// How much is reserved by one call.
///
/// Between calls the caller can attend to signals. Kernels differ in what a
/// signal does to a call: some finish it first, and some give up all of its
/// pages, so that a long one would never end under a fast timer. 1 MiB takes
/// well under a millisecond, and the calls' own cost vanishes beside it.
const CHUNK: u64 = 1 << 20;

/// Takes storage for a segment, so that writing there can no longer fail for
/// want of memory (which would be a SIGBUS). Bytes that exist keep their values.
pub struct Reservation {
    start: u64,
    size: u64,
    done: u64,
}

impl Reservation {
    /// Plans to reserve the first `size` bytes; nothing is reserved yet.
    pub fn new(size: u64) -> Self {
        Self::of(0, size)
    }

    /// Plans to reserve `size` bytes from `start` on.
    pub fn of(start: u64, size: u64) -> Self {
        Reservation {
            start,
            size,
            done: 0,
        }
    }

    /// Reserves the next chunk; true when everything is.
    ///
    /// # Errors
    /// What `posix_fallocate` reports: ENOSPC when the memory is not there,
    /// EINTR. The next call tries the same chunk again.
    pub fn step(&mut self, fd: BorrowedFd<'_>) -> Result<bool> {
        self.step_by(|offset, length| shm::allocate(fd, offset, length))
    }

    /// [`Reservation::step`], over any `allocate(offset, length)`.
    fn step_by(&mut self, allocate: impl FnOnce(u64, u64) -> Result<()>) -> Result<bool> {
        let length = CHUNK.min(self.size - self.done);
        if length > 0 {
            allocate(self.start + self.done, length)?;
            self.done += length;
        }
        Ok(self.done == self.size)
    }
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
            let mut reservation = Reservation::new(size);
            let mut step = || {
                reservation.step_by(|offset, length| {
                    assert_eq!(offset, end);
                    assert!(length > 0 && length <= CHUNK);
                    end = offset + length;
                    Ok(())
                })
            };
            while !step().unwrap() {}
            assert_eq!(step(), Ok(true));
            assert_eq!(end, size);
        }
    }

    /// After a failure the work goes on with the chunk that failed.
    #[test]
    fn a_failed_chunk_is_repeated() {
        let mut calls = Vec::new();
        let mut reservation = Reservation::new(2 * CHUNK);
        let mut step = |result: Result<()>| {
            reservation.step_by(|offset, _| {
                calls.push(offset);
                result
            })
        };
        assert_eq!(step(Ok(())), Ok(false));
        assert_eq!(step(Err(EINTR)), Err(EINTR));
        assert_eq!(step(Err(EINTR)), Err(EINTR));
        assert_eq!(step(Ok(())), Ok(true));
        assert_eq!(calls, [0, CHUNK, CHUNK, CHUNK]);
    }
}
