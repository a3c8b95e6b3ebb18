//! Children, arenas and numbers for the tests.

use shared_numpy::arena::check::Snapshot;
use shared_numpy::arena::handle::Name;
use shared_numpy::process::{Arena, Settings};
use std::sync::atomic::{AtomicU32, Ordering};

/// An arena of this test's own, removed when it is dropped by the process that
/// made it.
pub struct TestArena {
    pub arena: Arena,
    maker: u32,
}

impl TestArena {
    pub fn new(settings: Settings) -> Self {
        Self::named(next_name(), settings)
    }

    pub fn named(name: Name, settings: Settings) -> Self {
        TestArena {
            arena: Arena::create(name, settings).unwrap(),
            maker: std::process::id(),
        }
    }
}

impl std::ops::Deref for TestArena {
    type Target = Arena;
    fn deref(&self) -> &Arena {
        &self.arena
    }
}

impl Drop for TestArena {
    fn drop(&mut self) {
        if std::process::id() == self.maker {
            let name = self.name();
            // What is in flight would keep the names.
            let _ = self.arena.cancel_unreceived(0);
            let _ = self.arena.leave();
            let left = objects(name);
            assert!(
                left.is_empty() || std::thread::panicking(),
                "left: {left:?}"
            );
        }
    }
}

/// A name that no other test and no other process uses.
pub fn next_name() -> Name {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let prefix = std::env::var("SNP_PREFIX").unwrap_or("snp-crash".to_string());
    Name::new(&format!("{prefix}-{}-{number}", std::process::id())).unwrap()
}

/// The objects of an arena that are there.
pub fn objects(name: Name) -> Vec<String> {
    let name = name.as_str();
    let dotted = format!("{name}.");
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|n| n == name || n.starts_with(&dotted))
        .collect()
}

/// A small arena: tables that grow early, no grace.
pub fn small() -> Settings {
    Settings {
        size: 160 << 10,
        longest: 1 << 30,
        grace: 0,
        warm: 1 << 40,
        least: 160 << 10,
        processes: 256,
        patience: 30_000,
        block_shift: 5,
        ticket_shift: 4,
        tree: 0,
    }
}

/// A child of this process. It is killed when it is dropped.
pub struct Child {
    pub pid: libc::pid_t,
    reaped: bool,
}

/// Runs `work` in a forked child, which exits with what it returns.
pub fn fork(work: impl FnOnce() -> i32) -> Child {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // Should this test be ended, nothing of it goes on.
        // SAFETY: sets an attribute of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(code.unwrap_or(101)) };
    }
    Child { pid, reaped: false }
}

impl Child {
    pub fn wait(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: waits for a child of ours; `status` is lent.
        let found = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(found, self.pid);
        self.reaped |= libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        status
    }

    /// Its number, for whoever waits for it from now on.
    pub fn give_away(mut self) -> libc::pid_t {
        self.reaped = true;
        self.pid
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a child of ours that was not waited for.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Kills it and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !self.reaped {
            self.signal(libc::SIGKILL);
            while !self.reaped {
                self.wait();
            }
        }
    }

    /// Waits for its end, which must be a success.
    pub fn succeed(mut self) {
        let status = self.wait();
        assert!(
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            "a child ended with status {status:#x}"
        );
    }

    /// Waits until it has stopped itself.
    pub fn wait_for_stop(&mut self) {
        let mut status = 0;
        // SAFETY: as in `wait`.
        unsafe { libc::waitpid(self.pid, &mut status, libc::WUNTRACED) };
        assert!(libc::WIFSTOPPED(status), "status {status:#x}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// This process and its children run on one processor while this lives.
pub struct Pinned(libc::cpu_set_t);

impl Pinned {
    pub fn new() -> Self {
        // SAFETY: a set of bits, for which zero is a value.
        let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of::<libc::cpu_set_t>();
        // SAFETY: the set is lent to the call, with its size.
        assert_eq!(unsafe { libc::sched_getaffinity(0, size, &mut before) }, 0);
        let first = (0..libc::CPU_SETSIZE as usize)
            // SAFETY: within the set.
            .find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &before) })
            .unwrap();
        // SAFETY: as above.
        let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: within the set.
        unsafe { libc::CPU_SET(first, &mut one) };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size, &one) }, 0);
        Pinned(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let size = std::mem::size_of::<libc::cpu_set_t>();
        // SAFETY: the set is lent to the call, with its size.
        unsafe { libc::sched_setaffinity(0, size, &self.0) };
    }
}

/// Stops this process until it is told to go on.
pub fn stop() {
    // SAFETY: a signal to this process.
    unsafe { libc::raise(libc::SIGSTOP) };
}

pub fn snapshot(arena: &Arena) -> Snapshot {
    // Which gives back what this process keeps for later.
    arena.stats().unwrap();
    let snapshot = arena.core().snapshot(arena.member().unwrap()).unwrap();
    assert_eq!(snapshot.check(), Vec::<String>::new());
    snapshot
}

/// Nothing is in the arena, and nobody but this process.
pub fn assert_empty(arena: &Arena) {
    arena.reap().unwrap();
    let snapshot = snapshot(arena);
    assert_eq!(snapshot.live().count(), 0, "{:?}", snapshot.live().next());
    assert_eq!(snapshot.open().count(), 0);
    assert_eq!(snapshot.bytes(), (0, snapshot.capacity()));
    assert_eq!(snapshot.slots.iter().filter(|slot| slot.0 != 0).count(), 1);
}

/// Zeroed memory that this process and the children that it will have share.
///
/// It must be of atomics only.
pub fn common<T: Sync>() -> &'static T {
    let length = std::mem::size_of::<T>();
    // SAFETY: a new mapping touches no other.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert_ne!(place, libc::MAP_FAILED);
    // SAFETY: zeros of that length, which atomics may be, and never unmapped.
    unsafe { &*place.cast::<T>() }
}
