//! New namespaces with a first process in them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::child::{self, Process, Spawned};
use super::order::{Order, Report};
use crate::error::{own, system};
use crate::folder::Folder;
use crate::identity::Identity;

/// The running program itself, also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What a container does not share with its host. Users and files it does.
const UNSHARED: [(&str, CloneFlags); 5] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("pid", CloneFlags::CLONE_NEWPID),
    // The last: paths are others after it.
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// A container's namespaces, to be entered by what is run in it later.
#[derive(Debug, Clone)]
pub(super) struct Namespaces(Arc<Vec<(File, CloneFlags)>>);

impl Namespaces {
    fn of(pid: i32) -> io::Result<Self> {
        let open =
            |(name, flag)| File::open(format!("/proc/{pid}/ns/{name}")).map(|file| (file, flag));
        let files = UNSHARED.into_iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(files)))
    }

    /// Puts the calling thread into them; of the pid namespace, what it starts from then on.
    pub(super) fn enter(&self) -> io::Result<()> {
        // A thread that shares its working directory with others can't enter a mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        for (file, flag) in self.0.iter() {
            setns(file, *flag)?;
        }
        Ok(())
    }
}

/// The first process, ready to start the command.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) process: Process,
    pub(super) identity: Identity,
    pub(super) namespaces: Namespaces,
    /// Dropping it ends the process, and with it all in the container.
    pub(super) control: Option<Control>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) stdout: Option<pipe::Receiver>,
    pub(super) stderr: Option<pipe::Receiver>,
    pub(super) ended: oneshot::Receiver<i32>,
}

/// Where orders go.
#[derive(Debug)]
pub(super) struct Control(OwnedWriteHalf);

impl Control {
    pub(super) async fn send(&mut self, order: Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.0.write_all(&line).await
    }
}

/// Makes the namespaces, and waits until all in them is made.
pub(super) async fn launch(folder: &Folder, prefix: &[OsString]) -> Result<Init> {
    let failed = |error: io::Error| system("the container's namespaces can't be made", error);
    let (near, far) = StdStream::pair().map_err(failed)?;
    let mut command = Command::new(OWN_PROGRAM);
    command
        .args(prefix)
        .arg("init")
        .arg(folder.path())
        .env_clear()
        .stdin(OwnedFd::from(far))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let unshare = || {
        let flags = UNSHARED.into_iter().map(|(_, flag)| flag).collect();
        Ok(unshare(flags)?)
    };
    let spawned = child::spawn(command, unshare).map_err(failed)?;
    let (mut init, pid) = connect(near, spawned).map_err(failed)?;
    match init.reports.recv().await {
        Some(Report::Ready) => {}
        Some(Report::Refused(refusal)) => return Err(Error::from(refusal)),
        _ => {
            let message = "the first process of the container ended before it was ready";
            return Err(own(ErrorKind::Internal, message));
        }
    }
    Namespace::open(format!("/proc/{pid}/ns/net"))?
        .handle()?
        .set_up("lo", true)
        .await?;
    Ok(init)
}

fn connect(near: StdStream, spawned: Spawned) -> io::Result<(Init, i32)> {
    near.set_nonblocking(true)?;
    let (from, to) = UnixStream::from_std(near)?.into_split();
    let (tell, reports) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(report) = serde_json::from_str(&line) else {
                return;
            };
            if tell.send(report).await.is_err() {
                return;
            }
        }
    });
    let gone = || io::Error::other("the first process is gone");
    let pid = spawned.process.pid().ok_or_else(gone)?;
    let stdout = spawned.stdout.ok_or_else(gone)?;
    let stderr = spawned.stderr.ok_or_else(gone)?;
    let init = Init {
        identity: Identity::of(pid).ok_or_else(gone)?,
        namespaces: Namespaces::of(pid)?,
        process: spawned.process,
        control: Some(Control(to)),
        reports,
        stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
        stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
        ended: spawned.ended,
    };
    Ok((init, pid))
}
