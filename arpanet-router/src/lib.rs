#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attach;
mod carrier;
mod config;
mod overlay;
mod peers;
mod ping;
mod plan;
mod plug;
mod prober;
mod router;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod underlay;
mod uplink;

pub use carrier::{Carrier, Ground, Session};
pub use config::RouterConfig;
pub use overlay::RoutedOverlay;
pub use peers::{Answers, Peers};
pub use ping::Pinger;
pub use plan::UNDERLAY_MARK;
pub use prober::RouterProber;
pub use router::{HOST_LINK, Router};
pub use underlay::underlay_mtu;
pub use uplink::{Uplink, Way};
