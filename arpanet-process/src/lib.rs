#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adoption;
mod config;
mod contact;
mod engine;
mod entry;
mod error;
mod exec;
mod folder;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod log;
mod logs;
mod mounts;
mod resolver;
mod runtime;
pub mod shim;
mod status;
mod turns;
mod wire;

pub use config::{ProcessConfig, ShimCommand};
pub use runtime::ProcessRuntime;
