//! The root: one block that the arena itself holds.
//!
//! A process that knows nothing of an arena but its identifier finds all else from there. One word of
//! the header names the block, and is the truth: the block is wanted for as long as it does, whoever
//! dies. Another block takes its place by one store.

use super::core::Core;
use super::format::{BlockId, LIVE};
use super::locked::{Block, Locked};
use super::refs::{BlockRef, Extent, Member};
use crate::error::Result;

impl<'a> Locked<'a> {
    /// The root block, if there is one.
    ///
    /// # Errors
    /// `Corrupted` if the word names no block.
    pub fn root_block(&self) -> Result<Option<Block<'a>>> {
        let Some(id) = self.header.root.get().checked_sub(1) else {
            return Ok(None);
        };
        if id >= self.header.block_rows.get() {
            return Err(self.corrupted("the root's number"));
        }
        let block = self.block(id)?;
        match block.state() == LIVE {
            true => Ok(Some(block)),
            false => Err(self.corrupted("the root")),
        }
    }

    fn publish_root(&self, which: BlockRef, replace: bool) -> Result<bool> {
        let block = self.live(which)?;
        let before = self.root_block()?;
        match before {
            Some(root) if root.id == block.id => return Ok(true),
            Some(_) if !replace => return Ok(false),
            _ => self.header.root.commit(block.id + 1),
        }
        if let Some(root) = before {
            self.free_if_unwanted(root)?;
        }
        Ok(true)
    }
}

impl Core {
    /// Makes a block the root; false if there is another one, unless that is to be `replace`d.
    ///
    /// # Errors
    /// `Stale` if the block has been freed.
    pub fn publish_root(&self, me: Member, which: BlockRef, replace: bool) -> Result<bool> {
        self.lock(me)?.publish_root(which, replace)
    }

    /// Makes this process a holder of the root, if there is one. `then` runs before the lock is given
    /// back.
    ///
    /// # Errors
    /// As for any operation of the arena.
    pub fn hold_root_and(
        &self,
        me: Member,
        then: impl FnOnce(BlockId),
    ) -> Result<Option<(BlockRef, Extent)>> {
        let locked = self.lock(me)?;
        let Some(root) = locked.root_block()? else {
            return Ok(None);
        };
        let which = BlockRef {
            id: BlockId(root.id),
            generation: root.generation(),
        };
        let place = locked.meet_extent(root)?;
        locked.hold(root);
        then(which.id);
        Ok(Some((which, place)))
    }
}
