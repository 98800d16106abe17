//! One container engine alone, for tests of what talks to one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use arpanet_core::{Error, ErrorKind, Result};
use arpanet_netlink::Namespace;
use tempfile::TempDir;

use crate::docker;
use crate::podman;
use crate::process::{Ending, ProcessId};
use crate::switch;

/// Makes what the engine lives in; as the first process it reaps too, while it waits.
const FIRST: &str = "ip link set lo up && mount -t tmpfs -o mode=755 tmpfs /run && echo ready && sleep infinity; exit 1";

/// Whose engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Docker,
    Podman,
}

/// A container engine in namespaces of its own, with an empty store and the lab's image. It ends with this value, and so does
/// all that it started.
#[derive(Debug)]
pub struct Engine {
    make: Make,
    /// Keeps the namespaces; all in them ends with it.
    keeper: Child,
    init: ProcessId,
    engine: Option<Child>,
    group: String,
    folder: TempDir,
}

impl Engine {
    /// Starts docker's, and returns when it answers.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where none can be had, saying why.
    pub async fn start() -> Result<Self> {
        Self::begin(Make::Docker).await
    }

    /// Starts Podman's service of docker's API, and returns when it answers. It is another engine behind the same socket; its
    /// containers outlive it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where none can be had, saying why.
    pub async fn start_podman() -> Result<Self> {
        Self::begin(Make::Podman).await
    }

    async fn begin(make: Make) -> Result<Self> {
        let failed = |source| {
            Error::new(ErrorKind::Unavailable, "no namespaces for an engine")
                .with_source(source)
                .with_hint("it needs root, and Debian's package util-linux")
        };
        let folder = TempDir::with_prefix("arpanet2-engine-").map_err(failed)?;
        let mut keeper = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--uts",
                "--fork",
                "--kill-child",
            ])
            .args([
                "--mount-proc",
                "--propagation",
                "private",
                "sh",
                "-c",
                FIRST,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let Some(init) = first_child(&mut keeper) else {
            let _ = keeper.kill();
            let _ = keeper.wait();
            return Err(failed(std::io::Error::other("unshare failed")));
        };
        let mut engine = Self {
            make,
            keeper,
            init,
            engine: None,
            group: docker::group(folder.path(), "engine"),
            folder,
        };
        engine.start_again().await?;
        docker::import(engine.init)?;
        Ok(engine)
    }

    /// Starts the engine again, with what it had. A second call does nothing while it runs.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where it does not start, saying why.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.engine.is_some() {
            return Ok(());
        }
        let log = self.log();
        let file = |source| {
            Error::new(ErrorKind::Internal, "the engine can't be started").with_source(source)
        };
        let out = std::fs::File::create(&log).map_err(file)?;
        let data = self.data();
        let line = match self.make {
            Make::Docker => docker::command_line(&self.group, &data),
            Make::Podman => podman::command_line(&data).map_err(file)?,
        };
        let mut child = Command::new("nsenter")
            .args(["--all", "--target", &self.init.pid().to_string()])
            .args(line)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(file)?)
            .stderr(out)
            .spawn()
            .map_err(file)?;
        docker::wait(self.init, || {
            child
                .try_wait()
                .ok()
                .flatten()
                .map(|_| docker::last_line(&log))
        })
        .await?;
        self.engine = Some(child);
        Ok(())
    }

    /// Ends the engine, and it alone: in order, as its service does, or by SIGKILL. What its containers do then is its own
    /// affair. A second call does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn end(&mut self, ending: Ending) -> Result<()> {
        if let Some(engine) = docker::process(self.init) {
            engine.end(ending).await?;
        }
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.wait();
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The engine's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        docker::socket(self.init)
    }

    /// The network namespace that it lives in.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it is gone.
    pub fn namespace(&self) -> Result<Namespace> {
        switch::namespace_of(self.init)
    }

    /// A command that runs in the engine's namespaces.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.init.pid().to_string()])
            .arg(program);
        command
    }

    /// What the engine says.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The namespaces' first process ends with its parent, and everything in them with it.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.wait();
        }
        match self.make {
            Make::Docker => docker::remove_group(&self.group),
            Make::Podman => podman::groups(&self.data())
                .iter()
                .for_each(|group| docker::remove_group(group)),
        }
    }
}

/// The first process in the namespaces, once it is ready.
fn first_child(keeper: &mut Child) -> Option<ProcessId> {
    use std::io::BufRead;
    let mut line = String::new();
    std::io::BufReader::new(keeper.stdout.take()?)
        .read_line(&mut line)
        .ok()?;
    let children = format!("/proc/{0}/task/{0}/children", keeper.id());
    let pid = std::fs::read_to_string(children).ok()?.trim().parse();
    (line == "ready\n").then_some(())?;
    ProcessId::of(pid.ok()?).ok()
}
