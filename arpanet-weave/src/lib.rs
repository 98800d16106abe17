#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod announcement;
mod backend;
mod client;
mod command;
mod config;
mod detour;
mod diagnosis;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod launcher;
mod leftovers;
mod log;
mod name;
mod offload;
mod password;
mod port;
mod record;
mod report;
mod running;

pub use arpanet_router::RouterConfig;
pub use backend::{Weave, WeaveOverlay};
pub use config::{ForeignRouter, WeaveConfig};
pub use name::PeerName;
pub use password::RouterPassword;
