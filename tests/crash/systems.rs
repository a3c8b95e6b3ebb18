//! Systems that lack something.
//!
//! * An arena that cannot be safe there is refused, by the name of what is missing, and leaves
//!   nothing.
//! * Children of forks keep what they have without locks of open file descriptions.

use crate::pages::with_shim;
use crate::tools::*;
use crate::Test;
use shared_numpy::error::Error;
use shared_numpy::process::Arena;

pub const TESTS: &[Test] = &[
    ("what_is_missing_is_named", |_| what_is_missing_is_named()),
    ("on_an_old_kernel", |full| {
        let tests = ["the_arena_is_right_on", "a_child_holds", "a_child_without"];
        with_shim("old_kernel", &[], &tests, full)
    }),
];

/// What a system may lack, as the shim names it, and what the error says.
const MISSING: [(&str, &str); 3] = [
    ("locks", "locks of bytes"),
    ("reserving", "memory that is taken before it is used"),
    ("mappings", "mappings of files"),
];

fn what_is_missing_is_named() {
    let Ok(lacking) = std::env::var("LACKS") else {
        for (lacking, _) in MISSING {
            let tests = ["what_is_missing_is_named"];
            with_shim("bare_system", &[("LACKS", lacking)], &tests, false);
        }
        return;
    };
    let (_, named) = MISSING.iter().find(|(name, _)| *name == lacking).unwrap();
    let name = next_name();
    let refused = Arena::create(name, small()).err().unwrap();
    assert!(matches!(refused, Error::Missing { .. }), "{refused:?}");
    assert!(refused.to_string().contains(named), "{refused}");
    assert_eq!(objects(name), Vec::<String>::new());
}
