//! The arena's platform: segments in shared memory, byte locks, liveness.

use super::descriptor::{Descriptor, READ_WRITE};
use crate::arena::format::{Address, SlotId, SlotRow, LONGEST, PAGE, SEGMENTS, SLOTS};
use crate::arena::handle::Name;
use crate::arena::platform::{Identity, Platform};
use crate::arena::word::U32;
use crate::error::{Error, Result};
use crate::segment::Reservation;
use crate::sys::{self, futex, locks, map, proc, shm};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

/// Whose lock is a sign that a family holds pinned blocks.
const PIN_BYTE: u64 = SLOTS as u64;
/// Whose lock a process has while it removes the names.
const REMOVAL_BYTE: u64 = PIN_BYTE + 1;
/// How long a sleep on the lock lasts at most.
const SLEEP: Duration = Duration::from_millis(2);
/// O_CREAT | O_EXCL, the same on every Linux that Rust runs on but MIPS.
const CREATE: i32 = 0o300;
/// The one mode that an arena's objects may have.
pub(super) const MODE: u32 = 0o600;

/// An arena's objects, as one process has them open.
pub(super) struct Shared {
    name: Name,
    control: Descriptor,
    lock: Descriptor,
    /// The slot whose byte this process holds; -1 if none.
    claimed: AtomicI32,
    /// Whether this family's pins are marked by our description.
    pinned: AtomicBool,
    segments: Box<[OnceLock<Segment>]>,
    patience: AtomicU64,
}

/// A segment that this process has mapped. They are set while the arena is
/// being attached, or under its lock, which a fork waits for.
struct Segment {
    base: NonNull<u8>,
    size: usize,
    /// None for the control segment, which has its own.
    file: Option<Descriptor>,
}

// SAFETY: the pointer is to a mapping of this process, which any thread may
// reach.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; dropped with the platform, when the arena
        // over it is gone, and with it whoever could refer to the mapping.
        let _ = unsafe { map::unmap(self.base, self.size) };
    }
}

/// The object of an arena's segment.
fn segment_name(name: Name, number: usize) -> CString {
    let name = name.as_str();
    let text = match number {
        0 => format!("/{name}"),
        _ => format!("/{name}.{number}"),
    };
    CString::new(text).expect("names have no zeros")
}

/// The arena's lock file.
fn lock_name(name: Name) -> CString {
    CString::new(format!("/{}.lock", name.as_str())).expect("names have no zeros")
}

/// Repeats a call that a signal interrupted.
fn patiently<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Error::Os { errno, .. }) if errno == sys::EINTR => continue,
            result => return result,
        }
    }
}

/// Reserves `size` bytes of an object from `start` on.
fn reserve(fd: BorrowedFd<'_>, start: u64, size: u64) -> Result<()> {
    let mut reservation = Reservation::of(start, size);
    while !patiently(|| reservation.step(fd))? {}
    Ok(())
}

impl Shared {
    /// Makes the objects of a new arena: the lock file with the byte of slot 0
    /// locked, then the control segment with its memory, all zero.
    ///
    /// # Errors
    /// EEXIST if there is such an arena, and what the calls report; what was
    /// made is removed again.
    pub fn create(name: Name, size: u64) -> Result<Self> {
        let lock = shm::open(&lock_name(name), CREATE | READ_WRITE, MODE)?;
        let made = locks::try_for_process(lock.as_fd(), 0).and_then(|_| {
            let control = shm::open(&segment_name(name, 0), CREATE | READ_WRITE, MODE)?;
            if let Err(error) = reserve(control.as_fd(), 0, size) {
                let _ = shm::unlink(&segment_name(name, 0));
                return Err(error);
            }
            Ok(control)
        });
        match made {
            Ok(control) => {
                let shared = Self::over(name, control, lock)?;
                shared.claimed.store(0, Ordering::Relaxed);
                Ok(shared)
            }
            Err(error) => {
                let _ = shm::unlink(&lock_name(name));
                Err(error)
            }
        }
    }

    /// Opens the control segment of an arena, and says which file it is.
    ///
    /// # Errors
    /// ENOENT if there is none, `Foreign` if it is not this user's alone.
    pub fn open_control(name: Name) -> Result<(OwnedFd, [u64; 2])> {
        let control = shm::open(&segment_name(name, 0), READ_WRITE, 0)?;
        let facts = shm::facts(control.as_fd())?;
        if facts.uid != proc::user() {
            return Err(Error::Foreign {
                why: "another user's arena",
            });
        }
        if facts.permissions != MODE {
            return Err(Error::Foreign {
                why: "other users may write to it",
            });
        }
        Ok((control, [facts.inode, facts.device]))
    }

    /// Opens the lock file of an arena that this process has not attached: its
    /// locks would go with this descriptor.
    pub fn open(name: Name, control: OwnedFd) -> Result<Self> {
        let lock = shm::open(&lock_name(name), READ_WRITE, 0)?;
        Self::over(name, control, lock)
    }

    fn over(name: Name, control: OwnedFd, lock: OwnedFd) -> Result<Self> {
        Ok(Shared {
            name,
            control: Descriptor::new(&segment_name(name, 0), control)?,
            lock: Descriptor::new(&lock_name(name), lock)?,
            claimed: AtomicI32::new(-1),
            pinned: AtomicBool::new(false),
            segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect(),
            patience: AtomicU64::new(30_000),
        })
    }

    /// The arena's name.
    pub fn name(&self) -> Name {
        self.name
    }

    /// The control segment's inode and device.
    pub fn control_file(&self) -> [u64; 2] {
        self.control.file()
    }

    /// The control segment's length.
    pub fn size(&self) -> Result<u64> {
        Ok(shm::facts(self.control()?)?.size)
    }

    /// The lock file's inode and device.
    pub fn lock_file(&self) -> [u64; 2] {
        self.lock.file()
    }

    /// Waits `ms` for a living owner of the lock, from now on.
    pub fn set_patience(&self, ms: u64) {
        self.patience.store(ms, Ordering::Relaxed);
    }

    fn control(&self) -> Result<BorrowedFd<'_>> {
        self.control.lend(|fd| {
            if self.pinned.load(Ordering::Relaxed) {
                let _ = locks::try_for_description(fd, PIN_BYTE, true);
            }
        })
    }

    /// The lock file; a process whose descriptor was closed has lost its byte,
    /// and takes it again: until then its number and start time speak for it.
    fn lock_fd(&self) -> Result<BorrowedFd<'_>> {
        self.lock.lend(|fd| {
            if let Ok(slot) = u64::try_from(self.claimed.load(Ordering::Relaxed)) {
                let _ = locks::try_for_process(fd, slot);
            }
        })
    }

    /// Takes the byte lock of the slot that was made for this process, in the
    /// child: its parent's lock is not inherited.
    pub fn inherit(&self, slot: SlotId) -> bool {
        self.claimed.store(-1, Ordering::Relaxed);
        for _ in 0..100 {
            if matches!(self.claim(slot), Ok(true)) {
                return true;
            }
            // Somebody tries whether the slot is free, which ends at once.
            std::thread::yield_now();
        }
        false
    }

    /// Forgets the byte of the parent, in a child without a slot.
    pub fn disinherit(&self) {
        self.claimed.store(-1, Ordering::Relaxed);
    }

    /// Opens the description whose locks are signs of life for a child.
    pub fn open_signs(&self) -> Result<OwnedFd> {
        shm::reopen(self.control()?)
    }

    /// Gives the child in the making in `slot` its sign of life.
    pub fn sign(signs: &OwnedFd, slot: SlotId) -> bool {
        matches!(
            locks::try_for_description(signs.as_fd(), slot.0 as u64, false),
            Ok(true)
        )
    }

    /// Marks this process and its children as holding pinned blocks, for as
    /// long as one of them has the control segment open.
    pub fn pin(&self) {
        self.pinned.store(true, Ordering::Relaxed);
        if let Ok(fd) = self.control() {
            // Shared locks do not exclude each other, and the arena's lock is
            // held: it cannot fail but for want of kernel memory.
            let _ = locks::try_for_description(fd, PIN_BYTE, true);
        }
    }

    /// Removes the names of the segments `numbers`, then of the rest, the lock
    /// file's last.
    ///
    /// While the lock file is there nobody can make another arena of the same
    /// name. One process removes at a time: so whatever has the names then, has
    /// them of this arena.
    pub fn unlink(&self, numbers: impl Iterator<Item = usize>) {
        let Ok(lock) = self.lock_fd() else {
            return;
        };
        if locks::try_for_process(lock, REMOVAL_BYTE) != Ok(true) {
            return;
        }
        if self.owns_name() {
            self.remove_names(numbers);
        }
        let _ = locks::release_for_process(lock, REMOVAL_BYTE);
    }

    /// Removes the name by which the arena is attached. The lock file stays,
    /// and with it the name stays this arena's.
    pub fn unlink_control(&self) {
        if self.owns_name() {
            let _ = shm::unlink(&segment_name(self.name, 0));
        }
    }

    /// Whether the lock file of this name is this arena's.
    fn owns_name(&self) -> bool {
        let found = shm::facts_of(&lock_name(self.name));
        found.is_ok_and(|found| [found.inode, found.device] == self.lock_file())
    }

    fn remove_names(&self, numbers: impl Iterator<Item = usize>) {
        for number in numbers {
            let _ = shm::unlink(&segment_name(self.name, number));
        }
        let _ = shm::unlink(&segment_name(self.name, 0));
        let _ = shm::unlink(&lock_name(self.name));
    }

    fn map_fd(fd: BorrowedFd<'_>, size: u64) -> Result<NonNull<u8>> {
        if shm::facts(fd)?.size < size || size > LONGEST {
            return Err(Error::Corrupted {
                why: "a segment was truncated",
            });
        }
        map::shared(fd, size as usize)
    }
}

/// Whether the process that wrote a row lives, whatever became of its byte.
fn lives(row: &SlotRow) -> bool {
    let namespace = row.namespace.get();
    if namespace == 0 || proc::namespace() != Ok(namespace) {
        // Its number means nothing here: the byte alone decides.
        return false;
    }
    let pid = row.pid.get();
    match proc::status(pid) {
        Ok(Some(status)) => {
            let started = row.started.get();
            let other = started != 0 && status.started != started;
            let known = status.stack != 0 && row.stack.get() != 0;
            // Another program runs in it: what it had attached is gone.
            let executed = known && status.stack != row.stack.get();
            !(status.is_zombie || other || executed)
        }
        Ok(None) => false,
        // No /proc, or no descriptor left to look there.
        Err(_) => proc::exists(pid),
    }
}

// SAFETY: `map` returns mappings of objects that are as long as asked for,
// page-aligned, zero when made; they are unmapped when `Shared` is dropped.
unsafe impl Platform for Shared {
    fn map(&self, number: usize, size: u64) -> Result<NonNull<u8>> {
        let place = self.segments.get(number).ok_or(Error::Corrupted {
            why: "the number of a segment",
        })?;
        if let Some(segment) = place.get() {
            return Ok(segment.base);
        }
        let (base, file) = match number {
            0 => (Self::map_fd(self.control()?, size)?, None),
            _ => {
                let name = segment_name(self.name, number);
                let fd = shm::open(&name, READ_WRITE, 0)?;
                let base = Self::map_fd(fd.as_fd(), size)?;
                (base, Some(Descriptor::new(&name, fd)?))
            }
        };
        let size = size as usize;
        Ok(place.get_or_init(|| Segment { base, size, file }).base)
    }

    fn create(&self, number: usize, size: u64, fill: &dyn Fn(NonNull<u8>)) -> Result<()> {
        let name = segment_name(self.name, number);
        let create = || shm::open(&name, CREATE | READ_WRITE, MODE);
        let fd = match create() {
            // The number is ours alone: somebody died who was removing it.
            Err(Error::Os { errno, .. }) if errno == sys::EEXIST => {
                shm::unlink(&name)?;
                create()?
            }
            fd => fd?,
        };
        let made =
            reserve(fd.as_fd(), 0, size).and_then(|()| map::shared(fd.as_fd(), size as usize));
        match made {
            Ok(base) => {
                fill(base);
                // SAFETY: mapped above, and `fill` keeps no reference.
                unsafe { map::unmap(base, size as usize) }
            }
            Err(error) => {
                let _ = shm::unlink(&name);
                Err(error)
            }
        }
    }

    fn remove(&self, number: usize) {
        let _ = shm::unlink(&segment_name(self.name, number));
    }

    fn reserve(&self, address: Address, size: u64) -> Result<()> {
        let segment = self.segments.get(address.segment()).and_then(OnceLock::get);
        let fd = match segment.and_then(|segment| segment.file.as_ref()) {
            Some(file) => file.lend(|_| ())?,
            None => self.control()?,
        };
        reserve(fd, address.offset(), size)
    }

    unsafe fn give_back(&self, address: Address, bytes: NonNull<u8>, size: u64) -> Result<()> {
        let start = address.offset();
        let first = start.next_multiple_of(PAGE);
        let end = (start + size) / PAGE * PAGE;
        if first >= end {
            return Ok(());
        }
        // SAFETY: within the range that the caller has.
        let place = unsafe { bytes.add((first - start) as usize) };
        // SAFETY: whole pages of a mapping made by `map`; nobody needs them.
        patiently(|| unsafe { map::remove_pages(place, (end - first) as usize) })
    }

    fn room(&self) -> u64 {
        let room = self.control().and_then(shm::room);
        room.ok().flatten().unwrap_or(0)
    }

    fn now(&self) -> u64 {
        proc::now()
    }

    fn sleep(&self, word: &U32, expected: u32) {
        // Interrupted, woken, too late: the caller looks again.
        let _ = futex::wait(word.as_atomic(), expected, SLEEP);
    }

    fn wake(&self, word: &U32) {
        let _ = futex::wake(word.as_atomic(), 1);
    }

    fn patience(&self) -> u64 {
        self.patience.load(Ordering::Relaxed)
    }

    fn identity(&self) -> Identity {
        // Without allocating: a child asks before it may.
        let pid = proc::pid();
        let status = proc::status(pid).ok().flatten();
        Identity {
            pid,
            started: status.map_or(0, |status| status.started),
            stack: status.map_or(0, |status| status.stack),
            namespace: proc::namespace().unwrap_or(0),
        }
    }

    fn claim(&self, slot: SlotId) -> Result<bool> {
        let mine = slot.0 as i32;
        let claimed = locks::try_for_process(self.lock_fd()?, slot.0 as u64)?;
        if claimed {
            self.claimed.store(mine, Ordering::Relaxed);
        }
        Ok(claimed)
    }

    fn disclaim(&self, slot: SlotId) {
        if let Ok(fd) = self.lock_fd() {
            let _ = locks::release_for_process(fd, slot.0 as u64);
        }
        self.claimed.store(-1, Ordering::Relaxed);
    }

    fn is_dead(&self, slot: SlotId, row: &SlotRow) -> bool {
        let locked = self
            .lock_fd()
            .and_then(|fd| locks::is_locked(fd, slot.0 as u64));
        match locked {
            Ok(true) => false,
            Ok(false) => !lives(row),
            // The lock file cannot be opened again: nobody can tell but by the
            // number, and a process of another namespace must be believed.
            Err(_) => proc::namespace() == Ok(row.namespace.get()) && !lives(row),
        }
    }

    fn is_stillborn(&self, slot: SlotId) -> bool {
        let locked = self
            .control()
            .and_then(|fd| locks::is_locked(fd, slot.0 as u64));
        locked == Ok(false)
    }

    fn is_pinned(&self) -> bool {
        let locked = self.control().and_then(|fd| locks::is_locked(fd, PIN_BYTE));
        locked != Ok(false)
    }
}
