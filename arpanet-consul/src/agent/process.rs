//! One consul process: known by its id and the moment it began, so that it is found again and no other is taken for it.
#![expect(
    unsafe_code,
    reason = "tokio's registration of a descriptor is not safe"
)]

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// In clock ticks since the machine booted.
    began: u64,
}

/// A process that lives, or did a moment ago.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    fd: AsyncFd<OwnedFd>,
}

/// When a process began, by `/proc/PID/stat` (proc(5), field 22). The second field may contain anything, up to the last `)`.
fn began(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

impl Process {
    fn of(identity: Identity) -> io::Result<Self> {
        let pid = Pid::from_raw(identity.pid).ok_or(io::ErrorKind::NotFound)?;
        // The descriptor first: whatever it stands for can't become another while that is looked at.
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", identity.pid))?;
        if began(&stat) != Some(identity.began) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: the descriptor is owned, and answers with the same number until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self {
            pid: identity.pid,
            fd,
        })
    }

    /// Writes down which process this is, whole or not at all.
    pub(super) fn keep(pid: i32, file: &Path) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let began = began(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let identity = Identity { pid, began };
        let new = file.with_extension("new");
        let mut written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        written.write_all(&serde_json::to_vec(&identity)?)?;
        fs::rename(&new, file)?;
        Self::of(identity)
    }

    /// The process that was written down there, if it lives.
    pub(super) fn kept(file: &Path) -> Option<Self> {
        let identity = fs::read(file).ok()?;
        Self::of(serde_json::from_slice(&identity).ok()?).ok()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        // A descriptor of a process becomes readable when it ends (pidfd_open(2)).
        if self.fd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended a moment ago.
        let _ = pidfd_send_signal(self.fd.get_ref(), signal);
    }

    /// Ends it: by SIGTERM, and by SIGKILL where that is not enough in time.
    pub(super) async fn end(&self, grace: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            tracing::warn!(pid = self.pid, "consul does not end, and is killed");
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_beginning_past_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 10 20";
        assert_eq!(began(stat), Some(4711));
        assert_eq!(began("7 (a"), None);
    }

    #[tokio::test]
    async fn a_process_is_found_again_until_it_ends_and_no_other_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("process.json");
        assert!(Process::kept(&file).is_none());
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::keep(pid, &file).unwrap();
        assert_eq!(Process::kept(&file).map(|kept| kept.pid), Some(pid));
        process.end(Duration::from_secs(10)).await;
        child.wait().unwrap();
        assert!(Process::kept(&file).is_none());
        // Another process with that id, which began at another moment.
        let mine = i32::try_from(std::process::id()).unwrap();
        Process::keep(mine, &file).unwrap();
        let Identity { pid, began } = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let other = Identity {
            pid,
            began: began + 1,
        };
        fs::write(&file, serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(Process::kept(&file).is_none());
    }
}
