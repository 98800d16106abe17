#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod docker;
mod engine;
mod guest;
pub mod holder;
mod host;
mod image;
mod lab;
mod podman;
mod process;
mod state;
mod switch;

pub use self::config::{HolderCommand, LabConfig};
pub use self::engine::Engine;
pub use self::guest::{Guest, GuestRun};
pub use self::image::IMAGE;
pub use self::lab::{HostStatus, Lab, Protocol};
pub use self::process::Ending;
