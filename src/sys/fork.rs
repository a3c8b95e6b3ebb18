//! Noticing forks.

use super::errno::failed;
use super::map;
use crate::error::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// Has three functions called around every fork that goes through the C
/// library: `pthread_atfork(3)`. `prepare` runs before, in the parent;
/// `parent` and `child` after, in theirs. A fork that fails runs `parent`.
pub fn on_fork(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> Result<()> {
    type Handler = unsafe extern "C" fn();
    let all = [prepare, parent, child].map(|handler| Some(handler as Handler));
    // SAFETY: the functions live as long as this code is loaded; the C library
    // forgets them when it is unloaded.
    match unsafe { libc::pthread_atfork(all[0], all[1], all[2]) } {
        0 => Ok(()),
        errno => Err(failed("pthread_atfork")(nix::errno::Errno::from_raw(errno))),
    }
}

/// A number that differs in a forked child from its parent's.
///
/// It lies in a page that the kernel fills with zeros in children, where that
/// is to be had: so that children are noticed too for which no handler ran.
/// Where it is not, only [`renew`](ForkMark::renew) changes it.
pub struct ForkMark {
    number: &'static AtomicU64,
    /// The last that this process or its parents had, which no child loses.
    last: AtomicU64,
}

impl ForkMark {
    /// The mark of this process.
    pub fn get() -> &'static ForkMark {
        static MARK: OnceLock<ForkMark> = OnceLock::new();
        MARK.get_or_init(|| {
            let place = Self::page().unwrap_or_else(|_| Box::leak(Box::default()));
            place.store(1, Ordering::Relaxed);
            ForkMark {
                number: place,
                last: AtomicU64::new(1),
            }
        })
    }

    fn page() -> Result<&'static AtomicU64> {
        // Whole pages, whatever their size.
        const LENGTH: usize = 1 << 16;
        let base = map::private(LENGTH)?;
        // SAFETY: the mapping of the line before, of which children read one
        // number, and make another of a zero.
        let wiped = unsafe { map::wipe_on_fork(base, LENGTH) };
        if let Err(error) = wiped {
            // SAFETY: nobody else has seen the mapping.
            let _ = unsafe { map::unmap(base, LENGTH) };
            return Err(error);
        }
        // SAFETY: mapped for as long as the process lives, aligned, zero.
        Ok(unsafe { base.cast().as_ref() })
    }

    /// The number; 0 in a child that no handler has [renewed](Self::renew).
    #[inline(always)]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The number; a child that no handler has renewed takes one.
    pub fn certain(&self) -> u64 {
        match self.number() {
            0 => self.renew(),
            number => number,
        }
    }

    /// Takes another number, in a child, and returns it.
    pub fn renew(&self) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.number.store(number, Ordering::Relaxed);
        number
    }
}
