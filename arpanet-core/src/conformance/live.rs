//! What a machine has for tests, and what it promises to have: `ARPANET_LIVE` names it, with commas (`root,docker`).
//!
//! A test that needs what is not there is skipped, and says so. Where it is promised that is a failure instead: so a machine that
//! is there to run all tests can't pass by running none.

use std::ffi::OsString;
use std::fmt::Display;

/// Whether this is promised.
#[must_use]
pub fn promises(what: &str) -> bool {
    std::env::var("ARPANET_LIVE").is_ok_and(|live| names(&live, what))
}

/// Whether it is there, as the caller has found. If not, the test is to be skipped, which is said with what it needs.
///
/// # Panics
/// Where it is not there and promised.
#[must_use]
#[track_caller]
pub fn have(what: &str, is_there: bool, needs: &str) -> bool {
    let found = is_there.then_some(());
    found_or_skip(what, found.ok_or(format_args!("it needs {needs}"))).is_some()
}

/// What was found. If nothing was, the test is to be skipped, which is said with the reason.
///
/// # Panics
/// Where nothing was found and it is promised.
#[must_use]
#[track_caller]
pub fn found_or_skip<T, E: Display>(what: &str, found: Result<T, E>) -> Option<T> {
    skipped(what, found, promises(what))
}

/// Where a kernel for guests is: what `ARPANET_KERNEL` names. If nothing does, the test is to be skipped.
///
/// # Panics
/// Where nothing does, and `qemu` is promised.
#[must_use]
#[track_caller]
pub fn kernel() -> Option<OsString> {
    let named = std::env::var_os("ARPANET_KERNEL");
    let why = "ARPANET_KERNEL names no kernel; .ci/kernel fetches one";
    found_or_skip("qemu", named.ok_or(why))
}

#[track_caller]
#[allow(
    clippy::print_stderr,
    reason = "for whoever runs tests; the harness keeps it with the test"
)]
fn skipped<T, E: Display>(what: &str, found: Result<T, E>, is_promised: bool) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) if is_promised => panic!("ARPANET_LIVE promises {what}, but: {why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn names(live: &str, what: &str) -> bool {
    live.split(',').any(|name| name.trim() == what)
}

#[cfg(test)]
mod tests {
    use super::{names, skipped};

    #[test]
    fn whole_names_count() {
        assert!(names("root,docker", "root"));
        assert!(names("root, docker", "docker"));
        assert!(!names("rootless,docker", "root"));
        assert!(!names("", "root"));
    }

    #[test]
    fn what_is_not_there_is_skipped() {
        assert_eq!(skipped("root", Err::<(), _>("not root"), false), None);
        assert_eq!(skipped("root", Ok::<_, &str>(7), true), Some(7));
    }

    #[test]
    #[should_panic(expected = "ARPANET_LIVE promises root, but: not root")]
    fn what_is_promised_must_be_there() {
        let _ = skipped("root", Err::<(), _>("not root"), true);
    }
}
