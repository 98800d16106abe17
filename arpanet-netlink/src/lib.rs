#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod connection;
mod error;
mod link;
mod namespace;
mod route;
mod rule;
mod sysctl;

pub use address::Address;
pub use connection::Netlink;
pub use link::{Link, MacAddr, VethEnd};
pub use namespace::Namespace;
pub use route::{Route, RouteKind, RouteScope, TABLE_LOCAL, TABLE_MAIN};
pub use rule::{Rule, RuleAction};
