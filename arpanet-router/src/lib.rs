#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attach;
mod ping;
mod plan;
mod plug;
mod prober;
mod router;
mod underlay;
mod uplink;

pub use ping::Pinger;
pub use plan::UNDERLAY_MARK;
pub use prober::RouterProber;
pub use router::{HOST_LINK, Router, RouterConfig};
pub use underlay::underlay_mtu;
pub use uplink::{Uplink, Way};
