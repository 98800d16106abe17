#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod answering;
mod authority;
mod batch;
mod config;
#[cfg(any(test, fuzzing))]
mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod index;
mod question;
mod quick;
mod server;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod upstream;

pub use self::config::DnsConfig;
pub use self::server::DnsServer;
