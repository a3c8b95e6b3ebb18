//! Children that see a tmpfs of their own in place of `/dev/shm`.

use crate::tools::fork;
use std::ffi::{CStr, CString};

/// Runs `work` in a child of its own mount namespace, where `/dev/shm` is a tmpfs with these
/// options; says so if that is not permitted. Nobody else's `/dev/shm` changes.
pub fn in_a_tmpfs(options: &str, work: impl FnOnce()) {
    fork(|| {
        if !has_its_own_mounts() || !mount_tmpfs(options) {
            println!("  skipped: no mount namespaces here");
            return 0;
        }
        work();
        0
    })
    .succeed();
}

/// Runs `work` in a child where no other program of this machine sweeps, as all do when they start:
/// with a `/dev/shm` of its own, if that is permitted.
pub fn undisturbed(work: impl FnOnce()) {
    fork(|| {
        if !has_its_own_mounts() || !mount_tmpfs("size=64m") {
            println!("  no mount namespaces here: another program may sweep first");
        }
        work();
        0
    })
    .succeed();
}

/// Gives this process a mount namespace, and a user namespace if it needs one for that.
fn has_its_own_mounts() -> bool {
    // SAFETY: asks only.
    let user = unsafe { libc::geteuid() };
    // SAFETY: asks only.
    let group = unsafe { libc::getegid() };
    // SAFETY: changes this process's own namespaces.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) } != 0 {
        // After a chroot there are no user namespaces, and root needs none.
        // SAFETY: as above.
        return unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    }
    // Who is nobody in a namespace can make no file there.
    let _ = std::fs::write("/proc/self/setgroups", "deny");
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
        .is_ok()
}

/// Mounts a tmpfs over `/dev/shm`, in this process's mount namespace alone.
fn mount_tmpfs(options: &str) -> bool {
    let mount = |kind: &CStr, flags, options: &CStr| {
        // SAFETY: C strings that live until the call is over.
        let result = unsafe {
            libc::mount(
                kind.as_ptr(),
                c"/dev/shm".as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        };
        result == 0
    };
    // Else the other namespaces would see it, too. (It fails if nothing is mounted there.)
    let options = CString::new(options).unwrap();
    mount(c"none", libc::MS_PRIVATE, c"") && mount(c"tmpfs", 0, &options)
}
