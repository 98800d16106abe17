//! The tunnel's side channel as a thing that is there before the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use arpanet_core::{Datagrams, Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

/// Datagrams on the tunnel's UDP port, of whichever tunnel runs now.
#[derive(Debug)]
pub(crate) struct SidePort {
    current: watch::Sender<Option<Arc<dyn Datagrams>>>,
}

impl SidePort {
    pub(crate) fn new() -> Self {
        Self {
            current: watch::Sender::new(None),
        }
    }

    pub(crate) fn set(&self, channel: Option<Arc<dyn Datagrams>>) {
        self.current.send_replace(channel);
    }
}

#[async_trait]
impl Datagrams for SidePort {
    async fn send(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        let channel = self.current.borrow().clone();
        match channel {
            Some(channel) => channel.send(datagram, to).await,
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "the overlay is not launched, and its port not open",
            )),
        }
    }

    /// Waits for the first datagram also while no tunnel runs yet.
    async fn recv(&self) -> Result<(Bytes, SocketAddr)> {
        let mut current = self.current.subscribe();
        loop {
            let channel = current.borrow_and_update().clone();
            if let Some(channel) = channel {
                return channel.recv().await;
            }
            if current.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Unavailable, "the overlay is gone"));
            }
        }
    }
}
