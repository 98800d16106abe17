//! Datagrams on the underlay, for protocols that are written without sockets.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// An unreliable datagram transport on the underlay: a UDP socket of one's own, the side channel of a tunnel's port, or
/// a simulated network.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Datagrams: fmt::Debug + Send + Sync + 'static {
    /// Sends one datagram of at most 1,400 bytes. Success says nothing about its arrival.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the underlay refuses it now; the caller carries on.
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()>;

    /// The next datagram and who sent it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) once the transport is closed; no datagram comes after that.
    async fn recv(&self) -> Result<(Bytes, SocketAddr)>;
}
