//! What fuzz targets reach and nobody else: compiled with `--cfg fuzzing` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::time::{Instant, SystemTime};

use super::PrivateKey;
use super::protocol::{Call, Guard, Initiation, Keypair, Kind, Seal, Timestamp, Verdict};
use super::protocol::{data_index, receiver};
use super::segments::Run;

/// Datagrams of anybody, to a side that has a session and waits for an answer: nothing is believed. With `knowing`, the
/// sender knows whom it calls, as every member does.
pub fn datagrams(datagrams: Vec<&[u8]>, knowing: bool) {
    let (ours, theirs) = (key(1), key(2));
    let now = Instant::now();
    let timestamp = Timestamp::of(SystemTime::UNIX_EPOCH);
    let begin = |index| Initiation::begin(&ours, &theirs.public_key(), index, timestamp).unwrap();
    let (mut agreed, message) = begin(7);
    let (response, _) = Call::read(&theirs, &message).unwrap().answer(8).unwrap();
    let session = Keypair::new(&agreed.finish(&response).unwrap(), true, now).unwrap();
    let (mut waiting, message) = begin(9);
    let mut guard = Guard::new(&ours.public_key());
    let mut seal = Seal::new(&theirs.public_key());
    seal.put(&mut message.to_vec(), now);
    for datagram in datagrams {
        let mut datagram = datagram.to_vec();
        let kind = Kind::of(&datagram);
        assert_eq!(data_index(&datagram).is_some(), kind == Some(Kind::Data));
        let Some(kind) = kind else {
            assert!(Call::read(&ours, &datagram).is_err());
            continue;
        };
        receiver(kind, &datagram);
        match kind {
            Kind::Data => assert!(session.open(&mut datagram).is_err()),
            Kind::CookieReply => assert!(!seal.take(&datagram, now)),
            Kind::Initiation | Kind::Response => {
                if knowing {
                    Seal::new(&ours.public_key()).put(&mut datagram, now);
                }
                let verdict = guard.judge(&datagram, ([192, 0, 2, 1], 9).into(), now);
                assert_eq!(knowing, verdict != Verdict::Drop);
                assert!(Call::read(&ours, &datagram).is_err());
                assert!(waiting.finish(&datagram).is_err());
            }
        }
    }
    // The genuine one is still taken.
    let (response, _) = Call::read(&theirs, &message).unwrap().answer(8).unwrap();
    assert!(waiting.finish(&response).is_ok());
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
