//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::cell::RefCell;
use std::time::{Instant, SystemTime};

use arpanet_core::conformance::bytes::Draw;

use super::PrivateKey;
use super::protocol::{COOKIE_REPLY, DATA_OVERHEAD, INITIATION, RESPONSE};
use super::protocol::{Call, Guard, Initiation, Keypair, Kind, Seal, Timestamp, Verdict};
use super::protocol::{data_index, head, receiver};
use super::segments::Run;

/// A side that has a session and waits for an answer.
struct Side {
    key: PrivateKey,
    session: Keypair,
    waiting: Initiation,
    guard: Guard,
    seal: Seal,
}

impl Side {
    fn new() -> Self {
        let (ours, theirs) = (key(1), key(2));
        let now = Instant::now();
        let timestamp = Timestamp::of(SystemTime::UNIX_EPOCH);
        let begin =
            |index| Initiation::begin(&ours, &theirs.public_key(), index, timestamp).unwrap();
        let (mut agreed, message) = begin(7);
        let (response, _) = Call::read(&theirs, &message).unwrap().answer(8).unwrap();
        let (waiting, mut message) = begin(9);
        let mut seal = Seal::new(&theirs.public_key());
        seal.put(&mut message, now);
        Self {
            session: Keypair::new(&agreed.finish(&response).unwrap(), true, now).unwrap(),
            waiting,
            guard: Guard::new(&ours.public_key()),
            seal,
            key: ours,
        }
    }
}

thread_local! {
    /// Made once, since nothing that comes may change it.
    static SIDE: RefCell<Side> = RefCell::new(Side::new());
}

/// Datagrams of anybody, dressed up as messages of a kind or not at all: nothing is believed. Every other time the sender
/// knows whom it calls, as every member does.
pub fn datagrams(said: &[u8]) {
    const KINDS: [Option<Kind>; 5] = [
        None,
        Some(Kind::Initiation),
        Some(Kind::Response),
        Some(Kind::CookieReply),
        Some(Kind::Data),
    ];
    let mut said = Draw::new(said);
    let knowing = said.coin();
    SIDE.with_borrow_mut(|side| {
        while !said.is_done() {
            let kind = said.one_of(&KINDS);
            let mut datagram = said.piece().to_vec();
            if let Some(kind) = kind {
                let length = match kind {
                    Kind::Initiation => INITIATION,
                    Kind::Response => RESPONSE,
                    Kind::CookieReply => COOKIE_REPLY,
                    Kind::Data => datagram.len().max(DATA_OVERHEAD),
                };
                datagram.resize(length, 0);
                datagram[..4].copy_from_slice(&head(kind));
                assert_eq!(Kind::of(&datagram), Some(kind));
            }
            one(side, datagram, knowing);
        }
    });
}

fn one(side: &mut Side, mut datagram: Vec<u8>, knowing: bool) {
    let (kind, now) = (Kind::of(&datagram), Instant::now());
    assert_eq!(data_index(&datagram).is_some(), kind == Some(Kind::Data));
    let Some(kind) = kind else { return };
    receiver(kind, &datagram);
    match kind {
        Kind::Data => assert!(side.session.open(&mut datagram).is_err()),
        Kind::CookieReply => assert!(!side.seal.take(&datagram, now)),
        Kind::Initiation | Kind::Response => {
            if knowing {
                Seal::new(&side.key.public_key()).put(&mut datagram, now);
            }
            let from = ([192, 0, 2, 1], 9).into();
            let verdict = side.guard.judge(&datagram, from, now);
            assert_eq!(knowing, verdict != Verdict::Drop);
            assert!(Call::read(&side.key, &datagram).is_err());
            assert!(side.waiting.finish(&datagram).is_err());
        }
    }
}

/// Packets of a member: written to the device in their order, each payload once.
pub fn packets(said: &[u8]) {
    let mut said = Draw::new(said);
    let mut run = Run::new(said.coin());
    let mut taken = Vec::new();
    for packet in said.pieces() {
        if let Some(packet) = run.push(packet) {
            written(&run, &taken);
            run.clear();
            taken.clear();
            assert!(run.push(packet).is_none(), "an empty run takes anything");
        }
        taken.push(packet);
    }
    if !run.is_empty() {
        written(&run, &taken);
    }
}

/// In one write, of these packets: all of them, but for the headers that they have in common.
fn written(run: &Run<&[u8]>, taken: &[&[u8]]) {
    let (header, parts) = run.parts();
    let header = header.as_bytes().len();
    let parts: Vec<&[u8]> = parts.collect();
    assert!(header + parts.concat().len() <= tun_rs::VIRTIO_NET_HDR_LEN + 65_535);
    let common = header - tun_rs::VIRTIO_NET_HDR_LEN;
    assert!(common == 0 || taken.len() > 1);
    let left: Vec<&[u8]> = taken.iter().map(|packet| &packet[common..]).collect();
    assert_eq!(parts, left);
}

fn key(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[byte; 32])
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    use super::*;

    #[test]
    fn no_datagrams_of_anybody_are_believed_by_the_tunnel() {
        hold(seeds("tunnel_datagrams"), 1_000, datagrams);
    }

    #[test]
    fn no_packets_of_a_member_are_more_than_the_device_takes() {
        hold(seeds("tunnel_packets"), 10_000, packets);
    }
}
