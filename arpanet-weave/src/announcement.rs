//! What other nodes are told of a router: its name and its port. Where arpanet2 launched it both are known without.

use arpanet_core::overlay::Announcement;
use arpanet_core::{ErrorKind, NodeAddr, Result};
use bytes::Bytes;

use crate::PeerName;
use crate::error::own;

/// A router as others have to call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) name: PeerName,
    pub(crate) port: u16,
}

impl Called {
    /// As text: its name, a space, its port.
    pub(crate) fn announce(self) -> Announcement {
        Announcement(Bytes::from(format!("{} {}", self.name, self.port)))
    }

    /// What a node announced; an empty announcement is that of a router with the name that follows from the node's address.
    pub(crate) fn read(node: NodeAddr, announcement: &Announcement, port: u16) -> Result<Self> {
        if announcement.0.is_empty() {
            let name = PeerName::of(node);
            return Ok(Self { name, port });
        }
        let text = std::str::from_utf8(&announcement.0).unwrap_or_default();
        let called = text.split_once(' ').and_then(|(name, port)| {
            Some(Self {
                name: name.parse().ok()?,
                port: port.parse().ok()?,
            })
        });
        called.ok_or_else(|| {
            own(
                ErrorKind::InvalidInput,
                format!("what node {node} announces is no weave router"),
            )
            .with_hint("does that node run another overlay?")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read_and_what_is_not_follows_from_the_address() {
        let node: NodeAddr = "0.2".parse().unwrap();
        let called = Called {
            name: "0a:00:00:00:00:02".parse().unwrap(),
            port: 7000,
        };
        assert_eq!(
            Called::read(node, &called.announce(), 6783).unwrap(),
            called
        );
        let silent = Called::read(node, &Announcement::default(), 6783).unwrap();
        assert_eq!((silent.name, silent.port), (PeerName::of(node), 6783));
        for garbage in [
            &b"?"[..],
            b"0a:00:00:00:00:02",
            b"0a:00:00:00:00:02 x",
            &[0xFF; 32],
        ] {
            let garbage = Announcement(Bytes::copy_from_slice(garbage));
            let error = Called::read(node, &garbage, 6783).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
