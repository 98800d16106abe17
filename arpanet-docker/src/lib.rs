#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod backend;
mod client;
mod config;
pub mod driver;
mod endpoints;
mod error;
mod exec;
mod facts;
mod host_program;
mod image;
mod keep;
mod logs;
mod moment;
mod part;
mod resolver;
mod spec;
mod turns;
mod view;
mod watch;

#[cfg(any(test, fuzzing))]
pub use self::api::fuzzing;
pub use self::api::{ContainerDns, DockerApi, DockerApiConfig};
pub use self::backend::DockerRuntime;
pub use self::config::DockerConfig;
pub use self::facts::{EngineFacts, EngineNetwork};
pub use self::host_program::HostPrograms;
pub use self::part::{Part, PartConfig};
