//! Arenas in another folder than that of POSIX's objects.

use crate::tools::*;
use crate::Test;
use shared_numpy::arena::handle::{Handle, Name};
use shared_numpy::error::Error;
use shared_numpy::process::{folder, remove_orphans, Arena, LOCK_SUFFIX};
use shared_numpy::sys::shm;
use std::fs;
use std::os::unix::fs::{symlink, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[
    ("an_arena_in_another_folder", |_| in_a_folder()),
    ("another_folder_is_swept", |_| swept()),
    ("arenas_on_a_disk_are_refused", |_| on_a_disk()),
    ("links_to_arenas_are_refused", |_| links()),
];

/// A folder on the tmpfs of POSIX's objects, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = Path::new("/dev/shm").join(next_name().as_str());
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn name(&self) -> Name {
        Name::new(&format!("{}/arena", self.path())).unwrap()
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_a_folder() {
    let folder = Folder::new();
    assert_eq!(folder::check(folder.path()), Ok(Some(folder.path().into())));
    let arena = Arena::create(folder.name(), small()).unwrap();
    assert_eq!(folder.files(), 2);
    assert!(!Path::new("/dev/shm/arena").exists());
    let block = arena.allocate(1000).unwrap();
    let handle = arena.send(&block).unwrap();
    let bytes = handle.encode();
    assert!(bytes.len() <= 100 + folder.path().len());
    drop((block, arena));
    assert_eq!(folder.files(), 2);
    // A process that knows no more than the handle.
    fork(|| {
        let handle = Handle::decode(&bytes).unwrap();
        let arena = Arena::attach(handle.name, 30_000).unwrap();
        assert_eq!(arena.name(), folder.name());
        drop(arena.receive(&handle).unwrap());
        0
    })
    .succeed();
    assert_eq!(folder.files(), 0);
    assert_eq!(
        Arena::attach(folder.name(), 0).err(),
        Some(Error::Os {
            call: "open",
            errno: libc::ENOENT
        })
    );
}

/// An arena of a child that was killed.
fn deserted(folder: &Folder) {
    let mut child = fork(|| {
        let _arena = Arena::create(folder.name(), small()).unwrap();
        stop();
        0
    });
    child.wait_for_stop();
    assert!(!remove_orphans(Some(folder.path()))
        .unwrap()
        .contains(&folder.name()));
    child.kill();
    assert_eq!(folder.files(), 2);
}

fn swept() {
    let folder = Folder::new();
    deserted(&folder);
    assert!(!remove_orphans(None).unwrap().contains(&folder.name()));
    assert!(remove_orphans(Some(folder.path()))
        .unwrap()
        .contains(&folder.name()));
    assert_eq!(folder.files(), 0);
    deserted(&folder);
    std::env::set_var(folder::VARIABLE, folder.path());
    let removed = remove_orphans(None).unwrap();
    std::env::remove_var(folder::VARIABLE);
    assert!(removed.contains(&folder.name()));
    assert_eq!(folder.files(), 0);
}

fn on_a_disk() {
    let disk = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(next_name().as_str()));
    fs::create_dir(&disk.0).unwrap();
    if shm::is_tmpfs(disk.path()) == Ok(true) {
        println!("SKIPPED: the folder for temporary files is on a tmpfs");
        return;
    }
    // A shorter path, by which a handle could lead there.
    let short = Folder::new();
    let link = short.0.join("disk");
    symlink(&disk.0, &link).unwrap();
    assert!(folder::check(link.to_str().unwrap()).is_err());
    let name = Name::new(&format!("{}/arena", link.display())).unwrap();
    for suffix in ["", LOCK_SUFFIX] {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(disk.0.join(format!("arena{suffix}"))).unwrap();
        file.set_len(1 << 20).unwrap();
    }
    assert_eq!(
        Arena::attach(name, 0).err(),
        Some(Error::Foreign {
            why: "its folder is not on a tmpfs"
        })
    );
}

fn links() {
    let folder = Folder::new();
    let arena = TestArena::new(small());
    for suffix in ["", LOCK_SUFFIX] {
        let target = format!("/dev/shm/{}{suffix}", arena.name().as_str());
        symlink(target, folder.0.join(format!("arena{suffix}"))).unwrap();
    }
    let attached = fork(|| match Arena::attach(folder.name(), 0) {
        Err(Error::Os { errno, .. }) if errno == libc::ELOOP => 0,
        _ => 1,
    });
    attached.succeed();
}
