//! A command that is run in a container besides its own.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use arpanet_core::runtime::{ExecSpec, OutputStream};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::child::{self, Process, Spawned};
use super::connection::Desk;
use super::terminal::Terminal;
use super::user;
use crate::wire::{Cause, Frame, Refusal, receive, send};

/// After the command's end its output is read until this long nothing came, since what it started can hold the streams.
const QUIET: Duration = Duration::from_millis(20);

type Input = Box<dyn AsyncWrite + Send + Unpin>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A command that was just started.
pub(super) struct Session {
    process: Process,
    input: Input,
    outputs: Vec<(OutputStream, Output)>,
    ended: tokio::sync::oneshot::Receiver<i32>,
    terminal: Option<Terminal>,
}

/// Starts a command in the container.
pub(super) fn start(spec: &ExecSpec, desk: &Desk) -> Result<Session, Refusal> {
    let container = &desk.spec;
    let credentials = user::credentials(container)?;
    let on_terminal = spec.terminal.is_some();
    let environment = user::environment(container, credentials.as_ref(), &spec.env, on_terminal);
    let workdir = Path::new(container.workdir.as_deref().unwrap_or("/"));
    let failed = |error: io::Error| {
        let (_, message) = user::cannot_start(&spec.command, &error);
        Refusal::new(Cause::InvalidInput, message)
    };
    child::contained(
        &spec.command,
        &environment,
        workdir,
        credentials,
        on_terminal,
    )
    .and_then(|command| match spec.terminal {
        Some(size) => on_a_terminal(command, size, desk),
        None => on_pipes(command, desk),
    })
    .map_err(failed)
}

fn enter_and_spawn(command: Command, desk: &Desk) -> io::Result<Spawned> {
    let namespaces = desk.namespaces.clone();
    child::spawn(command, move || namespaces.enter())
}

fn on_pipes(mut command: Command, desk: &Desk) -> io::Result<Session> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = enter_and_spawn(command, desk)?;
    let missing = || io::Error::other("a stream is missing");
    let stdin = spawned.stdin.ok_or_else(missing)?;
    let stdout = spawned.stdout.ok_or_else(missing)?;
    let stderr = spawned.stderr.ok_or_else(missing)?;
    Ok(Session {
        process: spawned.process,
        input: Box::new(pipe::Sender::from_owned_fd(stdin.into())?),
        outputs: vec![
            (
                OutputStream::Stdout,
                Box::new(pipe::Receiver::from_owned_fd(stdout.into())?),
            ),
            (
                OutputStream::Stderr,
                Box::new(pipe::Receiver::from_owned_fd(stderr.into())?),
            ),
        ],
        ended: spawned.ended,
        terminal: None,
    })
}

fn on_a_terminal(mut command: Command, size: (u16, u16), desk: &Desk) -> io::Result<Session> {
    let (terminal, far) = Terminal::open(size)?;
    command
        .stdin(far.try_clone()?)
        .stdout(far.try_clone()?)
        .stderr(far);
    let spawned = enter_and_spawn(command, desk)?;
    Ok(Session {
        process: spawned.process,
        input: Box::new(terminal.clone()),
        outputs: vec![(OutputStream::Stdout, Box::new(terminal.clone()))],
        ended: spawned.ended,
        terminal: Some(terminal),
    })
}

impl Session {
    /// Until it has ended, or the agent that asked for it is gone: then it is killed.
    pub(super) async fn run(mut self, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (frames, outbox) = mpsc::channel(8);
        let (tell_end, over) = watch::channel(false);
        let mut outputs = JoinSet::new();
        for (stream, output) in self.outputs {
            outputs.spawn(relay(output, stream, frames.clone(), over.clone()));
        }
        let writing = tokio::spawn(write(to, outbox));
        let (pieces, inbox) = mpsc::unbounded_channel();
        let on_terminal = self.terminal.is_some();
        let feeding = tokio::spawn(feed(self.input, inbox, frames.clone(), on_terminal));
        let mut listening = tokio::spawn(listen(from, pieces, self.terminal));
        let code = tokio::select! {
            code = &mut self.ended => code.unwrap_or(crate::status::KILLED),
            _ = &mut listening => {
                self.process.kill_session();
                feeding.abort();
                let _ = self.ended.await;
                return;
            }
        };
        listening.abort();
        feeding.abort();
        let _ = feeding.await;
        tell_end.send_replace(true);
        while outputs.join_next().await.is_some() {}
        // An agent that is gone does not need it.
        let _ = frames.send(Frame::Exited(code)).await;
        drop(frames);
        let _ = writing.await;
    }
}

/// What the agent sends, until it is gone. It sends no more than the window, so this holds no more.
async fn listen(
    mut from: OwnedReadHalf,
    pieces: mpsc::UnboundedSender<Bytes>,
    terminal: Option<Terminal>,
) {
    let mut pieces = Some(pieces);
    while let Ok(Some(frame)) = receive(&mut from).await {
        match (frame, &pieces) {
            (Frame::Data(bytes), Some(to)) => {
                // Told as taken by nobody if the writer is gone, which it is with the command only.
                let _ = to.send(bytes);
            }
            (Frame::End, _) => pieces = None,
            (Frame::Resize(columns, rows), _) => {
                if let Some(terminal) = &terminal {
                    // A terminal that is gone has no size.
                    let _ = terminal.resize((columns, rows));
                }
            }
            _ => {}
        }
    }
}

/// Writes what came to the command's input, and says how much was taken.
async fn feed(
    mut to: Input,
    mut inbox: mpsc::UnboundedReceiver<Bytes>,
    frames: mpsc::Sender<Frame>,
    on_terminal: bool,
) {
    let mut open = true;
    while let Some(bytes) = inbox.recv().await {
        // A command that closed its input does not stop the sender.
        open = open && to.write_all(&bytes).await.is_ok();
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if frames.send(Frame::Taken(count)).await.is_err() {
            return;
        }
    }
    if on_terminal && open {
        // A terminal's end of input: EOT, of termios(3).
        let _ = to.write_all(&[4]).await;
    }
}

/// Passes a stream on, until its end; after the command's end, until it is quiet.
async fn relay(
    mut from: Output,
    stream: OutputStream,
    frames: mpsc::Sender<Frame>,
    mut over: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 32 << 10];
    loop {
        let ended = *over.borrow();
        let length = if ended {
            match timeout(QUIET, from.read(&mut bytes)).await {
                Ok(Ok(length)) => length,
                _ => return,
            }
        } else {
            tokio::select! {
                read = from.read(&mut bytes) => read.unwrap_or(0),
                _ = over.wait_for(|over| *over) => continue,
            }
        };
        if length == 0 {
            return;
        }
        let piece = Bytes::copy_from_slice(&bytes[..length]);
        let frame = match stream {
            OutputStream::Stderr => Frame::Errors(piece),
            _ => Frame::Data(piece),
        };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut outbox: mpsc::Receiver<Frame>) {
    while let Some(frame) = outbox.recv().await {
        if send(&mut to, &frame).await.is_err() {
            return;
        }
    }
}
