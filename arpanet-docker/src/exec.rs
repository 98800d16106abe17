//! Commands in running containers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arpanet_core::runtime::{Exec, ExecInput, ExecOutput, ExecSpec, Output, OutputStream};
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::container::LogOutput;
use bollard::errors::Error as Failure;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use futures_util::{Stream, StreamExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{LOOK, WORK};
use crate::error::own;
use crate::view::View;

/// How many pieces wait for a slow reader or command.
const BACKLOG: usize = 16;

/// Between two looks whether a command has begun, or ended.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the engine may take to see what is over.
const SETTLING: Duration = Duration::from_secs(10);

type Pieces = Pin<Box<dyn Stream<Item = Result<LogOutput, Failure>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Begins a command.
pub(crate) async fn exec(view: Arc<View>, name: ContainerName, spec: ExecSpec) -> Result<Exec> {
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(own(ErrorKind::InvalidInput, "there is no command to run"));
    }
    let container = view.named(&name).await?.container.id;
    let env = spec.env.0.iter();
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.terminal.is_some()),
        env: Some(env.map(|(key, value)| format!("{key}={value}")).collect()),
        cmd: Some(spec.command.clone()),
        ..ExecConfig::default()
    };
    let which = container.as_str();
    let made = view
        .client
        .ask(WORK, |docker| async move {
            docker.create_exec(which, config).await
        })
        .await;
    let id = match made {
        Ok(made) => made.id,
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let message = format!("the container {name} does not run");
            return Err(own(ErrorKind::Unavailable, message).with_source(error));
        }
        Err(error) => return Err(error),
    };
    let options = StartExecOptions {
        tty: spec.terminal.is_some(),
        ..StartExecOptions::default()
    };
    let exec = id.as_str();
    let begun = view
        .client
        .ask(WORK, |docker| async move {
            docker.start_exec(exec, Some(options)).await
        })
        .await;
    let (pieces, input) = match begun {
        Ok(StartExecResults::Attached { output, input }) => (output, input),
        Ok(StartExecResults::Detached) => {
            let message = "the engine did not connect the command";
            return Err(own(ErrorKind::Internal, message));
        }
        // Podman tells here that there is no such command.
        Err(error) if matches!(error.kind(), ErrorKind::Internal | ErrorKind::NotFound) => {
            return Err(own(ErrorKind::InvalidInput, error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let command = Command {
        view,
        id,
        container,
        terminal: spec.terminal.is_some(),
    };
    let pieces = command.begun(pieces, &spec.command).await?;
    if let Some((columns, rows)) = spec.terminal {
        command.resize(columns, rows).await;
    }
    let (to_command, commands) = mpsc::channel(BACKLOG);
    let (results, output) = mpsc::channel(BACKLOG);
    tokio::spawn(command.relay(pieces, input, commands, results));
    Ok(Exec::new(to_command, output))
}

struct Command {
    view: Arc<View>,
    id: String,
    container: String,
    terminal: bool,
}

impl Command {
    async fn look(&self) -> Result<ExecInspectResponse> {
        let id = self.id.as_str();
        self.view
            .client
            .ask(LOOK, |docker| async move { docker.inspect_exec(id).await })
            .await
    }

    /// Waits until the command runs or has run. Docker tells why it can't where its output would be.
    async fn begun(&self, mut pieces: Pieces, command: &[String]) -> Result<Pieces> {
        let due = Instant::now() + WORK;
        loop {
            let seen = self.look().await?;
            let running = seen.running == Some(true);
            let has_run = seen.pid.is_some_and(|pid| pid > 0);
            match seen.exit_code {
                _ if running && has_run => return Ok(pieces),
                Some(126 | 127) if !running && !has_run => break,
                Some(_) if !running => return Ok(pieces),
                _ if Instant::now() > due => {
                    return Err(own(ErrorKind::Timeout, "the engine begins no command"));
                }
                _ => sleep(PAUSE).await,
            }
        }
        let mut why = Vec::new();
        while let Ok(Some(Ok(piece))) = timeout(SETTLING, pieces.next()).await {
            why.extend_from_slice(piece.as_ref());
        }
        let why = String::from_utf8_lossy(&why);
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = command.first().map_or("", String::as_str);
        let message = format!("{command} can't be run: {why}");
        Err(own(ErrorKind::InvalidInput, message))
    }

    async fn resize(&self, columns: u16, rows: u16) {
        let size = ResizeExecOptionsBuilder::default()
            .w(i32::from(columns))
            .h(i32::from(rows))
            .build();
        let id = self.id.as_str();
        let asked = self
            .view
            .client
            .ask(
                LOOK,
                |docker| async move { docker.resize_exec(id, size).await },
            )
            .await;
        if let Err(error) = asked {
            // It has ended, most likely.
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    /// Until the command has ended, or nobody holds an end of it any more: then it is killed.
    async fn relay(
        self,
        pieces: Pieces,
        input: Input,
        commands: mpsc::Receiver<ExecInput>,
        results: mpsc::Sender<ExecOutput>,
    ) {
        let heard = results.clone();
        let writing = self.write(input, commands);
        let reading = read(pieces, &results);
        tokio::pin!(writing, reading);
        let ended = {
            let mut talking = true;
            loop {
                tokio::select! {
                    () = &mut reading => break true,
                    () = &mut writing, if talking => talking = false,
                    () = heard.closed(), if !talking => break false,
                }
            }
        };
        if !ended {
            self.kill().await;
            return;
        }
        if let Some(code) = self.code().await {
            // Nobody may be there to hear it.
            let _ = results.send(ExecOutput::Exited(code)).await;
        }
    }

    /// Passes input on, until there is no more. What the command does not take is dropped.
    async fn write(&self, mut input: Input, mut commands: mpsc::Receiver<ExecInput>) {
        let mut takes = true;
        while let Some(command) = commands.recv().await {
            match command {
                ExecInput::Data(bytes) if takes => {
                    takes = input.write_all(&bytes).await.is_ok() && input.flush().await.is_ok();
                }
                ExecInput::Resize(columns, rows) if self.terminal => {
                    self.resize(columns, rows).await;
                }
                _ => {}
            }
        }
        let _ = input.shutdown().await;
    }

    /// The exit code, which the engine knows a moment after the end of the output.
    async fn code(&self) -> Option<i32> {
        let due = Instant::now() + SETTLING;
        loop {
            match self.look().await {
                Ok(seen) if seen.running != Some(true) => {
                    let code = seen.exit_code?;
                    return Some(i32::try_from(code).unwrap_or(i32::MAX));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                _ if Instant::now() > due => return None,
                _ => sleep(PAUSE).await,
            }
        }
    }

    /// The engine can't end a command; the kernel can.
    async fn kill(&self) {
        let Ok(seen) = self.look().await else { return };
        let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.filter(|pid| *pid > 1 && seen.running == Some(true)) else {
            return;
        };
        // An engine behind other process numbers would have us kill another one's process.
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        if !group.is_ok_and(|group| group.contains(&self.container)) {
            tracing::warn!(
                container = self.container,
                "a command that nobody holds an end of runs on: its process is not to be seen from here"
            );
            return;
        }
        // It leads a session of its own, so its children go with it.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Passes on what the command writes, no faster than it is taken. A caller that does not listen may still talk.
async fn read(mut pieces: Pieces, results: &mpsc::Sender<ExecOutput>) {
    while let Some(Ok(piece)) = pieces.next().await {
        let (stream, bytes) = match piece {
            LogOutput::StdErr { message } => (OutputStream::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                (OutputStream::Stdout, message)
            }
            LogOutput::StdIn { .. } => continue,
        };
        let piece = ExecOutput::Output(Output::new(stream, bytes));
        let _ = results.send(piece).await;
    }
}
