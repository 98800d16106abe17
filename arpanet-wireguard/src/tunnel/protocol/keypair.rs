//! A session: two keys, and the packets that are sealed and opened with them (section 5.4.6).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::error::Unspecified;

use super::handshake::Keys;
use super::message::{DATA_HEADER, DATA_OVERHEAD, Kind, TAG, head};
use super::replay::Window;
use super::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_TIMEOUT,
};

/// A session's keys. Any number of threads seal and open at the same time.
pub(in super::super) struct Keypair {
    /// By which the other side calls it.
    pub(in super::super) index: u32,
    remote: u32,
    /// Whether this side began the handshake, and is therefore the one that begins the next.
    pub(in super::super) initiator: bool,
    pub(in super::super) since: Instant,
    sender: LessSafeKey,
    receiver: LessSafeKey,
    sent: AtomicU64,
    received: Mutex<Window>,
}

impl Keypair {
    /// The session that a handshake has led to. `None` if the keys can't be used, which no key of 32 bytes is.
    pub(in super::super) fn new(keys: &Keys, initiator: bool, now: Instant) -> Option<Self> {
        let key = |bytes: &[u8; 32]| {
            UnboundKey::new(&CHACHA20_POLY1305, bytes)
                .ok()
                .map(LessSafeKey::new)
        };
        Some(Self {
            index: keys.local,
            remote: keys.remote,
            initiator,
            since: now,
            sender: key(&keys.send)?,
            receiver: key(&keys.receive)?,
            sent: AtomicU64::new(0),
            received: Mutex::default(),
        })
    }

    /// Whether packets may still be sealed or opened with it.
    pub(in super::super) fn is_usable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < REJECT_AFTER_TIME
            && self.sent.load(Ordering::Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Whether who sends with it should agree on another.
    pub(in super::super) fn wants_another(&self, now: Instant) -> bool {
        self.sent.load(Ordering::Relaxed) > REKEY_AFTER_MESSAGES
            || self.initiator && now.saturating_duration_since(self.since) > REKEY_AFTER_TIME
    }

    /// Whether who receives with it should agree on another, since it might not send before it is too late.
    pub(in super::super) fn is_late(&self, now: Instant) -> bool {
        let late = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
        self.initiator && now.saturating_duration_since(self.since) > late
    }

    /// Counters for this many packets, of which each is used for one. `None` when there are no more.
    pub(in super::super) fn reserve(&self, packets: u64) -> Option<std::ops::Range<u64>> {
        // Never past the limit, or so many calls after that it would begin anew.
        let more = |sent: u64| Some(sent + packets).filter(|sent| *sent < REJECT_AFTER_MESSAGES);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let first = self.sent.fetch_update(set, get, more).ok()?;
        Some(first..first + packets)
    }

    /// Seals a packet where it is: `message` is room for the header, the packet, and room for the tag.
    pub(in super::super) fn seal(
        &self,
        counter: u64,
        message: &mut [u8],
    ) -> Result<(), Unspecified> {
        let (header, rest) = message
            .split_first_chunk_mut::<DATA_HEADER>()
            .ok_or(Unspecified)?;
        let (packet, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(Unspecified)?;
        header[..4].copy_from_slice(&head(Kind::Data));
        header[4..8].copy_from_slice(&self.remote.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        let sealed =
            self.sender
                .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Opens a data message where it is, and returns its counter and the packet. Whether it has come before is to be
    /// asked of [`admit`](Self::admit).
    pub(in super::super) fn open<'a>(
        &self,
        message: &'a mut [u8],
    ) -> Result<(u64, &'a mut [u8]), Unspecified> {
        if message.len() < DATA_OVERHEAD {
            return Err(Unspecified);
        }
        let (header, sealed) = message.split_at_mut(DATA_HEADER);
        let counter = header.last_chunk().copied().map(u64::from_le_bytes);
        let counter = counter
            .filter(|counter| *counter < REJECT_AFTER_MESSAGES)
            .ok_or(Unspecified)?;
        let packet = self
            .receiver
            .open_in_place(nonce(counter), Aad::empty(), sealed)?;
        Ok((counter, packet))
    }

    /// Takes out of packets that were opened those that had come before.
    pub(in super::super) fn admit<T>(&self, opened: &mut Vec<(u64, T)>) {
        let mut window = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|(counter, _)| window.admit(*counter));
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keypair")
            .field("index", &self.index)
            .field("initiator", &self.initiator)
            .finish_non_exhaustive()
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pair() -> (Keypair, Keypair) {
        let now = Instant::now();
        let keys = |local, remote, send, receive| Keys {
            local,
            remote,
            send: [send; 32].into(),
            receive: [receive; 32].into(),
        };
        let a = Keypair::new(&keys(7, 8, 1, 2), true, now).unwrap();
        let b = Keypair::new(&keys(8, 7, 2, 1), false, now).unwrap();
        (a, b)
    }

    fn sealed(by: &Keypair, packet: &[u8]) -> Vec<u8> {
        let mut message = vec![0; DATA_OVERHEAD + packet.len()];
        message[DATA_HEADER..][..packet.len()].copy_from_slice(packet);
        let counter = by.reserve(1).unwrap().start;
        by.seal(counter, &mut message).unwrap();
        message
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_other_side_once() {
        let (a, b) = pair();
        let message = sealed(&a, b"packet");
        assert_eq!(message[..8], [4, 0, 0, 0, 8, 0, 0, 0]);
        assert!(!message.windows(6).any(|part| part == b"packet"));
        let mut twice = Vec::new();
        for mut copy in [message.clone(), message.clone()] {
            let (counter, packet) = b.open(&mut copy).unwrap();
            assert_eq!(packet, b"packet");
            twice.push((counter, ()));
        }
        b.admit(&mut twice);
        assert_eq!(twice, [(0, ())]);
        assert!(a.open(&mut message.clone()).is_err(), "its own");
    }

    #[test]
    fn a_message_that_was_changed_anywhere_is_refused() {
        let (a, b) = pair();
        let message = sealed(&a, b"packet");
        for at in 8..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(b.open(&mut changed).is_err(), "byte {at}");
        }
        for length in 0..message.len() {
            assert!(
                b.open(&mut message.clone()[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn no_counter_is_given_twice_nor_one_past_the_limit() {
        let (a, b) = pair();
        let now = a.since;
        assert_eq!(a.reserve(3), Some(0..3));
        assert_eq!(a.reserve(1), Some(3..4));
        a.sent.store(REJECT_AFTER_MESSAGES - 2, Ordering::Relaxed);
        assert!(a.is_usable(now) && a.wants_another(now));
        assert_eq!(a.reserve(2), None);
        assert!(a.reserve(1).is_some());
        assert_eq!(a.reserve(1), None);
        // One that claims to be past it.
        let mut message = vec![0; DATA_OVERHEAD];
        a.seal(REJECT_AFTER_MESSAGES, &mut message).unwrap();
        assert!(b.open(&mut message).is_err());
    }

    #[test]
    fn age_ends_a_session_and_has_its_initiator_agree_on_another_before() {
        let (a, b) = pair();
        let after = |seconds| a.since + Duration::from_secs(seconds);
        assert!(!a.wants_another(after(120)) && a.wants_another(after(121)));
        assert!(!b.wants_another(after(121)));
        assert!(!a.is_late(after(165)) && a.is_late(after(166)) && !b.is_late(after(166)));
        assert!(b.is_usable(after(179)) && !b.is_usable(after(180)));
    }
}
