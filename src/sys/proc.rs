//! Processes: the identity of this one, and whether another lives.
//!
//! Nothing here allocates: a forked child asks before it may.

use super::errno::{failed, last};
use crate::error::{Error, Result};
use nix::errno::Errno;
use std::ffi::CStr;
use std::io::Write;
use std::mem::MaybeUninit;

/// What `/proc/PID/stat` tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The letter of its state, as in `proc_pid_stat(5)`.
    pub state: u8,
    /// The number of its parent.
    pub parent: u64,
    /// Whether it is about to end: its memory and its files are gone, or going.
    pub exiting: bool,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
    /// Where its stack begins; 0 if this process may not know. A program that
    /// is executed begins with another one.
    pub stack: u64,
}

impl Status {
    /// Whether it has ended, and its parent has not asked for its status.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The number of this process: `getpid(2)`.
pub fn pid() -> u64 {
    // SAFETY: always succeeds and touches no memory.
    (unsafe { libc::getpid() }) as u64
}

/// Whether this thread is the one that the process began with, or was forked to: `gettid(2)`.
#[cfg(target_os = "linux")]
pub fn is_first_thread() -> bool {
    // SAFETY: always succeeds and touches no memory.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    thread as u64 == pid()
}

/// The effective user of this process: `geteuid(2)`.
pub fn user() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

/// The time of the system's monotonic clock in ms, to a few of them:
/// `clock_gettime(2)`, CLOCK_MONOTONIC_COARSE.
#[cfg(target_os = "linux")]
pub fn now() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes the struct that is lent to it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr()) };
    // SAFETY: written by the call, which cannot fail for this clock.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The time of the system's monotonic clock in ns: `clock_gettime(2)`, CLOCK_MONOTONIC.
#[cfg(target_os = "linux")]
pub fn monotonic() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes the struct that is lent to it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    // SAFETY: written by the call, which cannot fail for this clock.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How often this thread has gone to sleep: `getrusage(2)`, the switches that it has made itself.
#[cfg(target_os = "linux")]
pub fn sleeps() -> libc::c_long {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call writes the struct that is lent to it.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: numbers, for which zero is a value; the call cannot fail.
    unsafe { usage.assume_init() }.ru_nvcsw
}

/// How long a file this process may write: `getrlimit(2)`, RLIMIT_FSIZE.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast)] // It has 32 bits on some systems.
pub fn file_size_limit() -> u64 {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call writes the struct that is lent to it.
    match unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, limit.as_mut_ptr()) } {
        // SAFETY: written by the call, which has succeeded.
        0 => unsafe { limit.assume_init() }.rlim_cur as u64,
        _ => u64::MAX,
    }
}

/// How many processors this thread may run on: `sched_getaffinity(2)`.
#[cfg(target_os = "linux")]
pub fn processors() -> usize {
    // SAFETY: a set of bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes the set that is lent to it.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    match result {
        // SAFETY: reads the set.
        0 => (unsafe { libc::CPU_COUNT(&set) }) as usize,
        // The machine has more than such a set holds.
        _ => usize::MAX,
    }
}

/// The inode of the namespace in which this process has its number: `stat(2)`
/// of `/proc/self/ns/pid`.
///
/// # Errors
/// ENOENT if the `/proc` that is mounted is another namespace's, so that it
/// tells nothing of the numbers known here.
pub fn namespace() -> Result<u64> {
    let mut buffer = [0; 32];
    let text = read_file(c"/proc/self/stat", &mut buffer)?;
    let digits = text.split(|byte| *byte == b' ').next().unwrap_or(b"");
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    if number != Some(pid()) {
        return Err(failed("stat")(Errno::ENOENT));
    }
    let mut status = MaybeUninit::<libc::stat>::uninit();
    let path = c"/proc/self/ns/pid";
    // SAFETY: a C string, and a struct that the call writes if it succeeds.
    if unsafe { libc::stat(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(failed("stat")(last()));
    }
    // SAFETY: the call succeeded.
    let status = unsafe { status.assume_init() };
    // On 32 bits the number has 32.
    #[allow(clippy::unnecessary_cast)]
    Ok(status.st_ino as u64)
}

/// Reads the beginning of a small file: `open(2)`, `read(2)`, `close(2)`.
fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a C string that lives until the call is over.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return Err(failed("open")(last()));
    }
    // SAFETY: the buffer is lent to the call, with its length.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    let errno = last();
    // SAFETY: opened above, and nobody else knows of it.
    unsafe { libc::close(fd) };
    match usize::try_from(count) {
        Ok(count) => Ok(&buffer[..count]),
        Err(_) => Err(failed("read")(errno)),
    }
}

/// Asks for the state of process `pid`; None if there is no such process:
/// `proc_pid_stat(5)`.
pub fn status(pid: u64) -> Result<Option<Status>> {
    let mut path = [0; 32];
    // The path fits: 6 + 20 + 5 bytes, and a zero.
    let _ = write!(&mut path[..31], "/proc/{pid}/stat");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or(c"");
    let mut buffer = [0; 1024];
    match read_file(path, &mut buffer) {
        Ok(text) => Ok(parse(text)),
        // ESRCH: it ended between the open and the read.
        Err(Error::Os {
            errno: libc::ENOENT | libc::ESRCH,
            ..
        }) => match read_file(c"/proc/self/stat", &mut buffer) {
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// PF_EXITING, among the kernel's flags of a process.
const EXITING: u64 = 4;

/// Reads the fields that follow the program's name, which may hold anything.
fn parse(text: &[u8]) -> Option<Status> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    // Field 3 comes first here.
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(9 - 5)?.parse().ok()?;
    let started = fields.nth(22 - 10)?.parse().ok()?;
    let stack = fields.nth(28 - 23)?.parse().ok()?;
    Some(Status {
        state: *state.as_bytes().first()?,
        parent,
        exiting: flags & EXITING != 0,
        started,
        stack,
    })
}

/// Whether SIGKILL has been sent to process `pid`, which has not come to end yet:
/// `proc_pid_status(5)`. False if that cannot be seen.
pub fn is_killed(pid: u64) -> bool {
    let mut path = [0; 32];
    // The path fits: 6 + 20 + 7 bytes, or it is cut, and no file's.
    let _ = write!(&mut path[..31], "/proc/{pid}/status");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or(c"");
    let mut buffer = [0; 4096];
    read_file(path, &mut buffer).is_ok_and(has_pending_kill)
}

fn has_pending_kill(text: &[u8]) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let masks = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mask = line
            .strip_prefix("ShdPnd:")
            .or_else(|| line.strip_prefix("SigPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) & KILL != 0
}

/// Whether a process `pid` exists, zombies included: `kill(2)` with signal 0.
pub fn exists(pid: u64) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    if pid <= 0 {
        return false;
    }
    // SAFETY: signal 0 is never delivered.
    let found = unsafe { libc::kill(pid, 0) };
    found == 0 || last() as i32 != libc::ESRCH
}

/// How many mappings a process may have: `/proc/sys/vm/max_map_count`, `proc_sys_vm(5)`.
///
/// # Errors
/// That it cannot be read, or is no number.
pub fn most_mappings() -> Result<usize> {
    let mut buffer = [0; 32];
    let text = read_file(c"/proc/sys/vm/max_map_count", &mut buffer)?;
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| failed("read")(Errno::EINVAL))
}

/// A number for this boot of this machine, from its boot id: `random(4)`. 0 where there
/// is no /proc.
pub fn boot() -> Result<u64> {
    let mut buffer = [0; 64];
    let text = match read_file(c"/proc/sys/kernel/random/boot_id", &mut buffer) {
        // No /proc.
        Err(Error::Os {
            errno: libc::ENOENT,
            ..
        }) => return Ok(0),
        text => text?,
    };
    // FNV-1a.
    Ok(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// Fills `bytes` with random ones: `getrandom(2)`, through `syscall` since
/// glibc has it from 2.25 on only, or from `urandom(4)` where the kernel has it not.
#[cfg(target_os = "linux")]
pub fn random(bytes: &mut [u8]) -> Result<()> {
    let (start, length) = (bytes.as_mut_ptr(), bytes.len());
    // SAFETY: the buffer is lent to the call, with its length.
    let count = unsafe { libc::syscall(libc::SYS_getrandom, start, length, 0) };
    match usize::try_from(count) {
        Ok(count) if count == length => Ok(()),
        Ok(_) => Err(failed("getrandom")(Errno::EINTR)),
        // Before Linux 3.17.
        Err(_) if last() == Errno::ENOSYS => match read_file(c"/dev/urandom", bytes)?.len() {
            read if read == length => Ok(()),
            _ => Err(failed("read")(Errno::EINTR)),
        },
        Err(_) => Err(failed("getrandom")(last())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_do_not_confuse() {
        let text = b"17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21 22 23 24 777 26";
        let status = parse(text).unwrap();
        assert_eq!((status.started, status.stack), (4242, 777));
        assert!(!status.is_zombie() && status.exiting && status.parent == 1);
        assert!(parse(b"17 (a) Z 1 2").is_none());
    }

    #[test]
    fn a_kill_on_its_way_is_seen() {
        let text =
            |mask| format!("Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t{mask}\nSigBlk:\t0");
        assert!(has_pending_kill(text("0000000000000100").as_bytes()));
        assert!(has_pending_kill(text("ffffffffffffffff").as_bytes()));
        assert!(!has_pending_kill(text("0000000000000200").as_bytes()));
        assert!(!has_pending_kill(b"ShdPnd"));
        assert!(!is_killed(pid()));
    }

    #[test]
    fn this_process_lives_and_its_stack_is_where_it_is_said() {
        let me = status(pid()).unwrap().unwrap();
        assert!(!me.is_zombie() && me.started > 0 && me.stack > 0);
        // (Its first thread may sleep by now, or run.)
        let again = status(pid()).unwrap().unwrap();
        assert_eq!((again.started, again.stack), (me.started, me.stack));
        assert!(exists(pid()));
    }

    #[test]
    fn a_zombie_is_seen_and_the_dead_are_not() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id() as u64;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !status(pid).unwrap().unwrap().is_zombie() {
            assert!(std::time::Instant::now() < end);
        }
        assert!(exists(pid));
        child.wait().unwrap();
        assert_eq!(status(pid).unwrap(), None);
        assert!(!exists(pid));
    }
}
