//! Frames of logs and exec on the agent's socket: one byte of kind, four of length (big endian), then the bytes.

use arpanet_core::{Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest payload of a frame.
const LIMIT: u32 = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For standard input; an empty one is its end.
    Stdin,
    /// Of standard output.
    Stdout,
    /// Of standard error.
    Stderr,
    /// The exit code, four bytes, big endian.
    Exit,
    /// A terminal's size: columns and rows, two bytes each, big endian.
    Resize,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Exit,
        Self::Resize,
    ];
}

/// Writes one frame.
pub(crate) fn encode(kind: Kind, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + payload.len());
    frame.put_u8(kind as u8);
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

/// Reads one frame; `None` at the end of the stream.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<(Kind, Bytes)>> {
    let broken = |source: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "the stream broke off").with_source(source)
    };
    let kind = match stream.read_u8().await {
        Ok(kind) => kind,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let length = stream.read_u32().await.map_err(broken)?;
    let kind = Kind::ALL
        .get(usize::from(kind))
        .copied()
        .filter(|_| length <= LIMIT);
    let Some(kind) = kind else {
        return Err(Error::new(
            ErrorKind::Incompatible,
            "the stream is not one of frames",
        ));
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.map_err(broken)?;
    Ok(Some((kind, payload.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_round_trip_and_garbage_is_refused() {
        let mut wire = encode(Kind::Stdout, b"hello").to_vec();
        wire.extend_from_slice(&encode(Kind::Exit, &7i32.to_be_bytes()));
        let mut stream = wire.as_slice();
        assert_eq!(
            read(&mut stream).await.unwrap(),
            Some((Kind::Stdout, Bytes::from_static(b"hello")))
        );
        assert_eq!(read(&mut stream).await.unwrap().unwrap().0, Kind::Exit);
        assert_eq!(read(&mut stream).await.unwrap(), None);
        let error = read(&mut &b"HTTP/1.1 400"[..]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
    }
}
