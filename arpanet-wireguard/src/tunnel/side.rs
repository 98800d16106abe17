//! Datagrams of other protocols on the tunnel's UDP port.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use nix::sys::socket::MsgFlags;
use tokio::sync::{Mutex, mpsc};

use super::engine::{Engine, stopped};

/// The first byte of every datagram that is not WireGuard's, whose first bytes are 1 to 4.
pub const SIDE_CHANNEL_MAGIC: u8 = 0xA2;

/// Datagrams kept for a reader that is late; more are dropped and counted.
pub(super) const QUEUE: usize = 512;

/// The part of the tunnel's UDP port that gossip uses. Clones share one queue: each datagram is received once.
#[derive(Clone)]
pub struct SideChannel {
    engine: Arc<Engine>,
    queue: Arc<Mutex<mpsc::Receiver<(Bytes, SocketAddr)>>>,
}

impl SideChannel {
    pub(super) fn new(engine: Arc<Engine>, queue: mpsc::Receiver<(Bytes, SocketAddr)>) -> Self {
        Self {
            engine,
            queue: Arc::new(Mutex::new(queue)),
        }
    }
}

/// Datagrams beside the tunnel are told from the tunnel's by their first byte.
pub(super) fn require_magic(datagram: &[u8]) -> Result<()> {
    match datagram.first() {
        Some(&SIDE_CHANNEL_MAGIC) => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "a datagram beside the tunnel begins with the byte 0xA2",
        )),
    }
}

pub(super) fn not_sent(to: SocketAddr, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("nothing can be sent to {to}"),
    )
    .operation("send")
    .with_source(error)
}

#[async_trait]
impl Datagrams for SideChannel {
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        require_magic(datagram)?;
        if self.engine.is_stopped() {
            return Err(stopped());
        }
        self.engine
            .send_flagged(datagram, to, MsgFlags::MSG_DONTWAIT)
            .map_err(|error| not_sent(to, error))
    }

    async fn recv(&self) -> Result<(Bytes, SocketAddr)> {
        self.queue.lock().await.recv().await.ok_or_else(stopped)
    }
}

impl fmt::Debug for SideChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SideChannel").finish_non_exhaustive()
    }
}
