//! One agent a host: a lock that the kernel lets go of when the agent ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::Duration;

use arpanet_core::{Error, ErrorKind, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::paths::Paths;

/// How long an agent may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Held while the agent runs.
#[derive(Debug)]
pub(crate) struct AgentLock(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

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

/// Takes the lock.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] names the process that has it.
pub(crate) fn acquire(paths: &Paths) -> Result<AgentLock> {
    match Flock::lock(open(paths)?, FlockArg::LockExclusiveNonblock) {
        // A start that failed removes the file: a lock on what is no longer there would keep nobody out.
        Ok(lock) if !is_there(&lock, paths) => acquire(paths),
        Ok(mut lock) => {
            // The id only serves the message below.
            let _ = lock.set_len(0).and_then(|()| lock.rewind());
            let _ = write!(lock, "{}", std::process::id());
            Ok(AgentLock(lock))
        }
        Err((mut file, nix::Error::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the agent is already running, as process {}", pid.trim()),
            )
            .with_hint("arpanet2 status shows what it does; arpanet2 stop ends it"))
        }
        Err((_, source)) => Err(
            Error::new(ErrorKind::Internal, "the agent's lock can't be had").with_source(source),
        ),
    }
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
