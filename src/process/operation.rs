//! An operation on an arena: begun as this process's member, and begun again where that helps.

use super::membership::Membership;
use super::shm_space;
use super::wait_hooks;
use crate::arena::Member;
use crate::error::{Error, Result};

impl Membership {
    /// Does an operation on what lies in the arena, as this process's member.
    ///
    /// While it waits for the arena's lock a signal handler may fork, and the child returns into the
    /// wait, as if it were its parent. So its wait ends, and the child begins the operation again.
    /// The operation is also begun again, once, after memory was given back. Both are safe:
    /// operations change nothing before they know that they can succeed.
    #[inline(always)]
    pub fn perform<T>(&self, operation: impl FnMut(Member) -> Result<T>) -> Result<T> {
        self.perform_as(Self::begin, operation)
    }

    /// [`perform`](Self::perform) with [`Self::member`] or [`Self::begin`].
    #[inline(always)]
    pub fn perform_as<T>(
        &self,
        member: impl Fn(&Self) -> Result<Member>,
        mut operation: impl FnMut(Member) -> Result<T>,
    ) -> Result<T> {
        let mut first = true;
        loop {
            let me = member(self)?;
            match operation(me) {
                Ok(done) => return Ok(done),
                Err(error) => self.try_again(me, error, &mut first)?,
            }
        }
    }

    /// Returns if an operation that ended with `error` is to be begun again; fails with the error if
    /// not.
    #[cold]
    fn try_again(&self, me: Member, error: Error, first: &mut bool) -> Result<()> {
        match error {
            Error::Interrupted if self.is_no_more(me) => Ok(()),
            Error::Full { asked, .. } if *first && error.is_for_want_of_memory() => {
                *first = false;
                self.make_room(me, asked)
            }
            error => Err(error),
        }
    }

    /// Gives back what this program's user has in shared memory and does not use, for one
    /// more try.
    #[cold]
    fn make_room(&self, me: Member, asked: u64) -> Result<()> {
        let made = match wait_hooks::is_uninterruptible() {
            // Others wait for a thread that holds a ring's lock.
            true => self.trim(me).map(drop),
            false => shm_space::make(asked),
        };
        match made {
            Err(Error::Interrupted) if !self.is_no_more(me) => made,
            _ => Ok(()),
        }
    }
}
