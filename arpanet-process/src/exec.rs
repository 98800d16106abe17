//! The near end of a command that runs in a container.

use std::sync::Arc;
use std::time::Duration;

use arpanet_core::runtime::{
    ContainerState, Exec, ExecInput, ExecOutput, ExecSpec, Output, OutputStream,
};
use arpanet_core::{ErrorKind, Result};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use crate::contact;
use crate::engine::PATIENCE;
use crate::entry::Entry;
use crate::error::own;
use crate::wire::{Answer, Frame, Request, WINDOW, receive, send};

/// How many pieces wait for a slow reader or command, beside those on their way.
const BACKLOG: usize = 16;

/// Between two looks whether a caller that does not listen still talks.
const LOOK: Duration = Duration::from_millis(50);

/// Frames are not longer than this.
const PIECE: usize = 32 << 10;

pub(crate) async fn exec(entry: Arc<Entry>, spec: ExecSpec) -> Result<Exec> {
    let idle = || {
        let message = format!("the container {} does not run", entry.name);
        own(ErrorKind::Unavailable, message)
    };
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(own(ErrorKind::InvalidInput, "there is no command to run"));
    }
    if entry.status().state != ContainerState::Running {
        return Err(idle());
    }
    let opened = contact::open::<Answer>(&entry.folder, &Request::Exec(spec), PATIENCE).await?;
    let (answer, stream) = opened.ok_or_else(idle)?;
    if let Some(refusal) = answer.refusal {
        return Err(refusal.into());
    }
    let (input, commands) = mpsc::channel(BACKLOG);
    let (results, output) = mpsc::channel(BACKLOG);
    tokio::spawn(relay(stream, input.downgrade(), commands, results));
    Ok(Exec::new(input, output))
}

/// Until the command has ended, or nobody holds an end of it any more: then closing the connection kills it.
async fn relay(
    stream: UnixStream,
    input: mpsc::WeakSender<ExecInput>,
    commands: mpsc::Receiver<ExecInput>,
    results: mpsc::Sender<ExecOutput>,
) {
    let (from, to) = stream.into_split();
    let room = Arc::new(Semaphore::new(WINDOW));
    let heard = results.clone();
    // Holds the connection open to its end, since the far end may be needed no more and the near one still.
    let writing = tokio::spawn(write(to, commands, Arc::clone(&room)));
    let mut reading = tokio::spawn(read(from, results, room));
    let abandoned = async {
        heard.closed().await;
        while input.strong_count() > 0 {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        _ = &mut reading => {}
        () = abandoned => reading.abort(),
    }
    writing.abort();
}

/// The far direction, which is given back when there is no more input.
async fn write(
    mut to: OwnedWriteHalf,
    mut commands: mpsc::Receiver<ExecInput>,
    room: Arc<Semaphore>,
) -> Option<OwnedWriteHalf> {
    while let Some(command) = commands.recv().await {
        match command {
            ExecInput::Data(bytes) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let piece = rest.split_to(rest.len().min(PIECE));
                    // Never more on its way than the other side has room for.
                    let permits = u32::try_from(piece.len()).ok()?;
                    room.acquire_many(permits).await.ok()?.forget();
                    send(&mut to, &Frame::Data(piece)).await.ok()?;
                }
            }
            ExecInput::Resize(columns, rows) => {
                send(&mut to, &Frame::Resize(columns, rows)).await.ok()?;
            }
            _ => {}
        }
    }
    send(&mut to, &Frame::End).await.ok()?;
    Some(to)
}

async fn read(mut from: OwnedReadHalf, results: mpsc::Sender<ExecOutput>, room: Arc<Semaphore>) {
    let piece = |stream, bytes| ExecOutput::Output(Output::new(stream, bytes));
    while let Ok(Some(frame)) = receive(&mut from).await {
        let result = match frame {
            Frame::Data(bytes) => piece(OutputStream::Stdout, bytes),
            Frame::Errors(bytes) => piece(OutputStream::Stderr, bytes),
            Frame::Taken(count) => {
                room.add_permits(count as usize);
                continue;
            }
            Frame::Exited(code) => {
                let _ = results.send(ExecOutput::Exited(code)).await;
                return;
            }
            _ => return,
        };
        // A caller that does not listen may still talk; what it does not hear is dropped.
        let _ = results.send(result).await;
    }
}
