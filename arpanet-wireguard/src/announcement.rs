//! What others have to know to reach a node's tunnel.

use std::net::SocketAddr;

use arpanet_core::overlay::Announcement;
use arpanet_core::{Error, ErrorKind, NodeAddr, Result};

use crate::tunnel::PublicKey;

/// A node's key, and the UDP port of its tunnel where that is not the overlay's own: 32 bytes, or 34.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) key: PublicKey,
    pub(crate) port: Option<u16>,
}

impl Announced {
    pub(crate) fn announce(self) -> Announcement {
        let port = self.port.map(u16::to_be_bytes);
        let bytes = [
            &self.key.as_bytes()[..],
            port.as_ref().map_or(&[], |port| port),
        ];
        Announcement(bytes.concat().into())
    }

    pub(crate) fn read(node: NodeAddr, announcement: &Announcement) -> Result<Self> {
        let bytes = &announcement.0[..];
        let unreadable = || {
            let message = format!(
                "the announcement of node {node} is no WireGuard key: it has {} bytes, not 32 or 34",
                bytes.len()
            );
            Error::new(ErrorKind::InvalidInput, message)
        };
        let (key, port) = bytes.split_first_chunk().ok_or_else(unreadable)?;
        let port = match port {
            [] => None,
            [high, low] => Some(u16::from_be_bytes([*high, *low])),
            _ => return Err(unreadable()),
        };
        let key = PublicKey::from_bytes(*key);
        Ok(Self { key, port })
    }

    /// Where its tunnel is, for a node that is there.
    pub(crate) fn tunnel_at(self, node: SocketAddr) -> SocketAddr {
        SocketAddr::new(node.ip(), self.port.unwrap_or(node.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read() {
        let node = NodeAddr::new(0, 2).unwrap();
        let key = PublicKey::from_bytes([7; 32]);
        let there = "192.0.2.7:4711".parse().unwrap();
        for (port, at) in [(None, "192.0.2.7:4711"), (Some(51821), "192.0.2.7:51821")] {
            let announced = Announced { key, port };
            let read = Announced::read(node, &announced.announce()).unwrap();
            assert_eq!(read, announced);
            assert_eq!(read.tunnel_at(there), at.parse().unwrap());
        }
        for length in [0, 31, 33, 35] {
            let bytes = Announcement(vec![1; length].into());
            assert!(Announced::read(node, &bytes).is_err(), "{length}");
        }
    }
}
