//! Commands in running containers.

use std::time::Duration;

use arpanet_core::runtime::{
    ContainerState, Exec, ExecInput, ExecOutput, ExecSpec, Output, OutputStream,
};
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecInspectResponse;
use bollard::{Docker, errors::Error as Engine};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::pin::Pin;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::error::own;
use crate::watch::{Known, NEVER};

/// How many pieces wait on either side.
const PIECES: usize = 16;

/// Between two looks at a command that is starting or ending.
const LOOK: Duration = Duration::from_millis(5);

/// What runc answers for a command that it can't start.
const NOT_STARTED: [i64; 2] = [126, 127];

type Pieces = Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, Engine>> + Send>>;

/// Starts a command, and returns once it runs or has ended.
pub(crate) async fn exec(known: &Known, name: &ContainerName, spec: &ExecSpec) -> Result<Exec> {
    if spec.command.is_empty() {
        return Err(own(ErrorKind::InvalidInput, "there is no command to run"));
    }
    let found = known.find(name.as_str()).await?;
    if found.container.state != ContainerState::Running {
        let message = format!("the container {name} does not run");
        return Err(own(ErrorKind::Unavailable, message).with_hint("start it first"));
    }
    let docker = known.client.docker().await?.with_timeout(NEVER);
    let refused = |error| known.client.error(error);
    let env = spec
        .env
        .0
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.terminal.is_some()),
        env: Some(env.collect()),
        cmd: Some(spec.command.clone()),
        ..CreateExecOptions::default()
    };
    let id = docker
        .create_exec(&found.id, options)
        .await
        .map_err(refused)?
        .id;
    let options = StartExecOptions {
        detach: false,
        tty: spec.terminal.is_some(),
        output_capacity: None,
    };
    let started = docker
        .start_exec(&id, Some(options))
        .await
        .map_err(refused)?;
    let StartExecResults::Attached { mut output, input } = started else {
        return Err(own(
            ErrorKind::Internal,
            "the engine ran it without its streams",
        ));
    };
    let pid = match begun(&docker, &id).await.map_err(refused)? {
        Begun::Runs(pid) => pid,
        Begun::Not => {
            let why = output.next().await.and_then(std::result::Result::ok);
            let why = why.map_or_else(String::new, |piece| piece.to_string());
            let message = format!("{} can't be started: {}", spec.command[0], why.trim());
            return Err(own(ErrorKind::InvalidInput, message));
        }
    };
    if let Some((columns, rows)) = spec.terminal {
        resize(&docker, &id, columns, rows).await;
    }
    let (to_command, inputs) = mpsc::channel(PIECES);
    let (outputs, from_command) = mpsc::channel(PIECES);
    let running = Running { docker, id, pid };
    tokio::spawn(running.carry(inputs, input, output, outputs));
    Ok(Exec::new(to_command, from_command))
}

enum Begun {
    /// As this process, where the engine tells it.
    Runs(Option<i32>),
    Not,
}

/// Waits until the command runs, or has ended.
async fn begun(docker: &Docker, id: &str) -> std::result::Result<Begun, Engine> {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let shown: ExecInspectResponse = docker.inspect_exec(id).await?;
        let pid = shown.pid.filter(|pid| *pid > 0);
        if let Some(pid) = pid {
            return Ok(Begun::Runs(i32::try_from(pid).ok()));
        }
        match shown.exit_code {
            Some(code) if NOT_STARTED.contains(&code) => return Ok(Begun::Not),
            Some(_) => return Ok(Begun::Runs(None)),
            None => {}
        }
    }
}

async fn resize(docker: &Docker, id: &str, columns: u16, rows: u16) {
    let size = ResizeExecOptions {
        height: rows,
        width: columns,
    };
    if let Err(error) = docker.resize_exec(id, size).await {
        tracing::debug!(%error, "a terminal keeps its size");
    }
}

struct Running {
    docker: Docker,
    id: String,
    pid: Option<i32>,
}

impl Running {
    /// Hands on both ways until the command ends, or nobody has either end.
    async fn carry(
        self,
        inputs: mpsc::Receiver<ExecInput>,
        input: Pin<Box<dyn AsyncWrite + Send>>,
        mut pieces: Pieces,
        outputs: mpsc::Sender<ExecOutput>,
    ) {
        // On its own: a command that does not read must not keep its output from being read.
        let terminal = (self.docker.clone(), self.id.clone());
        let feeding = tokio::spawn(feed(terminal, inputs, input));
        let abandoned = async {
            let _ = feeding.await;
            outputs.closed().await;
        };
        tokio::pin!(abandoned);
        let is_whole = loop {
            tokio::select! {
                piece = pieces.next() => match piece {
                    Some(Ok(piece)) => {
                        if let Some(output) = output(piece) {
                            // Who wants no output may still have input.
                            let _ = outputs.send(ExecOutput::Output(output)).await;
                        }
                    }
                    Some(Err(_)) | None => break true,
                },
                () = &mut abandoned => break false,
            }
        };
        if is_whole {
            let _ = outputs
                .send(ExecOutput::Exited(self.exit_code().await))
                .await;
        } else {
            self.kill();
        }
    }

    async fn exit_code(&self) -> i32 {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            match self.docker.inspect_exec(&self.id).await {
                Ok(shown) if shown.running == Some(true) => {}
                Ok(shown) => {
                    let code = shown.exit_code.and_then(|code| i32::try_from(code).ok());
                    return code.unwrap_or(137);
                }
                // The container is gone, and the command with it.
                Err(_) => return 137,
            }
        }
    }

    /// The engine has no way to end a command: nobody has both its ends any more, so its process is killed.
    fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Writes what is sent to the command, until no more can be.
async fn feed(
    (docker, id): (Docker, String),
    mut inputs: mpsc::Receiver<ExecInput>,
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
) {
    let mut reads = true;
    while let Some(sent) = inputs.recv().await {
        match sent {
            ExecInput::Data(bytes) if reads => reads = input.write_all(&bytes).await.is_ok(),
            // A command that reads no more is told by its end.
            ExecInput::Data(_) => {}
            ExecInput::Resize(columns, rows) => resize(&docker, &id, columns, rows).await,
            _ => {}
        }
    }
    let _ = input.shutdown().await;
}

fn output(piece: LogOutput) -> Option<Output> {
    let (stream, bytes): (_, Bytes) = match piece {
        LogOutput::StdErr { message } => (OutputStream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => {
            (OutputStream::Stdout, message)
        }
        LogOutput::StdIn { .. } => return None,
    };
    Some(Output::new(stream, bytes))
}
