//! Processes that are named by more than their number, since numbers come again.

use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a killed process may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// How long one may take that ends in order: a docker engine waits for its containers.
const ORDER_LIMIT: Duration = Duration::from_secs(60);

/// How a process is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM: it ends as it sees fit.
    InOrder,
    /// SIGKILL.
    AtOnce,
}

/// A process by its number and the time it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: i32,
    started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        started(pid)
            .map(|started| Self { pid, started })
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("process {pid} is gone")))
    }

    /// The process that has this number in the process namespace of this one (pid_namespaces(7); NSpid in proc(5)).
    pub(crate) fn inside(self, number: i32) -> Option<Self> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.pid)?;
        let pid = std::fs::read_dir("/proc")
            .ok()?
            .flatten()
            .find_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
                let numbers = status
                    .lines()
                    .find_map(|line| line.strip_prefix("NSpid:"))?;
                let inner = numbers
                    .split_whitespace()
                    .next_back()?
                    .parse::<i32>()
                    .ok()?;
                (inner == number && namespace(pid)? == own).then_some(pid)
            })?;
        Self::of(pid).ok()
    }

    /// The name of the program that it runs.
    pub(crate) fn name(self) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).ok()?;
        Some(name.trim().to_owned())
    }

    pub(crate) const fn pid(self) -> i32 {
        self.pid
    }

    pub(crate) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Kills it and returns once it is gone; one that is gone already is fine.
    pub(crate) async fn kill(self) -> Result<()> {
        self.end(Ending::AtOnce).await
    }

    /// Makes it end and returns once it is gone; one that is gone already is fine.
    pub(crate) async fn end(self, ending: Ending) -> Result<()> {
        let (signal, limit) = match ending {
            Ending::InOrder => (Signal::SIGTERM, ORDER_LIMIT),
            Ending::AtOnce => (Signal::SIGKILL, GONE_LIMIT),
        };
        let gone = async {
            let mut again = tokio::time::interval(Duration::from_millis(2));
            // It may end between the look and the signal.
            let mut signalled = self.is_alive() && kill(Pid::from_raw(self.pid), signal).is_ok();
            while self.is_alive() {
                again.tick().await;
                signalled = signalled || kill(Pid::from_raw(self.pid), signal).is_ok();
            }
        };
        tokio::time::timeout(limit, gone).await.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                format!("process {} does not end", self.pid),
            )
        })
    }
}

/// When the process started, in clock ticks since the machine did (proc(5), field 22 of stat); `None` for one that is
/// gone or only waits to be reaped.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_process_is_gone_and_its_number_means_nothing() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.is_alive());
        process.kill().await.unwrap();
        assert!(!process.is_alive());
        process.kill().await.unwrap();
        child.wait().unwrap();
    }
}
