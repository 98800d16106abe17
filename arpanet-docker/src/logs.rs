//! The output of containers, over restarts of them and of the engine.

use std::sync::Arc;
use std::time::SystemTime;

use arpanet_core::runtime::{ContainerState, LogOptions, Output, OutputStream};
use arpanet_core::{ErrorKind, Result};
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::spec::Found;
use crate::watch::Known;

/// How many pieces wait for a slow reader.
const PIECES: usize = 64;

/// Between attempts to reach an engine that is away.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Reads as the options say, to a reader that may drop at any time.
pub(crate) fn read(known: Arc<Known>, found: Found, options: LogOptions) -> mpsc::Receiver<Output> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let name = found.container.name.clone();
        let reading = Reading {
            id: found.id,
            last: options.since,
            tail: options.tail,
            sender,
        };
        if let Err(error) = reading.go(&known, options.follow).await {
            tracing::warn!(%name, %error, "the output can't be read to its end");
        }
    });
    receiver
}

struct Reading {
    id: String,
    /// Everything up to here is told, or not asked for.
    last: Option<SystemTime>,
    tail: Option<usize>,
    sender: mpsc::Sender<Output>,
}

impl Reading {
    async fn go(mut self, known: &Known, follow: bool) -> Result<()> {
        loop {
            let outcome = self.once(known, follow).await;
            if !follow || self.sender.is_closed() {
                return outcome;
            }
            // Only what comes, from now on.
            self.tail = None;
            let is_away = |kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout);
            match outcome {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) if !is_away(error.kind()) => return Err(error),
                _ => {}
            }
            if !self.wait_running(known).await? {
                return Ok(());
            }
        }
    }

    /// Waits until it runs again; `false` when it is gone, or nobody reads any more.
    async fn wait_running(&self, known: &Known) -> Result<bool> {
        loop {
            match known.find(&self.id).await {
                Ok(found) if found.container.state == ContainerState::Running => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                _ => {}
            }
            tokio::select! {
                () = self.sender.closed() => return Ok(false),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Reads once, until the engine ends it.
    async fn once(&mut self, known: &Known, follow: bool) -> Result<()> {
        let docker = known
            .client
            .docker()
            .await?
            .with_timeout(crate::watch::NEVER);
        let mut options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            .timestamps(true);
        if let Some(tail) = self.tail {
            options = options.tail(&tail.to_string());
        }
        if let Some(last) = self.last {
            // The engine reads whole seconds: what is too much is passed over below.
            let seconds = last
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            options = options.since(i32::try_from(seconds.as_secs()).unwrap_or(i32::MAX));
        }
        if self.tail == Some(0) && !follow {
            return Ok(());
        }
        let mut pieces = docker.logs(&self.id, Some(options.build()));
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = self.sender.closed() => return Ok(()),
            };
            let Some(piece) = piece else {
                return Ok(());
            };
            let piece = piece.map_err(|error| known.client.error(error))?;
            let (stream, bytes) = match piece {
                LogOutput::StdErr { message } => (OutputStream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (OutputStream::Stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            let (written, bytes) = split(&bytes);
            if let Some(written) = written {
                if self.last.is_some_and(|last| written <= last) {
                    continue;
                }
                self.last = Some(written);
            }
            if self.sender.send(Output::new(stream, bytes)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The time that stands before a line, and the line.
fn split(bytes: &Bytes) -> (Option<SystemTime>, Bytes) {
    let Some(space) = bytes.iter().take(64).position(|byte| *byte == b' ') else {
        return (None, bytes.clone());
    };
    let time = std::str::from_utf8(&bytes[..space])
        .ok()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    match time {
        Some(time) => (Some(time.into()), bytes.slice(space + 1..)),
        None => (None, bytes.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off_and_nothing_else() {
        let (time, line) = split(&Bytes::from_static(b"2026-11-24T21:45:58.713531218Z a b\n"));
        assert!(time.is_some());
        assert_eq!(line, "a b\n");
        let (time, line) = split(&Bytes::from_static(b"no time\n"));
        assert!(time.is_none());
        assert_eq!(line, "no time\n");
    }
}
