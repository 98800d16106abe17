//! The docker API on the overlay.
//!
//! One connection of a client is one connection to the engine. What the engine says is never read, only handed on; of
//! what the client says only the heads of requests are, to find the creations of containers. After an upgrade nothing is.

mod chunked;
mod config;
mod connection;
mod creation;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod head;
mod network;
mod refusal;
mod requests;
mod server;

pub use config::{ContainerDns, DockerApiConfig};
pub use server::DockerApi;
