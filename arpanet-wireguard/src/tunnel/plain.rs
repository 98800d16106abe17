//! A UDP port that no tunnel shares: gossip's, where WireGuard is in the kernel and has a port of its own.

use std::net::{SocketAddr, UdpSocket};

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;

use super::SIDE_CHANNEL_MAGIC;
use super::side::{not_sent, require_magic};
use super::socket::enlarge_buffers;

/// Room for one datagram, in bytes: of those that are longer than [`Datagrams`] says, the rest is cut off.
const ROOM: usize = 2048;

/// The other use of the port, alone.
#[derive(Debug)]
pub struct PlainPort {
    socket: tokio::net::UdpSocket,
}

impl PlainPort {
    /// On a socket that is bound, of whatever namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] where the runtime can't take it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(socket: UdpSocket) -> Result<Self> {
        enlarge_buffers(&socket);
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| tokio::net::UdpSocket::from_std(socket));
        let socket = socket.map_err(|error| {
            Error::new(ErrorKind::Exhausted, "the UDP port can't be waited for").with_source(error)
        })?;
        Ok(Self { socket })
    }
}

#[async_trait]
impl Datagrams for PlainPort {
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        require_magic(datagram)?;
        let sent = self.socket.send_to(datagram, to).await;
        sent.map(drop).map_err(|error| not_sent(to, error))
    }

    /// Whatever is not meant for this use is passed over, such as WireGuard's from who does not know of the other port.
    async fn recv(&self) -> Result<(Bytes, SocketAddr)> {
        let mut room = [0; ROOM];
        loop {
            match self.socket.recv_from(&mut room).await {
                Ok((length, from)) if room[..length].first() == Some(&SIDE_CHANNEL_MAGIC) => {
                    return Ok((Bytes::copy_from_slice(&room[..length]), from));
                }
                Ok(_) => {}
                // What the underlay says to an earlier datagram: the next call waits for the next one.
                Err(error) => tracing::trace!(%error, "a datagram sent earlier was refused"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_carries_what_is_its_own_and_nothing_else() {
        let port = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (one, two) = (port(), port());
        let there = two.local_addr().unwrap();
        let stranger = port();
        let (one, two) = (PlainPort::new(one).unwrap(), PlainPort::new(two).unwrap());
        stranger.send_to(&[1, 0, 0, 0], there).unwrap();
        stranger.send_to(&[], there).unwrap();
        let refused = one.send(&[1, 2, 3], there).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        one.send(&[SIDE_CHANNEL_MAGIC, 7], there).await.unwrap();
        let (datagram, from) = two.recv().await.unwrap();
        assert_eq!(&datagram[..], [SIDE_CHANNEL_MAGIC, 7]);
        assert_eq!(from, one.socket.local_addr().unwrap());
    }
}
