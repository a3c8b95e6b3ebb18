//! A platform over another one, in which calls can fail.
//!
//! What becomes of each call is decided by a function, which sees which call it is. A call
//! that fails does nothing, or half of what it should (`Short`), and reports what the system
//! reports. A call that reports nothing is not made.

use shared_numpy::arena::format::{Address, SlotId, SlotRow};
use shared_numpy::arena::platform::{Identity, Platform, Room};
use shared_numpy::arena::word::U32;
use shared_numpy::error::{Error, Result};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// The calls of a platform that can fail, or that a test wants to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Map,
    Create,
    Remove,
    Reserve,
    GiveBack,
    Sleep,
    Claim,
    Disclaim,
    IsDead,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 9] = [
        Call::Map,
        Call::Create,
        Call::Remove,
        Call::Reserve,
        Call::GiveBack,
        Call::Sleep,
        Call::Claim,
        Call::Disclaim,
        Call::IsDead,
    ];
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Made,
    /// It fails with this error number, and has done nothing.
    Fails(i32),
    /// It fails with this error number halfway.
    Short(i32),
}

type Decide = dyn Fn(Call) -> Fate + Send + Sync;

/// Whatever happens on `inner`, but for what `decide` has fail.
pub struct Faulty {
    inner: Arc<dyn Platform>,
    decide: Mutex<Arc<Decide>>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Platform>) -> Arc<Self> {
        let decide: Arc<Decide> = Arc::new(|_| Fate::Made);
        Arc::new(Faulty {
            inner,
            decide: Mutex::new(decide),
        })
    }

    /// Has `decide` say what becomes of each call from now on.
    pub fn decide(&self, decide: impl Fn(Call) -> Fate + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Arc::new(decide);
    }

    /// Has all calls made again.
    pub fn mend(&self) {
        self.decide(|_| Fate::Made);
    }

    fn fate(&self, call: Call) -> Fate {
        // Not under the lock: it may call this platform.
        let decide = self.decide.lock().unwrap().clone();
        decide(call)
    }

    /// Makes a call; `half` of it if it is to end so.
    fn make<T>(
        &self,
        call: Call,
        name: &'static str,
        half: impl FnOnce(),
        whole: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let errno = match self.fate(call) {
            Fate::Made => return whole(),
            Fate::Fails(errno) => errno,
            Fate::Short(errno) => {
                half();
                errno
            }
        };
        Err(Error::Os { call: name, errno })
    }
}

/// Half of so many bytes, in words.
fn half_of(size: u64) -> u64 {
    size / 2 / 64 * 64
}

// SAFETY: what is mapped is the platform's below.
unsafe impl Platform for Faulty {
    fn map(&self, number: usize, size: u64) -> Result<NonNull<u8>> {
        let whole = || self.inner.map(number, size);
        self.make(Call::Map, "mmap", || (), whole)
    }

    fn create(&self, number: usize, size: u64, fill: &dyn Fn(NonNull<u8>)) -> Result<()> {
        // The platform leaves nothing of a segment that it could not finish.
        let half = || {
            if self.inner.create(number, size, fill).is_ok() {
                self.inner.remove(number);
            }
        };
        let whole = || self.inner.create(number, size, fill);
        self.make(Call::Create, "posix_fallocate", half, whole)
    }

    fn unit(&self, size: u64) -> u64 {
        self.inner.unit(size)
    }

    fn remove(&self, number: usize) {
        if self.fate(Call::Remove) == Fate::Made {
            self.inner.remove(number)
        }
    }

    fn reserve(&self, address: Address, size: u64) -> Result<()> {
        let half = || {
            if half_of(size) > 0 {
                let _ = self.inner.reserve(address, half_of(size));
            }
        };
        let whole = || self.inner.reserve(address, size);
        self.make(Call::Reserve, "posix_fallocate", half, whole)
    }

    unsafe fn give_back(&self, address: Address, bytes: NonNull<u8>, size: u64) -> Result<()> {
        let half = || {
            if half_of(size) > 0 {
                // SAFETY: a part of what the caller gives back.
                let _ = unsafe { self.inner.give_back(address, bytes, half_of(size)) };
            }
        };
        // SAFETY: as promised by the caller.
        let whole = || unsafe { self.inner.give_back(address, bytes, size) };
        self.make(Call::GiveBack, "madvise", half, whole)
    }

    fn room(&self) -> Room {
        self.inner.room()
    }

    fn now(&self) -> u64 {
        self.inner.now()
    }

    fn sleep(&self, word: &U32, expected: u32) {
        if self.fate(Call::Sleep) == Fate::Made {
            self.inner.sleep(word, expected)
        }
    }

    fn wake(&self, word: &U32) {
        self.inner.wake(word)
    }

    fn patience(&self) -> u64 {
        self.inner.patience()
    }

    fn is_interrupted(&self) -> bool {
        self.inner.is_interrupted()
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn claim(&self, slot: SlotId) -> Result<bool> {
        self.make(Call::Claim, "fcntl", || (), || self.inner.claim(slot))
    }

    fn disclaim(&self, slot: SlotId) {
        if self.fate(Call::Disclaim) == Fate::Made {
            self.inner.disclaim(slot)
        }
    }

    fn is_dead(&self, slot: SlotId, row: &SlotRow) -> bool {
        // What cannot be asked is taken for alive.
        self.fate(Call::IsDead) == Fate::Made && self.inner.is_dead(slot, row)
    }

    fn is_child_gone(&self, slot: SlotId) -> bool {
        self.inner.is_child_gone(slot)
    }

    fn is_pinned(&self) -> bool {
        self.inner.is_pinned()
    }
}
