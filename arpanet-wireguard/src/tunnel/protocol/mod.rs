//! The protocol of WireGuard, without sockets and clocks (Donenfeld: "WireGuard: Next Generation Kernel Network
//! Tunnel", <https://www.wireguard.com/papers/wireguard.pdf>).
//!
//! The handshake's cryptography is `snow`'s, of which WireGuard is one pattern. What is here is what WireGuard adds to it:
//! the messages, the proof that a sender knows whom it calls and where it is called back, and the data.

mod cookie;
mod handshake;
mod keypair;
mod message;
mod replay;

use std::time::Duration;

pub(super) use cookie::{Guard, Seal, Verdict};
pub(super) use handshake::{Call, Initiation, Times, Timestamp};
pub(super) use keypair::Keypair;
#[cfg(any(test, fuzzing))]
pub(super) use message::{COOKIE_REPLY, INITIATION, RESPONSE, head};
pub(super) use message::{DATA_HEADER, DATA_OVERHEAD, Kind, TAG, data_index, receiver};

/// A session's initiator agrees on another after this time, when it sends.
pub(super) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// A session is not used after this time.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// An initiation is repeated after this time, and some more so that two do not keep meeting on their way.
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Initiations are repeated for this long.
pub(super) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Who has received data answers within this time, if only with an empty packet.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A session's initiator agrees on another after this many packets.
pub(super) const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// A session does not carry more packets than this: no counter is used twice.
pub(super) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
