//! What the fuzz targets do, for them and for this crate's tests: compiled with `--cfg fuzzing` or `test` only.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "for fuzz targets only"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use arpanet_core::{Error, NodeAddr};

use crate::PeerName;
use crate::client::read_report;
use crate::diagnosis::{Observation, look, targets};
use crate::error::answered;

/// The longest of a router's words that are told on, with what is around them.
const WORDS: usize = 700;

/// Reports of a router, one after the other, with a zero between them: what is read out of them has bounds, and what it is told then is what was wanted.
pub fn reports(said: &[u8]) {
    let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 6783));
    let peers: [(NodeAddr, Option<SocketAddr>); 3] = [
        ("0.1".parse().unwrap(), Some(at(1))),
        ("0.2".parse().unwrap(), Some(at(2))),
        ("0.3".parse().unwrap(), None),
    ];
    let mut seen = peers.map(|_| Observation::default());
    for said in said
        .split(|byte| *byte == 0)
        .filter_map(|said| std::str::from_utf8(said).ok())
    {
        is_bounded(&answered("here", reqwest::StatusCode::BAD_REQUEST, said));
        let router = match read_report("here", said) {
            Ok(report) => report.router,
            Err(error) => {
                is_bounded(&error);
                continue;
            }
        };
        for ((node, endpoint), seen) in peers.iter().zip(&mut seen) {
            let name = PeerName::of(*node);
            let routed = look(&router, name, *endpoint).is_ok();
            assert!(!routed || router.has_route(name));
            assert!(!routed || router.peer_name() != Some(name));
            seen.add(&router, name, *endpoint);
            if let Some(fault) = seen.fault(*node, *endpoint) {
                assert!(!routed);
                is_bounded(&fault);
            }
            is_bounded(&seen.timeout(*node, *endpoint, Duration::from_secs(5)));
        }
        tell(&router.targets, router.port);
    }
}

/// A router that was told what is missing, and to forget the rest, has what was wanted.
fn tell(told: &[String], port: u16) {
    let wanted: BTreeSet<SocketAddr> = ["192.0.2.1:6783", "192.0.2.2:7000"]
        .map(|at| at.parse().unwrap())
        .into();
    let (new, old) = targets(told, &wanted, port);
    let old: BTreeSet<SocketAddr> = old.into_iter().collect();
    assert!(old.is_disjoint(&wanted));
    let mut after = told.to_vec();
    after.extend(new.iter().map(ToString::to_string));
    let (missing, too_many) = targets(&after, &wanted, port);
    assert!(missing.is_empty());
    assert_eq!(too_many.into_iter().collect::<BTreeSet<_>>(), old);
}

fn is_bounded(error: &Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let told = error.to_string();
        assert!(told.chars().count() <= WORDS, "{told:?}");
        assert!(!told.contains(char::is_control), "{told:?}");
        cause = error.source();
    }
}

#[cfg(test)]
mod tests {
    use arpanet_core::conformance::bytes::{hold, seeds};

    #[test]
    fn whatever_a_router_reports_is_an_error_or_holds_the_rules() {
        hold(seeds("weave_reports"), 2_000, super::reports);
    }
}
