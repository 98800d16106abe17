//! Keeping the consul process running.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use arpanet_core::{ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::ConsulAgentConfig;
use super::process::Process;
use super::{AgentState, LOOKING, Spawn};
use crate::client::Client;
use crate::error::own;

/// The first pause before a process that ended is started again, and the longest: it doubles while the process lasts for less
/// than the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// All that it takes.
pub(super) struct Supervised {
    pub(super) config: ConsulAgentConfig,
    pub(super) spawn: Spawn,
    pub(super) client: Client,
    pub(super) servers: Vec<Ipv4Addr>,
    pub(super) state: watch::Sender<AgentState>,
}

impl Supervised {
    /// Starts the process again whenever it ends.
    pub(super) async fn keep_running(self, mut process: Process) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            process.ended().await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.state.send_replace(AgentState::Restarting);
            tracing::warn!(
                pid = process.pid,
                ?pause,
                "consul ended, and is started again"
            );
            process = loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                match begin(&self.config, &self.spawn) {
                    Ok(process) => break process,
                    Err(error) => tracing::error!(%error, "consul can't be started"),
                }
            };
            self.state
                .send_replace(AgentState::Running { pid: process.pid });
            tokio::select! {
                // Looked at again above.
                () = process.ended() => {}
                () = self.meet() => {}
            }
        }
    }

    /// Has a process that was just started meet the others.
    async fn meet(&self) {
        while !self.servers.is_empty() && join(&self.client, &self.servers).await.is_err() {
            tokio::time::sleep(LOOKING * 10).await;
        }
    }
}

/// Starts the process, and writes down which it is.
pub(super) fn begin(config: &ConsulAgentConfig, spawn: &Spawn) -> Result<Process> {
    let started = (|| {
        // One that was killed leaves it, and can't listen there again.
        match fs::remove_file(&config.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let stderr = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(config.stderr())?;
        let mut command = Command::new(&config.program);
        command
            .arg("agent")
            .arg("-config-file")
            .arg(config.file())
            .stdin(Stdio::null())
            // It logs to files of its own.
            .stdout(Stdio::null())
            .stderr(stderr);
        let mut child = spawn(&mut command)?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let process = Process::keep(pid, &config.process());
        // Somebody has to wait for a child, or it stays as a zombie.
        std::thread::Builder::new()
            .name("consul".to_owned())
            .spawn(move || child.wait())?;
        process
    })();
    started.map_err(|source| {
        let message = format!("{} can't be started", config.program.display());
        own(ErrorKind::Unavailable, message).with_source(source)
    })
}

/// Has an agent meet these others; one that answers is enough.
pub(super) async fn join(client: &Client, others: &[Ipv4Addr]) -> Result<()> {
    let mut outcome = Ok(());
    for other in others {
        match client.join(*other).await {
            Ok(()) => return Ok(()),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}
