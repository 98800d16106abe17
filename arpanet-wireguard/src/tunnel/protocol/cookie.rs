//! The two MACs at the end of an initiation and a response (sections 5.4.4 and 5.4.7): the first shows that the sender
//! knows whom it calls, the second, asked for under load, that it can be reached where it says that it is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::{AeadInPlace, XChaCha20Poly1305};
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::super::PublicKey;
use super::message::{COOKIE_REPLY, Kind, MAC, head, sender};

/// Handshakes a second, of all senders, before they have to show that they are where they say: what a cluster of hundreds
/// needs that begins at one moment.
const QUIET: u32 = 500;
/// Handshakes a second from one address that has shown it.
const FROM_ONE: u32 = 50;
/// How long a cookie is good, and a secret gives cookies.
const COOKIE_LIFE: Duration = Duration::from_secs(120);
/// What a cookie's way may have taken.
const LATENCY: Duration = Duration::from_secs(5);
const NONCE: usize = 24;

fn key(label: &[u8], public: &PublicKey) -> [u8; 32] {
    Blake2s256::new()
        .chain_update(label)
        .chain_update(public.as_bytes())
        .finalize()
        .into()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Option<Blake2sMac<U16>> {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).ok()?;
    for part in parts {
        Update::update(&mut mac, part);
    }
    Some(mac)
}

fn tag(key: &[u8], parts: &[&[u8]]) -> [u8; MAC] {
    // The keys are of 16 and 32 bytes, which is what it takes.
    mac(key, parts).map_or([0; MAC], |mac| mac.finalize_fixed().into())
}

/// In constant time.
fn is_tag(key: &[u8], parts: &[&[u8]], given: &[u8]) -> bool {
    mac(key, parts).is_some_and(|mac| mac.verify_slice(given).is_ok())
}

/// Puts the MACs on what goes to one peer.
#[derive(Debug)]
pub(in super::super) struct Seal {
    mac1: [u8; 32],
    cookie_key: [u8; 32],
    /// Of the last message.
    last: Option<[u8; MAC]>,
    cookie: Option<([u8; MAC], Instant)>,
}

impl Seal {
    pub(in super::super) fn new(peer: &PublicKey) -> Self {
        Self {
            mac1: key(b"mac1----", peer),
            cookie_key: key(b"cookie--", peer),
            last: None,
            cookie: None,
        }
    }

    /// Fills in both.
    pub(in super::super) fn put(&mut self, message: &mut [u8], now: Instant) {
        let Some(at) = message.len().checked_sub(2 * MAC) else {
            return;
        };
        let (body, macs) = message.split_at_mut(at);
        let mac1 = tag(&self.mac1, &[body]);
        macs[..MAC].copy_from_slice(&mac1);
        self.last = Some(mac1);
        let fresh = |given: &([u8; MAC], Instant)| {
            now.saturating_duration_since(given.1) < COOKIE_LIFE - LATENCY
        };
        if let Some((cookie, _)) = self.cookie.filter(fresh) {
            macs[MAC..].copy_from_slice(&tag(&cookie, &[body, &mac1]));
        }
    }

    /// Keeps the cookie for the next message, if the reply is to the last one.
    pub(in super::super) fn take(&mut self, reply: &[u8], now: Instant) -> bool {
        let Some(last) = self.last else { return false };
        if Kind::of(reply) != Some(Kind::CookieReply) {
            return false;
        }
        let (nonce, sealed) = reply[8..].split_at(NONCE);
        let (cookie, mac) = sealed.split_at(MAC);
        let Ok(mut cookie) = <[u8; MAC]>::try_from(cookie) else {
            return false;
        };
        let opened = XChaCha20Poly1305::new(&self.cookie_key.into()).decrypt_in_place_detached(
            nonce.into(),
            &last,
            &mut cookie,
            mac.into(),
        );
        if opened.is_ok() {
            self.last = None;
            self.cookie = Some((cookie, now));
        }
        opened.is_ok()
    }
}

/// What is to become of an initiation or a response.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// It is worth the work of reading it.
    Read,
    /// Too much comes: this is the answer, with a cookie.
    Ask([u8; COOKIE_REPLY]),
    /// Nothing.
    Drop,
}

/// Looks at the MACs of what comes.
#[derive(Debug)]
pub(in super::super) struct Guard {
    mac1: [u8; 32],
    cookie_key: [u8; 32],
    /// Of which cookies are made, and since when.
    secret: Option<([u8; 32], Instant)>,
    /// The second that is counted.
    second: Option<Instant>,
    all: u32,
    from: HashMap<IpAddr, u32>,
}

impl Guard {
    /// For what is sent to the owner of this key.
    pub(in super::super) fn new(own: &PublicKey) -> Self {
        Self {
            mac1: key(b"mac1----", own),
            cookie_key: key(b"cookie--", own),
            secret: None,
            second: None,
            all: 0,
            from: HashMap::new(),
        }
    }

    /// Judges an initiation or a response.
    pub(in super::super) fn judge(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Verdict {
        let Some(at) = message.len().checked_sub(2 * MAC) else {
            return Verdict::Drop;
        };
        let (body, macs) = message.split_at(at);
        let (mac1, mac2) = macs.split_at(MAC);
        if !is_tag(&self.mac1, &[body], mac1) {
            return Verdict::Drop;
        }
        let over = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.second.is_none_or(over) {
            self.second = Some(now);
            self.all = 0;
            self.from.clear();
        }
        self.all = self.all.saturating_add(1);
        if self.all <= QUIET {
            return Verdict::Read;
        }
        let Some(cookie) = self.cookie(from, now) else {
            return Verdict::Drop;
        };
        if !is_tag(&cookie, &[body, mac1], mac2) {
            return self
                .ask(message, mac1, cookie)
                .map_or(Verdict::Drop, Verdict::Ask);
        }
        // Only addresses that have shown to be real are kept, and only for a second.
        let count = self.from.entry(from.ip()).or_default();
        *count += 1;
        if *count <= FROM_ONE {
            Verdict::Read
        } else {
            Verdict::Drop
        }
    }

    fn cookie(&mut self, from: SocketAddr, now: Instant) -> Option<[u8; MAC]> {
        let fresh = |since: Instant| now.saturating_duration_since(since) < COOKIE_LIFE;
        let secret = match self.secret {
            Some((secret, since)) if fresh(since) => secret,
            _ => {
                let mut secret = [0; 32];
                OsRng.try_fill_bytes(&mut secret).ok()?;
                self.secret = Some((secret, now));
                secret
            }
        };
        let port = from.port().to_be_bytes();
        Some(match from.ip() {
            IpAddr::V4(ip) => tag(&secret, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => tag(&secret, &[&ip.octets(), &port]),
        })
    }

    fn ask(
        &self,
        message: &[u8],
        mac1: &[u8],
        mut cookie: [u8; MAC],
    ) -> Option<[u8; COOKIE_REPLY]> {
        let mut nonce = [0; NONCE];
        OsRng.try_fill_bytes(&mut nonce).ok()?;
        let mac = XChaCha20Poly1305::new(&self.cookie_key.into())
            .encrypt_in_place_detached(&nonce.into(), mac1, &mut cookie)
            .ok()?;
        let mut reply = [0; COOKIE_REPLY];
        reply[..4].copy_from_slice(&head(Kind::CookieReply));
        reply[4..8].copy_from_slice(&sender(message).to_le_bytes());
        reply[8..][..NONCE].copy_from_slice(&nonce);
        reply[8 + NONCE..][..MAC].copy_from_slice(&cookie);
        reply[8 + NONCE + MAC..].copy_from_slice(&mac);
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::INITIATION;
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn start() -> (Seal, Guard, [u8; INITIATION], Instant) {
        let public = PublicKey::from_bytes([9; 32]);
        let mut message = [5; INITIATION];
        message[..4].copy_from_slice(&head(Kind::Initiation));
        (
            Seal::new(&public),
            Guard::new(&public),
            message,
            Instant::now(),
        )
    }

    #[test]
    fn who_does_not_know_whom_it_calls_is_not_read() {
        let (mut seal, mut guard, mut message, now) = start();
        assert_eq!(guard.judge(&message, at(1), now), Verdict::Drop);
        seal.put(&mut message, now);
        assert_eq!(guard.judge(&message, at(1), now), Verdict::Read);
        assert_eq!(guard.judge(&message[..20], at(1), now), Verdict::Drop);
        Seal::new(&PublicKey::from_bytes([8; 32])).put(&mut message, now);
        assert_eq!(guard.judge(&message, at(1), now), Verdict::Drop);
    }

    #[test]
    fn under_load_who_has_a_cookie_is_read_and_who_has_another_address_is_not() {
        let (mut seal, mut guard, mut message, now) = start();
        seal.put(&mut message, now);
        for _ in 0..QUIET {
            assert_eq!(guard.judge(&message, at(1), now), Verdict::Read);
        }
        let Verdict::Ask(reply) = guard.judge(&message, at(1), now) else {
            panic!("it was read under load")
        };
        assert_eq!(Kind::of(&reply), Some(Kind::CookieReply));
        let mut forged = reply;
        forged[40] ^= 1;
        assert!(!seal.take(&forged, now));
        assert!(seal.take(&reply, now));
        assert!(!seal.take(&reply, now), "one reply, one message");
        seal.put(&mut message, now);
        assert_eq!(guard.judge(&message, at(1), now), Verdict::Read);
        assert!(matches!(guard.judge(&message, at(2), now), Verdict::Ask(_)));
        for _ in 1..FROM_ONE {
            assert_eq!(guard.judge(&message, at(1), now), Verdict::Read);
        }
        assert_eq!(guard.judge(&message, at(1), now), Verdict::Drop);
        // And a second later all is quiet.
        let later = now + Duration::from_secs(1);
        assert_eq!(guard.judge(&message, at(2), later), Verdict::Read);
    }

    #[test]
    fn of_sources_that_have_not_shown_where_they_are_nothing_is_kept() {
        let (mut seal, mut guard, mut message, now) = start();
        seal.put(&mut message, now);
        for number in 0..5_000_u32 {
            let source = std::net::Ipv4Addr::from_bits(0x0A00_0000 + number);
            let verdict = guard.judge(&message, (source, 9).into(), now);
            assert_eq!(verdict == Verdict::Read, number < QUIET, "{number}");
        }
        assert_eq!(guard.from.capacity(), 0);
    }

    #[test]
    fn a_cookie_that_is_old_is_not_used() {
        let (mut seal, mut guard, mut message, now) = start();
        seal.put(&mut message, now);
        guard.all = QUIET;
        guard.second = Some(now);
        let Verdict::Ask(reply) = guard.judge(&message, at(1), now) else {
            panic!("it was read under load")
        };
        assert!(seal.take(&reply, now));
        let mut with = message;
        seal.put(&mut with, now + Duration::from_secs(114));
        assert_ne!(with[INITIATION - MAC..], message[INITIATION - MAC..]);
        let mut without = message;
        seal.put(&mut without, now + Duration::from_secs(115));
        assert_eq!(without, message);
    }
}
