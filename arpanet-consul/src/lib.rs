#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
mod backend;
mod blocking;
mod check;
mod client;
mod config;

mod error;
mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hosted;
mod instances;
mod key_value;
mod leadership;
mod locks;
mod members;
mod pulse;
mod reading;
mod registry;
mod rest;
mod running;
mod starting;
mod store;
mod tls;
mod told;
mod translate;
mod transport;
mod txn;
mod wire;

pub use self::agent::ConsulAgent;
pub use self::backend::ConsulDiscovery;
pub use self::check::ServiceCheck;
pub use self::config::{Consistency, ConsulConfig, TlsConfig, Token};
pub use self::hosted::HostedConsul;
pub use self::key_value::ConsulKeyValue;
