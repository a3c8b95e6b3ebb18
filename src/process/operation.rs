//! An operation on an arena: begun as this process's member, and begun again where that helps.

use super::membership::Membership;
use super::shm_space;
use super::wait_hooks;
use crate::arena::Member;
use crate::error::{Error, Result};

impl Membership {
    /// Does an operation on what lies in the arena, as this process's member.
    ///
    /// While it waits for the arena's lock a signal's handler may fork, and the child come
    /// back into the wait, in which it would be its parent. So the wait ends there, and the
    /// child begins the operation again. So it does, once, when there is no memory: operations
    /// refuse what they cannot do before they touch anything.
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

    /// Whether an operation that ended so is to be tried again; if not, the error.
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
