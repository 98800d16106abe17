//! Where things are in the four messages (section 5.4 of the paper). All numbers are little-endian.

use std::ops::Range;

/// Bytes of an initiation.
pub(in super::super) const INITIATION: usize = 148;
/// Bytes of a response.
pub(in super::super) const RESPONSE: usize = 92;
/// Bytes of a cookie reply.
pub(in super::super) const COOKIE_REPLY: usize = 64;
/// Bytes before the sealed packet: kind, receiver, counter.
pub(in super::super) const DATA_HEADER: usize = 16;
/// Bytes of Poly1305's tag, behind it.
pub(in super::super) const TAG: usize = 16;
/// What the protocol adds to a packet, in bytes.
pub(in super::super) const DATA_OVERHEAD: usize = DATA_HEADER + TAG;

/// Of one MAC. Initiations and responses end with two.
pub(super) const MAC: usize = 16;
/// The handshake's own part, behind kind and sender.
pub(super) const INITIATION_NOISE: Range<usize> = 8..INITIATION - 2 * MAC;
/// The handshake's own part, behind kind, sender and receiver.
pub(super) const RESPONSE_NOISE: Range<usize> = 12..RESPONSE - 2 * MAC;

/// What a datagram is, by its first bytes and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Initiation,
    Response,
    CookieReply,
    Data,
}

impl Kind {
    /// `None` if it is no message of WireGuard.
    pub(in super::super) fn of(datagram: &[u8]) -> Option<Self> {
        match (datagram.first_chunk()?, datagram.len()) {
            ([1, 0, 0, 0], INITIATION) => Some(Self::Initiation),
            ([2, 0, 0, 0], RESPONSE) => Some(Self::Response),
            ([3, 0, 0, 0], COOKIE_REPLY) => Some(Self::CookieReply),
            ([4, 0, 0, 0], DATA_OVERHEAD..) => Some(Self::Data),
            _ => None,
        }
    }
}

/// A message's first bytes.
pub(in super::super) const fn head(kind: Kind) -> [u8; 4] {
    let number = match kind {
        Kind::Initiation => 1,
        Kind::Response => 2,
        Kind::CookieReply => 3,
        Kind::Data => 4,
    };
    [number, 0, 0, 0]
}

/// The number at a place, or 0 behind the end.
pub(super) fn number(message: &[u8], at: usize) -> u32 {
    let bytes = message.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u32::from_le_bytes)
}

/// The index by which an initiation's or a response's sender wants to be answered.
pub(super) fn sender(message: &[u8]) -> u32 {
    number(message, 4)
}

/// The index of ours that a response or a cookie reply says it answers.
pub(in super::super) fn receiver(kind: Kind, message: &[u8]) -> u32 {
    number(message, if kind == Kind::Response { 8 } else { 4 })
}

/// The index of the session that a data message says it belongs to; `None` if it is another message.
pub(in super::super) fn data_index(datagram: &[u8]) -> Option<u32> {
    (Kind::of(datagram) == Some(Kind::Data)).then(|| number(datagram, 4))
}
