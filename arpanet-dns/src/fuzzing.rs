//! What fuzz targets reach and nobody else: compiled with `--cfg fuzzing` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::net::Ipv4Addr;

use hickory_proto::op::Message;

use crate::DnsConfig;
use crate::answering::Answered;
use crate::fixture::{say, shared};
use crate::quick::Scratch;
use crate::upstream::By;

/// Any bytes as a question: what is said to them fits, is an answer to them, and the quick way says what the long one does.
pub fn question(message: &[u8], source: Option<u32>, forwards: bool) {
    let source = source.map(Ipv4Addr::from);
    let upstreams = forwards.then(|| ([192, 0, 2, 1], 53).into());
    let config = DnsConfig::default().upstreams(upstreams);
    // Two, so that it is the same instance's turn in both.
    let [one, two] = [config.clone(), config].map(shared);
    if let Some(said) = say(&one, message, source, By::Datagram) {
        assert!(said.len() <= 1_232);
        assert_eq!(said[..2], message[..2]);
        assert!(Message::from_vec(&said).is_ok() || said.len() == 12);
    }
    let [mut quick, mut slow] = [Scratch::default(), Scratch::default()];
    for by in [By::Datagram, By::Stream] {
        let [one, two] = [DnsConfig::default(), DnsConfig::default()].map(shared);
        if one.quickly(message, source, by, &mut quick) {
            assert!(matches!(
                two.slowly(message, source, by, &mut slow),
                Answered::Now
            ));
            let [quick, slow] =
                [&quick, &slow].map(|told| Message::from_vec(&told.answer).unwrap());
            assert_eq!(quick, slow);
        }
    }
    drop(two);
}
