#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
pub mod engine;
mod fragment;
mod peers;
mod record;
mod roster;
mod seal;
mod store;
mod swim;
mod wire;

pub use self::config::GossipConfig;
pub use self::engine::{Engine, GossipState};
pub use self::record::{MAX_KEY, MAX_RECORDS, MAX_VALUE};
pub use self::roster::SignedEntry;
pub use self::seal::{MAGIC, cluster_tag};
