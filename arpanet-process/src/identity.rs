//! Which process: a number alone is used again by the kernel, a number with its start time is not.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process of this boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks since the machine started (proc(5), /proc/PID/stat, field 22).
    started: u64,
    /// Ticks are counted anew by the next boot.
    boot: String,
}

impl Identity {
    /// The process with this number now; `None` where there is none.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then(|| Self {
            pid,
            started,
            boot: boot(),
        })
    }

    pub(crate) fn own() -> Option<Self> {
        Self::of(Pid::this().as_raw())
    }

    /// Whether it still runs. One that has ended and only waits to be reaped does not.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Ends it at once, if it still runs.
    pub(crate) fn kill(&self) {
        if self.is_alive() {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// The state letter and the start time.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<(char, u64)> {
    // The command's name stands in parentheses and can hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let line = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 8 9";
        assert_eq!(parse(line), Some(('S', 4711)));
        assert_eq!(parse("7 (cut) S 1"), None);
    }

    #[test]
    fn the_same_number_with_another_start_is_another_process() {
        let own = Identity::own().unwrap();
        assert!(own.is_alive());
        let other = Identity {
            started: own.started + 1,
            ..own.clone()
        };
        assert!(!other.is_alive());
        // Would end this very test otherwise.
        other.kill();
        let earlier = Identity {
            boot: "another boot".to_owned(),
            ..own
        };
        assert!(!earlier.is_alive());
    }
}
