#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod connection;
mod error;
mod ledger;
mod link;
mod namespace;
mod port;
mod preflight;
mod route;
mod rule;
mod snapshot;
mod sysctl;
mod wireguard;

pub use address::Address;
pub use connection::Netlink;
#[cfg(any(test, fuzzing))]
pub use ledger::fuzzing;
pub use ledger::{Change, Ledger, Mark, VethPair};
pub use link::{Link, MacAddr, VethEnd};
pub use namespace::Namespace;
pub use port::{Transport, holder_of_address, holder_of_port};
pub use preflight::{Clash, Held, clashes};
pub use route::{Route, RouteKind, RouteScope, TABLE_LOCAL, TABLE_MAIN};
pub use rule::{Rule, RuleAction};
pub use snapshot::HostSnapshot;
pub use wireguard::{
    DeviceChange, PeerChange, WireGuard, WireGuardDevice, WireGuardPeer, WireGuardSecret,
};
