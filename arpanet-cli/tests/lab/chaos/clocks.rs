//! Clocks of the day that jump, each host's for itself.
//!
//! Hosts of a lab have the machine's clock, and no namespace gives them another. So what runs there is told another time by
//! libfaketime, which stands before the C library: the time of the day and nothing else, and another one whenever the host's
//! file says so.

use std::fs;
use std::path::{Path, PathBuf};

use arpanet_core::conformance::live::found_or_skip;
use tempfile::TempDir;

/// Where Debian has it (package libfaketime), on machines of all kinds.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clocks of some hosts.
pub(super) struct Clocks {
    library: PathBuf,
    files: TempDir,
}

impl Clocks {
    /// Right ones. `None`, with a word why, where there is no library for it; a failure where it is promised.
    pub(super) fn new(hosts: &[&str]) -> Option<Self> {
        let needs = "clocks that jump need Debian's package libfaketime";
        let library = found_or_skip("faketime", library().ok_or(needs))?;
        let clocks = Self {
            library,
            files: tempfile::tempdir().unwrap(),
        };
        for host in hosts {
            clocks.set(host, 0);
        }
        Some(clocks)
    }

    fn file(&self, host: &str) -> PathBuf {
        self.files.path().join(host)
    }

    /// From now on a host's clock is so many seconds before or after the right one.
    pub(super) fn set(&self, host: &str, seconds: i64) {
        let (new, file) = (self.files.path().join("new"), self.file(host));
        // In one move: whoever asks for the time meanwhile reads one or the other.
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// What stands before a command that goes by a host's clock, and whatever it starts.
    pub(super) fn before(&self, host: &str) -> String {
        format!(
            "env LD_PRELOAD={} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 FAKETIME_TIMESTAMP_FILE={}",
            self.library.display(),
            self.file(host).display()
        )
    }
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir(LIBRARIES).ok()?.flatten();
    let at = |folder: &Path| folder.join(LIBRARY);
    folders
        .map(|folder| at(&folder.path()))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_clock_is_as_wrong_as_it_is_told_to_be() {
        let Some(clocks) = Clocks::new(&["node1", "node2"]) else {
            return;
        };
        let wrong_by = |host| {
            let script = format!("{} date +%s", clocks.before(host));
            let told = Command::new("sh").args(["-c", &script]).output().unwrap();
            let told: i64 = String::from_utf8(told.stdout)
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            let right = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            told - i64::try_from(right.as_secs()).unwrap()
        };
        for seconds in [0, 3_600, -86_400, 0] {
            clocks.set("node1", seconds);
            for (host, seconds) in [("node1", seconds), ("node2", 0)] {
                let wrong = wrong_by(host);
                assert!((seconds - 20..=seconds).contains(&wrong), "{host}: {wrong}");
            }
        }
    }
}
