#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
mod client;
mod config;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod limit;
mod request;
mod seed;
mod session;
mod state;
mod verifier;
mod wire;

pub use self::backend::JoinAdmission;
pub use self::config::JoinConfig;
pub use self::identity::{NodeIdentity, Signature, verify};
pub use self::state::JoinState;
pub use self::verifier::{KdfParams, Verifier};
pub use self::wire::{PROTOCOL, Version};
