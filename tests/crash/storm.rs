//! Random SIGKILL under load.
//!
//! Workers allocate, free, send to each other through a pipe, receive, cancel,
//! fork children that do the same, and outgrow their arena again and again,
//! while their parent kills one after the other at random moments. Properties:
//!
//! * what a process finds in a block is what was written for that very life of
//!   that block, when it receives it, when it frees it, and in forked children;
//! * no worker ends but by the parent's signal;
//! * after each death the checker finds nothing wrong;
//! * when all are dead, the arena is exactly empty.
//!
//! Each worker says in a page of shared memory what it is doing, so that deaths
//! can be counted by what they hit.

use crate::run;
use crate::run::seed::{self, times, Random};
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::format::TicketOwner;
use shared_numpy::arena::handle::Handle;
use shared_numpy::error::Error;
use shared_numpy::process::{Arena, Block, Settings};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("storm", storm)];

const WORKERS: usize = 4;
/// Deaths in one arena before all die.
const ROUNDS: u64 = 24;

/// What a worker does.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Doing {
    Nothing,
    Forking,
    Growing,
    Other,
}

/// What the workers tell their parent.
struct Board {
    doing: [AtomicU32; WORKERS],
    received: AtomicU32,
    stale: AtomicU32,
}

/// A pipe that never waits.
struct Pipe([i32; 2]);

impl Pipe {
    fn new() -> Self {
        let mut ends = [0; 2];
        // SAFETY: the array is lent to the call.
        let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
        assert_eq!(made, 0);
        Pipe(ends)
    }

    fn put(&self, bytes: &[u8]) -> bool {
        // SAFETY: the bytes are lent to the call; so few are written at once.
        let count = unsafe { libc::write(self.0[1], bytes.as_ptr().cast(), bytes.len()) };
        count == bytes.len() as isize
    }

    fn get(&self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        // SAFETY: the buffer is lent to the call.
        let count = unsafe { libc::read(self.0[0], bytes.as_mut_ptr().cast(), length) };
        (count == length as isize).then_some(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for end in self.0 {
            // SAFETY: our own descriptor.
            unsafe { libc::close(end) };
        }
    }
}

fn value(block: &Block) -> u64 {
    block.which().generation << 32 | block.which().id.0 as u64 | 1 << 63
}

/// Both ends of a block, as words.
fn ends(block: &Block) -> [*mut u64; 2] {
    let first = block.bytes().as_ptr().cast::<u64>();
    [first, first.wrapping_add(block.size() as usize / 8 - 1)]
}

fn stamp(block: &Block) {
    for end in ends(block) {
        // SAFETY: within the block, which this process holds.
        unsafe { end.write_volatile(value(block)) };
    }
}

fn verify(block: &Block, when: &str) {
    for end in ends(block) {
        // SAFETY: within the block, which this process holds.
        let found = unsafe { end.read_volatile() };
        if found != value(block) {
            eprintln!("{when}: block {:?} holds {found:x}", block.which());
            std::process::abort();
        }
    }
}

struct Worker<'a> {
    arena: &'a Arena,
    pipe: &'a Pipe,
    board: &'a Board,
    number: usize,
    random: Random,
    blocks: Vec<Block>,
    handle_length: usize,
}

impl Worker<'_> {
    fn doing(&self, what: Doing) {
        self.board.doing[self.number].store(what as u32, Ordering::Relaxed);
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.blocks.len() as u64) as usize
    }

    fn allocate(&mut self) {
        let size = match self.random.below(400) {
            0 => 4_000_000 + self.random.below(3_000_000),
            1..=9 => 200_000 + self.random.below(400_000),
            _ => 16 + self.random.below(30_000),
        };
        if self.blocks.len() >= 60 {
            return;
        }
        self.doing(if size > 100_000 {
            Doing::Growing
        } else {
            Doing::Other
        });
        match self.arena.allocate(size) {
            Ok(block) => {
                stamp(&block);
                self.blocks.push(block);
            }
            Err(Error::Full { .. }) => {}
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: Error) -> ! {
        eprintln!("worker: {error}");
        std::process::abort()
    }

    fn release(&mut self) {
        if !self.blocks.is_empty() {
            let which = self.pick();
            let block = self.blocks.swap_remove(which);
            verify(&block, "own");
        }
    }

    fn send(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let which = self.pick();
        match self.arena.send(&self.blocks[which]) {
            Ok(handle) => {
                let sent = self.random.below(8) > 0 && self.pipe.put(&handle.encode());
                if !sent {
                    match self.arena.cancel(&handle) {
                        Ok(true) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            Err(Error::Full { .. }) => {}
            Err(error) => self.fail(error),
        }
    }

    fn receive(&mut self) {
        let Some(bytes) = self.pipe.get(self.handle_length) else {
            return;
        };
        match self.arena.receive(&Handle::decode(&bytes).unwrap()) {
            Ok(block) => {
                verify(&block, "received");
                self.board.received.fetch_add(1, Ordering::Relaxed);
                self.blocks.push(block);
            }
            Err(Error::Stale) => {
                self.board.stale.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.fail(error),
        }
    }

    /// A child that looks at what it inherited and works on for a while.
    fn fork(&mut self) {
        self.doing(Doing::Forking);
        // SAFETY: a worker has one thread.
        let pid = unsafe { libc::fork() };
        if pid != 0 {
            return;
        }
        for block in &self.blocks {
            verify(block, "inherited");
        }
        for _ in 0..self.random.below(60) {
            self.step(false);
        }
        for block in self.blocks.drain(..) {
            verify(&block, "inherited, at the end");
        }
        if self.random.below(2) == 0 {
            let _ = self.arena.leave();
        }
        // SAFETY: ends the child without its parent's exit handlers.
        unsafe { libc::_exit(0) };
    }

    fn step(&mut self, forks: bool) {
        match self.random.below(300) {
            0 if forks => self.fork(),
            0..=99 => self.allocate(),
            100..=189 => self.release(),
            190..=239 => self.send(),
            240..=297 => self.receive(),
            _ => {
                if let Err(error) = self.arena.reap() {
                    self.fail(error);
                }
            }
        }
        self.doing(Doing::Nothing);
        // Ended children are waited for, now and then.
        if self.random.below(64) == 0 {
            // SAFETY: does not wait, asks for no status.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        }
    }
}

fn work(arena: &Arena, pipe: &Pipe, board: &Board, number: usize, seed: u64) -> i32 {
    let handle_length = 60 + arena.name().as_str().len();
    let mut worker = Worker {
        arena,
        pipe,
        board,
        number,
        random: Random::new(seed),
        blocks: Vec::new(),
        handle_length,
    };
    // SAFETY: its own group, so that its children die with it.
    unsafe { libc::setpgid(0, 0) };
    loop {
        worker.step(true);
    }
}

/// Deaths, by what they hit.
#[derive(Default, Debug)]
struct Deaths {
    all: u64,
    forking: u64,
    growing: u64,
    with_the_lock: u64,
}

pub fn kill_group(child: Child) {
    // The worker may not have made its group yet.
    // SAFETY: the group and the process are this test's own.
    unsafe { libc::kill(-child.pid, libc::SIGKILL) };
    child.signal(libc::SIGKILL);
    let mut child = child;
    let status = child.wait();
    assert!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL,
        "a worker ended by itself: {status:#x}"
    );
}

/// Waits for grandchildren whose parents died; each must have ended well.
pub fn wait_for_orphans(all: bool) {
    loop {
        let mut status = 0;
        let flags = if all { 0 } else { libc::WNOHANG };
        // SAFETY: the status is lent to the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, flags) };
        if pid <= 0 {
            return;
        }
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let ended = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        assert!(
            killed || ended,
            "a child of a worker ended with {status:#x}"
        );
    }
}

/// One arena, from its making to the death of all.
fn one_arena(random: &mut Random, board: &'static Board, deaths: &mut Deaths) -> u64 {
    let settings = Settings {
        grace: random.below(2) * 5,
        warm: random.below(3) * 2_000_000,
        ..small()
    };
    let test = TestArena::new(settings);
    let arena = &test.arena;
    let header = arena.core().header();
    let pipe = Pipe::new();
    let mut workers: Vec<Option<Child>> = (0..WORKERS).map(|_| None).collect();
    for _ in 0..ROUNDS {
        for (number, worker) in workers.iter_mut().enumerate() {
            if worker.is_none() {
                let seed = random.below(u64::MAX) | 1;
                *worker = Some(fork(|| work(arena, &pipe, board, number, seed)));
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(2500)));
        let number = random.below(WORKERS as u64) as usize;
        kill_group(workers[number].take().unwrap());
        deaths.all += 1;
        match board.doing[number].swap(0, Ordering::Relaxed) {
            doing if doing == Doing::Forking as u32 => deaths.forking += 1,
            doing if doing == Doing::Growing as u32 => deaths.growing += 1,
            _ => {}
        }
        wait_for_dead_children(&workers);
        if random.below(2) == 0 {
            arena.reap().unwrap();
        }
        snapshot(arena);
    }
    for worker in workers.into_iter().flatten() {
        kill_group(worker);
        deaths.all += 1;
    }
    wait_for_orphans(true);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        arena.reap().unwrap();
        // What those who left in peace had sent is the arena's.
        let snapshot = snapshot(arena);
        if snapshot
            .open()
            .all(|ticket| ticket.owner == Ok(TicketOwner::Arena))
        {
            break;
        }
        assert!(Instant::now() < end, "left: {:?}", snapshot.open().next());
        std::thread::yield_now();
    }
    arena.cancel_unreceived(0).unwrap();
    assert_empty(arena);
    deaths.with_the_lock += header.counters.recovered.get();
    header.counters.grown.get()
}

/// Reaps grandchildren without touching the workers' own entries.
fn wait_for_dead_children(workers: &[Option<Child>]) {
    loop {
        // SAFETY: zeroed numbers; the call fills them.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the struct is lent to the call.
        let found = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) };
        // SAFETY: filled by the call, or zero.
        let pid = unsafe { info.si_pid() };
        if found != 0 || pid == 0 {
            return;
        }
        let worker = workers.iter().flatten().any(|worker| worker.pid == pid);
        assert!(!worker, "a worker ended by itself");
        let mut status = 0;
        // SAFETY: a child that has ended.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let ended = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        assert!(
            killed || ended,
            "a child of a worker ended with {status:#x}"
        );
    }
}

fn storm(full: bool) {
    // Children of dead workers become this process's.
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let wanted = seed::number_in("SNP_KILLS").unwrap_or(if full { 25_000 } else { times(500) });
    let mut random = Random::new(seed::of_test("storm"));
    let board: &'static Board = common();
    let mut deaths = Deaths::default();
    let mut segments = 0;
    while deaths.all < wanted {
        run::go_on();
        segments += one_arena(&mut random, board, &mut deaths);
    }
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 0) };
    println!(
        "  {} deaths: {} recoveries from a dead owner of the lock, {} during a fork, {} during \
         growth; {} blocks received, {} handles stale, {segments} segments added",
        deaths.all,
        deaths.with_the_lock,
        deaths.forking,
        deaths.growing,
        board.received.load(Ordering::Relaxed),
        board.stale.load(Ordering::Relaxed),
    );
    assert!(board.received.load(Ordering::Relaxed) > 0);
}
