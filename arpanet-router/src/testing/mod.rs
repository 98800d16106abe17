//! What tests of overlays need, whatever carries the packets: hosts on one switch and containers, which are namespaces of the
//! test's own; what becomes of a packet; and the rig of the suite that every overlay keeps. Panics where something fails.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod beats;
mod container;
mod packet;
mod rig;
mod switch;

pub use beats::Beats;
pub use container::Container;
pub use packet::{Fate, becomes, probe, probe_as};
pub use rig::{Rig, Stationed, membership};
pub use switch::{Switch, behind};

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use arpanet_core::conformance::live;
use arpanet_netlink::Namespace;

/// How long anything may take that is waited for.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A new namespace, or `None` where this process may not make one and the test is to be skipped.
///
/// # Panics
/// Where it may not, and `ARPANET_LIVE` names root.
#[must_use]
pub fn namespace() -> Option<Namespace> {
    live::found_or_skip("root", Namespace::create())
}

/// An address, as it is written.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Waits for what has to come true.
///
/// # Panics
/// Where it does not in [`LIMIT`].
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
