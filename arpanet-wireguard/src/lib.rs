#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod config;
mod factory;
mod ping;
mod preflight;
mod router;
mod running;
mod side;
pub mod tunnel;

pub use backend::WireGuardOverlay;
pub use config::WireGuardConfig;
pub use factory::{Launched, RecordingTunnels, TunnelFactory, UserTunnels};
pub use router::UNDERLAY_MARK;
