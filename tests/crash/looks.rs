//! Looks at an arena from outside: what is told of one whose processes live, and of the dead's.

use crate::tools::*;
use crate::Test;
use shared_numpy::arena::format::{SlotId, TicketOwner};
use shared_numpy::arena::image::Kind;
use shared_numpy::process::{look, remove_anyway, Arena, Look, LOCK_SUFFIX};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;

pub const TESTS: &[Test] = &[
    ("a_look_tells_what_there_is", |_| told()),
    ("a_look_at_an_arena_of_ones_own_keeps_its_locks", |_| own()),
];

fn told() {
    let name = next_name();
    let sizes = [100u64, 5000, 70_000];
    let mut child = fork(|| {
        let arena = Arena::create(name, small()).unwrap();
        let blocks = sizes.map(|size| arena.allocate(size as _).unwrap());
        arena.send(&blocks[1]).unwrap();
        stop();
        0
    });
    child.wait_for_stop();
    let path = format!("/dev/shm/{}", name.as_str());
    let at = |path: &str| look(path).unwrap();
    let facts = |look: &Look| (look.ours, look.any_locked, look.locked.clone());
    let seen = at(&path);
    assert_eq!(facts(&seen), (false, Some(true), vec![Some(true)]));
    assert_eq!((seen.same_lock_file, seen.same_boot), (Some(true), true));
    let image = &seen.image;
    assert_eq!((image.kind, image.poisoned), (Kind::Arena, false));
    assert_eq!(image.odd, Vec::<String>::new());
    assert_eq!(image.slots.len(), 1);
    assert_eq!(image.slots[0].pid, child.pid as u64);
    // (Each block is as long as was asked for, or somewhat longer.)
    let mut live: Vec<_> = image.live().map(|block| block.size).collect();
    live.sort_unstable();
    assert_eq!(live.len(), 3);
    for (size, asked) in live.iter().zip(sizes) {
        assert!((asked..asked + 4096).contains(size), "{live:?}");
    }
    for block in image.live() {
        let holders: Vec<_> = block.holders.iter().collect();
        assert_eq!(holders, [SlotId(0)]);
    }
    let [ticket] = image.tickets[..] else {
        panic!("{:?}", image.tickets);
    };
    assert_eq!(ticket.owner, TicketOwner::Sender(SlotId(0)));
    let sent = image.live().find(|block| block.id == ticket.block);
    assert!((5000..9096).contains(&sent.unwrap().size));
    child.kill();
    let dead = at(&path);
    assert_eq!(facts(&dead), (false, Some(false), vec![Some(false)]));
    // Another lock file says nothing of this arena's processes, and the look tells that it is one.
    let lock = format!("{path}{LOCK_SUFFIX}");
    let kept = format!("{lock}.kept");
    fs::rename(&lock, &kept).unwrap();
    assert_eq!(at(&path).same_lock_file, None);
    let mut options = fs::OpenOptions::new();
    let another = options.write(true).create_new(true).mode(0o600).open(&lock);
    drop(another.unwrap());
    assert_eq!(at(&path).same_lock_file, Some(false));
    fs::rename(&kept, &lock).unwrap();
    assert_eq!(remove_anyway(name), Ok(true));
}

fn own() {
    let name = next_name();
    let path = format!("/dev/shm/{}", name.as_str());
    let mut child = fork(|| {
        let arena = Arena::create(name, small()).unwrap();
        let seen = look(&path).unwrap();
        assert!(seen.ours);
        assert_eq!((seen.any_locked, seen.locked), (None, vec![None]));
        stop();
        drop(arena);
        0
    });
    child.wait_for_stop();
    // (A process that closes a file loses its locks of that file.)
    let seen = look(&path).unwrap();
    assert_eq!(
        (seen.any_locked, seen.locked),
        (Some(true), vec![Some(true)])
    );
    child.signal(libc::SIGCONT);
    child.succeed();
    assert_eq!(objects(name), Vec::<String>::new());
}
