//! One agent a host: a lock that the kernel lets go of when the agent ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use arpanet_core::{Error, ErrorKind, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::paths::Paths;

/// How long an agent may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// How long the kernel may take to end a process that was killed.
const DYING_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at one.
const DYING_LOOK: Duration = Duration::from_millis(2);

/// The number of the lock's second descriptor. The kernel closes what a process leaves in the order of its numbers: this
/// one after all others, so that nothing of an agent is held any more when its lock is free. Below the usual limit of 1,024.
const LAST: i32 = 1000;

/// Held while the agent runs.
#[derive(Debug)]
pub(crate) struct AgentLock {
    #[expect(dead_code, reason = "held for its lock")]
    lock: Flock<File>,
    #[expect(dead_code, reason = "held for its number")]
    last: Option<OwnedFd>,
}

impl AgentLock {
    /// Keeps it until the process is gone.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

fn open(paths: &Paths) -> Result<File> {
    let cannot = |source| {
        Error::new(
            ErrorKind::Internal,
            format!("{} can't be opened", paths.lock().display()),
        )
        .with_source(source)
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.run())
        .map_err(cannot)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(paths.lock())
        .map_err(cannot)
}

/// Takes the lock. An agent that is just ending is waited for.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] names the process that has it.
pub(crate) fn acquire(paths: &Paths) -> Result<AgentLock> {
    let began = Instant::now();
    loop {
        match Flock::lock(open(paths)?, FlockArg::LockExclusiveNonblock) {
            // A start that failed removes the file: a lock on what is no longer there would keep nobody out.
            Ok(lock) if !is_there(&lock, paths) => {}
            Ok(mut lock) => {
                // The id only serves the message below.
                let _ = lock.set_len(0).and_then(|()| lock.rewind());
                let _ = write!(lock, "{}", std::process::id());
                // Where fewer are allowed, the order is the only thing lost.
                let last = rustix::io::fcntl_dupfd_cloexec(&*lock, LAST).ok();
                return Ok(AgentLock { lock, last });
            }
            Err((mut file, nix::Error::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let was_ending = is_ending(pid.trim());
                // The kernel tells nobody when it is done with a process that is not one's own.
                std::thread::sleep(DYING_LOOK);
                // Asked twice: for a moment a killed process has taken its signal and not yet begun to end.
                let is_ending = was_ending || is_ending(pid.trim());
                if !is_ending || began.elapsed() > DYING_LIMIT {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("the agent is already running, as process {}", pid.trim()),
                    )
                    .with_hint("arpanet2 status shows what it does; arpanet2 stop ends it"));
                }
            }
            Err((_, source)) => {
                let error = Error::new(ErrorKind::Internal, "the agent's lock can't be had");
                return Err(error.with_source(source));
            }
        }
    }
}

/// Whether a process is gone, or sure to be gone soon: it was killed, or is ending (proc(5): stat, status).
fn is_ending(pid: &str) -> bool {
    const PF_EXITING: u32 = 4;
    const SIGKILL_BIT: u64 = 1 << 8;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else {
        // Nobody's number, or a lock that was taken this moment.
        return !pid.is_empty();
    };
    // The name before it may hold spaces and parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X"));
    let flags: u32 = fields
        .nth(5)
        .and_then(|flags| flags.parse().ok())
        .unwrap_or(0);
    let is_killed = status
        .lines()
        .filter_map(|line| {
            line.strip_prefix("SigPnd:")
                .or_else(|| line.strip_prefix("ShdPnd:"))
        })
        .filter_map(|pending| u64::from_str_radix(pending.trim(), 16).ok())
        .any(|pending| pending & SIGKILL_BIT != 0);
    is_dead || flags & PF_EXITING != 0 || is_killed
}

/// Whether the file that was locked is the one that others find.
fn is_there(lock: &File, paths: &Paths) -> bool {
    match (lock.metadata(), std::fs::metadata(paths.lock())) {
        (Ok(locked), Ok(found)) => (locked.dev(), locked.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

/// Returns once no agent holds the lock.
pub(crate) async fn wait_until_free(paths: &Paths) -> Result<()> {
    let free = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            match acquire(paths) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                outcome => return outcome.map(drop),
            }
        }
    };
    tokio::time::timeout(END_LIMIT, free)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("the agent did not end within {} s", END_LIMIT.as_secs()),
            ))
        })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_was_killed_is_ending_and_one_that_runs_is_not() {
        assert!(!is_ending(&std::process::id().to_string()));
        let mut child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        assert!(!is_ending(&pid));
        child.kill().unwrap();
        // From the signal on: pending, then exiting, then waiting to be reaped, then gone.
        assert!(is_ending(&pid) || is_ending(&pid));
        child.wait().unwrap();
        assert!(is_ending(&pid));
        assert!(!is_ending(""));
    }
}
