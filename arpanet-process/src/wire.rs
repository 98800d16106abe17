//! What an agent and a shim say to each other over the container's socket.
//!
//! A connection carries one request. Frames are one byte of kind, four of length, and the payload.

use std::io;
use std::time::Duration;

use arpanet_core::runtime::ExecSpec;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::status::Status;

/// Longest payload. A frame says more only when the other side is broken.
const LIMIT: usize = 4 << 20;

/// How much input for a command may be on its way that the shim has not told as taken.
pub(crate) const WINDOW: usize = 256 << 10;

/// What an agent asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run the command. Answered once.
    Start,
    /// Stop it; answered when it has ended.
    Stop { grace: Duration },
    /// End everything at once, keep nothing; answered when it has ended.
    Kill,
    /// Tell the status now and at each change; ends with the container.
    Follow,
    /// Tell each time that output was written since; ends with the container.
    Growth,
    /// Run a command in the container; answered, then the streams.
    Exec(ExecSpec),
}

/// Why a shim refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    InvalidInput,
    Exhausted,
    PermissionDenied,
    Unavailable,
    /// Another shim has the container.
    Taken,
    Internal,
}

/// What a shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) refusal: Option<Refusal>,
}

/// A refusal, told to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
        }
    }
}

impl From<Refusal> for arpanet_core::Error {
    fn from(refusal: Refusal) -> Self {
        use arpanet_core::ErrorKind;
        let kind = match refusal.cause {
            Cause::InvalidInput => ErrorKind::InvalidInput,
            Cause::Exhausted => ErrorKind::Exhausted,
            Cause::PermissionDenied => ErrorKind::PermissionDenied,
            Cause::Unavailable => ErrorKind::Unavailable,
            Cause::Taken => ErrorKind::AlreadyExists,
            Cause::Internal => ErrorKind::Internal,
        };
        let error = crate::error::own(kind, refusal.message);
        match refusal.cause {
            Cause::PermissionDenied => error
                .with_hint("the process runtime needs root, or CAP_SYS_ADMIN in a user namespace"),
            _ => error,
        }
    }
}

impl From<&arpanet_core::Error> for Refusal {
    fn from(error: &arpanet_core::Error) -> Self {
        use arpanet_core::ErrorKind;
        let cause = match error.kind() {
            ErrorKind::InvalidInput => Cause::InvalidInput,
            ErrorKind::Exhausted => Cause::Exhausted,
            ErrorKind::PermissionDenied => Cause::PermissionDenied,
            ErrorKind::Unavailable => Cause::Unavailable,
            ErrorKind::AlreadyExists => Cause::Taken,
            _ => Cause::Internal,
        };
        Self::new(cause, error.to_string())
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A request, an answer or a status, as JSON.
    Message(Bytes),
    /// To a command: its input. From a command: its standard output.
    Data(Bytes),
    /// From a command: its standard error.
    Errors(Bytes),
    /// To a command: no more input.
    End,
    /// To a command: its terminal's columns and rows.
    Resize(u16, u16),
    /// From a command: this much input was taken, so that as much more may be sent.
    Taken(u32),
    /// From a command: it has ended; the last frame.
    Exited(i32),
    /// Output was written.
    Grown,
}

impl Frame {
    pub(crate) fn message(value: &impl Serialize) -> io::Result<Self> {
        Ok(Self::Message(serde_json::to_vec(value)?.into()))
    }

    /// The message in it.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        match self {
            Self::Message(json) => Ok(serde_json::from_slice(json)?),
            _ => Err(invalid("a message was expected")),
        }
    }

    fn payload(&self) -> (u8, Bytes) {
        let number = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        match self {
            Self::Message(json) => (0, json.clone()),
            Self::Data(bytes) => (1, bytes.clone()),
            Self::Errors(bytes) => (2, bytes.clone()),
            Self::End => (3, Bytes::new()),
            Self::Resize(columns, rows) => {
                let [a, b] = columns.to_be_bytes();
                let [c, d] = rows.to_be_bytes();
                (4, number(&[a, b, c, d]))
            }
            Self::Taken(count) => (5, number(&count.to_be_bytes())),
            Self::Exited(code) => (6, number(&code.to_be_bytes())),
            Self::Grown => (7, Bytes::new()),
        }
    }

    fn from_payload(kind: u8, payload: Bytes) -> io::Result<Self> {
        let number = || -> io::Result<[u8; 4]> {
            payload[..]
                .try_into()
                .map_err(|_| invalid("a number of four bytes was expected"))
        };
        Ok(match kind {
            0 => Self::Message(payload),
            1 => Self::Data(payload),
            2 => Self::Errors(payload),
            3 if payload.is_empty() => Self::End,
            4 => {
                let [a, b, c, d] = number()?;
                Self::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            5 => Self::Taken(u32::from_be_bytes(number()?)),
            6 => Self::Exited(i32::from_be_bytes(number()?)),
            7 if payload.is_empty() => Self::Grown,
            _ => {
                return Err(invalid(
                    "a frame of unknown kind, or one that has nothing to say and does",
                ));
            }
        })
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Writes a frame.
pub(crate) async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let (kind, payload) = frame.payload();
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length as usize <= LIMIT)
        .ok_or_else(|| invalid("a frame that is too long"))?;
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&payload);
    to.write_all(&bytes).await
}

/// Reads a frame; `None` when the other side is done. Not to be dropped halfway.
pub(crate) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > LIMIT {
        return Err(invalid("a frame that is too long"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Frame::from_payload(kind, payload.into()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let frames = [
            Frame::message(&Request::Start).unwrap(),
            Frame::Data(Bytes::from_static(b"in")),
            Frame::Errors(Bytes::from_static(b"err")),
            Frame::End,
            Frame::Resize(80, 25),
            Frame::Taken(70_000),
            Frame::Exited(-1),
            Frame::Grown,
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            send(&mut bytes, frame).await.unwrap();
        }
        let mut from = &bytes[..];
        for frame in frames {
            assert_eq!(receive(&mut from).await.unwrap(), Some(frame));
        }
        assert_eq!(receive(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_broken_frame_is_refused() {
        for bytes in [
            &[9, 0, 0, 0, 0][..],
            &[5, 0, 0, 0, 1, 0],
            &[3, 0, 0, 0, 1, 0],
            &[7, 0, 0, 0, 1, 0],
            &[1, 255, 0, 0, 0],
            &[1, 0],
        ] {
            let mut from = bytes;
            assert!(receive(&mut from).await.is_err(), "{bytes:?}");
        }
    }
}
