#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod announcement;
mod backend;
mod config;
mod factory;
mod preflight;
mod running;
mod side;
pub mod tunnel;

pub use arpanet_router::{RouterConfig, UNDERLAY_MARK};
pub use backend::{WireGuard, WireGuardOverlay};
pub use config::{TunnelKind, WireGuardConfig, tunnel_port_beside};
pub use factory::{
    AnyTunnels, KernelTunnels, Launched, RecordingTunnels, TunnelFactory, TunnelSpec, UserTunnels,
};
