//! Each system call fails in turn, under a shim, beneath all that a process has of an arena.
//!
//! After each fault: an error or success, tables that are right, blocks that have what was
//! written to them, and no name that is left; and without the fault the operation succeeds.
//! (`tests/conformance` states more, above these calls.)

use crate::pages::with_shim;
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::handle::{Handle, Name};
use shared_numpy::error::{Error, Result};
use shared_numpy::process::{Arena, Block};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

pub const TESTS: &[Test] = &[("each_system_call_fails", |_| each_system_call_fails())];

/// No space, no memory, no such call, later: once, or from some call on.
const FAULTS: [(i32, bool); 6] = [
    (28, false),
    (28, true),
    (12, true),
    (38, true),
    (11, false),
    INTERRUPTED,
];

/// EINTR is no failure: the call is made again.
const INTERRUPTED: (i32, bool) = (4, false);

/// More calls than any operation makes.
const MOST: i64 = 200;

/// What the shim has.
struct Shim {
    fail: extern "C" fn(i64, i32, i32),
    count: extern "C" fn() -> i64,
}

impl Shim {
    fn loaded() -> Option<Self> {
        let find = |name: &CStr| {
            // SAFETY: looks for a name among what is loaded.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        let (fail, count) = (find(c"fail_calls")?, find(c"count_calls")?);
        Some(Shim {
            // SAFETY: the shim's function of that name has this type.
            fail: unsafe {
                std::mem::transmute::<*mut libc::c_void, extern "C" fn(i64, i32, i32)>(fail)
            },
            // SAFETY: as above.
            count: unsafe {
                std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i64>(count)
            },
        })
    }

    /// Does something with all calls made; how many these are.
    fn counted(&self, work: impl FnOnce()) -> i64 {
        (self.fail)(-1, 0, 0);
        work();
        (self.count)()
    }

    /// Does something while calls fail.
    fn failing<T>(&self, nth: i64, (errno, lasts): (i32, bool), work: impl FnOnce() -> T) -> T {
        (self.fail)(nth, lasts as i32, errno);
        let result = work();
        (self.fail)(-1, 0, 0);
        result
    }

    /// Tries something with every fault.
    fn each(&self, name: &str, calls: i64, mut work: impl FnMut(i64, (i32, bool), &str)) {
        assert!(calls < MOST, "{name}: {calls}");
        for nth in 0..calls {
            for fault in FAULTS {
                work(
                    nth,
                    fault,
                    &format!("{name}: call {nth} of {calls}, {fault:?}"),
                );
            }
        }
        println!("  {name}: {calls} calls");
    }
}

fn each_system_call_fails() {
    let Some(shim) = Shim::loaded() else {
        with_shim("failing_calls", &[], &["each_system_call_fails"], false);
        return;
    };
    create(&shim);
    attach(&shim);
    operations(&shim);
    forks(&shim);
}

/// An error tells of a call, or of what it was for; and of none that was interrupted.
fn assert_told(error: Error, fault: (i32, bool), when: &str) {
    let told = matches!(
        error,
        Error::Os { .. } | Error::Full { .. } | Error::Missing { .. }
    );
    assert!(told && fault != INTERRUPTED, "{when}: {error:?}");
}

fn create(shim: &Shim) {
    let make = |name: Name| Arena::create(name, small());
    let calls = shim.counted(|| drop(make(next_name()).unwrap()));
    shim.each("create", calls, |nth, fault, when| {
        let name = next_name();
        match shim.failing(nth, fault, || make(name)) {
            Ok(arena) => {
                assert_eq!(arena.check().unwrap(), Vec::<String>::new(), "{when}");
                drop(arena);
            }
            Err(error) => assert_told(error, fault, when),
        }
        assert_eq!(objects(name), Vec::<String>::new(), "{when}");
        // The name is free.
        drop(make(name).unwrap());
        assert_eq!(objects(name), Vec::<String>::new(), "{when}");
    });
}

/// A child makes an arena, and this process attaches it.
fn attach(shim: &Shim) {
    let name = next_name();
    let mut child = fork(|| {
        let arena = Arena::create(name, small()).unwrap();
        let block = arena.allocate(1000).unwrap();
        stop();
        drop(block);
        arena.leave().unwrap();
        0
    });
    child.wait_for_stop();
    let look = || -> Result<()> {
        let arena = Arena::attach(name, 30_000)?;
        let stats = arena.stats()?;
        assert_eq!((stats.processes, stats.blocks), (2, 1));
        arena.leave()
    };
    let calls = shim.counted(|| look().unwrap());
    shim.each("attach", calls, |nth, fault, when| {
        if let Err(error) = shim.failing(nth, fault, look) {
            assert_told(error, fault, when);
        }
        look().unwrap_or_else(|error| panic!("{when}, and after it: {error}"));
    });
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(objects(name), Vec::<String>::new());
}

/// Blocks with what is in them.
type Held = Vec<(Block, u8)>;

fn keep(held: &mut Held, block: Block, byte: u8) {
    // SAFETY: the block is ours, and this long.
    unsafe { block.bytes().write_bytes(byte, block.size() as usize) };
    held.push((block, byte));
}

fn is_whole((block, byte): &(Block, u8)) -> bool {
    // SAFETY: the block is held, and this thread alone writes to it.
    let bytes =
        unsafe { std::slice::from_raw_parts(block.bytes().as_ptr(), block.size() as usize) };
    bytes.iter().all(|found| found == byte)
}

type Operation = fn(&Arena, &mut Held) -> Result<()>;

/// More than fits any segment that is there.
const MUCH: u64 = 3 << 20;

const OPERATIONS: &[(&str, Operation)] = &[
    ("allocate", |arena, held| {
        for (bytes, byte) in [(100, 1), (70_000, 2), (MUCH, 3)] {
            keep(held, arena.allocate(bytes)?, byte);
        }
        Ok(())
    }),
    ("grow", |arena, held| {
        for _ in 0..100 {
            keep(held, arena.allocate(100)?, 5);
        }
        Ok(())
    }),
    ("trim", |arena, held| {
        keep(held, arena.allocate(MUCH)?, 6);
        held.pop();
        arena.trim().map(drop)
    }),
    ("use again", |arena, held| {
        arena.trim()?;
        keep(held, arena.allocate(MUCH / 2)?, 7);
        Ok(())
    }),
    ("send and receive", |arena, held| {
        let block = arena.allocate(300_000)?;
        keep(held, block, 8);
        let sent: Result<Vec<Handle>> = (0..40)
            .map(|_| arena.send(&held.last().unwrap().0))
            .collect();
        for handle in sent? {
            held.push((arena.receive(&handle)?, 8));
        }
        Ok(())
    }),
    ("reap", |arena, _| arena.reap().map(drop)),
];

fn operations(shim: &Shim) {
    for (name, operation) in OPERATIONS {
        let calls = {
            let test = TestArena::new(small());
            shim.counted(|| operation(&test, &mut Vec::new()).unwrap())
        };
        shim.each(name, calls, |nth, fault, when| {
            let test = TestArena::new(small());
            let mut held = Vec::new();
            keep(&mut held, test.allocate(5000).unwrap(), 9);
            if let Err(error) = shim.failing(nth, fault, || operation(&test, &mut held)) {
                assert_told(error, fault, when);
            }
            assert_eq!(test.check().unwrap(), Vec::<String>::new(), "{when}");
            operation(&test, &mut held)
                .unwrap_or_else(|error| panic!("{when}, and after it: {error}"));
            assert!(held.iter().all(is_whole), "{when}");
            held.clear();
            // What was sent, and not received.
            test.cancel_unreceived(0).unwrap();
            test.trim().unwrap();
            assert_empty(&test);
            let memory = std::fs::metadata(format!("/dev/shm/{}", test.name().as_str())).unwrap();
            let used = std::os::unix::fs::MetadataExt::blocks(&memory) * 512;
            assert!(used < 2 << 20, "{when}: {used} bytes are still taken");
        });
    }
}

/// A child has its blocks also if its parent lets go of them, whatever has failed at the fork.
fn forks(shim: &Shim) {
    let done: &AtomicU64 = common();
    let calls = {
        let test = TestArena::new(small());
        let _block = test.allocate(5000).unwrap();
        shim.counted(|| fork(|| 0).succeed())
    };
    shim.each("fork", calls, |nth, fault, when| {
        let test = TestArena::new(small());
        let mut held = Vec::new();
        keep(&mut held, test.allocate(5000).unwrap(), 10);
        let mut child = shim.failing(nth, fault, || {
            fork(|| {
                (shim.fail)(-1, 0, 0);
                stop();
                done.store(held.iter().all(is_whole) as u64, Ordering::SeqCst);
                0
            })
        });
        child.wait_for_stop();
        held.clear();
        let others: Vec<Block> = (0..20).map(|_| test.allocate(5000).unwrap()).collect();
        for block in &others {
            // SAFETY: the block is ours, and this long.
            unsafe { block.bytes().write_bytes(11, block.size() as usize) };
        }
        child.signal(libc::SIGCONT);
        child.succeed();
        assert_eq!(done.swap(0, Ordering::SeqCst), 1, "{when}");
        drop(others);
        assert_eq!(test.check().unwrap(), Vec::<String>::new(), "{when}");
    });
}
