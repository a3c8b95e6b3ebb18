//! The properties of `tests/conformance`, on the system's shared memory, with processes.

use crate::conformance::{
    geometry, open, with_faults, without_faults, ChildWork, End, Ground, Work, SIZES,
};
use crate::tools::*;
use crate::Test;
use shared_numpy::arena::handle::Name;
use shared_numpy::arena::platform::Platform;
use shared_numpy::arena::{Core, ForkedChild, Member};
use shared_numpy::error::Result;
use shared_numpy::process::{open_memory, ShmPlatform, LOCK_SUFFIX};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("the_arena_is_right_on_the_system", |_| {
        SIZES
            .into_iter()
            .for_each(|processes| without_faults(&|| system(processes)))
    }),
    ("the_arena_is_right_where_calls_fail", |_| {
        SIZES
            .into_iter()
            .for_each(|processes| with_faults(&|| system(processes)))
    }),
];

struct System {
    name: Name,
    shared: Arc<ShmPlatform>,
    processes: u32,
}

fn system(processes: u32) -> Box<dyn Ground> {
    let name = next_name();
    let shared = ShmPlatform::create(name, &geometry(processes)).unwrap();
    shared.set_patience(2000);
    Box::new(System {
        name,
        shared: Arc::new(shared),
        processes,
    })
}

impl System {
    fn memory(&self) -> PathBuf {
        Path::new("/dev/shm").join(self.name.as_str())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.memory());
        let lock = format!("{}{LOCK_SUFFIX}", self.name.as_str());
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(lock));
    }
}

impl Ground for System {
    fn platform(&self) -> Arc<dyn Platform> {
        self.shared.clone()
    }

    fn elsewhere(&self, end: End, work: Work) -> [u64; 4] {
        let told: &[AtomicU64; 4] = common();
        let child = fork(|| {
            let (memory, _) = open_memory(self.name).unwrap();
            let shared = ShmPlatform::open(self.name, memory).unwrap();
            let core = open(Arc::new(shared), self.processes);
            let me = core.register().unwrap();
            let numbers = work(&core, me);
            for (word, number) in told.iter().zip(numbers) {
                word.store(number, Ordering::SeqCst);
            }
            match end {
                End::Leaves => drop(core.leave(me).unwrap()),
                End::IsKilled => stop(),
            }
            0
        });
        let mut child = child;
        match end {
            End::Leaves => child.succeed(),
            End::IsKilled => {
                child.wait_for_stop();
                child.kill();
            }
        }
        told.each_ref().map(|word| word.load(Ordering::SeqCst))
    }

    fn fork(
        &self,
        core: &Core,
        me: Member,
        pinned: bool,
        parent: &dyn Fn(),
        work: ChildWork,
    ) -> Result<()> {
        let signs = self.shared.open_signs()?;
        let sign = |slot| !pinned && ShmPlatform::sign(&signs, slot);
        let prepared = core.prepare_fork(me, |_| true, sign, || ShmPlatform::pin(&signs))?;
        let mut child = fork(|| {
            core.forget_threads();
            // Its sign of life, if it has not its byte.
            let mut _signs = None;
            let born = match prepared {
                ForkedChild::Reserved(born) => {
                    let claimed = self.shared.inherit(born.slot);
                    core.take_over_fork(born, claimed);
                    _signs = (!claimed).then_some(signs);
                    Some(born)
                }
                ForkedChild::Pinned => {
                    self.shared.disinherit();
                    self.shared.keep_pin(signs);
                    None
                }
            };
            stop();
            core.leave(work(core, born)).unwrap();
            0
        });
        core.finish_fork(me);
        child.wait_for_stop();
        parent();
        child.signal(libc::SIGCONT);
        child.succeed();
        Ok(())
    }

    fn used(&self) -> u64 {
        std::fs::metadata(self.memory()).unwrap().blocks() * 512
    }

    fn processes(&self) -> u32 {
        self.processes
    }
}
