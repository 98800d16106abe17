//! What `--only` chooses.

use std::str::FromStr;

use arpanet_core::Error;

use super::peer::PeerKind;
use super::row::Row;

/// A row, a peer, or one of the other: `ROW`, `/PEER`, `ROW/PEER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Only {
    row: Option<Row>,
    peer: Option<PeerKind>,
}

impl Only {
    pub(super) fn wants(self, row: Row, peer: PeerKind) -> bool {
        self.row.is_none_or(|it| it == row) && self.wants_peer(peer)
    }

    pub(super) fn wants_peer(self, peer: PeerKind) -> bool {
        self.peer.is_none_or(|it| it == peer)
    }
}

impl FromStr for Only {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (row, peer) = match text.split_once('/') {
            None => (Some(text.parse()?), None),
            Some(("", peer)) => (None, Some(peer.parse()?)),
            Some((row, peer)) => (Some(row.parse()?), Some(peer.parse()?)),
        };
        Ok(Self { row, peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Only {
        text.parse().unwrap()
    }

    #[test]
    fn a_row_a_peer_or_both() {
        assert!(only("boot").wants(Row::Boot, PeerKind::Swarm));
        assert!(!only("boot").wants(Row::Join, PeerKind::Swarm));
        assert!(only("/swarm").wants(Row::Join, PeerKind::Swarm));
        assert!(!only("/swarm").wants(Row::Join, PeerKind::Veth));
        assert!(only("four-streams/veth").wants(Row::Streams, PeerKind::Veth));
        assert!(!only("four-streams/veth").wants(Row::Streams, PeerKind::Vxlan));
    }

    #[test]
    fn every_name_is_its_own() {
        for row in Row::ALL {
            assert_eq!(row.name().parse::<Row>().unwrap(), row);
        }
        for peer in PeerKind::ALL {
            assert_eq!(peer.name().parse::<PeerKind>().unwrap(), peer);
        }
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        for (text, wrong) in [("speed", "speed"), ("boot/k8s", "k8s"), ("", "")] {
            let error = text.parse::<Only>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
            assert!(error.hint().is_some());
        }
    }
}
