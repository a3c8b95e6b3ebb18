//! A word of shared memory: what was written before it is seen after it.
//!
//! Properties:
//!
//! * a thread that reads what another one has committed, exchanged or stepped sees all that was
//!   written before;
//! * so does one whose exchange fails.

use crate::model::{check, Word, ALL};
use loom::sync::Arc;
use loom::thread;

/// Data that a flag tells of.
struct Told {
    flag: Word,
    data: Word,
}

/// One thread writes the data and does `tell`, another one does `ask`, and if that says so, the
/// data must be there.
fn told(tell: fn(&Word), ask: fn(&Word) -> bool) {
    check(ALL, move || {
        let told = Arc::new(Told {
            flag: Word::new(0),
            data: Word::new(0),
        });
        let other = told.clone();
        let teller = thread::spawn(move || {
            other.data.set(7);
            tell(&other.flag);
        });
        if ask(&told.flag) {
            assert_eq!(told.data.get(), 7, "told too early");
        }
        teller.join().unwrap();
    });
}

fn commit(flag: &Word) {
    flag.commit(1);
}

fn swap(flag: &Word) {
    // (Another thread may have been quicker.)
    let _ = flag.swap_if(0, 1);
}

#[test]
fn a_read_sees_what_was_before_a_commit() {
    told(commit, |flag| flag.read() == 1);
}

#[test]
fn a_read_sees_what_was_before_an_exchange() {
    told(swap, |flag| flag.read() == 1);
}

#[test]
fn a_read_sees_what_was_before_a_step() {
    told(Word::step, |flag| flag.read() == 1);
}

#[test]
fn an_exchange_sees_what_was_before_a_commit() {
    told(commit, |flag| flag.swap_if(1, 2).is_ok());
}

#[test]
fn an_exchange_that_fails_sees_what_was_before_a_commit() {
    told(commit, |flag| flag.swap_if(5, 6) == Err(1));
}
