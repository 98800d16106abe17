//! Reading a container's output.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arpanet_core::runtime::{ContainerState, LogOptions, Output, OutputStream};
use arpanet_core::{ContainerName, ErrorKind, Result};
use bollard::container::LogOutput;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::error::own;
use crate::moment::{self, seconds};
use crate::view::View;

/// How many pieces of output wait for a slow reader.
const BACKLOG: usize = 64;

/// Between two attempts to go on.
const RETRY: Duration = Duration::from_millis(100);

/// How long a container may be silent: the connection tells when the engine is gone.
const SILENCE: Duration = Duration::from_secs(86_400);

/// Begins to read.
pub(crate) async fn read(
    view: &Arc<View>,
    name: &ContainerName,
    options: LogOptions,
) -> Result<mpsc::Receiver<Output>> {
    let seen = view.named(name).await?;
    if seen.keeps_no_output {
        let message = format!("the engine keeps no output of {name}");
        return Err(own(ErrorKind::Unsupported, message)
            .with_hint("it was made with the logging driver none"));
    }
    let (to, from) = mpsc::channel(BACKLOG);
    let reader = Reader {
        view: Arc::clone(view),
        name: name.clone(),
        id: seen.container.id,
        terminal: seen.terminal,
        since: options.since,
        after: None,
        started: seen.started,
        to,
    };
    tokio::spawn(reader.run(options));
    Ok(from)
}

struct Reader {
    view: Arc<View>,
    name: ContainerName,
    id: String,
    terminal: bool,
    since: Option<SystemTime>,
    /// When the last piece that was passed on was written, and how many were at that moment: one engine tells nanoseconds,
    /// another whole seconds.
    after: Option<(SystemTime, usize)>,
    /// When the run began whose output was read last.
    started: Option<SystemTime>,
    to: mpsc::Sender<Output>,
}

impl Reader {
    async fn run(mut self, options: LogOptions) {
        let closed = self.to.clone();
        let reading = async {
            let mut tail = options.tail;
            loop {
                let passed = self.pass(tail.take(), options.follow).await;
                if let Err(error) = &passed {
                    tracing::debug!(container = %self.name, %error, "its output broke off");
                }
                if !options.follow {
                    return;
                }
                if passed.is_err() || self.still_runs().await {
                    // An engine that is away, or a log that ends early, is not asked without a pause.
                    sleep(RETRY).await;
                }
                if !self.goes_on().await {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = closed.closed() => {}
        }
    }

    /// Passes on what there is; when following, until the container ends.
    async fn pass(&mut self, tail: Option<usize>, follow: bool) -> Result<()> {
        let resumed = self.after;
        let mut again = 0;
        let begin = resumed.map(|(moment, _)| moment).or(self.since);
        let begin = begin.map_or(0, whole_second);
        let tail = tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            // On a terminal there are no frames that a time could be at the beginning of.
            .timestamps(!self.terminal)
            .since(begin)
            .tail(&tail)
            .build();
        let docker = self.view.client.engine(SILENCE).await?;
        let mut pieces = docker.logs(&self.id, Some(options));
        while let Some(piece) = pieces.next().await {
            let (stream, bytes) = match piece.map_err(|failure| self.view.client.failed(failure))? {
                LogOutput::StdErr { message } => (OutputStream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (OutputStream::Stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            let (written, bytes) = dated(bytes, self.terminal);
            if let Some(written) = written {
                // The engine counts in whole seconds here.
                if self.since.is_some_and(|since| written.is_before(since)) {
                    continue;
                }
                let written = written.moment;
                if let Some((moment, count)) = resumed {
                    again += usize::from(written == moment);
                    if written < moment || (written == moment && again <= count) {
                        continue;
                    }
                }
                self.after = match self.after {
                    Some((moment, count)) if moment == written => Some((moment, count + 1)),
                    Some((moment, count)) if moment > written => Some((moment, count)),
                    _ => Some((written, 1)),
                };
            }
            if self.to.send(Output::new(stream, bytes)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the run goes on whose output was read last.
    async fn still_runs(&self) -> bool {
        let seen = self.view.named(&self.name).await;
        seen.is_ok_and(|seen| {
            seen.container.state == ContainerState::Running && seen.started == self.started
        })
    }

    /// Waits until the container runs, or has run again, also over a restart of the engine; `false` when it is gone.
    async fn goes_on(&mut self) -> bool {
        loop {
            let before = SystemTime::now();
            match self.view.named(&self.name).await {
                Ok(seen) if seen.container.id != self.id => return false,
                Ok(seen)
                    if seen.container.state == ContainerState::Running
                        || seen.started != self.started =>
                {
                    if self.terminal && seen.started != self.started {
                        self.after = seen.started.map(|started| (started, 0));
                    }
                    self.started = seen.started;
                    return true;
                }
                Ok(_) => self.something_happens(before).await,
                Err(error) if error.kind() == ErrorKind::NotFound => return false,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Until the container is started or removed, or the engine is lost.
    async fn something_happens(&self, since: SystemTime) {
        let Ok(docker) = self.view.client.engine(SILENCE).await else {
            return;
        };
        let only = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![self.id.as_str()]),
        ]);
        let options = EventsOptionsBuilder::default()
            .since(&seconds(since))
            .filters(&only)
            .build();
        let mut events = Box::pin(docker.events(Some(options)));
        while let Some(Ok(event)) = events.next().await {
            if matches!(
                event.action.as_deref(),
                Some("start" | "destroy" | "remove" | "rename")
            ) {
                return;
            }
        }
        // The engine is away.
        sleep(RETRY).await;
    }
}

fn whole_second(moment: SystemTime) -> i32 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// When a piece was written.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    moment: SystemTime,
    /// The engine tells no part of a second.
    whole: bool,
}

impl Written {
    /// Surely before that.
    fn is_before(&self, other: SystemTime) -> bool {
        let next = if self.whole {
            Duration::from_nanos(999_999_999)
        } else {
            Duration::ZERO
        };
        self.moment + next < other
    }
}

/// Takes the time from the beginning of a piece.
fn dated(mut bytes: Bytes, terminal: bool) -> (Option<Written>, Bytes) {
    /// A time with an offset and all its digits is not longer.
    const LONGEST: usize = 36;
    if terminal {
        return (None, bytes);
    }
    let end = bytes
        .iter()
        .take(LONGEST)
        .position(|byte| *byte == b' ')
        .unwrap_or(0);
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let whole = !text.contains('.');
    let written = moment::parse(text).map(|moment| Written { moment, whole });
    if written.is_some() {
        bytes = bytes.split_off(end + 1);
    }
    (written, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_from_a_piece_and_nothing_else() {
        let piece = Bytes::from_static(b"2026-11-24T21:45:29.850278257Z to out\n");
        let (written, rest) = dated(piece.clone(), false);
        assert!(!written.unwrap().whole);
        assert_eq!(rest, "to out\n");
        assert_eq!(dated(piece.clone(), true), (None, piece));
        let plain = Bytes::from_static(b"no time here\n");
        assert_eq!(dated(plain.clone(), false), (None, plain));
        let empty = Bytes::from_static(b"2026-11-24T21:45:29Z ");
        assert_eq!(dated(empty, false).1, "");
    }

    #[test]
    fn what_is_told_in_whole_seconds_may_have_been_written_to_their_end() {
        let at = |text: &'static str| dated(Bytes::from(format!("{text} line")), false).0.unwrap();
        let since = moment::parse("2026-11-24T21:45:29.5Z").unwrap();
        for (text, before) in [
            ("2026-11-24T21:45:28Z", true),
            ("2026-11-24T21:45:29Z", false),
            ("2026-11-24T21:45:29.400000000Z", true),
            ("2026-11-24T21:45:29.600000000Z", false),
        ] {
            assert_eq!(at(text).is_before(since), before, "{text}");
        }
    }
}
