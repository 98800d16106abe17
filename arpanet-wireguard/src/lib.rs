#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod config;
mod ping;
mod preflight;
mod router;
mod side;
pub mod tunnel;

pub use backend::WireGuardOverlay;
pub use config::WireGuardConfig;
