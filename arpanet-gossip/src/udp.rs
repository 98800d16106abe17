//! Datagrams over a UDP socket of one's own.

use std::net::SocketAddr;

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// What a burst of answers needs while this process waits for a core.
const BUFFER: usize = 4 * 1024 * 1024;

/// A UDP socket as a [`Datagrams`].
#[derive(Debug)]
pub struct UdpDatagrams {
    socket: UdpSocket,
}

impl UdpDatagrams {
    /// Binds a socket; port 0 takes any free one. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the address can't be had.
    pub fn bind(at: SocketAddr) -> Result<Self> {
        let bound = || -> std::io::Result<UdpSocket> {
            let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            // As large as the system allows: less is no failure.
            let _ = socket.set_recv_buffer_size(BUFFER);
            let _ = socket.set_send_buffer_size(BUFFER);
            socket.bind(&at.into())?;
            UdpSocket::from_std(socket.into())
        };
        let socket = bound().map_err(|source| {
            Error::new(ErrorKind::Unavailable, format!("{at}/udp can't be bound"))
                .operation("bind")
                .backend("gossip")
                .with_hint("is another process using the port?")
                .with_source(source)
        })?;
        Ok(Self { socket })
    }

    /// With this mark on what it sends (SO_MARK), by which the host's routing rules may tell it from others.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) without `CAP_NET_ADMIN`.
    #[cfg(target_os = "linux")]
    pub fn marked(self, mark: u32) -> Result<Self> {
        let marked = socket2::SockRef::from(&self.socket).set_mark(mark);
        marked.map_err(|source| {
            Error::new(
                ErrorKind::PermissionDenied,
                "datagrams can't be marked here",
            )
            .operation("bind")
            .backend("gossip")
            .with_source(source)
        })?;
        Ok(self)
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) when the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(|source| {
            Error::new(ErrorKind::Internal, "the socket has no address").with_source(source)
        })
    }
}

#[async_trait]
impl Datagrams for UdpDatagrams {
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        match self.socket.send_to(datagram, to).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the underlay refuses a datagram to {to}"),
            )
            .operation("send")
            .backend("gossip")
            .with_source(source)),
        }
    }

    async fn recv(&self) -> Result<(Bytes, SocketAddr)> {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => return Ok((Bytes::copy_from_slice(&buffer[..length]), from)),
                // An ICMP error of an earlier datagram; the next call waits for a datagram.
                Err(error) => tracing::trace!(%error, "a datagram sent earlier was refused"),
            }
        }
    }
}
