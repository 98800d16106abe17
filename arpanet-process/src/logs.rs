//! Reading a container's output for somebody, while it is written by the shim.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arpanet_core::runtime::{LogOptions, Output};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::contact;
use crate::entry::Entry;
use crate::log::{Piece, Reader};
use crate::wire::{Frame, Request, receive};

/// How many pieces of output wait for a slow reader.
const BACKLOG: usize = 64;

/// Begins to read.
pub(crate) fn read(entry: Arc<Entry>, options: LogOptions) -> mpsc::Receiver<Output> {
    let (to, from) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let result = if options.follow {
            follow(&entry, &options, &to).await
        } else {
            Position::Beginning(options)
                .read_on(&entry, &to)
                .await
                .map(drop)
        };
        if let Err(error) = result {
            tracing::warn!(container = %entry.name, %error, "a container's log can't be read");
        }
    });
    from
}

/// Goes on until the container is removed or the reader is gone.
async fn follow(
    entry: &Arc<Entry>,
    options: &LogOptions,
    to: &mpsc::Sender<Output>,
) -> io::Result<()> {
    let mut removal = entry.removal();
    let mut statuses = entry.statuses();
    let mut position = Position::Beginning(options.clone());
    loop {
        statuses.borrow_and_update();
        // Before reading, so that nothing is missed in between.
        let growth = contact::subscribe(&entry.folder, &Request::Growth).await;
        position = position.read_on(entry, to).await?;
        if let Ok(Some(mut growth)) = growth {
            loop {
                let grown = tokio::select! {
                    frame = receive(&mut growth) => matches!(frame, Ok(Some(Frame::Grown))),
                    _ = removal.wait_for(|removed| *removed) => false,
                    () = to.closed() => return Ok(()),
                };
                position = position.read_on(entry, to).await?;
                if !grown {
                    break;
                }
            }
        }
        if *removal.borrow() {
            return Ok(());
        }
        tokio::select! {
            changed = statuses.changed() => if changed.is_err() {
                return Ok(());
            },
            _ = removal.wait_for(|removed| *removed) => return Ok(()),
            () = to.closed() => return Ok(()),
        }
    }
}

/// How far the log was read.
enum Position {
    Beginning(LogOptions),
    At(Reader),
}

impl Position {
    /// Reads all there is.
    async fn read_on(self, entry: &Arc<Entry>, to: &mpsc::Sender<Output>) -> io::Result<Self> {
        let (path, to) = (entry.folder.log(), to.clone());
        let work = move || {
            let mut reader = match self {
                Self::At(reader) => reader,
                Self::Beginning(options) => {
                    let Some((reader, first)) = begin(&path, &options)? else {
                        return Ok(Self::Beginning(options));
                    };
                    if let Some(first) = first {
                        // A reader that is gone is noticed by who reads on.
                        let _ = to.blocking_send(first);
                    }
                    reader
                }
            };
            while let Some(piece) = reader.next()? {
                if to.blocking_send(piece.output).is_err() {
                    break;
                }
            }
            Ok(Self::At(reader))
        };
        spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

/// A reader behind the first output that is wanted, and that output; `None` where nothing was ever written.
fn begin(path: &Path, options: &LogOptions) -> io::Result<Option<(Reader, Option<Output>)>> {
    let (Some(mut reader), Some(mut ahead)) = (Reader::open(path)?, Reader::open(path)?) else {
        return Ok(None);
    };
    // Pieces are in the order of time, so all is wanted that follows the first.
    let since = options.since.unwrap_or(SystemTime::UNIX_EPOCH);
    let recent = |piece: &Piece| piece.at >= since;
    let Some(tail) = options.tail else {
        let mut first = reader.next()?;
        while first.as_ref().is_some_and(|piece| !recent(piece)) {
            first = reader.next()?;
        }
        return Ok(Some((reader, first.map(|piece| piece.output))));
    };
    let mut old = 0;
    let mut new = 0;
    let mut lines = 0;
    let mut open_line = false;
    while let Some(piece) = ahead.next()? {
        if new == 0 && !recent(&piece) {
            old += 1;
            continue;
        }
        new += 1;
        lines += newlines(&piece.output.bytes).count();
        open_line = piece.output.bytes.last().is_some_and(|byte| *byte != b'\n');
    }
    let unwanted = if tail == 0 { old + new } else { old };
    for _ in 0..unwanted {
        reader.next()?;
    }
    let mut skip = match tail {
        0 => 0,
        tail => (lines + usize::from(open_line)).saturating_sub(tail),
    };
    while skip > 0 {
        let Some(piece) = reader.next()? else {
            break;
        };
        let Some(cut) = newlines(&piece.output.bytes).nth(skip - 1) else {
            skip -= newlines(&piece.output.bytes).count();
            continue;
        };
        let rest: Bytes = piece.output.bytes.slice(cut + 1..);
        let first = (!rest.is_empty()).then(|| Output::new(piece.output.stream, rest));
        return Ok(Some((reader, first)));
    }
    Ok(Some((reader, None)))
}

fn newlines(bytes: &Bytes) -> impl Iterator<Item = usize> {
    let marked = bytes.iter().enumerate();
    marked.filter_map(|(position, byte)| (*byte == b'\n').then_some(position))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arpanet_core::runtime::OutputStream;

    use super::*;
    use crate::log::Writer;

    /// What is read of these pieces, one written each second.
    fn read(pieces: &[&str], options: &LogOptions) -> String {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mut writer = Writer::open(&path, 1 << 20).unwrap();
        for (second, piece) in (0..).zip(pieces) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            writer.append(OutputStream::Stdout, piece.as_bytes(), at);
        }
        let (mut reader, first) = begin(&path, options).unwrap().unwrap();
        let rest = std::iter::from_fn(|| reader.next().unwrap()).map(|piece| piece.output);
        let outputs = first.into_iter().chain(rest);
        outputs
            .map(|output| String::from_utf8(output.bytes.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_last_lines_however_they_were_written() {
        let tail = |pieces: &[&str], lines| read(pieces, &LogOptions::all().tail(lines));
        assert_eq!(tail(&["1\n2\n3\n"], 2), "2\n3\n");
        assert_eq!(tail(&["1\n", "2\n", "3\n"], 2), "2\n3\n");
        assert_eq!(tail(&["1\n2", "2\n3"], 2), "22\n3");
        assert_eq!(tail(&["1\n2\n", "3"], 1), "3");
        assert_eq!(tail(&["1\n2"], 9), "1\n2");
        assert_eq!(tail(&["1\n2\n3"], 0), "");
        assert_eq!(tail(&[], 3), "");
    }

    #[test]
    fn what_was_written_since() {
        let since =
            |second| LogOptions::all().since(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let pieces = ["0\n", "1\n", "2\n"];
        assert_eq!(read(&pieces, &since(0)), "0\n1\n2\n");
        assert_eq!(read(&pieces, &since(1)), "1\n2\n");
        assert_eq!(read(&pieces, &since(3)), "");
        assert_eq!(read(&pieces, &since(1).tail(1)), "2\n");
        assert_eq!(read(&pieces, &since(1).tail(5)), "1\n2\n");
    }
}
