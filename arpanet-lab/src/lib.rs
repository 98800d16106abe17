#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
pub mod holder;
mod host;
mod lab;
mod process;
mod state;
mod switch;

pub use self::config::{HolderCommand, LabConfig};
pub use self::lab::{HostStatus, Lab, Protocol};
