//! A shim's own process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arpanet_core::runtime::ContainerState;
use arpanet_core::{ErrorKind, Result};
use nix::fcntl::Flock;
use nix::unistd::{chdir, close, dup2_stdout, setsid};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{self, Desk};
use super::launch;
use super::supervisor::Supervisor;
use crate::error::{at_file, own, system};
use crate::folder::{Folder, Record};
use crate::log::Writer;
use crate::wire::Refusal;

/// How long the last answers may take before the shim ends all the same.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) fn run(folder: &Folder, id: &str, log_limit: u64, prefix: Vec<OsString>) -> Result<()> {
    close_strangers();
    // Fails for the leader of a group only, which has left its starter's group already.
    let _ = setsid();
    let outcome = begin(folder, id, log_limit, prefix);
    match outcome {
        Ok((runtime, lock, shim)) => {
            let outcome = runtime.block_on(shim.run());
            // The next shim of this container begins where this one has ended.
            drop(lock);
            outcome
        }
        Err(error) => {
            announce(&Err(Refusal::from(&error)));
            Err(error)
        }
    }
}

/// Descriptors that the agent was given and passed on, such as a service manager's sockets, would be held open by every
/// container beyond the agent's end.
fn close_strangers() {
    let open = |file: io::Result<fs::DirEntry>| file.ok()?.file_name().to_str()?.parse().ok();
    let Ok(files) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<RawFd> = files.filter_map(open).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The one that listed them is closed already.
        let _ = close(number);
    }
}

fn begin(
    folder: &Folder,
    id: &str,
    log_limit: u64,
    prefix: Vec<OsString>,
) -> Result<(tokio::runtime::Runtime, Flock<File>, Shim)> {
    chdir("/").map_err(|error| system("the root directory can't be entered", error))?;
    let lock = folder.lock_shim()?;
    let record = folder.record()?;
    if record.id != id {
        let message = "the container was removed meanwhile, and another made in its place";
        return Err(own(ErrorKind::Conflict, message));
    }
    let log = Writer::open(&folder.log(), log_limit)
        .map_err(|error| at_file("can't be opened", &folder.log(), error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system("the shim can't begin", error))?;
    let shim = Shim {
        folder: folder.clone(),
        record,
        prefix,
        log,
    };
    Ok((runtime, lock, shim))
}

/// Tells the starter how the beginning went, once.
fn announce(outcome: &std::result::Result<(), Refusal>) {
    let told = serde_json::to_vec(outcome)
        .map_err(io::Error::from)
        .and_then(|line| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&line)?;
            stdout.flush()?;
            Ok(dup2_stdout(File::open("/dev/null")?)?)
        });
    if let Err(error) = told {
        // The agent is gone; the next one finds the socket.
        let _ = writeln!(io::stderr(), "the agent can't be told: {error}");
    }
}

struct Shim {
    folder: Folder,
    record: Record,
    prefix: Vec<OsString>,
    log: Writer,
}

impl Shim {
    async fn run(self) -> Result<()> {
        let made = self.make().await;
        announce(&made.as_ref().map(drop).map_err(Refusal::from));
        let (supervisor, listener, desk) = made?;
        let answering = tokio::spawn(answer(listener, desk));
        supervisor.run().await;
        // From here on nobody is let in any more, and those inside hear the end.
        if let Ok(mut inside) = answering.await {
            let all = async { while inside.join_next().await.is_some() {} };
            let _ = timeout(FAREWELL, all).await;
        }
        Ok(())
    }

    async fn make(self) -> Result<(Supervisor, UnixListener, Desk)> {
        let init = launch::launch(&self.folder, &self.prefix).await?;
        let before = self.folder.status()?;
        let status = before.next(ContainerState::Created, Some(init.identity.clone()));
        self.folder.write_status(&status)?;
        let listener = self.folder.listen()?;
        let (orders, inbox) = mpsc::channel(16);
        let (status, seen) = watch::channel(status);
        let (growth, grown) = watch::channel(0);
        let desk = Desk {
            orders,
            status: seen,
            growth: grown,
            namespaces: init.namespaces.clone(),
            spec: Arc::new(self.record.spec.clone()),
        };
        let log = Arc::new(Mutex::new(self.log));
        let supervisor = Supervisor::new(
            self.folder,
            self.record.spec,
            init,
            status,
            inbox,
            log,
            growth,
        );
        Ok((supervisor, listener, desk))
    }
}

/// Lets agents in, until it is told to end.
async fn answer(listener: UnixListener, desk: Desk) -> JoinSet<()> {
    let mut inside = JoinSet::new();
    let mut status = desk.status.clone();
    loop {
        // Only the supervisor's end ends it.
        let over = async { drop(status.wait_for(|_| false).await) };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    inside.spawn(connection::answer(stream, desk.clone()));
                }
                Err(error) => {
                    let _ = writeln!(io::stderr(), "an agent can't be let in: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = inside.join_next() => {}
            () = over => return inside,
        }
    }
}
