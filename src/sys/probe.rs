//! What this kernel has, asked once.
//!
//! Only an answer is remembered: where the question failed, because no descriptor or no memory was
//! left or a signal came, it is asked again.
//!
//! Kernels differ, and sandboxes forbid some calls or know only a part of them. What the arena can
//! do differently is decided by the answers here, and nowhere else; each is asked when it is first
//! needed, and the same from then on. [`machine`] asks all of them, to be shown.
//!
//! A call that is not there is told by its error number, without doing anything: a file that is
//! asked about has no name, and what is to be renamed has none either.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
use {
    super::{
        copy::Way,
        errno::{failed, is_passing},
        futex, locks, shm,
        system_files::text_of,
    },
    crate::error::{Error, Result},
    std::os::fd::{AsFd, BorrowedFd, OwnedFd},
    std::sync::atomic::{AtomicU32, AtomicU8},
    std::time::Duration,
};

/// An answer that is not known before it is asked for. (No lock: a forked child may ask, whose
/// parent was just asking in another thread.)
#[cfg(target_os = "linux")]
struct Answer(AtomicU8);

#[cfg(target_os = "linux")]
impl Answer {
    const fn unknown() -> Self {
        Answer(AtomicU8::new(0))
    }

    /// The answer; `otherwise` if the question failed.
    fn get(&self, ask: impl FnOnce() -> Option<bool>, otherwise: bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => match ask() {
                Some(answer) => {
                    self.0.store(1 + answer as u8, Ordering::Relaxed);
                    answer
                }
                None => otherwise,
            },
            known => known == 2,
        }
    }
}

/// The size of a page, in which the system gives, takes and maps memory: `sysconf(3)`,
/// _SC_PAGESIZE. A power of two: 4 KiB on most machines, up to 64 KiB on some.
pub fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: asks only.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Whether open file descriptions have locks of bytes, `fcntl(2)`, F_OFD_GETLK: since Linux
/// 3.15. `fd` is of any file with locks.
#[cfg(target_os = "linux")]
pub fn has_description_locks(fd: BorrowedFd<'_>) -> bool {
    static KNOWN: Answer = Answer::unknown();
    let ask = || match locks::ask_description(fd) {
        Ok(()) => Some(true),
        Err(Error::Os { errno, .. }) if is_missing(errno) => Some(false),
        // Of the descriptor: other code may have closed it.
        Err(_) => None,
    };
    KNOWN.get(ask, true)
}

/// Whether processes can sleep on shared memory, `futex(2)`.
#[cfg(target_os = "linux")]
pub fn can_sleep() -> bool {
    static KNOWN: Answer = Answer::unknown();
    let ask = || {
        let word = AtomicU32::new(0);
        // It is not what is expected, so that the call returns at once.
        match futex::wait(&word, 1, Duration::ZERO) {
            Err(Error::Os { errno, .. }) if [libc::EAGAIN, libc::EINTR].contains(&errno) => {
                Some(true)
            }
            Err(Error::Os { errno, .. }) if is_passing(errno) => None,
            answer => Some(answer.is_ok()),
        }
    };
    KNOWN.get(ask, true)
}

/// What this kernel has, and how the package does things here.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of a page.
    pub page_size: usize,
    /// Bytes of files can be locked for processes; None if there is no /dev/shm to try it.
    pub byte_locks: Option<bool>,
    /// They can be locked for open file descriptions.
    pub description_locks: Option<bool>,
    /// Memory can be taken before it is used.
    pub fallocate: Option<bool>,
    /// Memory within a file can be given back.
    pub punch_hole: Option<bool>,
    /// Files without a name; None if this user may make no file in /dev/shm.
    pub unnamed_files: Option<bool>,
    /// Two files can exchange their names in one step.
    pub rename_exchange: bool,
    /// Random numbers by a call of their own.
    pub getrandom: bool,
    /// Processes can sleep on shared memory.
    pub futex: bool,
    /// How long memory is copied.
    pub copy: Way,
    /// Whether shared memory has huge pages: the kernel's word for when.
    pub huge_pages: Option<String>,
}

/// Asks for all there is to know.
#[cfg(target_os = "linux")]
pub fn machine() -> Machine {
    let unnamed = shm::open_unnamed();
    // Without such files a folder does for what only asks.
    let any = match &unnamed {
        Ok(file) => file.try_clone().ok(),
        Err(_) => shm::open_folder().ok(),
    };
    let ask = |question: fn(BorrowedFd<'_>) -> bool| any.as_ref().map(|fd| question(fd.as_fd()));
    let on_file = |question: fn(&OwnedFd) -> Result<()>| {
        let file = unnamed.as_ref().ok()?;
        Some(is_there(question(file)))
    };
    Machine {
        page_size: page_size(),
        byte_locks: ask(|fd| locks::is_locked(fd, 0).is_ok()),
        description_locks: ask(has_description_locks),
        fallocate: on_file(|file| shm::allocate_natively(file.as_fd(), 0, page_size() as u64)),
        punch_hole: on_file(|file| shm::deallocate(file.as_fd(), 0, page_size() as u64)),
        unnamed_files: has_unnamed(&unnamed),
        rename_exchange: is_there(shm::rename(c"", c"", shm::Rename::Exchange)),
        getrandom: is_there(getrandom()),
        futex: can_sleep(),
        copy: Way::of_this_processor(),
        huge_pages: huge_pages(),
    }
}

/// Whether files without a name can be made, by the answer to making one; None if that says nothing.
#[cfg(target_os = "linux")]
fn has_unnamed(made: &Result<OwnedFd>) -> Option<bool> {
    match made {
        Ok(_) => Some(true),
        // (A kernel that lacks the flag sees a folder that is to be opened for writing.)
        Err(Error::Os { errno, .. }) if *errno == libc::EISDIR || is_missing(*errno) => Some(false),
        Err(_) => None,
    }
}

/// Whether a call is there that was made, perhaps in vain.
#[cfg(target_os = "linux")]
fn is_there(result: Result<()>) -> bool {
    match result {
        Err(Error::Os { errno, .. }) => !is_missing(errno),
        _ => true,
    }
}

/// Whether an error number says that a system has not what was asked for, or forbids it.
#[cfg(target_os = "linux")]
pub fn is_missing(errno: i32) -> bool {
    [
        libc::ENOSYS,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::EPERM,
        libc::ENOLCK,
        libc::ENODEV,
    ]
    .contains(&errno)
}

/// Asks for no random byte: `getrandom(2)`.
#[cfg(target_os = "linux")]
fn getrandom() -> Result<()> {
    let mut byte = 0u8;
    // SAFETY: no byte is written.
    match unsafe { libc::syscall(libc::SYS_getrandom, &raw mut byte, 0, 0) } {
        0.. => Ok(()),
        _ => Err(failed("getrandom")(super::errno::last())),
    }
}

/// When the file system of shared memory has huge pages: `never`, `always`, `within_size` or
/// `advise`; None if it cannot be seen.
#[cfg(target_os = "linux")]
fn huge_pages() -> Option<String> {
    let folder = shm::open_folder().ok()?;
    huge_pages_in(shm::facts(folder.as_fd()).ok()?.device).ok()?
}

/// When the file system of a device number has huge pages, in the kernel's words.
#[cfg(target_os = "linux")]
///
/// # Errors
/// That it could not be asked, but perhaps can the next time.
fn huge_pages_in(device: u64) -> Result<Option<String>> {
    let all = text_of("/sys/kernel/mm/transparent_hugepage/shmem_enabled")?;
    let mounts = text_of("/proc/self/mountinfo")?;
    Ok(mounts.and_then(|mounts| huge_pages_of(all.as_deref(), &mounts, device)))
}

/// [`huge_pages_in`], by what is chosen for the whole system, and by the mounts.
#[cfg(target_os = "linux")]
fn huge_pages_of(all: Option<&str>, mounts: &str, device: u64) -> Option<String> {
    let chosen = all.and_then(|text| text.split_once('[')?.1.split_once(']'));
    match chosen.map(|chosen| chosen.0) {
        // Kernels without them have no such file.
        None | Some("deny") => return Some("never".to_string()),
        Some("force") => return Some("always".to_string()),
        Some(_) => (),
    }
    let number = [libc::major(device), libc::minor(device)].map(|part| part.to_string());
    let number = number.join(":");
    // Each mount of a file system shows the same options of it, the last of all words.
    let options = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.nth(2)? == number).then(|| words.next_back())?
    })?;
    let huge = options
        .split(',')
        .find_map(|option| option.strip_prefix("huge="));
    Some(huge.unwrap_or("never").to_string())
}

/// The length of the huge pages that memory is laid out for, and the most that one may waste.
#[cfg(target_os = "linux")]
pub const HUGE_PAGE: u64 = 2 << 20;

/// How a file system gives huge pages.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Not at all; or they have another length than [`HUGE_PAGE`].
    Never,
    /// Wherever they fit within the file.
    Always,
    /// Where a mapping asks for them.
    Advised,
}

/// How the file system of an open file gives huge pages.
///
/// # Errors
/// That it could not be asked, but perhaps can the next time.
#[cfg(target_os = "linux")]
pub fn huge_pages_for(fd: BorrowedFd<'_>) -> Result<HugePages> {
    let length = text_of("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")?;
    if length.and_then(|text| text.trim().parse().ok()) != Some(HUGE_PAGE) {
        return Ok(HugePages::Never);
    }
    let granted = huge_pages_in(shm::facts(fd)?.device)?;
    Ok(match granted.as_deref() {
        Some("always" | "within_size") => HugePages::Always,
        Some("advise") => HugePages::Advised,
        _ => HugePages::Never,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_asked_for_once() {
        for right in [true, false] {
            let answer = Answer::unknown();
            assert_eq!(answer.get(|| Some(right), false), right);
            assert_eq!(answer.get(|| panic!("asked again"), !right), right);
        }
    }

    #[test]
    fn a_question_that_failed_is_asked_again() {
        let answer = Answer::unknown();
        for otherwise in [true, false] {
            assert_eq!(answer.get(|| None, otherwise), otherwise);
        }
        assert!(answer.get(|| Some(true), false));
        assert!(answer.get(|| None, false));
    }

    #[test]
    fn huge_pages_are_told_by_the_system_and_by_the_mount() {
        let device = libc::makedev(0, 27);
        let mounts = |options: &str| {
            format!(
                "21 1 0:2 / /dev rw - tmpfs a rw,huge=always\n\
                 22 1 0:27 / /dev/shm rw,nosuid shared:3 - tmpfs shm {options}\n"
            )
        };
        let plain = mounts("rw,size=4k");
        let huge = mounts("rw,huge=within_size,size=4k");
        let never = Some("always within_size advise [never] deny force\n");
        let told =
            |all, mounts: &str| huge_pages_of(all, mounts, device).unwrap_or("unknown".to_string());
        assert_eq!(told(never, &plain), "never");
        assert_eq!(told(never, &huge), "within_size");
        assert_eq!(told(never, "21 1 0:2 / /dev rw - tmpfs a rw\n"), "unknown");
        assert_eq!(told(Some("always [deny] force"), &huge), "never");
        assert_eq!(told(Some("always deny [force]"), &plain), "always");
        assert_eq!(told(None, &huge), "never");
    }

    #[test]
    fn a_folder_that_may_not_be_written_to_says_nothing_of_the_kernel() {
        let refused = |errno| {
            let call = "open";
            has_unnamed(&Err(Error::Os { call, errno }))
        };
        assert_eq!(refused(libc::EISDIR), Some(false));
        assert_eq!(refused(libc::EOPNOTSUPP), Some(false));
        assert_eq!(refused(libc::EACCES), None);
        assert_eq!(refused(libc::ENOENT), None);
    }

    #[test]
    fn this_machine_is_described() {
        let machine = machine();
        assert!(machine.page_size.is_power_of_two());
        assert_eq!(machine.byte_locks, Some(true));
        assert!(machine.futex);
    }
}
