//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
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

/// Nobody, containers of two networks, a host.
const SOURCES: [Option<u32>; 4] = [
    None,
    Some(0x0a01_0009),
    Some(0x0a02_0009),
    Some(0x0aff_0001),
];

/// Any bytes as a question: what is said to them fits, is an answer to them, and the quick way says what the long one does.
pub fn question(asked: &[u8]) {
    let Some((how, message)) = asked.split_first() else {
        return;
    };
    let source = SOURCES[usize::from(how >> 1) % SOURCES.len()].map(Ipv4Addr::from);
    let upstreams = (how % 2 == 0).then(|| ([192, 0, 2, 1], 53).into());
    let forwarding = shared(DnsConfig::default().upstreams(upstreams));
    if let Some(said) = say(&forwarding, message, source, By::Datagram) {
        assert!(said.len() <= 1_232);
        assert_eq!(said[..2], message[..2]);
        assert!(Message::from_vec(&said).is_ok() || said.len() == 12);
    }
    let [mut quick, mut slow] = [Scratch::default(), Scratch::default()];
    for by in [By::Datagram, By::Stream] {
        // Two, so that it is the same instance's turn in both.
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
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn any_bytes_are_a_question_or_none() {
        hold(seeds("dns_question"), 300, super::question);
    }
}
