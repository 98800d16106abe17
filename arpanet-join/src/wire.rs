//! What stands on the wire before the channel is sealed: the preamble and length-prefixed JSON frames.
//!
//! JSON, so that a later minor version can say more: unknown fields are passed over.

use std::fmt;
use std::net::SocketAddr;

use arpanet_core::NodeAddr;
use arpanet_core::roster::ClusterId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::KdfParams;
use crate::error::Fault;

/// The version of the join protocol that this crate speaks.
pub const PROTOCOL: Version = Version::new(1, 0);

const MAGIC: [u8; 8] = *b"arpanet2";
/// Magic, major, minor.
pub(crate) const PREAMBLE: usize = 12;
/// The most bytes of a frame in the clear.
pub(crate) const CLEAR_FRAME: usize = 4 * 1024;

/// A version of the join protocol. Another minor is understood, another major is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// `major.minor`.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Whether the two understand each other.
    #[must_use]
    pub const fn fits(self, other: Self) -> bool {
        self.major == other.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The bytes by which a side tells what it speaks.
pub(crate) fn preamble(version: Version) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&version.major.to_be_bytes());
    bytes[10..].copy_from_slice(&version.minor.to_be_bytes());
    bytes
}

/// The version that a preamble tells.
pub(crate) fn parse_preamble(bytes: [u8; PREAMBLE]) -> Result<Version, Fault> {
    let [magic @ .., a, b, c, d] = bytes;
    if magic != MAGIC {
        return Err(Fault::Stranger);
    }
    Ok(Version::new(
        u16::from_be_bytes([a, b]),
        u16::from_be_bytes([c, d]),
    ))
}

/// Reads a preamble, and gives up at the first byte that no preamble has: a stranger may never send twelve.
pub(crate) async fn read_preamble(stream: &mut (impl AsyncRead + Unpin)) -> Result<Version, Fault> {
    let mut bytes = [0; PREAMBLE];
    let mut filled = 0;
    while filled < PREAMBLE {
        let read = stream.read(&mut bytes[filled..]).await?;
        let known = (filled + read).min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(Fault::Stranger);
        }
        if read == 0 {
            return Err(if filled == 0 {
                Fault::Closed
            } else {
                Fault::Stranger
            });
        }
        filled += read;
    }
    parse_preamble(bytes)
}

/// The joiner's first words: who it is and whom it means to dial.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) me: NodeAddr,
    pub(crate) seed: NodeAddr,
}

/// What the seed says to that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Its half of the PAKE, and what the joiner needs for the other.
    Offer(Offer),
    /// It is another node than the joiner means.
    AnotherNode { node: NodeAddr },
    /// It is a client. These admit.
    AdmitsNobody {
        node: NodeAddr,
        servers: Vec<(NodeAddr, SocketAddr)>,
    },
    /// The joiner's address has guessed wrong too often.
    TooManyGuesses { retry_after_ms: u64 },
    /// Others are proving themselves at this moment.
    Busy,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) node: NodeAddr,
    pub(crate) cluster: ClusterId,
    pub(crate) kdf: KdfParams,
    pub(crate) salt: [u8; 16],
    pub(crate) pake: Vec<u8>,
}

/// The joiner's half of the PAKE, and that it has the key. The joiner proves first, so that a seed tells nothing to
/// whoever only guesses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) pake: Vec<u8>,
    pub(crate) confirm: [u8; 32],
}

/// That the seed has the key, or that the joiner does not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Confirmation {
    Right { confirm: [u8; 32] },
    Wrong,
}

/// Writes a frame: its length in four bytes, then it.
pub(crate) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    body: &[u8],
) -> Result<(), Fault> {
    let length = u32::try_from(body.len()).map_err(|_| Fault::TooLong(body.len()))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads a frame of at most `most` bytes.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Vec<u8>, Fault> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(Fault::TooLong(length));
    }
    let mut body = vec![0; length];
    read_exact(stream, &mut body).await?;
    Ok(body)
}

async fn read_exact(stream: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> Result<(), Fault> {
    match stream.read_exact(into).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Fault::Closed),
        Err(error) => Err(error.into()),
    }
}

/// A message as a frame's body: kept as bytes, since the transcript binds these and not what they mean.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(message).map_err(Fault::Malformed)
}

/// What a frame's body says.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_minor_fits_and_another_major_does_not() {
        assert!(Version::new(1, 0).fits(Version::new(1, 1)));
        assert!(!Version::new(1, 9).fits(Version::new(2, 0)));
    }

    #[tokio::test]
    async fn a_stranger_is_known_by_its_first_bytes() {
        for words in [
            "HTTP/1.1 400 Bad Request\r\n",
            "a",
            "arpanet1....",
            "SSH-2.0",
        ] {
            let error = read_preamble(&mut words.as_bytes()).await.unwrap_err();
            assert!(matches!(error, Fault::Stranger), "{words}");
        }
        let silent = read_preamble(&mut &[][..]).await.unwrap_err();
        assert!(matches!(silent, Fault::Closed));
        let version = Version::new(7, 3);
        let told = read_preamble(&mut &preamble(version)[..]).await.unwrap();
        assert_eq!(told, version);
    }

    #[tokio::test]
    async fn a_frame_is_bounded_before_memory_is_taken_for_it() {
        let huge = u32::MAX.to_be_bytes();
        let error = read_frame(&mut &huge[..], CLEAR_FRAME).await.unwrap_err();
        assert!(matches!(error, Fault::TooLong(_)));
    }
}
