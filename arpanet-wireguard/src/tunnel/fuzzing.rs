//! What fuzz targets reach and nobody else: compiled with `--cfg fuzzing` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::cell::RefCell;
use std::time::{Instant, SystemTime};

use super::PrivateKey;
use super::protocol::{Call, Guard, Initiation, Keypair, Kind, Seal, Timestamp, Verdict};
use super::protocol::{data_index, receiver};
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

/// Datagrams of anybody, dressed up as messages of a kind or not at all: nothing is believed. With `knowing`, the sender
/// knows whom it calls, as every member does.
pub fn datagrams(datagrams: Vec<(u8, &[u8])>, knowing: bool) {
    SIDE.with_borrow_mut(|side| {
        for (kind, datagram) in datagrams {
            let mut datagram = datagram.to_vec();
            let length = match kind {
                1 => 148,
                2 => 92,
                3 => 64,
                4 => datagram.len().max(32),
                _ => 0,
            };
            if length > 0 {
                datagram.resize(length, 0);
                datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
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
pub fn packets(packets: &[&[u8]], datagrams: bool) {
    let mut run = Run::new(datagrams);
    for packet in packets {
        if let Some(packet) = run.push(*packet) {
            written(&run);
            run.clear();
            assert!(run.push(packet).is_none(), "an empty run takes anything");
        }
    }
    if !run.is_empty() {
        written(&run);
    }
}

fn written(run: &Run<&[u8]>) {
    let (header, parts) = run.parts();
    let total = header.as_bytes().len() + parts.map(<[u8]>::len).sum::<usize>();
    assert!(total <= tun_rs::VIRTIO_NET_HDR_LEN + 65_535);
}

fn key(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[byte; 32])
}
