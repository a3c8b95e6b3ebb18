//! A child's run, instruction by instruction, and deaths at any moment of it.
//!
//! A child that has come to the `stop()` before its operation is stepped through it once by its
//! parent (ptrace). What is written down is a [`Run`]: where each instruction lies, which of
//! them changed the memory that is watched, and which were system calls. Any other child does
//! the same from the same start, and is brought to a moment of that run by a breakpoint at an
//! instruction, of which the run says for which time it comes, and by a few steps from there.
//! Each step takes two switches between processes, so that thousands of them take a second,
//! and the way by a breakpoint next to nothing. On processors whose breakpoints are not known
//! here every way is stepped, and nothing is known of system calls.
//!
//! A child that finds another way than the first did (something else was read from a file, or
//! time was over) does not come by, or changes something else than was changed then. That is
//! seen, and another child is stepped and looked at until it has made as many changes. So is
//! each of an operation that waits for a time, since stepping takes more of it.

use crate::run;
use crate::run::seed::{self, Random};
use crate::tools::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Instant;

/// When a child is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// After so many instructions.
    Instruction(u64),
    /// After the instruction that changed the watched memory for the n-th time in the run.
    Change(u64),
    /// After the n-th change that is seen, whatever the run was.
    Sought(u64),
    /// At the end of its operation.
    End,
}

/// Whether a child came to its moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Came {
    There,
    /// Its operation ended before.
    Ended,
    /// It did not make the change that it should have made.
    Astray,
}

/// What this processor's instructions are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod machine {
    use crate::tools::Child;

    #[cfg(target_arch = "x86_64")]
    mod code {
        /// A system call.
        pub const CALL: [u8; 2] = [0x0f, 0x05];
        /// An instruction that traps, and the bits in whose place it is.
        pub const TRAP: (u64, u64) = (0xcc, 0xff);
        /// How far behind its beginning it does.
        pub const TRAPS_BEHIND: u64 = 1;

        pub fn next(registers: &mut libc::user_regs_struct) -> &mut u64 {
            &mut registers.rip
        }
    }

    #[cfg(target_arch = "aarch64")]
    mod code {
        pub const CALL: [u8; 4] = 0xd400_0001_u32.to_le_bytes();
        pub const TRAP: (u64, u64) = (0xd420_0000, 0xffff_ffff);
        pub const TRAPS_BEHIND: u64 = 0;

        pub fn next(registers: &mut libc::user_regs_struct) -> &mut u64 {
            &mut registers.pc
        }
    }

    /// The general registers, as `ptrace(2)` names them.
    const GENERAL: usize = libc::NT_PRSTATUS as usize;

    fn part_of(registers: &mut libc::user_regs_struct) -> libc::iovec {
        libc::iovec {
            iov_len: std::mem::size_of_val(registers),
            iov_base: std::ptr::from_mut(registers).cast(),
        }
    }

    fn registers(child: &Child) -> libc::user_regs_struct {
        // SAFETY: a struct of numbers, for which zero is a value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let mut part = part_of(&mut registers);
        // SAFETY: a child that this process traces and that has stopped; the struct is lent.
        let got = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, child.pid, GENERAL, &mut part) };
        assert_eq!(got, 0);
        registers
    }

    /// The address of the instruction that comes next.
    pub fn place(child: &Child) -> Option<u64> {
        Some(*code::next(&mut registers(child)))
    }

    /// Whether an instruction is a system call.
    pub fn is_call(code: u64) -> bool {
        let found = code as *const [u8; code::CALL.len()];
        // SAFETY: the code of a child is this process's own, of which it was forked.
        unsafe { found.read_volatile() == code::CALL }
    }

    /// An instruction in whose place one is that traps.
    pub struct Breakpoint {
        code: u64,
        words: [u64; 2],
    }

    impl Breakpoint {
        pub fn new(code: u64) -> Self {
            let aligned = (code & !7) as *const u64;
            // SAFETY: as above; a page has the whole of an aligned word.
            let word = unsafe { aligned.read_volatile() };
            let shift = 8 * (code & 7);
            let (trap, mask) = code::TRAP;
            let words = [word, word & !(mask << shift) | trap << shift];
            Breakpoint { code, words }
        }

        /// Puts it into a process that is stopped, or the instruction that was there before.
        pub fn put(&self, pid: libc::pid_t, is_set: bool) {
            let (aligned, word) = (self.code & !7, self.words[is_set as usize]);
            // SAFETY: a process that this one traces and that has stopped; its code is its own.
            let put = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, pid, aligned, word) };
            assert_eq!(put, 0, "no breakpoint at {:#x}", self.code);
        }

        /// A child has come by: takes it back before the trap.
        pub fn take_back(&self, child: &Child) {
            let mut registers = registers(child);
            let next = code::next(&mut registers);
            assert_eq!(*next, self.code + code::TRAPS_BEHIND, "another trap");
            *next = self.code;
            let mut part = part_of(&mut registers);
            // SAFETY: as in `registers`.
            let set =
                unsafe { libc::ptrace(libc::PTRACE_SETREGSET, child.pid, GENERAL, &mut part) };
            assert_eq!(set, 0);
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    use crate::tools::Child;

    pub fn place(_child: &Child) -> Option<u64> {
        None
    }

    pub fn is_call(_code: u64) -> bool {
        false
    }

    /// There are none.
    pub struct Breakpoint;

    impl Breakpoint {
        pub fn new(_code: u64) -> Self {
            unreachable!()
        }

        pub fn put(&self, _pid: libc::pid_t, _is_set: bool) {}

        pub fn take_back(&self, _child: &Child) {}
    }
}

use machine::Breakpoint;

/// Whether this process may trace its children, and step them.
pub fn can_trace() -> bool {
    // A step between an exclusive load and its store keeps that from ever succeeding: atomics
    // have to be one instruction each.
    #[cfg(target_arch = "aarch64")]
    if !std::arch::is_aarch64_feature_detected!("lse") {
        return false;
    }
    let mut child = fork(|| {
        // SAFETY: makes this process's parent its tracer.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        (traced != 0) as i32
    });
    let status = child.wait();
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// A child that has come to the first `stop()` of its work, and can be stepped from there.
pub fn traced(work: impl FnOnce()) -> Child {
    let mut child = fork(|| {
        // SAFETY: makes this process's parent its tracer.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        work();
        stop();
        // SAFETY: ends the child with all that it has.
        unsafe { libc::_exit(0) };
    });
    let status = child.wait();
    assert!(
        libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP,
        "status {status:#x}"
    );
    // Of its forks we are told, since a breakpoint would be the grandchild's, too.
    // SAFETY: a child that this process traces and that has stopped.
    let told = unsafe {
        libc::ptrace(
            libc::PTRACE_SETOPTIONS,
            child.pid,
            0,
            libc::PTRACE_O_TRACEFORK,
        )
    };
    assert_eq!(told, 0);
    child
}

/// Lets a child go on, by one instruction or up to a breakpoint; false if its operation ended.
fn resume(child: &mut Child, request: libc::c_uint, breakpoint: Option<&Breakpoint>) -> bool {
    loop {
        // SAFETY: a child that this process traces and that has stopped.
        let resumed = unsafe { libc::ptrace(request, child.pid, 0, 0) };
        assert_eq!(resumed, 0);
        let status = child.wait();
        assert!(libc::WIFSTOPPED(status), "status {status:#x}");
        match (libc::WSTOPSIG(status), status >> 16) {
            (libc::SIGTRAP, 0) => return true,
            (libc::SIGTRAP, libc::PTRACE_EVENT_FORK) => let_grandchild_go(child, breakpoint),
            (libc::SIGSTOP, _) => return false,
            (libc::SIGCHLD, _) => {}
            (signal, _) => panic!("signal {signal}"),
        }
    }
}

/// A child has forked: nobody traces the new process.
fn let_grandchild_go(child: &Child, breakpoint: Option<&Breakpoint>) {
    let mut message: libc::c_ulong = 0;
    // SAFETY: a child that this process traces and that has stopped; the number is lent.
    let got = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, child.pid, 0, &mut message) };
    assert_eq!(got, 0);
    let (pid, mut status) = (message as libc::pid_t, 0);
    // SAFETY: waits for its first stop; `status` is lent.
    let found = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
    assert!(found == pid && libc::WIFSTOPPED(status));
    if let Some(breakpoint) = breakpoint {
        breakpoint.put(pid, false);
    }
    // SAFETY: a process that this one traces and that has stopped.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) }, 0);
}

/// Lets a child do `k` instructions; true if its operation ended before.
pub fn step(child: &mut Child, k: u64) -> bool {
    (0..k).any(|_| !resume(child, libc::PTRACE_SINGLESTEP, None))
}

/// Lets a child go on to the beginning or the end of its next system call; false if its operation
/// ended before.
pub fn to_system_call(child: &mut Child) -> bool {
    resume(child, libc::PTRACE_SYSCALL, None)
}

/// Words as they were when they were looked at.
struct Seen<'a>(Vec<(&'a [AtomicU64], Vec<u64>)>);

impl<'a> Seen<'a> {
    fn new(watched: &[&'a [AtomicU64]]) -> Self {
        let copy = |part: &'a [AtomicU64]| {
            let words = part.iter().map(|word| word.load(Ordering::Relaxed));
            (part, words.collect())
        };
        Seen(watched.iter().map(|part| copy(part)).collect())
    }

    /// Looks again; the first that has changed, by its part and its place there.
    fn changed(&mut self) -> Option<(usize, usize)> {
        let mut first = None;
        for (i, (part, seen)) in self.0.iter_mut().enumerate() {
            let (now, length) = (part.as_ptr().cast(), std::mem::size_of_val(*part));
            // Most often nothing has changed, and this is quicker than any loop.
            // SAFETY: both are so long; the child has stopped, and what another process writes
            // meanwhile is seen now or the next time.
            if unsafe { libc::memcmp(now, seen.as_ptr().cast(), length) } == 0 {
                continue;
            }
            for (j, (seen, word)) in seen.iter_mut().zip(*part).enumerate() {
                let now = word.load(Ordering::Relaxed);
                if now != *seen {
                    *seen = now;
                    first = first.or(Some((i, j)));
                }
            }
        }
        first
    }
}

/// How to come to a moment: to an instruction for the n-th time, and by steps from there.
#[derive(Clone, Copy, Debug)]
struct Way {
    code: u64,
    times: u64,
    steps: u64,
}

impl Way {
    /// Brings a child there; true if its operation ended before.
    fn go(&self, child: &mut Child) -> bool {
        if self.times > 0 {
            let breakpoint = Breakpoint::new(self.code);
            for time in 0..self.times {
                // Over the instruction itself.
                if time > 0 && !resume(child, libc::PTRACE_SINGLESTEP, None) {
                    return true;
                }
                breakpoint.put(child.pid, true);
                if !resume(child, libc::PTRACE_CONT, Some(&breakpoint)) {
                    return true;
                }
                breakpoint.take_back(child);
                breakpoint.put(child.pid, false);
            }
        }
        step(child, self.steps)
    }
}

/// The addresses of instructions, in the order in which they were executed, each with how
/// often it had come by then.
#[derive(Default)]
struct Path {
    instructions: Vec<(u64, u64)>,
    often: HashMap<u64, u64>,
}

impl Path {
    fn push(&mut self, code: u64) {
        let times = self.often.entry(code).or_default();
        *times += 1;
        self.instructions.push((code, *times));
    }

    /// The shortest way to behind the first `count` instructions.
    fn way(&self, count: u64) -> Way {
        let mut best = Way {
            code: 0,
            times: 0,
            steps: count,
        };
        let known = self.instructions.iter().take(count as usize + 1);
        for (i, (code, times)) in known.enumerate().rev() {
            let steps = count - i as u64;
            if 2 * best.times + best.steps <= steps {
                break;
            }
            if 2 * times + steps < 2 * best.times + best.steps {
                best = Way {
                    code: *code,
                    times: *times,
                    steps,
                };
            }
        }
        best
    }
}

/// A child's run from its first `stop()` to its second.
pub struct Run {
    path: Path,
    length: u64,
    /// After how many instructions watched memory had changed, and the first word that had.
    changes: Vec<(u64, (usize, usize))>,
    /// After how many instructions there had been a system call.
    calls: Vec<u64>,
    /// It waits for a time.
    is_timed: bool,
    start: Instant,
}

impl Run {
    /// Steps a child through its operation.
    pub fn record(mut child: Child, watched: &[&[AtomicU64]], is_timed: bool) -> Self {
        let mut seen = Seen::new(watched);
        let mut run = Run {
            path: Path::default(),
            length: 0,
            changes: Vec::new(),
            calls: Vec::new(),
            is_timed,
            start: Instant::now(),
        };
        loop {
            let code = machine::place(&child);
            if step(&mut child, 1) {
                break;
            }
            run.length += 1;
            if let Some(code) = code {
                run.path.push(code);
                if machine::is_call(code) {
                    run.calls.push(run.length);
                }
            }
            if let Some(word) = seen.changed() {
                run.changes.push((run.length, word));
            }
        }
        child.kill();
        run
    }

    /// Brings a child to a moment of this run.
    pub fn bring(&self, child: &mut Child, moment: Moment, watched: &[&[AtomicU64]]) -> Came {
        let go = |child: &mut Child, count| match self.is_timed {
            true => step(child, count),
            false => self.path.way(count).go(child),
        };
        let ended = match moment {
            Moment::Instruction(count) => go(child, count),
            Moment::Change(n) => {
                let (count, word) = self.changes[n as usize - 1];
                if go(child, count - 1) {
                    return Came::Astray;
                }
                let mut seen = Seen::new(watched);
                if step(child, 1) || seen.changed() != Some(word) {
                    return Came::Astray;
                }
                false
            }
            Moment::Sought(n) => {
                let (mut seen, mut left) = (Seen::new(watched), n);
                loop {
                    if left == 0 || step(child, 1) {
                        break left > 0;
                    }
                    left -= seen.changed().is_some() as u64;
                }
            }
            Moment::End => !resume(child, libc::PTRACE_CONT, None),
        };
        match ended {
            true => Came::Ended,
            false => Came::There,
        }
    }
}

/// Brings a child to where conditions were met, one after the other, and so many instructions
/// farther. They are looked for by steps once for each key, under which the child must do the
/// same each time.
pub fn reach(key: &str, child: &mut Child, conditions: &[&dyn Fn() -> bool], farther: u64) {
    static WAYS: Mutex<BTreeMap<String, Way>> = Mutex::new(BTreeMap::new());
    let mut ways = WAYS.lock().unwrap();
    if let Some(way) = ways.get(key) {
        assert!(!way.go(child), "{key}: it ended before");
        return;
    }
    let mut path = Path::default();
    let mut count = 0;
    let mut step_on = |child: &mut Child| {
        if let Some(code) = machine::place(child) {
            path.push(code);
        }
        assert!(!step(child, 1), "{key}: it has not come to be");
        count += 1;
    };
    for condition in conditions {
        while !condition() {
            step_on(child);
        }
    }
    (0..farther).for_each(|_| step_on(child));
    if let Some(code) = machine::place(child) {
        path.push(code);
    }
    ways.insert(key.to_string(), path.way(count));
}

/// Has children die of all operations, or of those whose names contain SNP_OPERATION, except
/// those that SNP_WITHOUT names; `die` does so and says how many did, and how many of them with
/// a lock.
pub fn each_operation<O>(
    test: &str,
    full: bool,
    all: &[O],
    name: fn(&O) -> &str,
    die: impl Fn(&O) -> [u64; 2],
) {
    if !can_trace() {
        println!("  skipped: processes may not be traced here (ptrace), or cannot be stepped");
        return;
    }
    // A step is a switch between this process and its child: many times quicker on one
    // processor than between two.
    let _pinned = Pinned::new();
    let (mut all_deaths, mut all_held) = (0, 0);
    let wanted = std::env::var("SNP_OPERATION").unwrap_or_default();
    let without = std::env::var("SNP_WITHOUT").unwrap_or_default();
    for operation in all.iter().filter(|each| name(each).contains(&wanted)) {
        if without.split(';').any(|left| left == name(operation)) {
            println!("  {}: left out", name(operation));
            continue;
        }
        run::begin(test, Some(name(operation)), full);
        let [deaths, held] = die(operation);
        all_deaths += deaths;
        all_held += held;
    }
    println!("  {all_deaths} deaths, {all_held} with the lock held");
}

/// How many deaths there are of an operation beside those at changes and calls.
const SAMPLE: u64 = 12;

/// Makes a child die at the beginning and the end of a run; at each change of what is watched
/// and behind each system call, which are all the states in which it can leave memory and
/// files; and at other moments, at all of them or at a sample that is the seed's.
///
/// A trial is told when and in what order to recover, for each change in all orders, and says
/// whether the child came there and whether it had the lock. How many deaths there were, and
/// how many with the lock.
pub fn die_everywhere<Order: Copy>(
    name: &str,
    full: bool,
    run: &Run,
    orders: &[Order],
    trial: &mut dyn FnMut(Moment, Order) -> (Came, bool),
) -> [u64; 2] {
    let [mut deaths, mut held, mut astray] = [0; 3];
    let mut die = |moment, order| {
        run::go_on();
        let (came, had_lock) = trial(moment, order);
        deaths += 1;
        held += had_lock as u64;
        came
    };
    let some = |count: u64| orders[count as usize % orders.len()];
    die(Moment::Instruction(0), some(0));
    die(Moment::End, some(0));
    for n in 1..=run.changes.len() as u64 {
        for order in orders {
            if run.is_timed || die(Moment::Change(n), *order) == Came::Astray {
                astray += 1;
                die(Moment::Sought(n), *order);
            }
        }
    }
    if full {
        for count in 1..=run.length {
            die(Moment::Instruction(count), some(count));
        }
    } else {
        for count in &run.calls {
            die(Moment::Instruction(*count), some(*count));
        }
        let stride = (run.length / seed::times(SAMPLE)).max(1);
        let first = 1 + Random::new(seed::of_test(name)).below(stride);
        for count in (first..run.length).step_by(stride as usize) {
            die(Moment::Instruction(count), some(count));
        }
    }
    println!(
        "  {name:<42} {:>6} instructions, {:>3} changes, {:>3} sought, {:>3} calls; {deaths:>5} \
         deaths, {held:>5} with the lock; {:.1} s",
        run.length,
        run.changes.len(),
        astray,
        run.calls.len(),
        run.start.elapsed().as_secs_f64()
    );
    [deaths, held]
}
