//! What an engine sends, counted by what it is for.

use serde::Serialize;

use super::Engine;
use crate::swim::Said;
use crate::wire::Message;

/// Datagrams, and their bytes with all that gossip puts around them; IP and UDP take 28 more each (RFC 768, RFC 791).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sent {
    /// How many.
    pub datagrams: u64,
    /// How long all of them are.
    pub bytes: u64,
}

/// What an engine has sent so far, by what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Asking members whether they are there, and answering that.
    pub probes: Sent,
    /// News about members. Those that came along with probes count their bytes here, and no datagram.
    pub news: Sent,
    /// Changes of records and of the roster to all, and their confirmations.
    pub changes: Sent,
    /// Finding out how two nodes differ.
    pub comparison: Sent,
    /// What they differed in.
    pub mending: Sent,
    /// Proofs of being there, keys, and everything else.
    pub other: Sent,
}

impl Traffic {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Sent {
        let all = [
            self.probes,
            self.news,
            self.changes,
            self.comparison,
            self.mending,
            self.other,
        ];
        Sent {
            datagrams: all.iter().map(|sent| sent.datagrams).sum(),
            bytes: all.iter().map(|sent| sent.bytes).sum(),
        }
    }
}

/// What a datagram is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    Probe { carried: usize },
    News,
    Change,
    Comparison,
    Mending,
    Other,
}

impl Aim {
    pub(super) const fn of(message: &Message) -> Self {
        match message {
            Message::Push { .. }
            | Message::Roster { .. }
            | Message::Propose { .. }
            | Message::Ack { .. } => Self::Change,
            Message::Compare { .. }
            | Message::Compared { .. }
            | Message::RosterDigest { .. }
            | Message::MembersAsk { .. }
            | Message::Digest { .. }
            | Message::Wanted { .. }
            | Message::Done { .. } => Self::Comparison,
            Message::RosterPart { .. } | Message::MembersPart { .. } | Message::Part { .. } => {
                Self::Mending
            }
        }
    }

    pub(super) const fn of_swim(said: Said, carried: usize) -> Self {
        match said {
            Said::Ping | Said::Probe => Self::Probe { carried },
            Said::News => Self::News,
        }
    }
}

impl Engine {
    /// What has been sent so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    pub(super) fn count(&mut self, aim: Aim, datagram: usize) {
        let traffic = &mut self.traffic;
        let (sent, carried) = match aim {
            Aim::Probe { carried } => (&mut traffic.probes, carried),
            Aim::News => (&mut traffic.news, 0),
            Aim::Change => (&mut traffic.changes, 0),
            Aim::Comparison => (&mut traffic.comparison, 0),
            Aim::Mending => (&mut traffic.mending, 0),
            Aim::Other => (&mut traffic.other, 0),
        };
        sent.datagrams += 1;
        sent.bytes += datagram.saturating_sub(carried) as u64;
        traffic.news.bytes += carried as u64;
    }
}
