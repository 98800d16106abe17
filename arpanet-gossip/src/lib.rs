#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalogue;
mod config;
mod discovery;
mod driver;
pub mod engine;
mod fragment;
mod handover;
mod keep;
mod peers;
mod record;
mod roster;
mod running;
mod seal;
mod store;
mod swim;
mod udp;
mod wire;

pub use self::config::GossipConfig;
pub use self::discovery::GossipDiscovery;
pub use self::engine::{Engine, GossipState};
pub use self::record::{MAX_KEY, MAX_RECORDS, MAX_VALUE};
pub use self::roster::SignedEntry;
pub use self::seal::{MAGIC, cluster_tag};
pub use self::udp::UdpDatagrams;
