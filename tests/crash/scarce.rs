//! Processes that have no descriptor left, for a time.
//!
//! * What could not be asked then is not taken for an answer, and is asked again later.
//! * A process whose files something has closed is not taken for dead by one that cannot look.

use crate::tools::*;
use crate::Test;
use shared_numpy::arena::handle::Name;
use shared_numpy::error::{Error, Result};
use shared_numpy::process::Arena;
use shared_numpy::sys::{cgroup, is_passing, probe, proc};
use std::os::fd::AsFd;

pub const TESTS: &[Test] = &[
    ("questions_without_descriptors", |_| questions()),
    ("liveness_without_descriptors", |_| liveness()),
    ("meeting_without_descriptors", |_| meeting()),
];

/// Does something while this process cannot open any file.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> T {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the struct that is lent to it.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    let none = libc::rlimit {
        rlim_cur: 0,
        ..limit
    };
    // SAFETY: the struct is lent to the call; what is open stays open.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) };
    let result = work();
    // SAFETY: as above.
    let reset = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!([got, set, reset], [0; 3]);
    result
}

fn is_refused<T>(answer: Result<T>) -> bool {
    matches!(answer, Err(Error::Os { errno, .. }) if is_passing(errno))
}

fn questions() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let refused = without_descriptors(|| {
        [
            is_refused(cgroup::processors()),
            is_refused(proc::most_mappings()),
            is_refused(probe::huge_pages_for(file.as_fd())),
        ]
    });
    assert_eq!(refused, [true; 3]);
    assert!(cgroup::processors().is_ok());
    assert!(proc::most_mappings().is_ok());
    assert!(probe::huge_pages_for(file.as_fd()).is_ok());
}

fn liveness() {
    let test = TestArena::new(small());
    let mut child = fork(|| {
        let block = test.allocate(100).unwrap();
        // As daemons do.
        for fd in 3..256 {
            // SAFETY: whosever they are, this child can do without.
            unsafe { libc::close(fd) };
        }
        stop();
        drop(block);
        0
    });
    child.wait_for_stop();
    // Its byte is free, and whether it lives cannot be seen.
    assert_eq!(without_descriptors(|| test.reap()), Ok(0));
    assert_eq!(snapshot(&test.arena).live().count(), 1);
    child.kill();
    assert_eq!(test.reap(), Ok(1));
    assert_empty(&test.arena);
}

/// What cannot be looked at is not taken for another's.
fn meeting() {
    let identifier = *b"met, and no file";
    let meet = || Arena::attach_or_create(None, identifier, small());
    let mut child = fork(|| {
        let _arena = meet().unwrap();
        stop();
        0
    });
    child.wait_for_stop();
    assert!(is_refused(without_descriptors(meet)));
    drop(meet().unwrap());
    child.signal(libc::SIGCONT);
    child.succeed();
    let name = Name::of_identifier(None, identifier).unwrap();
    assert_eq!(objects(name), Vec::<String>::new());
}
