//! What travels inside a sealed datagram.
//!
//! Encoded with postcard. Nodes are their index here and not text: these messages are many.

use std::net::SocketAddr;

use arpanet_core::{NodeAddr, RosterEntry};
use bytes::Bytes;
use foca::Member;
use serde::{Deserialize, Serialize};

use crate::record::Signature;
use crate::roster::SignedEntry;
use crate::swim::SwimId;

/// No datagram is longer.
pub(crate) const MAX_DATAGRAM: usize = 1_200;
/// What a packet may take of it: the rest is header, sender and tag.
pub(crate) const MAX_PACKET: usize = MAX_DATAGRAM - 84;
/// What a message's lists are filled up to, so that it needs no fragments.
pub(crate) const FILL: usize = 1_000;
/// The longest message that is put together from fragments.
pub(crate) const MAX_MESSAGE: usize = 20 * 1024;
/// Answers to one request, before the asker has to ask on.
pub(crate) const BURST: usize = 32;

/// The content of one datagram. A [`Response`](Packet::Response) may have another packet behind it: the answerer's own
/// challenge, or what it has to say to who is proven by it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Packet {
    /// "You are new to me: show that you are there now", with where the datagram came from.
    Challenge { token: u64, seen_at: SocketAddr },
    /// The token back.
    Response { token: u64 },
    /// foca's own.
    Swim(Bytes),
    /// A message in one piece.
    Whole(Message),
    /// A part of a longer one.
    Fragment {
        transfer: u64,
        index: u8,
        count: u8,
        part: Bytes,
    },
    /// "Do you hear me?"
    Echo,
    /// "I do."
    EchoReply,
}

/// What the engines say to each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Message {
    /// A change of the sender's records; acknowledged.
    Push { id: u64, delta: Delta },
    /// Changes of the roster; acknowledged.
    Roster { id: u64, entries: Vec<SignedEntry> },
    /// "May this node be admitted?"; acknowledged with the objection.
    Propose { id: u64, entry: Box<RosterEntry> },
    Ack {
        id: u64,
        objection: Option<Box<RosterEntry>>,
    },

    /// "How do we differ?"
    Compare { id: u64 },
    Compared {
        id: u64,
        hashes: Hashes,
        /// The rank that the answering node knows of the asker.
        your_rank: u64,
    },
    /// "These entries I have from `from` to `to`: send what differs."
    RosterDigest {
        id: u64,
        from: u16,
        to: u16,
        entries: Vec<(u16, u64)>,
    },
    /// Answers to it, and what the answering node wants in turn.
    RosterPart {
        entries: Vec<SignedEntry>,
        wanted: Vec<u16>,
    },
    /// "Whom do you know, from this node on?"
    MembersAsk { id: u64, from: u16 },
    MembersPart {
        members: Vec<(Member<SwimId>, Option<SocketAddr>)>,
    },
    /// "These owners' records I have up to these versions: send what is newer." Two more marks of an owner:
    /// "you are telling me the whole, this far, in the series that ends there".
    Digest {
        id: u64,
        from: u16,
        to: u16,
        owners: Vec<Mark>,
    },
    /// "And you have what I lack."
    Wanted { owners: Vec<Mark> },
    /// An answer to a digest.
    Part { delta: Delta },
    /// The end of the answers to a request; `next` where there is more.
    Done { id: u64, next: Option<u16> },
}

/// Hashes over everything that is replicated: equal where two nodes have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Hashes {
    pub(crate) roster: u64,
    pub(crate) members: u64,
    pub(crate) records: u64,
}

/// How far somebody has an owner's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) owner: u16,
    /// The owner's generation in the roster: another identity starts anew.
    pub(crate) generation: u32,
    pub(crate) version: u64,
}

/// All of an owner's records with versions above `from` and up to `to`, and perhaps some above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    pub(crate) owner: u16,
    pub(crate) generation: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Where the series of deltas that this one is of ends, and [`WHOLE`](Self::WHOLE).
    pub(crate) target: u64,
    pub(crate) records: Vec<WireRecord>,
}

impl Delta {
    /// The series is of the whole. No version has this bit: who does not know it takes such a delta for another, whose series
    /// never ends.
    pub(crate) const WHOLE: u64 = 1 << 63;

    pub(crate) const fn is_of_whole(&self) -> bool {
        self.target & Self::WHOLE != 0
    }

    /// Where the series ends.
    pub(crate) const fn end(&self) -> u64 {
        self.target & !Self::WHOLE
    }
}

/// A record as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRecord {
    pub(crate) key: String,
    pub(crate) version: u64,
    /// `None`: removed.
    pub(crate) value: Option<Bytes>,
    pub(crate) signature: Signature,
}

impl WireRecord {
    /// About what it takes on the wire.
    pub(crate) fn weight(&self) -> usize {
        80 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// The node with this index, if it can be one.
pub(crate) const fn node(index: u16) -> Option<NodeAddr> {
    NodeAddr::from_index(index)
}

/// Encodes what can't fail to encode: no map, no unknown length, no error of our own.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Decodes a packet, and returns what stands behind it.
pub(crate) fn first_packet(bytes: &[u8]) -> Option<(Packet, &[u8])> {
    let (packet, rest) = postcard::take_from_bytes(bytes).ok()?;
    (rest.is_empty() || matches!(packet, Packet::Response { .. })).then_some((packet, rest))
}

/// Decodes the whole of `bytes`.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// A hash for comparing sets: the sum over the members' hashes. Not against an attacker, who is kept out by the key.
pub(crate) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| {
        let mut x = (hash ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}
